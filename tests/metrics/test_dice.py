"""Dice of structures is MONAI's, a structure that is not there has none, and means come with intervals by patient."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice
from monai.networks import one_hot

from monai_chd.labels import MYOCARDIUM, STRUCTURES, UNDRAWN
from monai_chd.metrics.dice import dice_estimates, dice_of_structures


def pair(seed: int = 0):
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 8, (6, 9, 9))
    predicted = np.where(rng.random(drawn.shape) < 0.7, drawn, rng.integers(0, 8, drawn.shape))
    return torch.from_numpy(predicted), torch.from_numpy(drawn)


def test_it_is_monais():
    predicted, drawn = pair()
    hot = [one_hot(values[None, None], 8) for values in (predicted, drawn)]
    np.testing.assert_allclose(dice_of_structures(predicted, drawn), compute_dice(*hot, include_background=False)[0])


def test_a_structure_that_is_not_there_has_none():
    predicted, drawn = pair()
    drawn[drawn == 3] = 0
    assert np.isnan(dice_of_structures(predicted, drawn)).tolist() == [name == "LA" for name in STRUCTURES]


def test_where_nobody_drew_the_myocardium_it_counts_neither_for_nor_against():
    predicted, drawn = pair()
    drawn[drawn == MYOCARDIUM] = 0
    known = dice_of_structures(predicted, drawn)
    open_map = torch.where(drawn == 0, UNDRAWN, drawn)
    np.testing.assert_allclose(dice_of_structures(predicted, open_map), known)
    assert np.isnan(known[MYOCARDIUM - 1])


def test_means_are_over_patients_who_have_the_structure():
    dice = np.array([[0.8] * 7, [0.6] * 7, [1.0] * 7, [0.9] * 7])
    dice[3, 2] = np.nan
    found = dice_estimates(dice, ["a", "a", "b", "c"], resamples=200)
    assert list(found) == [*STRUCTURES, "mean"]
    assert found["LV"]["value"] == pytest.approx((0.7 + 1.0 + 0.9) / 3) and found["LV"]["n"] == 3
    assert found["LA"]["value"] == pytest.approx((0.7 + 1.0) / 2) and found["LA"]["n"] == 2
    low, high = found["LV"]["low"], found["LV"]["high"]
    assert 0.699 <= low < found["LV"]["value"] < high <= 1.0


def test_an_interval_covers_the_mean_of_many():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(40):
        dice = np.clip(rng.normal(0.9, 0.05, (30, 7)), 0, 1)
        found = dice_estimates(dice, [str(n) for n in range(30)], resamples=300, seed=trial)["mean"]
        hits += found["low"] <= 0.8985 <= found["high"]  # of the clipped normal
    assert hits >= 34


def test_nothing_known_is_undefined_and_no_crash():
    found = dice_estimates(np.full((2, 7), np.nan), ["a", "b"], resamples=50)
    assert all(estimate["value"] is None for estimate in found.values())
