"""The real frames of scans kept as JPGs, for people who want the pictures.

Padding is never kept. JPG is lossy: `frame_cache` keeps the frames as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from numpy.typing import NDArray
from PIL import Image

from monai_chd.data.chain_key import transform_key
from monai_chd.data.scan_files import notes_of, own_settings, restored, stamp_of
from monai_chd.errors import UserError
from monai_chd.files import replacing, writable_folder, write_text
from monai_chd.scans.opening import check_scan_name, scan_stem

JPG_QUALITY = 95


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

    def sidecar(self, case: Mapping[str, Any]) -> Path:
        """Where the `.json` of a scan is; its pictures lie beside it."""
        name = scan_stem(case["image"])
        patient = str(case.get("patient") or name)
        place = self.folder / patient / f"{name}.json"
        if not Path(os.path.abspath(place)).is_relative_to(os.path.abspath(self.folder)):
            raise UserError(
                f"cache: the pictures of patient {patient!r} would lie outside {self.folder}; rename the patient"
            )
        return place

    def load(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """The case with `image` as padded frames (1, L, S, S), from JPGs, which are written first where needed."""
        check_scan_name(Path(case["image"]))
        sidecar, key = self.sidecar(case), self._key(case)
        try:
            found = json.loads(sidecar.read_text())
            frames = _read_jpgs(sidecar, found["notes"]) if found["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            frames = None
        if frames is None:
            found = self._write(case, sidecar, key)
            frames = _read_jpgs(sidecar, found["notes"])
        return restored(case, torch.from_numpy(frames)[None], found["notes"])

    def _write(self, case: Mapping[str, Any], sidecar: Path, key: dict[str, Any]) -> dict[str, Any]:
        sidecar.unlink(missing_ok=True)
        image: MetaTensor = self.frames(dict(case))["image"]
        count = image.meta["num_frames"]
        for index, frame in enumerate(image[0, :count].numpy()):
            with replacing(_jpg_path(sidecar, index), sync=False) as temporary:
                Image.fromarray(frame).save(temporary, format="JPEG", quality=JPG_QUALITY)
        while (picture := _jpg_path(sidecar, count)).exists():  # of a longer scan that was there before
            picture.unlink()
            count += 1
        found = {"key": key, "notes": notes_of(image)}
        write_text(sidecar, json.dumps(found))
        return found


def _jpg_path(sidecar: Path, index: int) -> Path:
    return sidecar.with_name(f"{sidecar.stem}_{index:03d}.jpg")


def _read_jpgs(sidecar: Path, notes: Mapping[str, Any]) -> NDArray[np.uint8]:
    """All pictures of a scan and zeros behind them, (L, S, S)."""
    frames: NDArray[np.uint8] | None = None
    for index in range(notes["num_frames"]):
        with Image.open(_jpg_path(sidecar, index)) as picture:
            values = np.asarray(picture)
        if frames is None:
            frames = np.zeros((len(notes["frame_indices"]), *values.shape), np.uint8)
        frames[index] = values
    if frames is None:
        raise UserError(f"{sidecar}: no frames")
    return frames
