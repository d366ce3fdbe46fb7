"""Folds: dealt as scikit-learn does, an inner part of a fifth, and no folds that leave a fit without a class."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from monai_chd.crossval.folds import draw_folds, inner_part
from monai_chd.labels import CLASSES


def labels_of(counts):
    return {f"{k}{number:02}": k for k, count in enumerate(counts) for number in range(count)}


def test_folds_are_scikit_learns_with_the_seed_of_the_repeat():
    labels = {f"{n:03d}": n % 3 for n in range(30)}
    assignment = draw_folds(labels, 5, 2, 7)
    patients, classes = np.array(sorted(labels)), np.array([labels[p] for p in sorted(labels)])
    for repeat in range(2):
        splitter = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=7 + repeat)
        for fold, (_, test) in enumerate(splitter.split(classes, classes, groups=patients)):
            assert {p for p, f in assignment.items() if f[repeat] == fold} == set(patients[test])


def test_the_inner_split_takes_a_fifth_of_each_class_and_never_all():
    labels = {f"{n}": 0 for n in range(20)} | {f"x{n}": 1 for n in range(3)} | {f"y{n}": 2 for n in range(2)}
    chosen = inner_part(labels, 1)
    assert Counter(labels[p] for p in chosen) == {0: 4, 1: 1, 2: 1}
    assert inner_part(dict(reversed(labels.items())), 1) == chosen
    assert inner_part(labels, 2) != chosen


@pytest.mark.parametrize(
    ("counts", "folds", "message"),
    [
        ((8, 7, 4), 5, "Normal has 4"),
        ((2, 3, 9), 5, "Cyanotic has 2, Non-Cyanotic has 3"),
        ((8, 7, 3), 2, "Normal has 3"),
        ((8, 7, 0), 3, "nobody of Normal"),
        ((9, 0, 0), 3, "came Cyanotic 9, nobody of Non-Cyanotic, Normal"),
    ],
)
def test_too_few_patients_or_classes_are_one_error(counts, folds, message):
    with pytest.raises(ValueError, match=message):
        draw_folds(labels_of(counts), folds, 1, 42)


@pytest.mark.parametrize(("folds", "needed"), [(2, 4), (3, 3), (4, 4), (5, 5)])
def test_the_fewest_patients_that_are_taken_are_in_every_fold_and_every_inner_part(folds, needed):
    labels = labels_of((needed,) * len(CLASSES))
    for patient, (fold,) in draw_folds(labels, folds, 1, 42).items():
        rest = {other: labels[other] for other, (f,) in draw_folds(labels, folds, 1, 42).items() if f != fold}
        inner = inner_part(rest, 1)
        assert patient not in rest
        for part in (inner, rest.keys() - inner):
            assert {labels[other] for other in part} == set(range(len(CLASSES)))
    with pytest.raises(ValueError, match=f"every class needs at least {needed}"):
        draw_folds(labels_of((needed - 1, needed, needed)), folds, 1, 42)
