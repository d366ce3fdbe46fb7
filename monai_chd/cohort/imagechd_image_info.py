"""Reads ImageCHD's second workbook: voxel size and scanner of each scan, and the age, if asked for.

The workbook also holds birth dates and sex. They are never returned, and no message of this module repeats a cell of them.
"""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from monai_chd.cohort.cells import UnreadableCell, read_sheet, text_of
from monai_chd.cohort.tables import IMAGE_INFO, is_shadow
from monai_chd.errors import UserError, UserFileError
from monai_chd.folders import contents

FIRST_ID = 1000
"""The id of a scan is its idx in the sheet plus this."""

KEYS = (
    "idx", "patientbirthdate", "acquisitiondate", "patientsex", "pixelspacing", "calculate_z_thick", "manufacturermodelname",
)  # fmt: skip
"""Cells that name what stands in the cells after them, in lower case."""


@dataclass(frozen=True)
class ImageInfo:
    """What the sheet says of one scan.

    Attributes:
        spacing_mm: size of a voxel along x, y and z; None when it is not three positive numbers. z is the sheet's
            `calculate_z_thick`, which may be the thickness of a slice rather than the distance of two.
        scanner: model name, "" when it is not there.
        age_years: from birth to scan, two decimals; None when not asked for or not two dates in that order.
    """

    spacing_mm: tuple[float, float, float] | None = None
    scanner: str = ""
    age_years: float | None = None


@dataclass
class ImageSheet:
    """The whole sheet: scans by id, and what a person should know of how it was read."""

    scans: dict[str, ImageInfo] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_image_info(folder: Path) -> Path | None:
    """The sheet of a cohort folder, in any case of letters and depth; None when there is none.

    Raises:
        UserError: there are several.
    """
    found = [p for p in contents(folder).files if p.name.lower().endswith(IMAGE_INFO) and not is_shadow(p)]
    if len(found) > 1:
        listed = ", ".join(str(path.relative_to(folder)) for path in found)
        raise UserError(f"{folder}: several sheets of images ({listed}); keep the one that belongs to the scans")
    return found[0] if found else None


def read_image_info(path: Path, *, ages: bool = False) -> ImageSheet:
    """Read the rows of keys and values; they have no header.

    Args:
        path: .xlsx.
        ages: work out `age_years` too.

    Raises:
        UserFileError: no such file.
        UserError: not a workbook, or no row of it has an idx.
    """
    if not path.is_file():
        raise UserFileError(f"{path}: no such sheet of images")
    try:
        rows, *_ = read_sheet(path)
    except UserError:
        raise
    except Exception as error:  # the parsers raise a dozen types for a damaged file, with cells in their text
        raise UserError(
            f"{path}: cannot be read as a workbook ({type(error).__name__}); copy or download it again"
        ) from error
    sheet, seen = ImageSheet(), set()
    for number, cells in enumerate(rows, start=1):
        values = _by_key(cells)
        patient = _patient(values.get("idx", []))
        if not patient:
            if values or any(text_of(cell) for cell in cells):
                sheet.notes.append(f"{path.name}, row {number}: no whole number after idx; the row was not read")
        elif patient in seen:
            sheet.scans.pop(patient, None)
            sheet.notes.append(f"{path.name}, row {number}: a second row of {patient}; neither was taken")
        else:
            seen.add(patient)
            sheet.scans[patient] = _info(values, ages, f"{path.name}, row {number} ({patient})", sheet.notes)
    if not seen:
        raise UserError(
            f"{path}: no row holds an idx; expected rows of keys and values (idx, 1, …, PixelSpacing, 0.3, …)"
        )
    return sheet


def _by_key(cells: list[object]) -> dict[str, list[object]]:
    """Cells after each key, up to the next one; empty cells left out."""
    values: dict[str, list[object]] = {}
    current = None
    for cell in cells:
        text = text_of(cell)
        if (key := text.lower().rstrip(" :")) in KEYS:
            current = values.setdefault(key, [])
        elif text and current is not None:
            current.append(cell)
    return values


def _info(values: dict[str, list[object]], ages: bool, where: str, notes: list[str]) -> ImageInfo:
    sizes = [_number(cell) for cell in [*values.get("pixelspacing", [])[:2], *values.get("calculate_z_thick", [])[:1]]]
    good = [size for size in sizes if size is not None and size > 0]
    spacing = (good[0], good[1], good[2]) if len(good) == len(sizes) == 3 else None
    if spacing is None:
        notes.append(f"{where}: PixelSpacing and calculate_z_thick are not three positive numbers; no spacing")
    # without its own key, the model stands right after the thickness; a lone letter there would be the sex
    models = values.get("manufacturermodelname") or [
        cell for cell in values.get("calculate_z_thick", [])[1:] if re.search(r"[A-Za-z]{2}", text_of(cell))
    ]
    if models and isinstance(models[0], UnreadableCell):
        notes.append(f"{where}: {models[0]}; no scanner")
        models = []
    age = None
    if ages:
        born, scanned = (_date(values.get(key, [])) for key in ("patientbirthdate", "acquisitiondate"))
        if born is None or scanned is None or scanned < born:
            notes.append(f"{where}: the two dates are not dates in order; no age")
        else:
            age = round((scanned - born).days / 365.25, 2)
    return ImageInfo(spacing, text_of(models[0]) if models else "", age)


def _patient(cells: list[object]) -> str:
    """Id of a scan by its idx, which may also be written as the id itself; "" when it is neither."""
    match = re.fullmatch(r"(?:ct_)?(\d+)(?:\.0+)?", text_of(cells[0]).lower()) if cells else None
    if not match:
        return ""
    number = int(match[1])
    return str(number if number > FIRST_ID else number + FIRST_ID)


def _number(cell: object) -> float | None:
    """A number, or text that is one, with a decimal point or comma."""
    try:
        number = float(text_of(cell).replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(cells: list[object]) -> datetime.date | None:
    """yyyymmdd as a number or text, yyyy-mm-dd, or a date cell."""
    if not cells:
        return None
    if isinstance(cells[0], datetime.datetime):
        return cells[0].date()
    digits = re.sub(r"[-/.]", "", re.sub(r"\.0+$", "", text_of(cells[0])).split(" ")[0])
    try:
        return datetime.datetime.strptime(digits, "%Y%m%d").date() if len(digits) == 8 else None
    except ValueError:
        return None
