"""From a NIfTI file to a padded sequence of frames in one pass.

Gives what the single steps give one after the other; what each of them does is told in the module of its name.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientation, Transform
from numpy.typing import NDArray

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.hu_offset import OFFSETS, StoredIntensities
from monai_chd.nifti import READERS, bad_voxels, refuse_bad_voxels
from monai_chd.scans.opening import is_series, known_offset, open_scan
from monai_chd.streaming import Slab, SlicedVolume
from monai_chd.transforms.intensity import WINDOW, QuantizeFrames, WindowHU
from monai_chd.transforms.load_volume import LoadVolume
from monai_chd.transforms.padding import SEQUENCE_LENGTH, PadFrames
from monai_chd.transforms.resizing import FRAME_SIZE, ResizeFrames, interpolate
from monai_chd.transforms.slicing import ORIENTATION, SliceToFrame
from monai_chd.transforms.steps import OWN_SETTINGS

STREAM = "stream"
"""The reader that streams; the others are those of `nifti`."""

_LONGEST_NUMBER = 8
"""Bytes of the widest numbers that are streamed."""


class LoadFrames(Transform):
    """From a NIfTI file to a padded sequence of frames in one pass, (1, L, S, S).

    Gives what `LoadVolume`, MONAI's `Orientation("LPS")`, `SliceToFrame`, `WindowHU`, `ResizeFrames`, `QuantizeFrames` and
    `PadFrames` give one after the other, meta data and history included, but slice by slice: the volume is never whole
    in memory, a slice that is not kept is never windowed or resized, and inflating overlaps the rest. What cannot be
    streamed (4D cine, the other readers) goes through those transforms; of a volume whose slices are stored coronal or
    sagittal the stored values are held. Not for chains with something of your own between the steps: take the single
    transforms there.

    Args:
        frame_size: S; see `ResizeFrames`.
        sequence_length: L; see `PadFrames`.
        window: HU of 0 and 1; see `WindowHU`.
        sampling: see `PadFrames`.
        quantize: uint8 in 0…255; False gives float32 in [0, 1].
        reader: "stream", or one of `nifti.READERS`.
    """

    def __init__(
        self,
        frame_size: int = FRAME_SIZE,
        sequence_length: int = SEQUENCE_LENGTH,
        *,
        window: Sequence[float] = WINDOW,
        sampling: str = "even",
        quantize: bool = True,
        reader: str = STREAM,
    ) -> None:
        if reader not in (STREAM, *READERS):
            raise UserError(f"unknown reader {reader!r}: expected one of {', '.join((STREAM, *READERS))}")
        self.reader = reader
        self.load = LoadVolume("nibabel" if reader == STREAM else reader)
        self.orient = Orientation("".join(ORIENTATION), labels=(("L", "R"), ("P", "A"), ("I", "S")))
        self.cut = SliceToFrame()
        self.window = WindowHU(window)
        self.resize = ResizeFrames(frame_size)
        self.quantize = QuantizeFrames() if quantize else None
        self.pad = PadFrames(sequence_length, sampling)

    def __call__(self, path: str | Path, hu_offset: float | None = None, cine_slice: int | None = None) -> MetaTensor:
        """Read a file.

        Args:
            path: NIfTI file.
            hu_offset: see `LoadVolume`. When it is not known, every slice is looked at to find it.
            cine_slice: see `SliceToFrame`.

        Raises:
            UserFileError, UserError: see `LoadVolume` and `SliceToFrame`.
        """
        stored = open_scan(path) if self.reader == STREAM or is_series(path) else None
        if stored is None or stored.times > 1 or stored.dtype.itemsize > _LONGEST_NUMBER:
            return self._composed(path, hu_offset, cine_slice)
        values, offset = self._streamed(stored, known_offset(path, hu_offset))
        described = self._described(path, stored, offset)
        return MetaTensor(
            torch.from_numpy(values), meta=described.meta, applied_operations=described.applied_operations
        )

    def inverse(self, data: MetaTensor) -> MetaTensor:
        """Frames, or a map made in frame space, back to the volume, (1, L, S, S) to (C, X, Y, Z); see each step's inverse."""
        frames = self.pad.inverse(data)
        if self.quantize:
            frames = self.quantize.inverse(frames)
        return self.orient.inverse(self.cut.inverse(self.resize.inverse(frames)))  # type: ignore[arg-type, return-value]

    def _composed(self, path: str | Path, hu_offset: float | None, cine_slice: int | None) -> MetaTensor:
        volume: Any = self.orient(self.load(path, hu_offset))
        frames = self.resize(self.window(self.cut(volume, cine_slice)))
        return self.pad(self.quantize(frames) if self.quantize else frames)

    def _described(self, path: str | Path, stored: SlicedVolume, offset: float) -> MetaTensor:
        """Meta data and history of the result: from the same steps, done on a tensor that has a shape but no values."""
        affine = torch.as_tensor(stored.affine)
        meta = {"filename_or_obj": str(path), "original_affine": affine, "intensity": "HU", "hu_offset": float(offset)}
        volume: Any = self.orient(MetaTensor(torch.empty((1, *stored.shape), device="meta"), affine=affine, meta=meta))
        frames = self.resize(self.cut(volume))
        if self.quantize:
            self.quantize.push_transform(frames)  # type: ignore[no-untyped-call]
        return self.pad(frames)

    def _streamed(self, stored: SlicedVolume, offset: float | None) -> tuple[NDArray[Any], float]:
        """Values of the result, shape (1, L, S, S), and the offset that made HU of them.

        The file is read once: frames are made with every offset that is still possible.
        """
        seen = StoredIntensities()
        frames = _FramesInFile(stored, self.pad)
        size = self.resize.frame_size
        shape, dtype = (1, self.pad.sequence_length, size, size), np.uint8 if self.quantize else np.float32
        possible = {each: np.zeros(shape, dtype) for each in (OFFSETS if offset is None else (offset,))}
        renderer = _FrameRenderer(self.window.window, self.resize, frames.height, frames.width)
        bad = 0
        for start, stored_values in frames.parts(stored, whole=offset is None):
            values = stored.scaled(stored_values)
            bad += bad_voxels(values)
            if bad:
                continue  # from here on they are only counted
            if offset is None:
                seen.add(values)
                if seen.likely is not None:
                    possible = {seen.likely: possible[seen.likely]}
            for position, frame in frames.kept(values, start):
                for each, out in possible.items():
                    renderer.render(frame, each, out[0, position], quantize=self.quantize is not None)
        refuse_bad_voxels(stored.path, bad, int(np.prod(stored.shape)))
        if offset is None:
            offset = seen.hu_offset(stored.path)
        return possible[offset], float(offset)


class _FramesInFile:
    """Where the frames of a 3D volume lie in its file, and which of them are kept."""

    def __init__(self, stored: SlicedVolume, pad: PadFrames) -> None:
        world, towards = nib.io_orientation(stored.affine).astype(int).T
        axes = [2 - int(np.flatnonzero(world == axis)[0]) for axis in (2, 1, 0)]  # of (Z, Y, X), for T, H, W
        self.axial = axes[0] == 0
        # right to left, anterior to posterior, feet to head: nibabel counts towards right, anterior and head as +1
        self._order = axes
        self._turned = [towards[2 - axis] == sign for axis, sign in zip(axes, (-1, 1, 1), strict=True)]
        total, self.height, self.width = (stored.shape[::-1][axis] for axis in axes)
        positions = np.full(total, -1)
        indices = pad.frame_indices(total).numpy()
        positions[indices] = np.arange(len(indices))
        self._positions = positions[::-1] if self._turned[0] else positions
        last = int(np.flatnonzero(self._positions >= 0)[-1]) + 1
        self._stop = None if last == total else last

    def parts(self, stored: SlicedVolume, *, whole: bool) -> Iterable[Slab]:
        """The stored slices as far as they are needed, at once where each frame lies in all of them.

        Args:
            stored: the volume.
            whole: go on to the end after the last slice that is kept.
        """
        if self.axial:
            return stored.slabs(None if whole else self._stop)
        return [Slab(0, stored.read_whole())]

    def kept(self, values: NDArray[Any], start: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Position in the sequence and values (H, W) of each frame kept, of slices (n, Y, X) or a whole volume."""
        _, rows, columns = self._turned
        frames = values.transpose(self._order)[:, :: -1 if rows else 1, :: -1 if columns else 1]
        for frame, position in zip(frames, self._positions[start : start + len(frames)], strict=True):
            if position >= 0:
                yield int(position), frame


class _FrameRenderer:
    """Windows, resizes and quantises one frame after the other in the same memory."""

    def __init__(self, window: tuple[float, float], resize: ResizeFrames, height: int, width: int) -> None:
        lower, upper = window
        self._lower, self._range = np.float32(lower), np.float32(upper - lower)
        self._values = np.empty((height, width), np.float32)
        top, left, *size = resize.box(height, width)
        self._resized = None if size == [height, width] else size
        self._place = slice(top, top + size[0]), slice(left, left + size[1])

    def render(self, frame: NDArray[Any], offset: float, out: NDArray[Any], *, quantize: bool) -> None:
        """Put a frame (H, W) of stored numbers into `out` (S, S), as the single transforms would in their order."""
        values = self._values
        np.copyto(values, frame, casting="unsafe")
        if offset:
            values += np.float32(offset)
        values -= self._lower
        values /= self._range
        np.maximum(values, 0, out=values)
        np.minimum(values, 1, out=values)
        if self._resized:
            values = interpolate(torch.from_numpy(values)[None, None], self._resized)[0, 0].numpy()
        if quantize:
            values *= 255
            np.rint(values, out=values)
        out[self._place] = values


class LoadFramesd(MapTransform):
    """Dictionary form of `LoadFrames`; also adds `num_frames` (int) to the case, for the network.

    Args:
        keys: entries that are paths.
        frame_size, sequence_length, settings: see `LoadFrames`.
        hu_offset, cine_slice: see `LoadVolume` and `SliceToFrame`; a case's own entries of these names go before.
        allow_missing_keys: leave a case without one of `keys` as it is.
    """

    @bare_mistakes()
    def __init__(
        self,
        keys: KeysCollection,
        frame_size: int = FRAME_SIZE,
        sequence_length: int = SEQUENCE_LENGTH,
        *,
        hu_offset: float | None = None,
        cine_slice: int | None = None,
        allow_missing_keys: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.step = LoadFrames(frame_size, sequence_length, **settings)
        self.hu_offset, self.cine_slice = hu_offset, SliceToFrame(cine_slice).cine_slice

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each path by its frames."""
        d = dict(data)
        asked = {name: d.pop(name, None) for name in OWN_SETTINGS}
        own = {name: getattr(self, name) if value is None else value for name, value in asked.items()}
        for key in self.key_iterator(d):
            d[key] = self.step(d[key], **own)
            d["num_frames"] = d[key].meta["num_frames"]
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Put frames back into the space of their volumes."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.step.inverse(d[key])
        return d
