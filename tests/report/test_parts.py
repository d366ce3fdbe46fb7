"""Pieces of the report show a figure with interval and n, and values as a reader writes them."""

from xml.etree import ElementTree

import pytest

from monai_chd.report.markup import Markup, element
from monai_chd.report.parts import (
    SCALE,
    absent,
    bullets,
    estimate_cells,
    interval_words,
    method_notes,
    p_words,
    pair_columns,
    pairs,
    percent,
    plain_value,
    range_bar,
    row,
    table,
    warning_box,
)

FIGURE = {"value": 0.6109, "low": 0.5178, "high": 0.6968, "n": 110, "method": "wilson"}
WITHOUT = {"value": 1.0, "low": None, "high": None, "n": 4, "method": "not_estimable"}
UNDEFINED = {"value": None, "low": None, "high": None, "n": 0, "method": "undefined"}


def words(markup):
    return " ".join("".join(ElementTree.fromstring(f"<p>{markup}</p>").itertext()).split())


def test_a_share_in_words_has_interval_and_n():
    assert interval_words(FIGURE) == "61% (95% interval 52 to 70%; n = 110 patients)"
    assert interval_words(WITHOUT) == "100% (no interval can be given; n = 4 patients)"
    assert interval_words(UNDEFINED) == "undefined (n = 0 patients)"
    assert percent(0.005) == "0%" and percent(0.996) == "100%"


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (FIGURE, ["0.611", "0.518 to 0.697", "110"]),
        (WITHOUT, ["1.000", "no interval", "4"]),
        (UNDEFINED, ["undefined", "\u2013", "0"]),
    ],
)
def test_cells_are_value_interval_and_n(estimate, expected):
    assert [words(cell) for cell in estimate_cells(estimate)] == expected


def test_the_bar_of_an_interval_is_where_its_numbers_say():
    bar = range_bar(FIGURE, 0.4454)
    assert 'style="left:51.8%;width:17.9%"' in bar and 'style="left:61.1%"' in bar and 'style="left:44.5%"' in bar
    assert 'aria-hidden="true"' in bar


@pytest.mark.parametrize("value", [None, -0.1, 1.5])
def test_there_is_no_bar_for_what_is_no_share(value):
    assert range_bar({**FIGURE, "value": value}) == ""


def test_a_bar_without_an_interval_has_only_its_point():
    assert "<i" not in range_bar(WITHOUT) and "<b" in range_bar(WITHOUT)


def test_a_table_has_a_caption_headings_with_scope_and_can_be_reached_by_keyboard():
    root = ElementTree.fromstring(table("What & why", ["a", "n", SCALE], [row("x", 1, "<y>")], numeric=(1,)))
    assert root.get("tabindex") == "0" and root.get("role") == "region" and root.get("aria-label") == "What & why"
    assert root.find("table/caption").text == "What & why"
    assert [one.get("scope") for one in root.iter("th")] == ["col", "col", "col", "row"]
    assert [one.get("class") for one in root.find("table/thead/tr")] == [None, "n", "picture"]
    assert [one.text for one in root.find("table/tbody/tr")] == ["x", "1", "<y>"]


def test_a_row_takes_cells_lists_of_cells_and_text():
    made = row("h", estimate_cells(FIGURE), element("td", "z", class_="q"), None, ["a", "b"], "<td>")
    root = ElementTree.fromstring(made)
    assert ["".join(one.itertext()) for one in root] == ["h", "0.611", "0.518 to 0.697", "110", "z", "", "ab", "<td>"]


def test_boxes_and_lists_of_nothing_are_nothing():
    assert warning_box("Mind", []) == "" and bullets([]) == "" and method_notes({"a": "b"}, []) == ""
    assert words(warning_box("Mind", ["<a>", "b"])) == "Mind<a>b"


def test_pairs_name_the_path_of_inner_values():
    root = ElementTree.fromstring(pairs({"a": 1, "b": {"c": [1, 2], "d": {}}, "<e>": None}))
    assert [one.text for one in root.iter("dt")] == ["a", "b / c", "b / d", "<e>"]
    assert [one.text for one in root.iter("dd")] == ["1", "1, 2", "{}", "none"]
    assert "<code>" in pairs({"a": "ff"}, mono=True) and "<code>" in pair_columns({"a": "ff"})


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "none"), (True, "yes"), (False, "no"), (0.0003, "0.0003"), (1 / 3, "0.333333"), (float("nan"), "none"), (7, "7"),
     ([1.5, None], "1.5, none"), ([], "none"), ("x", "x")],
)  # fmt: skip
def test_values_read_as_words(value, expected):
    assert plain_value(value) == expected


@pytest.mark.parametrize(("p", "expected"), [(0.0004, "p < 0.001"), (0.0416, "p = 0.042"), (1.0, "p = 1.000")])
def test_p_values_are_written_as_usual(p, expected):
    assert p_words(p) == expected


def test_only_the_methods_used_are_explained_in_the_order_of_the_table():
    notes = words(method_notes({"wilson": "one", "bca_bootstrap": "two", "mcnemar": "three"}, ["mcnemar", "wilson"]))
    assert notes == "Methods. Wilson: one. McNemar: three."


def test_what_is_not_there_is_named():
    assert words(absent("an <audit>")) == "Not in this report: an <audit>."
    assert isinstance(absent("x"), Markup)
