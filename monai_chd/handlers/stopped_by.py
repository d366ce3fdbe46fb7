"""Tells MONAI's early stopping, which listens to an evaluator, which trainer it stops."""

from __future__ import annotations

from ignite.engine import Engine, Events
from monai.handlers import EarlyStopHandler


class StoppedBy:
    """Listens to the trainer that an `EarlyStopHandler` of its evaluator may stop.

    So whoever runs the trainer needs to know nothing of it: MONAI's client for federated learning runs no `run` of a config.

    Args:
        early_stop: the handler.
    """

    def __init__(self, early_stop: EarlyStopHandler) -> None:
        self.early_stop = early_stop

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer.

        It is named when it starts and not here: naming it has Ignite look for processes that train together, and remember them
        when a config that only was looked at has let go of them.
        """
        engine.add_event_handler(Events.STARTED, self.early_stop.set_trainer, engine)
