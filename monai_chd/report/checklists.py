"""Reporting checklists (CLAIM 2024, TRIPOD+AI): which items a report fills, where, and what is left to its user.

The items are data files (`checklist_files`) with the reports' keys that each needs; judges no content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

FOLDER = Path(__file__).with_name("checklist_files")
FILES = ("claim2024.json", "tripod_ai.json")

STATUS = {"filled": "filled by this report", "partly": "partly (the rest is yours)", "user": "yours to fill"}
"""What an item's status means."""


class Item(TypedDict):
    """One item of a checklist as a report has it.

    `status` is a key of `STATUS`; `where_or_todo` says where the report fills it, what its user must add, or both;
    `anchor` is the section of report.html that fills it.
    """

    item: str
    section: str
    text: str
    status: str
    where_or_todo: str
    anchor: NotRequired[str]


@cache
def _read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def sources() -> dict[str, dict[str, str]]:
    """Name of each checklist to its `title`, `source` (citation) and `wording` (how far the texts are the original's)."""
    return {
        checklist["name"]: {key: checklist[key] for key in ("title", "source", "wording")}
        for checklist in map(_read, FILES)
    }


def fill_checklists(report: Mapping[str, Any]) -> dict[str, list[Item]]:
    """Find out which items a report fills.

    Args:
        report: as in report.json; an item counts as filled when every key that it needs is there and not empty.

    Returns:
        Name of each checklist to its items, in the checklist's order.
    """
    filled = {checklist["name"]: checklist["items"] for checklist in map(_read, FILES)}
    return {name: [_filled(item, report) for item in items] for name, items in filled.items()}


def _filled(item: Mapping[str, Any], report: Mapping[str, Any]) -> Item:
    todo = item.get("todo", "")
    missing = [key for key in item.get("needs", ()) if not _has(report, key)]
    entry: Item = {
        "item": item["item"],
        "section": item["section"],
        "text": item["text"],
        "status": "",
        "where_or_todo": "",
    }
    if "where" not in item:
        return {**entry, "status": "user", "where_or_todo": todo}
    if missing:
        lacking = f"Would be filled by this report, but it has no {', '.join(missing)}."
        return {**entry, "status": "user", "where_or_todo": f"{lacking} {todo}".strip()}
    where = f"{item['where']} To add: {todo}" if todo else item["where"]
    return {**entry, "status": "partly" if todo else "filled", "where_or_todo": where, "anchor": item["anchor"]}


def _has(report: Mapping[str, Any], key: str) -> bool:
    """Whether there is something under a dotted key: a number, or a text, list or mapping that is not empty."""
    value: Any = report
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value is not None and value != "" and value != [] and value != {}
