"""Layouts of cohorts other than ImageCHD: a small file says which files are scans, whose they are, and where diagnoses stand.

Reads these files (`layout_files` has examples), and the diagnoses from where they say: columns of a table, or an info file a
patient. Joining them to scans is `joining`'s part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from monai_chd.cohort.cells import cell_faults, column_key, flag_faults, flag_state, text_of
from monai_chd.cohort.definitions import Definitions
from monai_chd.cohort.rules import UNDETERMINED, Rule
from monai_chd.cohort.tables import Diagnosis, Table, class_name, extra_flags, is_shadow, patient_of, read_cells
from monai_chd.errors import UserError, UserFileError
from monai_chd.folders import contents
from monai_chd.labels import CLASSES, CYANOTIC, FLAGS, NORMAL

LAYOUTS = Definitions("layout", Path(__file__).with_name("layout_files"))


@dataclass(frozen=True)
class Layout:
    """A checked layout.

    Attributes:
        name, description: of the cohort, for people.
        id_pattern: found in the path of a scan below the folder; its one group is the patient. Other files are no scans.
        table: path below the folder, "" to search for the only one.
        id_column: column of ids, "" for the first.
        class_column: column whose cells `values` explains.
        flag_columns: what a 1 in a column means: a flag, several joined by +, a class, or "undetermined".
        info_files: pattern of the files with `key: value` lines, one a patient, its one group the patient.
        info_key: the key in them whose value `values` explains.
        values: what a cell or value means, as for `flag_columns`; None: it is a class name.
        rule: name or path, "" for the default.
        hu_offset: HU = value + this; None: found for each file.
        absent_classes: classes that nobody of this cohort can have.
    """

    name: str
    description: str = ""
    id_pattern: re.Pattern[str] | None = None
    table: str = ""
    id_column: str = ""
    class_column: str = ""
    flag_columns: Mapping[str, str] = field(default_factory=dict)
    info_files: re.Pattern[str] | None = None
    info_key: str = ""
    values: Mapping[str, str] | None = None
    rule: str = ""
    hu_offset: float | None = None
    absent_classes: tuple[str, ...] = ()

    @property
    def has_flags(self) -> bool:
        """Whether any meaning is a flag, so that the rule has a say."""
        meanings = [*self.flag_columns.values(), *(self.values or {}).values()]
        return any(meaning not in (*CLASSES, UNDETERMINED) for meaning in meanings)


def load_layout(name: str | Path) -> Layout:
    """Read a layout by the name of an example or by its path.

    Raises:
        UserFileError: neither.
        UserError: not JSON, or keys or values that are wrong; all are said at once.
    """
    path = LAYOUTS.find(name)
    content = LAYOUTS.read(path, _faults)
    info, rule = content.pop("info_files", {}), content.pop("rule", "")
    pattern, absent = content.pop("id_pattern", None), content.pop("absent_classes", ())
    return Layout(
        **content,
        id_pattern=re.compile(pattern) if pattern else None,
        info_files=re.compile(info["pattern"]) if info else None,
        info_key=info.get("key", ""),
        # a rule beside the layout is named as seen from there
        rule=str(path.parent / rule) if rule and (path.parent / rule).is_file() else rule,
        absent_classes=tuple(absent),
    )


def _faults(content: dict[str, Any]) -> list[str]:
    """What a schema cannot say: a pattern is a regular expression with one group."""
    patterns = {
        "id_pattern": content.get("id_pattern"),
        "info_files, pattern": content.get("info_files", {}).get("pattern"),
    }
    faults = []
    for place, pattern in patterns.items():
        try:
            groups = 1 if pattern is None else re.compile(pattern).groups
        except re.error as error:
            faults.append(f"{place}: not a regular expression ({error}): {pattern!r}")
            continue
        if groups != 1:
            faults.append(f"{place}: expected one group (…) that is the patient, got {groups} in {pattern!r}")
    return faults


def read_by_layout(layout: Layout, folder: Path, table: Path | None, rule: Rule) -> Table:
    """Diagnoses of a cohort from where its layout says they stand.

    Args:
        layout: says where they are.
        folder: holds the scans; info files are searched below it.
        table: where the layout names columns.
        rule: turns flags into a class.

    Raises:
        UserFileError: no table, or no info file.
        UserError: a table without the columns named, or empty.
    """
    if layout.info_files is not None:
        return _read_info_files(layout, folder, rule)
    if table is None:
        raise UserFileError(f"{folder}: no table given for cohort {layout.name}")
    cells = read_cells(table)
    columns = cells.columns
    wanted = [name for name in (layout.id_column, layout.class_column, *layout.flag_columns) if name]
    if absent := [name for name in wanted if column_key(name) not in columns]:
        raise UserError(
            f"{table}: no column {', '.join(map(repr, absent))}, which cohort {layout.name} names; got "
            f"{', '.join(map(str, cells.frame.columns))}"
        )
    id_column = columns[column_key(layout.id_column)] if layout.id_column else cells.frame.columns[0]
    cells.check(table, id_column, *wanted)
    rows = [
        row
        for number, (_, line) in enumerate(cells.frame.iterrows(), start=2)
        if (row := _row(layout, line, columns, id_column, number, rule)) is not None
    ]
    if not rows:
        raise UserError(f"{table}: the table has a header but no rows")
    known = {id_column, *(columns[column_key(name)] for name in layout.flag_columns)}
    notes = extra_flags(cells, known, rows) if layout.flag_columns else []
    return Table(rows, notes, layout.has_flags)


def _row(
    layout: Layout, line: pd.Series, columns: dict[str, str], id_column: str, number: int, rule: Rule
) -> Diagnosis | None:
    """One row of a table; None for an empty line."""
    patient, unknown = patient_of(line[id_column]), cell_faults({id_column: line[id_column]})
    named = [layout.class_column] if layout.class_column else list(layout.flag_columns)
    cells = {name: line[columns[column_key(name)]] for name in named}
    faults = cell_faults(cells) if layout.class_column else flag_faults(cells)
    if unknown:
        return Diagnosis(number, problem="; ".join([*unknown, *faults]))
    if not patient:
        filled = text_of if layout.class_column else flag_state
        return Diagnosis(number, problem="the id is empty") if faults or any(map(filled, cells.values())) else None
    if faults:
        return Diagnosis(number, patient, problem="; ".join(faults))
    row = Diagnosis(number, patient)
    if layout.class_column:
        return _diagnose(row, *_meanings_of(layout, text_of(cells[layout.class_column])), rule)
    return _diagnose(row, [layout.flag_columns[name] for name in named if flag_state(cells[name])], "", rule)


def _meanings_of(layout: Layout, written: str) -> tuple[list[str], str]:
    """What a cell or value means, and what is wrong with it."""
    if layout.values is None:
        label = class_name(written)
        return ([label], "") if label else ([], f"class {written!r}; expected one of {', '.join(CLASSES)}")
    found = next(
        (meaning for value, meaning in layout.values.items() if text_of(value).lower() == written.lower()), None
    )
    return ([found], "") if found else ([], f"value {written!r}; expected one of {', '.join(layout.values)}")


def _diagnose(row: Diagnosis, meanings: list[str], problem: str, rule: Rule) -> Diagnosis:
    """Class of a patient from all that its row means: any cyanotic lesion decides, then an undetermined one."""
    named = {flag for meaning in meanings if meaning not in (*CLASSES, UNDETERMINED) for flag in meaning.split("+")}
    flags = tuple(flag for flag in FLAGS if flag in named)
    verdicts: set[str | None] = {None if m == UNDETERMINED else m for m in meanings if m in (*CLASSES, UNDETERMINED)}
    reason = f"{UNDETERMINED}: the layout leaves it open" if None in verdicts else ""
    if flags or not verdicts:
        label, by_rule = rule.verdict(row.patient, flags)
        verdicts.add(label)
        reason = by_rule or reason
    if NORMAL in verdicts and len(verdicts) > 1:
        problem = problem or f"{NORMAL} and {'+'.join(flags) or 'another diagnosis'} at once"
    if problem:
        return Diagnosis(row.row, row.patient, flags=flags, problem=problem, source=row.source)
    label = CYANOTIC if CYANOTIC in verdicts else None if None in verdicts else verdicts.pop()
    return Diagnosis(row.row, row.patient, "", label, flags, "" if label else reason, source=row.source)


def _read_info_files(layout: Layout, folder: Path, rule: Rule) -> Table:
    """A row for each file of `key: value` lines."""
    rows: list[Diagnosis] = []
    for path in contents(folder).files:
        name = path.relative_to(folder).as_posix()
        match = layout.info_files.search(name) if layout.info_files and not is_shadow(path) else None
        if match:
            lines = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
            values = {column_key(key): text_of(value) for key, _, value in lines}
            written = values.get(column_key(layout.info_key))
            row = Diagnosis(len(rows) + 1, match[1] or "", source=name)
            meanings, problem = (
                ([], f"no line {layout.info_key}: …") if written is None else _meanings_of(layout, written)
            )
            rows.append(_diagnose(row, meanings, problem, rule))
    if not rows:
        raise UserFileError(
            f"{folder}: no info file of cohort {layout.name} found; expected paths like {_pattern(layout)}"
        )
    return Table(rows, [], layout.has_flags)


def _pattern(layout: Layout) -> str:
    return layout.info_files.pattern if layout.info_files else ""
