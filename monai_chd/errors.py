"""Shows a user's mistake as one line instead of a chain of tracebacks, in `monai.bundle run` and the console script."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

TRACEBACK_VARIABLE = "MONAI_CHD_TRACEBACK"


def user_error(error: BaseException) -> Exception | None:
    """The user's mistake behind an exception, or None when it is a fault of the program.

    MONAI wraps what fails inside a config or a transform into one RuntimeError a level, with the whole config in its
    text. A ValueError or OSError raised by this package, the deepest of the chain, is what says what to mend.
    """
    found: Exception | None = None
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, (ValueError, OSError)) and _raised_here(link):
            found = link
        link = link.__cause__
    return found


def _raised_here(error: BaseException) -> bool:
    """Whether a line of this package raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(os.path.dirname(__file__) + os.sep)


def short_errors() -> None:
    """From now on an uncaught user's mistake prints as `error: …`; all else, or all if the variable is set, in full."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        mistake = user_error(error)
        if mistake is None or os.environ.get(TRACEBACK_VARIABLE):
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"error: {mistake}\n(set {TRACEBACK_VARIABLE}=1 to see where it was found)", file=sys.stderr)

    sys.excepthook = show
