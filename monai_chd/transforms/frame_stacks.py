"""Draws single frames with their neighbours out of a sequence, for networks that learn from frames and not from cases."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import ensure_tuple

from monai_chd.errors import bare_mistakes
from monai_chd.transforms.steps import values_of, whole_number


class RandFrameStacksd(MapTransform, Randomizable):
    """Draw real frames of a case, each with its neighbours as channels: a list of cases, as MONAI's samplers give.

    Of `keys`, (1, L, S, S), a frame becomes (2 * context + 1, S, S), uint8 in 0…255 as float32 in [0, 1]; beyond the first and
    last real frame these stand for their neighbours, as in `networks.StructureNet`. Of `label_keys` it is the frame alone,
    (1, S, S).

    Args:
        keys: entries of frames.
        label_keys: entries of frames of label maps.
        context: neighbours on each side.
        num_samples: frames drawn of a case; no frame twice unless it has fewer.
    """

    @bare_mistakes()
    def __init__(
        self, keys: KeysCollection, label_keys: KeysCollection, *, context: int = 2, num_samples: int = 4
    ) -> None:
        super().__init__(keys)
        self.label_keys = ensure_tuple(label_keys)
        self.context = whole_number("context", context, 0)
        self.num_samples = whole_number("num_samples", num_samples)

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Draw frames; the case needs `num_frames`."""
        count = int(data["num_frames"])
        drawn = self.R.choice(count, self.num_samples, replace=count < self.num_samples)
        return [self._stack(data, int(frame), count) for frame in drawn]

    def _stack(self, data: Mapping[Hashable, Any], frame: int, count: int) -> dict[Hashable, Any]:
        around = torch.arange(frame - self.context, frame + self.context + 1).clamp(0, count - 1)
        stack: dict[Hashable, Any] = {}
        for key in self.keys:
            frames = values_of(data[key])[0, around]
            stack[key] = frames.float() / 255 if frames.dtype == torch.uint8 else frames
        for key in self.label_keys:
            stack[key] = values_of(data[key])[:, frame]
        return stack
