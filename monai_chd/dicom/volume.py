"""Streams the slices of a DICOM series in their order in space, as HU or what a slope and an intercept make HU of.

Which files they are, and that they make a volume, is the part of `series`.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from monai_chd.dicom.slices import pydicom
from monai_chd.errors import UserError
from monai_chd.streaming import SlicedVolume

OUTSIDE_HU = -1024.0
"""What stands where a tilted volume, made upright, has no picture."""


class SeriesVolume(SlicedVolume):
    """A DICOM series as a volume; its values are HU by what the headers say, never by a guess.

    Uncompressed pixels are read straight from where they lie in the files; compressed ones are decoded by pydicom.

    Args:
        path: where the description came from, for messages.
        description: see `series.described`.

    Raises:
        UserError: a file has changed or gone since it was described.
    """

    hu_offset = 0.0

    def __init__(self, path: Path, description: Mapping[str, Any]) -> None:
        self.path = path
        self.shape = tuple(description["shape"])
        self.affine = np.array(description["affine"], np.float64)
        self.slices: list[Mapping[str, Any]] = list(description["slices"])
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).round(6).tolist()
        self.spacing_mm = x, y, z
        for one in self.slices:
            _check_stamp(path, one)
        self._shifts = None if description["shifts"] is None else np.array(description["shifts"], np.float64)
        kinds = {(one["dtype"], one["bits"], one["slope"], one["intercept"]) for one in self.slices}
        # with one rescale for all, slices are handed on as they are stored, which is the fastest
        self._as_stored = len(kinds) == 1 and self._shifts is None
        dtype, _, slope, intercept = min(kinds)
        self.dtype = np.dtype(dtype) if self._as_stored else np.dtype(np.float32)
        self._slope = float(slope) if self._as_stored else 1.0
        self._intercept = float(intercept) if self._as_stored else 0.0

    def scaled(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Stored values in HU; whole numbers where they are."""
        if not self._as_stored:
            return stored
        if self._slope == 1 and self._intercept == round(self._intercept) and stored.dtype.itemsize <= 2:
            return np.asarray(np.add(stored, np.int32(self._intercept), dtype=np.int32))
        return np.asarray(stored * self._slope + self._intercept, np.float32)

    def opened(self) -> BinaryIO:
        """The slices one after the other, as `dtype` has them."""
        return cast(BinaryIO, _SliceStream(self))

    def damaged(self, reason: str) -> UserError:
        """The error for files that are cut or cannot be decoded."""
        return UserError(f"{self.path}: cut or damaged DICOM series ({reason}); copy or send the series again")

    def slice_bytes(self, index: int, decode: Callable[[str], NDArray[Any]]) -> bytes | memoryview:
        """One slice as the stream has it.

        Args:
            index: number of the slice.
            decode: a compressed file to its images, (frames, rows, columns).

        Raises:
            EOFError: its file is cut, or cannot be decoded.
        """
        one = self.slices[index]
        columns, rows, _ = self.shape
        dtype = np.dtype(one["dtype"])
        size = columns * rows * dtype.itemsize
        try:
            if one["offset"] >= 0:
                with Path(one["file"]).open("rb") as file:
                    file.seek(one["offset"])
                    data = file.read(size)
            else:
                pixels = decode(one["file"])[one["frame"]]
                if pixels.shape != (rows, columns):
                    raise EOFError(f"its pixels decode to {pixels.shape}, where the header has {(rows, columns)}")
                data = pixels.astype(dtype).tobytes()
        except OSError as error:  # its text has the file's name, which may be a patient's
            raise EOFError(f"slice {index + 1}: {error.strerror or type(error).__name__}") from None
        if len(data) != size:
            raise EOFError(f"slice {index + 1} has {len(data)} of {size} bytes")
        if self._as_stored and one["bits"] == 8 * dtype.itemsize:
            return data
        values = _of_bits(np.frombuffer(data, dtype).reshape(rows, columns), one["bits"])
        if not self._as_stored:
            values = (values * one["slope"] + one["intercept"]).astype(np.float32)
            if self._shifts is not None:
                values = _shifted(values, self._shifts[index])
        return np.ascontiguousarray(values, self.dtype).data.cast("B")


def _check_stamp(path: Path, one: Mapping[str, Any]) -> None:
    try:
        status = Path(one["file"]).stat()
    except OSError as error:
        raise UserError(
            f"{path}: a file of this DICOM series cannot be read any more ({error.strerror}); bring the series back to where it "
            f"was, or run the command on its new folder"
        ) from None
    if [status.st_size, status.st_mtime_ns] != list(one["stamp"]):
        raise UserError(
            f"{path}: a file of this DICOM series has changed since its headers were read; run the command on its folder again"
        )


def _of_bits(values: NDArray[Any], bits: int) -> NDArray[Any]:
    """Without what lies above the bits of a pixel, where overlays and rubbish may be; the sign carried on."""
    spare = 8 * values.dtype.itemsize - bits
    if not spare:
        return values
    native = values.astype(values.dtype.newbyteorder("="))
    return (native << spare) >> spare


def _decoded(path: str) -> NDArray[Any]:
    """All images of a compressed file, (frames, rows, columns)."""
    header = pydicom().dcmread(path, force=True)
    try:
        pixels = np.asarray(header.pixel_array)
    except (ValueError, RuntimeError, AttributeError, TypeError, IndexError) as error:
        said = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise EOFError(f"its pixels cannot be decoded: {said[0]}") from error
    return pixels if pixels.ndim == 3 else pixels[None]


def _shifted(values: NDArray[np.float32], by: NDArray[np.float64]) -> NDArray[np.float32]:
    """A slice moved by pixels (rows, columns), linearly between them."""
    from scipy import ndimage

    return cast(NDArray[np.float32], ndimage.shift(values, by, order=1, mode="constant", cval=OUTSIDE_HU))


class _SliceStream(io.RawIOBase):
    """The slices of a series as one stream of bytes."""

    def __init__(self, volume: SeriesVolume) -> None:
        super().__init__()
        self._volume, self._next = volume, 0
        self._rest = memoryview(b"")
        self._decode = functools.lru_cache(maxsize=1)(_decoded)  # a file of many frames is decoded once for all of them

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            if self._next == len(self._volume.slices):
                return 0
            self._rest = memoryview(self._volume.slice_bytes(self._next, self._decode)).cast("B")
            self._next += 1
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
