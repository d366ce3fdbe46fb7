"""The three classes, the diagnosis flags of ImageCHD, and the rule that turns flags into a class.

Owns the only list of classes in the project. What flags mean stands in data files (`cohort/rule_files`), which `rules` checks;
workbooks are `tables`' part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from monai_chd.errors import UserError

CLASSES = ("Cyanotic", "Non-Cyanotic", "Normal")
"""Class names; the position is the label, the logit and the probability column everywhere."""

CYANOTIC, NON_CYANOTIC, NORMAL = CLASSES

FLAGS = (
    "ASD", "VSD", "AVSD", "ToF", "TGA", "DORV", "CAT", "CA", "AAH", "DAA", "IAA", "PA", "APVC", "DSVC", "PDA", "PAS",
)  # fmt: skip
"""Diagnosis columns of `imageCHD_dataset_info.xlsx`, in its order. CA is coarctation of the aorta, PA pulmonary atresia,
PAS pulmonary artery sling, DSVC double superior vena cava, CAT common arterial trunk. AVSD exists there but is empty."""

UNDETERMINED = "undetermined"
"""What a rule says of flags that do not determine a class; no class itself."""

RULES = Path(__file__).parent / "cohort" / "rule_files"
"""Folder of the rules that come with the package."""


class Step(NamedTuple):
    """One step of a rule: the first whose flags a patient has decides.

    Attributes:
        flags: any of these.
        label: one of `CLASSES`, or None when they leave the class open.
        reason: why they do.
    """

    flags: frozenset[str]
    label: str | None
    reason: str = ""


def steps_of(written: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """The steps of a rule as they stand in its file, in order."""
    return tuple(
        Step(frozenset(step["flags"]), None if step["class"] == UNDETERMINED else step["class"], step.get("reason", ""))
        for step in written
    )


def deciding_step(flags: Iterable[str], steps: Sequence[Step]) -> Step:
    """The first step that a patient's flags meet; without any flag, one that says `Normal`.

    Args:
        flags: names out of `FLAGS` that are present.
        steps: in order; together they name every flag.

    Raises:
        UserError: a name that is not in `FLAGS`.
    """
    present = set(flags)
    unknown = sorted(present - set(FLAGS))
    if unknown:
        raise UserError(f"unknown diagnosis flag {', '.join(unknown)}: expected names out of {', '.join(FLAGS)}")
    return next((step for step in steps if step.flags & present), Step(frozenset(), NORMAL))


@cache
def _strict_steps() -> tuple[Step, ...]:
    return steps_of(json.loads((RULES / "strict.json").read_text(encoding="utf-8"))["steps"])


def strict_class(flags: Iterable[str]) -> str | None:
    """Class of a patient by the strict clinical rule, `cohort/rule_files/strict.json`.

    ToF, TGA, CAT or PA makes a patient cyanotic whatever else is listed. Otherwise DORV and APVC leave the class
    undetermined, because they are cyanotic or not depending on what the sheet does not say (pulmonary stenosis; total or
    partial drainage). Any other flag is non-cyanotic. No flag means `Normal` only in the sense of the workbook: nothing is
    listed.

    Args:
        flags: names out of `FLAGS` that are present.

    Returns:
        One of `CLASSES`, or None when the flags do not determine it.

    Raises:
        UserError: a name that is not in `FLAGS`.
    """
    return deciding_step(flags, _strict_steps()).label
