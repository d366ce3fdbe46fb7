"""The figures of each epoch, kept as a table and drawn, and the validation's loss among them.

Which epoch's model is kept is `checkpoints`' part; how curves are drawn is `metrics.figures`'.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from monai_chd.files import replacing
from monai_chd.metrics.figures import learning_curves_figure


class LearningCurves:
    """Keeps one row of figures an epoch; writes `learning_curves.csv` after each, `.png` now and then and at the end.

    Drawing takes a second, longer than an epoch of a small head, so it waits `DRAW_AFTER` seconds. Put it behind the
    ValidationHandler, so that the epoch's validation has run.

    Args:
        output_dir: folder of the two files.
        evaluator: engine whose metrics are the validation's.
    """

    DRAW_AFTER = 60.0

    def __init__(self, output_dir: str | Path, evaluator: Engine) -> None:
        self.output_dir = Path(output_dir)
        self.evaluator = evaluator
        self.history: list[dict[str, float]] = []
        self._losses: list[float] = []
        self._drawn = time.monotonic()

    def attach(self, engine: Engine) -> None:
        """Listen to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._losses.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._draw)

    def _draw(self, engine: Engine) -> None:
        if self.history and not engine.state.rank:  # type: ignore[attr-defined]
            learning_curves_figure(self.history, self.output_dir / "learning_curves.png")
            self._drawn = time.monotonic()

    def _collect(self, engine: Engine) -> None:
        self._losses.append(float(engine.state.output[0]["loss"]))  # type: ignore[index]

    def _write(self, engine: Engine) -> None:
        row: dict[str, float] = {"epoch": engine.state.epoch, "train_loss": float(np.mean(self._losses))}
        if self.evaluator.state.epoch == engine.state.epoch:  # not left standing from an earlier epoch
            row |= {name: float(value) for name, value in self.evaluator.state.metrics.items()}
        self.history.append(row)
        if engine.state.rank:  # type: ignore[attr-defined]
            return
        columns = list(dict.fromkeys(name for entry in self.history for name in entry))
        with replacing(self.output_dir / "learning_curves.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.history)
        if time.monotonic() - self._drawn > self.DRAW_AFTER:
            self._draw(engine)


def probability_loss(probabilities: Tensor, label: Tensor) -> Tensor:
    """Mean negative log of the true class's probability, unweighted; (B, K) and (B,)."""
    return torch.nn.functional.nll_loss(probabilities.clamp_min(1e-12).log(), label)
