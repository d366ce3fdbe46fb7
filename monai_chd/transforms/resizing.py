"""Resizes frames to a square; the shorter side is padded.

That a sequence is padded to a fixed number of frames is `padding`'s part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform
from monai.utils import TraceKeys
from torch import Tensor
from torch.nn import functional as F

from monai_chd.transforms.steps import InvertibleMap, affine_of, values_of, whole_number, with_meta

FRAME_SIZE = 512


class ResizeFrames(InvertibleTransform):
    """Resize every frame to a square, keeping its aspect ratio, (C, T, H, W) to (C, T, S, S).

    The longer side becomes S; the shorter one is padded with zeros (the window's lower end) on both sides. Shrinking
    averages areas, so that thin walls do not vanish; enlarging is bilinear. Frames are never mixed with each other.

    Args:
        frame_size: S in pixels.
        nearest: take the nearest pixel instead, for label maps, whose numbers have no mean.
    """

    def __init__(self, frame_size: int = FRAME_SIZE, *, nearest: bool = False) -> None:
        self.frame_size = whole_number("frame_size", frame_size, 8)
        self.nearest = nearest

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Where the picture lies in the square: top, left, height, width."""
        scale = self.frame_size / max(height, width)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        return (self.frame_size - size[0]) // 2, (self.frame_size - size[1]) // 2, *size

    def __call__(self, img: Tensor) -> MetaTensor:
        """Resize frames in [0, 1] or, by the nearest pixel, of any numbers."""
        values = values_of(img)
        height, width = values.shape[2:]
        top, left, *size = self.box(height, width)
        if size != [height, width]:
            values = interpolate(values, size, nearest=self.nearest)
        if size != [self.frame_size, self.frame_size]:
            values = F.pad(values, (left, self.frame_size - size[1] - left, top, self.frame_size - size[0] - top))
        affine = affine_of(img)
        ratio = np.diag([1.0, height / size[0], width / size[1], 1.0])
        # pixel (h, w) of the result looks at the centre of the pixels it averages
        ratio[1, 3] = (0.5 - top) * ratio[1, 1] - 0.5
        ratio[2, 3] = (0.5 - left) * ratio[2, 2] - 0.5
        out = with_meta(values, img, affine @ ratio)
        self.push_transform(  # type: ignore[no-untyped-call]
            out, orig_size=img.shape[1:], extra_info={"box": [top, left, *size], "affine": affine.tolist()}
        )
        return out

    def inverse(self, data: Tensor) -> MetaTensor:
        """Cut the padding away and resize back, for pictures and maps made in frame space."""
        info = self.pop_transform(data)
        top, left, height, width = info[TraceKeys.EXTRA_INFO]["box"]
        original = tuple(info[TraceKeys.ORIG_SIZE])[-2:]
        values = values_of(data)
        values = values[..., top : top + height, left : left + width]
        if not self.nearest:
            values = values.to(torch.float32)
        if original != (height, width):
            values = interpolate(values, original, nearest=self.nearest)
        return with_meta(values, data, np.asarray(info[TraceKeys.EXTRA_INFO]["affine"]))


def interpolate(frames: Tensor, size: Sequence[int], *, nearest: bool = False) -> Tensor:
    """Resize (C, T, H, W) in its last two axes."""
    flat = frames.reshape(-1, 1, *frames.shape[2:])
    if nearest:
        return F.interpolate(flat, list(size), mode="nearest-exact").reshape(*frames.shape[:2], *size)
    shrinks = size[0] * size[1] < frames.shape[2] * frames.shape[3]
    resized = (
        F.interpolate(flat, list(size), mode="area")
        if shrinks
        else F.interpolate(flat, list(size), mode="bilinear", align_corners=False)
    )
    return resized.reshape(*frames.shape[:2], *size)


class ResizeFramesd(InvertibleMap):
    """Dictionary form of `ResizeFrames`."""

    def __init__(self, keys: KeysCollection, frame_size: int = FRAME_SIZE, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.step = ResizeFrames(frame_size)
