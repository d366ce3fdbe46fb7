"""Joins the rows of a table to the scans of a folder: who has which scan, what is left out and why, and what is wrong.

Opens no scan: that is `inspection`'s part; whose a scan is by its name is `naming`'s.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_chd.cohort.naming import Reading, mentioned, read_names
from monai_chd.cohort.tables import Diagnosis
from monai_chd.errors import UserFileError
from monai_chd.folders import contents, dead_link
from monai_chd.identity import first_spellings, patient_key, same_patient
from monai_chd.nifti import is_nifti, stem
from monai_chd.scans.finding import NiftiFiles, original_name, relative_name

OTHER_FORMATS = (".mha", ".mhd", ".nrrd", ".dcm", ".hdr", ".img", ".gz", ".npy", ".npz", ".zip", ".nii.bz2", ".nii.xz")
"""Suffixes a volume may have that are not read, for a better message than that it is missing."""


@dataclass
class LabelledScan:
    """One scan of a patient with its diagnosis, before it has a fold.

    Attributes:
        sha256: of the file.
        voxels: digest of its voxels, `nifti.voxel_digest`.
        hu_offset: HU = value + this; None for a cine in arbitrary units.
        shape: voxels (X, Y, Z), time points after them.
        spacing_mm: size of a voxel along X, Y, Z; None when nothing believable says so.
        scanner: model name, "" when unknown.
        age_years: None when unknown or not asked for.
        contrast: whether the scan is with contrast, None when unknown.
        label_map: the one that lies beside the scan.
        synthetic: whether the scan says that it was made up.
        notes: what a person should know of the scan.
    """

    patient: str
    image: Path
    diagnosis: Diagnosis
    sha256: str = ""
    voxels: str = ""
    hu_offset: float | None = None
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, float, float] | None = None
    scanner: str = ""
    age_years: float | None = None
    contrast: bool | None = None
    label_map: Path | None = None
    synthetic: bool = False
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


def find_scans_by(pattern: re.Pattern[str], files: NiftiFiles) -> dict[Path, str]:
    """Scans whose path below the folder matches a pattern, and the patient that its group names.

    Raises:
        UserFileError: no file matches.
    """
    paths = sorted([*files.scans, *files.label_maps])
    names = {path: relative_name(path, files.folder) for path in paths}
    matches = {path: pattern.search(name) or pattern.search(_composed(name)) for path, name in names.items()}
    owners = {path: match[1] or "" for path, match in matches.items() if match}
    if not owners:
        raise UserFileError(
            f"{files.folder}: none of {len(paths)} NIfTI files matches id_pattern {pattern.pattern!r} of the layout"
            + (f"; the first is {names[paths[0]]}" if paths else "")
        )
    return owners


def _composed(name: object) -> str:
    """A name as it is compared, however its accents are stored."""
    return unicodedata.normalize("NFC", str(name))


def _named_by_path(row: Diagnosis, folder: Path, scans: Sequence[Path]) -> list[Path]:
    """The scan that a row names by its path: as written, through links, or with its accents stored in another way."""
    path = next((p for p in (folder / row.image, Path(row.image)) if p.is_file() or dead_link(p)), None)
    if path is None:
        return [scan for scan in scans if _composed(scan) == _composed(os.path.abspath(folder / row.image))][:1]
    path = Path(os.path.abspath(path))
    if path in scans or not path.exists():
        return [path]
    return [scan for scan in scans if scan.exists() and scan.samefile(path)][:1] or [path]


def _copies(scans: Sequence[Path]) -> dict[Path, Path]:
    """Scans that are copies by their names, and what lies beside them to be the first: `a (1).nii.gz` and `a.nii.gz`."""
    there = {(scan.parent, _composed(stem(scan))): scan for scan in scans}
    found = {}
    for scan in scans:
        first = there.get((scan.parent, original_name(_composed(stem(scan)))))
        if first is not None:
            found[scan] = first
    return found


def _missing(row: Diagnosis, folder: Path) -> str:
    """Say that a scan is missing, and which file may have been meant."""
    name = row.patient or row.image
    near = [
        path.name
        for path in contents(folder).files
        if path.name.lower().endswith(OTHER_FORMATS)
        and not is_nifti(path)
        and row.patient
        and mentioned(row.patient, path.name.split(".")[0])
    ]
    mend = f" ({near[0]} is not NIfTI; convert it to .nii.gz, or rename it if it is one)" if near else ""
    return f"{row.where}: no scan found for {name}{mend}"


def _scans_of(
    folder: Path, scans: Sequence[Path], rows: Sequence[Diagnosis], owners: Mapping[Path, str], cohort: JoinedCohort
) -> tuple[list[list[Path]], dict[Path, Reading]]:
    """The scans of each row, by path or by id; and what each scan that no path names says of its owner by its own name.

    A copy by its name, which no path names, becomes a problem of the cohort and is nobody's.
    """
    by_path = {index: _named_by_path(row, folder, scans) for index, row in enumerate(rows) if row.image}
    named = {scan for own in by_path.values() for scan in own}
    free = [scan for scan in scans if scan not in named]
    copies = _copies(free)
    for scan, first in copies.items():
        name = relative_name(scan, folder)
        cohort.problem(f"{name}: a copy of {first.name} by its name; remove or rename one of the two", image=name)
    free = [scan for scan in free if scan not in copies]
    if owners:
        readings = {scan: Reading(frozenset({patient_key(owners[scan])})) for scan in free}
    else:
        readings = read_names(free, [row.patient for row in rows if row.patient and not row.image])
    by_id: dict[str, list[Path]] = {}
    for scan, reading in readings.items():
        for patient in sorted(reading.patients):
            by_id.setdefault(patient, []).append(scan)
    found = [
        by_path[index] if row.image else by_id.get(patient_key(row.patient), []) if row.patient else []
        for index, row in enumerate(rows)
    ]
    return found, readings


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
    found, readings = _scans_of(folder, scans, rows, owners, cohort)
    written: dict[str, list[str]] = {}
    for row in rows:
        written.setdefault(patient_key(row.patient), []).append(row.patient)
    claims: dict[Path, list[Diagnosis]] = {}
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
            doubt = f"; {readings[scan].doubt}" if scan in readings and readings[scan].doubt else ""
            name = relative_name(scan, folder)
            cohort.problem(f"{name}: belongs to {listed}{doubt}", image=name)
    for scan in readings:
        if scan not in claims:
            name = relative_name(scan, folder)
            fault = dead_link(scan) or f"{name}: {readings[scan].doubt or 'the table has no row for this scan'}"
            cohort.problem(fault, image=name)
    _leave_out_mixed(cohort, folder)
    return cohort


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
