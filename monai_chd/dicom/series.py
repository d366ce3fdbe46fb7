"""Sorts the DICOM files of a folder into series, and says of each whether it is a volume that can be read.

By identifiers and geometry, never by the names of files or the numbers of instances.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from monai_chd.dicom.geometry import Arranged, IrregularError, arrange, split_by_phase
from monai_chd.dicom.slices import Slice, is_dicom, read_slices
from monai_chd.errors import UserError, UserFileError
from monai_chd.files import sha256_of
from monai_chd.folders import contents
from monai_chd.nifti import is_nifti

TILTS = ("refuse", "resample")
"""What is done with a tilted series."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of the series of a folder.

    Attributes:
        phase: value of the phase that is wanted of series with several, such as "75"; None: each is a scan of its own.
        tilt: one of `TILTS`.
    """

    phase: str | None = None
    tilt: str = TILTS[0]

    def __post_init__(self) -> None:
        if self.tilt not in TILTS:
            raise UserError(f"tilt: expected one of {', '.join(TILTS)}, got {self.tilt!r}")


ANYTHING = Wanted()


@dataclass
class Series:
    """One series, or one phase of it.

    Attributes:
        slices: its images; in their order when it is a volume.
        phase: what tells it from other phases of the series (`TriggerTime=430`); "" when there is one.
        arranged: where its slices lie; None when it is no volume that can be read, and `refused` says why.
        refused: for people, without a name or a path.
        faulty: files at fault, with what is wrong with each.
        notes: what was done to it.
    """

    slices: list[Slice]
    phase: str = ""
    arranged: Arranged | None = None
    refused: str = ""
    faulty: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where its first file lies."""
        return self.slices[0].path.parent


@dataclass
class Found:
    """The DICOM files of a folder.

    Attributes:
        series: CT series, readable or refused with a reason; in the order of their files.
        left_out: by what it is (`localiser`, `no CT image (MR)`), how many files.
        folders: by the same, where the first of them lies.
        others: files that are no DICOM.
    """

    series: list[Series] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    folders: dict[str, Path] = field(default_factory=dict)
    others: int = 0

    def told(self) -> str:
        """What was left out, for people; "" for nothing."""
        parts = [f"{count} {name}" for name, count in self.left_out.most_common()]
        return f"DICOM files left out: {', '.join(parts)}" if parts else ""


def find_series(folder: Path, wanted: Wanted = ANYTHING, *, progress: bool = False) -> Found:
    """The series below a folder.

    Args:
        folder: searched to the bottom.
        wanted: which phase, and what about tilt.
        progress: show a bar while headers are read.

    Raises:
        UserFileError: no such folder.
        UserError: pydicom is not installed; a folder cannot be opened; no series has the wanted phase.
    """
    found = Found()
    groups: dict[tuple[object, ...], list[Slice]] = {}
    paths = [path for path in contents(folder).files if not path.name.startswith(".")]
    files = [path for path in paths if not is_nifti(path) and is_dicom(path)]
    found.others = len(paths) - len(files)
    for path in tqdm(files, desc="reading DICOM headers", unit="file", disable=not progress or len(files) < 500):
        for one in read_slices(path):
            if one.left_out:
                found.left_out[one.left_out] += 1
                found.folders.setdefault(one.left_out, path.parent)
            else:
                groups.setdefault(_key(one), []).append(one)
    for group in groups.values():
        found.series += _volumes(group, wanted)
    if wanted.phase is not None:
        _keep_phase(found, wanted.phase)
    return found


def only_series(folder: Path, wanted: Wanted = ANYTHING) -> Series:
    """The one CT series of a folder.

    Raises:
        UserFileError: there is none.
        UserError: there are several, or it is refused.
    """
    found = find_series(folder, wanted)
    if not found.series:
        raise UserFileError(
            f"{folder}: no CT series in it; {found.told() or f'{found.others} files, none of them DICOM'}"
        )
    if len(found.series) > 1:
        sizes = ", ".join(f"{len(one.slices)} slices {one.phase}".strip() for one in found.series)
        raise UserError(
            f"{folder}: {len(found.series)} CT series or phases in it ({sizes}); give each a folder of its own"
        )
    (series,) = found.series
    if series.refused:
        raise UserError(f"{folder}: {series.refused}")
    return series


def _key(one: Slice) -> tuple[object, ...]:
    """What images of one series share. Without a UID, as in files made anonymous, the folder stands for it."""
    if one.series:
        return one.patient, one.study, one.series
    return one.patient, one.study, one.path.parent, one.frame_of_reference


def _volumes(group: list[Slice], wanted: Wanted) -> list[Series]:
    """The volumes of a series: one a phase, or one refused."""
    slices, notes, doubt = _without_copies(group)
    if doubt:
        return [Series(slices, refused=doubt)]
    faulty = {one.path: one.fault for one in slices if one.fault}
    if faulty:
        kinds = Counter(faulty.values()).most_common(2)
        listed = "; ".join(f"{count} of {len(slices)} images: {fault}" for fault, count in kinds)
        return [Series(slices, refused=f"{listed}; copy or send the series again", faulty=faulty)]
    phases = split_by_phase(slices)
    if len(phases) > 1:
        notes.append(f"{len(phases)} phases in one series")
    return [_arranged(Series(phase, name, notes=list(notes)), wanted) for name, phase in phases.items()]


def _arranged(series: Series, wanted: Wanted) -> Series:
    try:
        series.arranged = arrange(series.slices, upright=wanted.tilt == "resample")
    except IrregularError as error:
        series.refused = str(error)
        return series
    series.slices = [series.slices[index] for index in series.arranged.order]
    if series.arranged.shifts is not None:
        series.notes.append(f"tilted by {series.arranged.tilt:.1f} degrees, resampled upright")
    return series


def _without_copies(group: Sequence[Slice]) -> tuple[list[Slice], list[str], str]:
    """Images once each, what was left out, and why the series cannot be used where one identifier has two contents."""
    kept: dict[tuple[str, int], Slice] = {}
    copies = 0
    for one in group:
        first = kept.setdefault((one.instance or str(one.path), one.frame), one)
        if first is one:
            continue
        if first.path.stat().st_size != one.path.stat().st_size or sha256_of(first.path) != sha256_of(one.path):
            fault = "two files of one SOP Instance UID with different content; keep the right one of each"
            return list(group), [], fault
        copies += 1
    notes = [f"{copies} copies of its files left out"] if copies else []
    return list(kept.values()), notes, ""


def _keep_phase(found: Found, phase: str) -> None:
    """Leave out the other phases of series that have several."""
    several = [one for one in found.series if one.phase]
    right = [one for one in several if one.phase.partition("=")[2] == phase or one.phase == phase]
    if several and not right:
        raise UserError(
            f"--phase {phase}: no series has it; those with several phases have {_listed(one.phase for one in several)}"
        )
    for one in several:
        if one not in right:
            found.left_out[f"images of other phases than {phase}"] += len(one.slices)
    found.series = [one for one in found.series if not one.phase or any(one is other for other in right)]


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def described(series: Series) -> dict[str, Any]:
    """A readable series as plain data: all that `volume.SeriesVolume` needs, files as paths.

    Args:
        series: arranged.
    """
    assert series.arranged is not None
    first = series.slices[0]
    pixels = [one.pixels for one in series.slices]
    assert all(pixels)
    shifts = series.arranged.shifts
    return {
        "shape": [first.columns, first.rows, len(series.slices)],
        "affine": series.arranged.affine.tolist(),
        "shifts": None if shifts is None else np.round(shifts, 6).tolist(),
        "slices": [
            {
                "file": str(one.path),
                "frame": one.frame,
                "stamp": [(status := one.path.stat()).st_size, status.st_mtime_ns],
                **one.pixels._asdict(),  # type: ignore[union-attr]
            }
            for one in series.slices
        ],
    }
