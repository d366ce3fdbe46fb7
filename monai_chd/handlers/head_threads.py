"""How many threads torch works with while only a small head is trained.

Nothing else of a training is decided here.
"""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events

from monai_chd.errors import bare_mistakes


class HeadThreads:
    """Let a training of the head alone run in one thread, and give the threads back when it ends.

    A step of an LSTM over features is many products so small that threads wait for each other most of the time: on a
    machine of two busy cores, one thread was ten times faster than two.

    Args:
        active: False leaves the threads alone, as for a training with an encoder in it.
    """

    def __init__(self, active: bool = True) -> None:
        self.active = active
        self._before: int | None = None

    def attach(self, engine: Engine) -> None:
        """Listen to a trainer."""
        if self.active:
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.COMPLETED, self._restore)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self) -> None:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)

    def _restore(self) -> None:
        if self._before is not None:
            torch.set_num_threads(self._before)
            self._before = None

    def _fail(self, error: Exception) -> None:
        self._restore()
        with bare_mistakes():
            raise error  # an engine swallows what its handlers do not raise again
