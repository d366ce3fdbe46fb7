"""Whatever a researcher downloaded, the scans in it come out byte for byte; of several archives none is guessed."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest
from archive_makers import NAME, craft, make_plain, make_split, outer, refused, run, same, tool

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


def test_13_volumes_come_out_as_they_went_in(split, plain, tmp_path, caplog):
    before = {path: path.read_bytes() for path in split.iterdir()}
    folder = unpack(split, tmp_path / "out", progress=False)
    assert folder == tmp_path / "out" / NAME
    assert same(folder, plain)
    assert {path: path.read_bytes() for path in split.iterdir()} == before
    assert sorted(os.listdir(tmp_path / "out")) == [STATE, NAME]
    assert f"scans: {folder} (21 files, 1.05MB; 0 were there already)" in caplog.text


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


def test_the_folder_holds_all_members_when_scans_and_table_lie_apart(tmp_path):
    source = craft(tmp_path / "a.zip", "scans/ct_1.nii", "table.csv")
    assert unpack(source, tmp_path / "out", progress=False) == tmp_path / "out"


@pytest.mark.parametrize("below", ["", NAME, "versions/1", f"{NAME}/{NAME}"])
def test_a_folder_of_scans_is_returned_as_it_is(plain, tmp_path, below, caplog):
    shutil.copytree(plain, tmp_path / "have" / below, dirs_exist_ok=True)
    assert unpack(tmp_path / "have", tmp_path / "out") == tmp_path / "have"
    assert not (tmp_path / "out").exists()
    assert caplog.messages == [f"scans: {tmp_path / 'have'}"]


def test_scans_win_over_archives_and_it_is_said(split, tmp_path, caplog):
    (split / "ct_1001_image.nii").write_bytes(b"scan")
    assert unpack(split) == split
    assert "archives beside them are left alone: ImageCHD_dataset.change2zip, ImageCHD_dataset.z01" in caplog.text


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


def test_scans_behind_links_are_scans_dead_or_not_and_hidden_ones_are_none(plain, tmp_path):
    folder = tmp_path / "linked"
    folder.mkdir()
    (folder / "scans").symlink_to(plain)
    assert unpack(folder, progress=False) == folder
    (folder / "scans").unlink()
    (folder / "ct_1001_image.nii.gz").symlink_to("/gone")
    assert unpack(folder, progress=False) == folder
    (folder / "ct_1001_image.nii.gz").unlink()
    shutil.copytree(plain, folder / ".Trash-1000")
    with pytest.raises(FileNotFoundError, match=r"no scan .* and no archive of scans found"):
        unpack(folder, progress=False)
