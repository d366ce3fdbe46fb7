"""All volumes of a ZIP are found wherever they lie, and what is missing, cut short or too many is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from archive_makers import NAME, make_plain, make_split, outer, refused


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


def test_a_last_volume_cut_short_is_named(split, tmp_path):
    path = split / f"{NAME}.change2zip"
    path.write_bytes(path.read_bytes()[:-10])
    refused(split, tmp_path / "out", f"{path}: cut short, or no ZIP: 7", "download ImageCHD_dataset.change2zip again")


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
