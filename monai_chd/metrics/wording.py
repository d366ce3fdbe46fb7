"""How an estimate is written: never without its interval and its number of cases, and undefined in one way everywhere.

P values, lists of names and tables are the part of `monai_chd.wording`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from monai_chd.metrics.formulas import CONFIDENCE

Form = Literal["figure", "difference", "share", "points", "percent"]
"""`figure` and `difference` are numbers of tables and lists; `share`, and `points` for a difference of shares, of sentences;
`percent` is a share for a reader who wants no decimals."""

UNDEFINED = "undefined"
NO_INTERVAL = "no interval"
LEVEL = f"{CONFIDENCE:.0%} interval"

MAIN_FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "auc_macro")
"""What is told of an evaluation where there is no room for all: on the screen, in a bundle's metadata, to a tracker."""
"""What an interval is called in a sentence and above a column."""

NUMBERS: Mapping[Form, str] = {
    "figure": "{:.3f}",
    "difference": "{:+.3f}",
    "share": "{:.1%}",
    "points": "{:+.1f}",
    "percent": "{:.0%}",
}


def main_figures(overall: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """`MAIN_FIGURES` of an evaluation's `overall` that have an interval: without one a figure is not told as a number."""
    found = {name: overall[name] for name in MAIN_FIGURES}
    return {name: one for name, one in found.items() if None not in (one["value"], one["low"], one["high"])}


def format_estimate(estimate: Mapping[str, Any], form: Form = "figure") -> str:
    """An estimate with its interval and n.

    Args:
        estimate: `value`, `low`, `high` and `n` of an `estimates.Estimate`, or its JSON read back.
        form: `figure`: `0.533 [0.361, 0.698] n=30`; `difference`: `+0.100 [-0.020, +0.221] n=30`;
            `share`: `53.3% [95% interval 36.1% to 69.8%, n = 30]`;
            `points`: `+10.0 percentage points [95% interval -2.0 to +22.1, n = 30]`;
            `percent`: `53% (95% interval 36% to 70%; n = 30 patients)`.

    Returns:
        The text; without a value `undefined n=0` or `undefined [n = 0]`, without limits `no interval` in their place.
    """
    value, n, undefined = _number(estimate["value"], form), estimate["n"], estimate["value"] is None
    if form in ("figure", "difference"):
        return f"{value} n={n}" if undefined else f"{value} [{_limits(estimate, form, ', ') or NO_INTERVAL}] n={n}"
    if undefined:
        return f"{value} (n = {n} patients)" if form == "percent" else f"{value} [n = {n}]"
    limits, unit = _limits(estimate, form, " to "), " percentage points" if form == "points" else ""
    if form == "percent":
        return f"{value} ({f'{LEVEL} {limits}' if limits else NO_INTERVAL}; n = {n} patients)"
    return f"{value}{unit} [{f'{LEVEL} {limits}' if limits else NO_INTERVAL}, n = {n}]"


def estimate_cells(estimate: Mapping[str, Any], form: Form = "figure") -> tuple[str, str, str]:
    """Value, interval and n as three cells of a row, below headings that name them.

    Args:
        estimate: as for `format_estimate`.
        form: as for `format_estimate`; the interval is `0.361 to 0.698`, a dash where the figure itself is undefined.
    """
    limits = _limits(estimate, form, " to ") or ("\u2013" if estimate["value"] is None else NO_INTERVAL)
    return _number(estimate["value"], form), limits, str(estimate["n"])


def _limits(estimate: Mapping[str, Any], form: Form, between: str) -> str:
    """Both limits; empty where there are none."""
    low, high = estimate["low"], estimate["high"]
    return "" if low is None or high is None else f"{_number(low, form)}{between}{_number(high, form)}"


def _number(number: float | None, form: Form) -> str:
    if number is None:
        return UNDEFINED
    return NUMBERS[form].format(100 * number if form == "points" else number)
