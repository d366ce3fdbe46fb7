"""Deals patients into the folds of a cross-validation, and those outside a fold into who trains and who chooses the model.

Pure functions of labels and seeds; which files, settings and folder belong to them is `design`'s part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from monai_chd.errors import UserError
from monai_chd.labels import CLASSES

INNER_SHARE = 0.2
"""Share of the patients outside the outer fold that choose the epoch, the temperature and the abstention threshold."""


def draw_folds(labels: Mapping[str, int], folds: int, repeats: int, seed: int) -> dict[str, list[int]]:
    """Outer fold of every patient in each repeat, stratified by class.

    Args:
        labels: class index of each patient.
        folds: folds of a repeat.
        repeats: number of draws.
        seed: of the first draw; the next has the next number.

    Raises:
        UserError: no patient of a class, or fewer than the folds and the inner split need.
    """
    _check_enough(labels, folds)
    patients = sorted(labels)
    classes = np.array([labels[patient] for patient in patients])
    assignment: dict[str, list[int]] = {patient: [] for patient in patients}
    for repeat in range(repeats):
        splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed + repeat)
        for fold, (_, chosen) in enumerate(splitter.split(classes, classes, groups=np.array(patients))):
            for index in chosen:
                assignment[patients[index]].append(fold)
    return assignment


def _check_enough(labels: Mapping[str, int], folds: int) -> None:
    """Refuse patients of whom no whole fits can be made."""
    counts = Counter(labels.values())
    absent = [name for k, name in enumerate(CLASSES) if not counts[k]]
    if absent:
        present = ", ".join(f"{name} {counts[k]}" for k, name in enumerate(CLASSES) if counts[k]) or "none"
        raise UserError(
            f"cross-validation needs patients of {', '.join(CLASSES)}; came {present}, nobody of {', '.join(absent)}"
        )
    # outside its outer fold a class needs two: one to train on, one for the inner split
    needed = max(folds, next(n for n in range(2, 9) if n - -(-n // folds) >= 2))
    short = [f"{name} has {counts[k]}" for k, name in enumerate(CLASSES) if counts[k] < needed]
    if short:
        raise UserError(
            f"too few patients for {folds} folds: every class needs at least {needed} ({folds} folds x {len(CLASSES)} "
            f"classes), but {', '.join(short)}; choose fewer --folds, or a rule that joins more patients"
        )


def inner_part(labels: Mapping[str, int], seed: int) -> set[str]:
    """Patients of the inner split, which chooses the epoch, the temperature and the threshold.

    Of each class it takes `INNER_SHARE`, at least one patient and never all.

    Args:
        labels: class index of the patients outside the outer fold, two or more of a class.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    chosen: set[str] = set()
    for label in sorted(set(labels.values())):
        own = sorted(patient for patient, value in labels.items() if value == label)
        count = min(max(1, round(INNER_SHARE * len(own))), len(own) - 1)
        chosen |= {own[i] for i in rng.permutation(len(own))[:count]}
    return chosen
