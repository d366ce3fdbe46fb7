"""All steps one after the other: what a frame shows is where the file has it, there and back, alone and in batches."""

import pickle

import nibabel as nib
import numpy as np
import pytest
import tiny_frames
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, decollate_batch
from real_scans import REAL, real_scan
from scipy import ndimage
from tiny_frames import one_core
from tiny_volumes import ORIENTATIONS, RAS, SHAPE, random_ct, save, turned, world


def chain(frame_size=16, sequence_length=8, **settings):
    return tiny_frames.chain(frame_size, sequence_length, **settings)


@pytest.mark.parametrize("frame_size", [22, 8, 33, 64])
@pytest.mark.parametrize("sequence_length", [13, 20, 6, 2])
def test_landmark_keeps_its_place_through_the_whole_chain(tmp_path, frame_size, sequence_length):
    affine = turned(5, -10, 20)
    for orientation in ORIENTATIONS[::7]:
        for position in ((7, 5, 6), (4, 9, 0), (4, 5, 12), (1, 2, 3)):
            volume = np.full(SHAPE, -1000, dtype=np.int16)
            volume[:, :, position[2]] = -300  # below the window: only the landmark shows
            volume[position] = 900
            path = save(tmp_path / "ct.nii", volume, affine, orientation)
            result = chain(frame_size, sequence_length, hu_offset=0)({"image": path})["image"]
            kept = result.meta["frame_indices"][: result.meta["num_frames"]].tolist()
            if position[2] not in kept:
                continue
            t = kept.index(position[2])
            centre = ndimage.center_of_mass(result[0, t].numpy())
            # along t, h, w in units of the result's step: even sampling takes the nearest slice of the file
            found = np.linalg.inv(result.affine.numpy()) @ [*world(affine, position), 1]
            stride = max(1, (SHAPE[2] - 1) / (sequence_length - 1))
            assert abs(found[0] - t) <= 0.5 / stride + 1e-4
            np.testing.assert_allclose(found[1:3], centre, atol=0.3 * max(1, frame_size / SHAPE[1]))


def test_several_keys_are_transformed_alike(tmp_path):
    path = save(tmp_path / "ct.nii", random_ct(SHAPE))
    result = chain(keys=["image", "again"])({"image": path, "again": path, "hu_offset": 0})
    assert torch.equal(result["image"], result["again"]) and result["num_frames"] == 8


def test_case_is_not_modified_by_the_chain(tmp_path):
    case = {"image": save(tmp_path / "ct.nii", random_ct(SHAPE)), "hu_offset": 0, "cine_slice": 1, "label": 2}
    before = dict(case)
    result = chain()(case)
    assert case == before
    assert set(result) == {"image", "label", "num_frames"}, "what not every case has is used up"
    assert result["num_frames"] == 8 and type(result["num_frames"]) is int


@pytest.mark.parametrize("name", REAL)
def test_real_scans_go_through_the_chain(name):
    result = chain(frame_size=48, sequence_length=40)({"image": real_scan(name)})
    image = result["image"]
    assert image.shape == (1, 40, 48, 48) and image.dtype == torch.uint8
    assert 5 < image[:, : result["num_frames"]].float().mean() < 250
    assert image.max() > 150 and image.min() == 0
    assert not image[:, result["num_frames"] :].any()


KINDS = {
    "isotropic": ((12, 12, 12), np.eye(4)),
    "thick-slices": ((20, 18, 5), np.diag([0.4, 0.4, 5, 1])),
    "one-slice": ((16, 12, 1), RAS),
    "narrow": ((3, 40, 9), RAS),
    "oblique": ((12, 14, 9), turned(15, 25, -10)),
    "long": ((9, 8, 60), RAS),
    "cine": ((12, 14, 9, 5), turned(15, 25, -10)),
    "long-cine": ((12, 10, 1, 30), RAS),
    "2d": ((14, 12), RAS),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampling", ["even", "first"])
def test_whole_chain_goes_back_to_shape_and_affine_of_the_file(tmp_path, kind, sampling):
    shape, affine = KINDS[kind]
    values = random_ct(shape)
    for number, orientation in enumerate(ORIENTATIONS[:: 13 if len(shape) > 2 else 48]):
        path = save(tmp_path / f"{number}.nii", values, affine, orientation if len(shape) > 2 else None)
        transform = chain(sampling=sampling, cine_slice=0)
        back = transform.inverse(transform({"image": path}))["image"]
        file = nib.load(path)
        channels = shape[3] if len(shape) == 4 else 1
        assert back.shape == (channels, *(*file.shape, 1)[:3])
        np.testing.assert_allclose(back.affine, file.affine, atol=1e-4)
        assert back.applied_operations == []


def test_sound_frames_go_back_to_their_windowed_values(tmp_path):
    values = random_ct((16, 16, 6))
    windowed = np.clip((values + 200) / 1100, 0, 1)
    for orientation in ORIENTATIONS[::3]:
        path = save(tmp_path / "ct.nii", values, RAS, orientation)
        transform = chain(frame_size=16)
        back = transform.inverse(transform({"image": path}))["image"]
        stored = nib.Nifti1Image(windowed, RAS).as_reoriented(orientation)
        np.testing.assert_allclose(back[0].numpy(), stored.get_fdata(), atol=0.5 / 255 + 1e-5)


@pytest.mark.parametrize("own", [None, 2])
def test_landmark_drawn_in_frame_space_comes_back_at_its_voxel(tmp_path, own):
    """3D and cine, any storage order: what a map points at in a frame is where the file has it."""
    for number, orientation in enumerate(ORIENTATIONS[::5]):
        for shape in (SHAPE, (*SHAPE, 3)):
            path = save(tmp_path / f"{number}.nii", random_ct(shape), turned(4, 8, 12), orientation)
            transform = chain(frame_size=44, sequence_length=13)
            result = transform({"image": path, "cine_slice": own})
            image = result["image"]
            drawn = torch.zeros(image.shape)
            t, h, w = 1, 20, 21
            drawn[0, t, h - 1 : h + 2, w - 1 : w + 2] = 1
            result["image"] = MetaTensor(drawn, meta=image.meta, applied_operations=image.applied_operations)
            back = transform.inverse(result)["image"].numpy()
            channel, *voxel = np.unravel_index(back.argmax(), back.shape)
            assert channel == (t if len(shape) == 4 else 0)
            file = nib.load(path).affine
            frame = 0 if len(shape) == 4 else t
            miss = np.linalg.inv(file) @ [*world(image.affine, (frame, h, w)), 1] - [*voxel, 1]
            assert np.abs(miss).max() <= 0.75


def test_inverse_of_a_cine_leaves_the_other_slices_empty(tmp_path):
    path = save(tmp_path / "cine.nii", random_ct((10, 12, 5, 4)))
    transform = chain(sequence_length=6)
    back = transform.inverse(transform({"image": path, "cine_slice": 3}))["image"]
    assert back.shape == (4, 10, 12, 5)
    assert all(bool(back[..., z].any()) == (z == 3) for z in range(5))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Cases with different keys of their own: few slices, many, one, and a cine."""
    folder = tmp_path_factory.mktemp("mixed")
    kinds = {"short": (10, 12, 5), "long": (12, 9, 30), "single": (8, 8, 1), "cine": (9, 10, 4, 6)}
    cases = [
        {"image": save(folder / f"{name}.nii.gz", random_ct(shape), RAS), "label": label, "patient": name}
        for label, (name, shape) in enumerate(kinds.items())
    ]
    cases[0]["hu_offset"] = 0
    cases[3]["cine_slice"] = 1
    return cases


@one_core
@pytest.mark.parametrize("workers", [0, 2])
def test_batch_mixes_scans_and_comes_apart_again(mixed, workers):
    transform = chain()
    alone = [transform(case) for case in mixed]
    seen = []
    for batch in DataLoader(Dataset(mixed, transform), batch_size=2, num_workers=workers):
        assert batch["image"].shape == (2, 1, 8, 16, 16) and batch["num_frames"].dtype == torch.int64
        seen += decollate_batch(batch)
    for case, item, expected in zip(mixed, seen, alone, strict=True):
        assert torch.equal(item["image"].as_tensor(), expected["image"].as_tensor())
        assert (item["label"], item["patient"], item["num_frames"]) == (
            expected["label"],
            expected["patient"],
            expected["num_frames"],
        )
        assert torch.equal(item["image"].affine, expected["image"].affine)
        assert torch.equal(item["image"].meta["frame_indices"], expected["image"].meta["frame_indices"])
        assert item["image"].meta["filename_or_obj"] == case["image"]
        back = transform.inverse({"image": item["image"]})["image"]
        np.testing.assert_allclose(back.affine, nib.load(case["image"]).affine, atol=1e-4)
    assert [item["num_frames"] for item in seen] == [5, 8, 1, 6]


def test_pickled_chain_gives_the_same(mixed):
    copied = pickle.loads(pickle.dumps(chain()))
    for case in mixed:
        assert torch.equal(copied(case)["image"], chain()(case)["image"])


def test_transformed_case_can_be_pickled(mixed):
    transform = chain()
    result = transform(mixed[3])
    copied = pickle.loads(pickle.dumps(result))
    assert torch.equal(copied["image"], result["image"])
    assert torch.equal(transform.inverse(copied)["image"], transform.inverse(result)["image"])


def test_monai_cache_dataset_gives_the_same(mixed):
    transform = chain()
    cached = CacheDataset(mixed, transform, num_workers=1, progress=False)
    for case, item in zip(mixed, cached, strict=True):
        assert torch.equal(item["image"], transform(case)["image"])


@pytest.mark.parametrize(
    "shape", [(16, 16, 622), (1, 1, 1), (2, 3, 1), (1, 40, 7), (513, 2, 3), (40, 3, 2, 50), (5, 4, 3, 2)]
)
def test_no_shape_breaks_the_chain(tmp_path, shape):
    path = save(tmp_path / "ct.nii", random_ct(shape))
    transform = chain(frame_size=16, sequence_length=200)
    result = transform({"image": path, "hu_offset": None if len(shape) == 4 else 0})
    assert result["image"].shape == (1, 200, 16, 16)
    frames = shape[3] if len(shape) == 4 else shape[2]
    assert result["num_frames"] == min(200, frames)
    assert transform.inverse(result)["image"].shape == ((shape[3], *shape[:3]) if len(shape) == 4 else (1, *shape))
