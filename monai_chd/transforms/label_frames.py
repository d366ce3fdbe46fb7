"""Label maps along the frames: the frames of a label map that lie on those of its image, pixel for pixel.

How an image becomes frames is `load_frames`' part, whose steps these are.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientation, Transform
from monai.utils import TraceKeys
from numpy.typing import NDArray

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.labels import MYOCARDIUM, STRUCTURES, UNDRAWN
from monai_chd.nifti import open_header, read_volume
from monai_chd.transforms.load_frames import LoadFrames
from monai_chd.transforms.padding import SEQUENCE_LENGTH, PadFrames
from monai_chd.transforms.resizing import FRAME_SIZE, ResizeFrames
from monai_chd.transforms.slicing import ORIENTATION, SliceToFrame

_OF_VALUES = ("ResizeFrames", "QuantizeFrames")
"""Steps whose inverse is not for labels."""

SAME_PLACE = 0.01
"""Voxels by which the corners of a label map may lie elsewhere than its image's: headers are rounded."""


class LoadLabelFrames(Transform):
    """From a label map to the frames that lie on those of its image, uint8, (1, L, S, S), by the nearest voxel.

    Numbers are those of `labels.STRUCTURES`, 1 to 7, and 0; what is beyond (airways, stray values) is 0. Of a label map
    without myocardium every 0 is `labels.UNDRAWN` instead.

    Args:
        frame_size, sequence_length, sampling: those of the image's `LoadFrames`.
    """

    def __init__(
        self, frame_size: int = FRAME_SIZE, sequence_length: int = SEQUENCE_LENGTH, *, sampling: str = "even"
    ) -> None:
        self.orient = Orientation("".join(ORIENTATION), labels=(("L", "R"), ("P", "A"), ("I", "S")))
        self.cut = SliceToFrame()
        self.resize = ResizeFrames(frame_size, nearest=True)
        self.pad = PadFrames(sequence_length, sampling)

    def __call__(self, path: str | Path, image: str | Path | None = None) -> MetaTensor:
        """Read a label map.

        Args:
            path: NIfTI file, integers or floats that are rounded.
            image: of which it is, to be held against; None: it is not.

        Raises:
            UserFileError, UserError: see `nifti.read_volume`; another grid than the image's; no structure at all.
        """
        values, affine = read_volume(path)
        if image is not None:
            _check_grid(path, values.shape, affine, image)
        labels = np.rint(values)
        labels[(labels < 0) | (labels > len(STRUCTURES))] = 0
        labels = labels.astype(np.uint8)
        if not labels.any():
            raise UserError(
                f"{path}: a label map without any of the structures 1 to {len(STRUCTURES)}; take it away or mend it"
            )
        if not (labels == MYOCARDIUM).any():
            labels[labels == 0] = UNDRAWN
        volume: Any = MetaTensor(torch.from_numpy(labels)[None], affine=torch.as_tensor(affine))
        volume.meta["filename_or_obj"] = str(path)
        return self.pad(self.resize(self.cut(self.orient(volume))))

    def inverse(self, data: MetaTensor) -> MetaTensor:
        """Frames of labels back to the volume, (1, L, S, S) to (1, X, Y, Z); see each step's inverse."""
        return self.orient.inverse(self.cut.inverse(self.resize.inverse(self.pad.inverse(data))))  # type: ignore[arg-type, return-value]


def _check_grid(path: str | Path, shape: tuple[int, ...], affine: np.ndarray, image: str | Path) -> None:
    """Refuse a label map that does not lie on its image."""
    stored, expected = open_header(Path(image))
    wanted = (*stored.shape, 1, 1)[:3] if len(stored.shape) < 3 or np.prod(stored.shape[3:]) == 1 else stored.shape
    if shape != tuple(wanted):
        raise UserError(
            f"{path}: a label map of shape {shape} for {image} of shape {tuple(wanted)}; mend one of the two"
        )
    corners = np.array([[*np.unravel_index(n, (2, 2, 2)), 1] for n in range(8)]) * [*(np.array(shape[:3]) - 1), 1]
    away = np.abs(corners @ (np.linalg.inv(expected) @ affine - np.eye(4)).T).max()
    if away > SAME_PLACE:
        raise UserError(
            f"{path}: a label map that lies elsewhere than {image}: by their affines a corner is {away:.2g} voxels away; write "
            f"the affine of the image into it, or resample it"
        )


def to_label_map(load: LoadFrames, frames: MetaTensor, scores: torch.Tensor) -> NDArray[np.uint8]:
    """Scores of structures on frames as a label map of their volume, numbers of `labels.STRUCTURES`, (X, Y, Z).

    Scores are interpolated to the size of the slices before the largest is taken, so that borders are smooth; slices that were
    sampled out have the numbers of the nearest that was kept.

    Args:
        load: what made the frames.
        frames: (1, L, S, S), with the history of `load`.
        scores: logits or probabilities, (8, L, S, S).
    """
    steps = {step[TraceKeys.CLASS_NAME]: step for step in frames.applied_operations}
    shape = steps["ResizeFrames"][TraceKeys.ORIG_SIZE]
    top, left, height, width = steps["ResizeFrames"][TraceKeys.EXTRA_INFO]["box"]
    count = int(frames.meta["num_frames"])
    labels = torch.zeros((1, frames.shape[1], *shape[-2:]), dtype=torch.uint8)
    for frame in range(count):
        own = scores[None, :, frame, top : top + height, left : left + width].float()
        if (height, width) != tuple(shape[-2:]):
            own = F.interpolate(own, tuple(shape[-2:]), mode="bilinear", align_corners=False)
        labels[0, frame] = own.argmax(1)[0].to(torch.uint8)
    history = [step for step in frames.applied_operations if step[TraceKeys.CLASS_NAME] not in _OF_VALUES]
    volume = load.orient.inverse(load.cut.inverse(load.pad.inverse(MetaTensor(labels, applied_operations=history))))
    found: NDArray[np.uint8] = np.rint(volume.numpy()[0]).astype(np.uint8)
    return found


class LoadLabelFramesd(MapTransform):
    """Dictionary form of `LoadLabelFrames`. It comes before the image's `LoadFramesd`, which replaces the image's path.

    Args:
        keys: entries that are paths of label maps.
        image_key: entry that is the path of their image.
        frame_size, sequence_length, sampling: see `LoadLabelFrames`.
        allow_missing_keys: leave a case without one of `keys` as it is.
    """

    @bare_mistakes()
    def __init__(
        self,
        keys: KeysCollection,
        frame_size: int = FRAME_SIZE,
        sequence_length: int = SEQUENCE_LENGTH,
        *,
        sampling: str = "even",
        image_key: str = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.step = LoadLabelFrames(frame_size, sequence_length, sampling=sampling)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each path by its frames.

        Raises:
            UserError: the image is frames already; see `LoadLabelFrames`.
        """
        d = dict(data)
        image = d[self.image_key]
        if not isinstance(image, (str, Path)):
            raise UserError(
                "LoadLabelFramesd: expected the path of the image, to be held against; put it before LoadFramesd"
            )
        for key in self.key_iterator(d):
            d[key] = self.step(d[key], image)
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Put frames of labels back into the space of their volumes."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.step.inverse(d[key])
        return d
