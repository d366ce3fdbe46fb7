"""Writes files so that nobody ever finds half of one: to a temporary name in the same folder, then renamed."""

from __future__ import annotations

import csv
import fcntl
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_chd.errors import UserError

logger = logging.getLogger(__name__)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the place of `path` when the block ends well, and vanishes when not.

    The temporary name keeps the suffix, for writers that choose a format by it.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    path = Path(path)
    writable_folder(path.parent)
    temporary = path.with_name(f".{os.getpid()}-{threading.get_ident()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: str | Path, work: str) -> Iterator[None]:
    """Keep a folder for one process while the block runs; a lock ends with its process, however that ends.

    On a file system without locks (some network drives) it warns and goes on.

    Args:
        folder: made if missing; `.lock` in it stays.
        work: what is done there, for the message.

    Raises:
        UserError: another process works there, or the folder cannot be written to.
    """
    with (writable_folder(folder) / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another {work} is at work there; wait for its end, or choose another output folder"
            ) from None
        except OSError as error:
            logger.warning(f"{folder}: cannot be locked ({error.strerror}); let only one {work} work there at a time")
        yield


def write_csv(path: str | Path, header: Iterable[object], rows: Iterable[Iterable[object]]) -> Path:
    """Write a table in UTF-8 with plain line ends, whole or not at all.

    Raises:
        UserError: the folder cannot be written to.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return Path(path)


def writable_folder(folder: str | Path) -> Path:
    """Make a folder if need be, and prove that it can be written to.

    Raises:
        UserError: it cannot; the message says what stands in the way.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}-{threading.get_ident()}-probe"
        probe.touch()
        probe.unlink(missing_ok=True)  # another thread may have been here
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write there ({error.strerror or error}); choose another output folder"
        ) from error
    return folder
