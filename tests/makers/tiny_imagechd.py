"""ImageCHD for tests: its 110 patients with their real flags, both workbooks and its oddities, in volumes of 8 x 8 x 6 voxels."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
from openpyxl import Workbook
from tiny_cohort import voxels, write_scan

from monai_chd.labels import FLAGS

TABLE = Path(__file__).parents[1] / "data" / "imagechd_flags.csv"
STRAY = {"1010": 15, "1016": 8}
NO_MYOCARDIUM = ("1005", "1015")
CROPPED = "1081"


def known_flags() -> dict[str, tuple[str, ...]]:
    """Flags of the 110 patients by id."""
    with TABLE.open(newline="") as file:
        return {row["index"]: tuple(f for f in FLAGS if row[f] == "1") for row in csv.DictReader(file)}


def write_diagnoses(
    path: Path,
    change: Callable[[list[list[object]]], object] = lambda rows: None,
    sheet: str = "classification dataset",
) -> Path:
    """The workbook of flags as released: numeric ids, 1 or blank, the one explicit 0.

    Args:
        path: to write.
        change: edits the rows in place, header first.
        sheet: name of the only sheet.
    """
    rows: list[list[object]] = [["index", *FLAGS]]
    rows += [[int(patient), *(1 if f in flags else None for f in FLAGS)] for patient, flags in known_flags().items()]
    next(row for row in rows if row[0] == 1047)[1 + FLAGS.index("VSD")] = 0
    change(rows)
    book = Workbook()
    book.active.title = sheet
    for row in rows:
        book.active.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def info_row(patient: int, *, x: object = "0,25", z: object = 0.75, born: object = 20100101) -> list[object]:
    """A row of the sheet of images: scanned on 1 July 2012."""
    return [
        "idx", patient - 1000, "PatientBirthDate", born, "AcquisitionDate", "20120701", "PatientSex", "F",
        " PixelSpacing ", x, x, "calculate_z_thick", z, "ManufacturerModelName", "iCT 256",
    ]  # fmt: skip


def write_info(path: Path, rows: Iterable[list[object]]) -> Path:
    """The sheet of images: rows of keys and values, no header."""
    book = Workbook()
    book.active.title = "Sheet1"
    for row in rows:
        book.active.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def label_map(patient: str, shape: tuple[int, ...]) -> np.ndarray:
    """Labels 0 to 7, with what is odd about some patients."""
    labels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) % 8
    if patient in NO_MYOCARDIUM:
        labels[labels == 5] = 0
    if patient in STRAY:
        labels[0, 0, :3] = STRAY[patient]
    return labels


def write_imagechd(folder: Path) -> Path:
    """The whole data set."""
    for patient in known_flags():
        shape = (7, 6, 6) if patient == CROPPED else (8, 8, 5 + int(patient) % 3)
        write_scan(folder / f"ct_{patient}_image.nii.gz", voxels(int(patient), shape))
        nib.save(nib.Nifti1Image(label_map(patient, shape), np.eye(4)), folder / f"ct_{patient}_label.nii.gz")
    write_diagnoses(folder / "imageCHD_dataset_info.xlsx")
    rows = [info_row(int(patient)) for patient in reversed(known_flags())]
    write_info(folder / "imagechd_dataset_image_info.xlsx", rows)
    return folder
