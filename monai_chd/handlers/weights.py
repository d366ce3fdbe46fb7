"""Gives a network its weights when an evaluator starts.

How they are read, and which are refused, is `workflow.weights`' part.
"""

from __future__ import annotations

from pathlib import Path

from ignite.engine import Engine, Events
from torch import nn

from monai_chd.workflow.weights import load_weights


class Weights:
    """Loads the weights of a model when an engine starts. MONAI's CheckpointLoader ends in torch's traceback for a bad file.

    Args:
        checkpoint: the weights.
        network: takes them.

    Raises:
        UserFileError, UserError: when the engine starts, see `workflow.weights.load_weights`.
    """

    def __init__(self, checkpoint: str | Path, network: nn.Module) -> None:
        self.checkpoint, self.network = checkpoint, network

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.STARTED, load_weights, self.network, self.checkpoint)
