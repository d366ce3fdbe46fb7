"""The single steps from a file to a padded sequence of frames: load as HU, slice, window, resize, quantise, pad.

Array and dictionary forms. Orientation is MONAI's own `Orientation("LPS")`, put between loading and slicing. All of them in
one pass is `transforms.LoadFrames`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Transform
from monai.utils import TraceKeys
from torch import Tensor
from torch.nn import functional as F

from monai_chd.errors import UserError
from monai_chd.hu_offset import detect_hu_offset
from monai_chd.nifti import READERS, read_volume

SAMPLING = ("even", "first")
ORIENTATION = ("L", "P", "S")
OWN_SETTINGS = ("hu_offset", "cine_slice")
"""Entries of a case that go before a transform's own; it takes them out, since a batch needs equal keys."""
FRAME_SIZE = 512
SEQUENCE_LENGTH = 200


def _with_meta(values: Tensor, source: Tensor, affine: np.ndarray | Tensor | None = None) -> MetaTensor:
    """`values` with the meta data and history of `source`, and a new affine when one is given."""
    meta = source.meta if isinstance(source, MetaTensor) else {}
    history = source.applied_operations if isinstance(source, MetaTensor) else []
    out = MetaTensor(values, meta=dict(meta), applied_operations=list(history))
    if affine is not None:
        out.affine = torch.as_tensor(affine, dtype=torch.float64)
    return out


def _affine(img: Tensor) -> np.ndarray:
    """Affine of an image, (4, 4) float64; identity for a plain tensor."""
    if isinstance(img, MetaTensor):
        return img.affine.cpu().numpy().astype(np.float64)  # type: ignore[no-any-return]
    return np.eye(4)


def _whole_number(name: str, value: Any, smallest: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise UserError(f"{name}: expected a whole number of {smallest} or more, got {value!r}")
    return value


class LoadVolume(Transform):
    """Read a NIfTI file as a float32 `MetaTensor` in HU, channel first.

    3D gives (1, X, Y, Z); 4D cine gives (T, X, Y, Z). Meta data: `affine`, `original_affine`, `filename_or_obj`,
    `intensity` ("HU", or "arbitrary" for a cine whose units are unknown) and `hu_offset` (what was added; NaN when
    arbitrary).

    Args:
        reader: "nibabel" or "itk"; same values from both.
        hu_offset: HU = value + this, for every file. None: found for each file by `reading.detect_hu_offset`; 4D cine
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
            UserFileError, UserError: see `reading.read_volume` and `reading.detect_hu_offset`.
        """
        values, affine = read_volume(path, self.reader)
        offset = self.hu_offset if hu_offset is None else hu_offset
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
        self.cine_slice = None if cine_slice is None else _whole_number("cine_slice", cine_slice, 0)

    def _layout(self, img: Tensor, cine_slice: int | None) -> tuple[int, int]:
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
        if _whole_number("cine_slice", cine_slice, 0) >= size:
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
        affine = _affine(img)
        codes = nib.aff2axcodes(affine)
        if isinstance(img, MetaTensor) and codes != ORIENTATION:
            raise UserError(
                f"SliceToFrame: expected orientation {''.join(ORIENTATION)}, got {''.join(map(str, codes))}; put "
                f"Orientationd(axcodes='LPS') before it"
            )
        axis, index = self._layout(img, self.cine_slice if cine_slice is None else cine_slice)
        rows, columns = {2: (1, 0), 1: (2, 0), 0: (2, 1)}[axis]
        values = img.as_tensor() if isinstance(img, MetaTensor) else img
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
        out = _with_meta(frames[None].contiguous(), img, affine @ step)
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
        frames = (data.as_tensor() if isinstance(data, MetaTensor) else data)[0]
        if rows == 2:
            frames = frames.flip(1)
        if index < 0:
            order = [0, 0, 0]
            order[axis], order[rows], order[columns] = 0, 1, 2
            volume = frames.permute(*order)[None].contiguous()
        else:
            volume = frames.new_zeros((extra["channels"], *size))
            volume.select(1 + axis, index).copy_(frames.permute(0, 2, 1) if rows > columns else frames)
        return _with_meta(volume, data, np.asarray(extra["affine"]))


class WindowHU(Transform):
    """Clip to a window and scale it to [0, 1].

    A cine in arbitrary units (`intensity` in its meta data) has no HU to window: its 1st and 99th percentiles become 0
    and 1.

    Args:
        window: lower and upper HU.
    """

    def __init__(self, window: Sequence[float] = (-200.0, 900.0)) -> None:
        numbers = isinstance(window, (list, tuple)) and all(isinstance(value, (int, float)) for value in window)
        if not numbers or len(window) != 2 or not -math.inf < float(window[0]) < float(window[1]) < math.inf:
            raise UserError(f"window: expected [lower, upper] in HU with lower < upper, got {window!r}")
        self.window = (float(window[0]), float(window[1]))

    def __call__(self, img: Tensor) -> MetaTensor:
        """Window an image of any shape; float32 in [0, 1] comes out."""
        values = (img.as_tensor() if isinstance(img, MetaTensor) else img).to(torch.float32)
        lower, upper = self.window
        if isinstance(img, MetaTensor) and img.meta.get("intensity") == "arbitrary":
            low, high = np.percentile(values.cpu().numpy(), (1, 99))
            lower, upper = float(low), float(high) if high > low else float(low) + 1.0
        return _with_meta(values.sub(lower).div_(upper - lower).clamp_(0, 1), img)


class ResizeFrames(InvertibleTransform):
    """Resize every frame to a square, keeping its aspect ratio, (C, T, H, W) to (C, T, S, S).

    The longer side becomes S; the shorter one is padded with zeros (the window's lower end) on both sides. Shrinking
    averages areas, so that thin walls do not vanish; enlarging is bilinear. Frames are never mixed with each other.

    Args:
        frame_size: S in pixels.
    """

    def __init__(self, frame_size: int = FRAME_SIZE) -> None:
        self.frame_size = _whole_number("frame_size", frame_size, 8)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Where the picture lies in the square: top, left, height, width."""
        scale = self.frame_size / max(height, width)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        return (self.frame_size - size[0]) // 2, (self.frame_size - size[1]) // 2, *size

    def __call__(self, img: Tensor) -> MetaTensor:
        """Resize floating-point frames in [0, 1]."""
        values = img.as_tensor() if isinstance(img, MetaTensor) else img
        height, width = values.shape[2:]
        top, left, *size = self.box(height, width)
        if size != [height, width]:
            values = interpolate(values, size)
        if size != [self.frame_size, self.frame_size]:
            values = F.pad(values, (left, self.frame_size - size[1] - left, top, self.frame_size - size[0] - top))
        affine = _affine(img)
        ratio = np.diag([1.0, height / size[0], width / size[1], 1.0])
        # pixel (h, w) of the result looks at the centre of the pixels it averages
        ratio[1, 3] = (0.5 - top) * ratio[1, 1] - 0.5
        ratio[2, 3] = (0.5 - left) * ratio[2, 2] - 0.5
        out = _with_meta(values, img, affine @ ratio)
        self.push_transform(  # type: ignore[no-untyped-call]
            out,
            orig_size=img.shape[1:],
            extra_info={"box": [top, left, *size], "affine": affine.tolist()},
        )
        return out

    def inverse(self, data: Tensor) -> MetaTensor:
        """Cut the padding away and resize back, for pictures and maps made in frame space."""
        info = self.pop_transform(data)
        top, left, height, width = info[TraceKeys.EXTRA_INFO]["box"]
        original = tuple(info[TraceKeys.ORIG_SIZE])[-2:]
        values = data.as_tensor() if isinstance(data, MetaTensor) else data
        values = values[..., top : top + height, left : left + width].to(torch.float32)
        if original != (height, width):
            values = interpolate(values, original)
        return _with_meta(values, data, np.asarray(info[TraceKeys.EXTRA_INFO]["affine"]))


def interpolate(frames: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (C, T, H, W) in its last two axes."""
    flat = frames.reshape(-1, 1, *frames.shape[2:])
    shrinks = size[0] * size[1] < frames.shape[2] * frames.shape[3]
    resized = (
        F.interpolate(flat, list(size), mode="area")
        if shrinks
        else F.interpolate(flat, list(size), mode="bilinear", align_corners=False)
    )
    return resized.reshape(*frames.shape[:2], *size)


class QuantizeFrames(InvertibleTransform):
    """Round [0, 1] to 8 bits, float to uint8 0…255; the network scales back.

    Every cache and every reading path shares this step, so they give the same numbers, in a quarter of the memory.
    """

    def __call__(self, img: Tensor) -> MetaTensor:
        """Quantise frames in [0, 1] of any shape."""
        values = img.as_tensor() if isinstance(img, MetaTensor) else img
        out = _with_meta(values.mul(255).round_().to(torch.uint8), img)
        self.push_transform(out)  # type: ignore[no-untyped-call]
        return out

    def inverse(self, data: Tensor) -> MetaTensor:
        """Back to float32; what was made in frame space after quantisation (a map) is left as it is."""
        self.pop_transform(data)
        values = data.as_tensor() if isinstance(data, MetaTensor) else data
        return _with_meta(values.div(255) if values.dtype == torch.uint8 else values, data)


class PadFrames(InvertibleTransform):
    """Bring a sequence to a fixed length, (C, T, H, W) to (C, L, H, W): zeros after the end, or fewer frames.

    Meta data: `num_frames` (real frames, 1…L) and `frame_indices` (int64, shape (L,): where each frame came from, -1
    for padding).

    Args:
        sequence_length: L.
        sampling: for sequences longer than L. "even" takes L frames evenly from first to last; "first" takes the first
            L and loses the rest, as the replaced pipeline did.
    """

    def __init__(self, sequence_length: int = SEQUENCE_LENGTH, sampling: str = "even") -> None:
        self.sequence_length = _whole_number("sequence_length", sequence_length)
        if sampling not in SAMPLING:
            raise UserError(f"sampling: expected one of {', '.join(SAMPLING)}, got {sampling!r}")
        self.sampling = sampling

    def frame_indices(self, total: int) -> Tensor:
        """Which of `total` frames are kept, ascending, int64."""
        length = self.sequence_length
        if total <= length or self.sampling == "first":
            return torch.arange(min(total, length))
        return torch.linspace(0, total - 1, length, dtype=torch.float64).round().to(torch.int64)

    def __call__(self, img: Tensor) -> MetaTensor:
        """Pad or sample.

        Raises:
            UserError: no frame at all.
        """
        total = img.shape[1]
        if total < 1:
            raise UserError(f"PadFrames: expected at least one frame, got shape {tuple(img.shape)}")
        kept = self.frame_indices(total)
        values = img.as_tensor() if isinstance(img, MetaTensor) else img
        frames = values if len(kept) == total else values[:, kept]
        missing = self.sequence_length - len(kept)
        if missing:
            frames = F.pad(frames, (0, 0, 0, 0, 0, missing))
        affine = _affine(img)
        stride = (total - 1) / (len(kept) - 1) if self.sampling == "even" and len(kept) > 1 else 1.0
        out = _with_meta(frames, img, affine @ np.diag([stride, 1.0, 1.0, 1.0]))
        out.meta["num_frames"] = len(kept)
        out.meta["frame_indices"] = F.pad(kept, (0, missing), value=-1)
        self.push_transform(  # type: ignore[no-untyped-call]
            out,
            orig_size=img.shape[1:],
            extra_info={"kept": kept.tolist(), "affine": affine.tolist()},
        )
        return out

    def inverse(self, data: Tensor) -> MetaTensor:
        """Drop the padding. Frames left out by even sampling repeat the nearest kept one, those after "first" are 0."""
        info = self.pop_transform(data)
        kept = np.asarray(info[TraceKeys.EXTRA_INFO]["kept"])
        total = info[TraceKeys.ORIG_SIZE][0]
        values = data.as_tensor() if isinstance(data, MetaTensor) else data
        source = np.abs(np.arange(total)[:, None] - kept[None]).argmin(1)
        frames = values[:, source]
        if self.sampling == "first":
            frames[:, len(kept) :] = 0
        return _with_meta(frames, data, np.asarray(info[TraceKeys.EXTRA_INFO]["affine"]))


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


class _InvertibleMap(MapTransform, InvertibleTransform):
    """Applies `self.step` to every key, forth and back."""

    step: Any

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.step(d[key])
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.step.inverse(d[key])
        return d


class SliceToFramed(_InvertibleMap):
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


class WindowHUd(MapTransform):
    """Dictionary form of `WindowHU`."""

    def __init__(
        self, keys: KeysCollection, window: Sequence[float] = (-200.0, 900.0), allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.step = WindowHU(window)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Window each image."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.step(d[key])
        return d


class ResizeFramesd(_InvertibleMap):
    """Dictionary form of `ResizeFrames`."""

    def __init__(self, keys: KeysCollection, frame_size: int = FRAME_SIZE, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.step = ResizeFrames(frame_size)


class QuantizeFramesd(_InvertibleMap):
    """Dictionary form of `QuantizeFrames`."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.step = QuantizeFrames()


class PadFramesd(_InvertibleMap):
    """Dictionary form of `PadFrames`; also adds `num_frames` (int) to the case, for the network."""

    def __init__(
        self,
        keys: KeysCollection,
        sequence_length: int = SEQUENCE_LENGTH,
        sampling: str = "even",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.step = PadFrames(sequence_length, sampling)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = super().__call__(data)
        for key in self.key_iterator(d):
            d["num_frames"] = d[key].meta["num_frames"]
        return d
