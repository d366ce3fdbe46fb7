"""The dataset: cases of a datalist to padded frames, straight from NIfTI, with an optional cache in memory or on disk.

What a case goes through is the transform's part; how they are kept on disk is that of the caches.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset, Dataset, MetaTensor
from monai.transforms import Compose
from tqdm import tqdm

from monai_chd.data.feature_cache import FeatureFiles
from monai_chd.data.frame_cache import GIB, FrameFiles
from monai_chd.data.jpg_cache import JPGFrames
from monai_chd.data.scan_files import with_image
from monai_chd.errors import UserError, bare_mistakes, user_error
from monai_chd.transforms import LoadFramesd, PadFramesd, ResizeFramesd

CACHES = ("none", "memory", "frames", "jpg", "features")


def frames_step(transform: Compose) -> int:
    """How many steps of the chain make padded frames of a path; what follows them is not cached on disk."""
    for index, step in enumerate(transform.transforms):
        if isinstance(step, (LoadFramesd, PadFramesd)):
            return index + 1
    raise UserError(
        "the transform has neither a LoadFramesd nor a PadFramesd step, so there is no sequence of frames to keep"
    )


def _part(chain: Compose, start: int, stop: int | None = None) -> Compose:
    """Some steps of a chain, applied as the chain applies them."""
    steps = chain.transforms[start:stop]
    return Compose(steps, chain.map_items, chain.unpack_items, lazy=chain.lazy, overrides=chain.overrides)


def loader_workers(num_workers: int, cache: str) -> int:
    """Worker processes that are of use: as many as asked for where scans or JPGs are read, none where frames are kept.

    A mapped sequence, or one in memory, is there at once. Handing its 50 MB over from another process takes longer.
    """
    return num_workers if cache in ("none", "jpg") else 0


class FrameDataset(Dataset):
    """MONAI dataset of padded frame sequences.

    Args:
        data: cases, each with `image` (path) and what should travel along (`label`, `patient`, …).
        transform: chain from path to padded frames.
        cache: "none" reads NIfTI each time; "memory" keeps the padded uint8 frames (MONAI's CacheDataset); "frames"
            keeps the real ones in memory-mapped files in `cache_dir`; "jpg" keeps lossy pictures there; "features"
            keeps what a frozen `encoder` says of them there, written at once, and `image` is then (L, F).
        cache_dir: folder for "frames", "jpg" and "features".
        cache_limit: GiB that "frames" may take; None: all but a reserve of the disk.
        encoder: for "features", see `feature_cache.FeatureFiles`.
        skip_unreadable: give a blank frame and say why in `reason` for a file that cannot be read, instead of raising;
            every case then has a `reason`, "" for sound ones.

    Raises:
        UserError: unknown cache, one on disk without a folder, "jpg" with two scans whose pictures would have the same
            name, "features" without a frozen encoder, or (on access; "memory" and "features": at once) a file that cannot
            be read.
    """

    @bare_mistakes()
    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Compose,
        *,
        cache: str = "none",
        cache_dir: str | Path | None = None,
        cache_limit: float | None = None,
        encoder: torch.nn.Module | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        if cache not in CACHES:
            raise UserError(f"cache: expected one of {', '.join(CACHES)}, got {cache!r}")
        if cache in ("frames", "jpg", "features") and not cache_dir:
            raise UserError(f"cache: {cache!r} needs a folder, cache_dir")
        if skip_unreadable and cache != "none":
            raise UserError(f"cache: skip_unreadable works with cache 'none' only, got {cache!r}")
        super().__init__(data, transform)
        self.skip_unreadable = skip_unreadable
        self._memory: CacheDataset | None = None
        self._files: FrameFiles | JPGFrames | FeatureFiles | None = None
        if cache == "memory":
            # nothing after the cache changes frames in place, so they are handed out without a copy
            self._memory = CacheDataset(data, transform, copy_cache=False, num_workers=1)
        elif cache == "features":
            self._files, self._rest = FeatureFiles(str(cache_dir), transform, encoder), Compose([])
            self._files.fill(data)  # at once: a worker process could not use the encoder's GPU
        elif cache != "none":
            split = frames_step(transform)
            frames, self._rest = _part(transform, 0, split), _part(transform, split)
            if cache == "frames":
                limit = float("inf") if cache_limit is None else cache_limit * GIB
                self._files = FrameFiles(str(cache_dir), frames, limit=limit)
            else:
                self._files = JPGFrames(str(cache_dir), frames)
                _check_names(data, self._files)

    def fill(self) -> None:
        """Write what is missing on disk, several scans at once, with a progress bar.

        Raises:
            UserFileError, UserError: not a cache on disk; a scan is gone or cannot be read; no room for all.
        """
        if self._files is None:
            raise UserError("fill: only the caches 'frames', 'jpg' and 'features' are kept on disk")
        if isinstance(self._files, FeatureFiles):
            return  # done already
        with ThreadPoolExecutor(os.cpu_count()) as pool, bare_mistakes():
            work = pool.map(self._keep, self.data)
            try:
                written = sum(tqdm(work, desc="writing frames", unit="scan", total=len(self.data)))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        if isinstance(self._files, FrameFiles) and written < len(self.data):
            raise UserError(f"{written} of {len(self.data)} written: {self._files.full}")

    def _keep(self, case: dict[str, Any]) -> bool:
        """Write a case's file where it is missing; its frames are not handed back, since they would pile up in memory."""
        if isinstance(self._files, FrameFiles):
            return self._files.keep(case)
        assert self._files is not None
        self._files.load(case)
        return True

    def _transform(self, index: int) -> dict[str, Any]:
        case = self.data[index]
        try:
            if self._memory is not None:
                return self._memory[index]  # type: ignore[no-any-return]
            if self._files is not None:
                return self._rest(self._files.load(case))  # type: ignore[no-any-return]
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
        steps = self.transform.transforms
        split = frames_step(self.transform)
        last: Any = steps[split - 1]
        fused = isinstance(last, LoadFramesd)
        resize = last.step.resize if fused else next(step.step for step in steps if isinstance(step, ResizeFramesd))
        pad = last.step.pad if fused else last.step
        meta = {
            "filename_or_obj": str(case["image"]),
            "original_affine": torch.eye(4, dtype=torch.float64),
            "intensity": "none",
            "hu_offset": float("nan"),
        }
        frame = torch.zeros(1, 1, resize.frame_size, resize.frame_size, dtype=torch.uint8)
        image = pad(MetaTensor(frame, torch.eye(4, dtype=torch.float64), meta))
        return {**_part(self.transform, split)(with_image(case, image)), "reason": reason}


def _check_names(data: Sequence[dict[str, Any]], pictures: JPGFrames) -> None:
    """Refuse scans whose pictures would replace each other."""
    claimed: dict[Path, str] = {}
    for case in data:
        other = claimed.setdefault(pictures.sidecar(case), str(case["image"]))
        if other != str(case["image"]):
            raise UserError(
                f"cache: {case['image']} and {other} are of one patient and have the same file name, so their "
                f"pictures would replace each other; rename one of the two"
            )
