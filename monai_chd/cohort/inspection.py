"""Looks at each scan once, to its last byte: damage, intensity, hash, voxel size, and the label map beside it.

Changes nothing in the files; what to do about a finding is up to the reader of the datalist.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from tqdm import tqdm

from monai_chd.cohort import imagechd
from monai_chd.cohort.imagechd_image_info import ImageInfo
from monai_chd.cohort.joining import JoinedCohort, LabelledScan
from monai_chd.dicom.private import read_description
from monai_chd.errors import UserError
from monai_chd.hu_offset import detect_hu_offset
from monai_chd.identity import patient_key
from monai_chd.labels import MYOCARDIUM, STRUCTURES
from monai_chd.nifti import read_volume, stem, voxel_digest
from monai_chd.scans.finding import relative_name
from monai_chd.scans.opening import is_series, is_synthetic, known_offset, open_scan, read_scan, scan_digest

MILLIMETRES = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}


class LabelMap(NamedTuple):
    """What a label map holds.

    Attributes:
        stray: voxels whose value is no label of ImageCHD, by value.
        has_myocardium: whether label 5 occurs.
        rounded: voxels whose value is no whole number.
    """

    stray: dict[int, int]
    has_myocardium: bool
    rounded: int


def inspect_scans(cohort: JoinedCohort, folder: Path, offset: float | None, progress: bool) -> None:
    """Read every usable scan and its label map; one that cannot be used becomes a problem.

    Args:
        cohort: its cases are filled in.
        folder: of the cohort.
        offset: HU = value + this, for every scan; None: found for each file.
        progress: show a bar.
    """
    kept = []
    for case in tqdm(cohort.cases, desc="checking scans", unit="scan", disable=not progress):
        try:
            _inspect(case, offset)
        except (ValueError, OSError) as error:
            cohort.problem(str(error), case.diagnosis, case.patient, relative_name(case.image, folder))
            continue
        kept.append(case)
    cohort.cases = kept
    _leave_out_copies(cohort, folder)
    _note_sizes(cohort)


def _leave_out_copies(cohort: JoinedCohort, folder: Path) -> None:
    """The same voxels twice are a problem: under several patients they could stand on both sides of a split, and none is a case.

    Of one patient's copies the first is kept, that of the shortest name.
    """
    same: dict[str, list[LabelledScan]] = {}
    for case in cohort.cases:
        same.setdefault(case.voxels, []).append(case)
    for copies in same.values():
        copies.sort(key=lambda case: (len(str(case.image)), str(case.image)))
        names = [relative_name(case.image, folder) for case in copies]
        if len({case.patient for case in copies}) > 1:
            pairs = zip(names, copies, strict=True)
            listed = " and ".join(sorted(f"{name} (patient {case.patient})" for name, case in pairs))
            text, left_out = f"the same scan under several patients: {listed}; keep it under the right one", copies
        else:
            text, left_out = f"the same voxels in {' and '.join(names)}; keep one of them", copies[1:]
        if left_out:
            cohort.problems.append(text)
        for case in left_out:
            cohort.exclude(case.diagnosis, case.patient, relative_name(case.image, folder), text)
        cohort.cases = [case for case in cohort.cases if not any(case is copy for copy in left_out)]


def _inspect(case: LabelledScan, offset: float | None) -> None:
    volume = read_scan(case.image)
    values = volume.values
    offset = known_offset(case.image, offset)
    if offset is not None:
        case.hu_offset = offset
    elif values.ndim == 3:
        case.hu_offset = detect_hu_offset(values, case.image)
    case.shape = values.shape
    case.synthetic = is_synthetic(case.image)
    case.sha256 = scan_digest(case.image)
    case.voxels = voxel_digest(volume)
    case.spacing_mm = header_spacing(case.image)
    if is_series(case.image):
        said = read_description(case.image)
        case.scanner, case.contrast, case.notes = said["scanner"], said["contrast"], list(said["notes"])
    beside = label_map_of(case.image)
    if beside is not None:
        case.label_map = beside
        _note_labels(case, read_label_map(beside, case.image, values.shape))


def header_spacing(path: Path) -> tuple[float, float, float] | None:
    """Size of a voxel in mm as the header has it; None for ImageCHD's 1 x 1 x 1 of unknown unit, which means nothing."""
    if is_series(path):
        return open_scan(path).spacing_mm
    header: Any = nib.load(path).header  # type: ignore[attr-defined]
    unit = header.get_xyzt_units()[0]
    sizes = [abs(float(size)) for size in (*header.get_zooms()[:3], 1.0)[:3]]
    if unit not in MILLIMETRES or min(sizes) == 0 or (unit == "unknown" and set(sizes) == {1.0}):
        return None
    x, y, z = (round(size * MILLIMETRES[unit], 6) for size in sizes)
    return x, y, z


def label_map_of(image: Path) -> Path | None:
    """The label map beside a scan in ImageCHD's names: `ct_1001_label.nii.gz` for `ct_1001_image.nii.gz`."""
    if not re.fullmatch(r"ct_\d+_image", stem(image), flags=re.IGNORECASE):
        return None
    name = re.sub("image", "label", stem(image).lower())
    return next((path for path in sorted(image.parent.glob("[cC][tT]_*.[nN]*")) if stem(path).lower() == name), None)


def read_label_map(path: Path, image: Path, shape: tuple[int, ...]) -> LabelMap:
    """Count what a label map holds, a slice at a time.

    Args:
        path: the label map.
        image: its scan, to be named.
        shape: of the scan.

    Raises:
        UserError: damaged, of another shape than the scan, or with voxels that are no numbers.
    """
    voxels = read_volume(path).values
    if voxels.shape != shape:
        raise UserError(
            f"{path}: label map of {_size(voxels.shape)} voxels, but {image.name} has {_size(shape)}; put the label map that "
            f"belongs to the scan beside it, or take it away"
        )
    counts = np.zeros(256, dtype=np.int64)
    rounded = 0
    for frame in np.moveaxis(voxels, 2, 0):
        if frame.dtype.kind == "f":
            whole = np.rint(frame)
            rounded += int((whole != frame).sum())
            frame = whole
        if frame.dtype != np.uint8:  # as most label maps are, and then nothing is to be copied
            frame = np.clip(frame, 0, 255).astype(np.uint8)
        counts += np.bincount(frame.ravel(order="K"), minlength=256)
    stray = {value: int(counts[value]) for value in range(len(STRUCTURES) + 1, 256) if counts[value]}
    return LabelMap(stray, bool(counts[MYOCARDIUM]), rounded)


def _note_labels(case: LabelledScan, found: LabelMap) -> None:
    if found.rounded:
        case.notes.append(f"label map not in whole numbers: {found.rounded} voxels rounded")
    if found.stray:
        values = ", ".join(map(str, found.stray))
        case.notes.append(
            f"stray label values: {sum(found.stray.values())} voxels above {len(STRUCTURES)} ({values}), to be read as 0"
        )
    if not found.has_myocardium:
        case.notes.append(f"no myocardium in the label map: label {MYOCARDIUM} does not occur")


def _note_sizes(cohort: JoinedCohort) -> None:
    """Note the scans whose slices have another size than those of most."""
    sizes = Counter(case.shape[:2] for case in cohort.cases)
    if not sizes:
        return
    usual, count = sizes.most_common(1)[0]
    if 2 * count <= len(cohort.cases):
        return
    for case in cohort.cases:
        if case.shape[:2] != usual:
            case.notes.append(f"slices of another size: {_size(case.shape[:2])}, {_size(usual)} in most scans")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def add_confounders(cohort: JoinedCohort, infos: Mapping[str, ImageInfo], is_imagechd: bool) -> None:
    """Fill in what does not stand in the scan itself.

    Args:
        cohort: its cases are filled in.
        infos: of the image-info sheet, by `identity.patient_key`; a spacing there goes before the header's.
        is_imagechd: whether what is known of ImageCHD's patients holds.
    """
    for case in cohort.cases:
        info = infos.get(patient_key(case.patient), ImageInfo())
        case.spacing_mm = info.spacing_mm or case.spacing_mm
        case.scanner, case.age_years = info.scanner or case.scanner, info.age_years
        if not is_imagechd:
            continue
        case.contrast = imagechd.contrast(case.patient)
        if case.contrast is False:
            case.notes.append("no contrast: 2021 re-review")
        elif (known := imagechd.known_patient(case.patient)) and known.note:
            case.notes.append(f"2021 re-review: {known.note}")
