"""Reads who has which diagnosis: ImageCHD's workbook of flags, or any table with an id or path column and a class column.

Gives rows as they are, with what is wrong with each; reading cells is `cells`' part, joining rows to scans `joining`'s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_chd.cohort.cells import (
    Cells,
    UnreadableCell,
    cell_faults,
    flag_faults,
    flag_state,
    read_csv,
    read_sheet,
    text_of,
    under_header,
)
from monai_chd.cohort.rules import Rule, load_rule
from monai_chd.errors import UserError, UserFileError
from monai_chd.folders import contents
from monai_chd.identity import patient_key
from monai_chd.labels import CLASSES, FLAGS
from monai_chd.wording import some_of

SHEET = "classification dataset"
IMAGE_INFO = "image_info.xlsx"
"""End of the name of ImageCHD's other workbook, in lower case."""
ID_COLUMNS = ("patient", "patient_id", "id", "index", "idx", "subject", "subject_id", "case", "case_id")
PATH_COLUMNS = ("image", "path", "file", "filename", "image_path")
CLASS_COLUMNS = ("class", "label", "diagnosis", "group", "category")
TABLE_SUFFIXES = (".csv", ".xlsx")


@dataclass(frozen=True)
class Diagnosis:
    """One row of a table.

    Attributes:
        row: its number as a spreadsheet shows it (the header is row 1).
        patient: id as text, "" when the row names an image instead.
        image: path as written, "" when the row names a patient.
        label: one of `CLASSES`, or None when the flags do not determine it (see `reason`) or the row is bad (see `problem`).
        flags: diagnosis flags present, in the order of `labels.FLAGS`.
        reason: why a sound row has no class.
        problem: what is wrong with the row, "" when nothing is.
        source: the file that the row stands for, when the table is made of many files.
    """

    row: int
    patient: str = ""
    image: str = ""
    label: str | None = None
    flags: tuple[str, ...] = ()
    reason: str = ""
    problem: str = ""
    source: str = ""

    @property
    def where(self) -> str:
        """What to call the row in a message."""
        return self.source or f"row {self.row}"


@dataclass
class Table:
    """All rows of a table.

    Attributes:
        rows: in the order of the file.
        notes: what a person should know of how it was read.
        has_flags: whether classes come from diagnosis flags by a rule; else they stand in the table.
    """

    rows: list[Diagnosis]
    notes: list[str] = field(default_factory=list)
    has_flags: bool = False

    def flags(self) -> dict[str, tuple[str, ...]]:
        """Flags of each patient whose row is sound, by `identity.patient_key`."""
        return {patient_key(row.patient): row.flags for row in self.rows if row.patient and not row.problem}


def is_shadow(path: Path) -> bool:
    """Whether a file is hidden: an AppleDouble shadow (`._name`), or what Excel leaves beside an open workbook."""
    return path.name.startswith((".", "~$"))


def find_table(folder: Path) -> Path:
    """The table of a cohort folder: ImageCHD's `*dataset_info.xlsx`, else its only .csv or .xlsx.

    Raises:
        UserFileError: there is none.
        UserError: several could be meant.
    """
    files = [path for path in contents(folder).files if path.suffix.lower() in TABLE_SUFFIXES and not is_shadow(path)]
    named = [path for path in files if path.name.lower().endswith("dataset_info.xlsx")]
    candidates = named or [
        path for path in files if not path.name.lower().endswith(IMAGE_INFO) and not path.name.startswith("phantom_")
    ]
    if not candidates:
        raise UserFileError(
            f"{folder}: no table of diagnoses found; expected imageCHD_dataset_info.xlsx in it, or name a .csv or .xlsx "
            f"with --table FILE"
        )
    if len(candidates) > 1:
        listed = ", ".join(str(path.relative_to(folder)) for path in candidates)
        raise UserError(f"{folder}: several tables could be meant ({listed}); name one with --table FILE")
    return candidates[0]


def read_table(path: Path) -> list[Diagnosis]:
    """Rows of a table of either kind, classed by the default rule; see `load_table`."""
    return load_table(path).rows


def load_table(path: Path, rule: Rule | None = None) -> Table:
    """Read a table of either kind; two or more known flag columns make it a workbook of flags.

    Args:
        path: .csv or .xlsx.
        rule: turns flags into a class; None: the default rule.

    Raises:
        UserFileError: no such file.
        UserError: not a table, empty, or without the columns needed.
    """
    cells = read_cells(path)
    columns, sheets = cells.columns, cells.sheets
    flag_columns = {flag: columns[flag.lower()] for flag in FLAGS if flag.lower() in columns}
    if len(flag_columns) >= 2:
        rows = _flag_rows(path, cells, flag_columns, rule or load_rule())
        known = {*flag_columns.values(), *(columns[name] for name in (*ID_COLUMNS, *PATH_COLUMNS) if name in columns)}
        table = Table(rows, extra_flags(cells, known, rows), has_flags=True)
        if sheets and SHEET not in (name.strip().lower() for name in sheets):
            table.notes.append(f"{path.name}: no sheet is named {SHEET!r}; read the first one, {sheets[0]!r}")
    else:
        table = Table(_class_rows(path, cells))
        if len(sheets) > 1:
            table.notes.append(f"{path.name}: read the sheet {sheets[0]!r}, not {', '.join(map(repr, sheets[1:]))}")
    if not table.rows:
        raise UserError(f"{path}: the table has a header but no rows")
    if cells.hidden:
        table.notes.append(f"{path.name}: rows hidden in the sheet are read like all others: {some_of(cells.hidden)}")
    return table


def extra_flags(cells: Cells, known: set[str], rows: Sequence[Diagnosis]) -> list[str]:
    """Warn of columns that look like flags nobody asked for: all cells 1, 0 or blank, and some 1.

    Args:
        cells: of the table.
        known: names of columns that are read.
        rows: what was read from them.
    """
    undiagnosed = {row.row: row.patient for row in rows if not row.flags and not row.problem}
    notes = []
    for name in set(cells.columns.values()) - known:
        states = [not isinstance(cell, UnreadableCell) and flag_state(cell) for cell in cells.frame[name]]
        if None in states or True not in states:
            continue
        alone = [undiagnosed[row] for row, state in enumerate(states, start=2) if state and row in undiagnosed]
        who = f"; {', '.join(alone)} have no other and count as without a diagnosis" if alone else ""
        notes.append(
            f"column {name} looks like a diagnosis flag that is not known and was not read{who}. Rename it to "
            f"one of {', '.join(FLAGS)}, or say what it means in a layout (--cohort FILE)"
        )
    return sorted(notes)


def read_cells(path: Path) -> Cells:
    """All cells as text or numbers, as they are (CSV as text, so that an id 007 stays 007), or as `UnreadableCell`.

    Raises:
        UserFileError: no such file.
        UserError: not a table, or the sheet of images instead of the one of diagnoses.
    """
    if not path.is_file():
        raise UserFileError(f"{path}: no such table")
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise UserError(f"{path}: expected a .csv or .xlsx table")
    if path.name.lower().endswith(IMAGE_INFO):
        # its cells hold birth dates, which no message about missing columns may show
        raise UserError(f"{path}: this sheet tells of images, not of diagnoses; expected imageCHD_dataset_info.xlsx")
    try:
        return under_header(read_csv(path)) if suffix == ".csv" else under_header(*read_sheet(path, SHEET))
    except UserError:
        raise
    except Exception as error:  # the parsers raise a dozen types for a damaged file
        raise UserError(f"{path}: cannot be read as a table ({error}); save it again as .xlsx or .csv") from error


def _flag_rows(path: Path, table: Cells, flag_columns: dict[str, str], rule: Rule) -> list[Diagnosis]:
    frame, columns = table.frame, table.columns
    known = [name for name in ID_COLUMNS if name in columns]
    if not known:
        raise UserError(
            f"{path}: no id column; expected one named 'index' (or {', '.join(ID_COLUMNS[:4])}), got "
            f"{', '.join(map(str, frame.columns))}"
        )
    id_column = columns["index"] if "index" in columns else columns[known[0]]
    if missing := [flag for flag in FLAGS if flag not in flag_columns]:
        # without its column a flag is absent from every patient, which can turn a cyanotic one into a normal one
        raise UserError(
            f"{path}: no column for {', '.join(missing)}; expected all of {', '.join(FLAGS)} (blank where nobody has it), got "
            f"{', '.join(map(str, frame.columns))}"
        )
    table.check(path, id_column, *flag_columns.values())
    rows = []
    for number, (_, cells) in enumerate(frame.iterrows(), start=2):
        flags = {flag: cells[column] for flag, column in flag_columns.items()}
        present = tuple(flag for flag, cell in flags.items() if flag_state(cell))
        patient, faults = patient_of(cells[id_column]), flag_faults(flags)
        if unknown := cell_faults({id_column: cells[id_column]}):
            rows.append(Diagnosis(number, flags=present, problem="; ".join([*unknown, *faults])))
        elif not patient and (present or faults):
            rows.append(Diagnosis(number, flags=present, problem="the id is empty"))
        elif faults:
            rows.append(Diagnosis(number, patient, problem="; ".join(faults)))
        elif patient:  # else an empty line below the table
            label, reason = rule.verdict(patient, present)
            rows.append(Diagnosis(number, patient, label=label, flags=present, reason=reason))
    return rows


def patient_of(cell: object) -> str:
    """The id in a cell: ImageCHD's are bare numbers, `ct_1001` and `ct_1001_image.nii.gz` mean 1001; "" when unreadable."""
    text = "" if isinstance(cell, UnreadableCell) else text_of(cell)
    match = re.fullmatch(r"ct_(\d+)(_image)?(\.nii(\.gz)?)?", text, flags=re.IGNORECASE)
    return match.group(1) if match else text


def class_name(text: str) -> str | None:
    """The class meant by a word: case, spaces, hyphens and underscores do not matter."""
    plain = re.sub(r"[\s_-]+", "", text).lower()
    return next((name for name in CLASSES if re.sub(r"-", "", name).lower() == plain), None)


def _class_rows(path: Path, table: Cells) -> list[Diagnosis]:
    frame, columns = table.frame, table.columns
    id_column = next((columns[name] for name in ID_COLUMNS if name in columns), None)
    path_column = next((columns[name] for name in PATH_COLUMNS if name in columns), None)
    class_column = next((columns[name] for name in CLASS_COLUMNS if name in columns), None)
    if class_column is None or (id_column is None and path_column is None):
        raise UserError(
            f"{path}: expected either ImageCHD's columns (index, {', '.join(FLAGS[:3])}, …), or an id column (one of "
            f"{', '.join(ID_COLUMNS[:4])}) or path column (one of {', '.join(PATH_COLUMNS[:3])}) together with a class "
            f"column (one of {', '.join(CLASS_COLUMNS[:3])}); got {', '.join(map(str, frame.columns))}"
        )
    read = [name for name in (id_column, path_column, class_column) if name is not None]
    table.check(path, *read)
    rows = []
    for number, (_, cells) in enumerate(frame.iterrows(), start=2):
        faults = cell_faults({name: cells[name] for name in read})
        patient = "" if id_column is None else patient_of(cells[id_column])
        place = None if path_column is None else cells[path_column]
        image = "" if isinstance(place, UnreadableCell) else text_of(place)
        written = text_of(cells[class_column])
        if not (patient or image or written or faults):
            continue
        label, problem = class_name(written), ""
        if faults:
            label, problem = None, "; ".join(faults)
        elif not (patient or image):
            problem = "neither id nor path"
        elif label is None:
            problem = f"class {written!r}; expected one of {', '.join(CLASSES)}"
        rows.append(Diagnosis(number, patient, image, label, problem=problem))
    return rows
