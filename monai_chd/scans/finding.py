"""Finds what of a folder is a scan: NIfTI files by their names, DICOM series by their headers.

Opens no NIfTI file: that is `opening`'s part.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import NamedTuple

from monai_chd.dicom.private import NAMES, Pseudonyms, describe_series, private_folder
from monai_chd.dicom.series import ANYTHING, TILTS, Series, Wanted, find_series
from monai_chd.dicom.slices import NoReaderError, is_dicom
from monai_chd.errors import UserError, UserFileError, bare_mistakes
from monai_chd.folders import contents, dead_link
from monai_chd.nifti import is_nifti, stem
from monai_chd.scans.opening import scan_name
from monai_chd.wording import some_of

logger = logging.getLogger(__name__)

LABEL_MAP_WORDS = ("label", "labels", "seg", "mask", "gt")

COPY = re.compile(r"(?P<before>.+?)(?: ?\(\d+\)|(?: -)?[ _-]copy(?: ?\(?\d+\)?)?)|copy of (?P<after>.+)", re.IGNORECASE)
"""Names that browsers and file managers give to a copy."""


class NiftiFiles(NamedTuple):
    """What of a folder may be a scan.

    Attributes:
        folder: that was searched.
        scans: NIfTI files, or links to some that lead nowhere, in the order of their paths.
        label_maps: those whose names say so (`…_label`, `…_seg`, `…_mask`).
        hidden: folders that were not entered and NIfTI files that were left out, for being hidden.
        dead: links that lead nowhere and may have been folders of scans.
    """

    folder: Path
    scans: list[Path]
    label_maps: list[Path]
    hidden: list[Path]
    dead: list[Path]

    def skipped(self) -> str:
        """What is hidden, for people; "" for nothing. `._` shadows are not worth a word."""
        names = [relative_name(path, self.folder) for path in self.hidden]
        return f"left out, since they are hidden: {len(names)} folders or files ({some_of(names, 5)})" if names else ""


def find_nifti(folder: Path) -> NiftiFiles:
    """NIfTI files below a folder, through links.

    Raises:
        UserFileError: no such folder.
        UserError: a folder below it cannot be opened.
    """
    if not folder.is_dir():
        raise UserFileError(f"{folder}: no such folder of scans")
    below = contents(folder)
    files = NiftiFiles(folder, [], [], list(below.hidden), [path for path in below.dead if not path.suffix])
    for path in sorted(path for path in (*below.files, *below.dead) if is_nifti(path)):
        if path.name.startswith("."):
            files.hidden.append(path)
        elif (original_name(stem(path)) or stem(path)).lower().replace("-", "_").split("_")[-1] in LABEL_MAP_WORDS:
            files.label_maps.append(path)
        else:
            files.scans.append(path)
    return files


def find_scans(files: NiftiFiles) -> list[Path]:
    """The scans of a folder.

    Raises:
        UserFileError: there is neither a scan nor a dead link that may have led to some.
    """
    if not (files.scans or files.dead):
        raise UserFileError(
            f"{files.folder}: no scan found; expected .nii.gz or .nii files, or DICOM files of CT, in it or below it"
        )
    return files.scans


def original_name(name: str) -> str:
    """What a copy of this name is a copy of, "" when it is no name of a copy."""
    match = COPY.fullmatch(name)
    return str(match["before"] or match["after"]) if match else ""


def relative_name(image: Path, folder: Path) -> str:
    """Path of a scan relative to the cohort's folder, in full when it lies elsewhere."""
    return image.relative_to(folder).as_posix() if image.is_relative_to(folder) else str(image)


@bare_mistakes()
def find_inputs(
    source: str | Path, output_dir: str | Path | None = None, phase: object = None, tilt: str = TILTS[0]
) -> list[dict[str, str]]:
    """Cases for inference out of one file or a folder, no labels needed.

    Args:
        source: a NIfTI file, or a folder of NIfTI files, DICOM files or both.
        output_dir: what identifies patients of DICOM files is kept beside it; see `dicom.private.private_folder`.
        phase, tilt: see `dicom.series.Wanted`.

    Returns:
        [{"image": path}, …]; of a DICOM series the path of the file that describes it, which says why where it is refused.
    """
    named, source = Path(source), Path(source).resolve()
    wanted = Wanted(None if phase is None else str(phase), tilt)
    if not source.exists():
        raise UserFileError(
            dead_link(named)
            or f"{source}: no such file or folder; name a NIfTI file, or a folder of them or of DICOM files"
        )
    if not source.is_dir():
        return [{"image": str(source)}]
    files = find_nifti(source)
    try:
        series = list(find_dicom(source, output_dir, wanted))
    except NoReaderError as error:
        if not files.scans:
            raise
        logger.info("DICOM files left out: %s", error)
        series = []
    paths = sorted([*(find_scans(files) if not series else files.scans), *files.dead]) + series
    if files.label_maps:
        names = sorted({path.name for path in files.label_maps} - {path.name for path in paths})
        logger.info("left out, since their names say label map: %s", some_of(names, 5))
    if files.hidden:
        logger.info("%s", files.skipped())
    return [{"image": str(path)} for path in paths]


def count_dicom(folder: Path) -> int:
    """How many files below a folder are DICOM."""
    return sum(not is_nifti(path) and is_dicom(path) for path in contents(folder).files)


def find_dicom(source: Path, output_dir: str | Path | None, wanted: Wanted = ANYTHING) -> dict[Path, Series]:
    """The DICOM series below a folder, by the files that describe them, which are written beside the output; logs what it found.

    Raises:
        UserFileError: DICOM files, but no CT among them.
        UserError: DICOM files, and no output to keep what identifies patients beside; see `dicom.series.find_series`.
    """
    found = find_series(source, wanted, progress=True)
    if not found.series:
        if found.left_out and not find_nifti(source).scans:
            raise UserFileError(f"{source}: no CT series in it; {found.told()}")
        return {}
    if output_dir is None:
        raise UserError(
            f"{source}: DICOM files, which name patients, and no output folder beside which a list of them could be kept; give "
            f"output_dir"
        )
    names = Pseudonyms(private_folder(output_dir))
    written = describe_series(found.series, names)
    patients = {path.parent for path in written}
    logger.info("DICOM: %d series of %d patients; who is who: %s", len(written), len(patients), names.folder / NAMES)
    for text in (
        found.told(),
        *(f"{scan_name(path, source)}: {note}" for path, one in written.items() for note in one.notes),
    ):
        if text:
            logger.info("%s", text)
    return written
