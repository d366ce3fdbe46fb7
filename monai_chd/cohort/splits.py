"""Draws the split: which patients are held out for the test, and which fold each of the others is in.

Knows patients and classes only. Called once, by `datalist.prepare`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from monai_chd.errors import UserError
from monai_chd.identity import first_spellings, patient_key
from monai_chd.labels import CLASSES


def check_choices(folds: int, test_fraction: float, seed: int) -> None:
    """Refuse choices out of range before anything is read.

    Raises:
        UserError: names the first of them.
    """
    if folds < 2:
        raise UserError(f"folds: expected 2 or more, got {folds}")
    if not 0 <= test_fraction < 1:
        raise UserError(f"test fraction: expected 0 or more and below 1, got {test_fraction}")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed: expected 0 to {2**32 - 1}, got {seed}")


def _test_part(classes: np.ndarray, test_fraction: float, seed: int) -> np.ndarray:
    """Indices of the patients held out, stratified by class; none when scikit-learn finds too few of a class."""
    none = np.array([], dtype=np.int64)
    if test_fraction == 0:
        return none
    try:
        _, chosen = train_test_split(
            np.arange(len(classes)), test_size=test_fraction, stratify=classes, random_state=seed
        )
    except ValueError:
        return none
    return np.asarray(chosen)


def draw_split(
    labels: Mapping[str, str], folds: int, test_fraction: float, seed: int, absent: Sequence[str] = ()
) -> dict[str, int]:
    """Fold of every patient; -1 is the held-out test part. Stratified by class, a patient never in two.

    Args:
        labels: class of each patient by id, the same for all its spellings, in an order that does not depend on the table's.
        folds: cross-validation folds of the training part.
        test_fraction: share of patients held out, 0 for none.
        seed: of the draw.
        absent: classes that may be missing everywhere.

    Raises:
        UserError: a class that is not in every fold and in the test part.
    """
    spelled = first_spellings(labels)
    classed = {patient_key(patient): label for patient, label in labels.items()}
    patients, classes = np.array(list(spelled.values())), np.array(list(classed.values()))
    test = _test_part(classes, test_fraction, seed)
    rest = np.setdiff1d(np.arange(len(patients)), test)
    training, held_out = Counter(classes[rest].tolist()), Counter(classes[test].tolist())
    short = [
        f"{name} has {training[name] + held_out[name]} patients, {training[name]} of them for training"
        for name in CLASSES
        if not (name in absent and not training[name] + held_out[name])
        and (training[name] < folds or (test_fraction > 0 and not held_out[name]))
    ]
    if short:
        raise UserError(
            f"too few patients for {folds} folds and a test part of {test_fraction:.0%}: {'; '.join(short)}. Every class "
            f"needs at least one patient in each fold and in the test part: choose fewer --folds or another --test-fraction"
        )
    assigned = dict.fromkeys(spelled, -1)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fold, (_, chosen) in enumerate(splitter.split(rest, classes[rest], groups=patients[rest])):
        assigned.update({patient_key(patients[rest[i]]): fold for i in chosen})
    return {patient: assigned[patient_key(patient)] for patient in labels}
