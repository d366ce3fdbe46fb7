"""A RAR is listed and unpacked by a real tool, and what does not come out as listed is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from archive_makers import (
    NAME,
    RARS,
    craft_rar,
    make_plain,
    only,
    refused,
    same,
    tool,
)

from monai_chd.archives import members, rar
from monai_chd.archives.members import STATE
from monai_chd.archives.unpack import unpack


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    return make_plain(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("program", ["7z", "bsdtar"])
@pytest.mark.parametrize("name", ["rar5-subdirs.rar", "rar3-subdirs.rar"])
def test_a_real_rar_is_listed_and_unpacked(tmp_path, monkeypatch, program, name):
    tool(program)
    only(monkeypatch, program)
    monkeypatch.setattr(members, "is_nifti", lambda path: path.suffix == ".txt")
    shutil.copy(RARS / name, tmp_path)
    folder = unpack(tmp_path / name, tmp_path / "out", progress=False)
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == {
        "dir1/file1.txt": b"file1\n", "dir2/file2.txt": b"file2\n",
        "with space/long fn.txt": b"long fn\n", "üȵĩöḋè/file.txt": b"file\n",
    }  # fmt: skip


@pytest.mark.parametrize("program", ["7z", "bsdtar"])
def test_a_rar_with_a_link_is_refused(tmp_path, monkeypatch, program):
    tool(program)
    only(monkeypatch, program)
    refused(RARS / "rar5-evil-symlink-traversal.rar", tmp_path / "out", "'up': a link or device")


@pytest.mark.parametrize("program", ["7z", "bsdtar"])
@pytest.mark.parametrize("bad", ["../x.nii", "/x.nii"])
def test_a_rar_that_leaves_the_folder_is_refused(tmp_path, monkeypatch, program, bad):
    tool(program)
    only(monkeypatch, program)
    refused(craft_rar(tmp_path / "a.rar", {"ct.nii": b"scan", bad: b"scan"}), tmp_path / "out", bad)


@pytest.mark.parametrize("program", ["7z", "bsdtar"])
def test_a_rar_of_scans_and_going_on(plain, tmp_path, monkeypatch, program, capsys):
    tool(program)
    only(monkeypatch, program)
    members = {f"{NAME}/{path.name}": path.read_bytes() for path in sorted(plain.iterdir())}
    (tmp_path / "have").mkdir()
    source = craft_rar(tmp_path / "have" / "data.rar", members)
    (tmp_path / "out" / ".monai-chd-rar").mkdir(parents=True)  # of a run that was killed
    (tmp_path / "out" / ".monai-chd-rar" / "old.nii").write_bytes(b"")
    folder = unpack(tmp_path / "have", tmp_path / "out", progress=False)
    assert same(folder, plain)
    assert sorted(os.listdir(tmp_path / "out")) == [STATE, NAME]
    (folder / "ct_1003_image.nii.gz").unlink()
    assert same(unpack(source, tmp_path / "out", progress=False), plain)
    assert "20 were there already" in capsys.readouterr().out


def damaged_rar(path: Path) -> Path:
    craft_rar(path, {"ct.nii": b"scan" * 1000})
    path.write_bytes(path.read_bytes().replace(b"scanscan", b"scanscam", 1))
    return path


def test_a_damaged_rar_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    tool("7z")
    only(monkeypatch, "7z")
    with pytest.raises(ValueError, match=r"7z: .*CRC"):
        unpack(damaged_rar(tmp_path / "a.rar"), tmp_path / "out", progress=False)
    assert os.listdir(tmp_path / "out") == [STATE]


def test_what_a_tool_unpacks_is_compared_with_its_listing(tmp_path, monkeypatch):
    tool("7z")
    only(monkeypatch, "7z")
    real = rar._run

    def other_bytes(command):
        output = real(command)
        for path in (tmp_path / "out").rglob("ct.nii"):
            path.write_bytes(b"scam")
        return output

    monkeypatch.setattr(rar, "_run", other_bytes)
    with pytest.raises(ValueError, match="did not come out as listed"):
        unpack(craft_rar(tmp_path / "a.rar", {"ct.nii": b"scan"}), tmp_path / "out", progress=False)
    assert os.listdir(tmp_path / "out") == [STATE]


def test_that_bsdtar_checks_no_checksums_is_said(tmp_path, monkeypatch, capsys):
    tool("bsdtar")
    only(monkeypatch, "bsdtar")
    unpack(damaged_rar(tmp_path / "a.rar"), tmp_path / "out", progress=False)
    assert "bsdtar does not check the checksums" in capsys.readouterr().out


def test_without_a_tool_it_says_what_to_install_and_to_run(tmp_path, monkeypatch):
    only(monkeypatch)
    source = craft_rar(tmp_path / "a.rar", {"ct.nii": b"scan"})
    words = "apt install 7zip", "brew install sevenzip", "winget install 7zip.7zip", f"7z x {source} -oDIR"
    refused(source, tmp_path / "out", *words, kind=FileNotFoundError)


def test_what_no_tool_can_read_is_said(tmp_path, monkeypatch):
    tool("7z")
    (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07\x01\x00" + bytes(100))
    refused(tmp_path / "a.rar", tmp_path / "out", "cannot be read: 7z")


@pytest.mark.parametrize("program", ["7z", "bsdtar"])
def test_a_file_of_the_same_bytes_is_the_member_and_one_of_others_is_kept(tmp_path, monkeypatch, program):
    tool(program)
    only(monkeypatch, program)
    source = craft_rar(tmp_path / "a.rar", {"ct.nii": b"scan", "ct2.nii": b"scan2"})
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out" / "ct.nii"
    mine.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"1 files there are not .*: ct\.nii; .*--extract-to"):
        unpack(source, tmp_path / "out", progress=False)
    assert mine.read_bytes() == b"mine"
    assert not (tmp_path / "out" / "ct2.nii").exists()
    mine.write_bytes(b"scan")
    unpack(source, tmp_path / "out", progress=False)
    assert [(tmp_path / "out" / name).read_bytes() for name in ("ct.nii", "ct2.nii")] == [b"scan", b"scan2"]
