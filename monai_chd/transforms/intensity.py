"""Intensity of frames: the HU window that becomes [0, 1], and the 256 steps it is rounded to.

Which values are HU is `load_volume`'s part.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Transform
from torch import Tensor

from monai_chd.errors import UserError
from monai_chd.transforms.steps import InvertibleMap, values_of, with_meta

WINDOW = (-200.0, 900.0)
"""HU that become 0 and 1 unless told otherwise."""


class WindowHU(Transform):
    """Clip to a window and scale it to [0, 1].

    A cine in arbitrary units (`intensity` in its meta data) has no HU to window: its 1st and 99th percentiles become 0
    and 1.

    Args:
        window: lower and upper HU.
    """

    def __init__(self, window: Sequence[float] = WINDOW) -> None:
        numbers = isinstance(window, (list, tuple)) and all(isinstance(value, (int, float)) for value in window)
        if not numbers or len(window) != 2 or not -math.inf < float(window[0]) < float(window[1]) < math.inf:
            raise UserError(f"window: expected [lower, upper] in HU with lower < upper, got {window!r}")
        self.window = (float(window[0]), float(window[1]))

    def __call__(self, img: Tensor) -> MetaTensor:
        """Window an image of any shape; float32 in [0, 1] comes out."""
        values = values_of(img).to(torch.float32)
        lower, upper = self.window
        if isinstance(img, MetaTensor) and img.meta.get("intensity") == "arbitrary":
            low, high = np.percentile(values.cpu().numpy(), (1, 99))
            lower, upper = float(low), float(high) if high > low else float(low) + 1.0
        return with_meta(values.sub(lower).div_(upper - lower).clamp_(0, 1), img)


class QuantizeFrames(InvertibleTransform):
    """Round [0, 1] to 8 bits, float to uint8 0…255; the network scales back.

    Every cache and every reading path shares this step, so they give the same numbers, in a quarter of the memory.
    """

    def __call__(self, img: Tensor) -> MetaTensor:
        """Quantise frames in [0, 1] of any shape."""
        values = values_of(img)
        out = with_meta(values.mul(255).round_().to(torch.uint8), img)
        self.push_transform(out)  # type: ignore[no-untyped-call]
        return out

    def inverse(self, data: Tensor) -> MetaTensor:
        """Back to float32; what was made in frame space after quantisation (a map) is left as it is."""
        self.pop_transform(data)
        values = values_of(data)
        return with_meta(values.div(255) if values.dtype == torch.uint8 else values, data)


class WindowHUd(MapTransform):
    """Dictionary form of `WindowHU`."""

    def __init__(
        self, keys: KeysCollection, window: Sequence[float] = WINDOW, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.step = WindowHU(window)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Window each image."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.step(d[key])
        return d


class QuantizeFramesd(InvertibleMap):
    """Dictionary form of `QuantizeFrames`."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.step = QuantizeFrames()
