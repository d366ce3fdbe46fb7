"""Frame encoders: any 2D network turned into a reader of the real frames of a case, its normalisation and its precision.

Owns no large architecture: those are MONAI's, or `efficientnet`'s. What is made of the features is `cnn_lstm`'s part.
"""

import functools
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
import torch.nn.functional as F
from monai.networks import nets
from torch import Tensor, nn
from torch.jit import is_scripting, is_tracing  # type: ignore[attr-defined]  # public, but not in torch's __all__
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from typing_extensions import Self

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.networks.efficientnet import EfficientNetLite0
from monai_chd.networks.heart_crop import CroppedStructureNet
from monai_chd.networks.sequences import frame_mask, is_recording, to_unit_range
from monai_chd.networks.structure_encoder import StructureEncoder

logger = logging.getLogger(__name__)

NORMS = ("group", "frozen")
PRECISIONS = ("float32", "bfloat16")

MAP_LIMIT: Final = 20 * 2**20
"""Bytes of one layer's output on the CPU. Of what is larger (32 MiB, or 64 MiB of all that is let go of), C's allocator gives
the memory back to the system after each use, and getting it anew takes longer than the layer."""

_PROBE = 64
"""Pixels, in each direction, of the frame that shows a network's sizes."""


class FrameEncoder(nn.Module):
    """Turn a 2D network into a frame encoder that reads the real frames only, a few at a time.

    In training the activations of a chunk are computed again in the backward pass instead of being kept, so that memory
    grows with `chunk_size` and not with the length of the case. The result depends on neither chunks nor padding,
    because no normalisation looks across frames (`norm`).

    Args:
        network: maps (N, C, H, W) to (N, F) or to a map (N, F, h, w), which is averaged over h and w. It is taken over:
            `norm` and `trainable` change it in place.
        in_channels: channels of a frame, C.
        chunk_size: frames encoded at once, at most; see `frames_at_once`.
        norm: "group" replaces every BatchNorm by a GroupNorm with the same affine weights (for training from scratch);
            "frozen" keeps BatchNorm with its statistics fixed (for pretrained weights).
        trainable: False fixes the network: no gradients for its weights, evaluation mode always, and no graph, unless
            the frames themselves ask for a gradient (saliency maps). `data.feature_cache` keeps its features, so that
            an epoch trains the head only.
        precision: "bfloat16" works in bfloat16 with autocast where the processor has it (`has_bfloat16`; in float32
            elsewhere) and gives features as float32; weights and their gradients stay float32. "float32" leaves an encoder
            that is trained to the autocast around it. A frozen one never follows what is around it, so that it gives the
            same features everywhere. Scripted and exported copies work in float32.

    Raises:
        UserError: an unknown norm or precision, a chunk size below 1, or a network with another kind of output.
    """

    feature_size: int
    in_channels: int
    chunk_size: int
    map_size: float
    trainable: bool

    @bare_mistakes()
    def __init__(
        self,
        network: nn.Module,
        *,
        in_channels: int = 1,
        chunk_size: int = 8,
        norm: str = "group",
        trainable: bool = True,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        if chunk_size < 1:
            raise UserError(f"expected a chunk_size of at least 1 frame, came {chunk_size}")
        _check_precision(precision)
        self.precision = precision
        # convolutions of pictures are fastest with the channels of a pixel side by side
        self.network = with_norm(network, norm).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.norm = norm
        self.in_channels = in_channels
        self.chunk_size = chunk_size
        self.trainable = trainable
        if not trainable:
            self.network.requires_grad_(False)
        self.feature_size, self.map_size = _sizes(self.network, in_channels)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for what is frozen. (A scripted copy lacks this rule: it is for inference.)"""
        if self.trainable:
            super().train(mode)
            if self.norm == "frozen":
                freeze_batch_norm(self.network)
            return self
        self.training = mode
        if any(module.training for module in self.network.modules()):  # to set 300 modules takes longer than to look
            self.network.eval()
        return self

    def forward(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        """Describe each real frame.

        Args:
            frames: float in [0, 1] or uint8 in 0..255, shape (B, C, T, H, W).
            num_frames: real frames of each case, int64, shape (B,), 1..T.

        Returns:
            Features, shape (B, T, F), zero in the rows of padding.

        Raises:
            ValueError: frames with another number of channels.
        """
        if frames.shape[1] != self.in_channels:
            raise ValueError(f"expected frames of {self.in_channels} channels, came {frames.shape[1]}")
        real = frame_mask(num_frames, frames.shape[2])  # (B, T)
        if not is_scripting() and is_recording():
            return self._encode_all(frames, real)
        return self._encode(frames, real)

    @torch.jit.unused
    def frames_at_once(self, height: int, width: int, *, on_cpu: bool = True) -> int:
        """How many frames of (height, width) are encoded at once: `chunk_size`, but fewer on the CPU when a layer's output
        would be larger than `MAP_LIMIT`."""
        if not on_cpu:
            return self.chunk_size
        return max(1, min(self.chunk_size, int(MAP_LIMIT // (4.0 * self.map_size * height * width))))

    def _encode(self, frames: Tensor, real: Tensor) -> Tensor:
        cases, length = real.shape
        positions = torch.nonzero(real)  # (N, 2)
        chunks: list[Tensor] = []
        at_once = self.chunk_size
        if not is_scripting():
            at_once = self.frames_at_once(frames.shape[3], frames.shape[4], on_cpu=frames.is_cpu)
        for start in range(0, positions.shape[0], at_once):
            chunks.append(self._encode_chunk(frames, positions[start : start + at_once]))
        features = torch.cat(chunks)  # (N, F)
        padded = features.new_zeros((cases, length, self.feature_size))
        padded[positions[:, 0], positions[:, 1]] = features
        return padded

    def _encode_chunk(self, frames: Tensor, positions: Tensor) -> Tensor:
        if not is_scripting() and self.training and self.trainable and torch.is_grad_enabled():
            # The selection is inside, so that no float copy of a chunk outlives its forward pass.
            features: Tensor = checkpoint(self._read, frames, positions, use_reentrant=False)
            return features
        return self._read(frames, positions)

    def _read(self, frames: Tensor, positions: Tensor) -> Tensor:
        chunk = to_unit_range(frames[positions[:, 0], :, positions[:, 1]])  # (n, C, H, W)
        if is_scripting():
            return feature_vectors(self.network(chunk))
        return self._read_in_precision(chunk)

    @torch.jit.unused
    def _read_in_precision(self, chunk: Tensor) -> Tensor:
        with self._autocast(chunk.device):
            features = feature_vectors(self.network(chunk))
        return features.float() if self.precision == "bfloat16" else features

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        if usable_precision(self.precision, device) == "bfloat16":
            return torch.autocast(device.type, torch.bfloat16)
        if self.precision == "bfloat16" or not self.trainable:
            return torch.autocast(device.type, enabled=False)
        return nullcontext()

    def _encode_all(self, frames: Tensor, real: Tensor) -> Tensor:
        """For a graph recorded once for every length (ONNX export): all frames are read, padding is zeroed after."""
        cases, length = real.shape
        features = feature_vectors(self.network(to_unit_range(frames.transpose(1, 2).flatten(0, 1))))  # (B * T, F)
        return features.reshape(cases, length, self.feature_size).masked_fill(~real.unsqueeze(2), 0.0)


class SmallCNN(nn.Module):
    """The encoder of the replaced pipeline: two convolutions, (N, 1, H, W) to (N, 1024), for H and W of 2 or more."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, kernel_size=3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) to (N, 1024)."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)  # (N, 8, H / 2, W / 2)
        x = F.relu(self.conv2(x))
        if not is_scripting() and is_tracing():
            return self._means(x).flatten(1)
        return F.adaptive_avg_pool2d(x, (8, 8)).flatten(1)

    @torch.jit.unused
    def _means(self, x: Tensor) -> Tensor:
        """The adaptive pooling as products with matrices: ONNX has none of a size that is not a number in the graph."""
        height, width = x.detach().cpu().numpy().shape[2:]  # numbers, also while a graph is recorded
        rows, columns = (F.adaptive_avg_pool1d(torch.eye(size), 8).to(x) for size in (height, width))  # (size, 8)
        return rows.T @ x @ columns


def feature_vectors(features: Tensor) -> Tensor:
    """(N, F) as it is, a feature map (N, F, h, w) averaged to (N, F)."""
    return features.mean((2, 3)) if features.dim() == 4 else features


def is_frozen(encoder: nn.Module) -> bool:
    """Whether an encoder gives the same features for ever: none of its weights is trained."""
    return not any(weight.requires_grad for weight in encoder.parameters())


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16; elsewhere it would be emulated, slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        able = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # no public name in all versions of torch
        return any(getattr(torch.cpu, name, bool)() for name in able)
    return False


def usable_precision(precision: str, device: torch.device) -> str:
    """The precision in which an encoder works on a device: the one asked for, or float32."""
    if precision == "float32" or has_bfloat16(device):
        return precision
    _say_float32(device.type)
    return "float32"


@functools.cache
def _say_float32(device: str) -> None:
    logger.warning(f"this {device} does not multiply in bfloat16: the encoder works in float32")


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise UserError(f"unknown encoder precision {precision!r}: expected one of {', '.join(PRECISIONS)}")


def with_norm(network: nn.Module, norm: str) -> nn.Module:
    """The network with another normalisation, changed in place; see `FrameEncoder` for the kinds.

    Raises:
        UserError: an unknown kind.
    """
    if norm not in NORMS:
        raise UserError(f"unknown norm {norm!r}: expected one of {', '.join(NORMS)}")
    return _with_group_norm(network) if norm == "group" else network


def _with_group_norm(module: nn.Module) -> nn.Module:
    if isinstance(module, _BatchNorm):
        return _group_norm(module)
    for name, child in module.named_children():
        setattr(module, name, _with_group_norm(child))
    return module


def _group_norm(batch_norm: _BatchNorm) -> nn.GroupNorm:
    channels = batch_norm.num_features
    groups = next(groups for groups in (32, 16, 8, 4, 2, 1) if channels % groups == 0)
    group_norm = nn.GroupNorm(groups, channels, eps=batch_norm.eps, affine=batch_norm.affine)
    if batch_norm.affine:
        group_norm.weight, group_norm.bias = batch_norm.weight, batch_norm.bias
    return group_norm


def freeze_batch_norm(network: nn.Module) -> None:
    """Keep the statistics of every BatchNorm as they are, also in training mode."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def _sizes(network: nn.Module, in_channels: int) -> tuple[int, float]:
    """Features of a frame, and numbers in the largest output of a layer for each pixel of the frame."""
    largest = in_channels * _PROBE**2

    def look(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.nelement())

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    try:
        with torch.no_grad():
            features = network.eval()(torch.zeros(1, in_channels, _PROBE, _PROBE))
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(features, Tensor) or features.dim() not in (2, 4):
        came = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise UserError(f"expected a 2D network that returns (N, F) or (N, F, h, w), {type(network).__name__}: {came}")
    return features.shape[1], largest / _PROBE**2


@bare_mistakes()
def make_encoder(encoder: str | nn.Module, precision: str = "float32") -> nn.Module:
    """An encoder by its name, or the one given, set to work in a precision.

    Args:
        encoder: a name out of `ENCODERS`, or an encoder; see `CNNLSTM`.
        precision: "float32" or "bfloat16"; see `FrameEncoder`.

    Raises:
        UserError: an unknown name or precision; an encoder that has no precision when another than float32 is asked for.
    """
    _check_precision(precision)
    if isinstance(encoder, str):
        if encoder not in ENCODERS:
            raise UserError(f"unknown encoder {encoder!r}: expected one of {', '.join(ENCODERS)}, or a module")
        encoder = ENCODERS[encoder]()
    if hasattr(encoder, "precision"):
        encoder.precision = precision  # type: ignore[assignment]
    elif precision != "float32":
        raise UserError(
            f"encoder precision {precision}: {type(encoder).__name__} has none to set; wrap a 2D network in FrameEncoder"
        )
    return encoder


def _small_cnn() -> nn.Module:
    return FrameEncoder(SmallCNN())


def _efficientnet_lite0() -> nn.Module:
    return FrameEncoder(EfficientNetLite0(), norm="frozen", trainable=False)


def _resnet(name: str) -> nn.Module:
    # stride 2 in the first convolution, as in the paper: MONAI's default of 1 is meant for small 3D volumes
    network = getattr(nets, name)(spatial_dims=2, n_input_channels=1, conv1_t_stride=2, feed_forward=False)
    return FrameEncoder(network)


def _cropped_structures() -> nn.Module:
    return StructureEncoder(CroppedStructureNet())


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "small_cnn": _small_cnn,
    "resnet18": functools.partial(_resnet, "resnet18"),
    "resnet34": functools.partial(_resnet, "resnet34"),
    "efficientnet_lite0": _efficientnet_lite0,
    "structures": StructureEncoder,
    "cropped_structures": _cropped_structures,
}
"""Encoders by name: `small_cnn` and MONAI's ResNets, with GroupNorm, are trained from scratch; `efficientnet_lite0` has
ImageNet weights and is frozen; `structures` is frozen and needs the weights of a structure network, `cropped_structures` those of
one that finds the heart and one that reads its box. To fine-tune Lite0, pass
`FrameEncoder(EfficientNetLite0(), norm="frozen")`; to load a checkpoint without the weights package,
`FrameEncoder(EfficientNetLite0(pretrained=False), norm="frozen", trainable=False)`."""
