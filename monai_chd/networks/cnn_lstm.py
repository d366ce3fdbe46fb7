"""The CNN-LSTM over the frames of a case, and the stand-in for 3D networks.

How a frame is read is `encoders`' part, how padding is kept out of a sequence `sequences`'.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.jit import is_scripting  # type: ignore[attr-defined]  # public, but not in torch's __all__
from torch.nn import functional as F
from typing_extensions import Self

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.labels import CLASSES, FLAGS
from monai_chd.networks.encoders import freeze_batch_norm, is_frozen, make_encoder, with_norm
from monai_chd.networks.sequences import (
    SequenceLSTM,
    SequencePooling,
    Standardization,
    checked_counts,
    checked_input,
    count_frames,
    is_recording,
    plain_tensor,
    to_unit_range,
)

CLASS_COUNT = len(CLASSES)


class SequenceHead(nn.Module):
    """Features of the frames of a case to logits: a projection, an LSTM, a pooling, a linear layer; see `CNNLSTM`."""

    def __init__(
        self,
        feature_size: int,
        *,
        projection: int | None,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        pooling: str,
        dropout: float,
        outputs: int = CLASS_COUNT,
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(feature_size, projection) if projection else nn.Identity()
        self.lstm = SequenceLSTM(
            projection or feature_size, hidden_size, num_layers=num_layers, bidirectional=bidirectional, dropout=dropout
        )
        self.pooling = SequencePooling(pooling, hidden_size, bidirectional=bidirectional)
        self.classifier = nn.Linear(self.pooling.state_size, outputs)

    def forward(self, features: Tensor, num_frames: Tensor) -> Tensor:
        """Standardized features (B, T, F) and num_frames (B,) to logits (B, outputs)."""
        states = self.lstm(self.projection(features), num_frames)  # (B, T, S)
        logits: Tensor = self.classifier(self.pooling(states, num_frames))
        return logits


class SummaryHead(nn.Module):
    """Mean and largest of each feature over the real frames to logits, by one linear layer: what needs no order of frames."""

    def __init__(self, feature_size: int, outputs: int = CLASS_COUNT) -> None:
        super().__init__()
        self.mean = SequencePooling("mean", feature_size)
        self.largest = SequencePooling("max", feature_size)
        self.classifier = nn.Linear(2 * feature_size, outputs)

    def forward(self, features: Tensor, num_frames: Tensor) -> Tensor:
        """Standardized features (B, T, F) and num_frames (B,) to logits (B, outputs)."""
        summary = torch.cat([self.mean(features, num_frames), self.largest(features, num_frames)], 1)
        logits: Tensor = self.classifier(summary)
        return logits


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
        standardize: bring every feature to mean 0 and deviation 1 over the frames of the training cases, before all else; see
            `Standardization`, which is given them before a training.
        projection: size to which a learned linear layer brings the features before the LSTM reads them: wide features
            make it slow, and large for few patients. None: as they are.
        hidden_size: size of the LSTM's state, in each direction.
        num_layers: LSTM layers.
        bidirectional: read the frames from both ends.
        pooling: what stands for the sequence: "last" (the state after the last real frame; of the reverse direction,
            after the first one), "mean" or "max" over the real frames, or "attention" (a mean with learned weights).
        dropout: probability between LSTM layers, in training.
        heads: so many times all that comes after the standardization, each with weights of its own that begin elsewhere. The mean
            of their probabilities is right more often than one of them. In training they are judged one by one, see
            `CrossEntropyOfHeads`.
        summary: one head more, without an LSTM, that counts as much as all others together; see `SummaryHead`. It helps where
            features describe a case as well as its frames.
        flags: a second task: every head also scores each diagnosis of `labels.FLAGS`. What comes out are the classes; the
            probabilities of the flags pass through `flag_probabilities`, (B, flags), where a hook sees them (`FlagOpinions`).

    Raises:
        UserError: an unknown encoder or pooling, a module that is no encoder; a projection to nothing; no layer, or
            dropout with only one; no head.
    """

    @bare_mistakes()
    def __init__(
        self,
        encoder: str | nn.Module = "small_cnn",
        *,
        standardize: bool = False,
        projection: int | None = None,
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = False,
        pooling: str = "last",
        dropout: float = 0.0,
        heads: int = 1,
        summary: bool = False,
        flags: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder) if isinstance(encoder, str) else encoder
        if not hasattr(self.encoder, "feature_size"):
            raise UserError(
                f"expected an encoder with the attribute feature_size, came {type(self.encoder).__name__}: "
                "wrap a 2D network in FrameEncoder"
            )
        self.feature_size = cast(int, self.encoder.feature_size)
        if projection is not None and projection < 1:
            raise UserError(f"expected a projection to at least 1 feature, or none, came {projection}")
        self.standardization = Standardization(self.feature_size) if standardize else nn.Identity()
        if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1:
            raise UserError(f"expected heads as a whole number of 1 or more, came {heads!r}")
        outputs = len(CLASSES) + (len(FLAGS) if flags else 0)
        made = [
            SequenceHead(
                self.feature_size,
                projection=projection,
                hidden_size=hidden_size,
                num_layers=num_layers,
                bidirectional=bidirectional,
                pooling=pooling,
                dropout=dropout,
                outputs=outputs,
            )
            for _ in range(heads)
        ]
        # the parts of the first one stand in the network itself, where they were before there were several
        self.projection, self.lstm = made[0].projection, made[0].lstm
        self.pooling, self.classifier = made[0].pooling, made[0].classifier
        self.more_heads = nn.ModuleList(made[1:])
        self.summary = SummaryHead(self.feature_size, outputs) if summary else None
        self.classes = len(CLASSES)
        self.flags = flags
        self.flag_probabilities = nn.Identity()
        if flags:
            self.register_buffer("learned_flags", torch.zeros(len(FLAGS), dtype=torch.bool))

    def forward(self, frames: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Score each case from its sequence of frames.

        Args:
            frames: windowed intensity, float in [0, 1] or uint8 in 0..255, shape (B, C, T, H, W), padding at the end
                of T. Or features of them that the frozen encoder has given before, float, shape (B, T, F).
            num_frames: real frames of each case, int64, shape (B,), 1..T. None: trailing all-zero frames are padding.

        Returns:
            Logits, shape (B, K), in the order of `labels.CLASSES`. In training with several heads
            those of each, (B, heads, K), the summary's last; with flags theirs behind those of the classes.

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
        return self.judge(features, num_frames)

    def judge(self, features: Tensor, num_frames: Tensor) -> Tensor:
        """Features as the encoder gives them, (B, T, F), and num_frames (B,) to what `forward` returns."""
        features = self.standardization(features)
        states = self.lstm(self.projection(features), num_frames)  # (B, T, S)
        logits: Tensor = self.classifier(self.pooling(states, num_frames))  # (B, K)
        found = [logits]
        for head in self.more_heads:
            found.append(head(features, num_frames))
        each = torch.stack(found, 1)  # (B, heads, K)
        whole = each[:, :0] if self.summary is None else self.summary(features, num_frames)[:, None]
        if self.training:
            return logits if len(found) == 1 and self.summary is None else torch.cat([each, whole], 1)
        if self.flags:
            told = each[:, :, self.classes :].sigmoid().mean(1)
            if self.summary is not None:
                told = (told + whole[:, 0, self.classes :].sigmoid()) / 2
            self.flag_probabilities(told)
        each, whole = each[:, :, : self.classes], whole[:, :, : self.classes]
        if self.summary is None:
            return each[:, 0] if len(found) == 1 else of_mean_probability(each)
        return of_mean_probability(torch.cat([of_mean_probability(each)[:, None], whole.log_softmax(2)], 1))

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
        features = plain_tensor(features)
        if num_frames is None:
            num_frames = count_frames(features[:, None, :, :, None])
        else:
            num_frames = checked_counts(num_frames, features)
        if not is_scripting() and not is_recording():  # what is only padding need not go through the LSTM
            features = features[:, : int(num_frames.amax())]
        return features, num_frames


def of_mean_probability(logits: Tensor) -> Tensor:
    """Logits of several heads (B, heads, K) to the log of their mean probabilities, (B, K)."""
    return logits.log_softmax(2).logsumexp(1) - math.log(logits.shape[1])


class CrossEntropyOfHeads(nn.CrossEntropyLoss):
    """torch's cross-entropy, and of several heads the mean over them, so that each learns as if it were alone.

    Args:
        weight: of the classes, (K,).
        flag_weights: of the flags as a second task, (flags,): their binary cross-entropies are added with these. None: no such
            task.
        options: more of torch's.
    """

    flag_weights: Tensor | None

    def __init__(self, weight: Tensor | None = None, *, flag_weights: Tensor | None = None, **options: Any) -> None:
        super().__init__(weight, **options)
        self.register_buffer("flag_weights", flag_weights, persistent=False)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Of logits (B, K), or (B, heads, K), and class indices (B,).

        With flags both are wider: logits have the flags' behind the classes', and targets are (B, 1 + flags), the class first.
        """
        each = input.unbind(1) if input.dim() == 3 else (input,)
        losses = [self._of_one(own, target) for own in each]
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _of_one(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.flag_weights is None:
            return super().forward(logits, target)
        classes, flags = logits[:, : len(CLASSES)], logits[:, len(CLASSES) :]
        loss = super().forward(classes, target[:, 0].long())
        each = F.binary_cross_entropy_with_logits(flags, target[:, 1:].to(flags.dtype), reduction="none")
        return loss + (each * self.flag_weights.to(each)).sum(1).mean()


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
        self.network = with_norm(network, norm)
        self.norm = norm
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for what is frozen."""
        super().train(mode)
        if self.norm == "frozen":
            freeze_batch_norm(self.network)
        return self

    def forward(self, frames: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Score each case; arguments, result and errors as in `CNNLSTM.forward`."""
        frames, num_frames = checked_input(frames, num_frames)
        logits: list[Tensor] = []
        for case in range(frames.shape[0]):
            real = frames[case : case + 1, :, : int(num_frames[case])]  # (1, C, t, H, W)
            logits.append(self.network(to_unit_range(real)))
        return torch.cat(logits)
