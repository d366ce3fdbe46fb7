import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose, Lambdad, Orientationd, ScaleIntensityRanged
from PIL import Image
from scipy import ndimage

from monai_chd import reading
from monai_chd.dataset import FrameDataset
from monai_chd.errors import user_error
from monai_chd.transforms import (
    LoadVolumed,
    PadFramesd,
    QuantizeFramesd,
    ResizeFramesd,
    SliceToFramed,
    WindowHUd,
)

REAL_SCAN = Path(__file__).parent / "data" / "ts_cardiac_ct_b.nii.gz"
SIZE = 24
LENGTH = 10
JPG_MEAN, JPG_WORST = 1, 12
"""Grey levels of 255 that JPG of quality 95 may cost; measured 0.96 and 9 in the made scans, 0.80 and 9 in the real."""

one_core = pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
"""PyTorch's advice on a machine of one core, where workers are slow but right."""


def chain(
    frame_size=SIZE, window=(-200, 900), sequence_length=LENGTH, sampling="even", hu_offset=None, reader="nibabel"
):
    return Compose(
        [
            LoadVolumed("image", reader, hu_offset),
            Orientationd("image", axcodes="LPS", labels=[["L", "R"], ["P", "A"], ["I", "S"]]),
            SliceToFramed("image"),
            WindowHUd("image", window),
            ResizeFramesd("image", frame_size),
            QuantizeFramesd("image"),
            PadFramesd("image", sequence_length, sampling),
        ]
    )


def smooth_ct(shape, seed):
    """Soft HU, as tissue is, with air."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, [2, 2, 1, 1][: len(shape)])
    return (smooth / smooth.std() * 400 - 50).clip(-1000, 2000).astype(np.int16)


def write_scan(path, shape=(26, 22, 6), seed=0):
    path.parent.mkdir(exist_ok=True)
    affine = np.array([[0.7, 0, 0, -10.1], [0, 0.8, 0, 5.3], [0, 0, 1.5, 33.7], [0, 0, 0, 1]])
    nib.Nifti1Image(smooth_ct(shape, seed), affine).to_filename(path)
    return path


@pytest.fixture
def cases(tmp_path):
    """Three patients: a short scan, one longer than the sequence, a cine."""
    shapes = {"1001": (26, 22, 6), "1002": (20, 24, 17), "1003": (22, 22, 3, 5)}
    return [
        {
            "image": str(write_scan(tmp_path / "scans" / f"ct_{patient}_image.nii.gz", shape, seed)),
            "patient": patient,
            "label": seed,
        }
        for seed, (patient, shape) in enumerate(shapes.items())
    ]


@pytest.fixture
def jpg_folder(tmp_path):
    return tmp_path / "jpg"


def jpg(cases, folder, transform=None):
    return FrameDataset(cases, transform or chain(), cache="jpg", cache_dir=folder)


def files_of(folder):
    """Every file below a folder with the time it was written."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
    }


def only(case):
    return {key: value for key, value in case.items() if key != "image"}


def assert_same(one, other):
    """The whole item, to the last bit: a batch may mix them."""
    assert only(one) == only(other) and sorted(one) == sorted(other)
    assert one["image"].dtype == other["image"].dtype == torch.uint8
    assert torch.equal(one["image"].as_tensor(), other["image"].as_tensor())
    assert_same_meta(one["image"], other["image"])


def assert_same_meta(one, other):
    assert set(one.meta) == set(other.meta)
    for name, value in one.meta.items():
        expected = other.meta[name]
        assert type(value) is type(expected), name
        if isinstance(value, torch.Tensor):
            assert value.dtype == expected.dtype and torch.equal(value, expected), name
        else:
            assert value == expected or (value != value and expected != expected), name


def assert_only_jpg_loss(one, other):
    """The same item but for the loss of JPG in the real frames."""
    assert only(one) == only(other) and sorted(one) == sorted(other)
    assert one["image"].shape == other["image"].shape and one["image"].dtype == other["image"].dtype == torch.uint8
    assert_same_meta(one["image"], other["image"])
    miss = (one["image"].int() - other["image"].int()).abs()[:, : one["num_frames"]].float()
    assert miss.mean() < JPG_MEAN and miss.max() <= JPG_WORST
    assert not other["image"][:, other["num_frames"] :].any()


def test_cache_none_is_the_transform(cases):
    dataset = FrameDataset(cases, chain())
    assert len(dataset) == 3
    for index, case in enumerate(cases):
        assert_same(dataset[index], chain()(case))


def test_memory_equals_none_exactly_and_reads_each_file_once(cases):
    memory = FrameDataset(cases, chain(), cache="memory")
    plain = [FrameDataset(cases, chain())[index] for index in range(3)]
    shutil.rmtree(os.path.dirname(cases[0]["image"]))
    for _ in range(2):
        for index in range(3):
            assert_same(memory[index], plain[index])
    assert memory[0]["image"].data_ptr() == memory[0]["image"].data_ptr(), "handed out without a copy"


def test_jpg_differs_from_none_by_the_loss_of_jpg_only(cases, jpg_folder):
    plain, pictures = FrameDataset(cases, chain()), jpg(cases, jpg_folder)
    for _ in range(2):  # written, then read
        for index in range(3):
            assert_only_jpg_loss(plain[index], pictures[index])
            assert pictures[index]["num_frames"] == (6, LENGTH, 5)[index]
            assert not torch.equal(plain[index]["image"], pictures[index]["image"]), "jpg is lossy: these are pictures"


def test_jpg_of_a_real_scan_differs_by_the_loss_of_jpg_only(jpg_folder):
    case = {"image": str(REAL_SCAN), "patient": "real"}
    transform = chain(frame_size=128, sequence_length=120)
    assert_only_jpg_loss(FrameDataset([case], transform)[0], jpg([case], jpg_folder, transform)[0])


def test_batch_may_mix_all_caches(cases, jpg_folder):
    items = [
        FrameDataset(cases, chain())[0],
        FrameDataset(cases, chain(), cache="memory")[1],
        jpg(cases, jpg_folder)[2],
    ]
    batch = next(iter(DataLoader(items, batch_size=3)))
    assert batch["image"].shape == (3, 1, LENGTH, SIZE, SIZE) and batch["num_frames"].tolist() == [6, 10, 5]
    assert set(batch["image"].meta) == set(items[0]["image"].meta)


def test_jpg_layout_is_one_folder_a_patient_with_numbered_grey_squares(cases, jpg_folder):
    jpg(cases, jpg_folder).fill()
    expected = {f"{case['patient']}/ct_{case['patient']}_image.json" for case in cases}
    for case, frames in zip(cases, (6, 17, 5), strict=True):  # all real frames: the sequence is cut on reading
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


def test_other_length_or_sampling_needs_no_new_jpgs(cases, jpg_folder):
    jpg(cases, jpg_folder).fill()
    written = files_of(jpg_folder)
    long = jpg(cases, jpg_folder, chain(sequence_length=40, sampling="first"))[1]
    assert long["num_frames"] == 17 and files_of(jpg_folder) == written


@pytest.mark.parametrize(
    "change", [{"window": (-150, 850)}, {"frame_size": 32}, {"hu_offset": 100}, {"hu_offset": 0}, {"reader": "other"}]
)
def test_jpgs_are_made_again_when_a_setting_changes(cases, jpg_folder, change, monkeypatch):
    monkeypatch.setitem(reading.READERS, "other", reading.READERS["nibabel"])
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


def test_two_scans_whose_pictures_would_have_the_same_name_are_refused(tmp_path, jpg_folder):
    cases = [
        {"image": str(write_scan(tmp_path / phase / "image.nii.gz")), "patient": "1001"} for phase in ("early", "late")
    ]
    with pytest.raises(ValueError, match=r"late/image\.nii\.gz and .*early/image\.nii\.gz are of one patient.*rename"):
        jpg(cases, jpg_folder)
    assert len(jpg([cases[0], dict(cases[0])], jpg_folder)) == 2, "the same scan twice is no clash"


def test_case_without_patient_gets_a_folder_of_its_own_name(cases, jpg_folder):
    case = {"image": cases[0]["image"]}
    item = jpg([case], jpg_folder)[0]
    assert set(item) == {"image", "num_frames"}
    assert (jpg_folder / "ct_1001_image" / "ct_1001_image_000.jpg").is_file()


def test_fill_writes_what_is_missing_only(cases, jpg_folder, capsys):
    jpg(cases, jpg_folder)[0]
    written = files_of(jpg_folder)
    dataset = jpg(cases, jpg_folder)
    dataset.fill()
    now = files_of(jpg_folder)
    assert now.items() > written.items() and len(now) == 6 + 17 + 5 + 3
    assert "writing JPGs" in capsys.readouterr().err


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_fill_is_for_jpg_only(cases, cache):
    with pytest.raises(ValueError, match="fill: only the 'jpg' cache is kept on disk"):
        FrameDataset(cases, chain(), cache=cache).fill()


@one_core
@pytest.mark.parametrize("workers", [0, 2])
def test_jpg_batches_from_workers_equal_those_of_one_process(cases, jpg_folder, workers):
    expected = [jpg(cases, jpg_folder)[index] for index in range(3)]
    shutil.rmtree(jpg_folder)
    loader = DataLoader(jpg(cases, jpg_folder), batch_size=1, num_workers=workers)
    for _ in range(2):
        for batch, item in zip(loader, expected, strict=True):
            assert torch.equal(batch["image"][0].as_tensor(), item["image"].as_tensor())
            assert batch["num_frames"].tolist() == [item["num_frames"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "disk"}, "cache: expected one of none, memory, jpg, got 'disk'"),
        ({"cache": None}, "cache: expected one of none, memory, jpg, got None"),
        ({"cache": "jpg"}, "cache: 'jpg' needs a folder, cache_dir"),
        ({"cache": "jpg", "cache_dir": ""}, "cache: 'jpg' needs a folder, cache_dir"),
        ({"cache": "memory", "skip_unreadable": True}, "skip_unreadable works with cache 'none' only, got 'memory'"),
        ({"cache": "jpg", "cache_dir": "x", "skip_unreadable": True}, "skip_unreadable works with cache 'none' only"),
    ],
)
def test_settings_that_do_not_fit_are_refused(cases, options, message):
    with pytest.raises(ValueError, match=message):
        FrameDataset(cases, chain(), **options)


def test_jpg_folder_that_cannot_be_written_to_is_refused(cases, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write there"):
        jpg(cases, tmp_path / "file" / "jpg")


def test_jpg_of_a_chain_without_sequence_is_refused(cases, jpg_folder):
    with pytest.raises(ValueError, match="no PadFramesd step"):
        jpg(cases, jpg_folder, Compose(chain().transforms[:-1]))


def cut_in_half(path):
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)


UNREADABLE = {
    "truncated": (cut_in_half, ValueError, "truncated or corrupt NIfTI"),
    "missing": (os.remove, FileNotFoundError, "no such file"),
    "empty": (lambda path: open(path, "w").close(), ValueError, "the file is empty"),
    "no-hu": (
        lambda path: nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_filename(path),
        ValueError,
        "cannot tell Hounsfield units",
    ),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("cache", ["none", "jpg", "memory"])
def test_unreadable_file_raises_the_error_of_the_reader(cases, jpg_folder, kind, cache):
    damage, error, message = UNREADABLE[kind]
    damage(cases[1]["image"])
    with pytest.raises(error, match=message) as raised:
        FrameDataset(cases, chain(), cache=cache, cache_dir=jpg_folder)[1]
    assert type(raised.value) is error and str(raised.value).startswith(cases[1]["image"])
    assert user_error(raised.value) is raised.value
    if cache == "jpg":
        with pytest.raises(error, match=message):
            jpg(cases, jpg_folder).fill()
        assert not (jpg_folder / "1002").exists() or files_of(jpg_folder / "1002") == {}
        jpg(cases, jpg_folder)[2]


@one_core
def test_unreadable_file_is_named_by_the_error_of_a_worker(cases):
    cut_in_half(cases[1]["image"])
    with pytest.raises(ValueError, match=r"ct_1002_image\.nii\.gz: truncated or corrupt NIfTI"):
        list(DataLoader(FrameDataset(cases, chain()), batch_size=1, num_workers=2))


@pytest.mark.parametrize(
    "options", [{}, {"skip_unreadable": True}, {"cache": "jpg"}, {"cache": "memory"}], ids=lambda options: str(options)
)
def test_fault_of_the_program_is_raised_as_it_is(cases, jpg_folder, options):
    transform = Compose([Lambdad("image", lambda path: path / 0), *chain().transforms[1:]])
    with pytest.raises(RuntimeError, match="applying transform"):
        FrameDataset(cases, transform, cache_dir=jpg_folder, **options)[0]


@pytest.mark.parametrize("kind", UNREADABLE)
def test_skipped_file_becomes_a_blank_case_that_says_why(cases, kind):
    damage, _, message = UNREADABLE[kind]
    cases[1]["hu_offset"] = None
    sound = FrameDataset(cases, chain())
    expected = [sound[0], sound[2]]
    damage(cases[1]["image"])
    dataset = FrameDataset(cases, chain(), skip_unreadable=True)
    blank = dataset[1]
    assert message in blank["reason"] and blank["reason"].startswith(cases[1]["image"])
    assert (blank["patient"], blank["label"], blank["num_frames"]) == ("1002", 1, 1)
    assert blank["image"].shape == (1, LENGTH, SIZE, SIZE) and blank["image"].dtype == torch.uint8
    assert not blank["image"].any() and blank["image"].meta["filename_or_obj"] == cases[1]["image"]
    assert set(blank["image"].meta) == set(expected[0]["image"].meta)
    for index, item in zip((0, 2), expected, strict=True):
        assert_same(dataset[index], {**item, "reason": ""})


@one_core
@pytest.mark.parametrize("workers", [0, 2])
def test_batch_of_sound_and_skipped_files_goes_on(cases, workers):
    cases[0]["hu_offset"] = 0
    cases[2]["cine_slice"] = 1
    cut_in_half(cases[1]["image"])
    loader = DataLoader(FrameDataset(cases, chain(), skip_unreadable=True), batch_size=3, num_workers=workers)
    (batch,) = list(loader)
    assert batch["num_frames"].tolist() == [6, 1, 5] and batch["patient"] == ["1001", "1002", "1003"]
    assert batch["reason"][0] == batch["reason"][2] == "" and "truncated" in batch["reason"][1]
    assert [bool(image.any()) for image in batch["image"]] == [True, False, True]
    assert not batch["image"][1].any()


def test_cases_are_not_modified(cases, jpg_folder):
    cases[0]["hu_offset"] = 0
    before = json.dumps(cases)
    for dataset in (FrameDataset(cases, chain()), FrameDataset(cases, chain(), cache="memory"), jpg(cases, jpg_folder)):
        assert "hu_offset" not in dataset[0] and isinstance(dataset[0]["image"], MetaTensor)
    assert json.dumps(cases) == before


def test_slices_of_a_dataset_are_subsets(cases):
    dataset = FrameDataset(cases, chain())
    assert_same(dataset[1:][0], dataset[1])
