"""The three classes and the diagnosis flags of ImageCHD: the only list of either in the project.

What flags mean is `cohort.rules`' part.
"""

from __future__ import annotations

CLASSES = ("Cyanotic", "Non-Cyanotic", "Normal")
"""Class names; the position is the label, the logit and the probability column everywhere."""

CYANOTIC, NON_CYANOTIC, NORMAL = CLASSES

FLAGS = (
    "ASD", "VSD", "AVSD", "ToF", "TGA", "DORV", "CAT", "CA", "AAH", "DAA", "IAA", "PA", "APVC", "DSVC", "PDA", "PAS",
)  # fmt: skip
"""Diagnosis columns of `imageCHD_dataset_info.xlsx`, in its order. CA is coarctation of the aorta, PA pulmonary atresia,
PAS pulmonary artery sling, DSVC double superior vena cava, CAT common arterial trunk. AVSD exists there but is empty."""
