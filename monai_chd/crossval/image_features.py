"""Numbers that stand for a volume without a network: its histogram of intensity, its structures' sizes, places and contacts.

They are what simple classifiers read beside which a network has to stand; `controls` does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_chd.errors import UserError
from monai_chd.labels import STRUCTURES
from monai_chd.nifti import read_volume
from monai_chd.transforms import LoadVolume

BINS = 64
LAST_LABEL = len(STRUCTURES)
PAIRS = tuple(combinations(range(1, LAST_LABEL + 1), 2))
STRUCTURE_FEATURES = len(STRUCTURES) * 4 + len(PAIRS)


def intensity_histogram(
    path: str | Path, window: Sequence[float], *, hu_offset: float | None = None
) -> NDArray[np.float64]:
    """Share of the voxels in each of `BINS` equal bins of the window, shape (BINS,); what is beyond counts in the outer ones.

    Args:
        path: NIfTI file.
        window: lower and upper end in HU.
        hu_offset: HU = value + this; None: found for the file.

    Raises:
        UserFileError, UserError: see `transforms.LoadVolume`.
    """
    values = LoadVolume()(path, hu_offset).numpy()
    low, high = window
    counts, _ = np.histogram(np.clip(values, low, high), bins=BINS, range=(low, high))
    return np.asarray(counts / values.size, dtype=np.float64)


def structure_features(path: str | Path) -> NDArray[np.float64]:
    """Volumes, centroids and contact areas of the structures of a label map, shape (STRUCTURE_FEATURES,).

    First the log of 1 + the volume in mL of each structure; then each centroid, in mm from that of all structures together
    to the right, front and head (zeros for a structure that is absent); then the log of 1 + the area in cm² in which two
    structures touch, pairs in the order of `PAIRS`.

    Args:
        path: NIfTI label map, as integers or as floats that are rounded.

    Raises:
        UserFileError, UserError: see `nifti.read_volume`; or it shows no structure.
    """
    values, affine = read_volume(path)
    labels = np.clip(np.rint(values), 0, LAST_LABEL + 1).astype(np.uint8)
    labels[labels > LAST_LABEL] = 0
    if not labels.any():
        raise UserError(f"{path}: a label map without any of the structures 1 to {LAST_LABEL}; take it away or mend it")
    orientation = nib.orientations.io_orientation(affine)
    labels = nib.orientations.apply_orientation(labels, orientation)
    spacing = np.empty(3)
    spacing[orientation[:, 0].astype(int)] = np.linalg.norm(affine[:3, :3], axis=0)  # mm along right, front, head
    counts = np.bincount(labels.ravel(), minlength=LAST_LABEL + 1)[1:]
    centroids = _centroids(labels, counts) * spacing
    centre = np.average(centroids, axis=0, weights=counts)
    places = np.where(counts[:, None] > 0, centroids - centre, 0.0)
    volumes = counts * spacing.prod() / 1000
    return np.concatenate([np.log1p(volumes), places.ravel(), np.log1p(_contacts(labels, spacing) / 100)])


def _centroids(labels: NDArray[np.uint8], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean voxel index of each structure, (S, 3); 0 where absent."""
    sums = np.zeros((LAST_LABEL, 3))
    for axis in range(3):
        for index, plane in enumerate(np.moveaxis(labels, axis, 0)):
            sums[:, axis] += index * np.bincount(plane.ravel(), minlength=LAST_LABEL + 1)[1:]
    return sums / np.maximum(counts, 1)[:, None]


def _contacts(labels: NDArray[np.uint8], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area in mm² of the voxel faces that two structures share, for each of `PAIRS`."""
    area = np.zeros((LAST_LABEL + 1, LAST_LABEL + 1))
    for axis in range(3):
        ahead = np.moveaxis(labels, axis, 0)
        pairs = ahead[:-1].astype(np.int64) * (LAST_LABEL + 1) + ahead[1:]
        faces = np.bincount(pairs.ravel(), minlength=area.size).reshape(area.shape)
        area += faces * (spacing.prod() / spacing[axis])
    return np.array([area[a, b] + area[b, a] for a, b in PAIRS])
