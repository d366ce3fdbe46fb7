"""Frames of a label map lie on those of its image, pixel for pixel, and go back to the same label map."""

import nibabel as nib
import numpy as np
import pytest

from monai_chd.labels import MYOCARDIUM, UNDRAWN
from monai_chd.transforms import LoadFramesd, LoadLabelFrames, LoadLabelFramesd

AFFINES = {
    "ImageCHD's": np.eye(4),
    "feet first": np.diag([-0.5, 0.5, -2.0, 1.0]),
    "sagittal": np.array([[0, 0, 2.0, 5], [0.5, 0, 0, 7], [0, 0.5, 0, -3], [0, 0, 0, 1]]),
}


def numbers(shape=(12, 10, 8), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 8, shape).astype(np.uint8)


def write_pair(folder, labels, affine=None, *, map_affine=None):
    """A label map, and an image that shows its numbers times 100 HU."""
    affine = np.eye(4) if affine is None else affine
    image, path = folder / "ct_1_image.nii.gz", folder / "ct_1_label.nii.gz"
    nib.save(nib.Nifti1Image(np.clip(np.rint(labels), 0, 9).astype(np.int16) * 100, affine), image)
    nib.save(nib.Nifti1Image(labels, affine if map_affine is None else map_affine), path)
    return {"image": str(image), "label": str(path), "hu_offset": 0}


def loaded(case, size, length):
    chain = LoadLabelFramesd("label", size, length), LoadFramesd("image", size, length, window=(0, 2550))
    return chain[1](chain[0](case))


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("length", [20, 5])
def test_each_pixel_has_the_number_that_its_image_shows(tmp_path, affine, length):
    found = loaded(write_pair(tmp_path, numbers(), affine), 12, length)
    labels, image = found["label"], found["image"]
    assert labels.shape == image.shape and labels.numpy().dtype == np.uint8
    shown = np.rint(image.numpy() / 10).astype(int)  # 100 HU are 10 of 255 grey values
    filled = image.numpy() > 0
    assert np.array_equal(labels.numpy()[filled], shown[filled]) and filled.mean() > 0.2
    np.testing.assert_allclose(labels.affine, image.affine)
    assert labels.meta["frame_indices"].tolist() == image.meta["frame_indices"].tolist()


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_frames_go_back_to_the_label_map(tmp_path, affine):
    case, step = write_pair(tmp_path, numbers((12, 12, 12)), affine), LoadLabelFrames(12, 20)
    assert np.array_equal(step.inverse(step(case["label"])).numpy()[0], numbers((12, 12, 12)))


def test_shrinking_and_enlarging_make_no_new_number(tmp_path):
    labels = np.where(numbers((40, 30, 4)) > 3, 7, 2).astype(np.uint8)
    labels[0, 0, 0] = MYOCARDIUM
    case = write_pair(tmp_path, labels)
    for size in (8, 100):
        step = LoadLabelFrames(size, 4)
        frames = step(case["label"])
        assert set(np.unique(frames)) <= {0, 2, MYOCARDIUM, 7}
        assert set(np.unique(step.inverse(frames))) <= {0, 2, MYOCARDIUM, 7}


def test_numbers_are_rounded_and_what_is_no_structure_is_nothing(tmp_path):
    labels = numbers().astype(np.float32)
    labels[0, :, 0], labels[1, :, 0], labels[2, :, 0] = 14, 8, -1
    case = write_pair(tmp_path, labels + 0.0003)
    frames = LoadLabelFrames(12, 8)(case["label"]).numpy()
    assert frames.max() == 7 and (frames == 0).sum() > 3 * 10


def test_where_nobody_drew_the_myocardium_what_is_not_another_structure_is_open(tmp_path):
    labels = numbers()
    labels[labels == MYOCARDIUM] = 0
    frames = LoadLabelFrames(12, 10)(write_pair(tmp_path, labels)["label"]).numpy()[0]
    assert not (frames[:8, 1:11] == 0).any() and (frames[:8] == UNDRAWN).any()
    assert not frames[8:].any(), "padding is no part of it"


@pytest.mark.parametrize(
    ("labels", "map_affine", "message"),
    [
        (numbers(), np.diag([1, 1, 1.5, 1]), r"lies elsewhere than .*image.*a corner is 3\.5 voxels away"),
        (numbers() * 0, None, "without any of the structures 1 to 7"),
    ],
)
def test_a_label_map_that_is_not_of_its_image_is_refused(tmp_path, labels, map_affine, message):
    case = write_pair(tmp_path, labels, map_affine=map_affine)
    with pytest.raises(ValueError, match=rf"ct_1_label\.nii\.gz.*{message}"):
        LoadLabelFramesd("label", 12, 8)(case)


def test_a_label_map_of_another_shape_names_both(tmp_path):
    case = write_pair(tmp_path, numbers())
    nib.save(nib.Nifti1Image(numbers((12, 10, 7)), np.eye(4)), case["label"])
    with pytest.raises(ValueError, match=r"shape \(12, 10, 7\) for .*image.nii.gz of shape \(12, 10, 8\)"):
        LoadLabelFramesd("label", 12, 8)(case)


def test_it_comes_before_the_image_is_frames(tmp_path):
    case = LoadFramesd("image", 12, 8)(write_pair(tmp_path, numbers()))
    with pytest.raises(ValueError, match="put it before LoadFramesd"):
        LoadLabelFramesd("label", 12, 8)(case)
