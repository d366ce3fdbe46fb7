"""Writes files so that nobody ever finds half of one: to a temporary name in the same folder, then renamed."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, TypedDict

from monai_chd.errors import UserError, refused_by_machine


class _Text(TypedDict):
    encoding: str
    errors: str


TEXT: _Text = {"encoding": "utf-8", "errors": "backslashreplace"}
"""How text is written to any file. A file's name may hold bytes that are no text, in Python lone surrogates, which UTF-8 does
not have: they are escaped, `ct_\\udce9.nii.gz`, which JSON reads back as what it was."""

logger = logging.getLogger(__name__)


@contextmanager
def replacing(path: str | Path, *, sync: bool = True) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the place of `path` when the block ends well, and vanishes when not.

    The temporary name keeps the suffix, for writers that choose a format by it. What was written is on the disk before it gets
    its name, so that a machine that loses its power has the old file or the new one.

    Args:
        path: the file.
        sync: False for what is checked whenever it is read and made again when damaged, as pictures by the hundred.

    Raises:
        UserError: the folder cannot be made or written to, or the machine refuses to write (a full disk); names the file.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}-{threading.get_ident()}-{path.name}")
    _make_folder(path.parent)
    try:
        yield temporary
        if sync:
            _sync(temporary)
        os.replace(temporary, path)
        if sync:
            with suppress(OSError):  # some file systems sync no folders
                _sync(path.parent)
    except Exception as error:
        if isinstance(error, UserError):
            raise
        if refused := refused_by_machine(error, path):
            raise refused from error
        if isinstance(error, OSError) and error.filename == str(temporary) and error.errno != errno.ENOENT:
            raise _cannot_write(path.parent, error) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: str | Path, text: str) -> Path:
    """Write a text, whole or not at all, as it is but for what `TEXT` says.

    Raises:
        UserError: see `replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, newline="", **TEXT)
    return Path(path)


@contextmanager
def locked(folder: str | Path, work: str, patience: float = 0.0) -> Iterator[None]:
    """Keep a folder for one process while the block runs, by `.lock` in it; a lock ends with its process, however that ends.

    On a file system without locks (some network drives) it warns and goes on.

    Args:
        folder: made if missing.
        work: what is done there, for the message.
        patience: seconds to wait for another process, where its work is short.

    Raises:
        UserError: another process works there, or the folder cannot be written to.
    """
    path = writable_folder(folder) / ".lock"
    end = time.monotonic() + patience
    while True:
        file = path.open("w")
        if not _is_taken(file, path, work):
            break
        file.close()
        if time.monotonic() >= end:
            raise UserError(
                f"{folder}: another {work} is at work there; wait for its end, or choose another output folder"
            )
        time.sleep(0.05)
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _is_taken(file: TextIO, path: Path, work: str) -> bool:
    """Whether another process holds the lock; if not, this one does from now on."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat())  # let go meanwhile
    except BlockingIOError:
        return True
    except OSError as error:
        logger.warning(f"{path.parent}: cannot be locked ({error.strerror}); let only one {work} work there at a time")
        return False


def write_csv(path: str | Path, header: Iterable[object], rows: Iterable[Iterable[object]]) -> Path:
    """Write a table in UTF-8 with plain line ends, whole or not at all.

    Raises:
        UserError: see `replacing`.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", **TEXT) as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return Path(path)


def escaped(name: str) -> str:
    """A name as it is read back from a file or seen on a screen, where its bytes that are no text are escaped."""
    return name.encode(**TEXT).decode("utf-8")


def name_below(path: str | Path, folder: str | Path) -> str:
    """A file's path relative to a folder, as given or through links; of a file that is `folder` itself its name."""
    below, above = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    if not below.is_relative_to(above):
        above = Path(folder).resolve()
    return below.name if below == above else Path(os.path.relpath(below, above)).as_posix()


def writable_folder(folder: str | Path) -> Path:
    """Make a folder if need be, and prove that it can be written to.

    Raises:
        UserError: it cannot; the message says what stands in the way.
    """
    folder = _make_folder(Path(folder))
    try:
        probe = folder / f".{os.getpid()}-{threading.get_ident()}-probe"
        probe.touch()
        probe.unlink(missing_ok=True)  # another thread may have been here
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder


@contextmanager
def leaving_no_empty_folders(folder: str | Path | None) -> Iterator[None]:
    """When the block fails, remove the folders that it made and put nothing into: at `folder`, below and above it.

    Args:
        folder: where the work goes; None: into no folder.
    """
    if folder is None:
        yield
        return
    folder = Path(folder)
    before = {str(parent) for parent in folder.parents if parent.exists()} | {path for path, *_ in os.walk(folder)}
    try:
        yield
    except BaseException:
        made = [path for path, *_ in os.walk(folder, topdown=False)] + list(map(str, folder.parents))
        for path in made:
            if path not in before:
                with suppress(OSError):  # it is not empty
                    os.rmdir(path)
        raise


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder


def _cannot_write(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder}: cannot write there ({error.strerror or error}); choose another output folder")
