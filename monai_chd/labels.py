"""The three classes, the diagnosis flags and the structures of ImageCHD: the only list of each in the project.

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

STRUCTURES = ("LV", "RV", "LA", "RA", "Myo", "Ao", "PA")
"""Structures of ImageCHD's label maps: left and right ventricle, left and right atrium, myocardium, aorta, pulmonary artery.
Numbers in a map are 1 to 7 in this order; caval veins count as right atrium, pulmonary veins as left. What is beyond
(airways, ...) is none of them and read as 0."""

UNSEEN_IN_LABEL_MAPS = ("ASD", "APVC")
"""Flags that these structures cannot show: the septum between the atria is not drawn, so that they touch in every heart, and
veins count as the atria that they lead to."""

MYOCARDIUM = STRUCTURES.index("Myo") + 1

UNDRAWN = len(STRUCTURES) + 1
"""In frames of a label map without any myocardium, as 6 of 32 of ImageCHD's are: what is no other structure. There it was not
drawn, so it may be background or myocardium."""
