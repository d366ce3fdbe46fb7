"""Reads the cells of a table file, .csv or .xlsx; one whose value nobody can know stays an `UnreadableCell`, never a blank.

What the cells mean is the part of `tables`, `layouts` and `imagechd_image_info`.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
from openpyxl.utils import get_column_letter

from monai_chd.errors import UserError

DELIMITERS = (",", ";", "\t")
ERROR_TEXT = re.compile(r"#(N/A|NV|N/D|GETTING_DATA|\S+[!?])|Err:\d{3}")
"""An error as spreadsheet programs show it, in some of their languages, and as it then stands in a CSV."""
OLD_WORKBOOK = b"\xd0\xcf\x11\xe0"
"""First bytes of an .xls, and of an .xlsx with a password."""
FULL_CALCULATION = re.compile(rb"<(?:\w+:)?calcPr\b[^>]*\bfullCalcOnLoad\s*=\s*[\"'](?:1|true)[\"']")

Rows = list[list[object]]


@dataclass(frozen=True)
class UnreadableCell:
    """A cell that holds or held something, but what is not known.

    Attributes:
        address: as a spreadsheet shows it, such as C7.
        fault: what is wrong with it and the mend, to be said after the address.
        anchor: address of the first cell of the merged ones that it belongs to.
    """

    address: str
    fault: str
    anchor: str = ""

    def __str__(self) -> str:
        """Never blank, 0 or 1, so that it is not taken for a value."""
        return f"{self.address} {self.fault}"


@dataclass(frozen=True)
class Cells:
    """The cells of a table below its header.

    Attributes:
        frame: text, numbers and `UnreadableCell`s, under the names of the header; row 0 is row 2 of the spreadsheet.
        sheets: names of the workbook's sheets, the one that was read first.
        doubts: why a column of the header may not be the one meant, by `column_key`.
        hidden: numbers of the rows that a filter, or a person, hides in the spreadsheet; they are among the others.
    """

    frame: pd.DataFrame
    sheets: list[str] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)
    hidden: list[int] = field(default_factory=list)

    @property
    def columns(self) -> dict[str, str]:
        """Columns by `column_key`; nameless ones left out."""
        names = [str(name) for name in self.frame.columns]
        return {column_key(name): name for name in reversed(names) if not name.startswith("Unnamed:")}

    def check(self, path: Path, *names: str) -> None:
        """Refuse a column that is read when it is in doubt.

        Raises:
            UserError: it stands twice in the header, or its name is merged over several columns.
        """
        if doubts := [self.doubts[column_key(name)] for name in names if column_key(name) in self.doubts]:
            raise UserError(f"{path}: {'; '.join(doubts)}; give every column one name of its own")


def column_key(name: object) -> str:
    """What the spellings of one column's name have in common: case, blanks around it and Unicode forms do not matter."""
    return text_of(name).lower()


def text_of(cell: object) -> str:
    """A cell as text in Unicode's NFC, without blanks around it; 1001.0 becomes 1001."""
    if cell is None or (isinstance(cell, float) and cell != cell):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return unicodedata.normalize("NFC", str(cell)).strip()


def flag_state(cell: object) -> bool | None:
    """Whether a flag cell says present; None when it says neither."""
    text = text_of(cell).lower()
    if text in ("1", "1.0", "true"):
        return True
    return False if text in ("", "0", "0.0", "false") else None


def cell_faults(cells: dict[str, object]) -> list[str]:
    """What is wrong with those of some cells that cannot be read.

    Args:
        cells: by the names of their columns.
    """
    return [f"{cell.address} ({name}) {cell.fault}" for name, cell in cells.items() if isinstance(cell, UnreadableCell)]


def flag_faults(cells: dict[str, object]) -> list[str]:
    """What is wrong with those of some flag cells that say neither present nor absent, likewise."""
    written = [
        f"{name} is {text_of(cell)!r}"
        for name, cell in cells.items()
        if flag_state(cell) is None and not isinstance(cell, UnreadableCell)
    ]
    return [*cell_faults(cells), *([f"{', '.join(written)}; expected 1, 0 or blank"] if written else [])]


def under_header(rows: Rows, sheets: Sequence[str] = (), hidden: Sequence[int] = ()) -> Cells:
    """Take the first row for the names of the columns; a name that stands twice gets a number after it."""
    names: list[str] = []
    places: dict[str, str] = {}
    doubts: dict[str, str] = {}
    for number, cell in enumerate(rows[0] if rows else [], start=1):
        letter = get_column_letter(number)
        if isinstance(cell, UnreadableCell) and cell.anchor:
            over = names[openpyxl.utils.cell.coordinate_to_tuple(cell.anchor)[1] - 1]
            doubts[column_key(over)] = f"the name {over} in {cell.anchor} is merged over several columns"
            cell = ""
        name = text_of(cell) or f"Unnamed: {number - 1}"
        if (key := column_key(name)) in places:
            places[key] += f" and {letter}1"
            doubts[key] = f"the name {name} stands in {places[key]}"
            name = f"{name}.{number}"
        names.append(name)
        places.setdefault(key, f"{letter}1")
    frame = pd.DataFrame(rows[1:], columns=pd.Index(names, dtype=object), dtype=object)
    return Cells(frame, list(sheets), doubts, list(hidden))


def read_csv(path: Path) -> Rows:
    """All cells of a CSV as text, so that an id 007 stays 007.

    Raises:
        UserError: it is not in UTF-8.
    """
    text = _decoded(path).lstrip("\r\n")
    header = (text.splitlines() or [""])[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header would shift or lose cells
        frame = pd.read_csv(
            io.StringIO(text),
            sep=max(DELIMITERS, key=header.count),
            header=None,
            dtype=str,
            skipinitialspace=True,
            index_col=False,
            skip_blank_lines=False,  # or the numbers of the rows would not be those of a spreadsheet
            keep_default_na=False,  # a patient "NA" is not missing, a flag "n/a" not absent
        )
    return [
        [_unless_error(cell, row, column) for column, cell in enumerate(cells, start=1)]
        for row, cells in enumerate(frame.itertuples(index=False), start=1)
    ]


def _decoded(path: Path) -> str:
    """Text of a file in UTF-8, with or without a byte order mark."""
    content = path.read_bytes()
    mend = 'save it as "CSV UTF-8" (in LibreOffice: character set Unicode (UTF-8))'
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        raise UserError(f"{path}: cannot be read as a table, since it is in UTF-16 instead of UTF-8; {mend}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}: cannot be read as a table, since it is not in UTF-8 but most likely in Windows-1252 (cp1252) or Latin-1 "
            f"(row {row} holds the byte 0x{content[error.start]:02X}); {mend}"
        ) from error


def read_sheet(path: Path, wanted: str = "") -> tuple[Rows, list[str], list[int]]:
    """All cells of one sheet of a workbook as they are, the names of its sheets, that one first, and its hidden rows.

    Args:
        path: .xlsx.
        wanted: name of the sheet in lower case; when there is none of this name the first one that is not hidden is read,
            which is what a person who opens the workbook takes for its table.

    Raises:
        UserError: an .xls, or a workbook with a password.
    """
    content = path.read_bytes()
    if content.startswith(OLD_WORKBOOK):
        raise UserError(
            f"{path}: cannot be read as a table, since it is an old .xls workbook or has a password; save it as .xlsx without one"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what openpyxl says of styles and of what it would not write back
        values, formulas = (openpyxl.load_workbook(io.BytesIO(content), data_only=only) for only in (True, False))
    names = [sheet.title for sheet in values.worksheets]
    shown = [n for n, sheet in enumerate(values.worksheets) if sheet.sheet_state == "visible"]
    number = next((n for n, name in enumerate(names) if name.strip().lower() == wanted), shown[0])
    sheets = [names[number], *names[:number], *names[number + 1 :]]
    sheet = values.worksheets[number]
    rows = _rows(sheet, formulas.worksheets[number], _is_stale(content))
    hidden = sorted(row for row, form in sheet.row_dimensions.items() if form.hidden and 1 < row <= len(rows))
    return rows, sheets, hidden


def _is_stale(content: bytes) -> bool:
    """Whether a workbook asks to be worked out at its next opening.

    So do programs that write formulas without working them out, some with a 0 meanwhile; a spreadsheet program does not.
    Read by hand, as openpyxl takes a workbook that says nothing of it for one that asks.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        names = [name for name in parts.namelist() if re.fullmatch(r"xl/workbook\d*\.xml", name)]
        return any(FULL_CALCULATION.search(parts.read(name)) for name in names)


def _rows(values: Any, formulas: Any, stale: bool) -> Rows:
    """Cells of a sheet, of the workbook loaded for its values and for its formulas.

    Only the cells that are stored are looked at: one that was formatted in the last row makes no million of rows.
    """
    computed = {place for place, cell in formulas._cells.items() if cell.data_type == "f"}
    cells: dict[tuple[int, int], object] = {}
    for (row, column), cell in values._cells.items():
        if cell.data_type == "e":
            content: object = _error(row, column, cell.value)
        # an empty text that a formula gave is stored as one: its type is then "str"
        elif (row, column) in computed and (stale or (cell.value is None and cell.data_type == "n")):
            fault = "holds a formula whose value was never worked out; open and save the table in a spreadsheet program"
            content = UnreadableCell(_address(row, column), fault)
        else:
            content = _unless_error(cell.value, row, column)
        if text_of(content):
            cells[row, column] = content
    height, width = (max((place[axis] for place in cells), default=0) for axis in (0, 1))
    for area in values.merged_cells.ranges:
        anchor = (area.min_row, area.min_col)
        if anchor not in cells:
            continue
        fault = f"is one of the merged cells {area.coord}, so its value is not known; unmerge them and fill in each"
        for row in range(area.min_row, min(area.max_row, height) + 1):
            for column in range(area.min_col, area.max_col + 1):
                if (row, column) != anchor and (column <= width or row == 1):
                    cells[row, column] = UnreadableCell(_address(row, column), fault, _address(*anchor))
    width = max((place[1] for place in cells), default=0)
    # a blank is "": beside None, pandas makes of a date a row of dates and of the blank a NaT
    return [[cells.get((row, column), "") for column in range(1, width + 1)] for row in range(1, height + 1)]


def _address(row: int, column: int) -> str:
    return f"{get_column_letter(column)}{row}"


def _unless_error(cell: object, row: int, column: int) -> object:
    """A cell as it is, unless its text is that of an error."""
    return _error(row, column, cell) if isinstance(cell, str) and ERROR_TEXT.fullmatch(cell.strip()) else cell


def _error(row: int, column: int, shown: object) -> UnreadableCell:
    return UnreadableCell(_address(row, column), f"holds the error {text_of(shown)}; write what it should say")
