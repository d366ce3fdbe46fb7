"""Reads one NIfTI volume, and refuses files that cannot be trusted.

Knows single files only: which file belongs to which patient is `cohort`'s part, in which units values are `hu_offset`'s.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import nibabel as nib
import numpy as np

from monai_chd.errors import UserError, UserFileError
from monai_chd.folders import dead_link

_gzip: Any = gzip
_deflate: Any = zlib
try:
    from isal import igzip, isal_zlib

    _gzip, _deflate = igzip, isal_zlib
except ImportError:  # no wheel for this platform: zlib gives the same bytes in about twice the time
    pass

crc32: Callable[..., int] = _deflate.crc32

DAMAGE: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error, _deflate.error)
"""What a cut or damaged file raises while it is inflated."""

_REFUSED: tuple[type[Exception], ...] = (
    *DAMAGE,
    OverflowError,
    ValueError,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
)

_ITK_DTYPES = ("uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")


class Volume(NamedTuple):
    """One volume as it is in the file.

    Attributes:
        values: shape (X, Y, Z), or (X, Y, Z, T) for cine of two time points or more; scaled by the header's slope and
            intercept (ITK computes that in float32), the stored dtype if there is none.
        affine: voxel index to RAS millimetres (as far as the header can be believed), shape (4, 4).
    """

    values: np.ndarray
    affine: np.ndarray


def is_nifti(path: Path) -> bool:
    """Whether the name says NIfTI, and is no AppleDouble shadow (`._name`)."""
    return path.name.lower().endswith((".nii", ".nii.gz")) and not path.name.startswith("._")


def stem(path: str | Path) -> str:
    """File name without `.nii` or `.nii.gz`."""
    name = Path(path).name
    for suffix in (".nii.gz", ".nii"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def check_file(path: Path) -> None:
    """Refuse a file that should not even be opened.

    Raises:
        UserFileError: there is no such file.
        UserError: not a NIfTI name, empty, no permission, `.nii.gz` that is not gzip, or `X.nii` and `X.nii.gz`
            side by side.
    """
    if not os.path.isfile(path):
        raise UserFileError(dead_link(path) or f"{path}: no such file")
    if not is_nifti(path):
        raise UserError(f"{path}: expected a NIfTI file (.nii or .nii.gz)")
    twin = path.with_name(stem(path) + (".nii" if path.name.lower().endswith(".gz") else ".nii.gz"))
    if os.path.exists(twin):
        # ITK-based readers take X.nii when asked for X.nii.gz, so which voxels one gets depends on the reader.
        raise UserError(
            f"{path}: {twin.name} lies beside it, and readers disagree on which to open; remove one of the two"
        )
    try:
        with path.open("rb") as file:
            magic = file.read(2)
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror or error}); check its permissions") from error
    if not magic:
        raise UserError(f"{path}: the file is empty; copy it again")
    if path.name.lower().endswith(".gz") and magic != b"\x1f\x8b":
        raise UserError(f"{path}: named .nii.gz but not gzip-compressed; rename it to .nii or compress it with gzip")


def open_stream(path: Path) -> BinaryIO:
    """The bytes of a `.nii` or `.nii.gz`, inflated; several gzip members follow each other, each to its checksum."""
    if path.name.lower().endswith(".gz"):
        return cast(BinaryIO, _gzip.open(path))
    return path.open("rb", buffering=0)


def check_stream(path: Path, image: nib.Nifti1Image) -> None:
    """Inflate the file to its end: checksum right, and as many bytes as the header promises.

    Raises:
        One of `DAMAGE`: the stream is cut or damaged.
    """
    start = int(image.dataobj.offset)  # type: ignore[attr-defined]
    expected = start + math.prod(image.shape) * image.get_data_dtype().itemsize
    size = 0
    with open_stream(path) as stream:
        while chunk := stream.read(1 << 22):
            size += len(chunk)
    if size < expected:
        raise EOFError(f"{size} bytes, but the header promises {expected}")


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    """Turn what nibabel and gzip raise for a damaged file into one ValueError that names it."""
    try:
        yield
    except _REFUSED as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise damaged(path, reason[0]) from error


def damaged(path: Path, reason: str) -> UserError:
    """The error for a cut or damaged file."""
    return UserError(f"{path}: truncated or corrupt NIfTI ({reason}); copy or download the file again")


def _check_header(path: Path, image: nib.Nifti1Image, affine: np.ndarray) -> None:
    """Refuse what is not one real number a voxel, in two to four dimensions, at a known place."""
    shape, dtype = image.shape, image.get_data_dtype()
    if not 2 <= len(shape) <= 4 and not (len(shape) > 4 and set(shape[4:]) == {1}):
        raise UserError(
            f"{path}: expected 2 to 4 dimensions (X, Y, Z, time), got shape {shape}; split or reshape the file"
        )
    if min(shape) < 1:
        raise UserError(f"{path}: an axis is empty, shape {shape}; export the scan again")
    if dtype.kind not in "iuf":
        raise UserError(
            f"{path}: expected one real number a voxel, got {dtype}; convert colour or complex images first"
        )
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise UserError(
            f"{path}: the affine in the header is not finite or has no inverse; write the file again with a valid one"
        )


def _read_nibabel(path: Path, image: nib.Nifti1Image) -> np.ndarray:
    with _naming_damage(path):
        if not path.name.lower().endswith(".gz"):
            return np.asanyarray(image.dataobj)
        with open_stream(path) as stream:
            same: Any = type(image).from_file_map({"image": nib.FileHolder(fileobj=cast(Any, stream))})
            values: np.ndarray = np.asanyarray(same.dataobj)
            while stream.read(
                1 << 20
            ):  # on to the checksum: nibabel stops before it and takes damaged voxels in silence
                pass
        return values


def _read_itk(path: Path, image: nib.Nifti1Image) -> np.ndarray:
    with _naming_damage(path):
        check_stream(path, image)  # ITK fills the missing part of a truncated file with zeros and says nothing
    from monai.data import ITKReader  # with torch, which nothing else here needs

    stored = image.get_data_dtype()
    refusal = UserError(f"{path}: the file is sound, but ITK does not read its kind of NIfTI; use reader nibabel")
    if stored.name not in _ITK_DTYPES:
        raise refusal  # before ITK loads everything it has to say so, which takes half a minute
    reader = ITKReader()
    try:
        values = np.asarray(reader.get_data(reader.read(str(path)))[0]).reshape(image.shape)
    except (RuntimeError, TypeError) as error:  # NIfTI-2, a sheared affine
        raise refusal from error
    row: Any = (slice(None), *(0,) * (values.ndim - 1))
    with _naming_damage(path):
        if stored.kind == "f":
            truth = np.asanyarray(image.dataobj)
            values = np.where(np.isfinite(truth), values, truth)  # ITK turns NaN and infinity into 0
        first = np.asarray(image.dataobj[row])
    if not np.allclose(values[row], first, rtol=1e-5, atol=1e-3, equal_nan=True):
        raise refusal  # a slope of 0 means no scaling, but ITK adds the intercept
    return values


def open_header(path: Path) -> tuple[Any, np.ndarray]:
    """A NIfTI file's image, its voxels unread, and its affine; both checked.

    Raises:
        UserFileError, UserError: see `read_volume`.
    """
    check_file(path)
    with _naming_damage(path):
        image: Any = nib.load(path)
        affine = np.asarray(image.affine, dtype=np.float64)
    _check_header(path, image, affine)
    return image, affine


def bad_voxels(values: np.ndarray) -> int:
    """How many values are NaN or infinite."""
    return int(values.size - np.count_nonzero(np.isfinite(values))) if values.dtype.kind == "f" else 0


def refuse_bad_voxels(path: Path, bad: int, voxels: int) -> None:
    """Refuse a volume with NaN or infinite voxels.

    Raises:
        UserError: `bad` of its `voxels` are.
    """
    if bad:
        raise UserError(f"{path}: {bad} of {voxels} voxels are NaN or infinite; replace them by air (-1024 HU)")


READERS: dict[str, Callable[[Path, nib.Nifti1Image], np.ndarray]] = {"nibabel": _read_nibabel, "itk": _read_itk}


def read_volume(path: str | Path, reader: str = "nibabel") -> Volume:
    """Read a NIfTI file whole, to the checksum at its end.

    Args:
        path: `.nii` or `.nii.gz`, 2D to 4D.
        reader: name out of `READERS`; both give the same values. The header is read by nibabel in any case, since ITK
            takes colours for time points and chooses between two affines otherwise.

    Returns:
        The volume; a 2D file becomes one slice, a single time point 3D.

    Raises:
        UserFileError: no such file.
        UserError: unknown reader; or the file is damaged, has more than four dimensions, an empty axis, an affine that
            is not finite or has no inverse, or non-finite voxels. The message names the file and the mend.
    """
    if reader not in READERS:
        raise UserError(f"unknown reader {reader!r}: expected one of {', '.join(READERS)}")
    path = Path(path)
    image, affine = open_header(path)
    values = READERS[reader](path, image)
    refuse_bad_voxels(path, bad_voxels(values), values.size)
    time = image.shape[3:4] if math.prod(image.shape[3:]) > 1 else ()
    return Volume(values.reshape((*image.shape[:3], 1)[:3] + time), affine)
