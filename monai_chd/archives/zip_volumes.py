"""Finds the volumes of a ZIP, files or members of outer ZIPs around them, and whether a set of them is complete.

Reads only where a volume ends. What lies in the ZIP is `split_zip`'s part.
"""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

from monai_chd.errors import UserError, UserFileError
from monai_chd.nifti import is_nifti
from monai_chd.wording import some_of

_VOLUME = re.compile(r"(?P<set>.+)\.(?:z(?P<number>\d\d+)|zip|change2zip)", re.IGNORECASE)
_LAST = 0
"""Number of the last volume (`.zip`, `.change2zip`) where the others are .z01, .z02, …"""

DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, struct.error)
"""What `zipfile` raises on damaged, encrypted or exotic data."""


class ZipVolume(NamedTuple):
    """One volume of a ZIP: a file, or a member of an outer ZIP around it."""

    name: str
    size: int
    file: Path
    member: zipfile.ZipInfo | None = None

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return str(self.file) if self.member is None else f"{self.member.filename} in {self.file}"

    @property
    def key(self) -> tuple[str, int]:
        """Name of the set, and number in it."""
        match = _VOLUME.fullmatch(self.name)
        return (match["set"], int(match["number"] or _LAST)) if match else (self.name, _LAST)

    def open(self) -> IO[bytes]:
        """Its bytes, from the first."""
        if self.member is None:
            return self.file.open("rb")
        with zipfile.ZipFile(self.file) as outer:
            return outer.open(self.member)


class EndRecord(NamedTuple):
    """What the end-of-central-directory record says: own volume, and volume and offset of the directory, counted from 0;
    the directory's size, and where in its volume the record itself is. All are full (-1 as unsigned) in real Zip64."""

    disk: int
    directory_disk: int
    directory_offset: int
    directory_size: int
    place: int


def is_one_of_many(path: Path) -> bool:
    """Whether a file holds one volume of a set, the rest of which must lie beside it."""
    volumes = volumes_in(path)
    if len(volumes) > 1 or not is_volume_name(volumes[0].name):
        return False
    end = end_record(volumes[0])
    return end is None or end.disk > 0


def is_volume_name(name: str) -> bool:
    """Whether a name is that of a ZIP or of a volume of one, and no AppleDouble shadow."""
    return bool(_VOLUME.fullmatch(name)) and not name.startswith("._")


def volumes_in(path: Path) -> list[ZipVolume]:
    """The volumes a file holds: those packed in it when it is an outer ZIP, else itself.

    Raises:
        UserError: it cannot be read.
    """
    itself = ZipVolume(path.name, path.stat().st_size, path)
    end = end_record(itself)
    if end is None or end.disk > 0:
        return [itself]
    try:
        with zipfile.ZipFile(path) as outer:
            infos = [info for info in outer.infolist() if not info.is_dir()]
    except DAMAGE:
        return [itself]
    names = [Path(info.filename).name for info in infos]
    if any(is_nifti(Path(name)) for name in names):
        return [itself]
    packed = [
        ZipVolume(name, info.file_size, path, info)
        for name, info in zip(names, infos, strict=True)
        if is_volume_name(name)
    ]
    return packed or [itself]


def end_record(volume: ZipVolume) -> EndRecord | None:
    """The end-of-central-directory record, None when the volume does not end with one."""
    try:
        with volume.open() as file:
            file.seek(max(0, volume.size - 22 - 0xFFFF))
            tail = file.read()
    except DAMAGE as error:
        raise UserError(f"{volume.place}: cannot be read ({error}); download {volume.file.name} again") from error
    at = tail.rfind(b"PK\5\6")
    if not 0 <= at <= len(tail) - 22:
        return None
    _, disk, directory_disk, _, _, size, offset, comment = struct.unpack_from("<4s4H2LH", tail, at)
    place = volume.size - len(tail) + at
    return EndRecord(disk, directory_disk, offset, size, place) if at + 22 + comment == len(tail) else None


def check_last(found: Mapping[int, ZipVolume]) -> EndRecord | None:
    """The end record of a set's last volume, None when that volume is missing.

    Raises:
        UserError: the volume does not end with one.
    """
    last = found.get(_LAST)
    end = end_record(last) if last else None
    if last and end is None:
        with last.open() as file:
            head = file.read(16)
        raise UserError(
            f"{last.place}: cut short, or no ZIP: {last.size} bytes that begin with {head!r} and do not end with a ZIP's "
            f"directory; download {last.file.name} again"
        )
    return end


def complete_set(source: Path, name: str, found: Mapping[int, ZipVolume]) -> list[ZipVolume]:
    """All volumes of a set in order, the last one last, none missing.

    Args:
        source: to be named.
        name: of the set.
        found: volumes by their number in it.

    Raises:
        UserFileError: volumes are missing.
        UserError: a volume too many, or a last one without its end.
    """
    last, end = found.get(_LAST), check_last(found)
    count = end.disk if end else max(found)
    names = [f"{name}.z{number:02}" for number in range(1, count + 1)]
    missing = [volume for number, volume in enumerate(names, 1) if number not in found]
    missing += [] if last else [f"{name}.change2zip (or {name}.zip), the last volume"]
    if missing:
        expected = f"{some_of(names, 1)}{f' to {names[-1]}' if count > 1 else ''} and the last, .change2zip or .zip"
        raise UserFileError(
            f"{source}: {len(missing)} of {count + 1} volumes missing: {some_of(missing, 20)}; expected {expected}; put all of "
            f"them into one folder"
        )
    extra = [found[number].place for number in sorted(found) if number > count]
    if extra:
        raise UserError(
            f"{some_of(extra)}: no part of {last and last.place}, which closes {count + 1} volumes; move it away"
        )
    return [*(found[number] for number in range(1, count + 1)), *([last] if last else [])]
