"""Figures are the ratios of a hand count, by round, and are judged against their targets."""

from __future__ import annotations

import pytest
from tiny_bench import MB, measured

from benchmarks.comparison import Bench, Row, judge


def test_a_ratio_of_times_is_of_the_calls_of_one_round_and_its_median_is_shown_with_smallest_and_largest():
    row = Row("reading", "time", "ours", "other", 3.0)
    judged = judge(row, {"ours": measured((1.0, 2.0, 4.0)), "other": measured((10.0, 4.0, 16.0))})
    assert judged["figures"] == [10.0, 2.0, 4.0]  # not 10 / 2, the ratio of the medians
    assert (judged["median"], judged["low"], judged["high"]) == (4.0, 2.0, 10.0)
    assert judged["holds"] is True


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (("times", "a", "b"), 0.5),  # a's seconds over b's
        (("time", "a", "b"), 2.0),
        (("memory", "a", "b"), 3.0),  # b's peak over a's
        (("flat", ("a", "b", "c")), 4.0),
        (("flat process", ("a", "b", "c")), 1.75),  # (400 + 300) / (100 + 300)
        (("peak", ("a", "b", "c")), 400.0),
        (("seconds", "b"), 2.0),
    ],
)
def test_each_kind_of_figure_is_what_a_hand_count_gives(row, expected):
    sides = {"a": measured((1.0,), 100 * MB), "b": measured((2.0,), 300 * MB), "c": measured((3.0,), 400 * MB)}
    figure, ours, *other = row
    assert judge(Row("x", figure, ours, *other), sides)["median"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("figure", "target", "holds", "fails"),
    [
        ("time", 2.0, True, False),
        ("time", 2.01, False, False),
        ("time", 4.0, False, False),
        ("time", 4.01, False, True),
        ("times", 0.5, True, False),
        ("times", 0.49, False, False),
        ("times", 0.25, False, False),
        ("times", 0.24, False, True),
    ],
)
def test_a_target_holds_up_to_itself_and_a_quick_run_fails_beyond_half_of_it(figure, target, holds, fails):
    sides = {"ours": measured((1.0,)), "other": measured((2.0,))}
    row = Row("x", figure, "ours", "other", target)
    assert (judge(row, sides)["holds"], judge(row, sides, quick=True)["fails"]) == (holds, fails)
    assert judge(row, sides)["fails"] is False  # a long run reports


def test_a_side_that_is_not_there_is_neither_won_nor_lost():
    row = Row("x", "time", "ours", "TorchIO", 12)
    judged = judge(row, {"ours": measured(), "TorchIO": {"missing": "not installed"}}, quick=True)
    assert (judged["missing"], judged["holds"], judged["fails"]) == ("not installed", None, False)


def test_in_brief_are_the_sides_named_and_the_rows_that_they_suffice_for():
    rows = (Row("pair", "time", "a", "b"), Row("other pair", "time", "a", "c"), Row("all", "flat", ("a", "b")))
    bench = Bench("x", "x", {name: ("reading", {}) for name in "abc"}, rows)
    brief = bench._replace(quick=("a", "b")).in_brief()
    assert (list(brief.sides), [row.what for row in brief.rows]) == (["a", "b"], ["pair", "all"])
    assert bench.in_brief() == bench  # has none: asked for by name, it is measured whole
