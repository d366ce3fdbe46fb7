"""What the steps from a file to frames share: meta data and history carried along, the dictionary form, settings' checks.

What each step does is in the module of its name.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from torch import Tensor

from monai_chd.errors import UserError

OWN_SETTINGS = ("hu_offset", "cine_slice")
"""Entries of a case that go before a transform's own; it takes them out, since a batch needs equal keys."""


def values_of(img: Tensor) -> Tensor:
    """The values of an image without its meta data."""
    return img.as_tensor() if isinstance(img, MetaTensor) else img


def with_meta(values: Tensor, source: Tensor, affine: np.ndarray | Tensor | None = None) -> MetaTensor:
    """`values` with the meta data and history of `source`, and a new affine when one is given."""
    meta = source.meta if isinstance(source, MetaTensor) else {}
    history = source.applied_operations if isinstance(source, MetaTensor) else []
    out = MetaTensor(values, meta=dict(meta), applied_operations=list(history))
    if affine is not None:
        out.affine = torch.as_tensor(affine, dtype=torch.float64)
    return out


def affine_of(img: Tensor) -> np.ndarray:
    """Affine of an image, (4, 4) float64; identity for a plain tensor."""
    if isinstance(img, MetaTensor):
        return img.affine.cpu().numpy().astype(np.float64)  # type: ignore[no-any-return]
    return np.eye(4)


def whole_number(name: str, value: Any, smallest: int = 1) -> int:
    """The value of a setting that has to be a whole number.

    Raises:
        UserError: it is none, or smaller than `smallest`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise UserError(f"{name}: expected a whole number of {smallest} or more, got {value!r}")
    return value


class InvertibleMap(MapTransform, InvertibleTransform):
    """Applies `self.step` to every key, forth and back."""

    step: Any

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.step(d[key])
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.step.inverse(d[key])
        return d
