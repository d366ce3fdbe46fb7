"""Streams the stored slices of one volume, reading on a thread of its own while the caller works on earlier ones.

Knows nothing of frames: which slices are kept, and what becomes of them, is `load_frames`' part. Where the bytes of a volume
come from is its own class's: of a NIfTI file that of `StoredVolume`, of a DICOM series that of `dicom.volume`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from monai_chd.errors import UserError
from monai_chd.nifti import DAMAGE, damaged, open_header, open_stream

SLAB_BYTES = 2**20
"""Bytes handed over at once: large enough for the hand-over to cost nothing, small enough to stay in a core's cache."""

SLABS = 3
"""Buffers: one is worked on, one waits, one is filled."""

SKIP_BYTES = 2**20


class Slab(NamedTuple):
    """Neighbouring stored slices.

    Attributes:
        start: number of the first one, in file order.
        values: as stored, shape (n, Y, X); valid until the next slab is asked for.
    """

    start: int
    values: NDArray[Any]


class SlicedVolume:
    """A 3D volume that is read in the order in which its slices are stored.

    Attributes:
        path: where it is, for messages.
        shape: (X, Y, Z).
        affine: voxel index to RAS millimetres, shape (4, 4).
        dtype: as stored, byte order included.
        times: time points; more than one cannot be streamed.
        hu_offset: HU = scaled value + this, where the format says it; None where it has to be found out.
        spacing_mm: size of a voxel along X, Y, Z; None when nothing believable says so.
    """

    path: Path
    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    dtype: np.dtype[Any]
    times = 1
    hu_offset: float | None = None
    spacing_mm: tuple[float, float, float] | None = None

    def scaled(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Stored values of any shape by the slope and intercept; themselves when there is none."""
        raise NotImplementedError

    def opened(self) -> BinaryIO:
        """The stored bytes of all slices from the first on, and then whatever proves them whole."""
        raise NotImplementedError

    def damaged(self, reason: str) -> UserError:
        """The error for bytes that are missing or damaged."""
        raise NotImplementedError

    def slabs(self, stop: int | None = None) -> Iterator[Slab]:
        """Yield the slices in stored order.

        Args:
            stop: slices to read. None: all of them, and then on to whatever proves them whole.

        Raises:
            UserError: truncated or corrupt; names the file and where in it.
        """
        nx, ny, nz = self.shape
        size = nx * ny * self.dtype.itemsize
        each = max(1, SLAB_BYTES // size)
        count = nz if stop is None else stop
        buffers = [np.empty(min(each, count) * size, np.uint8) for _ in range(min(SLABS, math.ceil(count / each)))]
        inflater = _Inflater(self, count * size, buffers, to_end=stop is None)
        try:
            for start in range(0, count, each):
                buffer, filled = inflater.take()
                values = buffer[:filled].view(self.dtype).reshape(-1, ny, nx)
                yield Slab(start, values)
                inflater.give_back(buffer)
            inflater.finish()
        finally:
            inflater.stop()

    def read_whole(self) -> NDArray[Any]:
        """All stored values, shape (Z, Y, X), in memory."""
        nx, ny, nz = self.shape
        values = np.empty((nz, ny, nx), self.dtype)
        inflater = _Inflater(self, values.nbytes, [values.reshape(-1).view(np.uint8)], to_end=True)
        try:
            inflater.take()
            inflater.finish()
        finally:
            inflater.stop()
        return values


class StoredVolume(SlicedVolume):
    """A 3D NIfTI volume; axes of size 1 stand for those a 2D file lacks.

    Args:
        path: `.nii` or `.nii.gz`.

    Raises:
        UserFileError, UserError: see `nifti.read_volume`; what only the voxels show comes from `slabs`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        stored, self.affine = open_header(self.path)
        self.shape = (*stored.shape[:3], 1, 1)[:3]
        self.times = math.prod(stored.shape[3:])
        self.dtype = stored.dtype
        self._offset = stored.offset
        # as nibabel's own array proxy scales, so that values are the same to the last bit
        self._slope, self._inter = np.asanyarray(stored.slope), np.asanyarray(stored.inter)

    def scaled(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Stored values of any shape by the header's slope and intercept; themselves when there is none."""
        return apply_read_scaling(stored, self._slope, self._inter)

    def opened(self) -> BinaryIO:
        """The inflated bytes of the voxels; its end proves the checksum."""
        stream = open_stream(self.path)
        try:
            _skip(stream, self._offset)
        except BaseException:
            stream.close()
            raise
        return stream

    def damaged(self, reason: str) -> UserError:
        """The error for a truncated or corrupt file."""
        return damaged(self.path, reason)


class _Inflater:
    """Fills buffers with the voxels of a volume, on a thread; inflating holds no lock of the interpreter."""

    def __init__(self, volume: SlicedVolume, total: int, buffers: list[NDArray[np.uint8]], *, to_end: bool) -> None:
        self.volume, self.total, self.to_end = volume, total, to_end
        self._free: SimpleQueue[NDArray[np.uint8] | None] = SimpleQueue()
        self._full: SimpleQueue[tuple[NDArray[np.uint8], int] | BaseException | None] = SimpleQueue()
        for buffer in buffers:
            self._free.put(buffer)
        self._thread = threading.Thread(target=self._run, name="inflate", daemon=True)
        self._thread.start()

    def take(self) -> tuple[NDArray[np.uint8], int]:
        """The next filled buffer, and how many of its bytes."""
        item = self._full.get()
        if isinstance(item, BaseException):
            raise item
        assert item is not None
        return item

    def give_back(self, buffer: NDArray[np.uint8]) -> None:
        self._free.put(buffer)

    def finish(self) -> None:
        """Wait for the end of the file, which holds the checksum of all that was given out."""
        item = self._full.get()
        if isinstance(item, BaseException):
            raise item

    def stop(self) -> None:
        self._free.put(None)
        self._thread.join()

    def _run(self) -> None:
        done = 0
        try:
            try:
                with self.volume.opened() as stream:
                    while done < self.total:
                        buffer = self._free.get()
                        if buffer is None:
                            return
                        wanted = min(buffer.nbytes, self.total - done)
                        filled = _fill(stream, buffer[:wanted].data)
                        done += filled
                        if filled < wanted:
                            raise EOFError(f"{done} bytes of voxels, but the header promises {self.total}")
                        self._full.put((buffer, filled))
                    while self.to_end and stream.read(SKIP_BYTES):
                        pass
                    self._full.put(None)
            except DAMAGE as error:
                raise self.volume.damaged(f"{error} at byte {done} of the voxels") from error
        except Exception as error:
            self._full.put(error)


def _fill(stream: BinaryIO, view: memoryview) -> int:
    """Read until `view` is full or the stream ends; bytes read."""
    filled = 0
    while filled < len(view):
        got = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not got:
            break
        filled += got
    return filled


def _skip(stream: BinaryIO, count: int) -> int:
    """Read past the header and its extensions; bytes read, fewer where the stream ends."""
    skipped = 0
    while skipped < count and (chunk := stream.read(min(SKIP_BYTES, count - skipped))):
        skipped += len(chunk)
    return skipped
