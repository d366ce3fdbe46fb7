"""Epochs through a DataLoader without and with workers, reading and training, for each cache.

Whether a cache is faster than another is the part of `cache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.cache import frame_dataset
from benchmarks.child import Side
from benchmarks.comparison import Bench, Row
from benchmarks.volumes import Volumes


class _Epoch(NamedTuple):
    """What an epoch does, and the target of the row that compares workers with none."""

    what: str
    train: bool
    cache: str
    cases: int
    target: float | None

    @property
    def size(self) -> int:
        """Pixels of a frame."""
        return 224 if self.train else 512


EPOCHS = (
    _Epoch("reading 4 cases without a cache at 512", False, "none", 4, 1.0),
    _Epoch("reading 4 cases of the JPG cache at 512", False, "jpg", 4, 1.0),
    _Epoch("training the small CNN-LSTM on 4 cases without a cache at 224", True, "none", 4, 1.0),
    _Epoch("reading 16 cases of the frame cache at 512 (the bundle starts none)", False, "frames", 16, None),
    _Epoch("training the small CNN-LSTM on 4 cases of the frame cache at 224 (the bundle starts none)", True, "frames", 4, None),
)  # fmt: skip


def side(workers: int, train: bool, cache: str, paths: Sequence[str], tiny: str, size: int, length: int) -> Side:
    """An epoch through the bundle's kind of DataLoader: up to the float32 chunks that an encoder takes, or with its step."""
    import torch
    from monai.data import DataLoader

    from monai_chd.networks import CNNLSTM
    from monai_chd.networks.encoders import to_unit_range

    network = CNNLSTM().train()

    def epoch(found: Any) -> None:
        for batch in DataLoader(found, batch_size=1, num_workers=workers):
            frames = batch["image"].as_tensor()
            if train:
                network(frames, torch.as_tensor(batch["num_frames"])).sum().backward()
            else:
                for chunk in frames.split(network.encoder.frames_at_once(size, size), dim=2):
                    to_unit_range(chunk)

    whole, first = frame_dataset(paths, size, length, cache), frame_dataset([tiny], 32, length, cache)
    return Side(lambda: epoch(first), lambda: epoch(whole), lambda: epoch(whole))


def benches(made: Volumes) -> list[Bench]:
    """Each epoch without workers and with two."""
    several = made.several

    def given(epoch: _Epoch, workers: int) -> dict[str, Any]:
        return {
            "workers": workers,
            "train": epoch.train,
            "cache": epoch.cache,
            "paths": [several[index % len(several)] for index in range(epoch.cases)],
            "tiny": made.tiny,
            "size": epoch.size,
            "length": made.scale.length,
        }

    return [
        Bench(
            "workers",
            "epochs through a DataLoader whose workers start anew each epoch, as the bundle's do; reading goes up to the "
            "float32 chunks that an encoder takes",
            {
                f"{epoch.what}, {count} workers": ("workers", given(epoch, count))
                for epoch in EPOCHS
                for count in (0, 2)
            },
            tuple(
                Row(
                    f"{epoch.what}, no workers / two workers",
                    "time",
                    f"{epoch.what}, 2 workers",
                    f"{epoch.what}, 0 workers",
                    epoch.target,
                )
                for epoch in EPOCHS
            ),
        )
    ]
