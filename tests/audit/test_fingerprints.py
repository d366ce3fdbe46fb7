"""A scan becomes the same fingerprint however its values are stored, and a bad file is named and ends nothing."""

import functools
import gzip

import nibabel as nib
import numpy as np
import pytest
from blas_threads import most_threads, threads_beside
from phantom_scans import likeness, phantom_volumes, scanned
from threadpoolctl import threadpool_limits

from monai_chd.audit.fingerprints import scan_file, scan_files
from monai_chd.processes import mapped


@pytest.fixture(scope="module")
def volumes():
    return phantom_volumes()


def test_a_copy_in_another_orientation_with_the_right_affine_lies_as_is(volumes, tmp_path):
    original = nib.Nifti1Image(volumes[0], np.diag([0.7, 0.7, 2.0, 1.0]))
    turned = original.as_reoriented(nib.orientations.axcodes2ornt("SPL"))
    assert turned.shape != original.shape
    left = scanned(np.asarray(original.dataobj), tmp_path, original.affine)
    right = scanned(np.asarray(turned.dataobj), tmp_path, turned.affine, "turned")
    np.testing.assert_allclose(left.cells, right.cells, atol=0.02)  # every second voxel is asked for the ranks
    assert likeness(left, right).orientation == "as is"


def test_the_scale_of_stored_values_does_not_matter(volumes, tmp_path):
    plain = scanned(volumes[0].astype(np.int16), tmp_path).cells
    image = nib.Nifti1Image((4095 - volumes[0]).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(-1.0, 4095.0)
    nib.save(image, tmp_path / "negative.nii.gz")
    np.testing.assert_allclose(scan_file((tmp_path / "negative.nii.gz", None)).cells, plain, atol=2e-3)


def test_shape_spacing_and_brightness_are_the_files(tmp_path):
    values = np.full((20, 24, 8), -1000, np.int16)
    values[:12] = 40
    values[:6] = 400
    image = nib.Nifti1Image(
        values.transpose(2, 0, 1), np.array([[0, 0.5, 0, 0], [0, 0, 0.6, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    )
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "a.nii.gz")
    scan = scan_file((tmp_path / "a.nii.gz", 0.0))
    assert scan.shape == (20, 24, 8)
    assert scan.spacing_mm == pytest.approx((0.5, 0.6, 3.0))
    assert scan.bright == pytest.approx(0.5)
    image.header.set_xyzt_units("unknown")
    nib.save(image, tmp_path / "b.nii.gz")
    assert scan_file((tmp_path / "b.nii.gz", 0.0)).spacing_mm is None


def test_a_cine_and_a_single_slice_have_fingerprints(volumes, tmp_path):
    cine = np.stack([volumes[0], volumes[0] + 5], axis=3)
    assert likeness(scanned(cine, tmp_path), scanned(volumes[0], tmp_path, name="still")).score > 0.99
    assert scanned(volumes[0][:, :, 20], tmp_path, name="slice").cells is not None


def test_a_constant_volume_has_nothing_to_compare(tmp_path):
    assert scanned(np.zeros((12, 12, 12), np.int16), tmp_path).cells is None


def bad_files(folder, values):
    whole = nib.Nifti1Image(values.astype(np.int16), np.eye(4))
    nib.save(whole, folder / "whole.nii.gz")
    data = (folder / "whole.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(data[: len(data) // 2])
    (folder / "empty.nii.gz").write_bytes(b"")
    (folder / "noise.nii.gz").write_bytes(gzip.compress(b"no NIfTI at all" * 100))
    broken = np.eye(4)
    broken[0, 0] = np.nan
    whole.header.set_sform(broken, 1)
    whole.header.set_qform(None, 0)
    whole.header["vox_offset"] = 352
    (folder / "affine.nii").write_bytes(whole.header.binaryblock + bytes(4) + whole.dataobj.tobytes(order="F"))
    nan = values.copy()
    nan[:8] = np.nan
    nib.save(nib.Nifti1Image(nan, np.eye(4)), folder / "nan.nii.gz")
    return ["cut.nii.gz", "empty.nii.gz", "noise.nii.gz", "affine.nii", "nan.nii.gz", "missing.nii.gz"]


def test_a_file_that_cannot_be_read_is_named_and_the_rest_goes_on(volumes, tmp_path):
    names = bad_files(tmp_path, volumes[0])
    scans = scan_files([(tmp_path / name, None) for name in [*names, "whole.nii.gz"]], processes=1, progress=False)
    for name, scan in zip(names, scans[:-1], strict=True):
        assert name in scan.problem
        assert scan.cells is None
    assert scans[-1].problem == ""


def test_two_processes_find_what_one_does(volumes, tmp_path):
    jobs = []
    for number, volume in enumerate(volumes[:2]):
        nib.save(nib.Nifti1Image(volume.astype(np.int16), np.eye(4)), tmp_path / f"{number}.nii.gz")
        jobs.append((tmp_path / f"{number}.nii.gz", None))
    one, two = (scan_files(jobs, processes=n, progress=False) for n in (1, 2))
    for left, right in zip(one, two, strict=True):
        assert left.sha256 == right.sha256
        np.testing.assert_array_equal(left.cells, right.cells)


@pytest.mark.parametrize("processes", [1, 2])
def test_linear_algebra_has_one_thread_in_each_process(processes):
    """With more, small products take ten times as long on busy cores."""
    with threadpool_limits(2):
        assert list(mapped(functools.partial(threads_beside, scan_file), [0, 1], processes, "")) == [1, 1]
        assert most_threads() == 2
