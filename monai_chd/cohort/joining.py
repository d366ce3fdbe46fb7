"""Joins the rows of a table to the scans of a folder: who has which scan, what is left out and why, and what is wrong.

Opens no scan: that is `inspection`'s part.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from monai_chd.cohort.identity import first_spellings, patient_key, same_patient
from monai_chd.cohort.tables import Diagnosis
from monai_chd.errors import UserFileError
from monai_chd.nifti import is_nifti, stem

LABEL_MAP_WORDS = ("label", "labels", "seg", "mask", "gt")
OTHER_FORMATS = (".mha", ".mhd", ".nrrd", ".dcm", ".hdr", ".img", ".gz", ".npy", ".npz", ".zip", ".nii.bz2", ".nii.xz")
"""Suffixes a volume may have that are not read, for a better message than that it is missing."""


@dataclass
class LabelledScan:
    """One scan of a patient with its diagnosis, before it has a fold.

    Attributes:
        sha256: of the file.
        hu_offset: HU = value + this; None for a cine in arbitrary units.
        shape: voxels (X, Y, Z), time points after them.
        spacing_mm: size of a voxel along X, Y, Z; None when nothing believable says so.
        scanner: model name, "" when unknown.
        age_years: None when unknown or not asked for.
        contrast: whether the scan is with contrast, None when unknown.
        has_label_map: whether one lies beside the scan.
        notes: what a person should know of the scan.
    """

    patient: str
    image: Path
    diagnosis: Diagnosis
    sha256: str = ""
    hu_offset: float | None = None
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, float, float] | None = None
    scanner: str = ""
    age_years: float | None = None
    contrast: bool | None = None
    has_label_map: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass
class JoinedCohort:
    """Usable cases, what was left out and why, and what is wrong."""

    cases: list[LabelledScan] = field(default_factory=list)
    excluded: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def exclude(self, diagnosis: Diagnosis, patient: str, image: str, reason: str) -> None:
        """Note a row or scan that is left out."""
        row = {"patient": patient, "image": image, "flags": "+".join(diagnosis.flags), "reason": reason}
        self.excluded.append(row)

    def problem(self, text: str, diagnosis: Diagnosis | None = None, patient: str = "", image: str = "") -> None:
        """Note a fault that stops the run, or with `skip_bad` leaves the row or scan out."""
        self.problems.append(text)
        self.exclude(diagnosis or Diagnosis(0), patient, image, text)


def find_scans(folder: Path) -> list[Path]:
    """NIfTI files below a folder that are scans: no label maps (`…_label`, `…_seg`, `…_mask`), no `._` shadows.

    Raises:
        UserFileError: no such folder, or no scan in it.
    """
    scans = [
        path
        for path in nifti_files(folder)
        if stem(path).lower().replace("-", "_").split("_")[-1] not in LABEL_MAP_WORDS
    ]
    if not scans:
        raise UserFileError(
            f"{folder}: no scan found; expected .nii.gz or .nii files in it or below it (DICOM: convert it first, for "
            f"example with dcm2niix)"
        )
    return scans


def nifti_files(folder: Path) -> list[Path]:
    """All NIfTI files below a folder.

    Raises:
        UserFileError: no such folder.
    """
    if not folder.is_dir():
        raise UserFileError(f"{folder}: no such folder of scans")
    return [path for path in sorted(folder.rglob("*")) if is_nifti(path) and path.is_file()]


def find_scans_by(pattern: re.Pattern[str], folder: Path) -> dict[Path, str]:
    """Scans below a folder whose path matches a pattern, and the patient that its group names.

    Raises:
        UserFileError: no such folder, or no file matches.
    """
    files = nifti_files(folder)
    matches = {path: pattern.search(path.relative_to(folder).as_posix()) for path in files}
    owners = {path: match[1] or "" for path, match in matches.items() if match}
    if not owners:
        raise UserFileError(
            f"{folder}: none of {len(files)} NIfTI files matches id_pattern {pattern.pattern!r} of the layout"
            + (f"; the first is {files[0].relative_to(folder).as_posix()}" if files else "")
        )
    return owners


@cache
def _words(name: str) -> tuple[str, ...]:
    """Words of a name, as ids are compared."""
    return tuple(patient_key(word) for word in re.split(r"[-_. ]+", name) if word)


def named_by(patient: str, scan: Path) -> bool:
    """Whether a file name carries an id: as its whole stem or as words of it in a row (sub-01 in sub-01_ct)."""
    name, own = _words(stem(scan)), _words(patient)
    starts = range(len(name) - len(own) + 1) if own else ()
    return stem(scan) == patient or any(name[start : start + len(own)] == own for start in starts)


def _scans_of(row: Diagnosis, folder: Path, scans: Sequence[Path], owners: Mapping[Path, str]) -> list[Path]:
    """The scans a row names, by path (as written, or through links) or by id."""
    if not row.image:
        if owners:
            return [scan for scan in scans if row.patient and same_patient(row.patient, owners[scan])]
        return [scan for scan in scans if row.patient and named_by(row.patient, scan)]
    path = next((p for p in (folder / row.image, Path(row.image)) if p.is_file()), None)
    if path is None:
        return []
    path = Path(os.path.abspath(path))
    same = [scan for scan in scans if scan == path] or [scan for scan in scans if scan.samefile(path)]
    return same[:1] or [path]


def _missing(row: Diagnosis, folder: Path) -> str:
    """Say that a scan is missing, and which file may have been meant."""
    name = row.patient or row.image
    near = [
        path.name
        for path in sorted(folder.rglob("*"))
        if path.name.lower().endswith(OTHER_FORMATS)
        and not is_nifti(path)
        and row.patient
        and named_by(row.patient, path.with_name(path.name.split(".")[0]))
    ]
    mend = f" ({near[0]} is not NIfTI; convert it to .nii.gz, or rename it if it is one)" if near else ""
    return f"{row.where}: no scan found for {name}{mend}"


def join(folder: Path, scans: Sequence[Path], rows: Sequence[Diagnosis], owners: Mapping[Path, str]) -> JoinedCohort:
    """Give every row its scans; a row or scan left alone, or a scan claimed twice, is a problem.

    A patient of several rows is spelled as in the first of them.

    Args:
        folder: of the cohort.
        scans: files that have to belong to somebody.
        rows: of the table.
        owners: patient of each scan, where a pattern says so; empty: ids are found in the names of files.
    """
    cohort = JoinedCohort()
    written: dict[str, list[str]] = {}
    for row in rows:
        written.setdefault(patient_key(row.patient), []).append(row.patient)
    claims: dict[Path, list[Diagnosis]] = {}
    found = [_scans_of(row, folder, scans, owners) for row in rows]
    spelled = first_spellings(row.patient or stem(scan) for row, own in zip(rows, found, strict=True) for scan in own)
    for row, own in zip(rows, found, strict=True):
        for scan in own:
            claims.setdefault(scan, []).append(row)
    for row, own in zip(rows, found, strict=True):
        name = row.patient or row.image or "empty"
        same = written[patient_key(row.patient)]
        if row.patient and not row.image and len(same) > 1:
            ids = " = ".join(dict.fromkeys(same))
            cohort.problem(f"{row.where}: id {ids} stands in {len(same)} rows", row, row.patient)
        elif row.problem:
            cohort.problem(f"{row.where} (id {name}): {row.problem}", row, row.patient)
        elif not own:
            cohort.problem(_missing(row, folder), row, row.patient, row.image)
        elif row.label is None:
            for scan in own:
                cohort.exclude(row, row.patient, relative_name(scan, folder), row.reason)
        else:
            names = {scan: spelled[patient_key(row.patient or stem(scan))] for scan in own if len(claims[scan]) == 1}
            cohort.cases += [LabelledScan(patient, scan, row) for scan, patient in names.items()]
    for scan, owning in claims.items():
        if len(owning) > 1 and any(row.image or not same_patient(row.patient, owning[0].patient) for row in owning):
            listed = " and ".join(f"{row.where} ({row.patient or row.image})" for row in owning)
            cohort.problem(f"{relative_name(scan, folder)}: belongs to {listed}", image=relative_name(scan, folder))
    for scan in scans:
        if scan not in claims:
            name = relative_name(scan, folder)
            cohort.problem(f"{name}: the table has no row for this scan", image=name)
    _leave_out_mixed(cohort, folder)
    return cohort


def relative_name(image: Path, folder: Path) -> str:
    """Path of a scan relative to the cohort's folder, in full when it lies elsewhere."""
    return image.relative_to(folder).as_posix() if image.is_relative_to(folder) else str(image)


def _leave_out_mixed(cohort: JoinedCohort, folder: Path) -> None:
    """A patient whose scans have different classes is a problem, and none of these scans is a case."""
    classes: dict[str, set[str]] = {}
    for case in cohort.cases:
        classes.setdefault(case.patient, set()).add(str(case.diagnosis.label))
    texts = {
        patient: f"patient {patient}: has several classes ({', '.join(sorted(names))}); give each patient one class"
        for patient, names in classes.items()
        if len(names) > 1
    }
    cohort.problems += texts.values()
    for case in cohort.cases:
        if case.patient in texts:
            cohort.exclude(case.diagnosis, case.patient, relative_name(case.image, folder), texts[case.patient])
    cohort.cases = [case for case in cohort.cases if case.patient not in texts]
