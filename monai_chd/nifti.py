"""Reads one NIfTI volume, and refuses files that cannot be trusted.

Knows single files only: which file belongs to which patient is `cohort`'s part, in which units values are `hu_offset`'s.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy

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

DEFLATE_RATIO = 1032
"""Most bytes that one byte of a deflate stream can become: 258 from two bits."""

_HEAD_BYTES = 1024
"""What is looked at to tell what a file is; a header takes 352 of them, of NIfTI-2 544."""

_GZIP = b"\x1f\x8b"

_OTHER_KINDS = (
    (
        re.compile(rb"version https://git-lfs"),
        "a git-LFS pointer in place of the scan; fetch the scan itself with git lfs pull",
    ),
    (
        re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|!--)", re.IGNORECASE),
        "a web page (HTML or XML) in place of the scan, often a login or error page; download the scan again, signed in",
    ),
    (re.compile(rb"PK\x03\x04"), "a zip archive; unpack it"),
    (re.compile(rb".{128}DICM", re.DOTALL), "a DICOM file with a NIfTI name; rename it, and name its folder"),
)
"""How files begin that get a NIfTI name by mistake, what they are, and the mend."""

SYNTHETIC = "monai_chd phantom: synthetic, no patient"
"""What the header of a made-up scan says of it (`descrip`); a header without it says nothing, not that the scan is real."""

_NO_LOG = logging.Logger("", logging.CRITICAL + 1)

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


def voxel_digest(volume: Volume) -> str:
    """sha256 of the voxels as numbers, in RAS+ order: the same however the file is named, compressed, turned, or stores them.

    An affine that was changed, not only turned along with the voxels, gives another digest: the audit looks for near copies.

    Args:
        volume: taken slice by slice, so that no second volume is in memory.
    """
    axes = nib.orientations.io_orientation(volume.affine)
    turned = volume.values if np.isnan(axes).any() else nib.orientations.apply_orientation(volume.values, axes)
    digest = hashlib.sha256(repr(turned.shape).encode())
    for index in range(turned.shape[2]):
        digest.update(np.ascontiguousarray(turned[:, :, index].T, dtype="<f4").data)  # .T: in the order of a NIfTI file
    return digest.hexdigest()


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
    """Refuse a file that should not even be opened; reads its first bytes only.

    Raises:
        UserFileError: there is no such file.
        UserError: not a NIfTI name, `X.nii` and `X.nii.gz` side by side, empty, no permission, content of another kind
            than its name says, no sound NIfTI header, or a header that promises more than the file can hold.
    """
    _checked_header(path, _NO_LOG)


def is_synthetic(path: str | Path) -> bool:
    """Whether a scan says that it was made up; False where it says nothing. Reads the header only.

    Raises:
        UserFileError, UserError: see `check_file`.
    """
    return bytes(_checked_header(Path(path), _NO_LOG)["descrip"].item()).decode("latin-1").startswith(SYNTHETIC)


def _checked_header(path: Path, log: logging.Logger | None = None) -> Any:
    """The header of a file, NIfTI-1 or NIfTI-2, that can hold what it promises; see `check_file`.

    What nibabel mends of it, such as an unknown form code, stands in `log` (None: nibabel's own).
    """
    check_name(path)
    head = _head(path)
    with _naming_damage(path):
        header = _parsed(head)
    least = header.single_vox_offset
    if header["magic"].item() == header.pair_magic:
        raise UserError(
            f"{path}: the header of a pair (.hdr and .img), without voxels; convert the pair to one .nii.gz"
        )
    if not header["vox_offset"] >= least:
        raise UserError(
            f"{path}: the voxels are said to begin at byte {header['vox_offset']:g}, within the header, which takes "
            f"{least}; write the file again with a valid vox_offset"
        )
    size = path.stat().st_size
    holds = size * DEFLATE_RATIO if _is_packed(path) else size
    with _naming_damage(path):
        header.check_fix(log)
        voxels = math.prod(max(0, length) for length in header.get_data_shape())
        promised = header.get_data_offset() + voxels * header.get_data_dtype().itemsize
        if promised > holds:
            raise EOFError(f"the header promises {promised} bytes, but a file of {size} can hold at most {holds}")
    return header


def check_name(path: Path) -> None:
    """Refuse a file by its name, without opening it, as is enough where its content was looked at before.

    Raises:
        UserFileError: there is no such file.
        UserError: not a NIfTI name, or `X.nii` and `X.nii.gz` side by side.
    """
    if not os.path.isfile(path):
        raise UserFileError(dead_link(path) or f"{path}: no such file")
    if not is_nifti(path):
        raise UserError(f"{path}: expected a NIfTI file (.nii or .nii.gz)")
    twin = path.with_name(stem(path) + (".nii" if _is_packed(path) else ".nii.gz"))
    if os.path.exists(twin):
        # ITK-based readers take X.nii when asked for X.nii.gz, so which voxels one gets depends on the reader.
        raise UserError(
            f"{path}: {twin.name} lies beside it, and readers disagree on which to open; remove one of the two"
        )


def _head(path: Path) -> bytes:
    """The first bytes of a file, inflated; refuses what they show to be something else."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror or error}); check its permissions") from error
    if not head:
        raise UserError(f"{path}: the file is empty; copy it again")
    _refuse_other_kinds(path, head)
    if not _is_packed(path):
        if head.startswith(_GZIP):
            raise UserError(f"{path}: compressed with gzip but named .nii; rename it to {stem(path)}.nii.gz")
        return head
    if not head.startswith(_GZIP):
        raise UserError(f"{path}: named .nii.gz but not gzip-compressed; rename it to .nii or compress it with gzip")
    with _naming_damage(path), open_stream(path) as stream:
        head = stream.read(_HEAD_BYTES)
    if head.startswith(_GZIP):
        raise UserError(f"{path}: compressed twice with gzip; decompress it once and keep the name")
    _refuse_other_kinds(path, head)
    return head


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    for begin, kind in _OTHER_KINDS:
        if begin.match(head):
            raise UserError(f"{path}: {kind}")


def _parsed(head: bytes) -> Any:
    kinds: tuple[Any, ...] = nib.Nifti1Header, nib.Nifti2Header
    for kind in kinds:
        if kind.may_contain_header(head):
            return kind(head[: kind.sizeof_hdr], check=False)
    raise ValueError("it does not begin with a NIfTI header")


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def open_stream(path: Path) -> BinaryIO:
    """The bytes of a `.nii` or `.nii.gz`, inflated; several gzip members follow each other, each to its checksum."""
    if _is_packed(path):
        return cast(BinaryIO, _gzip.open(path))
    return path.open("rb", buffering=0)


def check_stream(path: Path, stored: ArrayProxy) -> None:
    """Inflate the file to its end: checksum right, and as many bytes as the header promises.

    Raises:
        One of `DAMAGE`: the stream is cut or damaged.
    """
    expected = stored.offset + math.prod(stored.shape) * stored.dtype.itemsize
    size = 0
    with open_stream(path) as stream:
        while chunk := stream.read(1 << 22):
            size += len(chunk)
    if size < expected:
        raise EOFError(f"{size} bytes, but the header promises {expected}")


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    """Turn what nibabel and gzip raise for a damaged file into one UserError that names it."""
    try:
        with np.errstate(all="ignore"):  # numbers out of range are refused, not warned of
            yield
    except MemoryError as error:
        raise UserError(f"{path}: does not fit into memory; take a machine with more, or resample the scan") from error
    except _REFUSED as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise damaged(path, reason[0]) from error


def damaged(path: Path, reason: str) -> UserError:
    """The error for a cut or damaged file."""
    return UserError(f"{path}: truncated or corrupt NIfTI ({reason}); copy or download the file again")


def _check_voxels(path: Path, stored: ArrayProxy, affine: np.ndarray) -> None:
    """Refuse what is not one real number a voxel, in two to four dimensions, at a known place."""
    shape, dtype = stored.shape, stored.dtype
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


def _read_nibabel(path: Path, stored: ArrayProxy) -> np.ndarray:
    with _naming_damage(path):
        if not _is_packed(path):
            return np.asanyarray(stored)
        with open_stream(path) as stream:
            described = stored.shape, stored.dtype, stored.offset, stored.slope, stored.inter
            values: np.ndarray = np.asanyarray(ArrayProxy(stream, described))
            # on to the checksum: nibabel stops before it and takes damaged voxels in silence
            while stream.read(1 << 20):
                pass
        return values


def _read_itk(path: Path, stored: ArrayProxy) -> np.ndarray:
    with _naming_damage(path):
        check_stream(path, stored)  # ITK fills the missing part of a truncated file with zeros and says nothing
    from monai.data import ITKReader  # with torch, which nothing else here needs

    refusal = UserError(f"{path}: the file is sound, but ITK does not read its kind of NIfTI; use reader nibabel")
    if stored.dtype.name not in _ITK_DTYPES:
        raise refusal  # before ITK loads everything it has to say so, which takes half a minute
    reader = ITKReader()
    try:
        values = np.asarray(reader.get_data(reader.read(str(path)))[0]).reshape(stored.shape)
    except (RuntimeError, TypeError) as error:  # NIfTI-2, a sheared affine
        raise refusal from error
    row: Any = (slice(None), *(0,) * (values.ndim - 1))
    with _naming_damage(path):
        if stored.dtype.kind == "f":
            truth = np.asanyarray(stored)
            values = np.where(np.isfinite(truth), values, truth)  # ITK turns NaN and infinity into 0
        first = np.asarray(stored[row])
    if not np.allclose(values[row], first, rtol=1e-5, atol=1e-3, equal_nan=True):
        raise refusal  # a slope of 0 means no scaling, but ITK adds the intercept
    return values


def open_header(path: Path) -> tuple[ArrayProxy, np.ndarray]:
    """A NIfTI file's voxels as they are described, unread, and its affine; both checked.

    Extensions of the header are passed over: nibabel would take as much memory for one as it claims to have.

    Raises:
        UserFileError, UserError: see `read_volume`.
    """
    header = _checked_header(path)
    with _naming_damage(path):
        stored = ArrayProxy(str(path), header)
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    _check_voxels(path, stored, affine)
    return stored, affine


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


READERS: dict[str, Callable[[Path, ArrayProxy], np.ndarray]] = {"nibabel": _read_nibabel, "itk": _read_itk}


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
        UserError: unknown reader; or the file is refused by `check_file`, is damaged, has more than four dimensions, an
            empty axis, an affine that is not finite or has no inverse, or non-finite voxels. The message names the file
            and the mend.
    """
    if reader not in READERS:
        raise UserError(f"unknown reader {reader!r}: expected one of {', '.join(READERS)}")
    path = Path(path)
    stored, affine = open_header(path)
    values = READERS[reader](path, stored)
    refuse_bad_voxels(path, bad_voxels(values), values.size)
    time = stored.shape[3:4] if math.prod(stored.shape[3:]) > 1 else ()
    return Volume(values.reshape((*stored.shape[:3], 1)[:3] + time), affine)
