"""Archives made by the real tools come out byte for byte; what is missing, damaged or unsafe is refused before it is written."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import stat
import subprocess
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from monai_chd import archives
from monai_chd.archives import STATE, unpack

NAME = "ImageCHD_dataset"
RARS = Path(__file__).parent / "data" / "archives"
INSTALL = {"zip": "zip", "7z": "7zip or p7zip-full", "bsdtar": "libarchive-tools"}


def tool(name: str) -> str:
    """Path of a real tool; the test is skipped without it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} makes or reads this test's archive; apt install {INSTALL[name]}")
    return path


def run(*command: object, cwd: Path | None = None) -> None:
    subprocess.run([str(word) for word in command], cwd=cwd, check=True, capture_output=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> Path:
    """A folder ImageCHD_dataset of 10 scans, 10 label maps (noise, so that nothing compresses) and a workbook."""
    folder = tmp_path_factory.mktemp("plain") / NAME
    folder.mkdir()
    random = np.random.default_rng(7)
    for number in range(1001, 1011):
        (folder / f"ct_{number}_image.nii.gz").write_bytes(random.bytes(100_000))
        (folder / f"ct_{number}_label.nii.gz").write_bytes(random.bytes(5_000))
    (folder / "imageCHD_dataset_info.xlsx").write_bytes(random.bytes(3_000))
    return folder


@pytest.fixture(scope="session")
def made_split(plain, tmp_path_factory) -> Path:
    """13 volumes as on Kaggle, by Info-ZIP."""
    folder = tmp_path_factory.mktemp("split")
    run(tool("zip"), "-r", "-s", "80k", folder / f"{NAME}.zip", NAME, cwd=plain.parent)
    (folder / f"{NAME}.zip").rename(folder / f"{NAME}.change2zip")
    assert len(list(folder.iterdir())) == 13
    return folder


@pytest.fixture
def split(made_split, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made_split, tmp_path / "split"))


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


def craft_rar(path: Path, members: dict[str, bytes]) -> Path:
    """A RAR 5 of stored members, as the format's description says; no free tool writes one."""

    def block(*fields: bytes) -> bytes:
        header = b"".join(fields)
        sized = vint(len(header)) + header
        return zlib.crc32(sized).to_bytes(4, "little") + sized

    parts = [b"Rar!\x1a\x07\x01\x00", block(vint(1), vint(0), vint(0))]
    for name, data in members.items():
        crc, raw = zlib.crc32(data).to_bytes(4, "little"), name.encode()
        about = (vint(4), vint(len(data)), vint(0o100644), crc, vint(0), vint(1), vint(len(raw)), raw)
        parts += [block(vint(2), vint(2), vint(len(data)), *about), data]
    path.write_bytes(b"".join([*parts, block(vint(5), vint(0), vint(0))]))
    return path


def only(monkeypatch, *names: str) -> None:
    """Hide all tools but these."""
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **more: real(name, **more) if name in names else None)


def refused(source: Path, target: Path, *words: str, kind: type[Exception] = ValueError) -> str:
    """The error of a source that is refused before anything is written."""
    with pytest.raises(kind) as error:
        unpack(source, target, progress=False)
    message = str(error.value)
    assert [word for word in words if word not in message] == [], message
    assert not target.exists()
    return message


# what comes out


def test_13_volumes_come_out_as_they_went_in(split, plain, tmp_path, capsys):
    before = {path: path.read_bytes() for path in split.iterdir()}
    folder = unpack(split, tmp_path / "out", progress=False)
    assert folder == tmp_path / "out" / NAME
    assert same(folder, plain)
    assert {path: path.read_bytes() for path in split.iterdir()} == before
    assert sorted(os.listdir(tmp_path / "out")) == [STATE, NAME]
    assert f"scans: {folder} (21 files, 1.05MB; 0 were there already)" in capsys.readouterr().out


def test_the_bytes_are_those_of_7_zip(split, tmp_path):
    folder = unpack(split, tmp_path / "out", progress=False)
    (split / f"{NAME}.change2zip").rename(split / f"{NAME}.zip")
    run(tool("7z"), "x", f"-o{tmp_path / 'theirs'}", split / f"{NAME}.zip")
    assert same(folder, tmp_path / "theirs" / NAME)


@pytest.mark.parametrize("named", [f"{NAME}.change2zip", f"{NAME}.z01", f"{NAME}.z07"])
def test_one_volume_stands_for_its_set(split, plain, tmp_path, named):
    (split / "other.zip").write_bytes(b"no zip")
    assert same(unpack(split / named, tmp_path / "out", progress=False), plain)


def test_the_last_volume_may_be_called_zip_in_any_case(split, plain, tmp_path):
    (split / f"{NAME}.change2zip").rename(split / f"{NAME}.ZIP")
    assert same(unpack(split, tmp_path / "out", progress=False), plain)


@pytest.mark.parametrize("options", [[], ["-0"]], ids=["deflated", "stored"])
def test_an_outer_zip_of_volumes_is_read_through(split, plain, tmp_path, options):
    run(tool("zip"), *options, "-r", tmp_path / "archive.zip", "split", cwd=tmp_path)
    outer(tmp_path / "another.zip", split / f"{NAME}.z01")  # beside it, of no account
    folder = unpack(tmp_path / "archive.zip", tmp_path / "out", progress=False)
    assert same(folder, plain)
    assert sorted(os.listdir(tmp_path / "out")) == [STATE, NAME]


@pytest.mark.parametrize("ending", [".zip", ""])
def test_outer_zips_of_one_volume_each_are_read_through(split, plain, tmp_path, ending):
    wrapped = tmp_path / "versions" / "1"
    wrapped.mkdir(parents=True)
    for volume in split.iterdir():
        made = outer(tmp_path / "made.zip", volume)
        made.rename(wrapped / f"{volume.name}{ending}")
    assert same(unpack(wrapped, tmp_path / "out", progress=False), plain)
    assert same(unpack(wrapped / f"{NAME}.z04{ending}", tmp_path / "out2", progress=False), plain)


def test_an_archive_unpacked_beside_its_outer_zip_is_taken_once(split, plain, tmp_path):
    outer(split / "archive.zip", *split.iterdir())
    with (split / "archive.zip").open("r+b") as file:  # so that reading it would fail
        file.seek(300_000)
        file.write(bytes(1000))
    assert same(unpack(split, tmp_path / "out", progress=False), plain)


@pytest.mark.parametrize("program", ["zip", "7z", "python"])
def test_one_zip(plain, tmp_path, program):
    made = tmp_path / "all.zip"
    if program == "python":
        with zipfile.ZipFile(made, "w", zipfile.ZIP_LZMA) as archive:
            archive.comment = b"a comment"
            for path in plain.iterdir():
                archive.write(path, f"./{NAME}/{path.name}")
    else:
        run(tool(program), *(["-r"] if program == "zip" else ["a"]), made, NAME, cwd=plain.parent)
    assert same(unpack(made, tmp_path / "out", progress=False), plain)
    made.rename(tmp_path / "download")  # a browser took the ending away
    assert same(unpack(tmp_path / "download", tmp_path / "out2", progress=False), plain)


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


def test_the_folder_holds_all_members_when_scans_and_table_lie_apart(tmp_path):
    source = craft(tmp_path / "a.zip", "scans/ct_1.nii", "table.csv")
    assert unpack(source, tmp_path / "out", progress=False) == tmp_path / "out"


def test_shadows_of_macos_are_left_out(tmp_path):
    source = craft(tmp_path / "a.zip", "._ct_1001_image.nii.gz", "__MACOSX/x.nii", "d/._x.nii", "d/", "d/x.nii")
    unpack(source, tmp_path / "out", progress=False)
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {"ct_1001_image.nii.gz", "x.nii", STATE}


def test_bytes_are_shown_as_they_come(split, tmp_path, capsys):
    unpack(split, tmp_path / "out")
    assert "1.05M/1.05M" in capsys.readouterr().err


# folders of scans


@pytest.mark.parametrize("below", ["", NAME, "versions/1", f"{NAME}/{NAME}"])
def test_a_folder_of_scans_is_returned_as_it_is(plain, tmp_path, below, capsys):
    shutil.copytree(plain, tmp_path / "have" / below, dirs_exist_ok=True)
    assert unpack(tmp_path / "have", tmp_path / "out") == tmp_path / "have"
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().out == f"scans: {tmp_path / 'have'}\n"


def test_scans_win_over_archives_and_it_is_said(split, tmp_path, capsys):
    (split / "ct_1001_image.nii").write_bytes(b"scan")
    assert unpack(split) == split
    assert (
        "archives beside them are left alone: ImageCHD_dataset.change2zip, ImageCHD_dataset.z01"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("below", [".", NAME])
def test_scans_of_an_interrupted_unpacking_are_refused(split, tmp_path, below):
    (split / f"{NAME}.z05").write_bytes(bytes(81_920))
    with pytest.raises(ValueError, match="damaged"):
        unpack(split, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match=f"did not end.*--extract-to {tmp_path / 'out'}"):
        unpack(tmp_path / "out" / below)


def test_scans_of_a_finished_unpacking_are_taken(split, tmp_path):
    folder = unpack(split, tmp_path / "out", progress=False)
    assert unpack(folder) == folder
    assert unpack(tmp_path / "out") == tmp_path / "out"


# going on


def test_members_there_are_not_unpacked_again(split, tmp_path, capsys, monkeypatch):
    folder = unpack(split, tmp_path / "out", progress=False)
    (folder / "ct_1003_image.nii.gz").write_bytes(b"short")
    changed = folder / "ct_1004_image.nii.gz"
    changed.write_bytes(bytes(100_000))
    whole = (folder / "ct_1005_image.nii.gz").stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(archives, "_crc", lambda path: 0)  # what is noted is not read
        unpack(split, tmp_path / "out", progress=False)
    assert "19 were there already" in capsys.readouterr().out
    assert (folder / "ct_1005_image.nii.gz").stat().st_ino == whole
    (tmp_path / "out" / STATE).write_text("{broken")
    unpack(split, tmp_path / "out", progress=False)
    assert "21 were there already" in capsys.readouterr().out
    assert (folder / "ct_1005_image.nii.gz").stat().st_ino == whole


def test_equal_size_and_other_bytes_are_not_taken_for_the_member(split, plain, tmp_path):
    (tmp_path / "out" / NAME).mkdir(parents=True)
    (tmp_path / "out" / NAME / "ct_1001_image.nii.gz").write_bytes(bytes(100_000))
    assert same(unpack(split, tmp_path / "out", progress=False), plain)


def test_an_interruption_leaves_whole_scans_only_and_the_next_run_goes_on(split, plain, tmp_path, monkeypatch, capsys):
    class Stopped(tqdm):
        def update(self, n=1):
            super().update(n)
            if self.n > 450_000:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(archives, "tqdm", Stopped)
        patch.setattr(archives, "_CHUNK", 10_000)
        unpack(split, tmp_path / "out")
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != STATE]
    assert 3 < len(left) < 10
    assert all(filecmp.cmp(path, plain / path.name, shallow=False) for path in left)
    assert same(unpack(split, tmp_path / "out", progress=False), plain)
    assert f"{len(left)} were there already" in capsys.readouterr().out


def test_a_full_disk_while_writing_is_said_and_mended(split, plain, tmp_path, monkeypatch):
    def full(archive, member, path, bar):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(ValueError, match=r"out: unpacking stopped.*No space left"):
        patch.setattr(archives, "_write", full)
        unpack(split, tmp_path / "out", progress=False)
    assert same(unpack(split, tmp_path / "out", progress=False), plain)


# what is refused


def test_an_archive_needs_a_place_to_go(split, tmp_path):
    with pytest.raises(ValueError, match=r"21 files, 1.05MB unpacked.*--extract-to DIR"):
        unpack(split)


@pytest.mark.parametrize("below", [".", "out"])
def test_nothing_is_written_into_the_download(split, below):
    with pytest.raises(ValueError, match="inside the download"):
        unpack(split, split / below)
    assert len(list(split.iterdir())) == 13


def test_missing_volumes_are_named(split, tmp_path):
    (split / f"{NAME}.z05").unlink()
    (split / f"{NAME}.z12").unlink()
    words = "2 of 13 volumes missing: ImageCHD_dataset.z05, ImageCHD_dataset.z12;", "ImageCHD_dataset.z01 and 11 more"
    refused(split, tmp_path / "out", *words, kind=FileNotFoundError)


def test_a_missing_last_volume_is_named_with_the_gaps(split, tmp_path):
    (split / f"{NAME}.change2zip").unlink()
    (split / f"{NAME}.z02").unlink()
    words = "ImageCHD_dataset.z02, ImageCHD_dataset.change2zip (or ImageCHD_dataset.zip)"
    refused(split, tmp_path / "out", words, kind=FileNotFoundError)


def test_the_last_volume_alone_says_how_many_it_closes(split, tmp_path):
    for path in split.glob("*.z??"):
        path.unlink()
    refused(split, tmp_path / "out", "12 of 13 volumes missing", kind=FileNotFoundError)


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


def test_a_last_volume_cut_short_is_named(split, tmp_path):
    path = split / f"{NAME}.change2zip"
    path.write_bytes(path.read_bytes()[:-10])
    refused(split, tmp_path / "out", f"{path}: cut short, or no ZIP: 7", "download ImageCHD_dataset.change2zip again")


def test_a_last_volume_that_lost_bytes_within_is_named(split, tmp_path):
    path = split / f"{NAME}.change2zip"
    path.write_bytes(path.read_bytes()[100:])
    refused(split, tmp_path / "out", f"{path}: its directory cannot be read", "bytes lost or added")


def test_a_volume_of_another_set_is_named(split, tmp_path):
    shutil.copy(split / f"{NAME}.z12", split / f"{NAME}.z13")
    refused(split, tmp_path / "out", f"{NAME}.z13: no part of", "closes 13 volumes")


def test_a_web_page_saved_as_zip_is_told_from_an_archive(tmp_path):
    (tmp_path / "archive.zip").write_text("<!DOCTYPE html><title>Sign in</title>")
    refused(tmp_path / "archive.zip", tmp_path / "out", "no ZIP", "<!DOCTYPE html>")


def test_an_outer_zip_cut_short_is_named(split, tmp_path):
    (tmp_path / "wrapped").mkdir()
    for volume in split.iterdir():
        outer(tmp_path / "wrapped" / f"{volume.name}.zip", volume)
    path = tmp_path / "wrapped" / f"{NAME}.z05.zip"
    path.write_bytes(path.read_bytes()[:50_000])
    refused(tmp_path / "wrapped", tmp_path / "out", f"{path}: cut short")


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


def link(name: str, kind: int = stat.S_IFLNK) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        ("../x.nii", "leaves the folder"),
        ("d/../../x.nii", "leaves the folder"),
        ("/tmp/x.nii", "absolute name"),
        ("C:x.nii", "absolute name"),
        ("C:/x.nii", "absolute name"),
        ("..\\x.nii", "backslash"),
        (link("x.nii"), "a link or device"),
        (link("x.nii", stat.S_IFCHR), "a link or device"),
        (link("._x.nii"), "a link or device"),
        (STATE, "a name of our own"),
        ("ct_1001_IMAGE.nii.gz", "there twice"),
        ("./ct_1001_image.nii.gz", "there twice"),
        ("ct_1001_image.nii.gz/x.nii", "a file and a folder"),
    ],
    ids=str,
)
def test_an_unsafe_member_stops_all(tmp_path, member, fault):
    name = member.filename if isinstance(member, zipfile.ZipInfo) else member
    message = refused(craft(tmp_path / "a.zip", "good.nii", member), tmp_path / "out", "1 entries", fault)
    assert repr(name)[1:-1] in message or fault == "a file and a folder"
    assert sorted(os.listdir(tmp_path)) == ["a.zip"]


def test_a_member_there_twice_stops_all(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        craft(tmp_path / "a.zip", "x.nii", "x.nii")
    refused(tmp_path / "a.zip", tmp_path / "out", "'x.nii': there twice")


def test_all_unsafe_members_are_listed_at_once(tmp_path):
    refused(craft(tmp_path / "a.zip", "../x.nii", "/y.nii"), tmp_path / "out", "2 entries", "'../x.nii'", "'/y.nii'")


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


def test_the_command_by_hand_gives_the_last_volume_its_name(split, tmp_path):
    path = split / f"{NAME}.change2zip"
    path.write_bytes(path.read_bytes()[100:])
    refused(split, tmp_path / "out", f"copy {NAME}.change2zip to {NAME}.zip beside the other volumes, then run: 7z x")


def test_an_archive_without_scans_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("thesis.docx", b"text")
    refused(tmp_path / "a.zip", tmp_path / "out", "holds no scan", "thesis.docx")


def test_too_little_disk_is_said_before_anything_is_written(split, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2_000_000))
    refused(split, tmp_path / "out" / "deep", "needs 68.2MB, free are 2.00MB", "--extract-to DIR")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=69_000_000))
    unpack(split, tmp_path / "out" / "deep", progress=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    unpack(split, tmp_path / "out" / "deep", progress=False)


def test_several_archives_are_named(tmp_path):
    craft(tmp_path / "one.zip")
    craft(tmp_path / "two.zip")
    refused(tmp_path, tmp_path.parent / "out", "2 archives (one.*, two.*)", "name the file")
    unpack(tmp_path / "two.zip", tmp_path / "out", progress=False)


@pytest.mark.parametrize("name", ["notes.txt", "scans.tar.gz"])
def test_a_folder_of_other_things_says_what_was_expected(tmp_path, name):
    (tmp_path / "have").mkdir()
    (tmp_path / "have" / name).write_bytes(b"x")
    refused(tmp_path / "have", tmp_path / "out", "expected the volumes NAME.z01", name, kind=FileNotFoundError)


def test_what_does_not_exist_is_said(tmp_path):
    refused(tmp_path / "nothing", tmp_path / "out", "no such file or folder", kind=FileNotFoundError)


def test_a_place_that_cannot_be_made_is_said(split, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot write there"):
        unpack(split, tmp_path / "file" / "out", progress=False)


def test_a_file_in_the_way_of_a_folder_is_said(split, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAME).write_bytes(b"")
    with pytest.raises(ValueError, match="unpacking stopped"):
        unpack(split, tmp_path / "out", progress=False)


# RAR


@pytest.mark.parametrize("program", ["7z", "bsdtar"])
@pytest.mark.parametrize("name", ["rar5-subdirs.rar", "rar3-subdirs.rar"])
def test_a_real_rar_is_listed_and_unpacked(tmp_path, monkeypatch, program, name):
    tool(program)
    only(monkeypatch, program)
    monkeypatch.setattr(archives, "is_nifti", lambda path: path.suffix == ".txt")
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
    real = archives._run

    def other_bytes(command):
        output = real(command)
        for path in (tmp_path / "out").rglob("ct.nii"):
            path.write_bytes(b"scam")
        return output

    monkeypatch.setattr(archives, "_run", other_bytes)
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


def test_a_zip_needs_no_tool(split, plain, tmp_path, monkeypatch):
    only(monkeypatch)
    assert same(unpack(split, tmp_path / "out", progress=False), plain)


def test_what_no_tool_can_read_is_said(tmp_path, monkeypatch):
    tool("7z")
    (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07\x01\x00" + bytes(100))
    refused(tmp_path / "a.rar", tmp_path / "out", "cannot be read: 7z")


def test_reading_forwards_does_not_read_an_outer_zip_over_and_over(split, tmp_path, monkeypatch):
    """Going back in a deflated member starts it anew; with 9 GB that would take hours."""
    run(tool("zip"), "-j", tmp_path / "archive.zip", *split.iterdir())
    opened: list[str] = []
    real = archives._Volume.open

    def counted(self):
        opened.append(self.name)
        return real(self)

    monkeypatch.setattr(archives._Volume, "open", counted)
    start = time.perf_counter()
    unpack(tmp_path / "archive.zip", tmp_path / "out", progress=False)
    assert time.perf_counter() - start < 60
    assert max(opened.count(f"{NAME}.z{number:02}") for number in range(1, 13)) == 1
