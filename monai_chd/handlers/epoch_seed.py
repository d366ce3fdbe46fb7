"""Random transforms that a resumed training draws as one that ran through would have."""

from __future__ import annotations

from ignite.engine import Engine, Events
from monai.transforms import Compose


class EpochSeed:
    """Seeds a chain's random transforms at the start of every epoch, by seed and epoch.

    They hold generators of their own, which no checkpoint keeps.

    Args:
        transform: the chain.
        seed: of the training.
    """

    def __init__(self, transform: Compose, seed: int) -> None:
        self.transform, self.seed = transform, seed

    def attach(self, engine: Engine) -> None:
        """Listen to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._seed)

    def _seed(self, engine: Engine) -> None:
        self.transform.set_random_state(seed=(self.seed * 100_003 + engine.state.epoch) % 2**32)
