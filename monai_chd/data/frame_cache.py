"""The real frames of scans kept on disk, memory-mapped and lossless.

Padding is never kept. What a case goes through before and after is the transform's part.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from numpy.typing import NDArray

from monai_chd.data.chain_key import transform_key
from monai_chd.data.scan_files import ScanFiles, notes_of, own_settings, restored, stamp_of, with_image
from monai_chd.errors import UserError
from monai_chd.files import replacing, writable_folder
from monai_chd.nifti import crc32

GIB = 2**30
MIB = 2**20
DISK_RESERVE = 2 * GIB
"""Bytes of the disk that the cache leaves free."""

BLOCK = 1 << 9
"""Bytes of what `st_blocks` counts."""

_MAGIC = b"CHDFRAM1"
_END = struct.Struct("<8sQ")  # magic, bytes of the JSON before it


class _FrameEntry(NamedTuple):
    frames: NDArray[np.uint8]
    notes: dict[str, Any]


class FrameFiles:
    """One memory-mapped file of uint8 frames a scan, lossless.

    A file's name is a digest of the scan's bytes, of every transform with its settings and code, and of the case's own
    settings, so that one folder serves any number of trainings, processes and jobs. It is written once, to a temporary name; its
    length, key and checksum are verified when it is first opened, and a damaged one is written again. Behind the real
    frames the file has a hole up to the sequence length, which takes no room on disk and reads as zeros, so that the
    padded sequence is handed out without a copy. `applied_operations` are not kept: to invert, read without a cache.

    Args:
        folder: where the files are.
        frames: the transforms from path to padded uint8 frames (1, L, S, S).
        limit: bytes that the folder may take. A file that would go beyond it, or leave less than `DISK_RESERVE` of
            the disk, is not written: that scan is then read each time, and a warning says so once.

    Attributes:
        full: why no more files are written, "" as long as they are.
    """

    def __init__(self, folder: str | Path, frames: Compose, *, limit: float = float("inf")) -> None:
        self.folder = writable_folder(folder)
        self.frames = frames
        self.limit = limit
        self._settings = transform_key(frames)
        self._files = ScanFiles(self._place, self._open)
        self._verified: set[Path] = set()
        self.full = ""

    def load(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """The case with `image` as padded frames (1, L, S, S), from the file, which is written first where needed.

        Raises:
            UserFileError, UserError: the scan is gone or cannot be read.
        """
        place, entry = self._files.find(case)
        if entry is None:
            told = self.full
            image, written = self._make(place, case)
            if not written:
                if not told:
                    warnings.warn(f"frame cache {self.full}; the other scans are read each time", stacklevel=2)
                return with_image(case, image)
            entry = self._open(place)
            if entry is None:
                raise UserError(f"{place}: cannot be read back; check the disk, or choose another cache_dir")
        return restored(case, torch.from_numpy(entry.frames)[None], entry.notes)

    def keep(self, case: Mapping[str, Any]) -> bool:
        """Write a case's file where it is missing; False when there is no room for it, after which none is tried.

        Raises:
            UserFileError, UserError: the scan is gone or cannot be read.
        """
        place, entry = self._files.find(case)
        return entry is not None or (not self.full and self._make(place, case)[1])

    def _place(self, digest: str, case: Mapping[str, Any]) -> Path:
        key = json.dumps([digest, self._settings, own_settings(case)], sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.npy"

    def _open(self, place: Path) -> _FrameEntry | None:
        """A sound entry, or None; a file that was cut, damaged or is something else counts as none."""
        try:
            with place.open("rb") as file:
                file.seek(-_END.size, os.SEEK_END)
                magic, length = _END.unpack(file.read(_END.size))
                end = file.tell()
                file.seek(end - _END.size - length)
                notes = json.loads(file.read(length)) if magic == _MAGIC else {}
            frames = np.load(place, mmap_mode="c")  # copy on write: nobody can spoil the file through the tensor
            real = frames[: notes["num_frames"]]
            if place not in self._verified and crc32(real.data) != notes["crc"]:
                return None
        except (OSError, ValueError, KeyError, struct.error):
            return None
        self._verified.add(place)
        return _FrameEntry(frames, notes)

    def _make(self, place: Path, case: Mapping[str, Any]) -> tuple[MetaTensor, bool]:
        """The frames of a case, and whether they were written."""
        stamp = stamp_of(Path(case["image"]))
        image: MetaTensor = self.frames(dict(case))["image"]
        return image, self._write(place, image, stamp)

    def _write(self, place: Path, image: MetaTensor, stamp: list[int]) -> bool:
        """Write an entry if there is room for it."""
        values = image.as_tensor()[0].numpy()
        if values.dtype != np.uint8:
            raise UserError(f"cache: 'frames' keeps uint8 frames, got {values.dtype}; quantise them")
        real = np.ascontiguousarray(values[: image.meta["num_frames"]])
        if not self._has_room(real.nbytes):
            return False
        notes = {**notes_of(image), "crc": crc32(real.data), "stamp": stamp}
        text = json.dumps(notes).encode()
        with replacing(place, sync=False) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": values.shape})
            file.write(real.data)
            file.seek(values.nbytes - real.nbytes, os.SEEK_CUR)  # the hole
            file.write(text + _END.pack(_MAGIC, len(text)))
        return True

    def _has_room(self, wanted: int) -> bool:
        if self.full:
            return False
        used = sum(map(_bytes_on_disk, self.folder.glob("*.npy")))
        free = shutil.disk_usage(self.folder).free
        if used + wanted > self.limit:
            self.full = (
                f"{self.folder} is full: it may take {_size(self.limit)}; allow it more with cache_limit, or empty it"
            )
        elif wanted > free - DISK_RESERVE:
            self.full = (
                f"{self.folder} is full: {_size(free)} of its disk are free, of which {_size(DISK_RESERVE)} are left alone; "
                f"make room there, or choose another folder"
            )
        return not self.full


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"


def _bytes_on_disk(file: Path) -> int:
    """Bytes that a file takes on disk; none when it is gone, as what another process just renamed."""
    try:
        return file.stat().st_blocks * BLOCK
    except FileNotFoundError:
        return 0
