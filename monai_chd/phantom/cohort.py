"""Phantom cohorts on disk, in the files and the workbook of ImageCHD.

Owns which patient gets which lesion, file names and formats. A volume itself is `volume`'s.
"""

from __future__ import annotations

import csv
import functools
import gzip
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from openpyxl import Workbook

from monai_chd.cohort.rules import load_rule
from monai_chd.cohort.tables import SHEET
from monai_chd.errors import UserError
from monai_chd.files import replacing
from monai_chd.labels import CLASSES, CYANOTIC, FLAGS, NON_CYANOTIC, NORMAL
from monai_chd.nifti import SYNTHETIC
from monai_chd.phantom.lesions import check_flags
from monai_chd.phantom.rough_labels import (
    LABEL_KINDS,
    STRAY_VALUES,
    WITH_STRAY_VALUES,
    WITHOUT_MYOCARDIUM,
    add_stray_value,
    remove_myocardium,
    roughen,
)
from monai_chd.phantom.volume import Nuisances, check_volume, make_volume
from monai_chd.processes import cores, mapped

__all__ = ["LESIONS_OF_CLASS", "make_volume", "write_cohort"]

WORKBOOK = "imageCHD_dataset_info.xlsx"
NUISANCES = "phantom_nuisance.csv"
FIRST_ID = 1001
ROUGH_STREAM = 4
"""Last number of the seed of a patient's rough label map; `make_volume` and the workbook have streams of their own."""
WORTH_PROCESSES = 10e6
"""Voxels of a cohort from which on several processes write it: fewer are done before these have begun."""

EPOCH = datetime(1980, 1, 1)
"""Time stamp of everything inside the workbook: the same cohort gives the same bytes."""

LESIONS_OF_CLASS = {
    CYANOTIC: ("ToF", "TGA", "CAT", "VSD+PA"),
    NON_CYANOTIC: ("ASD", "VSD", "PDA", "CA"),
    NORMAL: ("none",),
}
"""Diagnoses a class is made of when a cohort names none."""


def write_cohort(
    folder: str | os.PathLike[str],
    *,
    patients: int = 60,
    size: int = 128,
    slices: tuple[int, int] = (40, 56),
    difficulty: str = "plain",
    lesions: Sequence[str] | None = None,
    labels: str = "clean",
    seed: int = 42,
    progress: bool = True,
) -> Path:
    """Write a cohort: image and label map of each patient, the workbook of diagnoses, and the nuisances drawn.

    Nuisances of a patient follow from the seed and the patient's place alone, never from the diagnosis. The same
    arguments give the same bytes, with the same versions of numpy, nibabel and openpyxl.

    Args:
        folder: made if missing; must be empty.
        patients: at least 3; ids run from 1001 and say nothing about the class.
        size: voxels along X and Y, at least 32.
        slices: fewest and most axial slices, at least 8.
        difficulty: "plain" for a small network and some 100 patients, "realistic" for the full ranges.
        lesions: diagnoses such as "DORV+VSD", "DAA" or "none", dealt in turn and then shuffled. None: the three classes
            in equal parts out of `LESIONS_OF_CLASS`.
        labels: "clean" label maps, or "rough" ones, as people draw them; images are the same.
        seed: of the cohort.
        progress: show a bar.

    Returns:
        The workbook, written last: where it is, the cohort is whole.

    Raises:
        UserError: a folder in use, or an argument that cannot be drawn, before anything is written.
    """
    if patients < 3:
        raise UserError(f"patients: expected at least 3, one a class, came {patients}")
    check_volume(size, slices, difficulty)
    if labels not in LABEL_KINDS:
        raise UserError(f"labels: expected {' or '.join(LABEL_KINDS)}, came {labels!r}")
    dealt = deal_lesions(patients, lesions, np.random.default_rng([seed]))
    folder = new_folder(folder)
    options = {"size": size, "slices": slices, "difficulty": difficulty}
    one = functools.partial(_write_patient, folder, seed, labels, options)
    work = patients * size * size * sum(slices) / 2
    processes = cores() if work > WORTH_PROCESSES else 1
    label = "phantom" if progress else ""
    drawn = list(mapped(one, list(enumerate(dealt)), processes, label, unit="patient"))
    write_file(folder / NUISANCES, _nuisance_table(dealt, drawn))
    diagnoses = (diagnosis_row(FIRST_ID + place, flags) for place, flags in enumerate(dealt))
    return write_file(folder / WORKBOOK, workbook(SHEET, [["index", *FLAGS], *diagnoses]))


def _write_patient(
    folder: Path, seed: int, labels: str, options: Mapping[str, Any], patient: tuple[int, Sequence[str]]
) -> Nuisances:
    """Write image and label map of the patient of a place and flags; what varies hangs on seed and place alone."""
    place, flags = patient
    image, label_map, nuisances = make_volume(flags, seed=(seed, place), **options)
    if labels == "rough":
        label_map = _drawn_by_hand(image, label_map, np.random.default_rng([seed, place, ROUGH_STREAM]))
    stem = f"ct_{FIRST_ID + place:04d}"
    write_file(folder / f"{stem}_image.nii.gz", nifti(image))
    write_file(folder / f"{stem}_label.nii.gz", nifti(label_map))
    return nuisances


def _drawn_by_hand(
    image: NDArray[np.int16], label_map: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A rough label map; some lack the myocardium, some have stray values, as often as ImageCHD's."""
    without, stray = rng.random() < WITHOUT_MYOCARDIUM, rng.random() < WITH_STRAY_VALUES
    value = int(rng.integers(STRAY_VALUES[0], STRAY_VALUES[1] + 1))
    rough = roughen(label_map, rng)
    if without:
        remove_myocardium(rough)
    if stray:
        add_stray_value(image, rough, value)
    return rough


def parse_diagnosis(text: str) -> list[str]:
    """Flags of a diagnosis such as "VSD+PA", in the order of `labels.FLAGS`; "none" has none.

    Raises:
        UserError: a name that is no flag with a geometry.
    """
    return [] if text.strip() == "none" else check_flags(flag.strip() for flag in text.split("+"))


def deal_lesions(patients: int, lesions: Sequence[str] | None, rng: np.random.Generator) -> list[list[str]]:
    """Decide the flags of each patient, in an order that tells nothing.

    Args:
        patients: how many.
        lesions: diagnoses dealt in turn; None for the three classes in equal parts.
        rng: shuffles.

    Raises:
        UserError: no diagnosis, or one that cannot be drawn.
    """
    if lesions is not None and (isinstance(lesions, str) or not lesions):
        raise UserError(f'lesions: expected a list of diagnoses such as ["DORV+VSD", "none"], came {lesions!r}')
    if lesions is not None:
        dealt = [lesions[place % len(lesions)] for place in range(patients)]
    else:
        decks = [rng.permutation(LESIONS_OF_CLASS[name]).tolist() for name in CLASSES]
        turns = [divmod(place, len(CLASSES)) for place in range(patients)]
        dealt = [decks[which][turn % len(decks[which])] for turn, which in turns]
    flags = {text: parse_diagnosis(text) for text in dict.fromkeys(dealt)}
    return [flags[dealt[place]] for place in rng.permutation(patients)]


def new_folder(folder: str | os.PathLike[str]) -> Path:
    """Make the folder of a cohort.

    Raises:
        UserError: it is in use.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: expected a new or empty folder for the cohort, came one in use; name another one")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_file(path: Path, fill: Callable[[IO[bytes]], Any]) -> Path:
    """Write a file under a passing name and rename it, so that a name stands for a whole file only."""
    with replacing(path) as passing, passing.open("wb") as stream:
        fill(stream)
    return path


def nifti(voxels: NDArray[Any]) -> Callable[[IO[bytes]], None]:
    """Writer of a volume as ImageCHD has it: spacing 1, unit unknown, orientation RAS by the sform alone; its header says that
    it is synthetic."""

    def fill(stream: IO[bytes]) -> None:
        image: Any = nib.Nifti1Image(voxels, np.eye(4))  # type: ignore[no-untyped-call]
        image.header.set_xyzt_units("unknown", "unknown")
        image.header["descrip"] = SYNTHETIC
        image.set_qform(None, code=0)
        image.set_sform(np.eye(4), code=1)
        with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=stream, mtime=0) as packed:
            image.to_stream(packed)

    return fill


def _nuisance_table(dealt: Sequence[Iterable[str]], drawn: Sequence[Nuisances]) -> Callable[[IO[bytes]], None]:
    """Writer of one row a patient: id, strict class ("Undetermined" where the flags do not tell), then what was drawn."""
    strict = load_rule("strict")

    def fill(stream: IO[bytes]) -> None:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["patient", "class", *drawn[0]])
        for place, (flags, nuisances) in enumerate(zip(dealt, drawn, strict=True)):
            values = [f"{value:.6g}" for value in nuisances.values()]
            table.writerow([FIRST_ID + place, strict.deciding_step(flags).label or "Undetermined", *values])
        stream.write(text.getvalue().encode())

    return fill


def diagnosis_row(patient: int, flags: Iterable[str]) -> list[int | None]:
    """A row of the workbook: the id, and a 1 under each flag that is present."""
    present = set(flags)
    return [patient, *(1 if flag in present else None for flag in FLAGS)]


def workbook(title: str, rows: Iterable[Sequence[Any]], *, frozen: str | None = None) -> Callable[[IO[bytes]], None]:
    """Writer of a workbook of one sheet; None leaves a cell blank, `frozen` names the first cell that scrolls."""

    def fill(stream: IO[bytes]) -> None:
        book = Workbook()
        sheet = book.active
        sheet.title = title
        sheet.freeze_panes = frozen
        for row in rows:
            sheet.append(row)
        book.properties.created = EPOCH
        saved = io.BytesIO()
        book.save(saved)
        _pin_times(saved, stream)

    return fill


def _pin_times(saved: IO[bytes], stream: IO[bytes]) -> None:
    """Copy a workbook with every time stamp at `EPOCH`: openpyxl puts the present one in when it saves."""
    modified = re.compile(rb"(<dcterms:modified[^>]*>)[^<]*")
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(stream, "w") as target:
        for name in source.namelist():
            content = modified.sub(rb"\g<1>" + f"{EPOCH.isoformat()}Z".encode(), source.read(name))
            entry = zipfile.ZipInfo(name, EPOCH.timetuple()[:6])
            target.writestr(entry, content, zipfile.ZIP_DEFLATED)
