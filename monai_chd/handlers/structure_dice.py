"""Dice of the structure network on whole cases: the figure a validation chooses by, and the table that an evaluation leaves."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from numpy.typing import NDArray

from monai_chd.files import write_csv, write_text
from monai_chd.labels import STRUCTURES
from monai_chd.metrics.dice import dice_estimates, dice_of_structures
from monai_chd.metrics.wording import format_estimate
from monai_chd.wording import text_table

logger = logging.getLogger(__name__)

TABLE, FIGURES = "dice.csv", "dice.json"


class StructureDice(Metric):
    """Mean over structures of the mean Dice over the cases that have them; those of the structures stand beside it.

    Takes lists of logits (8, L, S, S) and label maps (1, L, S, S), as `from_engine(["pred", "label"])` gives them. `rows` holds
    the Dice of each case, (N, S), after an epoch.
    """

    def reset(self) -> None:
        self.rows: list[NDArray[np.float64]] = []

    def update(self, output: tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]) -> None:
        for predicted, drawn in zip(*output, strict=True):
            self.rows.append(dice_of_structures(predicted.argmax(0), drawn[0]))

    def compute(self) -> float:
        return float(np.nanmean(self.of_structures()))

    def of_structures(self) -> NDArray[np.float64]:
        """Mean Dice of each structure, (S,); NaN for what no case has."""
        rows = np.array(self.rows)
        defined = np.isfinite(rows)
        with np.errstate(invalid="ignore"):
            mean: NDArray[np.float64] = np.where(defined, rows, 0).sum(0) / defined.sum(0)
        return mean

    def completed(self, engine: Engine, name: str) -> None:
        super().completed(engine, name)
        for structure, value in zip(STRUCTURES, self.of_structures(), strict=True):
            engine.state.metrics[f"val_dice_{structure}"] = float(value)


class DiceTable:
    """Writes `dice.csv`, a row a case, and `dice.json`, means with intervals, when an evaluation ends, and shows the latter.

    Args:
        output_dir: folder of both.
        metric: of the evaluator, behind which this is put.
        cases: in the order in which they are evaluated.
    """

    def __init__(self, output_dir: str | Path, metric: StructureDice, cases: Sequence[dict[str, Any]]) -> None:
        self.output_dir = Path(output_dir)
        self.metric = metric
        self.cases = list(cases)

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _write(self, _: Engine) -> None:
        names = [(str(case["patient"]), Path(case["image"]).name) for case in self.cases]
        rows = np.array(self.metric.rows)
        written = (
            [*name, *("" if np.isnan(value) else f"{value:.4f}" for value in row)]
            for name, row in zip(names, rows, strict=True)
        )
        path = write_csv(self.output_dir / TABLE, ["patient", "image", *STRUCTURES], written)
        found = dice_estimates(rows, [patient for patient, _ in names])
        write_text(self.output_dir / FIGURES, json.dumps(found, indent=1) + "\n")
        table = text_table([(name, format_estimate(estimate)) for name, estimate in found.items()])
        logger.info(f"Dice on {len(rows)} cases of the test part, with 95 % intervals:\n{table}\neach case: {path}")
