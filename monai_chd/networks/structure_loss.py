"""The loss of the structure network, and what it makes of label maps in which the myocardium was not drawn."""

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

from monai_chd.labels import MYOCARDIUM, UNDRAWN
from monai_chd.networks.sequences import plain_tensor

_NEVER = -1e4
"""Logit of what a label map does not tell apart from background; half precision holds it."""


class StructureLoss(nn.Module):
    """Dice and cross-entropy (MONAI's `DiceCELoss`), where the myocardium is unknown that of background or myocardium together.

    In label maps without myocardium it was not drawn (`labels.UNDRAWN` in their frames): there nobody says whether a pixel
    is background or myocardium, so their probabilities are added, and nothing is learned about either alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, 8, …) and labels (N, 1, …) in 0..8 to a scalar."""
        logits, labels = known_part(logits, plain_tensor(labels))
        loss: Tensor = self.loss(logits, labels)
        return loss


def known_part(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and labels of what the label maps tell: where the myocardium was not drawn, it is background in both."""
    spatial = tuple(range(1, labels.dim()))
    undrawn = (labels == UNDRAWN).any(1, keepdim=True).flatten(1).any(1).reshape(-1, *[1] * len(spatial))  # (N, 1, …)
    either = torch.logsumexp(logits[:, [0, MYOCARDIUM]], 1, keepdim=True)
    channels = torch.arange(logits.shape[1], device=logits.device).reshape(1, -1, *[1] * (logits.dim() - 2))
    merged = torch.where(channels == 0, either, torch.where(channels == MYOCARDIUM, _NEVER, logits))
    return torch.where(undrawn, merged, logits), torch.where(labels == UNDRAWN, 0, labels)
