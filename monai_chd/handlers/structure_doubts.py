"""What in the structures of a case speaks against answering: no heart, one that lacks what all others have, none with contrast.

Owns the rules and their thresholds. What a structure network sees is `networks.structure_encoder`'s; where a reason is written
is `predictions`' part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monai_chd.handlers.module_listener import ModuleListener
from monai_chd.labels import STRUCTURES
from monai_chd.networks import StructureEncoder
from monai_chd.networks.sequences import Standardization
from monai_chd.networks.structure_encoder import PER_CASE, PER_FRAME

ABSENT = -4.0
"""Deviations of the training cases by which a volume lies below their mean: nothing of that structure is there. One that lacks in
some of the training, such as the pulmonary artery in atresia, deviates much and is no reason."""

NO_HEART = 4
"""Absent structures from which on there is no heart rather than a heart without them."""

APART = 0.01
"""Contact of aorta and ventricles, in units of the heart's size, below which they do not touch; it is some 0.3 in a heart."""

PLAIN_BLOOD = 120.0
"""HU that blood reaches with a contrast agent at least: without one it has 30 to 60, and 200 are asked for in CT angiography."""

BLOOD = ("LV", "RV", "LA", "RA", "Ao", "PA")


class Doubt(NamedTuple):
    """Of one case: how far its structures are from those of the training (root mean square of their deviations), and a reason."""

    distance: float
    reason: str


class StructureDoubts(ModuleListener):
    """Looks at the descriptors that a classifier makes of structures, wherever its predictions are made.

    Put it before `Predictions`. Networks that know no structures have no doubts.

    Args:
        network: the classifier; it needs a structure encoder with the descriptors of the whole case, and a standardization.
        window: HU of the intensities 0 and 1.
    """

    def __init__(self, network: nn.Module, window: Sequence[float]) -> None:
        encoder, step = getattr(network, "encoder", None), getattr(network, "standardization", None)
        known = isinstance(encoder, StructureEncoder) and encoder.volume
        super().__init__(step if known and isinstance(step, Standardization) else None)
        self.window = (float(window[0]), float(window[1]))
        self.last: list[Doubt] = []

    def hear(self, given: Tensor, made: Tensor) -> None:
        """Descriptors, and their deviations from the training's, each (B, T, F)."""
        pairs = zip(given.double().cpu(), made.double().cpu(), strict=True)
        self.last = [self.doubt(features, deviations) for features, deviations in pairs]

    def doubt(self, features: Tensor, deviations: Tensor) -> Doubt:
        """Of the descriptors of a case, (T, F), in which padding is zero, and of their deviations from the training's."""
        whole = dict(zip(PER_CASE, features[0, len(PER_FRAME) :].tolist(), strict=True))
        away = dict(zip(PER_CASE, deviations[0, len(PER_FRAME) :].tolist(), strict=True))
        distance = float(deviations[0, len(PER_FRAME) :].square().mean().sqrt())
        absent = [name for name in STRUCTURES if away[f"volume {name}"] < ABSENT]
        reason = ""
        if len(absent) >= NO_HEART:
            reason = "no heart is found"
        elif absent:
            reason = f"not found, which all hearts of the training have: {', '.join(absent)}"
        elif _touching(whole) < APART:
            reason = "the aorta that is found touches no ventricle"
        elif (blood := self._blood(features)) < PLAIN_BLOOD:
            reason = f"no contrast agent: blood of at most {blood:.0f} HU"
        return Doubt(distance, reason)

    def _blood(self, features: Tensor) -> float:
        """HU of the brightest chamber or vessel, the mean over all its pixels."""
        named = dict(zip(PER_FRAME, features[:, : len(PER_FRAME)].T, strict=True))
        low, high = self.window
        found = [low]
        for name in BLOOD:
            area = named[f"area {name}"].square()  # of which the root is kept
            if area.max() > 1e-3:
                mean = float((area * named[f"intensity {name}"]).sum() / area.sum())
                found.append(low + mean * (high - low))
        return max(found)


def _touching(whole: Mapping[str, Any]) -> float:
    """Contact of the aorta with both ventricles."""
    contacts = torch.tensor([whole["contact LV-Ao"], whole["contact RV-Ao"]], dtype=torch.float64).exp() - 1e-3
    return float(contacts.clamp_min(0).sum())
