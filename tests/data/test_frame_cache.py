import hashlib
import multiprocessing
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.transforms import Compose, ScaleIntensityRanged
from PIL import Image
from tiny_frames import (
    LENGTH,
    REAL_SCAN,
    SIZE,
    assert_only_jpg_loss,
    assert_same,
    chain,
    cut_in_half,
    files_of,
    fused,
    on_disk,
    write_cases,
    write_scan,
)

from monai_chd import nifti
from monai_chd.data import frame_cache
from monai_chd.data.dataset import FrameDataset
from monai_chd.data.frame_cache import DISK_RESERVE, FrameFiles, transform_key
from monai_chd.files import replacing
from monai_chd.transforms import LoadFramesd


@pytest.fixture
def cases(tmp_path):
    return write_cases(tmp_path)


@pytest.fixture
def jpg_folder(tmp_path):
    return tmp_path / "jpg"


def jpg(cases, folder, transform=None):
    return on_disk("jpg", cases, folder, transform)


def test_jpg_of_a_real_scan_differs_by_the_loss_of_jpg_only(jpg_folder):
    case = {"image": str(REAL_SCAN), "patient": "real"}
    transform = chain(frame_size=128, sequence_length=120)
    assert_only_jpg_loss(FrameDataset([case], transform)[0], jpg([case], jpg_folder, transform)[0])


def test_jpg_layout_is_one_folder_a_patient_with_numbered_grey_squares(cases, jpg_folder):
    jpg(cases, jpg_folder).fill()
    expected = {f"{case['patient']}/ct_{case['patient']}_image.json" for case in cases}
    for case, frames in zip(cases, (6, LENGTH, 5), strict=True):
        expected |= {f"{case['patient']}/ct_{case['patient']}_image_{index:03d}.jpg" for index in range(frames)}
    assert set(files_of(jpg_folder)) == expected, "nothing temporary is left"
    for name in expected:
        if name.endswith(".jpg"):
            with Image.open(jpg_folder / name) as picture:
                assert (picture.format, picture.mode, picture.size) == ("JPEG", "L", (SIZE, SIZE))


def test_jpgs_are_written_once_and_read_from_then_on(cases, jpg_folder):
    first = [jpg(cases, jpg_folder)[index] for index in range(3)]
    written = files_of(jpg_folder)
    again = jpg(cases, jpg_folder)
    again.fill()
    for index in range(3):
        assert_same(again[index], first[index])
    assert files_of(jpg_folder) == written
    with Image.open(jpg_folder / "1001" / "ct_1001_image_003.jpg") as picture:
        np.testing.assert_array_equal(np.asarray(picture), first[0]["image"][0, 3].numpy())


@pytest.mark.parametrize(
    "change",
    [{"window": (-150, 850)}, {"frame_size": 32}, {"hu_offset": 100}, {"sequence_length": 8}, {"reader": "other"}],
)
def test_jpgs_are_made_again_when_a_setting_changes(cases, jpg_folder, change, monkeypatch):
    monkeypatch.setitem(nifti.READERS, "other", nifti.READERS["nibabel"])
    jpg(cases, jpg_folder).fill()
    written = files_of(jpg_folder)
    changed = jpg(cases, jpg_folder, chain(**change))
    assert_only_jpg_loss(FrameDataset(cases, chain(**change))[0], changed[0])
    now = files_of(jpg_folder)
    assert all((now[name] != written[name]) == name.startswith("1001/") for name in written)


def test_jpgs_are_made_again_when_a_setting_of_another_transform_changes(cases, jpg_folder):
    def with_monai_window(upper):
        steps = list(chain().transforms)
        steps[3] = ScaleIntensityRanged("image", -200, upper, 0, 1, clip=True)
        return Compose(steps)

    jpg(cases, jpg_folder, with_monai_window(900))[0]
    assert_only_jpg_loss(with_monai_window(500)(cases[0]), jpg(cases, jpg_folder, with_monai_window(500))[0])


@pytest.mark.parametrize(("index", "own"), [(0, {"hu_offset": 150}), (2, {"cine_slice": 0})])
def test_jpgs_are_made_again_when_a_setting_of_the_case_itself_changes(cases, jpg_folder, index, own):
    jpg(cases, jpg_folder).fill()
    cases[index].update(own)
    item, truth = jpg(cases, jpg_folder)[index], FrameDataset(cases, chain())[index]
    assert_only_jpg_loss(truth, item)
    assert not set(own) & set(item)


def test_jpgs_are_made_again_when_the_scan_changes_and_no_old_picture_is_left(cases, jpg_folder, tmp_path):
    jpg(cases, jpg_folder)[1]
    write_scan(tmp_path / "scans" / "ct_1002_image.nii.gz", (20, 24, 7), seed=9)
    item, truth = jpg(cases, jpg_folder)[1], FrameDataset(cases, chain())[1]
    assert item["num_frames"] == 7
    assert_only_jpg_loss(truth, item)
    assert len(list((jpg_folder / "1002").glob("*.jpg"))) == 7


def test_jpgs_are_made_again_when_another_scan_of_the_same_size_takes_its_place(tmp_path, jpg_folder):
    path = tmp_path / "scans" / "ct.nii"
    case = {"image": str(write_scan(path)), "patient": "1001"}
    jpg([case], jpg_folder)[0]
    size, modified = path.stat().st_size, path.stat().st_mtime_ns
    write_scan(path, seed=5)
    os.utime(path, ns=(modified + 10**9, modified + 10**9))
    assert path.stat().st_size == size
    assert_only_jpg_loss(FrameDataset([case], chain())[0], jpg([case], jpg_folder)[0])


def damage_note(folder):
    (folder / "ct_1001_image.json").write_text('{"key": ')


def other_note(folder):
    (folder / "ct_1001_image.json").write_text("[]")


def no_note(folder):
    (folder / "ct_1001_image.json").unlink()
    Image.new("L", (SIZE, SIZE), 255).save(folder / "ct_1001_image_002.jpg")


def no_note_and_few_pictures(folder):
    (folder / "ct_1001_image.json").unlink()
    for index in range(3, 6):
        (folder / f"ct_1001_image_{index:03d}.jpg").unlink()


def no_picture(folder):
    (folder / "ct_1001_image_004.jpg").unlink()


def half_a_picture(folder):
    picture = folder / "ct_1001_image_004.jpg"
    picture.write_bytes(picture.read_bytes()[:200])


def no_jpg(folder):
    (folder / "ct_1001_image_004.jpg").write_text("text")


@pytest.mark.parametrize(
    "damage",
    [damage_note, other_note, no_note, no_note_and_few_pictures, no_picture, half_a_picture, no_jpg],
    ids=lambda damage: damage.__name__,
)
def test_interrupted_or_damaged_jpgs_are_made_again(cases, jpg_folder, damage):
    sound = jpg(cases, jpg_folder)[0]
    names = set(files_of(jpg_folder))
    damage(jpg_folder / "1001")
    assert_same(jpg(cases, jpg_folder)[0], sound)
    assert set(files_of(jpg_folder)) == names


def test_writing_that_is_killed_leaves_no_note(cases, jpg_folder, monkeypatch):
    sound = jpg(cases, jpg_folder)[0]
    shutil.rmtree(jpg_folder)
    save, saved = Image.Image.save, []

    def killed(self, *args, **options):
        saved.append(args)
        if len(saved) == 4:
            raise KeyboardInterrupt
        save(self, *args, **options)

    monkeypatch.setattr(Image.Image, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        jpg(cases, jpg_folder)[0]
    monkeypatch.undo()
    assert set(files_of(jpg_folder)) == {f"1001/ct_1001_image_{index:03d}.jpg" for index in range(3)}
    assert_same(jpg(cases, jpg_folder)[0], sound)


def test_killed_rewriting_does_not_leave_the_old_note(cases, jpg_folder, monkeypatch):
    jpg(cases, jpg_folder)[0]
    save = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", lambda *args, **options: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        jpg(cases, jpg_folder, chain(window=(0, 10)))[0]
    monkeypatch.setattr(Image.Image, "save", save)
    assert not (jpg_folder / "1001" / "ct_1001_image.json").exists()


def test_patients_whose_files_have_the_same_name_do_not_collide(tmp_path, jpg_folder):
    cases = [
        {"image": str(write_scan(tmp_path / patient / "image.nii.gz", seed=seed)), "patient": patient}
        for seed, patient in enumerate(("1001", "1002"))
    ]
    one, other = jpg(cases[:1], jpg_folder), jpg(cases[1:], jpg_folder)
    first, second = one[0], other[0]
    assert not torch.equal(first["image"], second["image"])
    written = files_of(jpg_folder)
    assert_same(one[0], first)
    assert_same(other[0], second)
    assert files_of(jpg_folder) == written and len(written) == 14


def test_case_without_patient_gets_a_folder_of_its_own_name(cases, jpg_folder):
    case = {"image": cases[0]["image"]}
    item = jpg([case], jpg_folder)[0]
    assert set(item) == {"image", "num_frames"}
    assert (jpg_folder / "ct_1001_image" / "ct_1001_image_000.jpg").is_file()


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
def slow_replacing(path):
    with replacing(path) as temporary:
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


def test_same_bytes_under_another_name_share_one_file(cases, folder, tmp_path):
    frames(cases[:1], folder)[0]
    copy = shutil.copy(cases[0]["image"], tmp_path / "copy.nii.gz")
    item = frames([{"image": str(copy)}], folder)[0]
    assert item["image"].meta["filename_or_obj"] == str(copy)
    assert only_file(folder)


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


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


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
    with pytest.warns(UserWarning, match=r"is full \(its limit is .*cache_limit") as told:
        items = [dataset[index] for index in range(3)]
    assert len(told) == 1 and len(files_of(folder)) == 1
    for item, truth in zip(items, FrameDataset(cases, fused()), strict=True):
        assert_same(item, truth)


def test_disk_that_is_nearly_full_is_left_alone(cases, folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=DISK_RESERVE + 10))
    with pytest.warns(UserWarning, match=r"is full \(only 0\.0 GiB are left\)"):
        frames(cases, folder)[0]
    assert files_of(folder) == {}


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


def test_equal_transforms_have_equal_keys_and_others_do_not():
    assert transform_key(fused()) == transform_key(fused())
    others = [fused(window=(0, 1)), fused(frame_size=32), fused(sampling="first"), chain(), fused(reader="itk")]
    assert len({transform_key(transform) for transform in [fused(), *others]}) == 6
