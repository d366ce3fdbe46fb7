"""Histograms are numpy's own of the voxels by hand; volumes, centroids and contacts are those of boxes drawn by hand."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_chd.crossval.control_words import TITLES
from monai_chd.crossval.image_features import BINS, PAIRS, STRUCTURE_FEATURES, intensity_histogram, structure_features


def save(path: Path, values: np.ndarray, spacing=(1.0, 1.0, 1.0), flip=()) -> Path:
    """A NIfTI file of these voxels along right, front, head, stored mirrored along `flip`."""
    affine = np.diag([*spacing, 1.0])
    for axis in flip:
        values = np.flip(values, axis)
        affine[axis, axis] *= -1
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def boxes() -> np.ndarray:
    """Structure 1 of 2 x 2 x 2 voxels, structure 2 of 1 x 2 x 2 at its right side, 3 apart; a stray label."""
    labels = np.zeros((12, 8, 8), dtype=np.uint8)
    labels[2:4, 2:4, 2:4] = 1
    labels[4:5, 2:4, 2:4] = 2
    labels[8, 6, 6] = 3
    labels[0, 0, 0] = 14
    return labels


def test_a_histogram_is_the_share_of_voxels_in_each_bin(tmp_path):
    values = np.random.default_rng(0).integers(-500, 1500, (9, 8, 7)).astype(np.int16)
    found = intensity_histogram(save(tmp_path / "a.nii.gz", values), (-200, 900), hu_offset=0.0)
    width = 1100 / BINS
    expected = np.zeros(BINS)
    for value in values.ravel():
        expected[min(max(int((value + 200) // width), 0), BINS - 1)] += 1 / values.size
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_histogram_is_of_hu(tmp_path):
    values = np.random.default_rng(1).integers(0, 2000, (6, 6, 6)).astype(np.int16)
    raw = intensity_histogram(save(tmp_path / "raw.nii.gz", values), (-200, 900), hu_offset=-1024.0)
    hu = intensity_histogram(save(tmp_path / "hu.nii.gz", values - 1024), (-200, 900), hu_offset=0.0)
    np.testing.assert_array_equal(raw, hu)


def test_volumes_are_in_millilitres(tmp_path):
    found = structure_features(save(tmp_path / "l.nii.gz", boxes(), (2.0, 3.0, 5.0)))
    assert found.shape == (STRUCTURE_FEATURES,) == (49,)
    np.testing.assert_allclose(np.expm1(found[:7]), [8 * 0.03, 4 * 0.03, 0.03, 0, 0, 0, 0], atol=1e-12)


def test_centroids_are_in_millimetres_from_that_of_all(tmp_path):
    found = structure_features(save(tmp_path / "l.nii.gz", boxes(), (2.0, 3.0, 5.0)))[7:28].reshape(7, 3)
    at = np.argwhere(np.isin(boxes(), (1, 2, 3))).mean(axis=0)
    for label in (1, 2, 3):
        expected = (np.argwhere(boxes() == label).mean(axis=0) - at) * (2, 3, 5)
        np.testing.assert_allclose(found[label - 1], expected, atol=1e-9)
    np.testing.assert_array_equal(found[3:], 0)


def test_contacts_are_the_faces_that_two_structures_share(tmp_path):
    areas = np.expm1(structure_features(save(tmp_path / "l.nii.gz", boxes(), (2.0, 3.0, 5.0)))[28:]) * 100
    expected = dict.fromkeys(PAIRS, 0.0) | {(1, 2): 4 * 15.0}  # four faces of 3 x 5 mm
    np.testing.assert_allclose(areas, list(expected.values()), atol=1e-9)


@pytest.mark.parametrize("flip", [(0,), (1, 2), (0, 1, 2)])
def test_how_a_file_is_stored_does_not_matter(tmp_path, flip):
    straight = structure_features(save(tmp_path / "a.nii.gz", boxes(), (2.0, 3.0, 5.0)))
    turned = structure_features(save(tmp_path / "b.nii.gz", boxes(), (2.0, 3.0, 5.0), flip))
    np.testing.assert_allclose(straight, turned, atol=1e-9)


def test_labels_that_rounding_left_as_floats_are_the_integers(tmp_path):
    floats = boxes().astype(np.float32) * np.float32(1 - 1e-6)
    whole = structure_features(save(tmp_path / "a.nii.gz", boxes()))
    np.testing.assert_array_equal(structure_features(save(tmp_path / "b.nii.gz", floats)), whole)


def test_an_empty_label_map_is_refused(tmp_path):
    with pytest.raises(ValueError, match="without any of the structures 1 to 7"):
        structure_features(save(tmp_path / "l.nii.gz", np.zeros((4, 4, 4), np.uint8)))


def test_the_report_names_as_many_numbers_as_there_are():
    assert f"{BINS} bins" in TITLES["intensity"][1] and f"{STRUCTURE_FEATURES} numbers" in TITLES["structures"][1]
