"""Reads the diagnoses of a cohort from where its file says they stand: columns of a table, or an info file a patient.

Joining them to scans is `joining`'s part.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from monai_chd.cohort.layouts import CohortConfig
from monai_chd.cohort.rules import Rule
from monai_chd.cohort.tables import (
    Diagnosis,
    Table,
    class_name,
    extra_flags,
    flag_state,
    is_shadow,
    named_columns,
    patient_id,
    read_cells,
    text_of,
)
from monai_chd.errors import UserError, UserFileError
from monai_chd.labels import CLASSES, CYANOTIC, FLAGS, NORMAL, UNDETERMINED


def read_cohort(config: CohortConfig, folder: Path, table: Path | None, rule: Rule) -> Table:
    """Diagnoses of a cohort as its file says.

    Args:
        config: says where they are.
        folder: holds the scans; info files are searched below it.
        table: where the config names columns.
        rule: turns flags into a class.

    Raises:
        UserFileError: no table, or no info file.
        UserError: a table without the columns named, or empty.
    """
    if config.info_files is not None:
        return _read_info_files(config, folder, rule)
    if table is None:
        raise UserFileError(f"{folder}: no table given for cohort {config.name}")
    frame, _ = read_cells(table)
    columns = named_columns(frame)
    wanted = [config.id_column, config.class_column, *config.flag_columns]
    if absent := [name for name in wanted if name and name.strip().lower() not in columns]:
        raise UserError(
            f"{table}: no column {', '.join(map(repr, absent))}, which cohort {config.name} names; got "
            f"{', '.join(map(str, frame.columns))}"
        )
    id_column = columns[config.id_column.strip().lower()] if config.id_column else frame.columns[0]
    rows = [
        row
        for number, (_, cells) in enumerate(frame.iterrows(), start=2)
        if (row := _row(config, cells, columns, patient_id(text_of(cells[id_column])), number, rule)) is not None
    ]
    if not rows:
        raise UserError(f"{table}: the table has a header but no rows")
    known = {id_column, *(columns[name.strip().lower()] for name in config.flag_columns)}
    notes = extra_flags(frame, known, rows) if config.flag_columns else []
    return Table(rows, notes, _has_flags(config))


def _has_flags(config: CohortConfig) -> bool:
    """Whether any meaning is a flag, so that the rule has a say."""
    meanings = [*config.flag_columns.values(), *(config.values or {}).values()]
    return any(meaning not in (*CLASSES, UNDETERMINED) for meaning in meanings)


def _row(
    config: CohortConfig, cells: pd.Series, columns: dict[str, str], patient: str, number: int, rule: Rule
) -> Diagnosis | None:
    """One row of a table; None for an empty line."""
    if config.class_column:
        written = text_of(cells[columns[config.class_column.strip().lower()]])
        if not (patient or written):
            return None
        if not patient:
            return Diagnosis(number, problem="the id is empty")
        return _diagnose(Diagnosis(number, patient), *_meanings_of(config, written), rule)
    states = {name: flag_state(cells[columns[name.strip().lower()]]) for name in config.flag_columns}
    if not patient and not any(state is not False for state in states.values()):
        return None
    if not patient:
        return Diagnosis(number, problem="the id is empty")
    if unreadable := [name for name, state in states.items() if state is None]:
        listed = ", ".join(f"{name} is {text_of(cells[columns[name.strip().lower()]])!r}" for name in unreadable)
        return Diagnosis(number, patient, problem=f"{listed}; expected 1, 0 or blank")
    return _diagnose(
        Diagnosis(number, patient), [config.flag_columns[name] for name in states if states[name]], "", rule
    )


def _meanings_of(config: CohortConfig, written: str) -> tuple[list[str], str]:
    """What a cell or value means, and what is wrong with it."""
    if config.values is None:
        label = class_name(written)
        return ([label], "") if label else ([], f"class {written!r}; expected one of {', '.join(CLASSES)}")
    found = next(
        (meaning for value, meaning in config.values.items() if value.strip().lower() == written.lower()), None
    )
    return ([found], "") if found else ([], f"value {written!r}; expected one of {', '.join(config.values)}")


def _diagnose(row: Diagnosis, meanings: list[str], problem: str, rule: Rule) -> Diagnosis:
    """Class of a patient from all that its row means: any cyanotic lesion decides, then an undetermined one."""
    named = {flag for meaning in meanings if meaning not in (*CLASSES, UNDETERMINED) for flag in meaning.split("+")}
    flags = tuple(flag for flag in FLAGS if flag in named)
    verdicts: set[str | None] = {None if m == UNDETERMINED else m for m in meanings if m in (*CLASSES, UNDETERMINED)}
    reason = f"{UNDETERMINED}: the cohort file leaves it open" if None in verdicts else ""
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


def _read_info_files(config: CohortConfig, folder: Path, rule: Rule) -> Table:
    """A row for each file of `key: value` lines."""
    rows: list[Diagnosis] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        match = config.info_files.search(name) if config.info_files and not is_shadow(path) else None
        if match and path.is_file():
            lines = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
            values = {key.strip().lower(): value.strip() for key, _, value in lines}
            written = values.get(config.info_key.strip().lower())
            row = Diagnosis(len(rows) + 1, match[1] or "", source=name)
            meanings, problem = (
                ([], f"no line {config.info_key}: …") if written is None else _meanings_of(config, written)
            )
            rows.append(_diagnose(row, meanings, problem, rule))
    if not rows:
        raise UserFileError(
            f"{folder}: no info file of cohort {config.name} found; expected paths like {_pattern(config)}"
        )
    return Table(rows, [], _has_flags(config))


def _pattern(config: CohortConfig) -> str:
    return config.info_files.pattern if config.info_files else ""
