"""What the caches on disk share: which kept file belongs to which scan and settings, and what is noted beside its values.

What is kept in the files, and how, is the part of `frame_cache`, `jpg_cache` and `feature_cache`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_chd.scans.opening import check_scan, check_scan_name, scan_digest
from monai_chd.transforms.steps import OWN_SETTINGS

_FLAGS = ("intensity", "hu_offset", "num_frames")
_TENSORS = ("original_affine", "frame_indices")


class CacheEntry(Protocol):
    """An entry of a cache."""

    @property
    def notes(self) -> dict[str, Any]:
        """What is known of it, `stamp` of its scan among it."""


Entry = TypeVar("Entry", bound=CacheEntry)


def own_settings(case: Mapping[str, Any]) -> dict[str, Any]:
    """What a case asks for itself, before the transforms' settings."""
    return {name: case[name] for name in OWN_SETTINGS if case.get(name) is not None}


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
            UserFileError, UserError: see `scans.opening.check_scan`.
        """
        path = Path(case["image"])
        check_scan_name(path)  # of a scan that is kept nothing else can have changed while its stamp has not
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
            check_scan(path)
            self._digests[key] = scan_digest(path)
        return self._digests[key]


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
    return with_image(case, MetaTensor(values, affine, meta))


def with_image(case: Mapping[str, Any], image: MetaTensor) -> dict[str, Any]:
    """The case after loading: `image` is the frames, `num_frames` their number; its own settings are gone."""
    rest = {name: value for name, value in case.items() if name not in OWN_SETTINGS}
    return {**rest, "image": image, "num_frames": image.meta["num_frames"]}
