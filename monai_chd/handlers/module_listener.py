"""Hearing what passes through a part of a network while an evaluator runs."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from torch import Tensor, nn


class ModuleListener:
    """Calls `hear` with what goes into a part of a network and what comes out, from the start of a run to its end.

    Put it before the handler that wants to know.

    Args:
        part: of the network; None: there is nothing to hear.
    """

    def __init__(self, part: nn.Module | None) -> None:
        self.part = part

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        if self.part is not None:
            engine.add_event_handler(Events.STARTED, self._start, self.part)
            engine.add_event_handler(Events.COMPLETED, self._end)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def hear(self, given: Tensor, made: Tensor) -> None:
        """What went in and what came out, at every pass."""
        raise NotImplementedError

    def _start(self, part: nn.Module) -> None:
        self._hook = part.register_forward_hook(self._pass)

    def _pass(self, _: nn.Module, given: tuple[Any, ...], made: Tensor) -> None:
        self.hear(given[0].detach(), made.detach())

    def _end(self) -> None:
        self._hook.remove()

    def _fail(self, error: BaseException) -> None:
        self._hook.remove()
        raise error
