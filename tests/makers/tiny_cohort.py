"""Cohorts of tiny CT volumes for tests: 12 x 12 x 8 voxels, stored as ImageCHD's are (int16, HU + 1024)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from monai_chd.labels import CLASSES


def voxels(seed: int = 0, shape: tuple[int, ...] = (12, 12, 8)) -> np.ndarray:
    """Noise over 0…4095 with a third of the voxels at 1050, as soft tissue in CT stored without sign."""
    values = np.random.default_rng(seed).integers(0, 4096, shape).astype(np.int16)
    values[: shape[0] // 3] = 1050
    values[-1, -1, -1] = 0
    return values


def write_scan(path: Path, values: np.ndarray | int = 0) -> Path:
    """Write voxels, or those of a seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels(values) if isinstance(values, int) else values, np.eye(4)), path)
    return path


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a csv."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_cohort(folder: Path, patients: int = 24, first: int = 1001) -> Path:
    """Patients in ImageCHD's file names with the classes in turn, and a table `cases.csv` of id and class."""
    ids = range(first, first + patients)
    for number in ids:
        write_scan(folder / f"ct_{number}_image.nii.gz", number)
    write_rows(folder / "cases.csv", ["patient", "class"], [[n, CLASSES[(n - first) % 3]] for n in ids])
    return folder
