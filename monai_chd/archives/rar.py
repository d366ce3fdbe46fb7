"""Reads a RAR by `rarfile`: its listing without any tool, packed members through an installed one (unrar, unar, 7-Zip).

What of it is safe and is written is `members`' part.
"""

from __future__ import annotations

import logging
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import rarfile

from monai_chd.archives.members import Member, checked_members
from monai_chd.errors import UserError, UserFileError

logger = logging.getLogger(__name__)

_LATER_PART = re.compile(r"\.part(?!0*1\.)\d+\.rar$", re.IGNORECASE)


@dataclass(frozen=True)
class RarArchive:
    """A RAR whose entries are safe."""

    name: str
    members: list[Member]
    stream: rarfile.RarFile
    mend: str
    damage: tuple[type[Exception], ...] = (rarfile.Error,)

    def open(self, member: Member) -> IO[bytes]:
        """See `members.Archive`; rarfile compares the checksum."""
        return self.stream.open(member.info)  # type: ignore[no-any-return]

    def place(self, member: Member) -> str:
        """See `members.Archive`."""
        return member.name


def is_later_part(path: Path) -> bool:
    """Whether a name is that of a part after the first of a RAR in several: `NAME.part2.rar`."""
    return bool(_LATER_PART.search(path.name))


def open_rar(path: Path) -> RarArchive:
    """List a RAR, and prove that it is whole, safe and can be unpacked here.

    Args:
        path: the file, or the first of several parts; the others lie beside it.

    Raises:
        UserFileError: it needs a tool and none is installed; the message has how to get one.
        UserError: damaged, cut short, parts missing, encrypted, unsafe entries, or no scan.
    """
    by_hand = f"run: unar -o DIR {path}, or: unrar x {path} DIR/, or: 7z x {path} -oDIR; then name DIR instead"
    stream = _listed(path, by_hand)
    infos = stream.infolist()
    members = checked_members(str(path), [_member(info) for info in infos], by_hand)
    if any(info.compress_type != rarfile.RAR_M0 for info in infos if not info.is_dir()):
        _choose_tool(path, by_hand)
        if stream.is_solid():
            logger.warning(
                "%s: solid, so that each file is unpacked from the start on, which takes long; or %s", path, by_hand
            )
    mend = (
        f"download it again; where the installed tool cannot read RAR (Debian's 7zip cannot), install another (sudo apt "
        f"install unar), or {by_hand}"
    )
    return RarArchive(path.name, members, stream, mend)


def _listed(path: Path, by_hand: str) -> rarfile.RarFile:
    blocks: list[Any] = []
    try:
        stream = rarfile.RarFile(path, errors="strict", info_callback=blocks.append)
    except rarfile.NeedFirstVolume as error:
        raise UserError(
            f"{path}: a later part of an archive in several; name its first (NAME.part1.rar or NAME.rar), beside which all "
            f"others must lie"
        ) from error
    except rarfile.Error as error:
        raise UserError(
            f"{path}: cannot be read ({error}); download it again, all parts of it into one folder, or {by_hand}"
        ) from error
    if stream.needs_password() and not stream.infolist():
        raise UserError(f"{path}: encrypted, the names in it too; {by_hand}")
    if blocks[-1].type != rarfile.RAR_BLOCK_ENDARC:
        raise UserError(
            f"{path}: cut short, or made by a RAR before 3.0, since it has no end; download it again, or {by_hand}"
        )
    return stream


def _member(info: rarfile.RarInfo) -> Member:
    fault = "encrypted" if info.needs_password() else ""
    hard_link = info.file_redir and info.file_redir[0] == rarfile.RAR5_XREDIR_HARD_LINK
    if hard_link or not (info.is_file() or info.is_dir()):
        fault = "a link or device"
    return Member(info.filename, info.file_size, info.CRC, fault, info)


def _choose_tool(path: Path, by_hand: str) -> None:
    """Have rarfile take a tool that is installed; not bsdtar, which rarfile 4.5 calls in a way that cannot work (`-f --`)."""
    if sys.platform == "win32" and not shutil.which("7z"):
        rarfile.SEVENZIP_TOOL = r"C:\Program Files\7-Zip\7z.exe"  # where its installer leaves it, beside the path
    try:
        rarfile.tool_setup(bsdtar=False, force=True)
    except rarfile.RarCannotExec as error:
        raise UserFileError(
            f"{path}: a packed .rar needs unar, unrar or 7-Zip, and none is installed; install one (Debian, Ubuntu: sudo apt "
            f"install unar; macOS: brew install unar, or sevenzip; Windows: winget install 7zip.7zip) and run it again, or "
            f"{by_hand}"
        ) from error
