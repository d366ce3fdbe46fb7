"""A user's mistake as an exception of its own, shown as one line instead of a chain of tracebacks.

All else that is raised is a fault of the program and keeps its traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRACEBACK_VARIABLE = "MONAI_CHD_TRACEBACK"


class UserError(ValueError):
    """What a user can mend: the text says which file, row or key, what was expected, what came, and the mend."""


class UserFileError(UserError, FileNotFoundError):
    """The same of a file or folder that is not there."""


def user_error(error: BaseException) -> UserError | None:
    """The user's mistake behind an exception, or None when it is a fault of the program.

    MONAI wraps what fails inside a config or a transform into one RuntimeError a level, with the whole config in its
    text. The deepest mistake of the chain is what says what to mend.
    """
    found: UserError | None = None
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, UserError):
            found = link
        link = link.__cause__
    return found


@contextmanager
def bare_mistakes() -> Iterator[None]:
    """Let a user's mistake out as itself, without what MONAI wrapped around it; of a block, or as a decorator.

    It stands at what a bundle's config calls. Of that, `python -m monai.bundle` would print a traceback a level with the
    whole config in it, so there a mistake ends the program, as nobody else could catch it: its line, exit code 1. A host
    that runs the bundle in its own process gets the exception, and so does everybody when the variable is set.
    """
    try:
        yield
    except Exception as error:
        mistake = user_error(error)
        if mistake is None or os.environ.get(TRACEBACK_VARIABLE):
            raise
        if is_bundle_program():
            raise SystemExit(f"error: {mistake}\n(set {TRACEBACK_VARIABLE}=1 to see where it was found)") from None
        if mistake is error:
            raise
        raise mistake from None


def is_bundle_program() -> bool:
    """Whether this program is `python -m monai.bundle`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name.startswith("monai.bundle.")
