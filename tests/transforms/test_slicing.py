"""Frames lie as a radiologist expects them, whatever the storage order, and a cine gives one stored slice over time."""

import nibabel as nib
import numpy as np
import pytest
import torch
from real_scans import real_scan
from tiny_volumes import (
    LANDMARKS,
    ORIENTATIONS,
    RAS,
    SHAPE,
    cine_volume,
    landmark_volume,
    orient,
    random_ct,
    save,
    to_frames,
    turned,
    world,
)

from monai_chd.transforms import LoadVolume, SliceToFrame

pytestmark = pytest.mark.usefixtures("itk_loaded")


def expected_position(ras):
    """Frame, row and column of a RAS voxel: feet to head, front on top, the patient's right at the left."""
    x, y, z = ras
    return z, SHAPE[1] - 1 - y, SHAPE[0] - 1 - x


def test_landmarks_lie_where_a_radiologist_expects_them():
    """The expectation of the other tests, said in words."""
    t, h, w = zip(*(expected_position(position) for position, _ in LANDMARKS.values()), strict=True)
    right, front, head = 0, 1, 2
    assert w[right] < SHAPE[0] / 2 < w[right] + SHAPE[0] / 2 and h[front] < h[head] and t[head] > t[front]


@pytest.mark.parametrize("reader", ["nibabel", "itk"])
@pytest.mark.parametrize("affine", [RAS, turned(10, -20, 15)], ids=["straight", "oblique"])
def test_all_48_storage_orders_give_the_same_upright_frames_in_the_same_place(tmp_path, reader, affine):
    transform = to_frames(reader=reader)
    assert len(ORIENTATIONS) == 48
    for number, orientation in enumerate(ORIENTATIONS):
        path = save(tmp_path / f"{number}.nii", landmark_volume(), affine, orientation)
        frames = transform({"image": path})["image"]
        assert frames.shape == (1, SHAPE[2], SHAPE[1], SHAPE[0])
        for position, value in LANDMARKS.values():
            found = [tuple(place) for place in np.argwhere(frames[0].numpy() == value)]
            assert found == [expected_position(position)]
            np.testing.assert_allclose(world(frames.affine, found[0]), world(affine, position), atol=1e-4)


def test_frames_run_feet_to_head_front_on_top_right_at_the_left(tmp_path):
    """The same law as direction of the affine's columns, for a turned volume in any order."""
    for orientation in ORIENTATIONS[::5]:
        path = save(tmp_path / "ct.nii", landmark_volume(), turned(12, 8, -25), orientation)
        affine = to_frames()({"image": path})["image"].affine.numpy()
        assert affine[2, 0] > 0 and affine[1, 1] < 0 and affine[0, 2] < 0


def test_slice_to_frame_refuses_volumes_in_another_orientation(tmp_path):
    volume = LoadVolume(hu_offset=0)(save(tmp_path / "ct.nii", landmark_volume()))
    with pytest.raises(ValueError, match="expected orientation LPS, got RAS; put Orientationd"):
        SliceToFrame()(volume)


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 2, 3, 4, 5)])
def test_slice_to_frame_refuses_what_is_no_volume(shape):
    with pytest.raises(ValueError, match="expected a volume of shape"):
        SliceToFrame()(torch.zeros(shape))


@pytest.mark.parametrize("chosen", [None, 0, 2])
def test_cine_gives_one_stored_slice_over_time_upright_in_all_storage_orders(tmp_path, chosen):
    values = cine_volume()
    for number, orientation in enumerate(ORIENTATIONS):
        stored = nib.Nifti1Image(values, RAS).as_reoriented(orientation)
        path = str(tmp_path / f"{number}.nii")
        stored.to_filename(path)
        frames = to_frames(None, cine_slice=chosen)({"image": path})["image"]
        # the stored slice, by hand: axis and index in RAS
        axis, flip = nib.io_orientation(stored.affine)[2].astype(int)
        size = SHAPE[axis]
        if chosen is None:
            ras = size // 2
        else:
            ras = chosen if flip == 1 else size - 1 - chosen
            in_file = np.asarray(stored.dataobj)[:, :, chosen, 1]
            assert set(frames[0, 1].numpy().ravel()) == set(in_file.ravel())
        plane = np.take(values, ras, axis)  # two of X, Y, Z; T
        # axial: front on top, right at the left; coronal: head on top; sagittal: head on top, front at the left
        np.testing.assert_array_equal(frames[0].numpy(), plane[::-1, ::-1].transpose(2, 1, 0))
        for h, w in ((0, 0), (3, 5)):
            value = frames[0, 0, h, w].item()
            place = (value // 169, value % 169 // 13, value % 13)
            np.testing.assert_allclose(world(frames.affine, (0, h, w)), world(RAS, place), atol=1e-4)


def test_cine_of_an_even_number_of_slices_takes_the_later_middle_one_in_space(tmp_path):
    values = cine_volume()[:, :, :12]
    frames = to_frames(None)({"image": save(tmp_path / "cine.nii", values)})["image"]
    assert set((frames[0, 0].numpy() % 13).ravel()) == {6}


def test_cine_slice_of_the_case_goes_before_the_constructor_and_is_used_up(tmp_path):
    path = save(tmp_path / "cine.nii", cine_volume())
    for own, used in ((None, 3), (0, 0), (12, 12)):
        result = to_frames(None, cine_slice=3)({"image": path, "cine_slice": own})
        assert set((result["image"][0, 0].numpy() % 13).ravel()) == {used}
        assert "cine_slice" not in result


@pytest.mark.parametrize("index", [13, 99])
def test_cine_slice_out_of_range_is_refused_with_the_range(tmp_path, index):
    volume = orient()({"image": LoadVolume()(save(tmp_path / "cine.nii", cine_volume()))})["image"]
    with pytest.raises(ValueError, match=f"cine_slice: expected 0 to 12 for this cine of 13 slices, got {index}"):
        SliceToFrame(index)(volume)
    with pytest.raises(ValueError, match="cine_slice: expected 0 to 12"):
        SliceToFrame(3)(volume, index)


@pytest.mark.parametrize("index", [-1, 1.5, True, "2"])
def test_cine_slice_that_is_no_index_is_refused_at_once(index):
    with pytest.raises(ValueError, match="cine_slice: expected a whole number of 0 or more"):
        SliceToFrame(index)


def test_cine_of_a_plain_tensor_takes_axial_slices():
    cine = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    frames = SliceToFrame(1)(cine)
    assert torch.equal(frames.as_tensor(), cine[:, :, :, 1].permute(0, 2, 1)[None])


def test_cine_slice_does_not_touch_3d(tmp_path):
    path = save(tmp_path / "ct.nii", landmark_volume())
    assert torch.equal(to_frames(cine_slice=99)({"image": path})["image"], to_frames()({"image": path})["image"])


def test_real_cine_keeps_its_time_order():
    path = real_scan("mr_heart_cine_256x256x1x16.nii.gz")
    stored = nib.load(path)
    frames = to_frames(None)({"image": path})["image"]
    assert frames.shape[:2] == (1, 16) and frames.meta["intensity"] == "arbitrary"
    for t in range(16):
        np.testing.assert_array_equal(
            np.sort(frames[0, t].numpy(), axis=None), np.sort(np.asarray(stored.dataobj[..., t]), axis=None)
        )


def test_one_time_point_is_a_volume_not_a_cine(tmp_path):
    values = random_ct((*SHAPE, 1))
    frames = to_frames(None)({"image": save(tmp_path / "one.nii", values)})["image"]
    assert frames.shape[1] == SHAPE[2] and frames.meta["intensity"] == "HU"
