"""What lies in an archive, whatever its kind: which entries are safe, which are there already, and writing what is not.

Knows names, sizes and checksums, not how a kind of archive is read: that is `split_zip`'s and `rar`'s part.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from tqdm import tqdm

from monai_chd.errors import UserError
from monai_chd.files import writable_folder, write_text
from monai_chd.nifti import is_nifti
from monai_chd.wording import some_of

STATE = ".monai-chd-unpack.json"
"""In the folder unpacked to: members done (size, CRC, time of change), and whether all are."""

CHUNK = 1 << 20
"""Bytes read at a time."""

_MARGIN = 64 << 20
"""Bytes kept free on the disk beside what is unpacked."""


@dataclass(frozen=True)
class Member:
    """A file in an archive; `fault` says why it may not be unpacked, `info` is what its reader knows it by."""

    name: str
    size: int
    crc: int | None
    fault: str = ""
    info: Any = None


class Archive(Protocol):
    """An archive ready to be unpacked, of whatever kind."""

    @property
    def name(self) -> str:
        """What to call it: the name of the set of volumes, or of the file."""

    @property
    def members(self) -> Sequence[Member]:
        """Its regular files."""

    @property
    def damage(self) -> tuple[type[Exception], ...]:
        """What reading a damaged member raises."""

    @property
    def mend(self) -> str:
        """What a person does about damaged members."""

    def open(self, member: Member) -> IO[bytes]:
        """The bytes of a member; reading them to the end compares their checksum."""

    def place(self, member: Member) -> str:
        """What to call a damaged member: its name, and which file of several it lies in."""


def common_folder(archive: Archive) -> str:
    """Folder all members lie in, relative; "." when they share none."""
    return posixpath.commonpath([posixpath.dirname(f"./{member.name}") for member in archive.members])


def checked_members(archive: str, members: Sequence[Member], by_hand: str) -> list[Member]:
    """The regular files of an archive without AppleDouble shadows; nothing at all when one entry is unsafe.

    Args:
        archive: what to call it.
        members: all entries, with the faults its reader found.
        by_hand: command that unpacks it without this package.

    Raises:
        UserError: entries that leave the folder, are links, encrypted or repeated (all listed); or no scan.
    """
    faults = [f"{member.name!r}: {fault}" for member in members if (fault := member.fault or _name_fault(member.name))]
    kept, taken, folders = [], set(), set()
    for member in members:
        path = posixpath.normpath(member.name)
        # names that differ in case or in the form of an accent are one file on some disks
        same = unicodedata.normalize("NFC", path).casefold()
        folders |= {str(parent) for parent in Path(same).parents}
        if member.name.endswith("/") or path.split("/")[-1].startswith("._") or "__MACOSX" in path.split("/"):
            continue
        if same in taken:
            faults.append(f"{member.name!r}: there twice")
        taken.add(same)
        kept.append(Member(path, member.size, member.crc, info=member.info))
    faults += [f"{name!r}: a file and a folder" for name in sorted(taken & folders)]
    if faults:
        raise UserError(
            f"{archive}: {len(faults)} entries are not unpacked, so none is: {some_of(faults, 20)}. Expected regular files below "
            f"one folder, neither encrypted nor repeated. Get it again from its source; if you trust it, {by_hand}"
        )
    if not any(is_nifti(Path(member.name)) for member in kept):
        listed = some_of([member.name for member in kept], 5) or "nothing"
        raise UserError(
            f"{archive}: holds no scan; expected .nii.gz or .nii files, found {listed}; is it the right archive?"
        )
    return kept


def _name_fault(name: str) -> str:
    if "\\" in name or "\0" in name:
        return "backslash or zero byte in the name"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "absolute name"
    if ".." in name.split("/"):
        return "leaves the folder"
    return "a name of our own" if posixpath.normpath(name).startswith(".monai-chd-") else ""


def choose_target(source: Path, extract_to: str | Path | None, archive: Archive) -> Path:
    """The folder to unpack to, made when the disk has room.

    Raises:
        UserError: none is named, it lies inside the download, cannot be written to, or the disk has too little room.
    """
    total = tqdm.format_sizeof(sum(member.size for member in archive.members), "B")
    if extract_to is None:
        raise UserError(
            f"{source}: an archive ({archive.name}, {len(archive.members)} files, {total} unpacked); say where to unpack it with "
            f"--extract-to DIR"
        )
    target = Path(extract_to).resolve()
    if source.is_dir() and target.is_relative_to(source):
        raise UserError(
            f"{target}: inside the download {source}, where nothing is written; choose another --extract-to DIR"
        )
    there = next(place for place in (target, *target.parents) if place.exists())
    missing = [member.size for member in archive.members if not has_size(target / member.name, member.size)]
    needed, free = sum(missing) + _MARGIN, shutil.disk_usage(there).free
    if missing and needed > free:
        raise UserError(
            f"{target}: too little disk: needs {tqdm.format_sizeof(needed, 'B')}, free are {tqdm.format_sizeof(free, 'B')}; make "
            f"room or choose another --extract-to DIR"
        )
    return writable_folder(target)


def has_size(path: Path, size: int) -> bool:
    """Whether there is a file of this many bytes."""
    return path.is_file() and path.stat().st_size == size


def load_state(folder: Path) -> dict[str, Any]:
    """What an earlier unpacking noted in a folder: archive, folder, whether it is complete, members; {} for none."""
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # none, or a broken one: then files are compared by CRC
    return state


def unpack_members(archive: Archive, target: Path, progress: bool) -> int:
    """Unpack what is not there. The state on disk says `complete` only at the very end.

    Args:
        archive: what to unpack.
        target: folder to unpack to.
        progress: show a bar, in bytes.

    Returns:
        How many members were there already.

    Raises:
        UserError: other files stand under members' names (then nothing is written); damaged members; disk full.
    """
    before = load_state(target)
    noted: dict[str, Any] = before.get("members", {})
    members = dict(noted)
    state = {"archive": archive.name, "folder": common_folder(archive), "complete": False, "members": members}

    def done(member: Member) -> None:
        members[member.name] = _note(target / member.name, member)

    total = sum(member.size for member in archive.members)
    try:
        with tqdm(total=total, unit="B", unit_scale=True, desc="unpacking", disable=not progress) as bar:
            missing = []
            for member in archive.members:
                if _is_there(target / member.name, member, noted.get(member.name)):
                    done(member)
                    bar.update(member.size)
                else:
                    missing.append(member)
            own = noted if before.get("archive") == archive.name else {}
            _refuse_others(target, [one for one in missing if _is_another(target / one.name, one, own.get(one.name))])
            _save(target, state)
            try:
                _write_all(archive, missing, target, done, bar)
                state["complete"] = True
            finally:
                _save(target, state)
    except OSError as error:
        raise UserError(f"{target}: unpacking stopped ({error}); run it again when that is mended") from None
    return len(archive.members) - len(missing)


def _write_all(
    archive: Archive, missing: Sequence[Member], target: Path, done: Callable[[Member], None], bar: tqdm[Any]
) -> None:
    """Write members, and report the damaged ones at the end."""
    damage: tuple[type[Exception], ...] = (EOFError, *archive.damage)
    damaged = []
    for member in missing:
        try:
            _write(archive, member, target / member.name, bar)
            done(member)
        except damage as error:
            damaged.append(f"{archive.place(member)} ({error})")
    if damaged:
        raise UserError(
            f"{archive.name}: {len(damaged)} damaged members, not unpacked: {some_of(damaged, 20)}; {archive.mend} (the other "
            f"members are in {target} and stay)"
        )


def _write(archive: Archive, member: Member, path: Path, bar: tqdm[Any]) -> None:
    """Write one member under a name nobody takes for a scan; it gets its own when size and checksum are right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.monai-chd-part")
    try:
        with archive.open(member) as packed, temporary.open("wb") as file:
            while chunk := packed.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            if file.tell() != member.size:
                raise EOFError(f"{file.tell()} bytes, expected {member.size}")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_others(target: Path, members: Sequence[Member]) -> None:
    """Refuse to replace what is not this package's.

    Raises:
        UserError: there are such members.
    """
    if members:
        raise UserError(
            f"{target}: {len(members)} files there are not the archive's, though they have its names, and are not replaced: "
            f"{some_of([member.name for member in members], 20)}; nothing was unpacked. Choose another --extract-to DIR, or move "
            f"them away (remove them if you know them for the remains of an unpacking)"
        )


def _is_another(path: Path, member: Member, note: Any) -> bool:
    """Whether something stands under a missing member's name that may not be replaced.

    What this package wrote, checked and noted, and nobody touched since, may: the archive was downloaded anew. A half-written
    member never has its own name.
    """
    return os.path.lexists(path) and not (path.is_file() and _untouched(path, note))


def _untouched(path: Path, note: Any) -> bool:
    """Whether a file is as it was when it was noted."""
    found = path.stat()
    return isinstance(note, list) and len(note) == 3 and [note[0], note[2]] == [found.st_size, found.st_mtime_ns]


def _save(target: Path, state: dict[str, Any]) -> None:
    write_text(target / STATE, json.dumps(state))


def _note(path: Path, member: Member) -> list[int | None]:
    return [member.size, member.crc, path.stat().st_mtime_ns]


def _is_there(path: Path, member: Member, note: Any) -> bool:
    """Whether a member was unpacked: noted and untouched since, or of its size and CRC."""
    if not has_size(path, member.size):
        return False
    return note == _note(path, member) or (member.crc is not None and crc_of(path) == member.crc)


def crc_of(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc
