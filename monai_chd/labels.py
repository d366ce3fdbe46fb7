"""The three classes, the diagnosis flags of ImageCHD, and the rule that turns flags into a class.

Owns the only list of classes in the project. Reads no files: workbooks are `tables`' part.
"""

from __future__ import annotations

from collections.abc import Iterable

CLASSES = ("Cyanotic", "Non-Cyanotic", "Normal")
"""Class names; the position is the label, the logit and the probability column everywhere."""

CYANOTIC, NON_CYANOTIC, NORMAL = CLASSES

FLAGS = (
    "ASD", "VSD", "AVSD", "ToF", "TGA", "DORV", "CAT", "CA", "AAH", "DAA", "IAA", "PA", "APVC", "DSVC", "PDA", "PAS",
)  # fmt: skip
"""Diagnosis columns of `imageCHD_dataset_info.xlsx`, in its order. CA is coarctation of the aorta, PA pulmonary atresia,
PAS pulmonary artery sling, DSVC double superior vena cava, CAT common arterial trunk. AVSD exists there but is empty."""

CYANOTIC_FLAGS = frozenset({"ToF", "TGA", "CAT", "PA"})
UNDETERMINED_FLAGS = frozenset({"DORV", "APVC"})


def strict_class(flags: Iterable[str]) -> str | None:
    """Class of a patient by the strict clinical rule.

    ToF, TGA, CAT or PA makes a patient cyanotic whatever else is listed. Otherwise DORV and APVC leave the class
    undetermined, because they are cyanotic or not depending on what the sheet does not say (pulmonary stenosis; total or
    partial drainage). Any other flag is non-cyanotic. No flag means `Normal` only in the sense of the workbook: nothing is
    listed.

    Args:
        flags: names out of `FLAGS` that are present.

    Returns:
        One of `CLASSES`, or None when the flags do not determine it.

    Raises:
        ValueError: a name that is not in `FLAGS`.
    """
    present = set(flags)
    unknown = sorted(present - set(FLAGS))
    if unknown:
        raise ValueError(f"unknown diagnosis flag {', '.join(unknown)}: expected names out of {', '.join(FLAGS)}")
    if present & CYANOTIC_FLAGS:
        return CYANOTIC
    if present & UNDETERMINED_FLAGS:
        return None
    return NON_CYANOTIC if present else NORMAL
