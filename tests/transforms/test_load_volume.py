"""A file becomes a volume in HU, channel first, by either reader."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from real_scans import REAL, real_scan
from tiny_volumes import RAS, random_ct, save, to_frames

from monai_chd.nifti import read_volume
from monai_chd.transforms import LoadVolume, LoadVolumed

pytestmark = pytest.mark.usefixtures("itk_loaded")


@pytest.mark.parametrize("reader", ["nibabel", "itk"])
def test_loaded_volume_is_channel_first_hu_with_its_meta_data(tmp_path, reader):
    values = random_ct((4, 5, 6))
    path = save(tmp_path / "ct.nii.gz", values)
    volume = LoadVolume(reader)(path)
    assert isinstance(volume, MetaTensor) and volume.dtype == torch.float32
    np.testing.assert_array_equal(volume.numpy(), values[None])
    np.testing.assert_allclose(volume.affine, RAS, atol=1e-6)
    np.testing.assert_allclose(volume.meta["original_affine"], RAS, atol=1e-6)
    assert (volume.meta["filename_or_obj"], volume.meta["intensity"], volume.meta["hu_offset"]) == (path, "HU", 0)


def test_ct_stored_as_hu_plus_1024_is_brought_back_to_hu(tmp_path):
    scan = read_volume(real_scan("ts_cardiac_ct_b.nii.gz")).values
    raw = np.clip(scan.astype(np.int32) + 1024, 0, 4095).astype(np.int16)
    volume = LoadVolume()(save(tmp_path / "raw.nii", raw))
    np.testing.assert_array_equal(volume[0].numpy(), np.clip(scan, -1024, 3071))
    assert volume.meta["hu_offset"] == -1024


def test_offset_of_the_case_goes_before_the_one_of_the_constructor_before_the_found_one(tmp_path):
    values = random_ct((4, 4, 4))
    path = save(tmp_path / "ct.nii.gz", values)
    for constructor, case, used in ((None, None, 0), (-1024, None, -1024), (-1024, 7.5, 7.5), (-1024, 0, 0), (0, 3, 3)):
        volume = LoadVolumed("image", hu_offset=constructor)({"image": path, "hu_offset": case})["image"]
        assert volume.meta["hu_offset"] == used
        np.testing.assert_array_equal(volume[0].numpy(), values + used)


def test_volume_without_hu_is_refused_by_the_loader_with_the_file_named(tmp_path):
    path = save(tmp_path / "mr.nii.gz", np.zeros((3, 3, 3), dtype=np.int16))
    with pytest.raises(ValueError, match=r"mr\.nii\.gz: cannot tell Hounsfield units"):
        LoadVolume()(path)


@pytest.mark.parametrize("name", REAL)
def test_both_readers_load_the_same_frames(name):
    frames = [to_frames(None, reader)({"image": real_scan(name)})["image"] for reader in ("nibabel", "itk")]
    assert torch.equal(*frames)
    np.testing.assert_array_equal(frames[0].affine, frames[1].affine)
