"""Archives for tests, made by the real tools, or byte by byte where no free tool writes them."""

from __future__ import annotations

import filecmp
import shutil
import stat
import subprocess
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from monai_chd.archives.unpack import unpack

NAME = "ImageCHD_dataset"
RARS = Path(__file__).parents[1] / "data" / "archives"
INSTALL = {"zip": "zip", "7z": "7zip or p7zip-full", "unar": "unar", "unrar": "unrar"}


def make_plain(root: Path) -> Path:
    """A folder ImageCHD_dataset of 10 scans, 10 label maps (noise, so that nothing compresses) and a workbook."""
    folder = root / NAME
    folder.mkdir()
    random = np.random.default_rng(7)
    for number in range(1001, 1011):
        (folder / f"ct_{number}_image.nii.gz").write_bytes(random.bytes(100_000))
        (folder / f"ct_{number}_label.nii.gz").write_bytes(random.bytes(5_000))
    (folder / "imageCHD_dataset_info.xlsx").write_bytes(random.bytes(3_000))
    return folder


def make_split(plain: Path, folder: Path) -> Path:
    """13 volumes as on Kaggle, by Info-ZIP."""
    run(tool("zip"), "-r", "-s", "80k", folder / f"{NAME}.zip", NAME, cwd=plain.parent)
    (folder / f"{NAME}.zip").rename(folder / f"{NAME}.change2zip")
    assert len(list(folder.iterdir())) == 13
    return folder


def tool(name: str) -> str:
    """Path of a real tool; the test is skipped without it."""
    path = shutil.which(name) or (shutil.which("7zz") if name == "7z" else None)
    if path is None:
        pytest.skip(f"{name} makes or reads this test's archive; apt install {INSTALL[name]}")
    return path


def rar_tool(name: str) -> str:
    """The same of one that reads RAR, which Debian's 7-Zip does not."""
    path = tool(name)
    if name == "7z" and " Rar" not in subprocess.run([path, "i"], capture_output=True, text=True).stdout:
        pytest.skip("this 7-Zip reads no RAR")
    return path


def run(*command: object, cwd: Path | None = None) -> None:
    subprocess.run([str(word) for word in command], cwd=cwd, check=True, capture_output=True, stdin=subprocess.DEVNULL)


def same(left: Path, right: Path) -> bool:
    """Equal trees, byte for byte."""
    names = [sorted(p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file()) for f in (left, right)]
    return names[0] == names[1] and filecmp.cmpfiles(left, right, names[0], shallow=False)[1:] == ([], [])


def outer(path: Path, *files: Path) -> Path:
    run(tool("zip"), "-j", path, *files)
    return path


def craft(path: Path, *names: str | zipfile.ZipInfo, content: bytes = b"scan") -> Path:
    """A ZIP with a good scan and then the named members."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("ct_1001_image.nii.gz", *names):
            archive.writestr(name, content)
    return path


def vint(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + vint(number >> 7)


def craft_rar(path: Path, members: dict[str, bytes], *, part: int | None = None, more: bool = False) -> Path:
    """A RAR 5 of stored members, as the format's description says; no free tool writes one.

    Args:
        path: to write.
        members: content by name.
        part: number from 0 of the part of a set that it is; None: it is all there is.
        more: whether a part follows.
    """

    def block(*fields: bytes) -> bytes:
        header = b"".join(fields)
        sized = vint(len(header)) + header
        return zlib.crc32(sized).to_bytes(4, "little") + sized

    volume = vint(0) if part is None else vint(1) if part == 0 else vint(3) + vint(part)
    parts = [b"Rar!\x1a\x07\x01\x00", block(vint(1), vint(0), volume)]
    for name, data in members.items():
        crc, raw = zlib.crc32(data).to_bytes(4, "little"), name.encode()
        about = (vint(4), vint(len(data)), vint(0o100644), crc, vint(0), vint(1), vint(len(raw)), raw)
        parts += [block(vint(2), vint(2), vint(len(data)), *about), data]
    path.write_bytes(b"".join([*parts, block(vint(5), vint(0), vint(int(more)))]))
    return path


def only(monkeypatch, folder: Path, *tools: str) -> None:
    """Hide all tools but these paths."""
    folder.mkdir()
    for path in tools:
        (folder / Path(path).name).symlink_to(path)
    monkeypatch.setenv("PATH", str(folder))


def refused(source: Path, target: Path, *words: str, kind: type[Exception] = ValueError) -> str:
    """The error of a source that is refused before anything is written."""
    with pytest.raises(kind) as error:
        unpack(source, target, progress=False)
    message = str(error.value)
    assert [word for word in words if word not in message] == [], message
    assert not target.exists()
    return message


def link(name: str, kind: int = stat.S_IFLNK) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info
