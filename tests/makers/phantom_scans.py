"""Small realistic phantoms as scans, for tests of fingerprints and of how alike they are."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_chd.audit.fingerprints import Scan, scan_file
from monai_chd.audit.likeness import Likeness, score_pairs
from monai_chd.phantom.cohort import make_volume

SIZE, SLICES = 64, (36, 44)
PATIENTS = 4


@functools.cache
def phantom_volumes() -> list[np.ndarray]:
    """Realistic phantoms, HU + 1024, float32; not to be changed."""
    lesions = [["ToF"], ["VSD"], [], ["TGA"]]
    made = [
        make_volume(lesions[k], seed=(11, k), size=SIZE, slices=SLICES, difficulty="realistic") for k in range(PATIENTS)
    ]
    return [image.astype(np.float32) for image, _, _ in made]


def scanned(values: np.ndarray, folder: Path, affine: Any = None, name: str = "scan") -> Scan:
    """What `scan_file` makes of voxels."""
    path = folder / f"{name}.nii.gz"
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    scan = scan_file((path, None))
    assert scan.problem == ""
    return scan


def likeness(left: Scan, right: Scan) -> Likeness:
    """Of one pair."""
    (found,), _ = score_pairs([left, right], [(0, 1)], processes=1, progress=False)
    return found
