"""Sequences of frames: how they are checked and counted, the LSTM over them, and one vector for each of them.

Owns how padding is kept out of every result. How a frame becomes features is `encoders`' part.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.jit import is_scripting, is_tracing  # type: ignore[attr-defined]  # public, but not in torch's __all__

from monai_chd.errors import UserError

POOLINGS = ("last", "mean", "max", "attention")


class Standardization(nn.Module):
    """Features less their mean, by their deviation, (B, T, F) to the same; as they come until `fit` has seen the training's.

    Both are buffers, so they are kept with the weights and go wherever these go.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(feature_size))
        self.register_buffer("deviation", torch.ones(feature_size))

    def forward(self, features: Tensor) -> Tensor:
        """Standardize; what is padding is no zero any more, but is never read."""
        return (features - self.mean) / self.deviation

    @torch.jit.unused
    def fit(self, features: Tensor) -> None:
        """Take mean and deviation of features of real frames, (N, F); one that never varies is only shifted."""
        values = features.double()
        deviation = values.std(0, correction=0)
        self.mean.copy_(values.mean(0))
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, 1.0))


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
            raise UserError(
                f"dropout acts between LSTM layers: expected num_layers of 2 or more, or dropout 0, came num_layers 1 and "
                f"dropout {dropout}"
            )
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


def frame_mask(num_frames: Tensor, length: int) -> Tensor:
    """True where a frame is real: num_frames (B,) to (B, length)."""
    return torch.arange(length, device=num_frames.device) < num_frames.unsqueeze(1)


def count_frames(frames: Tensor) -> Tensor:
    """Frames (B, C, T, H, W) of each case up to the last that is not all zero, at least 1; int64, shape (B,)."""
    filled = (frames != 0).flatten(3).any(3).any(1)  # (B, T)
    positions = torch.arange(1, frames.shape[2] + 1, device=frames.device)
    return (filled * positions).amax(1).clamp(min=1)


def checked_input(frames: Tensor, num_frames: Tensor | None) -> tuple[Tensor, Tensor]:
    """Frames and num_frames as plain tensors on one device; counts the frames where num_frames is None.

    Raises:
        ValueError: see `CNNLSTM.forward`.
    """
    if frames.dim() != 5:
        raise ValueError(f"expected frames of shape (B, C, T, H, W), came {frames.shape}")
    if not (frames.is_floating_point() or frames.dtype == torch.uint8):
        raise ValueError(f"expected frames as float in [0, 1] or uint8 in 0..255, came {frames.dtype}")
    frames = plain_tensor(frames)
    if num_frames is None:
        return frames, count_frames(frames)
    return frames, checked_counts(num_frames, frames[:, 0])


def checked_counts(num_frames: Tensor, sequences: Tensor) -> Tensor:
    """num_frames of sequences (B, T, …), on their device."""
    cases, length = sequences.shape[0], sequences.shape[1]
    if num_frames.dim() != 1 or num_frames.shape[0] != cases or num_frames.is_floating_point():
        raise ValueError(
            f"expected num_frames as integers of shape ({cases},), came {num_frames.dtype} {num_frames.shape}"
        )
    num_frames = plain_tensor(num_frames).to(sequences.device, torch.int64)
    if is_scripting() or not is_recording():  # a check of values cannot be part of a recorded graph
        counts: list[int] = num_frames.tolist()
        if min(counts) < 1 or max(counts) > length:
            raise ValueError(f"expected num_frames in 1..{length} for {length} frames a case, came {counts}")
    return num_frames


def to_unit_range(frames: Tensor) -> Tensor:
    """uint8 in 0..255 to float32 in [0, 1]; floats as they are."""
    return frames.float().div_(255.0) if frames.dtype == torch.uint8 else frames


def plain_tensor(tensor: Tensor) -> Tensor:
    """Without the metadata that a MetaTensor would carry through every operation."""
    if not is_scripting() and not is_recording():
        return tensor.as_subclass(Tensor)
    return tensor


def is_recording() -> bool:
    """Whether torch is recording a graph (trace, export, compile), in which no value can steer the program."""
    return bool(is_tracing()) or torch.compiler.is_compiling()  # type: ignore[no-untyped-call]
