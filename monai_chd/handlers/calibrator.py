"""Collects the predictions of a validation, from which a model's temperature and threshold come.

How they are fitted is `metrics.calibration`'s part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from monai_chd.metrics.calibration import Calibration, calibrate


class Calibrator:
    """Keeps the validation's predictions, and fits temperature and threshold to them when the model is kept.

    Listens to the evaluator in every process of a training: each sees a part of the validation cases.

    Args:
        coverage: wished share of cases to answer; 1 never abstains.
        risk: instead, wished share of the answers that may be wrong.
    """

    def __init__(self, coverage: float | None = 1.0, risk: float | None = None) -> None:
        self.coverage, self.risk = coverage, risk
        self._cases: list[tuple[int, list[float]]] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._cases.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._gather)

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        self._cases += [(int(case["label"]), case["pred"].cpu().double().tolist()) for case in output]

    def _gather(self) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, self._cases)
            self._cases[:] = [case for part in parts for case in part]

    def calibration(self) -> Calibration | None:
        """Fitted to the last validation; None when its probabilities are no numbers, as of a training that diverged."""
        labels, probabilities = [label for label, _ in self._cases], np.array([row for _, row in self._cases])
        if not labels or not np.isfinite(probabilities).all():
            return None
        return calibrate(labels, probabilities, coverage=self.coverage, risk=self.risk)
