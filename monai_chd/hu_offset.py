"""Finds what turns the stored values of a CT into Hounsfield units, or says why it cannot be known.

How values are read from a file is `nifti`'s part.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from monai_chd.errors import UserError

RAW_CT_OFFSET = -1024.0
"""HU = stored value + this, for CT stored without sign (0…4095), as in ImageCHD."""

OFFSETS = (0.0, RAW_CT_OFFSET)
"""The two ways of storing that are told apart."""

AIR, FAT, SOFT = (-1100, -500), (-150, -50), (-150, 199)
"""First and last value of air and lung, of fat, and of fat to blood, in HU."""

BETWEEN_OF_RAW, SOFT_OF_RAW = (524, 873), (874, 1223)
"""First and last value of what lies between lung and fat, where a CT has little, and of fat to blood, in HU + 1024."""

SURE_SLICES = 16
"""What as many slices without padding say is taken for what the rest will say."""

ROWS = 32
"""Of a slice so many rows are looked at, or up to twice as many."""

_OFFSET_HINT = (
    "if you know how HU were stored, say so with --hu-offset N (HU = value + N; 0 when the values are HU already, "
    "-1024 for 0…4095 storage)"
)


class _Shares(NamedTuple):
    """Shares of the voxels that are not padding, within the ranges of the same names."""

    air: float
    fat: float
    soft: float
    between_of_raw: float
    soft_of_raw: float

    def offset(self) -> float | None:
        """The offset under which they are those of a CT; None: under neither, or under both."""
        raw = self.soft_of_raw
        if raw >= 0.05 and raw >= max(10 * self.air, 4 * self.fat, 1.5 * self.between_of_raw):
            return RAW_CT_OFFSET
        if self.soft >= 0.05 and self.air >= 0.001 and raw < 0.05:
            return 0.0
        # as much bone or metal is rare: only where the rest leaves no doubt
        return 0.0 if min(self.air, self.soft) >= max(0.05, 3 * raw) else None


class StoredIntensities:
    """The stored values of a 3D CT, seen slice by slice, and what their distribution says about its units.

    CT stored in HU has air and lung within -1100…-500, of many values, and fat to blood around 0. CT stored as HU + 1024
    has nothing there but padding, which is one value, and fat to blood around 1024. MR and label maps have neither. A few
    voxels decide nothing; where both are seen, or neither, it is refused rather than guessed.

    Attributes:
        low, high: smallest and largest value so far.
        likely: the offset that `SURE_SLICES` slices told, which that of the whole has to agree with; None before that.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.likely: float | None = None
        # of each whole number from AIR to SOFT_OF_RAW; the first and last for all that lies outside
        self._counts = np.zeros(SOFT_OF_RAW[1] - AIR[0] + 3, np.int64)

    def add(self, slices: np.ndarray) -> None:
        """Look at the next slices (n, Y, X), n of any number."""
        self.low, self.high = min(self.low, float(slices.min())), max(self.high, float(slices.max()))
        rows = slices[:, :: max(1, slices.shape[1] // ROWS)]  # all slices and columns, whatever comes in one part
        for one in rows:
            near = np.clip(one.astype(np.float32), AIR[0] - 1, SOFT_OF_RAW[1] + 1)
            bins = np.rint(near, out=near).astype(np.intp).ravel() - (AIR[0] - 1)
            self._counts += np.bincount(bins, minlength=len(self._counts))
            if self.likely is None:
                shares, voxels = self._shares()
                if voxels >= SURE_SLICES * one.size:
                    self.likely = shares.offset()

    def hu_offset(self, path: str | Path) -> float:
        """What to add to the stored values to get Hounsfield units: one of `OFFSETS`.

        Args:
            path: named in the error.

        Raises:
            UserError: the values are those of a CT in neither way of storing, or contradict each other.
        """
        shares = self._shares()[0]
        offset = shares.offset()
        if offset is not None and self.likely in (None, offset):
            return offset
        first = "" if offset is None else f"; the first slices look like HU = value + {self.likely:g}, all do not"
        ranges = ", ".join(
            f"{share:.2%} within {low}…{high}"
            for share, (low, high) in ((shares.air, AIR), (shares.soft, SOFT), (shares.soft_of_raw, SOFT_OF_RAW))
        )
        raise UserError(
            f"{path}: cannot tell Hounsfield units from the values (minimum {self.low:g}, maximum {self.high:g}; without "
            f"padding {ranges}{first}). Expected CT in HU (air and lung in the first range, soft tissue in the second) or "
            f"HU + 1024 (5 % or more in the third, next to nothing in the first). Is it MR, or a label map? {_OFFSET_HINT}"
        )

    def _shares(self) -> tuple[_Shares, int]:
        """Shares, and of how many voxels looked at: those from AIR up but for the most frequent value of AIR.

        That value is padding or clipped air, and lower ones are padding: real air and lung have many values.
        """

        def within(first: int, last: int) -> int:
            return int(self._counts[first - AIR[0] + 1 : last - AIR[0] + 2].sum())

        padding = int(self._counts[1 : AIR[1] - AIR[0] + 2].max())
        voxels = int(self._counts[1:].sum()) - padding
        counts = [within(*values) for values in (AIR, FAT, SOFT, BETWEEN_OF_RAW, SOFT_OF_RAW)]
        counts[0] -= padding
        return _Shares(*(count / max(voxels, 1) for count in counts)), voxels


def detect_hu_offset(values: np.ndarray, path: str | Path) -> float:
    """What to add to a whole 3D CT's stored values (X, Y, Z) to get Hounsfield units; see `StoredIntensities`."""
    seen = StoredIntensities()
    seen.add(values.T)  # as they lie in a file
    return seen.hu_offset(path)
