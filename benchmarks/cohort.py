"""Peak memory by patients: an epoch must not take more for a larger cohort.

Time is not compared here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.cache import frame_dataset
from benchmarks.child import Side, work_folder
from benchmarks.comparison import Bench, Row
from benchmarks.volumes import PATIENTS, Volumes

COUNTS = (8, 32, PATIENTS)


def side(patients: int, cache: str, paths: Sequence[str], tiny: str, size: int, length: int) -> Side:
    """One epoch over many patients (the same few volumes under many names), batches of one."""
    from monai.data import DataLoader

    names = [work_folder() / f"cohort_{patients}_{cache}" / f"ct_{index}.nii.gz" for index in range(patients)]
    names[0].parent.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        name.symlink_to(Path(paths[index % len(paths)]).resolve())

    def epoch(cases: Sequence[str], own: int) -> None:
        for batch in DataLoader(frame_dataset(cases, own, length, cache), batch_size=1):
            batch["image"].as_tensor().max()

    return Side(lambda: epoch([tiny], 32), lambda: None, lambda: epoch([str(name) for name in names], size))


def benches(made: Volumes) -> list[Bench]:
    """Without a cache and with the frame cache."""
    given = {"paths": made.several, "tiny": made.tiny, "size": 224, "length": made.scale.length}
    words = ", ".join(map(str, COUNTS))
    return [
        Bench(
            "cohort",
            "peak memory by patients, one epoch at 224, without a cache and with the frame cache",
            {
                f"{count} patients, cache {cache}": ("cohort", {"patients": count, "cache": cache, **given})
                for cache in ("none", "frames")
                for count in COUNTS
            },
            tuple(
                Row(
                    f"peak memory over {words} patients, cache {cache}, {of}, largest / smallest",
                    figure,
                    tuple(f"{count} patients, cache {cache}" for count in COUNTS),
                    target=target,
                )
                for cache in ("none", "frames")
                for of, figure, target in (("the process", "flat process", 1.1), ("over the interpreter", "flat", None))
            ),
            rounds=1,
            alone=True,
        )
    ]
