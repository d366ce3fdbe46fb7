"""A ZIP in volumes is read as one; what is cut short, damaged or beyond Python is named before anything is written."""

from __future__ import annotations

import os
import shutil
import struct
import time
import zipfile
from pathlib import Path

import pytest
from archive_makers import NAME, make_plain, make_split, only, refused, run, same, tool

from monai_chd.archives import zip_volumes
from monai_chd.archives.members import STATE
from monai_chd.archives.unpack import unpack


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    return make_plain(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def made_split(plain, tmp_path_factory):
    return make_split(plain, tmp_path_factory.mktemp("split"))


@pytest.fixture
def split(made_split, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(made_split, tmp_path / "split"))


def test_the_bytes_are_those_of_7_zip(split, tmp_path):
    folder = unpack(split, tmp_path / "out", progress=False)
    (split / f"{NAME}.change2zip").rename(split / f"{NAME}.zip")
    run(tool("7z"), "x", f"-o{tmp_path / 'theirs'}", split / f"{NAME}.zip")
    assert same(folder, tmp_path / "theirs" / NAME)


def test_a_directory_longer_than_a_volume(tmp_path):
    folder = tmp_path / "in" / "scans"
    folder.mkdir(parents=True)
    for number in range(900):
        (folder / f"ct_{number}_{'long' * 25}.nii").write_bytes(b"%d" % number)
    (tmp_path / "split").mkdir()
    run(tool("zip"), "-r", "-s", "64k", tmp_path / "split" / "scans.zip", "scans", cwd=folder.parent)
    sizes = {path.stat().st_size for path in (tmp_path / "split").glob("*.z??")}
    assert len(sizes) > 4  # Info-ZIP ended volumes early, not to part a header: no fault
    assert same(unpack(tmp_path / "split", tmp_path / "out", progress=False), folder)


def test_the_one_volume_before_the_last_cut_short_is_named(plain, tmp_path):
    (tmp_path / "split").mkdir()
    run(tool("zip"), "-r", "-s", "600k", tmp_path / "split" / "a.zip", NAME, cwd=plain.parent)
    path = tmp_path / "split" / "a.z01"
    path.write_bytes(path.read_bytes()[:-100])
    refused(tmp_path / "split", tmp_path / "out", f"{path}: 614300 bytes")


def test_members_at_the_border_of_a_volume_cut_short_are_refused(split, tmp_path):
    """Cut by half, so that places in the directory point beyond its end."""
    path = split / f"{NAME}.z06"
    path.write_bytes(path.read_bytes()[:10])
    refused(split, tmp_path / "out", "download")


@pytest.mark.parametrize("number", [1, 6, 12])
def test_a_volume_cut_short_is_named(split, tmp_path, number):
    path = split / f"{NAME}.z{number:02}"
    path.write_bytes(path.read_bytes()[:-1])
    refused(split, tmp_path / "out", f"{path}: 81919 bytes (the largest volume has 81920)", "download")


def test_a_last_volume_that_lost_bytes_within_is_named(split, tmp_path):
    path = split / f"{NAME}.change2zip"
    path.write_bytes(path.read_bytes()[100:])
    refused(split, tmp_path / "out", f"{path}: its directory cannot be read", "bytes lost or added")


def test_a_flipped_byte_names_member_and_volumes_and_spares_the_rest(split, plain, tmp_path):
    path = split / f"{NAME}.z05"
    data = bytearray(path.read_bytes())
    data[40_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"1 damaged members.*ct_\d+_image.nii.gz in .*ImageCHD_dataset.z05"):
        unpack(split, tmp_path / "out", progress=False)
    assert len(list((tmp_path / "out" / NAME).iterdir())) == 20
    data[40_000] ^= 1
    path.write_bytes(data)
    assert same(unpack(split, tmp_path / "out", progress=False), plain)


def test_a_member_shorter_than_the_directory_says_is_damaged(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ct.nii", b"scan")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"PK\1\2") + 24] = 40  # the size unpacked
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match="4 bytes, expected 40"):
        unpack(tmp_path / "a.zip", tmp_path / "out", progress=False)
    assert os.listdir(tmp_path / "out") == [STATE]


def test_an_encrypted_member_stops_all(plain, tmp_path):
    run(tool("zip"), "-P", "secret", "-r", tmp_path / "a.zip", NAME, cwd=plain.parent)
    refused(tmp_path / "a.zip", tmp_path / "out", "21 entries", "_image.nii.gz': encrypted")


def test_a_compression_python_cannot_read_is_named_with_the_command(tmp_path):
    (tmp_path / "x.nii").write_bytes(b"scan" * 1000)
    run(tool("7z"), "a", "-mm=Deflate64", tmp_path / "a.zip", tmp_path / "x.nii")
    refused(tmp_path / "a.zip", tmp_path / "out", "compression method 9", "7z x a.zip -oDIR")


def test_split_zip64_is_refused_with_the_command(plain, tmp_path):
    (tmp_path / "split").mkdir()
    run(tool("zip"), "-fz", "-r", "-s", "80k", tmp_path / "split" / "a.zip", NAME, cwd=plain.parent)
    refused(tmp_path / "split", tmp_path / "out", "7z x a.zip -oDIR (7-Zip), or: zip -s 0 a.zip")


def with_zip64_records(path, disks):
    """As Info-ZIP ends an archive of more than 4 GB in volumes: a second set of records, although the plain one says it all."""
    data = path.read_bytes()
    at = data.rindex(b"PK\5\6")
    _, disk, directory_disk, here, entries, size, offset, _ = struct.unpack_from("<4s4H2LH", data, at)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 798, 45, disk, directory_disk, here, entries, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", disk, at, disks)
    path.write_bytes(data[:at] + record + locator + data[at:])


def test_zip64_records_that_say_nothing_new_are_no_hindrance(split, plain, tmp_path):
    with_zip64_records(split / f"{NAME}.change2zip", 13)
    assert same(unpack(split, tmp_path / "out", progress=False), plain)


def test_zip64_records_do_not_hide_lost_bytes(split, tmp_path):
    path = split / f"{NAME}.change2zip"
    with_zip64_records(path, 13)
    data = path.read_bytes()
    path.write_bytes(data[100:])
    refused(split, tmp_path / "out", f"{path}: its directory cannot be read")


def test_the_command_by_hand_gives_the_last_volume_its_name(split, tmp_path):
    path = split / f"{NAME}.change2zip"
    path.write_bytes(path.read_bytes()[100:])
    refused(split, tmp_path / "out", f"copy {NAME}.change2zip to {NAME}.zip beside the other volumes, then run: 7z x")


def test_a_zip_needs_no_tool(split, plain, tmp_path, monkeypatch):
    only(monkeypatch, tmp_path / "no tools")
    assert same(unpack(split, tmp_path / "out", progress=False), plain)


def test_reading_forwards_does_not_read_an_outer_zip_over_and_over(split, tmp_path, monkeypatch):
    """Going back in a deflated member starts it anew; with 9 GB that would take hours."""
    run(tool("zip"), "-j", tmp_path / "archive.zip", *split.iterdir())
    opened: list[str] = []
    real = zip_volumes.ZipVolume.open

    def counted(self):
        opened.append(self.name)
        return real(self)

    monkeypatch.setattr(zip_volumes.ZipVolume, "open", counted)
    start = time.perf_counter()
    unpack(tmp_path / "archive.zip", tmp_path / "out", progress=False)
    assert time.perf_counter() - start < 60
    assert max(opened.count(f"{NAME}.z{number:02}") for number in range(1, 13)) == 1
