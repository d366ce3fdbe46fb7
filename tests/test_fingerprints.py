"""Copies of a scan are found whatever a copy usually loses, other patients are not, and a bad file ends nothing."""

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import zoom

from monai_chd import fingerprints
from monai_chd.fingerprints import (
    LENIENT,
    ORIENTATIONS,
    STRICT,
    compare_all,
    describe_orientation,
    scan_file,
    scan_files,
    score_limit,
)
from monai_chd.phantom import make_volume

SIZE, SLICES = 64, (36, 44)
PATIENTS = 4
LIMIT = 0.966
"""What `score_limit` gives for realistic phantoms."""


@pytest.fixture(scope="module")
def volumes():
    """Realistic phantoms, HU + 1024, float32."""
    lesions = [["ToF"], ["VSD"], [], ["TGA"]]
    made = [
        make_volume(lesions[k], seed=(11, k), size=SIZE, slices=SLICES, difficulty="realistic") for k in range(PATIENTS)
    ]
    return [image.astype(np.float32) for image, _, _ in made]


def scanned(values, folder, affine=None, name="scan"):
    path = folder / f"{name}.nii.gz"
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    scan = scan_file((path, None))
    assert scan.problem == ""
    return scan


def score(left, right):
    (found,), _ = compare_all([left, right], [(0, 1)], processes=1, progress=False)
    return found


def cropped(values, *cuts):
    return values[tuple(slice(low, n - high) for n, (low, high) in zip(values.shape, cuts, strict=True))]


COPIES = {
    "mirrored": lambda v: v[::-1],
    "upside down": lambda v: v[:, :, ::-1],
    "turned": lambda v: v[::-1, ::-1],
    "axes exchanged": lambda v: v.transpose(2, 0, 1),
    "in HU": lambda v: v - 1024,
    "scaled": lambda v: v * 0.25 + 7,
    "8 bit window": lambda v: np.rint(np.clip((v - 824) / 1000, 0, 1) * 255).astype(np.uint8),
    "resampled": lambda v: zoom(v, (0.75, 0.75, 0.75), order=1),
    "finer in plane": lambda v: zoom(v, (1.4, 1.4, 1), order=1),
    "cropped": lambda v: cropped(v, (3, 3), (3, 3), (2, 2)),
    "padded": lambda v: np.pad(v, ((9, 5), (0, 8), (3, 0)), constant_values=0),
    "noisy": lambda v: v + np.random.default_rng(0).normal(0, 40, v.shape),
}


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_is_above_the_limit(change, volumes, tmp_path):
    copy = np.asarray(COPIES[change](volumes[0]))
    copy = copy if copy.dtype == np.uint8 else copy.astype(np.float32)
    found = score(scanned(volumes[0], tmp_path), scanned(copy, tmp_path, name="copy"))
    assert found.score is not None
    assert found.score > LIMIT


def test_different_patients_are_below_the_limit_in_any_orientation(volumes, tmp_path):
    scans = [scanned(volume, tmp_path) for volume in volumes]
    scans.append(scanned(volumes[0][::-1].transpose(1, 0, 2), tmp_path))
    pairs = [(a, b) for a, b in itertools.combinations(range(len(scans)), 2) if (a, b) != (0, PATIENTS)]
    found, sample = compare_all(scans, pairs, processes=1, progress=False)
    assert [(one.first, one.second) for one in found] == sorted(pairs, key=lambda pair: (pair[1], pair[0]))
    assert max(sample) < LIMIT


def test_a_copy_in_another_orientation_with_the_right_affine_lies_as_is(volumes, tmp_path):
    original = nib.Nifti1Image(volumes[0], np.diag([0.7, 0.7, 2.0, 1.0]))
    turned = original.as_reoriented(nib.orientations.axcodes2ornt("SPL"))
    assert turned.shape != original.shape
    left = scanned(np.asarray(original.dataobj), tmp_path, original.affine)
    right = scanned(np.asarray(turned.dataobj), tmp_path, turned.affine, "turned")
    np.testing.assert_allclose(left.cells, right.cells, atol=0.02)  # every second voxel is asked for the ranks
    assert score(left, right).orientation == "as is"


@pytest.mark.parametrize(
    ("axis", "words"), [(0, "mirrored left-right"), (1, "mirrored back-front"), (2, "mirrored feet-head")]
)
def test_a_mirrored_copy_names_its_axis(axis, words, volumes, tmp_path):
    found = score(scanned(volumes[1], tmp_path), scanned(np.flip(volumes[1], axis), tmp_path, name="copy"))
    assert found.orientation == words


def test_orientations_are_all_48_ways_to_lay_a_box():
    values = np.arange(27).reshape(3, 3, 3)
    laid = {fingerprints._oriented(values, which).tobytes() for which in range(len(ORIENTATIONS))}
    assert len(laid) == 48
    assert describe_orientation(0) == "as is"


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
    assert score(scanned(cine, tmp_path), scanned(volumes[0], tmp_path, name="still")).score > 0.99
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


@pytest.mark.parametrize(
    ("sample", "limit"),
    [([0.1] * 20, STRICT), ([0.1] * 200, LENIENT), ([0.95] * 200, STRICT), ([0.776] * 200, LIMIT)],
    ids=["few pairs", "unlike patients", "patients all alike", "realistic phantoms"],
)
def test_the_limit_follows_how_alike_patients_are(sample, limit):
    assert score_limit(sample) == pytest.approx(limit, abs=1e-3)
