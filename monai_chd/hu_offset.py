"""Finds what turns the stored values of a CT into Hounsfield units, or says why it cannot be known.

How values are read from a file is `nifti`'s part.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from monai_chd.errors import UserError

RAW_CT_OFFSET = -1024.0
"""HU = stored value + this, for CT stored without sign (0…4095), as in ImageCHD."""

HU_AIR = -200.0
"""A CT with values below this is stored in HU."""

_OFFSET_HINT = (
    "if you know how HU were stored, say so with --hu-offset N (HU = value + N; 0 when the values are HU already, "
    "-1024 for 0…4095 storage)"
)


class IntensityRange:
    """The stored values of a 3D CT, seen in parts, and what they say about its units.

    CT stored as HU has air below -200. CT stored as 0…4095 has a third and more of its voxels (fat, water, muscle,
    blood) within 900…1200; MR has next to none there. Anything else is refused rather than guessed.

    Attributes:
        low, high: smallest and largest value so far.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self._soft = self._voxels = 0

    def add(self, values: np.ndarray) -> None:
        """Look at a part of the volume, of any shape."""
        self.low = min(self.low, float(values.min()))
        if self.low < HU_AIR:  # nothing else can change the answer
            return
        self.high = max(self.high, float(values.max()))
        self._soft += int(np.count_nonzero((values >= 900) & (values <= 1200)))
        self._voxels += values.size

    def likely_offset(self) -> float:
        """The HU offset as it looks so far."""
        return 0.0 if self.low < HU_AIR else RAW_CT_OFFSET

    def hu_offset(self, path: str | Path) -> float:
        """What to add to the stored values to get Hounsfield units: 0 or -1024.

        Args:
            path: named in the error.

        Raises:
            UserError: neither rule fits.
        """
        if self.low < HU_AIR:
            return 0.0
        share = self._soft / self._voxels
        if self.low >= 0 and share >= 0.05:
            return RAW_CT_OFFSET
        raise UserError(
            f"{path}: cannot tell Hounsfield units from the values (minimum {self.low:g}, maximum {self.high:g}, "
            f"{share:.1%} of voxels within 900…1200). Expected CT with a minimum below {HU_AIR:g} (HU) or from 0 up with "
            f"at least 5 % within 900…1200 (HU + 1024). Is it MR, or a label map? {_OFFSET_HINT}"
        )


def detect_hu_offset(values: np.ndarray, path: str | Path) -> float:
    """What to add to a whole 3D CT's stored values to get Hounsfield units; see `IntensityRange`."""
    seen = IntensityRange()
    seen.add(values)
    return seen.hu_offset(path)
