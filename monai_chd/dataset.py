"""The dataset: cases of a datalist to padded frames, straight from NIfTI, with an optional cache in memory or as JPGs.

What a case goes through is the transform's part; this module owns only where the result is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, Dataset, MetaTensor
from monai.transforms import Compose, Transform
from PIL import Image
from tqdm import tqdm

from monai_chd.errors import user_error
from monai_chd.files import replacing, writable_folder
from monai_chd.reading import check_file, stem
from monai_chd.transforms import OWN_SETTINGS, PadFramesd, ResizeFramesd

CACHES = ("none", "memory", "jpg")
JPG_QUALITY = 95


def _pad_index(transform: Compose) -> int:
    """Where in the chain the real frames are done and padding begins."""
    for index, step in enumerate(transform.transforms):
        if isinstance(step, PadFramesd):
            return index
    raise ValueError("the transform has no PadFramesd step, so there is no sequence of frames to keep")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise the user's mistake itself, not MONAI's RuntimeErrors around it."""
    try:
        yield
    except Exception as error:
        mistake = user_error(error)
        if mistake is None:
            raise
        raise mistake from None


def _used_up(case: dict[str, Any], image: MetaTensor) -> dict[str, Any]:
    """The case after loading: `image` is the picture, its own settings are gone."""
    return {**{name: value for name, value in case.items() if name not in OWN_SETTINGS}, "image": image}


class JPGFrames:
    """Real frames as 8-bit JPGs, one folder a patient: `<folder>/<patient>/<scan>_000.jpg`, …

    The layout of the replaced pipeline, for people who want the pictures. JPG is lossy. A scan's `.json` beside its
    pictures is written last and says what they were made from; pictures without it, of another scan or setting, missing
    or damaged ones are made again.

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

    def _key(self, case: dict[str, Any]) -> dict[str, Any]:
        status = Path(case["image"]).stat()
        own = {name: case[name] for name in OWN_SETTINGS if case.get(name) is not None}
        return {"settings": self.settings, "own": own, "bytes": status.st_size, "modified": status.st_mtime_ns}

    def note(self, case: dict[str, Any]) -> Path:
        """Where the `.json` of a scan is; its pictures lie beside it."""
        name = stem(case["image"])
        return self.folder / str(case.get("patient") or name) / f"{name}.json"

    def load(self, case: dict[str, Any]) -> dict[str, Any]:
        """The case with `image` as uint8 frames (1, T, H, W), from JPGs, which are written first where needed."""
        check_file(Path(case["image"]))
        note, key = self.note(case), self._key(case)
        try:
            found = json.loads(note.read_text())
            frames = _read_pictures(note, found["frames"]) if found["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            frames = None
        if frames is None:
            found = self._write(case, note, key)
            frames = _read_pictures(note, found["frames"])
        original, affine = (torch.tensor(found[name], dtype=torch.float64) for name in ("original_affine", "affine"))
        meta = {"filename_or_obj": str(case["image"]), "original_affine": original, **found["meta"]}
        return _used_up(case, MetaTensor(torch.from_numpy(frames)[None], affine, meta))

    def _write(self, case: dict[str, Any], note: Path, key: dict[str, Any]) -> dict[str, Any]:
        note.unlink(missing_ok=True)
        image: MetaTensor = self.frames(dict(case))["image"]
        for index, frame in enumerate(image[0].numpy()):
            with replacing(_picture(note, index)) as temporary:
                Image.fromarray(frame).save(temporary, format="JPEG", quality=JPG_QUALITY)
        extra = image.shape[1]
        while (picture := _picture(note, extra)).exists():  # of a longer scan that was there before
            picture.unlink()
            extra += 1
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


def _picture(note: Path, index: int) -> Path:
    return note.with_name(f"{note.stem}_{index:03d}.jpg")


def _read_pictures(note: Path, frames: int) -> np.ndarray:
    """All pictures of a scan, (T, H, W) uint8."""
    pictures = []
    for index in range(frames):
        with Image.open(_picture(note, index)) as picture:
            pictures.append(np.asarray(picture))
    return np.stack(pictures)


def _settings(step: Any) -> dict[str, Any]:
    """Public plain attributes of a transform and of what it wraps."""
    values: dict[str, Any] = {}
    for name, value in vars(step).items():
        if isinstance(value, Transform):
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
        skip_unreadable: give a blank frame and say why in `reason` for a file that cannot be read, instead of raising;
            every case then has a `reason`, "" for sound ones.

    Raises:
        ValueError: unknown cache, "jpg" without a folder or with two scans whose pictures would have the same name, or
            (on access; "memory": at once) a file that cannot be read.
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
            with _plain_errors():
                self._memory = CacheDataset(data, transform, copy_cache=False, num_workers=1)
        elif cache == "jpg":
            split = _pad_index(transform)
            self._jpg = JPGFrames(str(cache_dir), Compose(transform.transforms[:split]))
            self._padding = Compose(transform.transforms[split:])
            claimed: dict[Path, str] = {}
            for case in data:
                other = claimed.setdefault(self._jpg.note(case), str(case["image"]))
                if other != str(case["image"]):
                    raise ValueError(
                        f"cache: {case['image']} and {other} are of one patient and have the same file name, so their "
                        f"pictures would replace each other; rename one of the two"
                    )

    def fill(self) -> None:
        """Write every JPG that is missing, with a progress bar."""
        if self._jpg is None:
            raise ValueError("fill: only the 'jpg' cache is kept on disk")
        for case in tqdm(self.data, desc="writing JPGs", unit="scan"):
            with _plain_errors():
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
        return {**Compose(self.transform.transforms[split:])(_used_up(case, image)), "reason": reason}
