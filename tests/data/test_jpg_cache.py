"""JPGs of a scan are written once, read from then on, and made again when anything they came from changed or they are damaged."""

import os
import shutil

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
    files_of,
    on_disk,
    write_cases,
    write_scan,
)

from monai_chd import nifti
from monai_chd.data import FrameDataset


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
