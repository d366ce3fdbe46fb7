"""Gets from what a researcher downloaded (a split ZIP, outer ZIPs around its volumes, one ZIP or RAR) to a folder of scans.

Every ZIP is read by Python alone, with no tool and no copy in between: the volumes, files or members of outer ZIPs, are
joined to one stream for `zipfile`, and the place of a member is counted from the start of the volume that its directory
entry names. So nothing is renamed and no second 9 GB are needed. What `zipfile` cannot read (split Zip64, Deflate64) is
refused with the command to run by hand. Only `.rar` needs an installed 7-Zip or bsdtar.
Which scan belongs to which patient is `datalist`'s part.
"""

from __future__ import annotations

import io
import itertools
import json
import lzma
import os
import posixpath
import re
import shutil
import stat
import struct
import subprocess
import sys
import unicodedata
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from monai_chd.files import replacing, writable_folder
from monai_chd.reading import is_nifti

STATE = ".monai-chd-unpack.json"
"""In the folder unpacked to: members done (size, CRC, time of change), and whether all are."""

_VOLUME = re.compile(r"(?P<set>.+)\.(?:z(?P<number>\d\d+)|zip|change2zip)", re.IGNORECASE)
_LAST = 0
"""Number of the last volume (`.zip`, `.change2zip`) where the others are .z01, .z02, …"""

_CHUNK = 1 << 20
_MARGIN = 64 << 20
"""Bytes kept free on the disk beside what is unpacked."""

_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, struct.error)
"""What `zipfile` raises on damaged, encrypted or exotic data."""

_RAR_FOLDER = ".monai-chd-rar"
"""In the folder unpacked to, while a tool unpacks there."""


class _Volume(NamedTuple):
    """One volume of a ZIP: a file, or a member of an outer ZIP around it."""

    name: str
    size: int
    file: Path
    member: zipfile.ZipInfo | None = None

    @property
    def place(self) -> str:
        return str(self.file) if self.member is None else f"{self.member.filename} in {self.file}"

    @property
    def key(self) -> tuple[str, int]:
        """Name of the set, and number in it."""
        match = _VOLUME.fullmatch(self.name)
        return (match["set"], int(match["number"] or _LAST)) if match else (self.name, _LAST)

    def open(self) -> IO[bytes]:
        if self.member is None:
            return self.file.open("rb")
        with zipfile.ZipFile(self.file) as outer:
            return outer.open(self.member)


class _End(NamedTuple):
    """What the end-of-central-directory record says: own volume, and volume and offset of the directory, counted from 0."""

    disk: int
    directory_disk: int
    directory_offset: int


@dataclass(frozen=True)
class _Member:
    """A file in an archive; `fault` says why it may not be unpacked."""

    name: str
    size: int
    crc: int | None
    fault: str = ""
    info: zipfile.ZipInfo | None = None


@dataclass
class _Archive:
    """An archive ready to be unpacked: a ZIP as one stream, or a RAR with the tool that could list it."""

    name: str
    members: list[_Member]
    by_hand: str
    volumes: list[_Volume] = field(default_factory=list)
    stream: zipfile.ZipFile | None = None
    rar: Path | None = None
    tool: str = ""

    @property
    def folder(self) -> str:
        """Folder all members lie in, relative; "." when they share none."""
        return posixpath.commonpath([posixpath.dirname(f"./{member.name}") for member in self.members])


class _Joined(io.RawIOBase):
    """Volumes one after the other as one file. Opens them when needed; fastest when read forwards."""

    def __init__(self, volumes: Sequence[_Volume]) -> None:
        self.volumes = volumes
        self.starts = [0, *itertools.accumulate(volume.size for volume in volumes)]
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
        if index >= len(self.volumes):
            return 0
        part = self._part(index)
        part.seek(self._position - self.starts[index])
        data = part.read(min(len(buffer), self.starts[index + 1] - self._position))
        if not data:
            raise EOFError(f"{self.volumes[index].place}: ends before its size")
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


def unpack(source: str | Path, extract_to: str | Path | None = None, *, progress: bool = True) -> Path:
    """Find the folder of scans in a download, unpacking it first where it is an archive.

    Says on standard output where the scans are. Unpacking again goes on where it stopped.

    Args:
        source: a folder with NIfTI files in it or below it (returned as it is; archives beside them are left alone); a folder
            with the volumes of a split ZIP (`NAME.z01` … and `NAME.zip` or `NAME.change2zip`), each as it is or in an outer ZIP;
            a ZIP of these volumes or of NIfTI files; one volume of a set; a `.rar`.
        extract_to: folder to unpack to, made if need be; not inside `source`.
        progress: show a bar, in bytes.

    Returns:
        The folder with the scans: `source`, or the folder below `extract_to` in which all unpacked files lie.

    Raises:
        FileNotFoundError: no scan and no archive; a volume is missing; no tool for a `.rar`.
        ValueError: archive and no `extract_to`; a volume of the wrong size; unsafe, encrypted, repeated or damaged members;
            too little disk; scans of an unpacking that was interrupted.
    """
    folder, source = Path(source), Path(source).resolve()
    if not source.exists():
        raise FileNotFoundError(f"{folder}: no such file or folder; name the downloaded archive or the folder of scans")
    files = _files(source)
    if source.is_dir() and any(is_nifti(path) for path in files):
        _refuse_half(source)
        aside = [path.name for path in files if _looks_packed(path)]
        also = f" (archives beside them are left alone: {_some(aside)})" if aside else ""
        print(f"scans: {folder}{also}")
        return folder
    with ExitStack() as stack:
        archive = _open(source, files, stack)
        target = _target(source, extract_to, archive)
        skipped = _extract(archive, target, progress)
    total = tqdm.format_sizeof(sum(member.size for member in archive.members), "B")
    print(f"scans: {target / archive.folder} ({len(archive.members)} files, {total}; {skipped} were there already)")
    return target / archive.folder


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _files(source: Path) -> list[Path]:
    """The files below a folder; a file and, after it, what lies beside it."""
    if source.is_dir():
        return sorted(path for path in source.rglob("*") if path.is_file())
    return [source, *sorted(path for path in source.parent.iterdir() if path.is_file() and path != source)]


def _looks_packed(path: Path) -> bool:
    named = _VOLUME.fullmatch(path.name) or path.suffix.lower() == ".rar"
    return bool(named) and not path.name.startswith("._")


def _is_rar(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == b"Rar!\x1a\x07"


def _refuse_half(source: Path) -> None:
    """Refuse scans that an unpacking left unfinished, whether its folder, one above or one below is named."""
    for parent in (source, *source.parents):
        state = _load(parent)
        inside = parent / str(state.get("folder", "."))
        if state and not state.get("complete") and (source.is_relative_to(inside) or inside.is_relative_to(source)):
            raise ValueError(
                f"{source}: unpacking {state['archive']} did not end, so scans are missing here; run it again with the "
                f"archive and --extract-to {parent} (what is done is not done again), or remove {parent / STATE} to take "
                f"what is there"
            )


def _open(source: Path, files: list[Path], stack: ExitStack) -> _Archive:
    """Find the one archive meant, and prove that it is whole and safe."""
    packed = [path for path in files if _looks_packed(path) or path == source]
    if source.is_file() and (_is_rar(source) or not _is_one_of_many(source)):
        packed = [source]
    rars = [path for path in packed if _is_rar(path)]
    volumes = [volume for path in packed if path not in rars for volume in _volumes(path)]
    sets: dict[str, dict[int, _Volume]] = {}
    # a volume may be there twice, as it is and in an outer ZIP: the plain file is taken
    for volume in sorted(volumes, key=lambda volume: volume.member is not None):
        sets.setdefault(volume.key[0], {}).setdefault(volume.key[1], volume)
    if source.is_file() and source not in rars:
        rars, sets = [], {name: found for name, found in sets.items() if name == _volumes(source)[0].key[0]}
    if not rars and not sets:
        raise FileNotFoundError(
            f"{source}: no scan (.nii.gz, .nii) and no archive of scans found; expected the volumes NAME.z01 … and "
            f"NAME.change2zip or NAME.zip, a .zip or a .rar; found {_some([path.name for path in files]) or 'nothing'}"
        )
    if len(rars) + len(sets) > 1:
        for found in sets.values():
            _closing(found)  # an outer ZIP cut short passes for another archive
        names = [path.name for path in rars] + [f"{name}.*" for name in sets]
        raise ValueError(f"{source}: {len(names)} archives ({_some(names)}); name the file of the one to unpack")
    if rars:
        return _open_rar(rars[0])
    name, found = sets.popitem()
    return _open_zip(_complete(source, name, found), stack)


def _is_one_of_many(path: Path) -> bool:
    """Whether a file holds one volume of a set, the rest of which must lie beside it."""
    volumes = _volumes(path)
    if len(volumes) > 1 or not _looks_packed(Path(volumes[0].name)):
        return False
    end = _end_record(volumes[0])
    return end is None or end.disk > 0


def _volumes(path: Path) -> list[_Volume]:
    """The volumes a file holds: those packed in it when it is an outer ZIP, else itself."""
    itself = _Volume(path.name, path.stat().st_size, path)
    end = _end_record(itself)
    if end is None or end.disk > 0:
        return [itself]
    try:
        with zipfile.ZipFile(path) as outer:
            infos = [info for info in outer.infolist() if not info.is_dir()]
    except _DAMAGE:
        return [itself]
    names = [Path(info.filename).name for info in infos]
    if any(is_nifti(Path(name)) for name in names):
        return [itself]
    packed = [
        _Volume(name, info.file_size, path, info)
        for name, info in zip(names, infos, strict=True)
        if _VOLUME.fullmatch(name) and not name.startswith("._")
    ]
    return packed or [itself]


def _end_record(volume: _Volume) -> _End | None:
    """The end-of-central-directory record, None when the volume does not end with one."""
    try:
        with volume.open() as file:
            file.seek(max(0, volume.size - 22 - 0xFFFF))
            tail = file.read()
    except _DAMAGE as error:
        raise ValueError(f"{volume.place}: cannot be read ({error}); download {volume.file.name} again") from error
    at = tail.rfind(b"PK\5\6")
    if not 0 <= at <= len(tail) - 22:
        return None
    _, disk, directory_disk, _, _, _, offset, comment = struct.unpack_from("<4s4H2LH", tail, at)
    return _End(disk, directory_disk, offset) if at + 22 + comment == len(tail) else None


def _closing(found: dict[int, _Volume]) -> _End | None:
    """The end record of a set's last volume, None when that volume is missing.

    Raises:
        ValueError: the volume does not end with one.
    """
    last = found.get(_LAST)
    end = _end_record(last) if last else None
    if last and end is None:
        with last.open() as file:
            head = file.read(16)
        raise ValueError(
            f"{last.place}: cut short, or no ZIP: {last.size} bytes that begin with {head!r} and do not end with a ZIP's "
            f"directory; download {last.file.name} again"
        )
    return end


def _complete(source: Path, name: str, found: dict[int, _Volume]) -> list[_Volume]:
    """All volumes of a set in order, the last one last, none missing.

    Raises:
        FileNotFoundError: volumes are missing.
        ValueError: a volume too many, or a last one without its end.
    """
    last, end = found.get(_LAST), _closing(found)
    count = end.disk if end else max(found)
    names = [f"{name}.z{number:02}" for number in range(1, count + 1)]
    missing = [volume for number, volume in enumerate(names, 1) if number not in found]
    missing += [] if last else [f"{name}.change2zip (or {name}.zip), the last volume"]
    if missing:
        expected = f"{_some(names, 1)}{f' to {names[-1]}' if count > 1 else ''} and the last, .change2zip or .zip"
        raise FileNotFoundError(
            f"{source}: {len(missing)} of {count + 1} volumes missing: {_some(missing, 20)}; expected {expected}; put all of "
            f"them into one folder"
        )
    extra = [found[number].place for number in sorted(found) if number > count]
    if extra:
        raise ValueError(
            f"{_some(extra)}: no part of {last and last.place}, which closes {count + 1} volumes; move it away"
        )
    return [*(found[number] for number in range(1, count + 1)), *([last] if last else [])]


def _open_zip(volumes: list[_Volume], stack: ExitStack) -> _Archive:
    last = volumes[-1]
    renamed = f"{last.key[0]}.zip"
    first = "" if last.name == renamed else f"copy {last.name} to {renamed} beside the other volumes, then "
    by_hand = (
        f"{first}run: 7z x {renamed} -oDIR (7-Zip), or: zip -s 0 {renamed} --out whole.zip && unzip whole.zip -d DIR"
    )
    joined = stack.enter_context(_Joined(volumes))
    try:
        file = stack.enter_context(io.BufferedReader(joined, _CHUNK))
        stream = stack.enter_context(zipfile.ZipFile(file))
        infos = _absolute(stream, joined)
        short = _cut_short(file, joined, infos, stream.start_dir)
    except _DAMAGE as error:
        raise ValueError(
            f"{last.place}: its directory cannot be read ({error}); download it again, or unpack by hand: {by_hand}"
        ) from error
    if short:
        raise ValueError(f"volumes cut short: {_some(short, 20)}; download them again")
    members = _safe(last.place, [_zip_member(info) for info in infos], by_hand)
    return _Archive(last.key[0], members, by_hand, volumes, stream)


def _absolute(stream: zipfile.ZipFile, joined: _Joined) -> list[zipfile.ZipInfo]:
    """Directory entries in order of place, which is counted from the start of the stream, not of a volume."""
    end = _end_record(joined.volumes[-1])
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


def _zip_member(info: zipfile.ZipInfo) -> _Member:
    fault = ""
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        fault = "a link or device"
    elif info.flag_bits & 1:
        fault = "encrypted"
    elif info.compress_type not in _READABLE:
        fault = f"compression method {info.compress_type}, which Python cannot read"
    return _Member(info.orig_filename, info.file_size, info.CRC, fault, info)


def _safe(archive: str, members: list[_Member], by_hand: str) -> list[_Member]:
    """The regular files of an archive without AppleDouble shadows; nothing at all when one entry is unsafe.

    Raises:
        ValueError: entries that leave the folder, are links, encrypted or repeated (all listed); or no scan.
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
        kept.append(_Member(path, member.size, member.crc, info=member.info))
    faults += [f"{name!r}: a file and a folder" for name in sorted(taken & folders)]
    if faults:
        raise ValueError(
            f"{archive}: {len(faults)} entries are not unpacked, so none is: {_some(faults, 20)}. Expected regular files below "
            f"one folder, neither encrypted nor repeated. Get it again from its source; if you trust it, {by_hand}"
        )
    if not any(is_nifti(Path(member.name)) for member in kept):
        listed = _some([member.name for member in kept], 5) or "nothing"
        raise ValueError(
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


def _target(source: Path, extract_to: str | Path | None, archive: _Archive) -> Path:
    """The folder to unpack to, made when the disk has room."""
    total = tqdm.format_sizeof(sum(member.size for member in archive.members), "B")
    if extract_to is None:
        raise ValueError(
            f"{source}: an archive ({archive.name}, {len(archive.members)} files, {total} unpacked); say where to unpack it with "
            f"--extract-to DIR"
        )
    target = Path(extract_to).resolve()
    if source.is_dir() and target.is_relative_to(source):
        raise ValueError(
            f"{target}: inside the download {source}, where nothing is written; choose another --extract-to DIR"
        )
    there = next(place for place in (target, *target.parents) if place.exists())
    missing = [member.size for member in archive.members if not _has_size(target / member.name, member.size)]
    needed, free = sum(missing) + _MARGIN, shutil.disk_usage(there).free
    if missing and needed > free:
        raise ValueError(
            f"{target}: too little disk: needs {tqdm.format_sizeof(needed, 'B')}, free are {tqdm.format_sizeof(free, 'B')}; make "
            f"room or choose another --extract-to DIR"
        )
    return writable_folder(target)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _load(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # none, or a broken one: then files are compared by CRC
    return state


def _extract(archive: _Archive, target: Path, progress: bool) -> int:
    """Unpack what is not there; returns how many members were. The state on disk says `complete` only at the very end."""
    done: dict[str, Any] = _load(target).get("members", {})
    state = {"archive": archive.name, "folder": archive.folder, "complete": False, "members": done}
    _save(target, state)
    try:
        total = sum(member.size for member in archive.members)
        with tqdm(total=total, unit="B", unit_scale=True, desc="unpacking", disable=not progress) as bar:
            missing = [member for member in archive.members if not _is_there(target, member, done, bar)]
            (_extract_zip if archive.stream else _extract_rar)(archive, missing, target, done, bar)
        state["complete"] = True
    except OSError as error:
        raise ValueError(f"{target}: unpacking stopped ({error}); run it again when that is mended") from None
    finally:
        _save(target, state)
    return len(archive.members) - len(missing)


def _save(target: Path, state: dict[str, Any]) -> None:
    with replacing(target / STATE) as temporary:
        temporary.write_text(json.dumps(state), encoding="utf-8")


def _note(path: Path, member: _Member) -> list[int | None]:
    return [member.size, member.crc, path.stat().st_mtime_ns]


def _is_there(target: Path, member: _Member, done: dict[str, Any], bar: tqdm[Any]) -> bool:
    """Whether a member was unpacked: noted and untouched since, or of its size and CRC."""
    path = target / member.name
    if not _has_size(path, member.size):
        return False
    note = _note(path, member)
    if done.get(member.name) != note and (member.crc is None or _crc(path) != member.crc):
        return False
    done[member.name] = note
    bar.update(member.size)
    return True


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _extract_zip(archive: _Archive, missing: list[_Member], target: Path, done: dict[str, Any], bar: tqdm[Any]) -> None:
    """Write members in order of place; damaged ones are reported together at the end, with the volumes they lie in."""
    damaged = []
    for member in missing:
        path = target / member.name
        try:
            _write(archive, member, path, bar)
            done[member.name] = _note(path, member)
        except _DAMAGE as error:
            damaged.append(f"{member.name} in {_some(_volumes_of(archive, member), 3)} ({error})")
    if damaged:
        raise ValueError(
            f"{archive.name}: {len(damaged)} damaged members, not unpacked: {_some(damaged, 20)}; download these volumes again "
            f"and run it again (the other members are in {target} and stay)"
        )


def _write(archive: _Archive, member: _Member, path: Path, bar: tqdm[Any]) -> None:
    """Write one member under a name nobody takes for a scan, and give it its own when size and CRC (by zipfile) are right."""
    assert archive.stream and member.info
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.monai-chd-part")
    try:
        with archive.stream.open(member.info) as packed, temporary.open("wb") as file:
            while chunk := packed.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            if file.tell() != member.size:
                raise EOFError(f"{file.tell()} bytes, expected {member.size}")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _volumes_of(archive: _Archive, member: _Member) -> list[str]:
    """Names of the volumes a member lies in."""
    assert member.info
    starts = _Joined(archive.volumes).starts
    first = bisect_right(starts, member.info.header_offset) - 1
    last = bisect_right(starts, member.info.header_offset + member.info.compress_size) - 1
    return [volume.name for volume in archive.volumes[first : last + 1]]


def _rar_tools() -> list[str]:
    """Programs that read RAR: 7-Zip (on Windows beside the path), bsdtar, which is the `tar` of Windows and macOS."""
    names = ["7zz", "7z", "bsdtar", *(["tar"] if sys.platform in ("win32", "darwin") else [])]
    found = [shutil.which(name) or shutil.which(name, path=r"C:\Program Files\7-Zip") for name in names]
    return [tool for tool in found if tool]


def _is_seven_zip(tool: str) -> bool:
    return Path(tool).stem.lower().startswith("7z")


def _run(command: list[str]) -> str:
    """Output of a tool; never asks for a password.

    Raises:
        ValueError: it failed; the message is what it said.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    output, said = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    if done.returncode:
        raise ValueError(f"{Path(command[0]).name}: {' '.join((said or output).split())[-300:]}")
    return output


def _open_rar(path: Path) -> _Archive:
    by_hand = f"run: 7z x {path} -oDIR, or: unrar x {path} DIR/, or: bsdtar -xf {path} -C DIR; then name DIR instead"
    failed = []
    for tool in _rar_tools():
        try:
            lister = _list_by_seven_zip if _is_seven_zip(tool) else _list_by_bsdtar
            members = lister(tool, path)
        except ValueError as error:
            failed.append(str(error))
            continue
        return _Archive(path.name, _safe(str(path), members, by_hand), by_hand, rar=path, tool=tool)
    if failed:
        raise ValueError(f"{path}: cannot be read: {'; '.join(failed)}. Download it again, or {by_hand}")
    raise FileNotFoundError(
        f"{path}: a .rar needs 7-Zip or bsdtar, and neither is installed; install one (Debian, Ubuntu: sudo apt install 7zip, or "
        f"libarchive-tools; macOS: brew install sevenzip; Windows: winget install 7zip.7zip) and run it again, or {by_hand}"
    )


def _list_by_seven_zip(tool: str, path: Path) -> list[_Member]:
    members = []
    for block in re.split(r"\r?\n\r?\n", _run([tool, "l", "-slt", "-ba", "-sccUTF-8", "--", str(path)])):
        entry = dict(line.split(" = ", 1) for line in block.splitlines() if " = " in line)
        if "Path" not in entry:
            continue
        fault = "encrypted" if entry.get("Encrypted") == "+" else ""
        if entry.get("Symbolic Link") or entry.get("Hard Link"):
            fault = "a link or device"
        name = entry["Path"].replace(os.sep, "/") + ("/" if entry.get("Folder") == "+" else "")
        crc = int(entry["CRC"], 16) if entry.get("CRC") else None
        members.append(_Member(name, int(entry.get("Size") or 0), crc, fault))
    return members


def _list_by_bsdtar(tool: str, path: Path) -> list[_Member]:
    members = []
    for line in _run([tool, "-tvf", str(path)]).splitlines():
        kind, *_, size, _, _, _, text = line.split(maxsplit=8)
        name, *linked = re.split(" link to | -> ", text, maxsplit=1)
        fault = "a link or device" if linked or kind[0] not in "-d" else ""
        members.append(_Member(name + ("/" if kind[0] == "d" else ""), int(size), None, fault))
    return members


def _extract_rar(archive: _Archive, missing: list[_Member], target: Path, done: dict[str, Any], bar: tqdm[Any]) -> None:
    """Let the tool unpack all into a temporary folder of the target, then move what is as the listing said."""
    if not missing:
        return
    bar.write(f"unpacking {archive.name} with {Path(archive.tool).name}")
    folder = target / _RAR_FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir()
    try:
        if _is_seven_zip(archive.tool):
            _run([archive.tool, "x", "-y", f"-o{folder}", "--", str(archive.rar)])
        else:
            _run([archive.tool, "-xf", str(archive.rar), "-C", str(folder), "--no-same-owner", "--no-same-permissions"])
            print(
                "bsdtar does not check the checksums of a RAR; those in .nii.gz files are checked when scans are read"
            )
        for member in missing:
            found, path = folder / member.name, target / member.name
            plain = found.resolve() == folder / member.name and _has_size(found, member.size)
            if not plain or member.crc not in (None, _crc(found)):
                raise ValueError(f"{archive.name}: {member.name} did not come out as listed; {archive.by_hand}")
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(found, path)
            done[member.name] = _note(path, member)
            bar.update(member.size)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
