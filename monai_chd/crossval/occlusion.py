"""How a case's probability changes when a stretch of its frames is hidden, and a picture of those frames.

A look into a mistake, no evidence: a network can answer oddly to a case with a hole in it, whatever it reads otherwise.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from monai_chd.errors import UserError
from monai_chd.report.contact_sheet import DISPLAY_WINDOW, Case, contact_sheet

FILLS = ("mean", "blank")
STRETCHES = 8
"""Stretches of frames a case: as many as frames fit beside each other in a picture."""


class HiddenStretch(TypedDict):
    """One stretch: its first and last frame, counted from 1, and the change in probability when it is hidden."""

    frames: list[int]
    change: float


def stretches_of(num_frames: int, count: int = STRETCHES) -> list[tuple[int, int]]:
    """Cut frames 0..num_frames - 1 into stretches of equal length (to within one frame), at most one a frame.

    Args:
        num_frames: real frames, at least 1.
        count: stretches wished for, at least 1.

    Returns:
        First frame and the one after the last, of each stretch, in order.

    Raises:
        UserError: a number below 1.
    """
    if num_frames < 1 or count < 1:
        raise UserError(f"expected at least one frame and one stretch, came {num_frames} and {count}")
    edges = np.linspace(0, num_frames, min(count, num_frames) + 1).round().astype(int).tolist()
    return list(itertools.pairwise(edges))


def occlude(
    network: nn.Module | Callable[[Tensor, Tensor], Tensor],
    case: Tensor,
    num_frames: Tensor,
    target: int,
    *,
    stretches: int = STRETCHES,
    fill: str = "mean",
    temperature: float = 1.0,
) -> list[HiddenStretch]:
    """Hide one stretch of frames after the other and measure how the probability of a class changes.

    A hidden frame is replaced, not removed: the case keeps its length. "mean" puts the mean of the case's real frames (or
    features) there, which tells nothing about the place; "blank" puts zeros, which for frames is air. The network is left
    as it was found; nothing is drawn at random.

    Args:
        network: maps the case and num_frames to logits (1, K), as `CNNLSTM` does with either kind of case; a module is put
            into evaluation mode for the while.
        case: frames (1, C, T, H, W), uint8 or float, or features of frames (1, T, F), padding at the end of T.
        num_frames: real frames, int64, shape (1,), 1..T.
        target: class whose probability is watched, 0..K - 1; of a mistake, the predicted one.
        stretches: how many, see `stretches_of`.
        fill: "mean" or "blank".
        temperature: logits are divided by it before softmax, as everywhere the model's probabilities are shown.

    Returns:
        One entry a stretch, feet to head. `change` is the probability with the stretch hidden less the one of the whole
        case: below 0, the stretch spoke for the class.

    Raises:
        UserError: a case of another shape, an unknown fill, a class the network does not have, a temperature that is not
            above 0.
    """
    if fill not in FILLS:
        raise UserError(f"unknown fill {fill!r}: expected one of {', '.join(FILLS)}")
    if not temperature > 0:
        raise UserError(f"expected a temperature above 0, came {temperature}")
    axis, real = _axis_and_length(case, num_frames)
    filling = _filling(case, axis, real, fill)
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    modes = [module.training for module in modules]
    if isinstance(network, nn.Module):
        network.eval()
    try:
        with torch.no_grad():
            whole = _probability(network(case, num_frames), target, temperature)
            return [
                {
                    "frames": [first + 1, after],
                    "change": _probability(
                        network(_hidden(case, axis, first, after, filling), num_frames), target, temperature
                    )
                    - whole,
                }
                for first, after in stretches_of(real, stretches)
            ]
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode  # each its own: what was frozen stays so


def case_sheet(
    frames: Tensor, num_frames: int, path: str | os.PathLike[str], *, title: str, stretches: int = STRETCHES
) -> Path:
    """Draw the frame in the middle of each stretch of `occlude`, feet to head, as the network sees it.

    Anterior is up, the patient's right on the left. The picture holds no more of the file's range than the HU window that
    the network is given.

    Args:
        frames: uint8 in 0..255 or float in [0, 1], shape (1, C, T, H, W) or (C, T, H, W); the first channel is drawn.
        num_frames: real frames, 1..T.
        path: the PNG to write.
        title: lines of text at the left.
        stretches: as given to `occlude`.

    Returns:
        `path`.

    Raises:
        UserError: frames of another shape, or num_frames out of its range.
    """
    if frames.ndim not in (4, 5) or (frames.ndim == 5 and frames.shape[0] != 1):
        raise UserError(f"expected the frames of one case, (C, T, H, W), came {tuple(frames.shape)}")
    own = frames[0] if frames.ndim == 5 else frames
    if not 1 <= num_frames <= own.shape[1]:
        raise UserError(f"expected num_frames of 1..{own.shape[1]}, came {num_frames}")
    middles = [(first + after - 1) // 2 for first, after in stretches_of(num_frames, stretches)]
    shown = own[0, middles].detach().cpu()  # (stretches, H, W)
    unit = shown.numpy() / 255 if shown.dtype == torch.uint8 else shown.float().numpy()
    low, high = DISPLAY_WINDOW
    # the sheet takes HU with X to the patient's right and Y anterior; rows of a frame go to posterior, columns to the left
    hu = (low + (high - low) * unit).transpose(2, 1, 0)[::-1, ::-1]
    return contact_sheet([Case(title, hu)], path, columns=len(middles))


def sheet_path(patient: object) -> str:
    """Where the picture of a patient lies under the report's folder: `cases/<patient>.png`, whatever characters the id has.

    An id that is no safe file name gets a piece of its hash, so that no two patients share a file.
    """
    name = str(patient)
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60]
    return f"cases/{safe if safe == name else f'{safe}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}'}.png"


def _axis_and_length(case: Tensor, num_frames: Tensor) -> tuple[int, int]:
    """Axis of the frames or their features in a case, and how many of them are real."""
    if case.ndim not in (3, 5) or case.shape[0] != 1 or num_frames.shape != (1,):
        raise UserError(
            f"expected one case, frames (1, C, T, H, W) or features (1, T, F), and num_frames (1,), "
            f"came {tuple(case.shape)} and {tuple(num_frames.shape)}"
        )
    axis, real = 1 if case.ndim == 3 else 2, int(num_frames)
    if not 1 <= real <= case.shape[axis]:
        raise UserError(f"expected num_frames of 1..{case.shape[axis]}, came {real}")
    return axis, real


def _filling(case: Tensor, axis: int, real: int, fill: str) -> Tensor:
    """What stands for a hidden frame, shaped as the case with T = 1."""
    own = case.narrow(axis, 0, real)
    if fill == "blank":
        return torch.zeros_like(own.narrow(axis, 0, 1))
    mean = own.to(torch.float32).mean(axis, keepdim=True)
    return mean.to(case.dtype) if case.is_floating_point() else mean.round().to(case.dtype)


def _hidden(case: Tensor, axis: int, first: int, after: int, filling: Tensor) -> Tensor:
    """A copy of the case with the frames first..after - 1 replaced."""
    copy = case.clone()
    copy.narrow(axis, first, after - first).copy_(filling.expand_as(copy.narrow(axis, first, after - first)))
    return copy


def _probability(logits: Tensor, target: int, temperature: float) -> float:
    """Probability of a class from logits (1, K)."""
    if not 0 <= target < logits.shape[1]:
        raise UserError(f"expected a class 0..{logits.shape[1] - 1}, came {target}")
    return float(torch.softmax(logits.to(torch.float64) / temperature, dim=1)[0, target])
