"""Whether the ways give the same numbers: the largest differences between them, on a phantom and on a real scan.

Nothing is timed here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.child import MissingError, Side
from benchmarks.replaced import jpg_frames
from benchmarks.volumes import REAL_SCAN, STORED_OFFSET
from benchmarks.ways import (
    WINDOW,
    load_frames,
    monai_stock,
    ours_float32,
    ours_uint8,
    single_transforms,
    torchio_same,
    torchio_stock,
)

ROUNDED_FRAMES = 16
"""Frames that show what bfloat16 changes: emulated, it is slow."""


def side(volume: str, sizes: Sequence[int], length: int, *, rounded: bool) -> Side:
    """Differences between the ways, as a note.

    Args:
        volume: a phantom.
        sizes, length: of the frames.
        rounded: whether bfloat16 is compared with float32 as well.
    """

    def call() -> list[dict[str, Any]]:
        found = []
        for name, path, offset in (("phantom", volume, STORED_OFFSET), ("real scan", str(REAL_SCAN), 0.0)):
            for size in sizes:
                about = {"scan": name, "size": size}
                found += [{**about, **row} for row in differences(path, size, length, offset)]
                if name == "phantom":  # what is not square, JPG stretches
                    found.append({**about, **jpg_difference(path, size, length, offset)})
        encoders = ("resnet18", "efficientnet_lite0") if rounded else ()
        about = {"scan": "phantom", "size": sizes[-1]}
        return [*found, *({**about, **rounding(volume, sizes[-1], encoder)} for encoder in encoders)]

    return Side(lambda: None, lambda: None, call)


def wrong(found: Mapping[str, Any]) -> bool:
    """Whether a difference must not be: ours is to give the very numbers of the single transforms."""
    return "single transforms" in found["ours against"] and found["largest"] != 0


def differences(path: str, size: int, length: int, offset: float) -> Iterator[dict[str, Any]]:
    """Ours against every way that is to give the same frames, or nearly; a way that is not installed is left out."""

    def of_window(against: str, way: Callable[[], Any]) -> dict[str, Any]:
        return _row(against, _largest(ours, way()), "of the window")

    where = (path, size, length, offset)
    single = single_transforms(path, size, length, quantize=True)()
    yield _row("the single transforms, uint8", _largest(ours_uint8(*where)(), single), "grey levels of 255")
    ours = ours_float32(*where)()
    yield of_window("the single transforms, float32", single_transforms(path, size, length, quantize=False))
    yield of_window("MONAI stock, float32", monai_stock(*where))
    with contextlib.suppress(MissingError):
        yield of_window("TorchIO made to give our frames", torchio_same(*where))
        yield of_window("TorchIO stock, which samples between slices", torchio_stock(*where))


def jpg_difference(path: str, size: int, length: int, offset: float) -> dict[str, Any]:
    """Ours against the JPGs, which are brought to HU and windowed for that."""
    low, high = _stored_range(path)
    pictures = jpg_frames(path, size, length, offset)() * (high - low) + low + offset  # (1, L, X, Y), back to HU
    lower, upper = WINDOW
    windowed = ((pictures - lower) / (upper - lower)).clamp(0, 1).transpose(2, 3).flip(2, 3)
    ours = load_frames(size, length, quantize=False, sampling="first")({"image": path})["image"]
    real = int(ours.meta["num_frames"])
    largest = _largest(ours[:, :real], windowed[:, :real])
    return _row("JPG, its frames brought to HU and windowed", largest, "of the window")


def rounding(path: str, size: int, encoder: str) -> dict[str, Any]:
    """What bfloat16 in the encoder changes, worked out slowly where the processor lacks it: the numbers are the same."""
    import torch

    from monai_chd.networks import CNNLSTM

    torch.manual_seed(0)
    model = CNNLSTM(encoder).eval()
    model.encoder.trainable = True  # a frozen encoder does not follow the autocast around it
    frames = ours_uint8(path, size, ROUNDED_FRAMES, STORED_OFFSET)().as_tensor()[None]
    count = torch.tensor([ROUNDED_FRAMES])

    def probabilities(precision: torch.dtype) -> Any:
        with torch.no_grad():
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                features = model.encoder(frames, count).float()
            return model.classifier(model.pooling(model.lstm(features, count), count)).softmax(1)

    largest = _largest(probabilities(torch.bfloat16), probabilities(torch.float32))
    return _row(f"{encoder} in bfloat16 ({ROUNDED_FRAMES} frames)", largest, "of a probability")


def _row(against: str, largest: float, unit: str) -> dict[str, Any]:
    return {"ours against": against, "largest": largest, "unit": unit}


def _largest(first: Any, second: Any) -> float:
    import torch

    return float((first.as_subclass(torch.Tensor).double() - second.as_subclass(torch.Tensor).double()).abs().max())


def _stored_range(path: str) -> tuple[float, float]:
    import nibabel as nib
    import numpy as np

    image: Any = nib.load(path)
    values = np.asanyarray(image.dataobj)
    return float(values.min()), float(values.max())
