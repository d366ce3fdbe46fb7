"""Pieces that the sections of the report are made of: figures with their interval and n, tables, lists of pairs.

A figure cannot be shown here without its interval and n; what is said about it is `report_sections`' part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from monai_chd.metrics.estimates import Estimate
from monai_chd.report.markup import Content, Markup, element, join
from monai_chd.report.model_card import words_of

Report = Mapping[str, Any]
"""report.json, read."""

DASH = "\u2013"
SCALE = element("span", element("span", "0"), element("span", "1"), class_="scale")
"""Heading of a column of `range_bar`s: where 0 and 1 are."""


def percent(value: float) -> str:
    """A share as a whole percentage."""
    return f"{100 * value:.0f}%"


def interval_words(estimate: Estimate) -> str:
    """A share with interval and n as a clinician reads it: `53% (95% interval 44 to 62%; n = 110 patients)`."""
    value, low, high, n = estimate["value"], estimate["low"], estimate["high"], estimate["n"]
    if value is None:
        return f"undefined (n = {n} patients)"
    if low is None or high is None:
        return f"{percent(value)} (no interval can be given; n = {n} patients)"
    return f"{percent(value)} (95% interval {100 * low:.0f} to {percent(high)}; n = {n} patients)"


def estimate_cells(estimate: Estimate) -> list[Markup]:
    """Three cells: value, interval, n."""
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    shown = "undefined" if value is None else f"{value:.3f}"
    limits = "no interval" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    return [
        element("td", shown, class_="n"),
        element("td", DASH if value is None else limits, class_="nowrap"),
        element("td", f"{estimate['n']:g}", class_="n"),
    ]


def range_bar(estimate: Estimate, chance: float | None = None) -> Markup:
    """Point and interval on a line from 0 to 1, with chance as a dashed mark; the numbers stand beside it as text."""
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None or not 0 <= value <= 1:
        return Markup("")
    parts = []
    if low is not None and high is not None:
        left, right = (100 * min(1.0, max(0.0, limit)) for limit in (low, high))
        parts.append(element("i", style=f"left:{left:.1f}%;width:{right - left:.1f}%"))
    if chance is not None:
        parts.append(element("u", style=f"left:{100 * chance:.1f}%"))
    parts.append(element("b", style=f"left:{100 * value:.1f}%"))
    return element("span", parts, class_="range", aria_hidden="true")


def bar_cell(estimate: Estimate, chance: float | None = None) -> Markup:
    """A cell with a `range_bar`; left out on narrow screens, where the numbers need the room."""
    return element("td", range_bar(estimate, chance), class_="picture")


def table(
    caption: str,
    header: Sequence[Content],
    body: Iterable[Markup],
    *,
    class_: str | None = None,
    role: str | None = None,
    numeric: Iterable[int] = (),
) -> Markup:
    """A table that scrolls sideways by itself where it is wider than the screen.

    Args:
        caption: what it shows.
        header: texts of the columns.
        body: rows, or groups of rows (`tbody`).
        class_: of the table.
        role: of the table, where its style takes away that it is one.
        numeric: columns whose numbers stand at the right.
    """
    right = set(numeric)
    head = [
        element("th", text, scope="col", class_="n" if k in right else "picture" if text is SCALE else None)
        for k, text in enumerate(header)
    ]
    rows = list(body)
    inside = rows if rows and rows[0].startswith("<tbody") else element("tbody", rows)
    whole = element(
        "table", element("caption", caption), element("thead", element("tr", head)), inside, class_=class_, role=role
    )
    return element("div", whole, class_="scroll", role="region", aria_label=caption, tabindex=0)


def row(head: Content, *cells: Content) -> Markup:
    """A row with its heading; a cell that is no `td` yet becomes one."""
    made = [
        cell if isinstance(cell, Markup) and cell.startswith("<td") else element("td", cell) for cell in _flat(cells)
    ]
    return element("tr", element("th", head, scope="row"), made)


def bullets(texts: Iterable[Content]) -> Markup:
    """A list with dots; nothing for no text."""
    items = [element("li", text) for text in texts]
    return element("ul", items, class_="prose") if items else Markup("")


def warning_box(title: str, texts: Sequence[Content]) -> Markup:
    """A box that is not overlooked; nothing for no text."""
    return element("div", element("strong", title), bullets(texts), class_="warning") if texts else Markup("")


def pairs(mapping: Mapping[str, Any], *, mono: bool = False) -> Markup:
    """Names and values, values in values on the same level with their path."""
    rows = [
        [element("dt", name), element("dd", element("code", value) if mono else value)]
        for name, value in _level(mapping)
    ]
    return element("dl", rows, class_="pairs")


def pair_columns(mapping: Mapping[str, Any]) -> Markup:
    """Many short names and values, in as many columns as fit."""
    rows = [
        element("div", element("dt", name), element("dd", element("code", value), style="margin:0"))
        for name, value in _level(mapping)
    ]
    return element("dl", rows, class_="columns")


def absent(what: str) -> Markup:
    """What a report says of a part it does not have."""
    return element("p", f"Not in this report: {what}.", class_="quiet")


def p_words(p: float) -> str:
    """A p value as it is usually written."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def plain_value(value: Any) -> str:
    """A value of JSON as a reader writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain_value(part) for part in value) or "none"
    return str(value)


def method_notes(methods: Mapping[str, str], used: Iterable[str]) -> Markup:
    """What the methods of intervals mean that a table uses, in the order of `methods`."""
    present = set(used)
    parts = [[element("strong", words_of(key)), f": {text}. "] for key, text in methods.items() if key in present]
    return element("p", "Methods. ", parts, class_="small quiet") if parts else Markup("")


def _level(mapping: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in mapping.items():
        if isinstance(value, Mapping) and value:
            found += _level(value, f"{path}{name} / ")
        else:
            found.append((f"{path}{name}", plain_value(value)))
    return found


def _flat(cells: Iterable[Content]) -> Iterable[Content]:
    for cell in cells:
        if (
            isinstance(cell, (list, tuple))
            and cell
            and all(isinstance(c, Markup) and c.startswith("<td") for c in cell)
        ):
            yield from cell
        else:
            yield join(cell) if not isinstance(cell, Markup) else cell
