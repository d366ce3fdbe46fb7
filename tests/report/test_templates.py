"""Templates show every figure with its interval and n, and all text of a report as text."""

import re

import pytest
from jinja2 import UndefinedError
from tiny_report import make_report, parsed, rows_of, section, text_of

from monai_chd.labels import CLASSES
from monai_chd.report.page import FOLDER, SECTIONS, TEMPLATES, page

FILES = sorted(path.name for path in (FOLDER / "templates").iterdir())
PIECES = {"blocks.html.j2", "charts.html.j2", "estimates.html.j2"}

WITHOUT_TEXT = {"training"}
"""Sections that show numbers of the report only."""

FIGURE = {"value": 0.6109, "low": 0.5178, "high": 0.6968, "n": 110, "method": "wilson"}
WITHOUT = {"value": 1.0, "low": None, "high": None, "n": 4, "method": "not_estimable"}
UNDEFINED = {"value": None, "low": None, "high": None, "n": 0, "method": "undefined"}

NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)> \"q\" 'a' & </title></style></svg> {{ 7 * 7 }}"
NAMES_OF_USERS = {"settings", "versions", "seeds", "hashes", "seconds", "more", "checklists", "refused"}
"""Parts of a report whose keys are no words of ours."""


def macros(name):
    return TEMPLATES.get_template(f"{name}.html.j2").module


ESTIMATES, BLOCKS = macros("estimates"), macros("blocks")


def words(markup):
    return text_of(parsed(markup))


def called(template, **values):
    """What a few lines of a template write."""
    return TEMPLATES.from_string(template).render(**values)


def test_there_is_a_template_for_each_section_and_no_other():
    assert {*FILES} == {"page.html.j2", *PIECES, *(f"{key}.html.j2" for key in SECTIONS)}


def spoilt(value, key=""):
    """A report with something nasty at the end of every string, and of every key that is a name and not a word of ours."""
    if isinstance(value, dict):
        return {
            name + NASTY if name in CLASSES or key in NAMES_OF_USERS else name: spoilt(child, name)
            for name, child in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [spoilt(child, key) for child in value]
    return value + NASTY if isinstance(value, str) else value


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    made = make_report(tmp_path_factory.mktemp("report"))
    made["audit"]["leakage"] = [{"kind": "copy", "images": ["a"], "patients": ["1"], "places": ["test"]}]
    made["provenance"]["hashes"] = {f"ct_{n}": "ab" * 32 for n in range(13)}
    made["cohort"]["rule"]["more"] = {"name": ["x"]}
    own = [{"item": "7", "section": "s", "text": "asks", "status": "user", "where_or_todo": "where To add: this"}]
    made["checklists"] = {"CLAIM 2024": own}
    return made


@pytest.mark.parametrize("key", SECTIONS)
def test_no_text_of_a_report_becomes_markup_in_any_section(report, key):
    clean, bad = (
        section(one, key, {case["sheet"]: "data:," for case in one["worst_cases"]}) for one in (report, spoilt(report))
    )
    assert {one.tag for one in bad.iter()} <= {one.tag for one in clean.iter()}
    assert {name for one in bad.iter() for name in one.attrib} <= {name for one in clean.iter() for name in one.attrib}
    assert {one.get("src") for one in bad.iter("img")} <= {"data:,"}
    texts = [text for one in bad.iter() for text in (one.text, one.tail, *one.attrib.values()) if text]
    assert any(NASTY in text for text in texts) == (key not in WITHOUT_TEXT)


def test_no_text_of_a_report_becomes_markup_around_the_sections(report):
    html = page(spoilt(report))
    assert "<script" not in html and "onerror=alert(2)&gt;" in html
    for place in ("<title>", "<h1>", '<p class="quiet">', " Report of "):
        assert re.search(rf"{place}[^<]*&lt;script&gt;", html), place


@pytest.mark.parametrize("key", sorted({*SECTIONS} - WITHOUT_TEXT))
def test_without_escaping_the_same_text_would_be_markup(report, key):
    bad, (_, gather) = spoilt(report), SECTIONS[key]
    open_ = TEMPLATES.overlay(autoescape=False)
    html = open_.get_template(f"{key}.html.j2").render({key: gather(bad), "pictures": {}})
    assert "<script>" in html


def test_escaping_is_on_and_nothing_gets_around_it():
    assert TEMPLATES.autoescape is True
    for path in (*(FOLDER / "templates").iterdir(), *FOLDER.glob("*.py")):
        assert not re.search(r"\|\s*safe\b|autoescape false|Markup|forceescape", path.read_text(encoding="utf-8")), path


def test_what_a_template_asks_for_and_is_not_given_is_an_error():
    with pytest.raises(UndefinedError, match="no attribute 'flow'"):
        TEMPLATES.get_template("cohort.html.j2").render(cohort={})


@pytest.mark.parametrize("name", sorted({*FILES} - {"estimates.html.j2"}))
def test_a_figure_is_taken_apart_in_one_template_only(name):
    assert not re.search(r"\.(value|low|high)\b", (FOLDER / "templates" / name).read_text(encoding="utf-8"))


WRITTEN = {
    "share": ESTIMATES.share,
    "share_card": lambda estimate: ESTIMATES.share_card("title", estimate, None, "note"),
    "cells": ESTIMATES.cells,
    "difference_cells": ESTIMATES.difference_cells,
}


@pytest.mark.parametrize("macro", WRITTEN)
@pytest.mark.parametrize(
    ("estimate", "expected"), [(FIGURE, ("52", "70")), (WITHOUT, ("no interval",)), (UNDEFINED, ("undefined",))]
)
def test_no_figure_is_written_without_its_interval_and_n(macro, estimate, expected):
    text = " ".join(parsed(WRITTEN[macro](estimate)).itertext())
    assert re.search(rf"\b{estimate['n']}\b", text), text
    assert all(part in text.replace("0.518", "52").replace("0.697", "70") for part in expected), text


def test_every_other_macro_that_takes_a_figure_is_a_picture_beside_the_numbers():
    source = (FOLDER / "templates" / "estimates.html.j2").read_text(encoding="utf-8")
    assert set(re.findall(r"macro (\w+)\([^)]*\bestimate\b", source)) == {*WRITTEN, "range_bar", "bar_cell"}


def test_a_share_in_words_has_interval_and_n():
    assert ESTIMATES.share(FIGURE) == "61% (95% interval 52% to 70%; n = 110 patients)"
    assert ESTIMATES.share(WITHOUT) == "100% (no interval; n = 4 patients)"
    assert ESTIMATES.share(UNDEFINED) == "undefined (n = 0 patients)"
    assert ESTIMATES.percent(0.005) == "0%" and ESTIMATES.percent(0.996) == "100%"


@pytest.mark.parametrize(
    ("estimate", "expected", "signed"),
    [
        (FIGURE, ["0.611", "0.518 to 0.697", "110"], ["+0.611", "+0.518 to +0.697", "110"]),
        (WITHOUT, ["1.000", "no interval", "4"], ["+1.000", "no interval", "4"]),
        (UNDEFINED, ["undefined", "\u2013", "0"], ["undefined", "\u2013", "0"]),
    ],
)
def test_cells_are_value_interval_and_n_below_headings_that_say_so(estimate, expected, signed):
    table = "<tr>{head}</tr><tr>{one}</tr><tr>{other}</tr>".format(
        head=ESTIMATES.headings("share"), one=ESTIMATES.cells(estimate), other=ESTIMATES.difference_cells(estimate)
    )
    assert rows_of(parsed(table)) == [["share", "95% interval", "n"], expected, signed]


def test_a_difference_in_points_has_interval_p_and_n():
    test = {"difference": 0.031, "low": 0.01, "high": 0.05, "p": 0.0004}
    assert words(ESTIMATES.points(test, 33)) == (
        "accuracy differs by +3.1 percentage points [95% interval +1.0 to +5.0, n = 33]; p < 0.001"
    )
    assert "points [no interval, n = 33]; p = 0.500" in ESTIMATES.points(
        {**test, "low": None, "high": None, "p": 0.5}, 33
    )


def test_the_bar_of_an_interval_is_where_its_numbers_say():
    bar = ESTIMATES.range_bar(FIGURE, 0.4454)
    assert 'style="left:51.8%;width:17.9%"' in bar and 'style="left:61.1%"' in bar and 'style="left:44.5%"' in bar
    assert 'aria-hidden="true"' in bar
    assert 'style="left:0.0%;width:100.0%"' in ESTIMATES.range_bar({**FIGURE, "low": -0.2, "high": 1.2})


@pytest.mark.parametrize("value", [None, -0.1, 1.5])
def test_there_is_no_bar_for_what_is_no_share(value):
    assert ESTIMATES.range_bar({**FIGURE, "value": value}).strip() == ""


def test_a_bar_without_an_interval_has_only_its_point():
    assert "<i" not in ESTIMATES.range_bar(WITHOUT) and "<b" in ESTIMATES.range_bar(WITHOUT)


def test_a_table_has_a_caption_and_can_be_reached_by_keyboard():
    lines = '{% from "blocks.html.j2" import table %}{% call table(name, class="x") %}<tr><td>{{ name }}</td></tr>{% endcall %}'
    region = parsed(called(lines, name="What & <why>")).find("div")
    assert (region.get("tabindex"), region.get("role"), region.get("aria-label")) == ("0", "region", "What & <why>")
    table = region.find("table")
    assert table.get("class") == "x" and table.get("role") is None
    assert table.find("caption").text == table.find("tr/td").text == "What & <why>"


def test_every_heading_of_a_table_has_its_scope(report):
    for key in SECTIONS:
        for table in section(report, key).iter("table"):
            assert {one.get("scope") for one in table.find("thead/tr")} == {"col"}, key
            assert {one.get("scope") for one in table.iterfind("tbody/tr/th")} <= {"row", "rowgroup"}, key
            widths = {sum(int(cell.get("colspan", 1)) for cell in row) for part in table for row in part.iterfind("tr")}
            assert len(widths) == 1, (key, table.find("caption").text)


def test_boxes_and_lists_of_nothing_are_nothing():
    assert [made.strip() for made in (BLOCKS.warning_box("Mind", []), BLOCKS.bullets([]), BLOCKS.method_notes([]))] == [
        ""
    ] * 3
    assert words(BLOCKS.warning_box("Mind", ["<a>", "b"])) == "Mind <a> b"
    box = '{% from "blocks.html.j2" import warning_box %}{% call warning_box("Mind", []) %}see <a href="#x">x</a>{% endcall %}'
    assert words(called(box)) == "Mind see x"


def test_pairs_name_the_path_of_inner_values():
    for write in (BLOCKS.pairs, BLOCKS.pair_columns):
        root = parsed(write({"a": 1, "b": {"c": [1, 2], "d": {}}, "<e>": None}))
        assert [one.text for one in root.iter("dt")] == ["a", "b / c", "b / d", "<e>"]
        assert [text_of(one) for one in root.iter("dd")] == ["1", "1, 2", "{}", "none"]
    assert "<code>" in BLOCKS.pairs({"a": "ff"}, code=True) and "<code>" in BLOCKS.pair_columns({"a": "ff"})
    assert "<code>" not in BLOCKS.pairs({"a": "ff"})


def test_methods_are_named_and_explained():
    assert (
        words(BLOCKS.method_notes([("Wilson", "one"), ("McNemar", "<three>")]))
        == "Methods. Wilson: one. McNemar: <three>."
    )


def test_what_is_not_there_is_named():
    assert words(BLOCKS.absent("an <audit>")) == "Not in this report: an <audit>."
