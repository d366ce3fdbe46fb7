"""Better is said only where interval and test both say so, and one of the four verdicts is always said."""

import pytest

from monai_chd.metrics.formulas import binomial_test, wilson_interval
from monai_chd.metrics.verdict import judge


def figure(value, low, high):
    return {"value": value, "low": low, "high": high, "n": 100, "method": "wilson"}


def counted(right, n):
    low, high = wilson_interval(right, n)
    return {"value": right / n, "low": low, "high": high, "n": n, "method": "wilson"}


ALWAYS = figure(0.45, 0.35, 0.55)


@pytest.mark.parametrize(
    ("accuracy", "p", "judged", "sentence"),
    [
        (
            figure(0.61, 0.52, 0.70), 0.0004, "better",
            "So the model does better than that (exact binomial test, p < 0.001); it is wrong in the other 39% of patients.",
        ),
        (
            figure(0.50, 0.41, 0.59), 0.18, "not shown",
            "So it is not shown that the model does better than that (exact binomial test, p = 0.180).",
        ),
        (
            figure(0.55, 0.44, 0.64), 0.04, "not shown",
            "So it is not shown that the model does better than that (exact binomial test, p = 0.040).",
        ),
        (
            figure(0.55, 0.451, 0.64), 0.06, "not shown",
            "So it is not shown that the model does better than that (exact binomial test, p = 0.060).",
        ),
        (figure(0.30, 0.22, 0.40), 1.0, "worse", "So the model does worse than that: it is of no use as it is."),
        (
            figure(0.61, None, None), 0.0004, "unknown",
            "Whether the model does better than that cannot be told from these patients.",
        ),
        (
            figure(None, None, None), 1.0, "unknown",
            "Whether the model does better than that cannot be told from these patients.",
        ),
    ],
)  # fmt: skip
def test_an_accuracy_is_judged_by_interval_and_test(accuracy, p, judged, sentence):
    assert judge(accuracy, ALWAYS, p) == {"is": judged, "sentence": sentence}


@pytest.mark.parametrize("n", [10, 36, 100, 110])
def test_better_needs_both_over_all_counts(n):
    """More right answers never make the verdict worse, and better and worse lie on the sides of the baseline they name."""
    order = ["worse", "not shown", "better"]
    for frequent in range(n // 3 + 1, n):
        found = []
        for right in range(n + 1):
            p, accuracy = binomial_test(right, n, frequent / n), counted(right, n)
            judged = judge(accuracy, counted(frequent, n), p)["is"]
            assert (judged == "better") == (accuracy["low"] > frequent / n and p < 0.05)
            assert (judged == "worse") == (accuracy["high"] < frequent / n)
            found.append(order.index(judged))
        assert found == sorted(found)


def test_49_of_100_against_40_is_significant_and_yet_not_shown():
    p = binomial_test(49, 100, 0.4)
    assert 0.04 < p < 0.05
    assert judge(counted(49, 100), counted(40, 100), p)["is"] == "not shown"
