"""The structure network: which structure of the heart each pixel of each frame shows, from the frame and its neighbours.

What a classifier makes of that is `structure_encoder`'s part, what label maps leave open `structure_loss`'.
"""

from collections.abc import Sequence

import torch
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.nn import functional as F

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.labels import STRUCTURES
from monai_chd.networks.sequences import checked_input, frame_mask, plain_tensor, to_unit_range


def whole(value: object, smallest: int) -> bool:
    """Whether a setting is a whole number of at least so much."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= smallest


CLASSES_OF_PIXELS = len(STRUCTURES) + 1


class StructureNet(nn.Module):
    """Name the structure at each pixel of each frame: a 2D U-Net of MONAI's over the frame and its neighbours (2.5D).

    A frame's result depends on it and `context` frames on each side, of which those beyond the first and last real frame are
    these again; so neither chunks nor padding change it.

    Args:
        channels: of the U-Net's levels, each of half the resolution of the one before.
        context: neighbours on each side.
        chunk_size: frames read at once, at most.

    Raises:
        UserError: no level, a context below 0 or no frame at once.
    """

    @bare_mistakes()
    def __init__(self, channels: Sequence[int] = (16, 32, 64, 96), *, context: int = 2, chunk_size: int = 16) -> None:
        super().__init__()
        levels = [level for level in channels if whole(level, 1)] if isinstance(channels, Sequence) else []
        if not isinstance(channels, Sequence) or len(levels) < len(channels) or len(levels) < 2:
            raise UserError(
                f"channels: expected whole numbers for two levels or more, such as [16, 32, 64, 96], came {channels!r}"
            )
        if not whole(context, 0) or not whole(chunk_size, 1):
            raise UserError(
                f"expected a context of 0 or more and a chunk_size of 1 or more, came {context!r} and {chunk_size!r}"
            )
        self.context = context
        self.chunk_size = chunk_size
        self.multiple = 2 ** (len(channels) - 1)
        self.unet = UNet(
            spatial_dims=2,
            in_channels=2 * context + 1,
            out_channels=CLASSES_OF_PIXELS,
            channels=channels,
            strides=[2] * (len(channels) - 1),
            num_res_units=2,
            norm="instance",
        )

    def forward(self, frames: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Score the structures of each pixel.

        Args:
            frames: windowed intensity, float in [0, 1] or uint8 in 0..255, shape (B, 1, T, H, W), padding at the end of T.
                Or frames with their neighbours as channels, float, (N, 2 * context + 1, H, W), as `RandFrameStacksd` draws them.
            num_frames: real frames of each case, int64, shape (B,), 1..T. None: trailing all-zero frames are padding.

        Returns:
            Logits, shape (B, 8, T, H, W), or (N, 8, H, W) of stacks, of background and `labels.STRUCTURES`; zero in the frames
            of padding.
        """
        if frames.dim() == 4:
            return self.read(plain_tensor(frames))
        frames, num_frames = checked_input(frames, num_frames)
        return self.scores(frames, num_frames)

    def scores(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        """`forward` of checked frames."""
        cases, _, length, height, width = frames.shape
        positions = torch.nonzero(frame_mask(num_frames, length))  # (N, 2)
        chunks: list[Tensor] = []
        for start in range(0, positions.shape[0], self.chunk_size):
            chunk = positions[start : start + self.chunk_size]
            chunks.append(self.read(self.stacks(frames, num_frames, chunk)))
        logits = torch.cat(chunks)  # (N, 8, H, W)
        padded = logits.new_zeros((cases, length, logits.shape[1], height, width))
        padded[positions[:, 0], positions[:, 1]] = logits
        return padded.transpose(1, 2)

    def of_heart(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        """What is read of frames: all of them (`CroppedStructureNet` cuts the heart out)."""
        return frames

    def stacks(self, frames: Tensor, num_frames: Tensor, positions: Tensor) -> Tensor:
        """Frames at positions (n, 2) of case and time, with their neighbours as channels, float, (n, 2 * context + 1, H, W)."""
        cases, times = positions[:, 0], positions[:, 1]
        around = torch.arange(-self.context, self.context + 1, device=frames.device)
        last = num_frames[cases] - 1
        wanted = torch.minimum((times[:, None] + around).clamp_min(0), last[:, None])  # (n, 2 * context + 1)
        return to_unit_range(frames[cases[:, None], 0, wanted])

    def read(self, stacks: Tensor) -> Tensor:
        """Logits (N, 8, H, W) of stacks (N, 2 * context + 1, H, W), which may have any size."""
        height, width = stacks.shape[2], stacks.shape[3]
        below, right = -height % self.multiple, -width % self.multiple
        logits: Tensor = self.unet(F.pad(stacks, [0, right, 0, below]))
        return logits[:, :, :height, :width]
