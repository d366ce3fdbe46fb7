"""Reads the volumes of a ZIP as one stream, with no tool and no copy in between.

They are joined for `zipfile`, and the place of a member is counted from the start of the volume that its directory entry
names. So nothing is renamed and no second 9 GB are needed. What `zipfile` cannot read (in volumes, Zip64 that is really needed;
Deflate64) is refused with the command to run by hand. Which volumes there are is `zip_volumes`' part.
"""

from __future__ import annotations

import io
import itertools
import stat
import struct
import zipfile
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any

from monai_chd.archives.members import CHUNK, Member, checked_members
from monai_chd.archives.zip_volumes import DAMAGE, ZipVolume, end_record
from monai_chd.errors import UserError
from monai_chd.wording import some_of

_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class _Joined(io.RawIOBase):
    """Volumes one after the other as one file. Opens them when needed; fastest when read forwards.

    Info-ZIP writes Zip64 records into every archive beyond 4 GB, also where volumes keep each number small enough for the
    plain record, which is complete then. `zipfile` refuses such records in several volumes, so they are left out.
    """

    def __init__(self, volumes: Sequence[ZipVolume]) -> None:
        self.volumes = volumes
        parts = [(index, 0, volume.size) for index, volume in enumerate(volumes)]
        if left_out := _needless_zip64(volumes):
            last, _, size = parts.pop()
            parts += [(last, 0, left_out.start), (last, left_out.stop, size - left_out.stop)]
        self._parts = parts  # volume, where in it, and how many bytes
        self.starts = [0, *itertools.accumulate(size for _, _, size in parts)]
        self._position = 0
        self._opened: tuple[int, IO[bytes]] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.starts[-1]}[whence]
        if origin + offset < 0:
            raise OSError(f"seek to {origin + offset}, before the start of the archive")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        index = bisect_right(self.starts, self._position) - 1
        if index >= len(self._parts):
            return 0
        volume, begin, _ = self._parts[index]
        part = self._part(volume)
        part.seek(begin + self._position - self.starts[index])
        data = part.read(min(len(buffer), self.starts[index + 1] - self._position))
        if not data:
            raise EOFError(f"{self.volumes[volume].place}: ends before its size")
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _part(self, index: int) -> IO[bytes]:
        if self._opened is None or self._opened[0] != index:
            self._close_part()
            self._opened = index, self.volumes[index].open()
        return self._opened[1]

    def _close_part(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    def close(self) -> None:
        self._close_part()
        super().close()


def _needless_zip64(volumes: Sequence[ZipVolume]) -> range | None:
    """Bytes of the last volume between its directory and its plain end record, when that record says everything."""
    end = end_record(volumes[-1])
    if end is None or end.disk in (0, 0xFFFF) or end.directory_disk != end.disk:
        return None
    # where the plain record refers to the others, it has 4 GiB for a place, and the range is empty
    return range(end.directory_offset + end.directory_size, end.place) or None


@dataclass(frozen=True)
class ZipArchive:
    """A ZIP as one stream; its members are in order of place."""

    name: str
    members: list[Member]
    volumes: Sequence[ZipVolume]
    stream: zipfile.ZipFile

    mend: str = "download these volumes again and run it again"
    damage: tuple[type[Exception], ...] = DAMAGE

    def open(self, member: Member) -> IO[bytes]:
        """See `members.Archive`; zipfile compares the checksum."""
        return self.stream.open(member.info)

    def place(self, member: Member) -> str:
        """See `members.Archive`."""
        return f"{member.name} in {some_of(self._volumes_of(member), 3)}"

    def _volumes_of(self, member: Member) -> list[str]:
        """Names of the volumes a member lies in."""
        starts = _Joined(self.volumes).starts
        first = bisect_right(starts, member.info.header_offset) - 1
        last = bisect_right(starts, member.info.header_offset + member.info.compress_size) - 1
        return [volume.name for volume in self.volumes[first : last + 1]]


def open_zip(volumes: Sequence[ZipVolume], stack: ExitStack) -> ZipArchive:
    """Open the volumes of a ZIP, all of them in order, and prove that it is whole and safe; `stack` closes it.

    Raises:
        UserError: volumes cut short, a damaged directory, unsafe entries, or no scan.
    """
    last = volumes[-1]
    renamed = f"{last.key[0]}.zip"
    first = "" if last.name == renamed else f"copy {last.name} to {renamed} beside the other volumes, then "
    by_hand = (
        f"{first}run: 7z x {renamed} -oDIR (7-Zip), or: zip -s 0 {renamed} --out whole.zip && unzip whole.zip -d DIR"
    )
    joined = stack.enter_context(_Joined(volumes))
    try:
        file = stack.enter_context(io.BufferedReader(joined, CHUNK))
        stream = stack.enter_context(zipfile.ZipFile(file))
        infos = _absolute(stream, joined)
        short = _cut_short(file, joined, infos, stream.start_dir)
    except DAMAGE as error:
        raise UserError(
            f"{last.place}: its directory cannot be read ({error}); download it again, or unpack by hand: {by_hand}"
        ) from error
    if short:
        raise UserError(f"volumes cut short: {some_of(short, 20)}; download them again")
    members = checked_members(last.place, [_zip_member(info) for info in infos], by_hand)
    return ZipArchive(last.key[0], members, volumes, stream)


def _absolute(stream: zipfile.ZipFile, joined: _Joined) -> list[zipfile.ZipInfo]:
    """Directory entries in order of place, which is counted from the start of the stream, not of a volume."""
    end = end_record(joined.volumes[-1])
    if end is None or end.disk == 0:
        return sorted(stream.infolist(), key=lambda info: info.header_offset)
    # zipfile takes the archive for one file, and adds to each place what precedes the volume with the directory
    shift = joined.starts[end.directory_disk]
    if stream.start_dir - end.directory_offset != shift:
        raise zipfile.BadZipFile("the directory is not where the record at its end says: bytes lost or added")
    infos = []
    for found in stream.infolist():
        offset = found.header_offset - shift
        if found.volume > end.disk or not 0 <= offset < joined.volumes[found.volume].size:
            raise zipfile.BadZipFile(f"{found.filename!r} would lie at byte {offset} of volume {found.volume + 1}")
        # made anew, because zipfile derives the room a member has from the places it found
        info = zipfile.ZipInfo(found.orig_filename)
        info.header_offset = joined.starts[found.volume] + offset
        for name in ("compress_type", "flag_bits", "CRC", "compress_size", "file_size", "external_attr"):
            setattr(info, name, getattr(found, name))
        infos.append(info)
    return sorted(infos, key=lambda info: info.header_offset)


def _cut_short(file: IO[bytes], joined: _Joined, infos: list[zipfile.ZipInfo], directory: int) -> list[str]:
    """Volumes smaller than the largest that lack bytes of a member.

    Size alone does not tell: Info-ZIP ends a volume early rather than part a header. So each member that touches a smaller
    volume must reach to the next one, or to the directory after the last.
    """
    volumes = joined.volumes[:-1]
    largest = max((volume.size for volume in volumes), default=0)
    suspects = [i for i, volume in enumerate(volumes) if volume.size < largest or len(volumes) == 1]
    short = set()
    for info, following in zip(infos, [*(info.header_offset for info in infos[1:]), directory], strict=True):
        touched = [i for i in suspects if joined.starts[i] < following and info.header_offset < joined.starts[i + 1]]
        if touched:
            file.seek(info.header_offset)
            signature, name, extra = struct.unpack("<4s22x2H", file.read(30))
            gap = following - info.header_offset - 30 - name - extra - info.compress_size
            # a member written as a stream is followed by its CRC and sizes, in 32 or 64 bits, marked or not
            whole = gap in (12, 16, 20, 24) or gap > 24 if info.flag_bits & 8 else gap >= 0
            short |= set() if whole and signature == b"PK\3\4" else set(touched)
    return [f"{volumes[i].place}: {volumes[i].size} bytes (the largest volume has {largest})" for i in sorted(short)]


def _zip_member(info: zipfile.ZipInfo) -> Member:
    fault = ""
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        fault = "a link or device"
    elif info.flag_bits & 1:
        fault = "encrypted"
    elif info.compress_type not in _READABLE:
        fault = f"compression method {info.compress_type}, which Python cannot read"
    return Member(info.orig_filename, info.file_size, info.CRC, fault, info)
