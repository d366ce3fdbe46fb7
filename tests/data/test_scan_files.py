"""A kept file is found by the scan's bytes and every setting, whatever the scan is called and wherever it lies."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from tiny_frames import assert_same, files_of, fused, on_disk, write_cases, write_scan

from monai_chd.data import FrameDataset


@pytest.fixture
def cases(tmp_path):
    return write_cases(tmp_path)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "frames"


def frames(cases, folder, transform=None):
    return on_disk("frames", cases, folder, transform or fused())


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_same_bytes_under_another_name_share_one_file(cases, folder, tmp_path):
    frames(cases[:1], folder)[0]
    copy = shutil.copy(cases[0]["image"], tmp_path / "copy.nii.gz")
    item = frames([{"image": str(copy)}], folder)[0]
    assert item["image"].meta["filename_or_obj"] == str(copy)
    assert len(files_of(folder)) == 1


def test_digest_of_the_datalist_is_used_while_the_file_is_as_it_was(cases, folder, monkeypatch):
    case = {**cases[0], "sha256": sha256(cases[0]["image"])}
    first = frames([case], folder)[0]
    monkeypatch.setattr("hashlib.file_digest", None)
    assert_same(frames([case], folder)[0], first)


def test_scan_that_changed_since_the_datalist_is_read_again(cases, folder, tmp_path):
    case = {**cases[0], "sha256": sha256(cases[0]["image"])}
    frames([case], folder)[0]
    write_scan(tmp_path / "scans" / "ct_1001_image.nii.gz", seed=5)
    assert_same(frames([case], folder)[0], FrameDataset([case], fused())[0])


def test_scan_that_was_only_copied_elsewhere_is_not_read_again(cases, folder):
    case = {**cases[0], "sha256": sha256(cases[0]["image"])}
    first = frames([case], folder)[0]
    written = files_of(folder)
    os.utime(case["image"], ns=(1, 1))
    assert_same(frames([case], folder)[0], first)
    assert files_of(folder) == written
