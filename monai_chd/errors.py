"""A user's mistake as an exception of its own, shown as one line instead of a chain of tracebacks.

What the machine refuses, such as room on a disk, is one too. All else that is raised is a fault of the program and keeps its
traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRACEBACK_VARIABLE = "MONAI_CHD_TRACEBACK"


class UserError(ValueError):
    """What a user can mend: the text says which file, row or key, what was expected, what came, and the mend."""


class UserFileError(UserError, FileNotFoundError):
    """The same of a file or folder that is not there."""


_ROOM = "make room there, or choose another output folder; what was finished before is kept"

_REFUSALS = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EROFS: "choose another output folder",
    errno.EIO: "check the disk",
}
"""What a machine says when it cannot write, whatever is asked of it, and the mend."""

_SHARED_MEMORY = ("shared memory", "</torch_", "Bus error")
"""Of what torch says when worker processes have too little of it to hand tensors over."""


def user_error(error: BaseException) -> UserError | None:
    """The user's mistake behind an exception, or None when it is a fault of the program.

    MONAI wraps what fails inside a config or a transform into one RuntimeError a level, with the whole config in its
    text. The deepest mistake of the chain is what says what to mend; without one, it may be the machine that refused.
    """
    found: UserError | None = None
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, UserError):
            found = link
        link = link.__cause__
    return refused_by_machine(error) if found is None else _without_traceback(found)


def refused_by_machine(error: BaseException, path: str | os.PathLike[str] | None = None) -> UserError | None:
    """What the machine refused, as the user's mistake; None when an exception is something else.

    A writer may raise another error when it clears up after the one that tells (torch's does), so both chains are looked at.

    Args:
        error: what came.
        path: what was written, where the exception may not know.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in _REFUSALS:
            name = path or link.filename or "the output"
            return UserError(f"{name}: cannot be written ({link.strerror}); {_REFUSALS[link.errno]}")
        text = str(link)
        if type(link) is RuntimeError and "DataLoader worker (pid" in text and "Killed" in text:
            return UserError("a worker process was killed, most often for want of memory; take a smaller --num_workers")
        if type(link) is RuntimeError and any(words in text for words in _SHARED_MEMORY):
            return UserError(
                "/dev/shm: too little shared memory for worker processes to hand scans over; take --num_workers 0, or allow "
                "more (docker run --shm-size 8g)"
            )
        link = link.__cause__ or link.__context__
    return None


def _without_traceback(mistake: UserError) -> UserError:
    """A mistake as it was raised: torch hands over that of a worker process with the traceback there as its text."""
    text, kind = str(mistake), type(mistake)
    if not text.startswith("Caught ") or " in DataLoader worker process " not in text.partition("\n")[0]:
        return mistake
    return kind(text.rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")[2].rstrip("\n"))


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
