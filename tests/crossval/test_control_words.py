"""What a control means follows from where intervals lie, and never show a figure without its interval and n."""

from __future__ import annotations

import re

import pytest

from monai_chd.crossval.control_words import CHANCE, TITLES, meaning


def estimate(low, high, n=110):
    value = None if low is None else (low + high) / 2
    return {"value": value, "low": low, "high": high, "n": n, "method": "bca_bootstrap"}


CHANCE_IN, ABOVE, BELOW = estimate(0.25, 0.42), estimate(0.4, 0.6), estimate(0.1, 0.3)
SAME, BETTER, WORSE = estimate(-0.05, 0.08), estimate(0.02, 0.2), estimate(-0.2, -0.02)


def test_chance_of_balanced_accuracy_is_one_in_the_number_of_classes():
    assert pytest.approx(1 / 3) == CHANCE


@pytest.mark.parametrize(
    ("balanced", "words"),
    [
        (CHANCE_IN, "No better than chance, as it must be"),
        (ABOVE, "leak into the training"),
        (BELOW, "Worse than chance"),
    ],
)
def test_shuffled_labels_are_held_against_chance(balanced, words):
    assert words in meaning("shuffled_labels", balanced, None)


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (SAME, "Frame order carries no measurable information here"),
        (BETTER, "Frame order carries information"),
        (WORSE, "more often without the frame order"),
        (None, "could not be computed"),
        (estimate(None, None), "no measurable information"),
    ],
)
def test_frame_order_is_read_from_the_paired_difference(difference, words):
    for balanced in (CHANCE_IN, ABOVE, BELOW):
        assert words in meaning("frame_order", balanced, difference)


@pytest.mark.parametrize("name", ["intensity", "confounders", "structures"])
@pytest.mark.parametrize(
    ("balanced", "first"),
    [(CHANCE_IN, "does not measurably tell"), (ABOVE, "apart better than chance"), (BELOW, "is worse than chance")],
)
@pytest.mark.parametrize(
    ("difference", "second"),
    [
        (SAME, "not measurably better"),
        (BETTER, "the model is right more often"),
        (WORSE, "it is right more often than the model"),
    ],
)
def test_simple_things_are_held_against_chance_and_the_model(name, balanced, first, difference, second):
    text = meaning(name, balanced, difference)
    assert first in text and second in text


def test_a_figure_that_no_resample_changes_is_held_to_chance_itself():
    """All right, or always the same class: there is no interval, and yet no doubt on which side of chance it is."""
    everyone, constant = estimate(None, None) | {"value": 1.0}, estimate(None, None) | {"value": 1 / 3}
    assert "apart better than chance" in meaning("intensity", everyone, WORSE)
    assert "does not measurably tell" in meaning("intensity", constant, SAME)


def test_only_a_control_that_tells_the_classes_casts_doubt_on_the_model():
    doubt = "may read nothing else"
    assert doubt in meaning("confounders", ABOVE, SAME)
    assert doubt not in meaning("confounders", CHANCE_IN, SAME)
    assert doubt not in meaning("confounders", ABOVE, BETTER)
    assert doubt not in meaning("structures", ABOVE, SAME)  # reads anatomy, which the model should


@pytest.mark.parametrize("name", TITLES)
@pytest.mark.parametrize("difference", [SAME, BETTER, WORSE])
def test_no_figure_is_without_interval_and_n(name, difference):
    text = meaning(name, ABOVE, difference)
    figures = re.findall(r"[-+]?\d+\.\d ?(?:%|percentage points) (\[95% interval [^\]]+, n = 110\])?", text)
    assert figures and all(figures)
