"""Only safe members are written, none twice, none over a file that is another's, and an unpacking goes on where it stopped."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
from archive_makers import NAME, craft, link, make_plain, make_split, refused, same
from tqdm import tqdm

from monai_chd.archives import members
from monai_chd.archives.members import STATE
from monai_chd.archives.unpack import unpack


@pytest.fixture(autouse=True)
def all_is_logged(caplog):
    caplog.set_level("INFO", "monai_chd")


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


def test_members_there_are_not_unpacked_again(split, plain, tmp_path, caplog, monkeypatch):
    folder = unpack(split, tmp_path / "out", progress=False)
    (folder / "ct_1003_image.nii.gz").unlink()
    (folder / "ct_1004_image.nii.gz").unlink()
    whole = (folder / "ct_1005_image.nii.gz").stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(members, "crc_of", lambda path: 0)  # what is noted is not read
        unpack(split, tmp_path / "out", progress=False)
    assert "19 were there already" in caplog.text
    assert (folder / "ct_1005_image.nii.gz").stat().st_ino == whole
    (tmp_path / "out" / STATE).write_text("{broken")
    unpack(split, tmp_path / "out", progress=False)
    assert "21 were there already" in caplog.text
    assert (folder / "ct_1005_image.nii.gz").stat().st_ino == whole
    assert same(folder, plain)


@pytest.mark.parametrize("content", [bytes(100_000), b"short", b""], ids=["same size", "short", "empty"])
def test_a_file_of_the_same_name_and_other_bytes_is_named_and_not_replaced(split, tmp_path, content):
    folder = tmp_path / "out" / NAME
    folder.mkdir(parents=True)
    mine = folder / "ct_1004_image.nii.gz"
    mine.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"1 files there are not.*ct_1004_image.nii.gz; nothing.*another --extract-to DIR"
    ):
        unpack(split, tmp_path / "out", progress=False)
    assert mine.read_bytes() == content
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [mine]


def test_all_files_in_the_way_are_named_at_once_and_what_is_the_members_own_is_no_bar(split, plain, tmp_path):
    folder = tmp_path / "out" / NAME
    folder.mkdir(parents=True)
    (folder / "ct_1003_label.nii.gz").mkdir()
    (folder / "ct_1007_image.nii.gz").write_bytes(b"mine")
    shutil.copy(plain / "ct_1001_image.nii.gz", folder)
    with pytest.raises(ValueError, match="2 files there") as error:
        unpack(split, tmp_path / "out", progress=False)
    assert all(f"{NAME}/{name}" in str(error.value) for name in ("ct_1003_label.nii.gz", "ct_1007_image.nii.gz"))
    assert "ct_1001" not in str(error.value)
    (folder / "ct_1003_label.nii.gz").rmdir()
    (folder / "ct_1007_image.nii.gz").unlink()
    assert same(unpack(split, tmp_path / "out", progress=False), plain)


def test_what_was_changed_after_an_unpacking_is_not_replaced(split, tmp_path):
    folder = unpack(split, tmp_path / "out", progress=False)
    (folder / "ct_1004_image.nii.gz").write_bytes(b"mended by hand")
    before = (tmp_path / "out" / STATE).read_bytes()
    with pytest.raises(ValueError, match="ct_1004_image"):
        unpack(split, tmp_path / "out", progress=False)
    assert (folder / "ct_1004_image.nii.gz").read_bytes() == b"mended by hand"
    assert (tmp_path / "out" / STATE).read_bytes() == before


def test_an_archive_downloaded_anew_replaces_what_was_unpacked_and_untouched(tmp_path):
    unpack(craft(tmp_path / "a.zip", "x.nii", content=b"first"), tmp_path / "out", progress=False)
    unpack(craft(tmp_path / "a.zip", "x.nii", content=b"second"), tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "x.nii").read_bytes() == b"second"


def test_what_another_archive_left_is_not_replaced(tmp_path):
    unpack(craft(tmp_path / "a.zip", "x.nii", content=b"first"), tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match=r"ct_1001_image\.nii\.gz, x\.nii"):
        unpack(craft(tmp_path / "b.zip", "x.nii", content=b"other"), tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "x.nii").read_bytes() == b"first"
    unpack(tmp_path / "a.zip", tmp_path / "out", progress=False)  # and the first may go on


def test_a_half_written_member_is_written_anew(split, plain, tmp_path):
    (tmp_path / "out" / NAME).mkdir(parents=True)
    half = tmp_path / "out" / NAME / ".ct_1004_image.nii.gz.monai-chd-part"
    half.write_bytes(b"half")
    assert same(unpack(split, tmp_path / "out", progress=False), plain)


def test_an_interruption_leaves_whole_scans_only_and_the_next_run_goes_on(split, plain, tmp_path, monkeypatch, caplog):
    class Stopped(tqdm):
        def update(self, n=1):
            super().update(n)
            if self.n > 450_000:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(members, "tqdm", Stopped)
        patch.setattr(members, "CHUNK", 10_000)
        unpack(split, tmp_path / "out")
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != STATE]
    assert 3 < len(left) < 10
    assert all(filecmp.cmp(path, plain / path.name, shallow=False) for path in left)
    assert same(unpack(split, tmp_path / "out", progress=False), plain)
    assert f"{len(left)} were there already" in caplog.text


def test_a_full_disk_while_writing_is_said_and_mended(split, plain, tmp_path, monkeypatch):
    def full(archive, member, path, bar):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(ValueError, match=r"out: unpacking stopped.*No space left"):
        patch.setattr(members, "_write", full)
        unpack(split, tmp_path / "out", progress=False)
    assert same(unpack(split, tmp_path / "out", progress=False), plain)


def test_an_archive_needs_a_place_to_go(split, tmp_path):
    with pytest.raises(ValueError, match=r"21 files, 1.05MB unpacked.*--extract-to DIR"):
        unpack(split)


@pytest.mark.parametrize("below", [".", "out"])
def test_nothing_is_written_into_the_download(split, below):
    with pytest.raises(ValueError, match="inside the download"):
        unpack(split, split / below)
    assert len(list(split.iterdir())) == 13


def test_too_little_disk_is_said_before_anything_is_written(split, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2_000_000))
    refused(split, tmp_path / "out" / "deep", "needs 68.2MB, free are 2.00MB", "--extract-to DIR")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=69_000_000))
    unpack(split, tmp_path / "out" / "deep", progress=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    unpack(split, tmp_path / "out" / "deep", progress=False)


def test_a_place_that_cannot_be_made_is_said(split, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot write there"):
        unpack(split, tmp_path / "file" / "out", progress=False)


def test_a_file_in_the_way_of_a_folder_is_said(split, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAME).write_bytes(b"")
    with pytest.raises(ValueError, match="unpacking stopped"):
        unpack(split, tmp_path / "out", progress=False)


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


def test_an_archive_without_scans_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("thesis.docx", b"text")
    refused(tmp_path / "a.zip", tmp_path / "out", "holds no scan", "thesis.docx")


def test_shadows_of_macos_are_left_out(tmp_path):
    source = craft(tmp_path / "a.zip", "._ct_1001_image.nii.gz", "__MACOSX/x.nii", "d/._x.nii", "d/", "d/x.nii")
    unpack(source, tmp_path / "out", progress=False)
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {"ct_1001_image.nii.gz", "x.nii", STATE}


def test_bytes_are_shown_as_they_come(split, tmp_path, capsys):
    unpack(split, tmp_path / "out")
    assert "1.05M/1.05M" in capsys.readouterr().err
