"""Frames and label maps of the heart's box, or small ones of the whole frame: what `CroppedStructureNet` is trained on.

Where the box lies and how it is cut out is that network's; here it is found by the label map instead.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.labels import STRUCTURES
from monai_chd.networks.heart_crop import crop, crop_labels, heart_boxes, whole_frames
from monai_chd.transforms.steps import values_of, whole_number, with_meta


class HeartCropd(MapTransform):
    """Cut the heart's box out of frames and their label map: uint8 (1, L, S, S) to (1, L, size, size).

    Args:
        keys: entries of frames.
        label_key: entry of the label map along the same frames.
        size: pixels, in each direction; None: all stays as it is.
        margin: on each side of the structures, as a share of their box; None: the whole frame is made smaller.
    """

    @bare_mistakes()
    def __init__(
        self, keys: KeysCollection, label_key: str = "label", *, size: int | None = None, margin: float | None = None
    ) -> None:
        super().__init__(keys)
        self.label_key = label_key
        self.size = None if size is None else whole_number("crop_size", size, 16)
        if margin is not None and (isinstance(margin, bool) or not 0 <= margin <= 1):
            raise UserError(f"crop_margin: expected a number of 0 to 1, got {margin!r}")
        if margin is not None and size is None:
            raise UserError(f"crop_margin {margin}: expected a crop_size to bring the heart's box to, got none")
        self.margin = margin

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut; the case needs `num_frames`."""
        d = dict(data)
        if self.size is None:
            return d
        labels = values_of(d[self.label_key])
        box = whole_frames(labels[None]) if self.margin is None else self._box(labels, int(d["num_frames"]))
        for key in self.key_iterator(d):
            frames = crop(values_of(d[key])[None], box, self.size)[0]
            d[key] = with_meta((frames * 255).round().to(torch.uint8), d[key])
        d[self.label_key] = with_meta(crop_labels(labels[None], box, self.size)[0], d[self.label_key])
        return d

    def _box(self, labels: torch.Tensor, count: int) -> torch.Tensor:
        drawn = ((labels[0, :count] > 0) & (labels[0, :count] <= len(STRUCTURES))).float().sum(0)  # (S, S)
        pixels = torch.tensor([count * drawn.numel()])
        return heart_boxes(drawn.sum(0)[None], drawn.sum(1)[None], pixels, torch.tensor(float(self.margin or 0)))
