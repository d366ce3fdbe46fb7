"""A RAR is listed without a tool and unpacked with one where it is packed; nothing in it is trusted or half written."""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from pathlib import Path

import pytest
import rarfile
from archive_makers import NAME, RARS, craft_rar, make_plain, only, rar_tool, refused, same

from monai_chd.archives import members
from monai_chd.archives.members import STATE
from monai_chd.archives.rar import is_later_part
from monai_chd.archives.unpack import unpack

PROGRAMS = ("unrar", "unar", "7z")


@pytest.fixture(autouse=True)
def all_is_logged(caplog):
    caplog.set_level("INFO", "monai_chd")


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    return make_plain(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def texts_are_scans(monkeypatch):
    monkeypatch.setattr(members, "is_nifti", lambda path: path.suffix == ".txt")


@pytest.fixture(autouse=True)
def no_tool_remembered(monkeypatch):
    monkeypatch.setattr(rarfile, "CURRENT_SETUP", None)


def unpacked(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["rar5-subdirs.rar", "rar3-subdirs.rar"])
def test_a_stored_rar_is_unpacked_without_a_tool(tmp_path, monkeypatch, texts_are_scans, name):
    only(monkeypatch, tmp_path / "no tools")
    folder = unpack(RARS / name, tmp_path / "out", progress=False)
    assert unpacked(folder) == {
        "dir1/file1.txt": b"file1\n", "dir2/file2.txt": b"file2\n",
        "with space/long fn.txt": b"long fn\n", "üȵĩöḋè/file.txt": b"file\n",
    }  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ["rar5-solid-qo.rar", "rar3-solid.rar"])
def test_a_packed_rar_is_unpacked_by_a_tool(tmp_path, monkeypatch, texts_are_scans, program, name):
    only(monkeypatch, tmp_path / "tools", rar_tool(program))
    found = unpacked(unpack(RARS / name, tmp_path / "out", progress=False))
    del found[STATE]
    listed = {info.filename: (info.file_size, info.CRC) for info in rarfile.RarFile(RARS / name).infolist()}
    assert {path: (len(data), zlib.crc32(data)) for path, data in found.items()} == listed
    assert {"stest1.txt", "stest2.txt"} <= set(listed)


def test_a_solid_rar_is_said_to_take_long(tmp_path, monkeypatch, texts_are_scans, caplog):
    only(monkeypatch, tmp_path / "tools", shutil.which("true") or pytest.skip("no `true`"))
    (tmp_path / "tools" / "true").rename(tmp_path / "tools" / "unar")
    with pytest.raises(ValueError, match="4 damaged members"):
        unpack(RARS / "rar5-solid-qo.rar", tmp_path / "out", progress=False)
    assert "rar5-solid-qo.rar: solid" in caplog.text and "unar -o DIR" in caplog.text


def test_without_a_tool_a_packed_rar_says_what_to_install_and_to_run(tmp_path, monkeypatch, texts_are_scans):
    only(monkeypatch, tmp_path / "no tools")
    source = RARS / "rar5-solid-qo.rar"
    words = "apt install unar", "brew install unar", "winget install 7zip.7zip", f"unar -o DIR {source}"
    refused(source, tmp_path / "out", *words, kind=FileNotFoundError)


def test_a_tool_that_cannot_read_rar_leaves_nothing_and_another_is_named(tmp_path, monkeypatch, texts_are_scans):
    tools = tmp_path / "tools"
    only(monkeypatch, tools)
    (tools / "7zz").write_text("#!/bin/sh\n[ \"$1\" = i ] || echo 'ERROR: Cannot open the file as archive'\n")
    (tools / "7zz").chmod(0o755)
    with pytest.raises(ValueError, match=r"4 damaged members.*stest1\.txt.*where the installed tool cannot read RAR"):
        unpack(RARS / "rar5-solid-qo.rar", tmp_path / "out", progress=False)
    assert set(unpacked(tmp_path / "out")) == {STATE}


@pytest.mark.parametrize(
    ("name", "member"), [("rar5-evil-symlink-traversal.rar", "up"), ("rar5-hlink.rar", "stest2.txt")]
)
def test_a_rar_with_a_link_is_refused(tmp_path, name, member):
    refused(RARS / name, tmp_path / "out", f"'{member}': a link or device")


def test_encrypted_members_and_names_are_refused(tmp_path):
    refused(RARS / "rar5-psw.rar", tmp_path / "out", "'stest1.txt': encrypted", "unar -o DIR")
    refused(RARS / "rar5-hpsw.rar", tmp_path / "out", "encrypted, the names in it too", "unar -o DIR")


@pytest.mark.parametrize("bad", ["../x.nii", "/x.nii", "d/../../x.nii", "..\\x.nii"])
def test_a_rar_that_leaves_the_folder_is_refused(tmp_path, bad):
    refused(craft_rar(tmp_path / "a.rar", {"ct.nii": b"scan", bad: b"scan"}), tmp_path / "out", repr(bad))


def test_a_rar_of_scans_and_going_on(plain, tmp_path, caplog):
    scans = {f"{NAME}/{path.name}": path.read_bytes() for path in sorted(plain.iterdir())}
    (tmp_path / "have").mkdir()
    source = craft_rar(tmp_path / "have" / "data.rar", scans)
    folder = unpack(tmp_path / "have", tmp_path / "out", progress=False)
    assert same(folder, plain)
    assert sorted(os.listdir(tmp_path / "out")) == [STATE, NAME]
    (folder / "ct_1003_image.nii.gz").unlink()
    assert same(unpack(source, tmp_path / "out", progress=False), plain)
    assert "20 were there already" in caplog.text


def test_damaged_members_are_named_the_others_stay_and_the_next_download_goes_on(tmp_path):
    good = craft_rar(tmp_path / "a.rar", {"ct.nii": b"scan" * 1000, "ct2.nii": b"other"}).read_bytes()
    (tmp_path / "a.rar").write_bytes(good.replace(b"scanscan", b"scanscam", 1))
    with pytest.raises(ValueError, match=r"1 damaged members.*ct\.nii \(.*CRC.*download it again"):
        unpack(tmp_path / "a.rar", tmp_path / "out", progress=False)
    assert sorted(os.listdir(tmp_path / "out")) == [STATE, "ct2.nii"]
    (tmp_path / "a.rar").write_bytes(good)
    unpack(tmp_path / "a.rar", tmp_path / "out", progress=False)
    assert (
        hashlib.sha256((tmp_path / "out" / "ct.nii").read_bytes()).digest() == hashlib.sha256(b"scan" * 1000).digest()
    )


@pytest.mark.parametrize("lost", [1, 8, 9, 1000, 3000])  # of 4000 bytes, the last 8 of which are the mark of the end
def test_a_rar_cut_short_is_refused_wherever_it_ends(tmp_path, lost):
    whole = craft_rar(tmp_path / "a.rar", {f"ct{i}.nii": b"scan" * 100 for i in range(9)}).read_bytes()
    (tmp_path / "a.rar").write_bytes(whole[:-lost])
    refused(tmp_path / "a.rar", tmp_path / "out", "a.rar: cannot be read", "download it again")


def test_a_rar_3_cut_off_between_two_members_is_refused_too(tmp_path, texts_are_scans):
    whole = (RARS / "rar3-subdirs.rar").read_bytes()
    for block in rarfile.RarFile(RARS / "rar3-subdirs.rar").infolist()[1:]:
        (tmp_path / "a.rar").write_bytes(whole[: block.header_offset])
        refused(tmp_path / "a.rar", tmp_path / "out", "a.rar: cut short", "download it again")


def test_what_is_no_rar_but_begins_like_one_is_refused(tmp_path):
    (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07\x01\x00" + bytes(100))
    refused(tmp_path / "a.rar", tmp_path / "out", "a.rar: cannot be read", "download it again")


def write_parts(folder: Path) -> list[Path]:
    """Three parts with a scan each."""
    folder.mkdir()
    return [craft_rar(folder / f"a.part{i + 1}.rar", {f"ct{i}.nii": b"scan"}, part=i, more=i < 2) for i in range(3)]


@pytest.mark.parametrize("named", ["", "a.part1.rar"])
def test_a_rar_in_parts_is_one_archive(tmp_path, named):
    write_parts(tmp_path / "have")
    unpack(tmp_path / "have" / named, tmp_path / "out", progress=False)
    assert sorted(os.listdir(tmp_path / "out")) == [STATE, "ct0.nii", "ct1.nii", "ct2.nii"]


def test_a_missing_part_is_named(tmp_path):
    write_parts(tmp_path / "have")[1].unlink()
    refused(tmp_path / "have", tmp_path / "out", "a.part2.rar", "all parts of it into one folder")


def test_a_later_part_says_to_name_the_first(tmp_path):
    later = write_parts(tmp_path / "have")[2]
    refused(later, tmp_path / "out", "a.part3.rar: a later part", "name its first")


@pytest.mark.parametrize(
    ("name", "later"),
    [
        ("a.part2.rar", True),
        ("a.part010.RAR", True),
        ("a.part1.rar", False),
        ("a.part001.rar", False),
        ("a.rar", False),
    ],
)
def test_parts_are_told_by_their_names(name, later):
    assert is_later_part(Path(name)) is later


def test_a_file_of_the_same_bytes_is_the_member_and_one_of_others_is_kept(tmp_path):
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
