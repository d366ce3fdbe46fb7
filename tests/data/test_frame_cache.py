"""Kept frames are those of the scan to the last bit, take no room for padding, and are made again when damaged."""

import multiprocessing
import os
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from tiny_frames import LENGTH, SIZE, assert_same, chain, cut_in_half, files_of, fused, on_disk, write_cases

from monai_chd.data import FrameDataset, frame_cache
from monai_chd.data.frame_cache import DISK_RESERVE, FrameFiles
from monai_chd.errors import UserError
from monai_chd.files import replacing
from monai_chd.transforms import LoadFramesd


@pytest.fixture
def cases(tmp_path):
    return write_cases(tmp_path)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "frames"


def frames(cases, folder, transform=None):
    return on_disk("frames", cases, folder, transform or fused())


def only_file(folder):
    (file,) = folder.glob("*.npy")
    return file


@pytest.mark.parametrize("transform", [chain, fused])
def test_frames_equal_none_exactly_when_written_and_when_read(cases, folder, transform):
    plain = FrameDataset(cases, transform())
    for _ in range(2):
        kept = frames(cases, folder, transform())
        for index in range(3):
            assert_same(kept[index], plain[index])
    assert len(files_of(folder)) == 3, "one file a scan, nothing temporary"


def test_frames_are_written_once_and_read_without_the_transform(cases, folder, monkeypatch):
    first = [frames(cases, folder)[index] for index in range(3)]
    written = files_of(folder)
    again = frames(cases, folder)
    monkeypatch.setattr(again._files, "frames", None)
    for index in range(3):
        assert_same(again[index], first[index])
    assert files_of(folder) == written


@contextmanager
def slow_replacing(path, **options):
    with replacing(path, **options) as temporary:
        yield temporary
        time.sleep(0.3)  # in which the other job writes the same file


def fill_at_the_same_time(cases, folder, barrier):
    torch.set_num_threads(1)
    frame_cache.replacing = slow_replacing
    kept, plain = frames(cases, folder), FrameDataset(cases, fused())
    barrier.wait(60)
    for index in range(3):
        assert_same(kept[index], plain[index])


def test_jobs_that_fill_one_folder_at_the_same_time_do_not_disturb_each_other(cases, folder):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    jobs = [context.Process(target=fill_at_the_same_time, args=(cases, folder, barrier)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(timeout=120)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert len(files_of(folder)) == 3, "nothing temporary"


def test_nobody_can_spoil_a_file_through_its_tensor(cases, folder):
    sound = frames(cases, folder)[0]["image"].clone()
    frames(cases, folder)[0]["image"].fill_(7)
    assert torch.equal(frames(cases, folder)[0]["image"], sound)


def test_padding_takes_no_room_on_disk(cases, folder):
    item = frames(cases[:1], folder, fused(frame_size=64, sequence_length=2000))[0]
    assert item["num_frames"] == 6 and item["image"].shape == (1, 2000, 64, 64)
    status = only_file(folder).stat()
    assert status.st_size > 2000 * 64 * 64, "as long as the padded sequence"
    assert status.st_blocks * 512 < 6 * 64 * 64 + 65536


@pytest.mark.parametrize(
    "change",
    [
        {"window": (-150, 850)},
        {"frame_size": 32},
        {"hu_offset": 100},
        {"sequence_length": 8},
        {"sampling": "first"},
        {"reader": "nibabel"},
    ],
)
def test_frames_of_other_settings_are_other_files(cases, folder, change):
    frames(cases, folder)[1]
    changed = frames(cases, folder, fused(**change))[1]
    assert_same(changed, FrameDataset(cases, fused(**change))[1])
    assert len(files_of(folder)) == 2


@pytest.mark.parametrize(("index", "own"), [(0, {"hu_offset": 150}), (2, {"cine_slice": 0})])
def test_frames_of_another_setting_of_the_case_are_another_file(cases, folder, index, own):
    frames(cases, folder)[index]
    cases[index].update(own)
    assert_same(frames(cases, folder)[index], FrameDataset(cases, fused())[index])
    assert len(files_of(folder)) == 2


def cut_end(path):
    os.truncate(path, path.stat().st_size - 1)


def flip_a_pixel(path):
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)


def spoil_the_notes(path):
    data = bytearray(path.read_bytes())
    data[-40] ^= 255
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def plain_npy(path):
    np.save(path, np.zeros((LENGTH, SIZE, SIZE), np.uint8))


@pytest.mark.parametrize("damage", [cut_in_half, cut_end, flip_a_pixel, spoil_the_notes, empty, plain_npy])
def test_damaged_frames_are_made_again(cases, folder, damage):
    frames(cases[:1], folder)[0]  # not kept: a mapping of a file that is cut is a bus error
    sound = FrameDataset(cases, fused())[0]
    before = only_file(folder).read_bytes()
    damage(only_file(folder))
    assert only_file(folder).read_bytes() != before
    assert_same(frames(cases[:1], folder)[0], sound)
    assert only_file(folder).read_bytes() == before


def test_full_cache_reads_the_scans_and_says_so_once(cases, folder):
    limit = 2 * 4096 / 2**30  # one scan's frames, not two
    dataset = FrameDataset(cases, fused(), cache="frames", cache_dir=folder, cache_limit=limit)
    with pytest.warns(UserWarning, match=r"is full: it may take 0\.0 MiB; allow it more with cache_limit") as told:
        items = [dataset[index] for index in range(3)]
    assert len(told) == 1 and len(files_of(folder)) == 1
    for item, truth in zip(items, FrameDataset(cases, fused()), strict=True):
        assert_same(item, truth)


def nearly_full(monkeypatch, free):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))


@pytest.mark.parametrize(("free", "told"), [(DISK_RESERVE + 10, "2.0 GiB"), (3 * 2**19, "1.5 MiB"), (0, "0.0 MiB")])
def test_disk_that_is_nearly_full_is_left_alone_and_its_true_numbers_told(cases, folder, monkeypatch, free, told):
    nearly_full(monkeypatch, free)
    with pytest.warns(
        UserWarning, match=f"is full: {told} of its disk are free, of which 2.0 GiB are left alone; make"
    ):
        frames(cases, folder)[0]
    assert files_of(folder) == {}


@pytest.mark.filterwarnings("error")
def test_what_could_not_be_written_ahead_is_counted_and_an_error(cases, folder, monkeypatch):
    frames(cases, folder)[1]
    nearly_full(monkeypatch, 0)
    with pytest.raises(UserError, match=r"^1 of 3 written: .*frames is full: 0\.0 MiB of its disk are free"):
        frames(cases, folder).fill()
    assert len(files_of(folder)) == 1


def test_once_full_no_scan_is_read_in_vain(cases, folder, monkeypatch):
    cache = FrameFiles(folder, fused())
    nearly_full(monkeypatch, 0)
    assert not cache.keep(cases[0])
    monkeypatch.setattr(cache, "frames", None)
    assert not cache.keep(cases[1])


def test_frames_that_are_not_quantised_are_refused(cases, folder):
    with pytest.raises(ValueError, match="keeps uint8 frames, got float32; quantise them"):
        frames(cases, folder, Compose([LoadFramesd("image", SIZE, LENGTH, quantize=False)]))[0]


def test_writing_that_is_killed_leaves_no_file(cases, folder, monkeypatch):
    def killed(*args, **options):
        raise KeyboardInterrupt

    cache = FrameFiles(folder, fused())
    monkeypatch.setattr(
        "monai_chd.data.frame_cache._END", SimpleNamespace(size=16, pack=killed, unpack=lambda data: (b"", 0))
    )
    with pytest.raises(KeyboardInterrupt):
        cache.load(cases[0])
    assert files_of(folder) == {}
