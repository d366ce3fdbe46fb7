"""Decides who counts as what: reads the table of a cohort by a rule, and settles what no listed diagnosis means.

Says what is odd about table and rule; joining rows to scans is `joining`'s part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monai_chd.cohort import imagechd
from monai_chd.cohort.layouts import Layout, read_by_layout
from monai_chd.cohort.rules import DEFAULT, Rule, load_rule
from monai_chd.cohort.tables import Diagnosis, Table, find_table, load_table
from monai_chd.errors import UserError
from monai_chd.labels import NORMAL


@dataclass(frozen=True)
class Diagnoses:
    """Rows with their final class, and how it came about.

    Attributes:
        name: what to call the table.
        rows: one a patient or image.
        notes: what a person should know of table and rule.
        rule: name and description for the datalist; None where the table itself holds classes.
        normal: one of `imagechd.NORMALS`, or None likewise.
        is_imagechd: whether ids and flags are those of ImageCHD.
    """

    name: str
    rows: list[Diagnosis]
    notes: list[str]
    rule: dict[str, Any] | None
    normal: str | None
    is_imagechd: bool


def read_diagnoses(
    folder: Path,
    table: Path | None = None,
    *,
    layout: Layout | None = None,
    rule: str | Path | None = None,
    normal: str = imagechd.NORMALS[0],
) -> Diagnoses:
    """Read the diagnoses of a cohort.

    Args:
        folder: of the cohort.
        table: .csv or .xlsx; None: where the layout says, else found in the folder.
        layout: says where diagnoses stand when it is not where ImageCHD has them.
        rule: name or file, goes before the layout's; None: the default rule.
        normal: one of `imagechd.NORMALS`.

    Raises:
        UserFileError: no table or rule.
        UserError: a table, rule or choice that is wrong, or that does not go with the cohort.
    """
    if normal not in imagechd.NORMALS:
        raise UserError(f"normal: expected one of {', '.join(imagechd.NORMALS)}, got {normal!r}")
    policy = load_rule(rule or (layout.rule if layout else "") or DEFAULT)
    if layout is None or not layout.info_files:
        table = table or (folder / layout.table if layout and layout.table else find_table(folder))
    found = read_by_layout(layout, folder, table, policy) if layout else load_table(Path(str(table)), policy)
    name = "info files" if table is None else table.name
    if not found.has_flags:
        if rule is not None or normal != imagechd.NORMALS[0]:
            raise UserError(
                f"{name}: holds classes, not diagnosis flags; --rule and --normal have no say there, leave them out"
            )
        return Diagnoses(name, found.rows, found.notes, None, None, False)
    mismatch = imagechd.mismatch(found.flags())
    _check_fits(policy, normal, mismatch, name)
    notes = [*found.notes, *imagechd.differences(found.flags()), *_conflicts(policy, found)]
    rows = found.rows if mismatch else _settle_normals(found.rows, normal)
    return Diagnoses(name, rows, notes, policy.record(), normal, not mismatch)


def _check_fits(policy: Rule, normal: str, mismatch: str, name: str) -> None:
    """Refuse a choice that rests on what is known of ImageCHD for another cohort."""
    if not mismatch:
        return
    if policy.cohort:
        raise UserError(
            f"rule {policy.name}: lists patients of {policy.cohort}, and {name} is not its table: {mismatch}; choose a rule "
            f"without a list, such as {DEFAULT}"
        )
    if normal != imagechd.NORMALS[0]:
        raise UserError(
            f"normal {normal}: rests on other sources about the patients of ImageCHD, and {name} is not its table: {mismatch}; "
            f"leave --normal out (unflagged)"
        )


def _conflicts(policy: Rule, table: Table) -> list[str]:
    return policy.conflicts(table.flags()) if policy.ids is not None else []


def _settle_normals(rows: Sequence[Diagnosis], normal: str) -> list[Diagnosis]:
    """Take the class from patients of ImageCHD without a flag who are not normal enough."""
    settled = []
    for row in rows:
        reason = imagechd.exclusion_reason(row.patient, normal) if row.label == NORMAL and not row.flags else ""
        settled.append(replace(row, label=None, reason=reason) if reason else row)
    return settled
