"""Where the heart lies in the frames of a case, and a structure network that looks there: small hearts in large scans.

What is named at a pixel is `structure_network`'s part, what a classifier makes of it `structure_encoder`'s.
"""

import torch
from torch import Tensor, nn
from torch.jit import is_scripting  # type: ignore[attr-defined]  # public, but not in torch's __all__
from torch.nn import functional as F

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.networks.sequences import checked_input, frame_mask, is_recording, to_unit_range
from monai_chd.networks.structure_network import StructureNet, whole

EDGE = 0.002
"""Share of the heart's pixels that may lie beyond each side of its box: stray ones."""

SMALLEST = 0.2
"""Side of the smallest box, of the frame's."""

LEAST = 0.002
"""Share of the real frames' pixels that are heart, at least; with fewer no heart is found and the box is the whole frame."""

CROP_SIZE, COARSE_SIZE, MARGIN = 96, 64, 0.08


class CroppedStructureNet(nn.Module):
    """Two structure networks: the first finds the heart in small frames, the second reads its box. In and out as `StructureNet`.

    The box is that of a case, the same in all its frames, and square: of all that the first network takes for a structure, with
    a margin. Where it finds no heart, the second reads the whole frame.

    Args:
        fine, coarse: the networks. They are taken over.
        size: pixels, in each direction, of what the second reads.
        coarse_size: of what the first reads.
        margin: on each side of the heart, as a share of its box; kept with the weights.

    Raises:
        UserError: sizes below 16, or a margin that is no number of 0 to 1.
    """

    margin: Tensor

    @bare_mistakes()
    def __init__(
        self,
        fine: StructureNet | None = None,
        coarse: StructureNet | None = None,
        *,
        size: int = CROP_SIZE,
        coarse_size: int = COARSE_SIZE,
        margin: float = MARGIN,
    ) -> None:
        super().__init__()
        if not whole(size, 16) or not whole(coarse_size, 16) or not 0 <= margin <= 1:
            raise UserError(
                f"expected sizes of 16 pixels or more and a margin of 0 to 1, came {size!r}, {coarse_size!r} and {margin!r}"
            )
        self.fine = StructureNet() if fine is None else fine
        self.coarse = StructureNet() if coarse is None else coarse
        self.size = size
        self.coarse_size = coarse_size
        self.context = self.fine.context
        self.chunk_size = self.fine.chunk_size
        self.register_buffer("margin", torch.tensor(float(margin)))

    def forward(self, frames: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Score the structures of each pixel; frames (B, 1, T, H, W) and result as of `StructureNet.forward`.

        Beyond the box all is background.
        """
        frames, num_frames = checked_input(frames, num_frames)
        length = frames.shape[2]
        frames = without_padding(frames, num_frames)
        box = self.boxes(frames, num_frames)
        scores = self.fine.scores(crop(frames, box, self.size), num_frames)
        real = frame_mask(num_frames, frames.shape[2])[:, None, :, None, None]
        found = put_back(scores, box, frames.shape[3], frames.shape[4]) * real
        return F.pad(found, [0, 0, 0, 0, 0, length - frames.shape[2]])

    def boxes(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        """The heart's box in checked frames, (B, 3); see `heart_boxes`."""
        small = crop(frames, whole_frames(frames), self.coarse_size)
        real = frame_mask(num_frames, frames.shape[2])  # (B, T)
        if not is_scripting() and is_recording():
            columns, rows = self._heart_of_all(small, num_frames, real)
        else:
            columns, rows = self._heart(small, num_frames, real)
        pixels = num_frames * (self.coarse_size * self.coarse_size)
        return heart_boxes(columns, rows, pixels, self.margin)

    def _heart(self, small: Tensor, num_frames: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels of any structure by column and by row, summed over a case, each (B, S)."""
        positions = torch.nonzero(real)
        columns = torch.zeros(small.shape[0], small.shape[4], device=small.device)
        rows = torch.zeros(small.shape[0], small.shape[3], device=small.device)
        for start in range(0, positions.shape[0], self.coarse.chunk_size):
            chunk = positions[start : start + self.coarse.chunk_size]
            heart = self._heart_in(small, num_frames, chunk)
            columns = columns.index_add(0, chunk[:, 0], heart.sum(1))
            rows = rows.index_add(0, chunk[:, 0], heart.sum(2))
        return columns, rows

    @torch.jit.unused
    def _heart_of_all(self, small: Tensor, num_frames: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """`_heart` for a graph recorded once for every length (ONNX export)."""
        cases, length = real.shape
        case = torch.arange(cases, device=small.device)[:, None].expand(cases, length)
        time = torch.arange(length, device=small.device)[None].expand(cases, length)
        heart = self._heart_in(small, num_frames, torch.stack([case.flatten(), time.flatten()], 1))
        heart = heart.reshape(cases, length, heart.shape[1], -1) * real[:, :, None, None]
        return heart.sum((1, 2)), heart.sum((1, 3))

    def _heart_in(self, small: Tensor, num_frames: Tensor, positions: Tensor) -> Tensor:
        """Which pixels of frames at positions (n, 2) are of any structure rather than of none, 0 or 1, (n, S, S).

        Not how probable: what is a little probable over a whole chest would stretch the box.
        """
        scores = self.coarse.read(self.coarse.stacks(small, num_frames, positions))
        return (scores[:, 1:].amax(1) > scores[:, 0]).float()

    def of_heart(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        """Frames (B, 1, T, H, W) of the heart's box alone, (B, 1, t, size, size), up to the last real one of all cases."""
        frames = without_padding(frames, num_frames)
        return crop(frames, self.boxes(frames, num_frames), self.size)

    def stacks(self, frames: Tensor, num_frames: Tensor, positions: Tensor) -> Tensor:
        """As of `StructureNet`, of frames that `of_heart` gave."""
        return self.fine.stacks(frames, num_frames, positions)

    def read(self, stacks: Tensor) -> Tensor:
        """As of `StructureNet`, of `stacks`."""
        return self.fine.read(stacks)


def without_padding(frames: Tensor, num_frames: Tensor) -> Tensor:
    """Frames (B, 1, T, H, W) up to the last real one of all cases: cutting boxes out of padding took longer than all the rest."""
    if is_scripting() or not is_recording():  # a graph recorded for every length keeps it
        return frames[:, :, : int(num_frames.amax())]
    return frames


def whole_frames(frames: Tensor) -> Tensor:
    """The box that is the whole frame, for each case, (B, 3)."""
    return torch.tensor([0.0, 0.0, 1.0], device=frames.device).expand(frames.shape[0], 3)


def heart_boxes(
    columns: Tensor, rows: Tensor, pixels: Tensor, margin: Tensor, smallest: float = SMALLEST, least: float = LEAST
) -> Tensor:
    """Square boxes around hearts: x and y of the centre and half the side, (B, 3), where the frame goes from -1 to 1.

    Args:
        columns: pixels that are heart, by column, (B, W).
        rows: the same by row, (B, H).
        pixels: of all real frames, (B,).
        margin: on each side, as a share of the box.
        smallest, least: constants of this module, which TorchScript takes no other way.
    """
    left, right = extent(columns)
    top, bottom = extent(rows)
    half = torch.maximum(right - left, bottom - top) / 2 * (1 + 2 * margin)
    half = half.clamp(smallest, 1.0)
    x, y = (left + right) / 2, (top + bottom) / 2
    x, y = torch.minimum(torch.maximum(x, half - 1), 1 - half), torch.minimum(torch.maximum(y, half - 1), 1 - half)
    found = columns.sum(1) >= least * pixels
    box = torch.stack([x, y, half], 1)
    nowhere = torch.tensor([0.0, 0.0, 1.0], device=box.device)
    return torch.where(found[:, None], box, nowhere)


def extent(profile: Tensor, edge: float = EDGE) -> tuple[Tensor, Tensor]:
    """From where to where a profile (B, W) goes, but for an `edge` of it on each side; the whole is -1 to 1, each (B,)."""
    width = profile.shape[1]
    share = profile.cumsum(1) / profile.sum(1, keepdim=True).clamp_min(1e-6)
    first = (share <= edge).sum(1)
    last = (share < 1 - edge).sum(1)
    return 2 * first / width - 1, (2 * (last + 1) / width - 1).clamp_max(1.0)


def crop(frames: Tensor, box: Tensor, size: int) -> Tensor:
    """What lies in a box of frames (B, 1, T, H, W), uint8 or float, as float (B, 1, T, size, size).

    The more pixels of the frame one of the result covers, the more it becomes the mean of four places, so that much larger frames
    leave nothing out and others stay sharp.
    """
    shown = to_unit_range(frames[:, 0])
    sharp = F.grid_sample(shown, places(box, size, size), align_corners=False)
    mean = F.avg_pool2d(F.grid_sample(shown, places(box, 2 * size, 2 * size), align_corners=False), 2)
    covers = (box[:, 2] * shown.shape[3] / size - 1).clamp(0.0, 1.0)[:, None, None, None]
    return (sharp + covers * (mean - sharp))[:, None]


def crop_labels(labels: Tensor, box: Tensor, size: int) -> Tensor:
    """The same of label maps, (B, 1, T, H, W) uint8, by the nearest pixel."""
    found = F.grid_sample(labels[:, 0].float(), places(box, size, size), mode="nearest", align_corners=False)
    return found.round().to(labels.dtype)[:, None]


def places(box: Tensor, height: int, width: int) -> Tensor:
    """Where in the frame the pixels of a box lie, as `grid_sample` takes it, (B, height, width, 2)."""
    x = (torch.arange(width, device=box.device) * 2 + 1) / width - 1
    y = (torch.arange(height, device=box.device) * 2 + 1) / height - 1
    grid = torch.stack([x[None].expand(height, width), y[:, None].expand(height, width)], 2)
    return box[:, None, None, :2] + box[:, None, None, 2:] * grid[None]


def put_back(scores: Tensor, box: Tensor, height: int, width: int) -> Tensor:
    """Scores (B, 8, T, S, S) of a box in the whole frame, (B, 8, T, height, width); beyond the box they are of background."""
    cases, kinds, length = scores.shape[0], scores.shape[1], scores.shape[2]
    everywhere = places(whole_frames(scores), height, width)
    inside = (everywhere - box[:, None, None, :2]) / box[:, None, None, 2:]
    found = F.grid_sample(scores.flatten(1, 2).float(), inside, padding_mode="border", align_corners=False)
    found = found.reshape(cases, kinds, length, height, width)
    beyond = (inside.abs() > 1).any(3)[:, None, None]
    background = torch.full((1, kinds, 1, 1, 1), -20.0, device=scores.device)
    background[:, 0] = 0.0
    return torch.where(beyond, background, found)
