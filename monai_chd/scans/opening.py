"""Opens a scan, whatever it is: a NIfTI file, a DICOM series by the file that describes it, or a folder with one series."""

from __future__ import annotations

from pathlib import Path

from monai_chd import nifti
from monai_chd.dicom.private import SUFFIX, is_series_file, open_series_file, series_digest
from monai_chd.dicom.series import described, only_series
from monai_chd.dicom.slices import is_dicom
from monai_chd.dicom.volume import SeriesVolume
from monai_chd.errors import UserError, UserFileError
from monai_chd.files import name_below, sha256_of
from monai_chd.nifti import Volume
from monai_chd.streaming import SlicedVolume, StoredVolume


def is_series(path: str | Path) -> bool:
    """Whether a path is that of a DICOM series: of the file that describes it, or of a folder."""
    return is_series_file(path) or Path(path).is_dir()


def open_scan(path: str | Path) -> SlicedVolume:
    """A scan to be read slice by slice.

    Raises:
        UserFileError: no such file or folder.
        UserError: a file or series that is refused; see `nifti.read_volume` and `dicom.series.only_series`.
    """
    path = Path(path)
    if is_series_file(path):
        return open_series_file(path)
    if path.is_dir():
        return SeriesVolume(path, described(only_series(path)))
    _refuse_one_of_many(path)
    return StoredVolume(path)


def _refuse_one_of_many(path: Path) -> None:
    if path.is_file() and not nifti.is_nifti(path) and is_dicom(path):
        raise UserError(f"{path}: one file of a DICOM series; name the folder that holds the series")


def known_offset(path: str | Path, asked: float | None) -> float | None:
    """The HU offset of a scan: 0 for DICOM, which is read in HU; else what is asked for; None where it has to be found out.

    Raises:
        UserError: another is asked for than the format says.
    """
    if not is_series(path):
        return asked
    if asked:
        raise UserError(f"{path}: DICOM says itself what its values are in HU; leave out hu_offset {asked:g}")
    return 0.0


def read_scan(path: str | Path, reader: str = "nibabel") -> Volume:
    """A scan whole; of a DICOM series in HU.

    Args:
        path: see `open_scan`.
        reader: for NIfTI, see `nifti.read_volume`.

    Raises:
        UserFileError, UserError: see `open_scan`.
    """
    if not is_series(path):
        return nifti.read_volume(path, reader)
    volume = open_scan(path)
    return Volume(volume.scaled(volume.read_whole()).T, volume.affine)


def check_scan(path: Path) -> None:
    """Refuse a scan that should not even be opened; see `nifti.check_file`.

    Raises:
        UserFileError, UserError: see `open_scan`.
    """
    if is_series(path):
        open_scan(path)
    else:
        nifti.check_file(path)


def check_scan_name(path: Path) -> None:
    """The same by its name only; see `nifti.check_name`.

    Raises:
        UserFileError: no such file.
        UserError: no name of a scan.
    """
    if not is_series(path):
        nifti.check_name(path)
    elif not path.exists():
        raise UserFileError(f"{path}: no such file; run the command on the folder of DICOM files again")


def scan_digest(path: str | Path) -> str:
    """sha256 of a scan's bytes: of a NIfTI file as it is, of the files of a series in their order."""
    return series_digest(Path(path)) if is_series_file(path) else sha256_of(path)


def is_synthetic(path: str | Path) -> bool:
    """Whether a scan says that it was made up; False where it says nothing, as DICOM does."""
    return not is_series(path) and nifti.is_synthetic(path)


def scan_stem(path: str | Path) -> str:
    """Name of a scan without what its kind ends with."""
    name = Path(path).name
    return name[: -len(SUFFIX)] if name.endswith(SUFFIX) else nifti.stem(path)


def scan_name(path: str | Path, folder: str | Path) -> str:
    """What a scan is called in outputs: its path below a folder; a DICOM series by its made names."""
    path = Path(path)
    return f"{path.parent.name}/{path.name}" if is_series_file(path) else name_below(path, folder)
