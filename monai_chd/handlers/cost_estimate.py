"""Tells early how long a training will take, how much memory it uses, and what would be cheaper.

Nothing is decided here: a training goes on as it was asked for.
"""

from __future__ import annotations

import logging
import resource
import sys
import time

import torch
from ignite.engine import Engine, Events

logger = logging.getLogger(__name__)

LONG_TRAINING = 2 * 3600.0
"""Seconds from which a training is called long and cheaper settings are named."""


class CostEstimate:
    """After three steps of a training, says how long all of it will take and how much memory it uses.

    Over two hours it names settings that cost less. The first step is left out of the mean: it pays for warming up.

    Args:
        validation_cases: cases of one validation; one is counted as a third of a training step (forward only).
        validation_interval: epochs from one validation to the next.
    """

    STEPS = 3

    def __init__(self, validation_cases: int, validation_interval: int = 1) -> None:
        self.validation_cases = validation_cases
        self.validation_interval = validation_interval
        self._marks: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Listen to a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)

    def _step(self, engine: Engine) -> None:
        if len(self._marks) >= self.STEPS:
            return
        self._marks.append(time.monotonic())
        if len(self._marks) == self.STEPS:
            step = (self._marks[-1] - self._marks[0]) / (self.STEPS - 1)
            batch = len(engine.state.batch)  # type: ignore[arg-type]
            epochs = (engine.state.max_epochs or 1) - engine.state.epoch + 1
            per_epoch = (engine.state.epoch_length or 1) * step
            validation = self.validation_cases / batch * step
            total = epochs * (per_epoch + validation / 3 / self.validation_interval)
            logger.info(self.report(total, step, batch))

    def report(self, seconds: float, step: float, batch: int) -> str:
        """The lines for people: time in all, time a case, peak memory, and cheaper settings for a long training."""
        if seconds < 60:
            length = "less than a minute"
        else:
            length = f"about {seconds / 3600:.1f} hours" if seconds >= 3600 else f"about {seconds / 60:.1f} minutes"
        text = f"estimated: {length} in all ({step / batch:.2f} s a case), peak memory so far {_peak_memory()}"
        if seconds <= LONG_TRAINING:
            return text
        return (
            f"{text}\nThis is long. Cheaper: --frame_size 224 (about a fifth of the work of 512), --sequence_length 100 (half), "
            f"--encoder efficientnet_lite0 --frame_size 224 --cache features (pretrained and frozen: each scan is encoded once), "
            f"fewer --max_epochs, or a GPU."
        )


def _peak_memory() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{peak / (2**30 if sys.platform == 'darwin' else 2**20):.1f} GiB"
