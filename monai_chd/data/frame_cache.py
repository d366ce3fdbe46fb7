"""Where the real frames of scans are kept on disk: memory-mapped and lossless, or as JPGs for people who want the pictures.

Padding is never kept. What a case goes through before and after is the transform's part.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Transform
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from monai_chd.errors import UserError
from monai_chd.files import replacing, writable_folder
from monai_chd.nifti import check_file, crc32, stem
from monai_chd.transforms.steps import OWN_SETTINGS

JPG_QUALITY = 95
GIB = 2**30
DISK_RESERVE = 2 * GIB
"""Bytes of the disk that the cache leaves free."""

BLOCK = 1 << 9
"""Bytes of what `st_blocks` counts."""

_MAGIC = b"CHDFRAM1"
_END = struct.Struct("<8sQ")  # magic, bytes of the JSON before it
_FLAGS = ("intensity", "hu_offset", "num_frames")
_TENSORS = ("original_affine", "frame_indices")


class Kept(Protocol):
    """An entry of a cache."""

    @property
    def notes(self) -> dict[str, Any]:
        """What is known of it, `stamp` of its scan among it."""


Entry = TypeVar("Entry", bound=Kept)


def transform_key(transform: Compose) -> str:
    """Digest of a chain's transforms and all their settings: equal when they make the same of a file."""
    steps = [(type(step).__name__, _settings(step)) for step in transform.transforms]
    return hashlib.sha256(json.dumps(steps, sort_keys=True, default=str).encode()).hexdigest()


def _settings(step: Any) -> dict[str, Any]:
    """Public plain attributes of a transform and of what it wraps: a transform's settings are its attributes."""
    values: dict[str, Any] = {}
    for name, value in vars(step).items():
        if isinstance(value, Transform):
            values[name] = _settings(value)
        elif not name.startswith("_") and isinstance(value, (str, int, float, tuple, list, type(None))):
            values[name] = value
    return values


def used_up(case: Mapping[str, Any], image: MetaTensor) -> dict[str, Any]:
    """The case after loading: `image` is the frames, `num_frames` their number; its own settings are gone."""
    rest = {name: value for name, value in case.items() if name not in OWN_SETTINGS}
    return {**rest, "image": image, "num_frames": image.meta["num_frames"]}


def own_settings(case: Mapping[str, Any]) -> dict[str, Any]:
    """What a case asks for itself, before the transforms' settings."""
    return {name: case[name] for name in OWN_SETTINGS if case.get(name) is not None}


def notes_of(image: MetaTensor) -> dict[str, Any]:
    """What has to be known of frames besides their values, as JSON holds it."""
    numbers = {name: torch.as_tensor(image.meta[name]).tolist() for name in _TENSORS}
    return {"affine": image.affine.tolist(), **numbers, **{name: image.meta[name] for name in _FLAGS}}


def restored(case: Mapping[str, Any], values: Tensor, notes: Mapping[str, Any]) -> dict[str, Any]:
    """The case with kept values, and all that `notes_of` knows of them, as its `image`."""
    affine, original = (torch.tensor(notes[name], dtype=torch.float64) for name in ("affine", "original_affine"))
    meta = {
        **{name: notes[name] for name in _FLAGS},
        "filename_or_obj": str(case["image"]),
        "original_affine": original,
        "frame_indices": torch.tensor(notes["frame_indices"]),
    }
    return used_up(case, MetaTensor(values, affine, meta))


def stamp_of(path: Path) -> list[int]:
    """Size and time of a file, by which a change of it is seen."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


class ScanFiles(Generic[Entry]):
    """Where the kept file of a scan is, by the scan's bytes and whatever else decides its content.

    Args:
        place: digest of a scan's bytes, and case, to the kept file.
        opened: a kept file to a sound entry, whose `notes` have the scan's `stamp`; None when it is missing or damaged.
    """

    def __init__(self, place: Callable[[str, Mapping[str, Any]], Path], opened: Callable[[Path], Entry | None]) -> None:
        self._place, self._opened = place, opened
        self._digests: dict[tuple[str, int, int], str] = {}

    def find(self, case: Mapping[str, Any]) -> tuple[Path, Entry | None]:
        """The kept file of a case's scan, and its entry if there is a sound one.

        Raises:
            UserFileError, UserError: see `reading.check_file`.
        """
        path = Path(case["image"])
        check_file(path)
        stamp = stamp_of(path)
        if stated := case.get("sha256"):  # the datalist's, which holds as long as the file is as it was
            place = self._place(str(stated), case)
            entry = self._opened(place)
            if entry is not None and (entry.notes["stamp"] == stamp or self._digest(path, *stamp) == stated):
                return place, entry
        place = self._place(self._digest(path, *stamp), case)
        return place, self._opened(place)

    def _digest(self, path: Path, size: int, modified: int) -> str:
        key = (str(path), size, modified)
        if key not in self._digests:
            with path.open("rb") as file:
                self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[key]


class _Entry(NamedTuple):
    frames: NDArray[np.uint8]
    notes: dict[str, Any]


class FrameFiles:
    """One memory-mapped file of uint8 frames a scan, lossless.

    A file's name is a digest of the scan's bytes, of every transform with its settings, and of the case's own settings,
    so that one folder serves any number of trainings, processes and jobs. It is written once, to a temporary name; its
    length, key and checksum are verified when it is first opened, and a damaged one is written again. Behind the real
    frames the file has a hole up to the sequence length, which takes no room on disk and reads as zeros, so that the
    padded sequence is handed out without a copy. `applied_operations` are not kept: to invert, read without a cache.

    Args:
        folder: where the files are.
        frames: the transforms from path to padded uint8 frames (1, L, S, S).
        limit: bytes that the folder may take. A file that would go beyond it, or leave less than `DISK_RESERVE` of
            the disk, is not written: that scan is then read each time, and a warning says so once.
    """

    def __init__(self, folder: str | Path, frames: Compose, *, limit: float = float("inf")) -> None:
        self.folder = writable_folder(folder)
        self.frames = frames
        self.limit = limit
        self._settings = transform_key(frames)
        self._files = ScanFiles(self._place, self._open)
        self._verified: set[Path] = set()
        self._full = False

    def load(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """The case with `image` as padded frames (1, L, S, S), from the file, which is written first where needed.

        Raises:
            UserFileError, UserError: the scan is gone or cannot be read.
        """
        place, entry = self._files.find(case)
        if entry is None:
            stamp = stamp_of(Path(case["image"]))
            image: MetaTensor = self.frames(dict(case))["image"]
            if not self._write(place, image, stamp):
                return used_up(case, image)
            entry = self._open(place)
            if entry is None:
                raise UserError(f"{place}: cannot be read back; check the disk, or choose another cache_dir")
        return restored(case, torch.from_numpy(entry.frames)[None], entry.notes)

    def _place(self, digest: str, case: Mapping[str, Any]) -> Path:
        key = json.dumps([digest, self._settings, own_settings(case)], sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.npy"

    def _open(self, place: Path) -> _Entry | None:
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
        return _Entry(frames, notes)

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
        with replacing(place) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": values.shape})
            file.write(real.data)
            file.seek(values.nbytes - real.nbytes, os.SEEK_CUR)  # the hole
            file.write(text + _END.pack(_MAGIC, len(text)))
        return True

    def _has_room(self, wanted: int) -> bool:
        if not self._full:
            used = sum(map(_room, self.folder.glob("*.npy")))
            free = shutil.disk_usage(self.folder).free - DISK_RESERVE
            if used + wanted <= self.limit and wanted <= free:
                return True
            self._full = True
            why = (
                f"its limit is {self.limit / GIB:.3g} GiB" if wanted <= free else f"only {free / GIB:.1f} GiB are left"
            )
            warnings.warn(
                f"frame cache {self.folder} is full ({why}): the other scans are read each time. Empty it, or allow it more "
                f"with cache_limit",
                stacklevel=2,
            )
        return False


def _room(file: Path) -> int:
    """Bytes that a file takes on disk; none when it is gone, as what another process just renamed."""
    try:
        return file.stat().st_blocks * BLOCK
    except FileNotFoundError:
        return 0


class JPGFrames:
    """Real frames as 8-bit JPGs, one folder a patient: `<folder>/<patient>/<scan>_000.jpg`, …

    The layout of the replaced pipeline, for people who want the pictures. JPG is lossy. A scan's `.json` beside its
    pictures is written last and says what they were made from; pictures without it, of another scan or setting, missing
    or damaged ones are made again.

    Args:
        folder: where the patients' folders are.
        frames: the transforms from path to padded uint8 frames (1, L, S, S).
    """

    def __init__(self, folder: str | Path, frames: Compose) -> None:
        self.folder = writable_folder(folder)
        self.frames = frames
        self._settings = transform_key(frames)

    def _key(self, case: Mapping[str, Any]) -> dict[str, Any]:
        stamp = stamp_of(Path(case["image"]))
        return {"settings": self._settings, "own": own_settings(case), "stamp": stamp}

    def note(self, case: Mapping[str, Any]) -> Path:
        """Where the `.json` of a scan is; its pictures lie beside it."""
        name = stem(case["image"])
        return self.folder / str(case.get("patient") or name) / f"{name}.json"

    def load(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """The case with `image` as padded frames (1, L, S, S), from JPGs, which are written first where needed."""
        check_file(Path(case["image"]))
        note, key = self.note(case), self._key(case)
        try:
            found = json.loads(note.read_text())
            frames = _read_pictures(note, found["notes"]) if found["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            frames = None
        if frames is None:
            found = self._write(case, note, key)
            frames = _read_pictures(note, found["notes"])
        return restored(case, torch.from_numpy(frames)[None], found["notes"])

    def _write(self, case: Mapping[str, Any], note: Path, key: dict[str, Any]) -> dict[str, Any]:
        note.unlink(missing_ok=True)
        image: MetaTensor = self.frames(dict(case))["image"]
        count = image.meta["num_frames"]
        for index, frame in enumerate(image[0, :count].numpy()):
            with replacing(_picture(note, index)) as temporary:
                Image.fromarray(frame).save(temporary, format="JPEG", quality=JPG_QUALITY)
        while (picture := _picture(note, count)).exists():  # of a longer scan that was there before
            picture.unlink()
            count += 1
        found = {"key": key, "notes": notes_of(image)}
        with replacing(note) as temporary:
            temporary.write_text(json.dumps(found))
        return found


def _picture(note: Path, index: int) -> Path:
    return note.with_name(f"{note.stem}_{index:03d}.jpg")


def _read_pictures(note: Path, notes: Mapping[str, Any]) -> NDArray[np.uint8]:
    """All pictures of a scan and zeros behind them, (L, S, S)."""
    frames: NDArray[np.uint8] | None = None
    for index in range(notes["num_frames"]):
        with Image.open(_picture(note, index)) as picture:
            values = np.asarray(picture)
        if frames is None:
            frames = np.zeros((len(notes["frame_indices"]), *values.shape), np.uint8)
        frames[index] = values
    if frames is None:
        raise UserError(f"{note}: no frames")
    return frames
