"""An estimate is written with interval and n in every form, and undefined in one way."""

import re
from typing import get_args

import pytest
from jinja2 import Environment

from monai_chd.metrics.wording import LEVEL, Form, estimate_cells, format_estimate


def estimate(value, low, high, n):
    return {"value": value, "low": low, "high": high, "n": n, "method": ""}


SHARE, ALL_RIGHT, NONE = (
    estimate(0.5333, 0.3611, 0.698, 30),
    estimate(1.0, None, None, 4),
    estimate(None, None, None, 0),
)
FORMS = get_args(Form)


@pytest.mark.parametrize(
    ("form", "share", "all_right", "none"),
    [
        ("figure", "0.533 [0.361, 0.698] n=30", "1.000 [no interval] n=4", "undefined n=0"),
        ("difference", "+0.533 [+0.361, +0.698] n=30", "+1.000 [no interval] n=4", "undefined n=0"),
        ("share", "53.3% [95% interval 36.1% to 69.8%, n = 30]", "100.0% [no interval, n = 4]", "undefined [n = 0]"),
        (
            "points",
            "+53.3 percentage points [95% interval +36.1 to +69.8, n = 30]",
            "+100.0 percentage points [no interval, n = 4]",
            "undefined [n = 0]",
        ),
        (
            "percent",
            "53% (95% interval 36% to 70%; n = 30 patients)",
            "100% (no interval; n = 4 patients)",
            "undefined (n = 0 patients)",
        ),
    ],
)
def test_each_form_has_value_interval_and_n(form, share, all_right, none):
    assert [format_estimate(one, form) for one in (SHARE, ALL_RIGHT, NONE)] == [share, all_right, none]


def test_every_form_is_tested():
    assert set(FORMS) == {"figure", "difference", "share", "points", "percent"}


def test_the_first_form_is_the_one_without_a_name():
    assert format_estimate(SHARE) == format_estimate(SHARE, "figure")


@pytest.mark.parametrize("form", FORMS)
def test_cells_hold_the_same_numbers_as_the_text(form):
    numbers = r"[-+]?\d+\.\d+"
    text = format_estimate(SHARE, form).replace(LEVEL, "")
    assert re.findall(numbers, " ".join(estimate_cells(SHARE, form)[:2])) == re.findall(numbers, text)


def test_cells_are_value_interval_and_n():
    assert estimate_cells(SHARE) == ("0.533", "0.361 to 0.698", "30")
    assert estimate_cells(estimate(-0.1, -0.25, 0.05, 33), "difference") == ("-0.100", "-0.250 to +0.050", "33")
    assert estimate_cells(ALL_RIGHT) == ("1.000", "no interval", "4")
    assert estimate_cells(NONE) == ("undefined", "\u2013", "0")


def test_a_template_calls_it_with_the_json_of_an_estimate():
    page = Environment(autoescape=True).from_string("{{ words(one, 'share') }}")
    assert page.render(words=format_estimate, one=SHARE) == "53.3% [95% interval 36.1% to 69.8%, n = 30]"
