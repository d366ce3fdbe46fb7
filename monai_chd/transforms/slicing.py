"""Cuts a volume into upright frames.

The orientation it expects is MONAI's own transform's part, put before it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform
from monai.utils import TraceKeys
from torch import Tensor

from monai_chd.errors import UserError
from monai_chd.transforms.steps import InvertibleMap, affine_of, values_of, whole_number, with_meta

ORIENTATION = ("L", "P", "S")


class SliceToFrame(InvertibleTransform):
    """Turn a volume into a sequence of upright pictures, (C, X, Y, Z) to (1, T, H, W).

    A 3D volume (C = 1) gives its axial slices, feet to head. A 4D cine (C = time points) gives one stored slice over
    time. In axial pictures H runs anterior to posterior and W from the patient's right to left; in coronal and sagittal
    cine H runs head to feet. The affine of the result maps (t, h, w) to RAS millimetres; for cine, t runs along the
    slice normal.

    Args:
        cine_slice: which slice of a cine, from 0, in the order of the file; None is the middle one. Not used for 3D.
    """

    def __init__(self, cine_slice: int | None = None) -> None:
        self.cine_slice = None if cine_slice is None else whole_number("cine_slice", cine_slice, 0)

    def _axis_and_slice(self, img: Tensor, cine_slice: int | None) -> tuple[int, int]:
        """Axis that is cut (0…2), and the slice taken of it; slice -1 means all of them (3D)."""
        if img.shape[0] == 1:
            return 2, -1
        original = img.meta.get("original_affine") if isinstance(img, MetaTensor) else None
        # after Orientation axis i is world axis i, so the stored third axis is where its world axis is
        axis, towards = 2, 1
        if original is not None:
            axis, towards = nib.io_orientation(np.asarray(original, dtype=np.float64))[2].astype(int).tolist()
        size = img.shape[1 + axis]
        if cine_slice is None:
            return axis, size // 2
        if whole_number("cine_slice", cine_slice, 0) >= size:
            raise UserError(f"cine_slice: expected 0 to {size - 1} for this cine of {size} slices, got {cine_slice}")
        stored_as_oriented = towards == (1 if ORIENTATION[axis] in "RAS" else -1)
        return axis, cine_slice if stored_as_oriented else size - 1 - cine_slice

    def __call__(self, img: Tensor, cine_slice: int | None = None) -> MetaTensor:
        """Cut the volume.

        Args:
            img: shape (C, X, Y, Z), oriented LPS.
            cine_slice: goes before the one of the constructor.

        Raises:
            UserError: not four axes, not oriented LPS, or no such cine slice.
        """
        if img.ndim != 4:
            raise UserError(f"SliceToFrame: expected a volume of shape (C, X, Y, Z), got {tuple(img.shape)}")
        affine = affine_of(img)
        codes = nib.aff2axcodes(affine)
        if isinstance(img, MetaTensor) and codes != ORIENTATION:
            raise UserError(
                f"SliceToFrame: expected orientation {''.join(ORIENTATION)}, got {''.join(map(str, codes))}; put "
                f"Orientationd(axcodes='LPS') before it"
            )
        axis, index = self._axis_and_slice(img, self.cine_slice if cine_slice is None else cine_slice)
        rows, columns = {2: (1, 0), 1: (2, 0), 0: (2, 1)}[axis]
        values = values_of(img)
        if index < 0:
            frames = values[0].permute(axis, rows, columns)  # (T, H, W)
        else:
            plane = values.select(1 + axis, index)  # (T, U, V), U < V among the axes left
            frames = plane.permute(0, 2, 1) if rows > columns else plane
        step = np.zeros((4, 4))  # (t, h, w, 1) -> (x, y, z, 1)
        step[axis, 0] = step[rows, 1] = step[columns, 2] = step[3, 3] = 1
        if rows == 2:  # head on top
            frames = frames.flip(1)
            step[2, 1], step[2, 3] = -1, img.shape[3] - 1
        if index >= 0:
            step[axis, 3] += index
        out = with_meta(frames[None].contiguous(), img, affine @ step)
        self.push_transform(  # type: ignore[no-untyped-call]
            out,
            orig_size=img.shape[1:],
            extra_info={"channels": img.shape[0], "axis": axis, "index": index, "affine": affine.tolist()},
        )
        return out

    def inverse(self, data: Tensor) -> MetaTensor:
        """Put frames back, (1, T, H, W) to (C, X, Y, Z); of a cine the slices not taken become zero."""
        info = self.pop_transform(data)
        extra, size = info[TraceKeys.EXTRA_INFO], tuple(info[TraceKeys.ORIG_SIZE])
        axis, index = extra["axis"], extra["index"]
        rows, columns = {2: (1, 0), 1: (2, 0), 0: (2, 1)}[axis]
        frames = values_of(data)[0]
        if rows == 2:
            frames = frames.flip(1)
        if index < 0:
            order = [0, 0, 0]
            order[axis], order[rows], order[columns] = 0, 1, 2
            volume = frames.permute(*order)[None].contiguous()
        else:
            volume = frames.new_zeros((extra["channels"], *size))
            volume.select(1 + axis, index).copy_(frames.permute(0, 2, 1) if rows > columns else frames)
        return with_meta(volume, data, np.asarray(extra["affine"]))


class SliceToFramed(InvertibleMap):
    """Dictionary form of `SliceToFrame`; a case's own `cine_slice` entry goes before the constructor's."""

    def __init__(self, keys: KeysCollection, cine_slice: int | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.step = SliceToFrame(cine_slice)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        own = d.pop("cine_slice", None)
        for key in self.key_iterator(d):
            d[key] = self.step(d[key], own)
        return d
