"""Loads a scan, NIfTI or DICOM, as a volume in HU.

How a file is read is the part of `scans`, how the HU offset is found `hu_offset`'s.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform

from monai_chd.errors import UserError
from monai_chd.hu_offset import detect_hu_offset
from monai_chd.nifti import READERS
from monai_chd.scans.opening import known_offset, read_scan


class LoadVolume(Transform):
    """Read a scan as a float32 `MetaTensor` in HU, channel first.

    3D gives (1, X, Y, Z); 4D cine gives (T, X, Y, Z). Meta data: `affine`, `original_affine`, `filename_or_obj`,
    `intensity` ("HU", or "arbitrary" for a cine whose units are unknown) and `hu_offset` (what was added; NaN when
    arbitrary).

    Args:
        reader: "nibabel" or "itk"; same values from both.
        hu_offset: HU = value + this, for every file. None: found for each file by `hu_offset.detect_hu_offset`; 4D cine
            then stays in its own units.
    """

    def __init__(self, reader: str = "nibabel", hu_offset: float | None = None) -> None:
        if reader not in READERS:
            raise UserError(f"unknown reader {reader!r}: expected one of {', '.join(READERS)}")
        self.reader = reader
        self.hu_offset = hu_offset

    def __call__(self, path: str | Path, hu_offset: float | None = None) -> MetaTensor:
        """Read `path`; `hu_offset` given here goes before the one of the constructor.

        Raises:
            UserFileError, UserError: see `scans.read_scan` and `hu_offset.detect_hu_offset`.
        """
        values, affine = read_scan(path, self.reader)
        offset = known_offset(path, self.hu_offset if hu_offset is None else hu_offset)
        cine = values.ndim == 4 and values.shape[3] > 1
        if offset is None and not cine:
            offset = detect_hu_offset(values, path)
        # one copy, in the order PyTorch wants: (T, X, Y, Z)
        channels = values[None] if values.ndim == 3 else np.moveaxis(values, 3, 0)
        image = torch.from_numpy(np.ascontiguousarray(channels, dtype=np.float32))
        if offset:
            image += offset
        meta = {
            "filename_or_obj": str(path),
            "original_affine": torch.as_tensor(affine),
            "intensity": "arbitrary" if offset is None else "HU",
            "hu_offset": math.nan if offset is None else float(offset),
        }
        return MetaTensor(image, affine=torch.as_tensor(affine), meta=meta)


class LoadVolumed(MapTransform):
    """Dictionary form of `LoadVolume`; a case's own `hu_offset` entry goes before the constructor's."""

    def __init__(
        self,
        keys: KeysCollection,
        reader: str = "nibabel",
        hu_offset: float | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadVolume(reader, hu_offset)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each path by its volume."""
        d = dict(data)
        offset = d.pop("hu_offset", None)  # goes on in the meta data
        for key in self.key_iterator(d):
            d[key] = self.load(d[key], offset)
        return d
