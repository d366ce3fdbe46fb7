"""A scan is opened by what it is, and a DICOM series reaches the network exactly as its NIfTI twin does."""

import numpy as np
import pytest
import torch
from dicom_series import write_as_dicom, write_series
from real_scans import real_scan
from tiny_cohort import write_scan

from monai_chd.dicom.private import Pseudonyms, describe_series
from monai_chd.dicom.series import find_series
from monai_chd.nifti import read_volume
from monai_chd.scans.opening import (
    check_scan,
    check_scan_name,
    is_series,
    is_synthetic,
    known_offset,
    open_scan,
    read_scan,
    scan_digest,
    scan_name,
    scan_stem,
)
from monai_chd.transforms import LoadFrames
from monai_chd.transforms.load_volume import LoadVolume


@pytest.fixture(params=["phantom", "real"])
def twins(request, tmp_path, cohort):
    """A NIfTI file, and the file that describes its DICOM twin."""
    nifti = cohort / "ct_1004_image.nii.gz" if request.param == "phantom" else real_scan("ts_cardiac_ct_b.nii.gz")
    write_as_dicom(nifti, tmp_path / "dicom", "p")
    (path,) = describe_series(find_series(tmp_path / "dicom").series, Pseudonyms(tmp_path / "private"))
    return nifti, path


@pytest.mark.parametrize("reader", ["stream", "nibabel"])
@pytest.mark.parametrize("length", [200, 6])
def test_the_same_frames_of_dicom_and_nifti(twins, reader, length):
    nifti, path = twins
    load = LoadFrames(48, length, reader=reader)
    truth, frames = load(nifti), load(path)
    assert torch.equal(truth.as_tensor(), frames.as_tensor())
    assert truth.meta["num_frames"] == frames.meta["num_frames"]
    assert frames.meta["intensity"] == "HU"
    assert frames.meta["hu_offset"] == 0


def test_a_volume_of_a_series_is_in_hu_and_in_its_place(twins):
    nifti, path = twins
    volume, truth = LoadVolume()(path), LoadVolume()(nifti)
    for corner in np.ndindex(2, 2, 2):
        index = np.array(corner) * (np.array(volume.shape[1:]) - 1)
        place = np.linalg.inv(truth.affine.numpy()) @ volume.affine.numpy() @ [*index, 1]
        own = tuple(np.rint(place[:3]).astype(int))
        assert float(truth[(0, *own)]) == float(volume[(0, *index)])


def test_a_folder_with_one_series_is_a_scan(tmp_path):
    write_series(tmp_path / "s")
    assert is_series(tmp_path / "s")
    assert open_scan(tmp_path / "s").shape == (36, 40, 12)
    assert LoadFrames(32, 8)(tmp_path / "s").shape == (1, 8, 32, 32)
    check_scan(tmp_path / "s")
    with pytest.raises(FileNotFoundError, match="no CT series in it"):
        check_scan(write_scan(tmp_path / "n" / "a.nii.gz").parent)


def test_one_file_of_a_series_is_no_scan(tmp_path):
    paths = write_series(tmp_path)
    with pytest.raises(ValueError, match="one file of a DICOM series; name the folder that holds the series"):
        open_scan(paths[0])


def test_a_nifti_file_goes_its_own_way(tmp_path):
    path = write_scan(tmp_path / "a.nii.gz")
    assert not is_series(path)
    np.testing.assert_array_equal(read_scan(path).values, read_volume(path).values)
    check_scan(path)
    check_scan_name(path)
    assert (scan_stem(path), scan_name(path, tmp_path)) == ("a", "a.nii.gz")
    assert known_offset(path, -1024.0) == -1024
    assert known_offset(path, None) is None


def test_dicom_says_its_own_units(twins):
    _, path = twins
    assert known_offset(path, None) == known_offset(path, 0.0) == 0
    with pytest.raises(ValueError, match="DICOM says itself what its values are in HU; leave out hu_offset -1024"):
        LoadFrames(32, 8)(path, hu_offset=-1024.0)


def test_names_of_a_series_are_made_names(twins):
    _, path = twins
    assert scan_name(path, "/elsewhere") == f"{path.parent.name}/{path.name}"
    assert scan_stem(path).startswith("series-")
    assert not is_synthetic(path)
    assert len(scan_digest(path)) == 64
    check_scan_name(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="run the command on the folder of DICOM files again"):
        check_scan_name(path)
