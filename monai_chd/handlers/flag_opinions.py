"""A second opinion on each case: its diagnosis flags by the network's second task, and the class that they make by a rule.

What makes a class of flags is given; how the network learns them is `networks.CNNLSTM`'s part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from monai_chd.handlers.module_listener import ModuleListener
from monai_chd.labels import FLAGS
from monai_chd.networks import CNNLSTM

PRESENT = 0.5
"""Probability from which on a flag counts as present."""


class Opinion(NamedTuple):
    """Of one case: probability of each flag that was learned, and the class they make; "" where they make none."""

    flags: dict[str, float]
    label: str


class FlagOpinions(ModuleListener):
    """Listens to what a network says of flags, wherever its predictions are made; networks without flags have no opinion.

    Put it before `Predictions`.

    Args:
        network: the classifier.
        derive: makes a class of flags, or None of those that leave it open.
        abstain: whether a case is abstained from when its flags make another class than the most probable one.
    """

    def __init__(
        self, network: nn.Module, derive: Callable[[Iterable[str]], str | None], *, abstain: bool = False
    ) -> None:
        self.network = network if isinstance(network, CNNLSTM) and network.flags else None
        super().__init__(self.network.flag_probabilities if self.network else None)
        self.derive = derive
        self.abstain = abstain
        self.last: list[Opinion] = []

    def hear(self, given: Tensor, made: Tensor) -> None:
        """Probabilities of the flags, (B, flags)."""
        assert self.network is not None
        learned = torch.as_tensor(self.network.learned_flags).tolist()
        self.last = []
        for case in made.cpu().tolist():
            flags = {flag: p for flag, p, known in zip(FLAGS, case, learned, strict=True) if known}
            self.last.append(Opinion(flags, self.derive(flag for flag, p in flags.items() if p >= PRESENT) or ""))

    def reason(self, opinion: Opinion, prediction: str) -> str:
        """Why a case is abstained from for its flags; empty when it is not."""
        if not self.abstain or not opinion.label or opinion.label == prediction:
            return ""
        present = [flag for flag, p in opinion.flags.items() if p >= PRESENT]
        return f"{prediction} by its class, {opinion.label} by its diagnoses ({'+'.join(present) or 'none'})"
