"""Simulated out-of-fold predictions of a repeated cross-validation for tests: 36 patients, 3 repeats, 3 folds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn import metrics as sk

from monai_chd.labels import CLASSES
from monai_chd.metrics.calibration import scale

REPEATS = 3
LABELS = np.repeat([0, 1, 2], [16, 13, 7])
TEMPERATURE = 2.0

SCORES = {
    "accuracy": lambda y, p: sk.accuracy_score(y, p.argmax(1)),
    "balanced_accuracy": lambda y, p: sk.balanced_accuracy_score(y, p.argmax(1)),
    "macro_precision": lambda y, p: sk.precision_score(y, p.argmax(1), average="macro", zero_division=0),
    "macro_recall": lambda y, p: sk.recall_score(y, p.argmax(1), average="macro"),
    "macro_f1": lambda y, p: sk.f1_score(y, p.argmax(1), average="macro"),
    "weighted_precision": lambda y, p: sk.precision_score(y, p.argmax(1), average="weighted", zero_division=0),
    "weighted_recall": lambda y, p: sk.recall_score(y, p.argmax(1), average="weighted"),
    "weighted_f1": lambda y, p: sk.f1_score(y, p.argmax(1), average="weighted"),
    "mcc": lambda y, p: sk.matthews_corrcoef(y, p.argmax(1)),
    "auc_macro": lambda y, p: sk.roc_auc_score(y, p, multi_class="ovr"),
    "log_loss": sk.log_loss,
    "brier": sk.brier_score_loss,
}
"""Every figure of all classes but ECE, which test_formulas holds against scikit-learn."""


def table(seed=0, *, labels=LABELS, repeats=REPEATS, threshold=0.0, signal=1.2, folds=3):
    """Out-of-fold predictions; a patient's scores share a part over repeats, folds are those of seed 0 whatever the seed."""
    shared = np.random.default_rng(99).normal(size=(len(labels), 3))
    shared[np.arange(len(labels)), labels] += signal
    rng, fold_rng = np.random.default_rng(seed), np.random.default_rng(0)
    tables = []
    for repeat in range(repeats):
        raw = softmax(2 * (shared + rng.normal(size=shared.shape)), axis=1)
        calibrated = scale(raw, TEMPERATURE)
        top = calibrated.max(axis=1)
        rows = pd.DataFrame(calibrated, columns=list(CLASSES))
        rows.insert(0, "patient", [f"p{i:03}" for i in range(len(labels))])
        rows.insert(0, "image", [f"ct_p{i:03}.nii.gz" for i in range(len(labels))])
        rows["label"] = [CLASSES[k] for k in labels]
        rows["prediction"] = [CLASSES[k] for k in calibrated.argmax(axis=1)]
        rows["abstain"] = top < threshold
        rows["reason"] = np.where(top < threshold, "confidence below", "")
        rows["repeat"] = repeat
        rows["fold"] = fold_rng.permutation(len(labels)) % folds
        rows[[f"raw_{name}" for name in CLASSES]] = raw
        tables.append(rows)
    return pd.concat(tables, ignore_index=True)


def of_repeat(predictions, repeat, columns=CLASSES):
    rows = predictions[predictions["repeat"] == repeat]
    return np.array([CLASSES.index(name) for name in rows["label"]]), rows[list(columns)].to_numpy()
