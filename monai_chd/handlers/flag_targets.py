"""Diagnosis flags beside the class of a case, as what a network with that second task is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.engines import PrepareBatchExtraInput
from torch import Tensor

from monai_chd.labels import FLAGS


def flag_targets(flags: Sequence[str]) -> Tensor:
    """Flags of each case, such as "VSD+PA", to 0 and 1, float32, (B, flags), in the order of `labels.FLAGS`."""
    return torch.tensor([[float(flag in text.split("+")) for flag in FLAGS] for text in flags])


class PrepareBatchWithFlags(PrepareBatchExtraInput):
    """As MONAI's, and where it is `active` labels become (B, 1 + flags): the class, then the flags.

    Args:
        extra_keys: see MONAI.
        active: whether the network has flags as a second task.
    """

    def __init__(self, extra_keys: Any, active: bool = False) -> None:
        super().__init__(extra_keys)
        self.active = active

    def __call__(self, batchdata: Any, *args: Any, **kwargs: Any) -> Any:
        """The batch for a trainer: image, label, and what else the network takes."""
        image, label, *more = super().__call__(batchdata, *args, **kwargs)
        if self.active:
            label = torch.cat([label[:, None].float(), flag_targets(batchdata["flags"]).to(label.device)], 1)
        return image, label, *more
