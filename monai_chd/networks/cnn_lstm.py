"""The CNN-LSTM over the frames of a case, the frame encoders it takes, and the stand-in for 3D networks.

Owns how padding is kept out of every result. Owns no large architecture: those are MONAI's, or `efficientnet`'s.
"""

import functools
import hashlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Self, cast

import torch
import torch.nn.functional as F
from monai.networks import nets
from torch import Tensor, nn
from torch.jit import is_scripting, is_tracing  # type: ignore[attr-defined]  # public, but not in torch's __all__
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.labels import CLASSES
from monai_chd.networks.efficientnet import EfficientNetLite0

logger = logging.getLogger(__name__)

NORMS = ("group", "frozen")
PRECISIONS = ("float32", "bfloat16")
MEMORY_LIMIT = 2**30
"""Bytes of features that a frozen encoder keeps at most; 1 MB a case of 200 frames for EfficientNet-Lite0."""

MAP_LIMIT: Final = 20 * 2**20
"""Bytes of one layer's output on the CPU. Of what is larger (32 MiB, or 64 MiB of all that is let go of), C's allocator gives
the memory back to the system after each use, and getting it anew takes longer than the layer."""

POOLINGS = ("last", "mean", "max", "attention")

_PROBE = 64
"""Pixels, in each direction, of the frame that shows a network's sizes."""


class CNNLSTM(nn.Module):
    """Classify a case from its sequence of frames: a frame encoder, an LSTM over the frames, a pooling, a linear layer.

    Padding never changes a logit: it is not encoded, both directions of the LSTM read it after the real frames, and the
    pooling leaves it out.

    An *encoder* is a module with an integer attribute `feature_size` (F) whose forward maps frames (B, C, T, H, W),
    float in [0, 1] or uint8 in 0..255, and num_frames (B,) to features (B, T, F), zero in the rows of padding.
    `FrameEncoder` makes one of any 2D network.

    A frozen encoder always gives the same features of a scan, so they can be kept (`feature_cache`): the network takes
    them in place of frames, and works out the head only.

    Args:
        encoder: a name out of `ENCODERS`, or an encoder.
        encoder_precision: "float32" or "bfloat16", see `FrameEncoder`. None: the encoder's own.
        num_classes: number of logits, K.
        projection: size to which a learned linear layer brings the features before the LSTM reads them: wide features
            make it slow, and large for few patients. None: as they are.
        hidden_size: size of the LSTM's state, in each direction.
        num_layers: LSTM layers.
        bidirectional: read the frames from both ends.
        pooling: what stands for the sequence: "last" (the state after the last real frame; of the reverse direction,
            after the first one), "mean" or "max" over the real frames, or "attention" (a mean with learned weights).
        dropout: probability between LSTM layers, in training.

    Raises:
        UserError: an unknown encoder, precision or pooling, a module that is no encoder, or has no precision when one is
            asked for; a projection to nothing; no layer, or dropout with only one.
    """

    @bare_mistakes()
    def __init__(
        self,
        encoder: str | nn.Module = "small_cnn",
        *,
        encoder_precision: str | None = None,
        num_classes: int = len(CLASSES),
        projection: int | None = None,
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = False,
        pooling: str = "last",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = _encoder(encoder)
        if encoder_precision is not None:
            _set_precision(self.encoder, encoder_precision)
        self.feature_size = cast(int, self.encoder.feature_size)
        if projection is not None and projection < 1:
            raise UserError(f"expected a projection to at least 1 feature, or none, came {projection}")
        self.projection = nn.Linear(self.feature_size, projection) if projection else nn.Identity()
        self.lstm = SequenceLSTM(
            projection or self.feature_size,
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
        )
        self.pooling = SequencePooling(pooling, hidden_size, bidirectional=bidirectional)
        self.classifier = nn.Linear(self.pooling.state_size, num_classes)

    def forward(self, frames: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Score each case from its sequence of frames.

        Args:
            frames: windowed intensity, float in [0, 1] or uint8 in 0..255, shape (B, C, T, H, W), padding at the end
                of T. Or features of them that the frozen encoder has given before, float, shape (B, T, F).
            num_frames: real frames of each case, int64, shape (B,), 1..T. None: trailing all-zero frames are padding.

        Returns:
            Logits, shape (B, K), in the order of `labels.CLASSES`.

        Raises:
            ValueError: frames, features or num_frames of another shape or type; a case that claims more frames than T, or
                none; features for an encoder that is trained. (A scripted network raises torch.jit.Error with the same
                message; it takes features whatever the encoder was.)
        """
        if frames.dim() == 3:
            features, num_frames = self._checked_features(frames, num_frames)
        else:
            frames, num_frames = checked_input(frames, num_frames)
            features = self.encoder(frames, num_frames)  # (B, T, F)
        states = self.lstm(self.projection(features), num_frames)  # (B, T, S)
        logits: Tensor = self.classifier(self.pooling(states, num_frames))  # (B, K)
        return logits

    @torch.jit.unused
    def _check_frozen(self) -> None:
        if not is_frozen(self.encoder):
            raise ValueError("features of frames came, but this network's encoder is trained, so it needs the frames")

    def _checked_features(self, features: Tensor, num_frames: Tensor | None) -> tuple[Tensor, Tensor]:
        if features.shape[2] != self.feature_size or not features.is_floating_point():
            raise ValueError(
                f"expected features as float of shape (B, T, {self.feature_size}), as this network's encoder gives them, "
                f"came {features.dtype} {features.shape}"
            )
        if not is_scripting():  # alone, so that TorchScript leaves the rest out
            self._check_frozen()
        features = _plain(features)
        if num_frames is None:
            num_frames = count_frames(features[:, None, :, :, None])
        else:
            num_frames = _checked_counts(num_frames, features)
        if not is_scripting() and not _is_recording():  # what is only padding need not go through the LSTM
            features = features[:, : int(num_frames.amax())]
        return features, num_frames


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
            the frames themselves ask for a gradient (saliency maps). Once training has begun, the features of a case
            of uint8 frames are worked out once and kept (up to `MEMORY_LIMIT`), so that later epochs train the head only.
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
    remembers: bool

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
        self.precision = "float32"
        _set_precision(self, precision)
        # convolutions of pictures are fastest with the channels of a pixel side by side
        self.network = _with_norm(network, norm).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.norm = norm
        self.in_channels = in_channels
        self.chunk_size = chunk_size
        self.trainable = trainable
        if not trainable:
            self.network.requires_grad_(False)
        self.feature_size, self.map_size = _sizes(self.network, in_channels)
        self.train()
        self.remembers = False  # an archive that is only predicted must not fill the memory
        self._memory: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for what is frozen. (A scripted copy lacks this rule: it is for inference.)"""
        if self.trainable:
            super().train(mode)
            if self.norm == "frozen":
                _freeze_batch_norm(self.network)
            return self
        self.training = mode
        self.remembers = self.__dict__.get("remembers", False) or mode
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
        if not is_scripting() and _is_recording():
            return self._encode_all(frames, real)
        if not is_scripting() and self.remembers and frames.dtype == torch.uint8:
            return self._recall(frames, num_frames)
        return self._encode(frames, real)

    @torch.jit.unused
    def frames_at_once(self, height: int, width: int, *, on_cpu: bool = True) -> int:
        """How many frames of (height, width) are encoded at once: `chunk_size`, but fewer on the CPU when a layer's output
        would be larger than `MAP_LIMIT`."""
        if not on_cpu:
            return self.chunk_size
        return max(1, min(self.chunk_size, int(MAP_LIMIT // (4.0 * self.map_size * height * width))))

    def _recall(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        """Encode the cases that have not been seen, take the features of the others from memory."""
        features = []
        frames = frames.as_subclass(Tensor)
        precision = usable_precision(self.precision, frames.device)
        for case, count in zip(frames.unbind(), num_frames.tolist(), strict=True):
            real = case[None, :, :count]  # (1, C, n, H, W)
            # another precision gives other features, and so would other weights: `_load_from_state_dict` forgets
            key = f"{hashlib.sha256(real.cpu().contiguous().numpy().data).hexdigest()} {precision} {tuple(real.shape)}"
            known = self._memory.get(key)
            if known is None:
                known = self._encode(real, torch.ones(1, count, dtype=torch.bool, device=frames.device))
                if (len(self._memory) + 1) * known.nelement() * known.element_size() <= MEMORY_LIMIT:
                    self._memory[key] = known.detach()
            features.append(F.pad(known.to(frames.device), (0, 0, 0, frames.shape[2] - count)))
        return torch.cat(features)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._memory.clear()
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _encode(self, frames: Tensor, real: Tensor) -> Tensor:
        B, T = real.shape
        positions = torch.nonzero(real)  # (N, 2)
        chunks: list[Tensor] = []
        at_once = self.chunk_size
        if not is_scripting():
            at_once = self.frames_at_once(frames.shape[3], frames.shape[4], on_cpu=frames.is_cpu)
        for start in range(0, positions.shape[0], at_once):
            chunks.append(self._encode_chunk(frames, positions[start : start + at_once]))
        features = torch.cat(chunks)  # (N, F)
        padded = features.new_zeros((B, T, self.feature_size))
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
            return pooled(self.network(chunk))
        return self._read_in_precision(chunk)

    @torch.jit.unused
    def _read_in_precision(self, chunk: Tensor) -> Tensor:
        with self._autocast(chunk.device):
            features = pooled(self.network(chunk))
        return features.float() if self.precision == "bfloat16" else features

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        if usable_precision(self.precision, device) == "bfloat16":
            return torch.autocast(device.type, torch.bfloat16)
        if self.precision == "bfloat16" or not self.trainable:
            return torch.autocast(device.type, enabled=False)
        return nullcontext()

    def _encode_all(self, frames: Tensor, real: Tensor) -> Tensor:
        """For a graph recorded once for every length (ONNX export): all frames are read, padding is zeroed after."""
        B, T = real.shape
        features = pooled(self.network(to_unit_range(frames.transpose(1, 2).flatten(0, 1))))  # (B * T, F)
        return features.reshape(B, T, self.feature_size).masked_fill(~real.unsqueeze(2), 0.0)


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
        return F.adaptive_avg_pool2d(x, (8, 8)).flatten(1)


class SequenceLSTM(nn.Module):
    """LSTM layers over sequences of different length, with dropout between them.

    torch's bidirectional LSTM starts its reverse direction in the padding. Here each direction is an LSTM of its own,
    and the reverse one reads the real frames turned round. Packed sequences do the same, but do not export to ONNX.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise UserError(f"expected num_layers of at least 1, came {num_layers}")
        if dropout > 0 and num_layers == 1:
            raise UserError(f"dropout acts between LSTM layers: expected num_layers of 2 or more, or dropout 0, "
                             f"came num_layers 1 and dropout {dropout}")  # fmt: skip
        state_size = hidden_size * (2 if bidirectional else 1)
        sizes = [input_size] + [state_size] * (num_layers - 1)
        self.layers = nn.ModuleList(_LSTMLayer(size, hidden_size, bidirectional) for size in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, num_frames: Tensor) -> Tensor:
        """Features (B, T, F) and num_frames (B,) to states (B, T, S), meaningless in the rows of padding."""
        states = features
        for index, layer in enumerate(self.layers):
            if index > 0:
                states = self.dropout(states)
            states = layer(states, num_frames)
        return states


class _LSTMLayer(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, bidirectional: bool) -> None:
        super().__init__()
        self.ahead = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.back = nn.LSTM(input_size, hidden_size, batch_first=True) if bidirectional else None

    def forward(self, features: Tensor, num_frames: Tensor) -> Tensor:
        ahead: Tensor = self.ahead(features)[0]  # (B, T, hidden)
        if self.back is None:
            return ahead
        back = turned_round(self.back(turned_round(features, num_frames))[0], num_frames)
        return torch.cat([ahead, back], dim=2)


class SequencePooling(nn.Module):
    """One vector for a sequence of LSTM states, from its real frames; see `CNNLSTM` for the kinds."""

    kind: Final[str]  # Final lets TorchScript leave out the branches not taken
    hidden_size: int
    state_size: int

    def __init__(self, kind: str, hidden_size: int, *, bidirectional: bool = False) -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise UserError(f"unknown pooling {kind!r}: expected one of {', '.join(POOLINGS)}")
        self.kind = kind
        self.hidden_size = hidden_size
        self.state_size = hidden_size * (2 if bidirectional else 1)
        self.score = nn.Linear(self.state_size, 1) if kind == "attention" else None

    def forward(self, states: Tensor, num_frames: Tensor) -> Tensor:
        """States (B, T, S) and num_frames (B,) to (B, S)."""
        if self.kind == "last":
            return last_states(states, num_frames, self.hidden_size)
        padding = ~frame_mask(num_frames, states.shape[1]).unsqueeze(2)  # (B, T, 1)
        if self.kind == "max":
            return states.masked_fill(padding, -torch.inf).amax(1)
        if self.score is not None:
            weights = self.score(states).masked_fill(padding, -torch.inf).softmax(1)  # (B, T, 1)
            attended: Tensor = (weights * states).sum(1)
            return attended
        return states.masked_fill(padding, 0.0).sum(1) / num_frames.unsqueeze(1)


class VolumeNetwork(nn.Module):
    """Let a 3D network of MONAI stand in for `CNNLSTM`: each case alone, cropped to its real frames.

    Args:
        network: maps (N, C, T, H, W) to logits (N, K), for any T of the data. It is taken over: `norm` changes it in
            place.
        norm: as in `FrameEncoder`; statistics over a batch of one case would be noise, and padding would enter them.

    Raises:
        UserError: an unknown norm.
    """

    @bare_mistakes()
    def __init__(self, network: nn.Module, *, norm: str = "group") -> None:
        super().__init__()
        self.network = _with_norm(network, norm)
        self.norm = norm
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for what is frozen."""
        super().train(mode)
        if self.norm == "frozen":
            _freeze_batch_norm(self.network)
        return self

    def forward(self, frames: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Score each case; arguments, result and errors as in `CNNLSTM.forward`."""
        frames, num_frames = checked_input(frames, num_frames)
        logits: list[Tensor] = []
        for case in range(frames.shape[0]):
            real = frames[case : case + 1, :, : int(num_frames[case])]  # (1, C, t, H, W)
            logits.append(self.network(to_unit_range(real)))
        return torch.cat(logits)


def checked_input(frames: Tensor, num_frames: Tensor | None) -> tuple[Tensor, Tensor]:
    """Frames and num_frames as plain tensors on one device; counts the frames where num_frames is None.

    Raises:
        ValueError: see `CNNLSTM.forward`.
    """
    if frames.dim() != 5:
        raise ValueError(f"expected frames of shape (B, C, T, H, W), came {frames.shape}")
    if not (frames.is_floating_point() or frames.dtype == torch.uint8):
        raise ValueError(f"expected frames as float in [0, 1] or uint8 in 0..255, came {frames.dtype}")
    frames = _plain(frames)
    if num_frames is None:
        return frames, count_frames(frames)
    return frames, _checked_counts(num_frames, frames[:, 0])


def _checked_counts(num_frames: Tensor, sequences: Tensor) -> Tensor:
    """num_frames of sequences (B, T, …), on their device."""
    B, T = sequences.shape[0], sequences.shape[1]
    if num_frames.dim() != 1 or num_frames.shape[0] != B or num_frames.is_floating_point():
        raise ValueError(f"expected num_frames as integers of shape ({B},), came {num_frames.dtype} {num_frames.shape}")
    num_frames = _plain(num_frames).to(sequences.device, torch.int64)
    if is_scripting() or not _is_recording():  # a check of values cannot be part of a recorded graph
        counts: list[int] = num_frames.tolist()
        if min(counts) < 1 or max(counts) > T:
            raise ValueError(f"expected num_frames in 1..{T} for {T} frames a case, came {counts}")
    return num_frames


def count_frames(frames: Tensor) -> Tensor:
    """Frames (B, C, T, H, W) of each case up to the last that is not all zero, at least 1; int64, shape (B,)."""
    filled = (frames != 0).flatten(3).any(3).any(1)  # (B, T)
    positions = torch.arange(1, frames.shape[2] + 1, device=frames.device)
    return (filled * positions).amax(1).clamp(min=1)


def frame_mask(num_frames: Tensor, length: int) -> Tensor:
    """True where a frame is real: num_frames (B,) to (B, length)."""
    return torch.arange(length, device=num_frames.device) < num_frames.unsqueeze(1)


def turned_round(sequence: Tensor, num_frames: Tensor) -> Tensor:
    """Reverse the real part of each sequence (B, T, S) and leave its padding in place; twice is the original."""
    position = torch.arange(sequence.shape[1], device=sequence.device)
    source = num_frames.unsqueeze(1) - 1 - position  # (B, T)
    source = torch.where(source < 0, position, source)
    return sequence.gather(1, source.unsqueeze(2).expand_as(sequence))


def last_states(states: Tensor, num_frames: Tensor, hidden_size: int) -> Tensor:
    """States (B, T, S) to the last one of each direction (B, S); the reverse one ends at the first frame."""
    # of whole states, although only a half is needed: ONNX's GatherElements wants an index as wide as they are
    index = (num_frames - 1).reshape(-1, 1, 1).expand(-1, 1, states.shape[2])
    last = states.gather(1, index).squeeze(1)  # (B, S)
    return torch.cat([last[:, :hidden_size], states[:, 0, hidden_size:]], dim=1)


def to_unit_range(frames: Tensor) -> Tensor:
    """uint8 in 0..255 to float32 in [0, 1]; floats as they are."""
    return frames.float().div_(255.0) if frames.dtype == torch.uint8 else frames


def pooled(features: Tensor) -> Tensor:
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


def _set_precision(encoder: nn.Module, precision: str) -> None:
    if precision not in PRECISIONS:
        raise UserError(f"unknown encoder precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    if hasattr(encoder, "precision"):
        encoder.precision = precision  # type: ignore[assignment]
    elif precision != "float32":
        raise UserError(f"encoder precision {precision}: {type(encoder).__name__} has none to set; wrap a 2D network "
                         f"in FrameEncoder")  # fmt: skip


def _plain(tensor: Tensor) -> Tensor:
    """Without the metadata that a MetaTensor would carry through every operation."""
    if not is_scripting() and not _is_recording():
        return tensor.as_subclass(Tensor)
    return tensor


def _is_recording() -> bool:
    """Whether torch is recording a graph (trace, export, compile), in which no value can steer the program."""
    return bool(is_tracing()) or torch.compiler.is_compiling()  # type: ignore[no-untyped-call]


def _with_norm(network: nn.Module, norm: str) -> nn.Module:
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


def _freeze_batch_norm(network: nn.Module) -> None:
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


def _encoder(encoder: str | nn.Module) -> nn.Module:
    if isinstance(encoder, str):
        if encoder not in ENCODERS:
            raise UserError(f"unknown encoder {encoder!r}: expected one of {', '.join(ENCODERS)}, or a module")
        return ENCODERS[encoder]()
    if not hasattr(encoder, "feature_size"):
        raise UserError(
            f"expected an encoder with the attribute feature_size, came {type(encoder).__name__}: "
            "wrap a 2D network in FrameEncoder"
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


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "small_cnn": _small_cnn,
    "resnet18": functools.partial(_resnet, "resnet18"),
    "resnet34": functools.partial(_resnet, "resnet34"),
    "efficientnet_lite0": _efficientnet_lite0,
}
"""Encoders by name: `small_cnn` and MONAI's ResNets, with GroupNorm, are trained from scratch; `efficientnet_lite0` has
ImageNet weights and is frozen. To fine-tune it, pass `FrameEncoder(EfficientNetLite0(), norm="frozen")`; to load a
checkpoint without the weights package, `FrameEncoder(EfficientNetLite0(pretrained=False), norm="frozen", trainable=False)`."""
