"""Metrics of a classification, each with an interval and its number of cases.

Owns what an estimate is and which interval each figure gets; the formulas are the part of `formulas`, how it is written that of
`wording`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from monai_chd.errors import UserError
from monai_chd.labels import CLASSES
from monai_chd.metrics.formulas import (
    CONFIDENCE,
    bca_interval,
    check_confidence,
    patient_weights,
    percentile_interval,
    weighted_figures,
    wilson_interval,
)
from monai_chd.wording import join_faults

SUM_TOLERANCE = 1e-3
"""How far from 1 the probabilities of a case may sum: what half precision leaves of a softmax."""

NO_PATIENT = frozenset({"", "None", "nan", "<NA>"})
"""What a missing patient id looks like as a string."""

METHODS = {
    "wilson": "Wilson score interval; no patient has two cases in the denominator",
    "wilson_mean": "Wilson score interval of the mean over repeats, with the number of patients, not patients times repeats, "
    "as its number of trials; on the wide side, since the mean over repeats varies less than one repeat",
    "wilson_patients": "Wilson score interval of patients: some have several cases, all of them right or all wrong",
    "bca_bootstrap": "bias-corrected and accelerated bootstrap (BCa) of patients; all cases and repeats of a patient are drawn "
    "together",
    "percentile_bootstrap": "percentiles of the same resamples, where BCa is undefined: a figure that all resamples shift one "
    "way, or that does not exist without some patient",
    "centred_bootstrap": "percentiles of the same resamples, moved so that their median is the figure, where resampling shifts "
    "it as a whole (ECE: a resample always looks less calibrated than the data)",
    "not_estimable": "all resamples give the same value, as when all or no cases are right: no interval, not certainty",
    "undefined": "no case in the denominator, or a class without cases on one side",
}
"""The values of `Estimate.method`, explained."""

OVERALL = (
    "accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "weighted_precision",
    "weighted_recall", "weighted_f1", "mcc", "auc_macro", "log_loss", "brier", "ece",
)  # fmt: skip
"""Figures of all classes together, in the order they are shown. Log-loss, Brier score (0..2) and ECE are better when smaller;
`auc_macro` is the mean of the classes' areas, each against the rest."""

SHOWN = tuple(name for name in OVERALL if name != "macro_recall")
"""Those that tables for people have: macro recall stands there as balanced accuracy."""

RANGES = {"mcc": (-1.0, 1.0), "log_loss": (0.0, math.inf), "brier": (0.0, 2.0)}
SHARE = 0.0, 1.0
"""Smallest and largest value of a figure: of these, and of all others."""

SMALLER_IS_BETTER = frozenset({"log_loss", "brier", "ece", "aurc", "augrc"})

FEW = 30
"""A class with fewer cases or patients has an interval that means little."""


class Estimate(TypedDict):
    """A figure with its interval; all None when undefined, no interval when not estimable.

    `n` counts the cases of its denominator: all; for precision those predicted as the class; for recall those of the
    class; for F1 those of the class or predicted as it. With repeats it is the mean over repeats, rounded: n is cases, never
    cases times repeats. `method` is a key of `METHODS`.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str


class ClassEstimates(TypedDict):
    """Figures of one class, `auc` against the rest; `support` is its number of cases."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    auc: Estimate
    support: int


class Intervals(TypedDict):
    """How the intervals of an evaluation were made; `methods` is `METHODS`, so that a saved result explains itself."""

    confidence: float
    resamples: int
    seed: int
    methods: dict[str, str]


class MajorityBaseline(TypedDict):
    """The most frequent class of the evaluated cases and the accuracy of always answering it."""

    label: str
    accuracy: Estimate


class Evaluation(TypedDict):
    """What `evaluate` returns; plain lists, dicts and numbers, so JSON takes it as it is.

    Of several repeats `cases` and `confusion_matrix` are means over them.
    """

    cases: int
    patients: int
    repeats: int
    classes: list[str]
    intervals: Intervals
    overall: dict[str, Estimate]
    majority_baseline: MajorityBaseline
    per_class: dict[str, ClassEstimates]
    confusion_matrix: list[list[float]]


def evaluate(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    patients: Sequence[object],
    repeats: Sequence[object] | None = None,
    resamples: int = 2000,
    confidence: float = CONFIDENCE,
    seed: int = 42,
) -> Evaluation:
    """Measure predictions against labels; the prediction of a case is its most probable class.

    With `repeats` each figure is computed for each repeat on its own and averaged; the interval is that of this mean.
    Accuracy, precision and recall get a Wilson interval, unless a patient has several cases in the denominator: these
    are not independent, so the patients are resampled (or counted, when all cases or none are right). All other figures
    always have the bootstrap by patient. Averages over classes count an undefined precision or F1 as 0
    (scikit-learn's `zero_division=0`, with all classes as `labels`), in the resamples as in the data; macro recall and the
    mean AUC leave out classes that have no case. Macro recall and balanced accuracy are one figure under two names.

    Args:
        labels: class index of each case, shape (N,).
        probabilities: shape (N, K), in the order of `labels.CLASSES`.
        patients: patient of each case, N values; compared as strings.
        repeats: repeat of the cross-validation that predicted each case, N values; None: one.
        resamples: bootstrap resamples.
        confidence: coverage of the intervals, in (0, 1).
        seed: of the resampling; the same seed gives the same intervals, whatever the order of the cases.

    Returns:
        The evaluation; `overall` has `OVERALL`. Rows of `confusion_matrix` are the true classes, columns the predicted.

    Raises:
        UserError: no cases, lengths that differ, a label out of range, probabilities that are none, a missing patient.
    """
    check_confidence(confidence)
    if resamples < 1:
        raise UserError(f"expected at least 1 resample, came {resamples}")
    true, scores, names = _checked(labels, probabilities, patients)
    again = np.zeros(len(true), dtype=np.int64) if repeats is None else np.unique(list(repeats), return_inverse=True)[1]
    if len(again) != len(true):
        raise UserError(f"expected a repeat for each of {len(true)} cases, came {len(again)}")
    persons = _canonical(true, scores, names, again)
    # Sums depend on the order of their terms in the last bit, so the cases get an order of their own.
    order = np.lexsort((*scores.T, true, persons, again))
    estimator = _Estimator(true[order], scores[order], persons[order], again[order], resamples, confidence, seed)
    return {
        "cases": estimator.cases,
        "patients": estimator.counts.shape[1],
        "repeats": len(estimator.counts),
        "classes": list(CLASSES),
        "intervals": {"confidence": confidence, "resamples": resamples, "seed": seed, "methods": dict(METHODS)},
        "overall": estimator.overall(),
        "majority_baseline": estimator.majority_baseline(),
        "per_class": {name: estimator.class_estimates(k) for k, name in enumerate(CLASSES)},
        "confusion_matrix": estimator.confusion_matrix(),
    }


def difference_range(name: str) -> tuple[float, float]:
    """Smallest and largest difference of two values of a figure."""
    low, high = RANGES.get(name, SHARE)
    return low - high, high - low


def bootstrap_estimate(
    value: float,
    resampled: NDArray[np.float64],
    jackknife: NDArray[np.float64],
    n: int,
    confidence: float = CONFIDENCE,
    limits_of_value: tuple[float, float] = SHARE,
) -> Estimate:
    """Estimate with the BCa interval, or the percentile interval where that is undefined.

    Args:
        value: the figure of the data; NaN when undefined.
        resampled: of resamples, shape (R,); those where it is undefined (NaN) are left out.
        jackknife: of the data without each patient, shape (P,).
        n: cases of the denominator.
        confidence: coverage of the interval.
        limits_of_value: smallest and largest value that the figure can have; no interval goes beyond.
    """
    if n == 0 or not np.isfinite(value):
        return {"value": None, "low": None, "high": None, "n": 0, "method": "undefined"}
    value, defined = float(value), resampled[np.isfinite(resampled)]
    # An interval of no width would claim certainty where resampling has nothing to vary.
    if len(defined) == 0 or np.ptp(defined) < 1e-9:
        return {"value": value, "low": None, "high": None, "n": n, "method": "not_estimable"}
    limits, method = bca_interval(value, defined, jackknife, confidence), "bca_bootstrap"
    if limits is None or not limits[0] <= value <= limits[1] or limits[1] - limits[0] < 1e-9:
        limits, method = percentile_interval(defined, confidence), "percentile_bootstrap"
    if not limits[0] <= value <= limits[1]:
        shift = value - float(np.median(defined))
        limits, method = (limits[0] + shift, limits[1] + shift), "centred_bootstrap"
    limits = max(limits[0], limits_of_value[0]), min(limits[1], limits_of_value[1])
    if limits[1] - limits[0] < 1e-9:
        return {"value": value, "low": None, "high": None, "n": n, "method": "not_estimable"}
    return {"value": value, "low": limits[0], "high": limits[1], "n": n, "method": method}


def proportion_estimate(hits: ArrayLike, trials: ArrayLike, confidence: float = CONFIDENCE) -> Estimate | None:
    """Estimate a proportion with a Wilson interval: the mean over repeats, n its mean number of trials.

    Args:
        hits: by repeat and patient, shape (M, P).
        trials: the same; a repeat without any is left out.
        confidence: coverage of the interval.

    Returns:
        The estimate; None when a patient has several trials in a repeat and they are neither all hits nor none, for then
        the trials are not independent.
    """
    won, tried = np.atleast_2d(np.asarray(hits)), np.atleast_2d(np.asarray(trials))
    kept = tried.sum(axis=1) > 0
    if not kept.any():
        return {"value": None, "low": None, "high": None, "n": 0, "method": "undefined"}
    won, tried = won[kept], tried[kept]
    n, successes = tried.sum(axis=1), won.sum(axis=1)
    value, trial_count = float(np.mean(successes / n)), max(1, round(float(n.mean())))
    if tried.max() == 1:
        count = int(successes[0]) if len(n) == 1 else min(value * trial_count, trial_count)
        low, high = wilson_interval(count, trial_count, confidence)
        method = "wilson" if len(n) == 1 else "wilson_mean"
    elif value in (0, 1):
        # Resampling has nothing to vary here, but each patient is one trial that came out all right or all wrong.
        patients = max(1, round(float((tried > 0).sum(axis=1).mean())))
        low, high = wilson_interval(value * patients, patients, confidence)
        method = "wilson_patients"
    else:
        return None
    return {"value": value, "low": low, "high": high, "n": trial_count, "method": method}


def share_by_patient(hits: pd.Series, patients: pd.Series) -> Estimate:
    """Share of cases that are hits; where a patient has several, with the interval of the mean share of the patients.

    Args:
        hits: of each case, bool, (N,).
        patients: of each case.
    """
    counts = hits.groupby(patients).agg(["sum", "count"])
    estimate = proportion_estimate(counts["sum"], counts["count"])
    if estimate is None:
        n, value = len(counts), float((counts["sum"] / counts["count"]).mean())
        low, high = wilson_interval(value * n, n)
        estimate = {"value": value, "low": low, "high": high, "n": n, "method": "wilson_mean"}
    return estimate


def probability_fault(probabilities: NDArray[np.float64]) -> str | None:
    """Say what is wrong with the probabilities of one case, shape (K,); None when nothing is."""
    if probabilities.shape != (len(CLASSES),):
        return f"expected {len(CLASSES)} probabilities, came shape {probabilities.shape}"
    came = probabilities.tolist()
    if not np.isfinite(probabilities).all():
        return f"expected finite probabilities, came {came}"
    if (probabilities < 0).any():
        return f"expected probabilities of at least 0, came {came} (logits? apply softmax)"
    if abs(probabilities.sum() - 1) > SUM_TOLERANCE:
        return f"expected a sum of 1 within {SUM_TOLERANCE}, came {came}, sum {probabilities.sum():.6g}"
    return None


class _Estimator:
    """Figures with intervals of checked cases; `patients` and `repeats` are indices, shape (N,)."""

    def __init__(
        self,
        labels: NDArray[np.int64],
        probabilities: NDArray[np.float64],
        patients: NDArray[np.int64],
        repeats: NDArray[np.int64],
        resamples: int,
        confidence: float,
        seed: int,
    ) -> None:
        size, persons = len(CLASSES), int(patients.max()) + 1
        self.counts = np.zeros((int(repeats.max()) + 1, persons, size, size), dtype=np.int64)  # (M, P, K, K)
        np.add.at(self.counts, (repeats, patients, labels, probabilities.argmax(axis=1)), 1)
        self.mean = self.counts.sum(axis=1).mean(axis=0)  # (K, K)
        self.cases = round(float(self.mean.sum()))
        self.confidence, self.resamples = confidence, resamples
        weights = patient_weights(persons, resamples, seed)
        self.figures = weighted_figures(labels, probabilities, patients, repeats, weights)

    def overall(self) -> dict[str, Estimate]:
        """Figures of all classes together."""
        estimates = {name: self._bootstrap(self.figures[name], self.cases, RANGES.get(name, SHARE)) for name in OVERALL}
        hits = np.diagonal(self.counts, axis1=2, axis2=3).sum(axis=2)
        return estimates | {"accuracy": self._proportion(hits, self.counts.sum(axis=(2, 3)), self.figures["accuracy"])}

    def majority_baseline(self) -> MajorityBaseline:
        """Accuracy of always answering the most frequent class; of equals the first in the order of `CLASSES`."""
        k = int(self.mean.sum(axis=1).argmax())
        support = self.figures["support"]
        total = np.maximum(support.sum(axis=1), 1e-9)
        hits = self.counts[:, :, k].sum(axis=2)
        return {
            "label": CLASSES[k],
            "accuracy": self._proportion(hits, self.counts.sum(axis=(2, 3)), support[:, k] / total),
        }

    def class_estimates(self, k: int) -> ClassEstimates:
        """Figures of the class with index `k`."""
        hits = self.counts[:, :, k, k]  # (M, P)
        precision, recall, f1, auc = (self.figures[name][:, k] for name in ("precision", "recall", "f1", "auc"))
        support, predicted = self.mean[k].sum(), self.mean[:, k].sum()
        return {
            "precision": self._proportion(hits, self.counts[:, :, :, k].sum(axis=2), precision),
            "recall": self._proportion(hits, self.counts[:, :, k].sum(axis=2), recall),
            "f1": self._bootstrap(f1, round(float(support + predicted - self.mean[k, k]))),
            "auc": self._bootstrap(auc, self.cases),
            "support": round(float(support)),
        }

    def confusion_matrix(self) -> list[list[float]]:
        """Counts of one repeat, or means over several."""
        matrix: list[list[float]] = (self.mean if len(self.counts) > 1 else self.counts[0].sum(axis=0)).tolist()
        return matrix

    def _proportion(self, hits: NDArray[Any], trials: NDArray[Any], samples: NDArray[np.float64]) -> Estimate:
        """Estimate hits / trials, both by repeat and patient, with a bootstrap where trials are not independent."""
        estimate = proportion_estimate(hits, trials, self.confidence)
        return estimate or self._bootstrap(samples, round(float(trials.sum(axis=1).mean())))

    def _bootstrap(
        self, samples: NDArray[np.float64], n: int, limits_of_value: tuple[float, float] = SHARE
    ) -> Estimate:
        """Estimate from a figure of the data, the resamples and the data without each patient."""
        value, resampled, jackknife = np.split(samples, [1, 1 + self.resamples])
        return bootstrap_estimate(float(value[0]), resampled, jackknife, n, self.confidence, limits_of_value)


def _canonical(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], names: NDArray[np.str_], repeats: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Index of each case's patient, in an order that depends on what was predicted, not on names or the order of cases."""
    cases: dict[str, list[tuple[Any, ...]]] = {}
    for name, repeat, label, row in zip(names, repeats, labels, probabilities, strict=True):
        cases.setdefault(str(name), []).append((int(repeat), int(label), *row.tolist()))
    ranked = {name: i for i, name in enumerate(sorted(cases, key=lambda name: sorted(cases[name])))}
    return np.array([ranked[str(name)] for name in names], dtype=np.int64)


def _checked(
    labels: ArrayLike, probabilities: ArrayLike, patients: Sequence[object]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.str_]]:
    """Return labels (N,), probabilities (N, K) and patients (N,) as arrays, or raise UserError."""
    true, scores = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    names = [str(patient).strip() for patient in patients]
    if not names:
        raise UserError("expected at least one case, came none")
    if true.shape != (len(names),) or scores.shape != (len(names), len(CLASSES)):
        raise UserError(
            f"expected labels (N,), probabilities (N, {len(CLASSES)}) and N patients, "
            f"came {true.shape}, {scores.shape} and {len(names)}"
        )
    if true.dtype.kind not in "iuf":
        raise UserError(f"expected labels as class indices 0..{len(CLASSES) - 1}, came dtype {true.dtype}")
    faults = [
        f"labels[{i}]: expected a class index 0..{len(CLASSES) - 1}, came {label}"
        for i, label in enumerate(true.tolist())
        if label not in range(len(CLASSES))
    ]
    faults += [f"probabilities[{i}]: {fault}" for i, row in enumerate(scores) if (fault := probability_fault(row))]
    # Cases without a patient would be taken for the cases of one patient.
    faults += [f"patients[{i}]: expected an id, came {name!r}" for i, name in enumerate(names) if name in NO_PATIENT]
    if faults:
        raise UserError(join_faults(faults))
    return true.astype(np.int64), scores, np.array(names)
