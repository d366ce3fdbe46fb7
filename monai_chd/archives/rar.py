"""Reads a RAR by an installed 7-Zip or bsdtar: lists it, and lets the tool unpack into a folder of its own first."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from monai_chd.archives.members import Member, checked_members, crc_of, has_size, refuse_others
from monai_chd.errors import UserError, UserFileError

_FOLDER = ".monai-chd-rar"
"""In the folder unpacked to, while a tool unpacks there."""


@dataclass(frozen=True)
class RarArchive:
    """A RAR, the tool that could list it, and what to run by hand."""

    name: str
    members: list[Member]
    by_hand: str
    path: Path
    tool: str

    def extract(self, missing: Sequence[Member], target: Path, done: Callable[[Member], None], bar: tqdm[Any]) -> None:
        """See `archive_members.Archive`; the tool unpacks all to a temporary folder, and what is as listed is moved."""
        if not missing:
            return
        bar.write(f"unpacking {self.name} with {Path(self.tool).name}")
        folder = target / _FOLDER
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        folder.mkdir()
        try:
            self._run_tool(folder)
            self._check(missing, folder, target)
            for member in missing:
                path = target / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                os.replace(folder / member.name, path)
                done(member)
                bar.update(member.size)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run_tool(self, folder: Path) -> None:
        if _is_seven_zip(self.tool):
            _run([self.tool, "x", "-y", f"-o{folder}", "--", str(self.path)])
            return
        _run([self.tool, "-xf", str(self.path), "-C", str(folder), "--no-same-owner", "--no-same-permissions"])
        print("bsdtar does not check the checksums of a RAR; those in .nii.gz files are checked when scans are read")

    def _check(self, missing: Sequence[Member], folder: Path, target: Path) -> None:
        """Refuse members that are not as listed, and such as would replace other bytes."""
        for member in missing:
            found = folder / member.name
            plain = found.resolve() == found and has_size(found, member.size)
            if not plain or member.crc not in (None, crc_of(found)):
                raise UserError(f"{self.name}: {member.name} did not come out as listed; {self.by_hand}")
        unsure = [one for one in missing if one.crc is None and has_size(target / one.name, one.size)]
        refuse_others(
            target, [one for one in unsure if not filecmp.cmp(folder / one.name, target / one.name, shallow=False)]
        )


def is_rar(path: Path) -> bool:
    """Whether a file begins as a RAR does."""
    with path.open("rb") as file:
        return file.read(6) == b"Rar!\x1a\x07"


def open_rar(path: Path) -> RarArchive:
    """List a RAR by the first tool that can, and prove that it is safe.

    Raises:
        UserFileError: no tool is installed; the message has how to get one.
        UserError: no tool can read it, unsafe entries, or no scan.
    """
    by_hand = f"run: 7z x {path} -oDIR, or: unrar x {path} DIR/, or: bsdtar -xf {path} -C DIR; then name DIR instead"
    failed = []
    for tool in _rar_tools():
        try:
            lister = _list_by_seven_zip if _is_seven_zip(tool) else _list_by_bsdtar
            members = lister(tool, path)
        except ValueError as error:
            failed.append(str(error))
            continue
        return RarArchive(path.name, checked_members(str(path), members, by_hand), by_hand, path, tool)
    if failed:
        raise UserError(f"{path}: cannot be read: {'; '.join(failed)}. Download it again, or {by_hand}")
    raise UserFileError(
        f"{path}: a .rar needs 7-Zip or bsdtar, and neither is installed; install one (Debian, Ubuntu: sudo apt install 7zip, or "
        f"libarchive-tools; macOS: brew install sevenzip; Windows: winget install 7zip.7zip) and run it again, or {by_hand}"
    )


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
        UserError: it failed; the message is what it said.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    output, said = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    if done.returncode:
        raise UserError(f"{Path(command[0]).name}: {' '.join((said or output).split())[-300:]}")
    return output


def _list_by_seven_zip(tool: str, path: Path) -> list[Member]:
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
        members.append(Member(name, int(entry.get("Size") or 0), crc, fault))
    return members


def _list_by_bsdtar(tool: str, path: Path) -> list[Member]:
    members = []
    for line in _run([tool, "-tvf", str(path)]).splitlines():
        kind, *_, size, _, _, _, text = line.split(maxsplit=8)
        name, *linked = re.split(" link to | -> ", text, maxsplit=1)
        fault = "a link or device" if linked or kind[0] not in "-d" else ""
        members.append(Member(name + ("/" if kind[0] == "d" else ""), int(size), None, fault))
    return members
