"""Frames that know the anatomy: descriptors of the structures in each frame, from the structure network's probabilities.

Which pixel shows what is `structure_network`'s part. Everything here is a smooth function of its logits, so that both can be
fine-tuned together.
"""

from itertools import combinations
from typing import Final

import torch
from torch import Tensor, nn
from torch.jit import is_scripting  # type: ignore[attr-defined]  # public, but not in torch's __all__
from torch.nn import functional as F

from monai_chd.labels import STRUCTURES
from monai_chd.networks.heart_crop import CroppedStructureNet
from monai_chd.networks.sequences import frame_mask, is_recording
from monai_chd.networks.structure_network import StructureNet

PAIRS = tuple(combinations(range(len(STRUCTURES)), 2))

PER_FRAME = (
    *(f"{what} {name}" for what in ("area", "left", "back", "width", "depth", "intensity") for name in STRUCTURES),
    *(f"{what} {name}" for what in ("radius", "Euler", "goes on") for name in STRUCTURES),
    *(f"{what} {STRUCTURES[a]}-{STRUCTURES[b]}" for what in ("touch", "touch next") for a, b in PAIRS),
    *("Ao left of PA", "Ao behind PA", "Ao in front", "Ao behind", "place", "heart"),
)
"""Descriptors of one frame, in this order."""

PER_CASE = (
    *(f"volume {name}" for name in STRUCTURES),
    *(f"{what} {name} of all" for what in ("left", "back", "up") for name in STRUCTURES),
    *(f"contact {STRUCTURES[a]}-{STRUCTURES[b]}" for a, b in PAIRS),
    *("Ao behind, mean", "Ao behind, narrowest", "Ao behind, widest", "Ao behind, narrowest on top"),
)
"""Descriptors of the whole case, the same in all its frames: the sums over them."""


class StructureEncoder(nn.Module):
    """Describe each frame by its structures, in coordinates of the heart; an encoder as `CNNLSTM` takes it.

    Of every structure, from its probability at each pixel: area, centre and spread, mean intensity, radius (twice the area over
    the perimeter), Euler number (pixels less edges plus squares: components less holes), overlap with itself in the next frame;
    of each pair, how long they touch within the frame and on to the next one; where the aorta lies beside the pulmonary
    artery; where the frame lies along the heart and how much of it is in it. With `volume`, the sums of all frames as well:
    volumes, places, contacts.

    Lengths are in units of the heart's own size (spread of all structures in and along frames), places from its centre, since
    the size of a voxel is not always known. The next frame of the last real one is none. Neither chunks nor padding change a
    descriptor.

    Args:
        network: the structure network, or the pair that looks at the heart alone. It is taken over.
        trainable: False fixes it, see `FrameEncoder`.
        volume: also give every frame the descriptors of the whole case.
        sharpness: the logits are multiplied by it. What a network is a little unsure of would add up to contacts that are not
            there; with more, a descriptor comes close to that of the most probable structure and stays smooth.
    """

    in_channels: int
    feature_size: int
    trainable: bool
    volume: bool
    sharpness: float
    first: Tensor
    second: Tensor
    # constants that TorchScript takes: it knows none of a module
    small: Final = 1e-6
    aorta: Final = STRUCTURES.index("Ao")
    pulmonary: Final = STRUCTURES.index("PA")

    def __init__(
        self,
        network: StructureNet | CroppedStructureNet | None = None,
        *,
        trainable: bool = False,
        volume: bool = True,
        sharpness: float = 3.0,
    ) -> None:
        super().__init__()
        self.network = StructureNet() if network is None else network
        self.in_channels = 1
        self.trainable = trainable
        self.volume = volume
        self.sharpness = float(sharpness)
        self.feature_size = len(PER_FRAME) + (len(PER_CASE) if volume else 0)
        first, second = zip(*PAIRS, strict=True)
        self.register_buffer("first", torch.tensor(first), persistent=False)
        self.register_buffer("second", torch.tensor(second), persistent=False)
        if not trainable:
            self.network.requires_grad_(False)

    def forward(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        """Describe each real frame; arguments and result as of `FrameEncoder.forward`, F descriptors.

        Raises:
            ValueError: frames with another number of channels.
        """
        if frames.shape[1] != self.in_channels:
            raise ValueError(f"expected frames of {self.in_channels} channels, came {frames.shape[1]}")
        real = frame_mask(num_frames, frames.shape[2])  # (B, T)
        frames = self.network.of_heart(frames, num_frames)
        if not is_scripting() and is_recording():
            sums, touch, onward, rows = self._look_at_all(frames, num_frames, real)
        else:
            sums, touch, onward, rows = self._look(frames, num_frames, real)
        return self._in_heart(sums, touch, onward, rows, real)

    def _shown(self, frames: Tensor, num_frames: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of the structures (n, S, H, W) and intensity (n, H, W) of frames at positions (n, 2)."""
        stacks = self.network.stacks(frames, num_frames, positions)
        shown = (self.sharpness * self.network.read(stacks).float()).softmax(1)[:, 1:]
        return shown, stacks[:, self.network.context].float()

    def _look(self, frames: Tensor, num_frames: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What each real frame shows, a few at a time; zeros for padding.

        Returns:
            Sums over pixels (B, T, S, 8), products of pairs of neighbours within frames (B, T, S, S), and those of each frame
            with the next one, (B, T, S, S); the aorta in each row, (B, T, 1, H).
        """
        positions = torch.nonzero(real)  # (N, 2)
        sums: list[Tensor] = []
        touch: list[Tensor] = []
        onward: list[Tensor] = []
        rows: list[Tensor] = []
        last = torch.zeros(0)
        for start in range(0, positions.shape[0], self.network.chunk_size):
            shown, image = self._shown(frames, num_frames, positions[start : start + self.network.chunk_size])
            sums.append(moments(shown, image))
            touch.append(contacts(shown))
            rows.append(shown[:, self.aorta : self.aorta + 1].sum(3))
            flat = shown.flatten(2)
            if start > 0:
                onward.append(last @ flat[:1].transpose(1, 2))
            onward.append(flat[:-1] @ flat[1:].transpose(1, 2))
            last = flat[-1:]
        onward.append(torch.zeros_like(touch[0][:1]))
        follows = F.pad(positions[1:, 0] == positions[:-1, 0], [0, 1])  # the next one is of the same case
        onwards = torch.cat(onward) * follows[:, None, None]
        return (
            padded(torch.cat(sums), real, positions),
            padded(torch.cat(touch), real, positions),
            padded(onwards, real, positions),
            padded(torch.cat(rows), real, positions),
        )

    @torch.jit.unused
    def _look_at_all(self, frames: Tensor, num_frames: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`_look` for a graph recorded once for every length (ONNX export): all frames are read, padding is zeroed after."""
        cases, length = real.shape
        case = torch.arange(cases, device=frames.device)[:, None].expand(cases, length)
        time = torch.arange(length, device=frames.device)[None].expand(cases, length)
        shown, image = self._shown(frames, num_frames, torch.stack([case.flatten(), time.flatten()], 1))
        flat = shown.flatten(2).reshape(cases, length, shown.shape[1], -1)
        onward = F.pad(flat[:, :-1] @ flat[:, 1:].transpose(2, 3), [0, 0, 0, 0, 0, 1])
        follows = F.pad(real[:, 1:], [0, 1])
        sums, touch = moments(shown, image), contacts(shown)
        return (
            sums.reshape(cases, length, *sums.shape[1:]) * real[:, :, None, None],
            touch.reshape(cases, length, *touch.shape[1:]) * real[:, :, None, None],
            onward * follows[:, :, None, None],
            shown[:, self.aorta : self.aorta + 1].sum(3).reshape(cases, length, 1, -1) * real[:, :, None, None],
        )

    def _in_heart(self, sums: Tensor, touch: Tensor, onward: Tensor, rows: Tensor, real: Tensor) -> Tensor:
        """What `_look` gives to descriptors in units of the heart, (B, T, F)."""
        area, x, y, xx, yy, bright, edge, square = sums.unbind(3)  # each (B, T, S)
        z = torch.arange(sums.shape[1], device=sums.device, dtype=sums.dtype)[None, :, None]
        total = over_case(area) + self.small  # (B, 1, 1), as all that is of a case
        mx, my, mz = over_case(x) / total, over_case(y) / total, over_case(area * z) / total
        spread = (over_case(xx) + over_case(yy)) / total - mx * mx - my * my
        size = 2 * spread.clamp_min(1.0).sqrt()  # of the heart in a frame, some radius, in pixels
        tall = 2 * (over_case(area * (z - mz) ** 2) / total).clamp_min(0.25).sqrt()  # and along frames

        there = area / (area + 1.0)  # from some pixels on
        cx, cy = x / (area + self.small), y / (area + self.small)
        left, back = there * (cx - mx) / size, there * (cy - my) / size
        width = there * (xx / (area + self.small) - cx * cx).clamp_min(self.small).sqrt() / size
        depth = there * (yy / (area + self.small) - cy * cy).clamp_min(self.small).sqrt() / size
        perimeter = 4 * area - 2 * edge  # the sides of all pixels but those that two of them share
        first, second = self.first, self.second
        touches = touch[:, :, first, second] + touch[:, :, second, first]  # (B, T, P), in sides of pixels
        onwards = onward[:, :, first, second] + onward[:, :, second, first]  # in pixels
        behind = self._behind(rows, my)
        before = (area[:, :, self.aorta] - behind).clamp_min(0)
        vessels = there[:, :, self.aorta] * there[:, :, self.pulmonary]
        described = [
            (area.clamp_min(0) + self.small).sqrt() / size,
            left,
            back,
            width,
            depth,
            there * bright / (area + self.small),
            there * 2 * area / (perimeter + 1.0) / size,
            there * torch.tanh((area - edge + square) / 3),
            there * torch.diagonal(onward, 0, 2, 3) / (area + 1.0),
            torch.log1p(10 * touches / size),
            torch.log1p(100 * onwards / size**2),
            (vessels * (left[:, :, self.aorta] - left[:, :, self.pulmonary]))[:, :, None],
            (vessels * (back[:, :, self.aorta] - back[:, :, self.pulmonary]))[:, :, None],
            (before + self.small).sqrt()[:, :, None] / size,
            (behind + self.small).sqrt()[:, :, None] / size,
            (z - mz) / tall,
            (area.sum(2, keepdim=True) + self.small).sqrt() / size,
        ]
        if self.volume:
            whole = area.sum(1, keepdim=True)  # (B, 1, S)
            present = whole / (whole + 10.0)
            surface = touches.sum(1, keepdim=True) / (size * tall) + onwards.sum(1, keepdim=True) / size**2
            for case in (
                torch.log(whole / (size**2 * tall) + 1e-3),
                present * (x.sum(1, keepdim=True) / (whole + self.small) - mx) / size,
                present * (y.sum(1, keepdim=True) / (whole + self.small) - my) / size,
                present * ((area * z).sum(1, keepdim=True) / (whole + self.small) - mz) / tall,
                torch.log(surface + 1e-3),
                self._descending(behind, real, size[:, :, 0]),
            ):
                described.append(case.expand(-1, sums.shape[1], -1))
        return torch.cat(described, 2) * real[:, :, None]

    def _behind(self, rows: Tensor, my: Tensor) -> Tensor:
        """Area of the aorta behind the middle of the heart, (B, T)."""
        height = rows.shape[3]
        y = torch.arange(height, device=rows.device, dtype=rows.dtype) - (height - 1) / 2
        return (rows[:, :, 0] * torch.sigmoid(y - my)).sum(2)

    def _descending(self, behind: Tensor, real: Tensor, size: Tensor) -> Tensor:
        """Area of the aorta behind the heart (B, T) to its mean, narrowest, widest, and narrowest in the upper five frames.

        All of them between the first and the last frame that shows much of it; (B, 1, 4), the last three against the mean.
        """
        much = (behind > 0.3 * behind.amax(1, keepdim=True)).to(torch.int64)
        above = much.flip(1).cumsum(1).flip(1)
        inside = (much.cumsum(1) > 0) & (above > 0) & real  # (B, T)
        left = inside.to(torch.int64).flip(1).cumsum(1).flip(1)  # frames to the last one
        mean = (behind * inside).sum(1, keepdim=True) / inside.sum(1, keepdim=True).clamp_min(1)
        far = behind.amax(1, keepdim=True)
        narrow = torch.where(inside, behind, far).amin(1, keepdim=True)
        upper = torch.where(inside & (left <= 5), behind, far).amin(1, keepdim=True)
        found = [mean / size**2 + 1e-3]
        for value in (narrow, far, upper):
            found.append(value / (mean + self.small) + 0.01)
        return torch.log(torch.cat(found, 1))[:, None]


def padded(rows: Tensor, real: Tensor, positions: Tensor) -> Tensor:
    """What is of the real frames, (N, S, K), at their positions (N, 2) among zeros, (B, T, S, K)."""
    out = rows.new_zeros((real.shape[0], real.shape[1], rows.shape[1], rows.shape[2]))
    out[positions[:, 0], positions[:, 1]] = rows
    return out


def over_case(values: Tensor) -> Tensor:
    """Sum over frames and structures, (B, T, S) to (B, 1, 1)."""
    return values.sum((1, 2), keepdim=True)


def moments(shown: Tensor, image: Tensor) -> Tensor:
    """Sums over the pixels of each frame and structure, (n, S, H, W) and intensity (n, H, W) to (n, S, 8).

    In order: probability; times x, y, x², y² (pixels); times intensity; products with the right and lower neighbour; products of
    four in a square.
    """
    height, width = shown.shape[2], shown.shape[3]
    x = torch.arange(width, device=shown.device, dtype=shown.dtype) - (width - 1) / 2
    y = torch.arange(height, device=shown.device, dtype=shown.dtype) - (height - 1) / 2
    columns, rows = shown.sum(2), shown.sum(3)  # (n, S, W), (n, S, H)
    right = shown[:, :, :, :-1] * shown[:, :, :, 1:]
    below = shown[:, :, :-1] * shown[:, :, 1:]
    return torch.stack(
        [
            columns.sum(2),
            columns @ x,
            rows @ y,
            columns @ (x * x),
            rows @ (y * y),
            (shown * image[:, None]).sum((2, 3)),
            right.sum((2, 3)) + below.sum((2, 3)),
            (right[:, :, :-1] * right[:, :, 1:]).sum((2, 3)),
        ],
        2,
    )


def contacts(shown: Tensor) -> Tensor:
    """Of each structure (rows) and each right or lower neighbour's (columns), summed over pixels: (n, S, H, W) to (n, S, S)."""
    right = shown[:, :, :, :-1].flatten(2) @ shown[:, :, :, 1:].flatten(2).transpose(1, 2)
    below = shown[:, :, :-1].flatten(2) @ shown[:, :, 1:].flatten(2).transpose(1, 2)
    return right + below
