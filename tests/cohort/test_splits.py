"""The split: every class in every place, nobody in two, or a refusal that says why."""

from collections import Counter

import numpy as np
import pytest

from monai_chd.cohort.splits import draw_split
from monai_chd.labels import CLASSES


def test_for_any_class_sizes_there_is_a_clear_refusal_or_a_sound_split():
    rng = np.random.default_rng(0)
    outcomes = Counter()
    for _ in range(200):
        sizes = rng.integers(0, rng.choice([4, 8, 20, 60]), 3)
        folds, fraction = int(rng.integers(2, 7)), float(rng.choice([0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 0.7]))
        labels = {f"p{i}": name for i, name in enumerate(np.repeat(CLASSES, sizes).tolist())}
        try:
            assigned = draw_split(labels, folds, fraction, int(rng.integers(1000)))
        except ValueError as error:
            outcomes["refused"] += 1
            assert str(error).startswith("too few patients for")
            # never refused where every place could take several of each class
            assert min(sizes) * (1 - fraction) < folds + 1 or min(sizes) * fraction < 1
            continue
        outcomes["split"] += 1
        assert set(assigned) == set(labels)
        places = [*range(folds), *([-1] if fraction else [])]
        counts = Counter((labels[patient], place) for patient, place in assigned.items())
        assert set(counts) == {(name, place) for name in CLASSES for place in places}
        for name in CLASSES:
            training = [counts[name, fold] for fold in range(folds)]
            assert max(training) - min(training) <= 1
    assert min(outcomes["refused"], outcomes["split"]) > 25


def test_a_class_that_may_be_absent_is_not_missed_but_a_few_of_it_are_too_few():
    labels = {f"p{i}": CLASSES[1 + i % 2] for i in range(12)}
    with pytest.raises(ValueError, match=f"{CLASSES[0]} has 0 patients"):
        draw_split(labels, 3, 0.25, 0)
    assigned = draw_split(labels, 3, 0.25, 0, absent=[CLASSES[0]])
    counts = Counter((labels[patient], fold) for patient, fold in assigned.items())
    assert set(counts) == {(name, fold) for name in CLASSES[1:] for fold in (-1, 0, 1, 2)}
    with pytest.raises(ValueError, match=f"{CLASSES[0]} has 1 patients"):
        draw_split({**labels, "q": CLASSES[0]}, 3, 0.25, 0, absent=[CLASSES[0]])
