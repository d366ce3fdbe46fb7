"""What lies in a folder, through links and without loops; what is hidden and what is dead are set apart.

Opens no file, and does not know which are scans.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from monai_chd.errors import UserError, UserFileError

HIDDEN = ("__MACOSX", "$RECYCLE.BIN", "@eaDir", "#snapshot", "lost+found")
"""Folders that systems keep for themselves, beside those whose name begins with a dot (`.Trash-1000`, `.git`, `.snapshot`)."""


class Contents(NamedTuple):
    """Paths below a folder, as they are reached from there, each list sorted.

    Attributes:
        files: in no hidden folder; hidden files too.
        hidden: folders that were not entered.
        dead: links that lead nowhere.
    """

    files: list[Path]
    hidden: list[Path]
    dead: list[Path]


def contents(folder: Path) -> Contents:
    """All that lies below a folder; a folder that is reached twice, or holds `folder`, is entered once.

    Raises:
        UserFileError: no such folder.
        UserError: a folder below it cannot be opened.
    """
    if not folder.is_dir():
        raise UserFileError(f"{folder}: no such folder")
    found = Contents([], [], [])
    entered = {str(parent) for parent in folder.resolve().parents}
    own, linked = [folder], list[Path]()
    while own or linked:  # a folder's own place goes before a link to it
        current = own.pop() if own else linked.pop(0)
        real = os.path.realpath(current)
        if real in entered:
            continue
        entered.add(real)
        for path in _entries(current):
            if dead_link(path):
                found.dead.append(path)
            elif not path.is_dir():
                found.files.append(path)
            elif path.name.startswith(".") or path.name in HIDDEN:
                found.hidden.append(path)
            else:
                (linked if path.is_symlink() else own).append(path)
    for paths in found:
        paths.sort()
    return found


def dead_link(path: Path) -> str:
    """What is wrong with a link that leads nowhere, "" when it is none."""
    if os.path.islink(path) and not os.path.exists(path):
        return f"{path}: a dead link (to {os.readlink(path)}); bring back what it leads to, or remove it"
    return ""


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be opened ({error.strerror or error}); allow it, or move the folder away"
        ) from error
