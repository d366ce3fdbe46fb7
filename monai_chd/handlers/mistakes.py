"""How a run that ends by the user's mistake says so.

What a mistake is, is `errors`'.
"""

from __future__ import annotations

import logging

from ignite.engine import Engine, Events

from monai_chd.errors import bare_mistakes


class BareMistakes:
    """Raises the user's mistake that ends an engine's run as itself, before a handler behind it logs its traceback.

    Put it before MONAI's StatsHandler, and behind what has to clear up.
    """

    def attach(self, engine: Engine) -> None:
        """Listen to an engine."""
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._raise)
        engine.logger.addFilter(_is_news)

    def _raise(self, error: BaseException) -> None:
        with bare_mistakes():
            raise error


def _is_news(record: logging.LogRecord) -> bool:
    """Not what an engine logs of an exception that it raises in the next moment."""
    return "is terminating due to exception" not in record.getMessage()
