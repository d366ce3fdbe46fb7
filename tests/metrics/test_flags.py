"""Figures of single flags are scikit-learn's, with intervals by patient."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_chd.metrics.flags import flag_estimates

RNG = np.random.default_rng(0)
PRESENT = np.arange(60) % 3 == 0
PROBABILITY = np.clip(0.3 * PRESENT + RNG.uniform(0, 0.7, 60), 0, 1)
PATIENTS = [f"P{n}" for n in range(60)]


def test_the_value_is_scikit_learns_and_lies_in_its_interval():
    found = flag_estimates(PRESENT, PROBABILITY, PATIENTS, [0] * 60, resamples=100)
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(PRESENT, PROBABILITY))
    assert found["ap"]["value"] == pytest.approx(average_precision_score(PRESENT, PROBABILITY))
    for estimate in found.values():
        assert estimate["low"] < estimate["value"] < estimate["high"] and estimate["n"] == 60


def test_repeats_are_averaged_and_patients_count_once():
    other = np.clip(PROBABILITY + RNG.uniform(-0.2, 0.2, 60), 0, 1)
    twice = flag_estimates(
        np.tile(PRESENT, 2), np.concatenate([PROBABILITY, other]), PATIENTS * 2, [0] * 60 + [1] * 60, resamples=100
    )
    expected = np.mean([roc_auc_score(PRESENT, one) for one in (PROBABILITY, other)])
    assert twice["auc"]["value"] == pytest.approx(expected) and twice["auc"]["n"] == 60


@pytest.mark.parametrize("present", [np.zeros(60, bool), np.ones(60, bool)])
def test_a_flag_of_all_or_none_has_no_figure(present):
    found = flag_estimates(present, PROBABILITY, PATIENTS, [0] * 60, resamples=20)
    assert found["auc"]["value"] is None and found["auc"]["n"] == 0
