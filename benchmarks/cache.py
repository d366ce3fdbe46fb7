"""An epoch over scans that are cached already: our frame cache against the replaced pipeline's JPGs.

Caches behind a DataLoader with workers are the part of `workers`, memory by patients that of `cohort`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from benchmarks.child import Side, work_folder
from benchmarks.comparison import Bench, Row
from benchmarks.replaced import read_jpgs, write_jpgs
from benchmarks.volumes import FULL, Volumes
from benchmarks.ways import load_frames

WAYS = ("frames, float32", "frames, uint8 handed over", "frames, batch", "JPG cache")


def frame_dataset(paths: Sequence[str], size: int, length: int, cache: str = "frames") -> Any:
    """The bundle's dataset of these scans; all sides of a bench share what it keeps."""
    from monai.transforms import Compose

    from monai_chd.data import FrameDataset

    cases = [{"image": path, "label": 0, "patient": str(index)} for index, path in enumerate(paths)]
    folder = work_folder() / f"frames_{size}_{length}"
    chain = Compose([load_frames(size, length)])
    return FrameDataset(cases, chain, cache=cache, cache_dir=None if cache == "none" else folder)


def side(how: str, paths: Sequence[str], tiny: str, size: int, length: int) -> Side:
    """An epoch over scans that are cached already."""
    if how == "JPG cache":
        return _jpg_epoch(paths, tiny, size, length)
    from monai.data import DataLoader

    def epoch(found: Any) -> None:
        if how == "frames, batch":
            for batch in DataLoader(found, batch_size=1):
                assert batch["image"].dtype.itemsize == 1
            return
        for index in range(len(found)):
            frames = found[index]["image"].as_tensor()
            if how == "frames, float32":
                frames.float().div_(255)
            else:  # as it is handed over: mapped, every page of it there
                frames.numpy().reshape(-1)[:: os.sysconf("SC_PAGE_SIZE")].max()

    whole = frame_dataset(paths, size, length)
    return Side(lambda: epoch(frame_dataset([tiny], 32, length)), lambda: epoch(whole), lambda: epoch(whole))


def _jpg_epoch(paths: Sequence[str], tiny: str, size: int, length: int) -> Side:
    work = work_folder()
    folders = [work / f"jpg_{size}" / str(index) for index, _ in enumerate(paths)]

    def warm() -> None:
        write_jpgs(tiny, work / "jpg_tiny", 32)
        read_jpgs(work / "jpg_tiny", 32, length)

    def epoch() -> None:
        for folder in folders:
            read_jpgs(folder, size, length)

    def ready() -> None:
        for path, folder in zip(paths, folders, strict=True):
            write_jpgs(path, folder, size)
        epoch()

    return Side(warm, ready, epoch)


def benches(made: Volumes) -> list[Bench]:
    """At both sizes of frames."""
    several = made.several
    paths = [several[index % len(several)] for index in range(FULL.volumes)]
    return [_at_size(made, paths, size) for size in (512, 224)]


def _at_size(made: Volumes, paths: list[str], size: int) -> Bench:
    given = {"paths": paths, "tiny": made.tiny, "size": size, "length": made.scale.length}
    float32, uint8, batch, jpg = WAYS
    epoch = f"cached epoch at {size}"
    return Bench(
        f"cache_{size}",
        f"cached epoch of {len(paths)} cases at {size}",
        {how: ("cache", {"how": how, **given}) for how in WAYS},
        (
            Row(f"{epoch} as float32, JPG cache / frame cache", "time", float32, jpg, {512: 4, 224: 8}[size]),
            Row(f"{epoch}, uint8 handed over, JPG cache / frame cache", "time", uint8, jpg, 40),
            Row(f"{epoch}, uint8 copied into a DataLoader's batch, JPG cache / frame cache", "time", batch, jpg),
        ),
        quick=(float32, uint8, jpg),
    )
