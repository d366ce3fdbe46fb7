"""The phantom as ImageCHD: all its patients with their real flags, and everything odd about its files and workbooks.

Owns what is odd and which patient has it. Dates, sexes, scanners and spacings are made up. Hearts are
`volume`'s, formats are `cohort`'s.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from monai_chd.cohort.imagechd import Known, patients
from monai_chd.cohort.tables import SHEET
from monai_chd.errors import UserError, UserFileError
from monai_chd.labels import FLAGS
from monai_chd.phantom.cohort import (
    EPOCH,
    ROUGH_STREAM,
    WORKBOOK,
    diagnosis_row,
    new_folder,
    nifti,
    workbook,
    write_file,
)
from monai_chd.phantom.rough_labels import LABEL_KINDS, add_stray_value, remove_myocardium, roughen
from monai_chd.phantom.volume import check_volume, make_volume

IMAGE_WORKBOOK = "imagechd_dataset_image_info.xlsx"
INFO_SHEET = "Sheet1"
FOLDER_IN_ARCHIVE = "ImageCHD_dataset"
VOLUMES = 13
SMALLEST_VOLUME = 64
"""Volumes of the split archive; KiB that `zip` asks of one at least."""

DIFFICULTY = "realistic"
FEWEST = 8
"""Voxels along any axis, however small the cohort is made."""

HIGHEST, HIGHEST_OF = 4095, {1010: 3713}
STRAY_LABELS = {1010: 15, 1016: 8, 1080: 12, 1122: 13}
NO_CONTRAST = 1063
STREAKED = 1170
EXPLICIT_ZERO = (1047, "VSD")
NO_MYOCARDIUM, MORE_WITHOUT = (1005, 1015), 11
"""The two known by name, and how many more the reports amount to; none of them is shared with CHD68."""

FLOAT_SHARE = 0.3
ROUNDING = np.float32(2e-5)
"""Share of label maps stored as float32, and the relative error of their values: 5 is 4.9999 or 5.0001."""

SCANNERS = {"SOMATOM Definition Flash": (0.75,), "iCT 256": (0.8, 1.5)}
"""Model names, and the distances between slices in mm that come with each."""


@dataclass(frozen=True)
class Draws:
    """What is drawn once for the whole cohort, so that a part of it is the same as in the whole.

    Attributes:
        without_myocardium: ids whose label map lacks it.
        float_labels: ids whose label map is float32 with rounding errors.
        info_order: ids in the order of the image-info sheet.
    """

    without_myocardium: frozenset[int]
    float_labels: frozenset[int]
    info_order: tuple[int, ...]


def write_imagechd(
    folder: str | os.PathLike[str],
    *,
    size: int = 64,
    seed: int = 42,
    archive: bool = False,
    labels: str = "rough",
    ids: Collection[int] | None = None,
    progress: bool = True,
) -> Path:
    """Write ImageCHD with phantom hearts: scans, label maps and both workbooks in one flat folder.

    The oddities of the real files are where they are known to be; where only their number is known, the seed picks.
    None of them, and nothing in the image-info sheet, follows from the diagnosis. Unflagged patients are hearts without
    lesion. The same arguments give the same bytes, with the same versions of numpy, nibabel, openpyxl and zip.

    Args:
        folder: made if missing; must be empty.
        size: voxels along X and Y, at least 32; the number of slices shrinks alike. 512 gives the real shapes, some 10 GB.
        seed: of everything that is not known.
        archive: also write the split archive as Kaggle serves it into `folder`/archive; needs the program zip, and twice
            the disk.
        labels: "rough" label maps, as people draw them, or "clean" ones.
        ids: patients to write, for a part of the cohort; their files are those of the whole. None: all 110.
        progress: show a bar.

    Returns:
        The workbook of diagnoses, written after everything but the archive.

    Raises:
        UserError: an argument that cannot be met, or a folder in use, before anything is written.
        UserFileError: zip is needed and missing, before anything is written.
    """
    known = {int(patient): facts for patient, facts in patients().items()}
    chosen = [patient for patient in known if ids is None or patient in ids]
    if not chosen or len(chosen) < len(set(ids or chosen)):
        raise UserError(
            f"ids: expected some of ImageCHD's {len(known)} patients, such as 1001, came {sorted(ids or ())}"
        )
    check_volume(size, (FEWEST, FEWEST), DIFFICULTY)
    if labels not in LABEL_KINDS:
        raise UserError(f"labels: expected {' or '.join(LABEL_KINDS)}, came {labels!r}")
    zip_program = _find_zip() if archive else ""
    folder = new_folder(folder)
    draws = draw_cohort(known, seed)
    real_size = max(facts.shape[0] for facts in known.values())
    for patient in tqdm(chosen, desc="phantom", unit="patient", disable=not progress):
        shape = scaled_shape(known[patient].shape, size, real_size)
        image, label_map = make_scan(
            patient, known[patient].flags, shape, size=size, seed=seed, draws=draws, rough=labels == "rough"
        )
        write_file(folder / f"ct_{patient}_image.nii.gz", nifti(image))
        write_file(folder / f"ct_{patient}_label.nii.gz", nifti(label_map))
    rows = [image_info_row(patient, seed) for patient in draws.info_order if patient in chosen]
    write_file(folder / IMAGE_WORKBOOK, workbook(INFO_SHEET, rows))
    diagnoses = [_diagnosis_row(patient, known[patient].flags) for patient in chosen]
    path = write_file(folder / WORKBOOK, workbook(SHEET, [["index", *FLAGS], *diagnoses], frozen="A2"))
    if archive:
        write_archive(folder, zip_program)
    return path


def draw_cohort(known: Mapping[int, Known], seed: int) -> Draws:
    """Pick the patients of those oddities of which only the number is known; diagnoses have no say."""
    rng = np.random.default_rng([seed])
    ids = list(known)
    free = [patient for patient in ids if not known[patient].chd68 and patient not in NO_MYOCARDIUM]
    more = rng.choice(free, MORE_WITHOUT, replace=False).tolist()
    floats = rng.choice(ids, round(FLOAT_SHARE * len(ids)), replace=False).tolist()
    return Draws(frozenset(more) | set(NO_MYOCARDIUM), frozenset(floats), tuple(rng.permutation(ids).tolist()))


def scaled_shape(shape: tuple[int, int, int], size: int, real_size: int) -> tuple[int, int, int]:
    """Shape of a volume when `real_size` voxels become `size`; what is not square stays so."""
    x, y, z = (max(FEWEST, round(voxels * size / real_size)) for voxels in shape)
    return x, (y if x != y or shape[0] == shape[1] else y - 1), z


def make_scan(
    patient: int,
    flags: Sequence[str],
    shape: tuple[int, int, int],
    *,
    size: int,
    seed: int,
    draws: Draws,
    rough: bool = True,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """One patient's image, int16 in 0..4095, and label map, uint8 or float32, with the oddities of the id.

    Args:
        patient: id.
        flags: diagnosis flags.
        shape: of the result; narrower than `size` for the one crop.
        size: voxels along X and Y of the whole cohort.
        seed: of the cohort.
        draws: what the cohort drew.
        rough: whether the label map is drawn as by hand.
    """
    cropped = shape[0] < size
    grid = round(1.4 * shape[0]) if cropped else size  # hearts fill some 70 % of the field of view
    step = -(-32 // grid)  # smaller hearts cannot be made, only thinned out
    image, labels, _ = make_volume(
        flags,
        seed=(seed, patient),
        size=grid * step,
        slices=(shape[2], shape[2]),
        difficulty=DIFFICULTY,
        contrast=patient != NO_CONTRAST,
    )
    if cropped:
        window = heart_window(labels[::step, ::step], shape)
        image, labels = image[::step, ::step][window], labels[::step, ::step][window]
    if patient == STREAKED:
        add_streaks(image)
    image[image == image.max()] = HIGHEST_OF.get(patient, HIGHEST)
    image[image == image.min()] = 0
    if rough:
        labels = roughen(labels, np.random.default_rng([seed, patient, ROUGH_STREAM]))
    if patient in draws.without_myocardium:
        remove_myocardium(labels)
    if patient in STRAY_LABELS:
        add_stray_value(image, labels, STRAY_LABELS[patient])
    return image, _with_rounding_errors(labels) if patient in draws.float_labels else labels


def heart_window(labels: NDArray[np.uint8], shape: tuple[int, int, int]) -> tuple[slice, slice]:
    """Where to cut X and Y so that the heart is in the middle."""
    window = []
    for axis in (0, 1):
        hits = np.flatnonzero(labels.any(axis=(1 - axis, 2)))
        start = (int(hits[0]) + int(hits[-1]) + 1 - shape[axis]) // 2
        start = min(max(start, 0), labels.shape[axis] - shape[axis])
        window.append(slice(start, start + shape[axis]))
    return window[0], window[1]


def add_streaks(image: NDArray[np.int16]) -> None:
    """Lay the rays of a metal or motion artefact over the middle third of the slices, in place."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, voxels, dtype=np.float32) for voxels in image.shape[:2]), indexing="ij")
    rays = 250 * np.cos(9 * np.arctan2(y, x - 0.1)) * np.exp(-1.5 * np.hypot(x - 0.1, y))
    for k in range(image.shape[2] // 3, 2 * image.shape[2] // 3):
        image[:, :, k] = np.clip(np.rint(image[:, :, k] + rays), 0, HIGHEST)


def _with_rounding_errors(labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A label map as resampling in floating point leaves it; truncation would turn every other 5 into a 4."""
    error = ROUNDING * (-1) ** np.arange(labels.shape[2])
    return np.asarray(labels * (1 + error).astype(np.float32), np.float32)


def _diagnosis_row(patient: int, flags: Sequence[str]) -> list[int | None]:
    row = diagnosis_row(patient, flags)
    if patient == EXPLICIT_ZERO[0]:
        row[1 + FLAGS.index(EXPLICIT_ZERO[1])] = 0
    return row


def image_info_row(patient: int, seed: int) -> list[int | float | str]:
    """Keys and values of a patient in the image-info sheet, all made up from seed and id alone, never from the flags.

    Some keys have stray white space, some dates are text, some spacings text with a decimal comma, as in the real sheet.
    """
    rng = np.random.default_rng([seed, patient, 1])
    child = rng.random() < 0.9
    age = np.exp(rng.uniform(np.log(8), np.log(17 * 365))) if child else rng.uniform(18 * 365, 47 * 365)
    acquired = date(2010, 1, 1) + timedelta(days=int(rng.integers(0, 9 * 365)))
    scanner = str(rng.choice(list(SCANNERS)))
    in_plane = round(rng.uniform(0.207, 0.434) if child else rng.uniform(0.61, 0.92), 3)
    values: dict[str, list[Any]] = {
        "idx": [patient - 1000],
        "PatientBirthDate": [_as_typed(f"{acquired - timedelta(days=int(age)):%Y%m%d}", rng)],
        "AcquisitionDate": [_as_typed(f"{acquired:%Y%m%d}", rng)],
        "PatientSex": [str(rng.choice(["F", "M"]))],
        "PixelSpacing": [_as_typed(str(in_plane), rng)] * 2,
        "calculate_z_thick": [_as_typed(str(rng.choice(SCANNERS[scanner])), rng)],
        "ManufacturerModelName": [scanner],
    }
    row: list[int | float | str] = []
    for key, cells in values.items():
        row += [str(rng.choice([key, f"{key} ", f" {key}"], p=[0.8, 0.1, 0.1])), *cells]
    return row


def _as_typed(number: str, rng: np.random.Generator) -> int | float | str:
    """A number as somebody typed it into a cell: mostly a number, now and then text with a decimal comma."""
    if rng.random() < 0.2:
        return number.replace(".", ",")
    return float(number) if "." in number else int(number)


def _find_zip() -> str:
    program = shutil.which("zip")
    if program is None:
        raise UserFileError(
            "zip: not found, and only it writes a split archive; install Info-ZIP's zip (apt-get install zip, "
            "brew install zip), or leave the archive out"
        )
    return program


def write_archive(folder: Path, zip_program: str) -> Path:
    """Pack a folder as Kaggle serves ImageCHD: `ImageCHD_dataset.z01` and on, the last volume named `.change2zip`.

    There are 13 volumes, or fewer when these would be under the 64 KiB that zip asks for.

    Args:
        folder: its files become members under `ImageCHD_dataset/`.
        zip_program: Info-ZIP's zip.

    Returns:
        `folder`/archive, there only when whole.

    Raises:
        OSError: zip failed; the message has its words.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory(prefix=".archive-", dir=folder) as scratch:
        members, volumes = Path(scratch, FOLDER_IN_ARCHIVE), Path(scratch, "archive")
        volumes.mkdir()
        members.mkdir()
        for file in files:
            (members / file.name).symlink_to(file.resolve())  # zip packs what it points to
        # .gz and .xlsx do not shrink further; half a volume to spare, so that headers cannot make a fourteenth
        kib = max(SMALLEST_VOLUME, round(sum(file.stat().st_size for file in files) / 1024 / (VOLUMES - 0.5)))
        last = volumes / f"{FOLDER_IN_ARCHIVE}.zip"
        with _dated([*files, members]):
            done = subprocess.run(
                [os.path.abspath(zip_program), "-q", "-1", "-X", "-s", f"{kib}k", str(last.resolve()), "-@"],
                cwd=scratch,
                env={key: value for key, value in os.environ.items() if key not in ("ZIP", "ZIPOPT")} | {"TZ": "UTC"},
                input="".join(f"{FOLDER_IN_ARCHIVE}/{name}\n" for name in ["", *(file.name for file in files)]),
                capture_output=True,
                text=True,
            )
        if done.returncode != 0 or not last.is_file():
            raise UserError(
                f"{zip_program} could not split the archive (code {done.returncode}): {done.stdout}{done.stderr}"
            )
        last.rename(last.with_suffix(".change2zip"))
        return volumes.rename(folder / "archive")


@contextmanager
def _dated(paths: Sequence[Path]) -> Iterator[None]:
    """Give files the date `EPOCH` for a while: zip takes it into the archive, whose bytes must not depend on now."""
    before = [(path, path.stat()) for path in paths]
    epoch = EPOCH.replace(tzinfo=timezone.utc).timestamp()
    try:
        for path in paths:
            os.utime(path, (epoch, epoch))
        yield
    finally:
        for path, state in before:
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
