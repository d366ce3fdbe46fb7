"""A picture of several volumes at a glance: a row of axial frames for each.

Draws any volume it is given, and a cohort folder in ImageCHD's layout; judges nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from monai_chd.cohort.tables import Diagnosis, find_table, read_table
from monai_chd.errors import UserError, UserFileError
from monai_chd.files import replacing
from monai_chd.hu_offset import detect_hu_offset
from monai_chd.labels import CLASSES, STRUCTURES
from monai_chd.nifti import read_volume
from monai_chd.scans.opening import is_series, read_scan

DISPLAY_WINDOW = (-200.0, 900.0)
"""HU shown as black and as white: wide enough for lung edges, muscle and contrast to differ at once."""
TILE = 160
TITLE_WIDTH = 150
VENTRICLES = (1, 2, 5)
UNDETERMINED = "Undetermined"
COLOURS = (
    (0, 0, 0),
    (230, 60, 60),
    (60, 110, 230),
    (250, 150, 150),
    (140, 190, 255),
    (240, 205, 60),
    (205, 40, 160),
    (60, 205, 140),
)
"""Of background and `labels.STRUCTURES`: what carries red blood in a normal heart is reddish, what carries blue blood bluish."""
OPACITY = 0.45
LEGEND = 26
"""Pixels of the line that names the colours."""


class Case(NamedTuple):
    """One volume to draw.

    Attributes:
        title: lines of text at the left of the row.
        hu: HU, shape (X, Y, Z): X to the patient's right, Y anterior, Z to the head.
        heart: label map of the same shape; frames are spread over where it is not 0. None: over the whole volume.
        coloured: lay the label map's structures over the frames, in `COLOURS`.
    """

    title: str
    hu: NDArray[Any]
    heart: NDArray[Any] | None = None
    coloured: bool = False


def contact_sheet(cases: Sequence[Case], path: str | os.PathLike[str], *, columns: int = 8) -> Path:
    """Draw a row of axial frames for each case, feet to head, anterior up, the patient's right on the left.

    Args:
        cases: at least one; shown in this order.
        path: the PNG to write.
        columns: frames a case.

    Returns:
        `path`.

    Raises:
        UserError: no case, no column, or a volume that is not 3D.
    """
    if not cases or columns < 1:
        raise UserError(f"contact sheet: expected at least one case and one column, came {len(cases)} and {columns}")
    colour = any(case.coloured for case in cases)
    size = TITLE_WIDTH + columns * TILE, len(cases) * TILE + (LEGEND if colour else 0)
    sheet = Image.new("RGB" if colour else "L", size)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for row, case in enumerate(cases):
        if case.hu.ndim != 3:
            raise UserError(f"contact sheet: expected a volume (X, Y, Z) for {case.title!r}, came {case.hu.shape}")
        pen.multiline_text((8, row * TILE + 8), case.title, fill="white", font=font)
        for column, frame in enumerate(_frames(case, columns)):
            sheet.paste(frame, (TITLE_WIDTH + column * TILE, row * TILE))
    for number, name in enumerate(STRUCTURES if colour else (), 1):
        pen.text((8 + 80 * number, len(cases) * TILE + 4), name, fill=COLOURS[number], font=font)
    path = Path(path)
    with replacing(path) as passing:
        sheet.save(passing, format="PNG")
    return path


def _frames(case: Case, count: int) -> Iterator[Image.Image]:
    """Frames spread evenly over the heart, upright, windowed, at most `TILE` wide and high."""
    first, last = 0, case.hu.shape[2] - 1
    if case.heart is not None and case.heart.any():
        # caval vein and descending aorta go on below the heart, where there is nothing to see
        ventricles = np.isin(case.heart, VENTRICLES)
        first = np.flatnonzero((ventricles if ventricles.any() else case.heart).any((0, 1)))[0]
        last = np.flatnonzero(case.heart.any((0, 1)))[-1]
    low, high = DISPLAY_WINDOW
    # frames at the middle of `count` equal stretches: the first and the last slice of a heart show little of it
    for share in (np.arange(count) + 0.5) / count:
        place = round(first + share * (last - first))
        frame = case.hu[:, :, place].astype(np.float32)
        grey = np.rint(255 * np.clip((frame - low) / (high - low), 0, 1)).astype(np.uint8)
        picture = Image.fromarray(np.ascontiguousarray(grey[::-1, ::-1].T))
        if case.coloured and case.heart is not None:
            labels = np.ascontiguousarray(case.heart[::-1, ::-1, place].T)
            picture = picture.convert("RGB")
            over = Image.fromarray(np.array(COLOURS, np.uint8)[np.where(labels < len(COLOURS), labels, 0)])
            picture.paste(over, (0, 0), Image.fromarray(np.where(labels > 0, round(255 * OPACITY), 0).astype(np.uint8)))
        scale = TILE / max(picture.size)
        width, height = (max(1, round(scale * side)) for side in picture.size)
        yield picture.resize((width, height), Image.Resampling.BICUBIC)


def structure_contact_sheet(
    pairs: Sequence[tuple[str, Path, Path]], path: str | os.PathLike[str], *, most: int = 12
) -> Path:
    """Draw scans with their label maps laid over them.

    Args:
        pairs: title, scan and label map of each.
        path: the PNG to write.
        most: scans drawn at most, evenly spread over all.
    """
    chosen = [
        pairs[place] for place in np.unique(np.linspace(0, len(pairs) - 1, min(most, len(pairs))).round().astype(int))
    ]
    cases = []
    for title, scan, label_map in chosen:
        volume = read_scan(scan)
        hu = volume.values if is_series(scan) else volume.values + detect_hu_offset(volume.values, scan)
        axes = nib.orientations.io_orientation(volume.affine)
        shown, heart = (
            nib.orientations.apply_orientation(values, axes) for values in (hu, read_volume(label_map).values)
        )
        cases.append(Case(title, shown, heart, coloured=True))
    return contact_sheet(cases, path)


def cohort_contact_sheet(folder: str | os.PathLike[str], path: str | os.PathLike[str], per_class: int = 3) -> Path:
    """Draw some patients of each class of a cohort folder, of as many different diagnoses as there are.

    Args:
        folder: holds ImageCHD's workbook and `ct_<id>_image.nii.gz` as HU + 1024, with label maps where there are any.
        path: the PNG to write.
        per_class: patients a class at most; those whose flags leave the class open count as a class of their own.

    Returns:
        `path`.

    Raises:
        UserFileError: no workbook, or a patient of it has no image.
        UserError: a workbook that cannot be read, or without any sound row.
    """
    folder = Path(folder)
    rows = [row for row in read_table(find_table(folder)) if not row.problem]
    chosen = [
        row
        for name in (*CLASSES, UNDETERMINED)
        for row in _varied([row for row in rows if (row.label or UNDETERMINED) == name])[:per_class]
    ]
    return contact_sheet([_read_case(folder, row) for row in chosen], path)


def _varied(rows: Sequence[Diagnosis]) -> list[Diagnosis]:
    """The same rows, one of each set of flags before any second one."""
    seen: dict[tuple[str, ...], int] = {}
    turns = []
    for row in rows:
        seen[row.flags] = seen.get(row.flags, 0) + 1
        turns.append(seen[row.flags])
    return [row for _, row in sorted(zip(turns, rows, strict=True), key=lambda pair: pair[0])]


def _read_case(folder: Path, row: Diagnosis) -> Case:
    image, label = (folder / f"ct_{row.patient}_{kind}.nii.gz" for kind in ("image", "label"))
    if not image.is_file():
        raise UserFileError(f"{image}: the workbook lists patient {row.patient}, the folder has no such image")
    title = f"{row.patient}\n{row.label or UNDETERMINED}\n{' '.join(row.flags) or 'no flag'}"
    return Case(title, _read(image).astype(np.int16) - 1024, _read(label) if label.is_file() else None)


def _read(path: Path) -> NDArray[Any]:
    """Voxels of a NIfTI file, axes to the patient's right, anterior and head."""
    image: Any = nib.as_closest_canonical(nib.load(path))  # type: ignore[no-untyped-call]
    return np.asarray(image.dataobj)
