"""Scans to the features of the frozen encoder, on disk: seconds of one patient, or with --full of all.

What is trained on them is the part of `head`.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.child import Side, work_folder
from benchmarks.comparison import Bench, Row
from benchmarks.volumes import PATIENTS, Volumes
from benchmarks.ways import load_frames


def side(paths: Sequence[str], tiny: str, size: int, length: int) -> Side:
    """Scans to features on disk, with the frozen EfficientNet-Lite0; its note is the encoder's precision."""
    import torch
    from monai.transforms import Compose

    from monai_chd.data.feature_cache import FeatureFiles
    from monai_chd.networks import make_encoder
    from monai_chd.networks.encoders import usable_precision

    precision = usable_precision("bfloat16", torch.device("cpu"))
    encoder = make_encoder("efficientnet_lite0", precision)
    chain = Compose([load_frames(size, length)])

    def fill(cases: Sequence[str]) -> str:
        folder = tempfile.mkdtemp(dir=work_folder())  # a new one, so that nothing is there yet
        FeatureFiles(folder, chain, encoder).fill([{"image": case} for case in cases])
        return precision

    return Side(lambda: fill([tiny]), lambda: None, lambda: fill(paths))


def notes(sides: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What all patients would take, where one was measured."""
    if "one patient" in sides:
        seconds = statistics.median(sides["one patient"]["wall"])
        yield f"Extrapolated, not run: {PATIENTS} patients take {seconds * PATIENTS:.0f} s (`--full` runs them)."


def benches(made: Volumes) -> list[Bench]:
    """One patient, or all."""
    number = made.scale.embedded
    patients = "one patient" if number == 1 else f"{number} patients"
    paths = made.several[:1] if number == 1 else made.copies
    given = {"paths": paths, "tiny": made.tiny, "size": 224, "length": made.scale.length}
    what = f"embedding {patients} at 224 with Lite0"
    return [
        Bench(
            "embedding",
            f"{what}, from file to features",
            {patients: ("embedding", given)},
            (Row(what, "seconds", patients),),
            rounds=None if number == 1 else 1,
        )
    ]
