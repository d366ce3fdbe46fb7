"""Brings a sequence of frames to a fixed length: zeros behind the last real frame, or fewer frames.

That padding changes no result is `networks.sequences`' part.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform
from monai.utils import TraceKeys
from torch import Tensor
from torch.nn import functional as F

from monai_chd.errors import UserError
from monai_chd.transforms.steps import InvertibleMap, affine_of, values_of, whole_number, with_meta

SAMPLING = ("even", "first")
SEQUENCE_LENGTH = 200


class PadFrames(InvertibleTransform):
    """Bring a sequence to a fixed length, (C, T, H, W) to (C, L, H, W): zeros after the end, or fewer frames.

    Meta data: `num_frames` (real frames, 1…L) and `frame_indices` (int64, shape (L,): where each frame came from, -1
    for padding).

    Args:
        sequence_length: L.
        sampling: for sequences longer than L. "even" takes L frames evenly from first to last; "first" takes the first
            L and loses the rest, as the replaced pipeline did.
    """

    def __init__(self, sequence_length: int = SEQUENCE_LENGTH, sampling: str = "even") -> None:
        self.sequence_length = whole_number("sequence_length", sequence_length)
        if sampling not in SAMPLING:
            raise UserError(f"sampling: expected one of {', '.join(SAMPLING)}, got {sampling!r}")
        self.sampling = sampling

    def frame_indices(self, total: int) -> Tensor:
        """Which of `total` frames are kept, ascending, int64."""
        length = self.sequence_length
        if total <= length or self.sampling == "first":
            return torch.arange(min(total, length))
        return torch.linspace(0, total - 1, length, dtype=torch.float64).round().to(torch.int64)

    def __call__(self, img: Tensor) -> MetaTensor:
        """Pad or sample.

        Raises:
            UserError: no frame at all.
        """
        total = img.shape[1]
        if total < 1:
            raise UserError(f"PadFrames: expected at least one frame, got shape {tuple(img.shape)}")
        kept = self.frame_indices(total)
        values = values_of(img)
        frames = values if len(kept) == total else values[:, kept]
        missing = self.sequence_length - len(kept)
        if missing:
            frames = F.pad(frames, (0, 0, 0, 0, 0, missing))
        affine = affine_of(img)
        stride = (total - 1) / (len(kept) - 1) if self.sampling == "even" and len(kept) > 1 else 1.0
        out = with_meta(frames, img, affine @ np.diag([stride, 1.0, 1.0, 1.0]))
        out.meta["num_frames"] = len(kept)
        out.meta["frame_indices"] = F.pad(kept, (0, missing), value=-1)
        self.push_transform(  # type: ignore[no-untyped-call]
            out, orig_size=img.shape[1:], extra_info={"kept": kept.tolist(), "affine": affine.tolist()}
        )
        return out

    def inverse(self, data: Tensor) -> MetaTensor:
        """Drop the padding. Frames left out by even sampling repeat the nearest kept one, those after "first" are 0."""
        info = self.pop_transform(data)
        kept = np.asarray(info[TraceKeys.EXTRA_INFO]["kept"])
        total = info[TraceKeys.ORIG_SIZE][0]
        values = values_of(data)
        source = np.abs(np.arange(total)[:, None] - kept[None]).argmin(1)
        frames = values[:, source]
        if self.sampling == "first":
            frames[:, len(kept) :] = 0
        return with_meta(frames, data, np.asarray(info[TraceKeys.EXTRA_INFO]["affine"]))


class PadFramesd(InvertibleMap):
    """Dictionary form of `PadFrames`; also adds `num_frames` (int) to the case, for the network."""

    def __init__(
        self,
        keys: KeysCollection,
        sequence_length: int = SEQUENCE_LENGTH,
        sampling: str = "even",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.step = PadFrames(sequence_length, sampling)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = super().__call__(data)
        for key in self.key_iterator(d):
            d["num_frames"] = d[key].meta["num_frames"]
        return d
