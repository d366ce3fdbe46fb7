"""The dataset: cases of a datalist to padded frames, straight from NIfTI, with an optional cache in memory or as JPGs.

What a case goes through is the transform's part; this module owns only where the result is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, Dataset, MetaTensor
from monai.transforms import Compose
from PIL import Image
from tqdm import tqdm

from monai_chd.errors import user_error
from monai_chd.files import replacing, writable_folder
from monai_chd.reading import stem
from monai_chd.transforms import PadFramesd, ResizeFramesd

CACHES = ("none", "memory", "jpg")
JPG_QUALITY = 95


def _pad_index(transform: Compose) -> int:
    """Where in the chain the real frames are done and padding begins."""
    for index, step in enumerate(transform.transforms):
        if isinstance(step, PadFramesd):
            return index
    raise ValueError("the transform has no PadFramesd step, so there is no sequence of frames to keep")


class JPGFrames:
    """Real frames as 8-bit JPGs, one folder a patient: `<folder>/<patient>/<scan>_000.jpg`, …

    The layout of the replaced pipeline, for people who want the pictures. JPG is lossy. A scan's `.json` beside its pictures is
    written last and says what they were made from; pictures without it, or of another scan or setting, are made again.

    Args:
        folder: where the patients' folders are.
        frames: the transforms from path to real uint8 frames (1, T, H, W).
    """

    def __init__(self, folder: str | Path, frames: Compose) -> None:
        self.folder = writable_folder(folder)
        self.frames = frames
        # a transform's settings are its attributes; together they are the key
        steps = [(type(step).__name__, _settings(step)) for step in frames.transforms]
        self.settings = hashlib.sha256(json.dumps(steps, sort_keys=True, default=str).encode()).hexdigest()

    def _key(self, path: Path) -> dict[str, Any]:
        status = path.stat()
        return {"settings": self.settings, "bytes": status.st_size, "modified": status.st_mtime_ns}

    def load(self, case: dict[str, Any]) -> dict[str, Any]:
        """The case with `image` as uint8 frames (1, T, H, W), from JPGs, which are written first where needed."""
        path = Path(case["image"])
        folder = self.folder / (case.get("patient") or stem(path))
        note = folder / f"{stem(path)}.json"
        key = self._key(path)
        try:
            found = json.loads(note.read_text())
        except (OSError, ValueError):
            found = {}
        if found.get("key") != key:
            found = self._write(case, folder, note, key)
        files = [folder / f"{stem(path)}_{index:03d}.jpg" for index in range(found["frames"])]
        pictures = []
        for file in files:
            with Image.open(file) as picture:
                pictures.append(np.asarray(picture))
        meta = {"filename_or_obj": str(path), "original_affine": torch.tensor(found["original_affine"]), **found["meta"]}
        image = MetaTensor(torch.from_numpy(np.stack(pictures))[None], torch.tensor(found["affine"]), meta)
        return {**{name: value for name, value in case.items() if name != "hu_offset"}, "image": image}

    def _write(self, case: dict[str, Any], folder: Path, note: Path, key: dict[str, Any]) -> dict[str, Any]:
        note.unlink(missing_ok=True)
        image: MetaTensor = self.frames(dict(case))["image"]
        for index, frame in enumerate(image[0].numpy()):
            with replacing(folder / f"{stem(case['image'])}_{index:03d}.jpg") as temporary:
                Image.fromarray(frame).save(temporary, format="JPEG", quality=JPG_QUALITY)
        found = {
            "key": key,
            "frames": image.shape[1],
            "affine": image.affine.tolist(),
            "original_affine": torch.as_tensor(image.meta["original_affine"]).tolist(),
            "meta": {name: image.meta[name] for name in ("intensity", "hu_offset")},
        }
        with replacing(note) as temporary:
            temporary.write_text(json.dumps(found))
        return found


def _settings(step: Any) -> dict[str, Any]:
    """Public plain attributes of a transform and of what it wraps."""
    values = {}
    for name, value in vars(step).items():
        if name in ("step", "load", "ornt_transform"):
            values[name] = _settings(value)
        elif not name.startswith("_") and isinstance(value, (str, int, float, tuple, list, type(None))):
            values[name] = value
    return values


class FrameDataset(Dataset):
    """MONAI dataset of padded frame sequences.

    Args:
        data: cases, each with `image` (path) and what should travel along (`label`, `patient`, …).
        transform: chain from path to padded frames.
        cache: "none" reads NIfTI each time; "memory" keeps the padded uint8 frames (MONAI's CacheDataset); "jpg" keeps
            lossy pictures in `cache_dir`.
        cache_dir: folder for "jpg".
        skip_unreadable: give a blank frame and say why in `reason` for a file that cannot be read, instead of raising; every
            case then has a `reason`, "" for sound ones.

    Raises:
        ValueError: unknown cache, "jpg" without a folder, or (on access) a file that cannot be read.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Compose,
        *,
        cache: str = "none",
        cache_dir: str | Path | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        if cache not in CACHES:
            raise ValueError(f"cache: expected one of {', '.join(CACHES)}, got {cache!r}")
        if cache == "jpg" and not cache_dir:
            raise ValueError("cache: 'jpg' needs a folder, cache_dir")
        if skip_unreadable and cache != "none":
            raise ValueError(f"cache: skip_unreadable works with cache 'none' only, got {cache!r}")
        super().__init__(data, transform)
        self.skip_unreadable = skip_unreadable
        self._memory: CacheDataset | None = None
        self._jpg: JPGFrames | None = None
        if cache == "memory":
            # nothing after the cache changes frames in place, so they are handed out without a copy
            self._memory = CacheDataset(data, transform, copy_cache=False, num_workers=1)
        elif cache == "jpg":
            split = _pad_index(transform)
            self._jpg = JPGFrames(str(cache_dir), Compose(transform.transforms[:split]))
            self._padding = Compose(transform.transforms[split:])

    def fill(self) -> None:
        """Write every JPG that is missing, with a progress bar."""
        if self._jpg is None:
            raise ValueError("fill: only the 'jpg' cache is kept on disk")
        for case in tqdm(self.data, desc="writing JPGs", unit="scan"):
            self._jpg.load(case)

    def _transform(self, index: int) -> dict[str, Any]:
        case = self.data[index]
        try:
            if self._memory is not None:
                return self._memory[index]  # type: ignore[no-any-return]
            if self._jpg is not None:
                return self._padding(self._jpg.load(case))  # type: ignore[no-any-return]
            item = self.transform(case)
        except Exception as error:
            mistake = user_error(error)
            if mistake is None:
                raise
            if not self.skip_unreadable:
                raise mistake from None
            return self._blank(case, str(mistake))
        return {**item, "reason": ""} if self.skip_unreadable else item  # type: ignore[dict-item]

    def _blank(self, case: dict[str, Any], reason: str) -> dict[str, Any]:
        """A case of one black frame that says why it has no picture."""
        split = _pad_index(self.transform)
        size = next(step.step.frame_size for step in self.transform.transforms if isinstance(step, ResizeFramesd))
        meta = {
            "filename_or_obj": str(case["image"]),
            "original_affine": torch.eye(4, dtype=torch.float64),
            "intensity": "none",
            "hu_offset": float("nan"),
        }
        image = MetaTensor(torch.zeros(1, 1, size, size, dtype=torch.uint8), torch.eye(4, dtype=torch.float64), meta)
        item = {**{name: value for name, value in case.items() if name != "hu_offset"}, "image": image}
        return {**Compose(self.transform.transforms[split:])(item), "reason": reason}
