"""Diagnosis flags as a second task of a classifier: how much each counts, which were learned, and what class they make.

How flags make a class is `cohort.rules`' part, which heads score them `networks.CNNLSTM`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_chd.cohort.datalist import read_datalist
from monai_chd.cohort.rules import DEFAULT, RULES, load_rule
from monai_chd.errors import UserError, bare_mistakes
from monai_chd.labels import FLAGS, UNSEEN_IN_LABEL_MAPS
from monai_chd.networks import CNNLSTM
from monai_chd.workflow.structures import ENCODERS_OF_STRUCTURES

FEWEST = 5
"""Training cases with a flag, at least, for it to be learned."""

LESS = 0.5
"""Weight of a flag that label maps cannot show, for a classifier that reads structures alone."""


@bare_mistakes()
def flag_weights(cases: Sequence[Mapping[str, Any]], weight: float, encoder: Any) -> Tensor | None:
    """Weights of the flags in the loss, (flags,), 0 for those that too few cases have; None when flags are no task.

    Args:
        cases: of the training, `flags` such as "VSD+PA".
        weight: of the second task, of each flag; 0: none.
        encoder: of the classifier, by name.

    Raises:
        UserError: a weight below 0, or no flag that enough cases have.
    """
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight >= 0:
        raise UserError(f"flag_weight: expected a number of 0 or more, got {weight!r}")
    if weight == 0:
        return None
    counts = Counter(flag for case in cases for flag in str(case["flags"]).split("+"))
    learned = [flag for flag in FLAGS if FEWEST <= counts[flag] <= len(cases) - FEWEST]
    if not learned:
        raise UserError(
            f"flag_weight {weight}: no diagnosis flag stands with {FEWEST} training cases or more, so there is none to learn; "
            f"leave it out"
        )
    less = UNSEEN_IN_LABEL_MAPS if encoder in ENCODERS_OF_STRUCTURES else ()
    return torch.tensor([weight * (LESS if flag in less else 1) * (flag in learned) for flag in FLAGS])


def note_learned_flags(network: nn.Module, weights: Tensor | None) -> None:
    """Keep with the network which flags it learns, so that no other is ever told."""
    if weights is not None and isinstance(network, CNNLSTM) and network.flags:
        torch.as_tensor(network.learned_flags).copy_(weights > 0)


def class_by_flags(datalist: str | Path | None = None) -> Callable[[Iterable[str]], str | None]:
    """What makes a class of flags: the rule that a datalist was made with, or the default one.

    Args:
        datalist: None: nothing is known of it. A rule that does not come with the package makes no class.
    """
    name = DEFAULT
    if datalist is not None and Path(datalist).is_file():
        name = (read_datalist(datalist).get("rule") or {}).get("name", "")
    if name not in RULES.names:
        return lambda flags: None
    rule = load_rule(name)
    return lambda flags: rule.deciding_step(flags).label
