import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose, Lambdad
from tiny_frames import (
    LENGTH,
    SIZE,
    assert_only_jpg_loss,
    assert_same,
    chain,
    cut_in_half,
    files_of,
    on_disk,
    one_core,
    write_cases,
    write_scan,
)

from monai_chd.data.dataset import CACHES, FrameDataset, loader_workers
from monai_chd.errors import UserError, UserFileError, user_error


@pytest.fixture
def cases(tmp_path):
    return write_cases(tmp_path)


@pytest.fixture
def jpg_folder(tmp_path):
    return tmp_path / "jpg"


def jpg(cases, folder, transform=None):
    return on_disk("jpg", cases, folder, transform)


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


def test_batch_may_mix_all_caches(cases, jpg_folder):
    items = [
        FrameDataset(cases, chain())[0],
        FrameDataset(cases, chain(), cache="memory")[1],
        jpg(cases, jpg_folder)[2],
        on_disk("frames", cases, jpg_folder)[0],
    ]
    batch = next(iter(DataLoader(items, batch_size=4)))
    assert batch["image"].shape == (4, 1, LENGTH, SIZE, SIZE) and batch["num_frames"].tolist() == [6, 10, 5, 6]
    assert set(batch["image"].meta) == set(items[0]["image"].meta)


def test_two_scans_whose_pictures_would_have_the_same_name_are_refused(tmp_path, jpg_folder):
    cases = [
        {"image": str(write_scan(tmp_path / phase / "image.nii.gz")), "patient": "1001"} for phase in ("early", "late")
    ]
    with pytest.raises(ValueError, match=r"late/image\.nii\.gz and .*early/image\.nii\.gz are of one patient.*rename"):
        jpg(cases, jpg_folder)
    assert len(jpg([cases[0], dict(cases[0])], jpg_folder)) == 2, "the same scan twice is no clash"


def test_fill_writes_what_is_missing_only(cases, jpg_folder, capsys):
    jpg(cases, jpg_folder)[0]
    written = files_of(jpg_folder)
    dataset = jpg(cases, jpg_folder)
    dataset.fill()
    now = files_of(jpg_folder)
    assert now.items() > written.items() and len(now) == 6 + LENGTH + 5 + 3
    assert "writing frames" in capsys.readouterr().err


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_fill_is_for_caches_on_disk_only(cases, cache):
    with pytest.raises(ValueError, match="fill: only the caches 'frames', 'jpg' and 'features' are kept on disk"):
        FrameDataset(cases, chain(), cache=cache).fill()


@one_core
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", ["jpg", "frames"])
def test_batches_from_workers_equal_those_of_one_process(cases, jpg_folder, cache, workers):
    expected = [on_disk(cache, cases, jpg_folder)[index] for index in range(3)]
    shutil.rmtree(jpg_folder)
    loader = DataLoader(on_disk(cache, cases, jpg_folder), batch_size=1, num_workers=workers)
    for _ in range(2):
        for batch, item in zip(loader, expected, strict=True):
            assert torch.equal(batch["image"][0].as_tensor(), item["image"].as_tensor())
            assert batch["num_frames"].tolist() == [item["num_frames"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "disk"}, "cache: expected one of none, memory, frames, jpg, features, got 'disk'"),
        ({"cache": None}, "cache: expected one of none, memory, frames, jpg, features, got None"),
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
    with pytest.raises(ValueError, match="no sequence of frames"):
        jpg(cases, jpg_folder, Compose(chain().transforms[:-1]))


UNREADABLE = {
    "truncated": (cut_in_half, UserError, "truncated or corrupt NIfTI"),
    "missing": (os.remove, UserFileError, "no such file"),
    "empty": (lambda path: open(path, "w").close(), UserError, "the file is empty"),
    "no-hu": (
        lambda path: nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_filename(path),
        UserError,
        "cannot tell Hounsfield units",
    ),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("cache", ["none", "jpg", "frames", "memory"])
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
    "options",
    [{}, {"skip_unreadable": True}, {"cache": "jpg"}, {"cache": "frames"}, {"cache": "memory"}],
    ids=lambda options: str(options),
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


def test_workers_are_for_what_has_to_be_read():
    assert {cache: loader_workers(2, cache) for cache in CACHES} == {
        "none": 2,
        "jpg": 2,
        "memory": 0,
        "frames": 0,
        "features": 0,
    }
