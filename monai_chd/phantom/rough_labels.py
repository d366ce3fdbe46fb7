"""Label maps as people draw them: what the label maps of ImageCHD lack of a phantom's perfect ones.

Rates and sizes are those seen in 32 label maps of ImageCHD. None of it depends on the diagnosis; images are not touched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_chd.labels import MYOCARDIUM, STRUCTURES

LABEL_KINDS = ("clean", "rough")
"""Label maps that are exact, and label maps as people draw them."""

WITHOUT_MYOCARDIUM = 6 / 32
WITH_STRAY_VALUES = 13 / 68
"""Shares of the label maps that lack the myocardium, and that have values above 7."""

STRAY_VALUES = (8, 15)
TOUCHING_VENTRICLES = 0.6
"""Smallest and largest stray value; share of the maps in which the ventricles touch where no defect is: with the defects
they do in 24 of 32."""

JITTER = 0.004
"""Standard deviation of a slice's shift, as a share of the slice's width."""

Labels = NDArray[np.uint8]

_LV, _RV, _LA, _RA, _AO, _PA = (STRUCTURES.index(name) + 1 for name in ("LV", "RV", "LA", "RA", "Ao", "PA"))


def roughen(labels: Labels, rng: np.random.Generator) -> Labels:
    """A label map as somebody drew it: no atrial septum, a broken myocardium, vessels cut short, slices out of line.

    Args:
        labels: label map, (X, Y, Z), Z to the head; not changed.
        rng: stream of the patient's label map.

    Returns:
        The rough map, same shape. Whether it lacks the myocardium or has stray values is the caller's choice.
    """
    rough = labels.copy()
    box = ndimage.find_objects((labels > 0).view(np.uint8))[0]
    heart = rough[box]
    _fill_septum(heart, _LA, _RA, rng)
    if rng.random() < TOUCHING_VENTRICLES:
        _fill_septum(heart, _LV, _RV, rng, share=float(rng.uniform(0.005, 0.04)))
    _break_myocardium(heart, rng)
    _cut_descending_aorta(heart, rng)
    _cut_pulmonary_branches(heart, rng)
    _shift_slices(rough, rng)
    return rough


def remove_myocardium(labels: Labels) -> None:
    """Take the myocardium out of a label map in place."""
    labels[labels == MYOCARDIUM] = 0


def add_stray_value(image: NDArray[np.int16], labels: Labels, value: int) -> None:
    """Label the air between the lungs in place, as the authors did with airways."""
    x, y, z = labels.shape
    middle = (slice(2 * x // 5, 3 * x // 5 + 1), slice(y // 4, 3 * y // 4), slice(z // 2, z))
    free = labels[middle] == 0
    density = ndimage.uniform_filter(
        image[middle].astype(np.float32), max(3, x // 20)
    )  # noise alone would make it specks
    labels[middle][free & (density <= np.quantile(density[free], 0.05))] = value


def _fill_septum(heart: Labels, one: int, other: int, rng: np.random.Generator, share: float = 1.0) -> None:
    """Give what lies between two chambers to the nearer of them, all of it or a patch that is a share of it."""
    if not ((heart == one).any() and (heart == other).any()):
        return
    to_one, to_other = (ndimage.distance_transform_edt(heart != number) for number in (one, other))
    open_wall = np.isin(heart, (0, MYOCARDIUM))
    gap = to_one + to_other
    thickness = float(gap[open_wall].min())
    wall = open_wall & (gap <= 1.6 * thickness + 1)
    if share < 1:
        places = np.argwhere(wall)
        centre = places[rng.integers(len(places))]
        distance = np.linalg.norm(places - centre, axis=1)
        away = places[distance > np.quantile(distance, share)]
        wall[tuple(away.T)] = False
    heart[wall] = np.where(to_one <= to_other, one, other)[wall]


def _break_myocardium(heart: Labels, rng: np.random.Generator) -> None:
    """Wear holes into the myocardium where a smooth random field is high, so that it falls into pieces."""
    field = rng.standard_normal(heart.shape, dtype=np.float32)
    field = ndimage.gaussian_filter(field, [max(1.0, voxels / 9) for voxels in heart.shape])
    myocardium = heart == MYOCARDIUM
    worn = field > np.quantile(field[myocardium], rng.uniform(0.5, 0.85)) if myocardium.any() else myocardium
    heart[myocardium & worn] = 0


def _cut_descending_aorta(heart: Labels, rng: np.random.Generator) -> None:
    """End the aorta behind the heart where the annotator stopped: somewhere in its lower half."""
    aorta = heart == _AO
    if not aorta.any():
        return
    behind = np.zeros_like(aorta)
    behind[:, : heart.shape[1] // 3] = True
    lowest = np.flatnonzero(aorta.any((0, 1)))
    end = int(lowest[0] + rng.uniform(0, 0.5) * (lowest[-1] - lowest[0]))
    heart[:, :, :end][(aorta & behind)[:, :, :end]] = 0


def _cut_pulmonary_branches(heart: Labels, rng: np.random.Generator) -> None:
    """End the pulmonary arteries some way to the right and left of their middle."""
    pulmonary = heart == _PA
    widths = np.flatnonzero(pulmonary.any((1, 2)))
    if len(widths) == 0:
        return
    middle = np.median(np.argwhere(pulmonary)[:, 0])
    away = np.abs(np.arange(heart.shape[0]) - middle) > rng.uniform(0.5, 1.0) * np.abs(widths - middle).max()
    heart[away[:, None, None] & pulmonary] = 0


def _shift_slices(labels: Labels, rng: np.random.Generator) -> None:
    """Move each slice of the map a little, each by itself, in place."""
    shifts = np.rint(rng.normal(0, max(JITTER * labels.shape[0], 0.45), (labels.shape[2], 2))).astype(int)
    for k, shift in enumerate(shifts):
        labels[:, :, k] = np.roll(labels[:, :, k], shift, (0, 1))
