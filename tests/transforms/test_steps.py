import itertools
import math
import pickle
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, Orientationd, Resized
from scipy import ndimage
from scipy.spatial.transform import Rotation

from monai_chd.nifti import read_volume
from monai_chd.transforms import (
    LoadVolume,
    LoadVolumed,
    PadFrames,
    PadFramesd,
    QuantizeFrames,
    QuantizeFramesd,
    ResizeFrames,
    ResizeFramesd,
    SliceToFrame,
    SliceToFramed,
    WindowHU,
    WindowHUd,
)

HERE = Path(__file__).parents[1]
SHARED = HERE.parents[1] / "shared" / "data"
REAL = ("ts_cardiac_ct_b.nii.gz", "ts_abdomen_ct_small.nii.gz", "mr_heart_cine_256x256x1x16.nii.gz")

# RAS: the first axis runs to the patient's right, the second to the front, the third to the head
SHAPE = (9, 11, 13)
RAS = np.array([[0.7, 0, 0, -10], [0, 0.8, 0, 5], [0, 0, 1.5, 33], [0, 0, 0, 1]])
LANDMARKS = {
    "right": ((7, 5, 6), 300),
    "anterior": ((4, 9, 6), 400),
    "head": ((4, 5, 11), 500),
    "corner": ((1, 2, 3), 600),
}
ORIENTATIONS = [
    np.array([*zip(axes, flips, strict=True)])
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


@pytest.fixture(scope="module", autouse=True)
def itk_loaded():
    """ITK's extension modules warn while they load; a warning that is an error there kills Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_volume(HERE / "data" / "ts_cardiac_ct_b.nii.gz", "itk")


one_core = pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
"""PyTorch's advice on a machine of one core, where workers are slow but right."""


def real_scan(name):
    """A scan of the repository, else of the shared folder, else skip."""
    for folder in (HERE / "data", SHARED):
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f"real scan {name}: {SHARED} is not there")


def turned(*degrees):
    """RAS, turned about all axes."""
    affine = RAS.copy()
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ RAS[:3, :3]
    return affine


def save(path, values, affine=RAS, orientation=None):
    header = nib.Nifti1Header()
    header.set_data_dtype(values.dtype)
    image = nib.Nifti1Image(values, affine, header)
    (image if orientation is None else image.as_reoriented(orientation)).to_filename(path)
    return str(path)


def orient():
    return Orientationd("image", axcodes="LPS", labels=[["L", "R"], ["P", "A"], ["I", "S"]])


def to_frames(hu_offset=0.0, reader="nibabel", cine_slice=None):
    return Compose([LoadVolumed("image", reader, hu_offset), orient(), SliceToFramed("image", cine_slice)])


def chain(frame_size=16, sequence_length=8, sampling="even", hu_offset=None, cine_slice=None, keys="image"):
    return Compose(
        [
            LoadVolumed(keys, hu_offset=hu_offset),
            Orientationd(keys, axcodes="LPS", labels=[["L", "R"], ["P", "A"], ["I", "S"]]),
            SliceToFramed(keys, cine_slice),
            WindowHUd(keys),
            ResizeFramesd(keys, frame_size),
            QuantizeFramesd(keys),
            PadFramesd(keys, sequence_length, sampling),
        ]
    )


def landmark_volume():
    volume = np.zeros(SHAPE, dtype=np.int16)
    for position, value in LANDMARKS.values():
        volume[position] = value
    return volume


def world(affine, position):
    return (np.asarray(affine) @ [*position, 1])[:3]


def random_ct(shape, seed=0):
    """HU with air, so that the offset is found."""
    return np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)


def frames_of(*shape, affine=None, seed=0):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(values, affine=torch.as_tensor(RAS if affine is None else affine))


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
            result = chain(frame_size, sequence_length)({"image": path})["image"]
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


def test_first_sampling_keeps_the_place_exactly(tmp_path):
    path = save(tmp_path / "ct.nii", landmark_volume())
    frames = to_frames()({"image": path})["image"]
    padded = PadFrames(5, "first")(frames)
    np.testing.assert_array_equal(padded.affine, frames.affine)


def test_slice_to_frame_refuses_volumes_in_another_orientation(tmp_path):
    volume = LoadVolume(hu_offset=0)(save(tmp_path / "ct.nii", landmark_volume()))
    with pytest.raises(ValueError, match="expected orientation LPS, got RAS; put Orientationd"):
        SliceToFrame()(volume)


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 2, 3, 4, 5)])
def test_slice_to_frame_refuses_what_is_no_volume(shape):
    with pytest.raises(ValueError, match="expected a volume of shape"):
        SliceToFrame()(torch.zeros(shape))


def cine_volume(times=4):
    """Every voxel tells its time and place: 2000 t + landmark; landmarks in every slice along every axis."""
    x, y, z = np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij")
    return np.stack([2000 * t + 169 * x + 13 * y + z for t in range(times)], -1).astype(np.int16)


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


@pytest.mark.parametrize("window", [(-200, 900), (-1000.0, 400.0), [0, 0.5]])
def test_window_equals_the_formula(window):
    values = torch.linspace(-2000, 3000, 1001).reshape(1, 7, 11, 13)
    lower, upper = window
    expected = np.clip((values.double().numpy() - lower) / (upper - lower), 0, 1)
    for transform in (WindowHU(window), lambda frames: WindowHUd("image", window)({"image": frames})["image"]):
        for image in (values, values.to(torch.float64), MetaTensor(values)):
            result = transform(image)
            assert result.dtype == torch.float32
            np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)


def test_default_window_is_minus_200_to_900():
    np.testing.assert_allclose(WindowHU()(torch.tensor([-300.0, -200, 350, 900, 1000])), [0, 0, 0.5, 1, 1])


@pytest.mark.parametrize(
    "window", [(900, -200), (5, 5), (1,), (1, 2, 3), (math.nan, 1), (0, math.nan), (-math.inf, 900), (0, math.inf)]
)
def test_window_that_is_none_is_refused(window):
    with pytest.raises(ValueError, match=r"window: expected \[lower, upper\] in HU with lower < upper, got"):
        WindowHU(window)


def test_cine_in_its_own_units_is_scaled_between_its_percentiles(tmp_path):
    values = np.random.default_rng(3).normal(500, 100, (12, 10, 3, 5)).astype(np.float32)
    frames = to_frames(None)({"image": save(tmp_path / "cine.nii", values)})["image"]
    assert frames.meta["intensity"] == "arbitrary" and math.isnan(frames.meta["hu_offset"])
    low, high = np.percentile(values[:, :, 1], (1, 99))
    expected = np.clip((frames.numpy() - low) / (high - low), 0, 1)
    np.testing.assert_allclose(WindowHU()(frames).numpy(), expected, atol=1e-5)


def test_cine_with_a_known_offset_is_windowed_as_hu(tmp_path):
    path = save(tmp_path / "cine.nii", np.full((3, 3, 3, 2), 1374, dtype=np.int16))
    frames = to_frames(-1024)({"image": path})["image"]
    assert frames.meta["intensity"] == "HU"
    np.testing.assert_allclose(WindowHU()(frames), 0.5)


def test_constant_cine_is_black_not_nan(tmp_path):
    path = save(tmp_path / "cine.nii", np.full((3, 3, 3, 2), 7, dtype=np.int16))
    assert torch.equal(WindowHU()(to_frames(None)({"image": path})["image"]).as_tensor(), torch.zeros(1, 2, 3, 3))


@pytest.mark.parametrize(("source", "size"), [(32, 16), (33, 16), (48, 17), (64, 8)])
def test_shrinking_square_frames_equals_monai_area_mode(source, size):
    frames = frames_of(2, 3, source, source)
    expected = Resized("image", (3, size, size), mode="area")({"image": frames})["image"]
    np.testing.assert_allclose(ResizeFrames(size)(frames).numpy(), expected.numpy(), atol=1e-6)


def test_shrinking_by_a_whole_factor_averages_blocks():
    frames = frames_of(1, 2, 32, 32)
    blocks = frames.as_tensor().reshape(1, 2, 8, 4, 8, 4).mean((3, 5))
    np.testing.assert_allclose(ResizeFrames(8)(frames).numpy(), blocks.numpy(), atol=1e-6)


def test_enlarging_is_bilinear():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8).contiguous()
    row = ResizeFrames(16)(ramp)[0, 0, 5].as_tensor()
    expected = ((torch.arange(16) + 0.5) / 2 - 0.5).clamp(0, 7)
    np.testing.assert_allclose(row, expected, atol=1e-5)


def test_same_size_is_the_identity():
    frames = frames_of(1, 3, 16, 16)
    resized = ResizeFrames(16)(frames)
    assert torch.equal(resized.as_tensor(), frames.as_tensor())
    np.testing.assert_array_equal(resized.affine, frames.affine)


@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (300, 200), (100, 100)])
@pytest.mark.parametrize("size", [40, 128])
def test_circle_stays_a_circle(shape, size):
    h, w = np.indices(shape)
    radius = 24
    disc = torch.from_numpy(((h - shape[0] / 2) ** 2 + (w - shape[1] / 2) ** 2 < radius**2).astype(np.float32))
    resized = ResizeFrames(size)(disc[None, None])[0, 0].numpy()
    rows, columns = (np.flatnonzero(resized.max(axis) > 0.5) for axis in (1, 0))
    scale = size / max(shape)
    assert abs(len(rows) - len(columns)) <= 1 and abs(len(rows) - 2 * radius * scale) <= 2
    assert resized.shape == (size, size)
    np.testing.assert_allclose(resized.sum(), disc.sum() * scale**2, rtol=0.02)


@pytest.mark.parametrize(("shape", "box"), [((10, 20), (4, 8)), ((20, 10), (8, 4)), ((5, 40), (1, 8))])
def test_shorter_side_is_padded_with_zeros_in_the_middle(shape, box):
    resized = ResizeFrames(8)(torch.ones(1, 2, *shape))
    top, left = (8 - box[0]) // 2, (8 - box[1]) // 2
    expected = torch.zeros(8, 8)
    expected[top : top + box[0], left : left + box[1]] = 1
    np.testing.assert_allclose(resized.as_tensor(), expected.expand(1, 2, 8, 8), atol=1e-6)


def test_frames_are_never_mixed():
    frames = frames_of(1, 6, 20, 30)
    together = ResizeFrames(16)(frames)
    for t in range(6):
        np.testing.assert_allclose(
            together[:, t].numpy(), ResizeFrames(16)(frames[:, t : t + 1])[:, 0].numpy(), atol=1e-6
        )


@pytest.mark.parametrize("shape", [(24, 24), (24, 36), (36, 24), (20, 31)])
@pytest.mark.parametrize("size", [12, 16, 48, 72, 100])
def test_landmark_keeps_its_world_place_when_resized(shape, size):
    affine = turned(20, -5, 30)
    h, w = np.indices(shape)
    blob = np.exp(-(((h - 9.3) ** 2 + (w - 13.6) ** 2) / (2 * 2.5**2))).astype(np.float32)
    frames = MetaTensor(torch.from_numpy(blob)[None, None], affine=torch.as_tensor(affine))
    resized = ResizeFrames(size)(frames)
    before, after = (
        world(image.affine, (0, *ndimage.center_of_mass(image[0, 0].numpy()))) for image in (frames, resized)
    )
    pixel = 0.8 * max(1, max(shape) / size)
    np.testing.assert_allclose(after, before, atol=0.15 * pixel)


@pytest.mark.parametrize("size", [0, -1, 7, 1.5, 512.0, True, "512", None])
def test_frame_size_that_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match="frame_size: expected a whole number of 8 or more, got"):
        ResizeFrames(size)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (16, 16), (9, 50), (80, 90)])
def test_resized_frames_go_back_to_their_shape_and_place(shape):
    affine = turned(3, 4, 5)
    smooth = torch.linspace(0, 1, shape[0])[:, None] * torch.linspace(0, 1, shape[1])
    frames = MetaTensor(smooth.expand(1, 3, *shape).contiguous(), affine=torch.as_tensor(affine))
    step = ResizeFrames(60)
    back = step.inverse(step(frames))
    assert back.shape == frames.shape and back.dtype == torch.float32 and back.applied_operations == []
    np.testing.assert_allclose(back.affine, affine)
    np.testing.assert_allclose(back.numpy(), frames.numpy(), atol=0.1)


def test_quantising_rounds_to_the_nearest_of_256_steps():
    values = torch.linspace(0, 1, 5001).reshape(1, 1, 1, -1)
    quantised = QuantizeFrames()(values)
    assert quantised.dtype == torch.uint8 and (quantised.min(), quantised.max()) == (0, 255)
    exact = values.double().numpy() * 255
    assert np.abs(quantised.numpy() - exact).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(QuantizeFrames()(torch.arange(256) / 255).numpy(), np.arange(256))


def test_quantised_frames_go_back_within_half_a_step():
    frames = frames_of(1, 3, 8, 8)
    step = QuantizeFrames()
    back = step.inverse(step(frames))
    assert back.dtype == torch.float32 and (back - frames).abs().max() <= 0.5 / 255 + 1e-6


def test_map_made_after_quantising_goes_back_unscaled():
    step = QuantizeFrames()
    frames = step(frames_of(1, 2, 8, 8))
    heat = MetaTensor(torch.full((1, 2, 8, 8), 3.5), meta=frames.meta, applied_operations=frames.applied_operations)
    assert torch.equal(step.inverse(heat).as_tensor(), heat.as_tensor())


@pytest.mark.parametrize("total", [1, 3, 7])
@pytest.mark.parametrize("sampling", ["even", "first"])
def test_short_sequence_is_padded_with_zeros_at_the_end(total, sampling):
    frames = frames_of(1, total, 4, 5)
    padded = PadFrames(7, sampling)(frames)
    assert padded.shape == (1, 7, 4, 5)
    assert torch.equal(padded[:, :total].as_tensor(), frames.as_tensor()) and not padded[:, total:].any()
    assert padded.meta["num_frames"] == total
    assert padded.meta["frame_indices"].tolist() == [*range(total)] + [-1] * (7 - total)
    assert padded.meta["frame_indices"].dtype == torch.int64
    np.testing.assert_array_equal(padded.affine, frames.affine)


def test_even_sampling_takes_first_and_last_and_nearly_equal_steps():
    for length in (2, 3, 8, 50, 199, 200):
        for total in {length, length + 1, length + 2, 2 * length - 1, 2 * length, 2 * length + 1, 3 * length, 613, 622}:
            kept = PadFrames(length).frame_indices(total).numpy()
            if total <= length:
                np.testing.assert_array_equal(kept, np.arange(total))
                continue
            assert len(kept) == length and kept[0] == 0 and kept[-1] == total - 1
            gaps = np.diff(kept)
            assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


def test_even_sampling_never_repeats_a_frame_for_any_length():
    step = PadFrames(200)
    for total in range(201, 1000):
        assert len(set(step.frame_indices(total).tolist())) == 200


def test_sampling_to_a_single_frame_is_possible():
    assert PadFrames(1)(frames_of(1, 5, 4, 4)).meta["frame_indices"].tolist() == [0]


def test_even_sampling_carries_the_frames_it_names():
    frames = frames_of(1, 622, 4, 5)
    sampled = PadFrames(200)(frames)
    assert sampled.shape == (1, 200, 4, 5) and sampled.meta["num_frames"] == 200
    assert torch.equal(sampled.as_tensor(), frames.as_tensor()[:, sampled.meta["frame_indices"]])


def test_first_sampling_takes_the_first_frames():
    frames = frames_of(1, 622, 4, 5)
    sampled = PadFrames(200, "first")(frames)
    assert torch.equal(sampled.as_tensor(), frames.as_tensor()[:, :200])
    assert sampled.meta["frame_indices"].tolist() == [*range(200)] and sampled.meta["num_frames"] == 200


@pytest.mark.parametrize(("length", "total"), [(5, 13), (200, 622), (6, 7), (2, 9)])
def test_sampled_frame_lies_within_half_a_source_frame_of_its_true_place(length, total):
    sampled = PadFrames(length)(frames_of(1, total, 2, 2))
    for t, source in enumerate(sampled.meta["frame_indices"].tolist()):
        miss = np.linalg.norm(world(sampled.affine, (t, 1, 1)) - world(RAS, (source, 1, 1)))
        assert miss <= 0.5 * 0.7 + 1e-6, "0.7 mm between the frames sampled from"
    np.testing.assert_allclose(world(sampled.affine, (length - 1, 0, 0)), world(RAS, (total - 1, 0, 0)), atol=1e-9)


@pytest.mark.parametrize("total", [1, 5, 8, 13, 40])
def test_even_sampling_goes_back_to_every_frame_or_its_nearest_kept_one(total):
    frames, step = frames_of(1, total, 3, 3), PadFrames(8)
    padded = step(frames)
    kept = padded.meta["frame_indices"][: padded.meta["num_frames"]].numpy()
    back = step.inverse(padded)
    assert back.shape == frames.shape and back.applied_operations == []
    np.testing.assert_array_equal(back.affine, frames.affine)
    for t in range(total):
        nearest = kept[np.abs(kept - t) == np.abs(kept - t).min()]
        assert any(torch.equal(back[:, t].as_tensor(), frames[:, int(k)].as_tensor()) for k in nearest)


def test_frames_lost_by_first_sampling_come_back_black():
    frames, step = frames_of(1, 13, 3, 3), PadFrames(8, "first")
    back = step.inverse(step(frames))
    assert torch.equal(back[:, :8].as_tensor(), frames[:, :8].as_tensor()) and not back[:, 8:].any()


@pytest.mark.parametrize("length", [0, -1, 1.5, True, "200"])
def test_sequence_length_that_is_no_length_is_refused(length):
    with pytest.raises(ValueError, match="sequence_length: expected a whole number of 1 or more, got"):
        PadFrames(length)


def test_unknown_sampling_and_no_frames_are_refused():
    with pytest.raises(ValueError, match="sampling: expected one of even, first, got 'random'"):
        PadFrames(8, "random")
    with pytest.raises(ValueError, match="expected at least one frame"):
        PadFrames(8)(torch.zeros(1, 0, 4, 4))


STEPS = {
    "SliceToFrame": (SliceToFrame(), SliceToFramed("image")),
    "WindowHU": (WindowHU(), WindowHUd("image")),
    "ResizeFrames": (ResizeFrames(8), ResizeFramesd("image", 8)),
    "QuantizeFrames": (QuantizeFrames(), QuantizeFramesd("image")),
    "PadFrames": (PadFrames(3), PadFramesd("image", 3)),
}


@pytest.mark.parametrize("name", STEPS)
def test_array_and_dictionary_form_agree_and_leave_their_input_alone(name):
    array, dictionary = STEPS[name]
    for image in (frames_of(1, 6, 10, 12, affine=np.diag([-1, -1, 1, 1])), torch.rand(1, 6, 10, 12)):
        before = image.clone()
        case = {"image": image, "label": 2, "patient": "1001"}
        one, other = array(image), dictionary(case)
        assert torch.equal(one.as_tensor(), other["image"].as_tensor())
        assert isinstance(one, MetaTensor) and torch.equal(one.affine, other["image"].affine)
        assert case == {"image": image, "label": 2, "patient": "1001"} and case["image"] is image
        assert {"label": 2, "patient": "1001"}.items() <= other.items()
        assert torch.equal(image, before)
        if isinstance(image, MetaTensor):
            assert image.applied_operations == [] and "num_frames" not in image.meta
            assert torch.equal(image.affine, before.affine)


@pytest.mark.parametrize("name", STEPS)
def test_history_and_meta_data_are_kept(name):
    array, _ = STEPS[name]
    image = frames_of(1, 6, 10, 12, affine=np.diag([-1, -1, 1, 1]))
    image.meta["filename_or_obj"] = "ct.nii.gz"
    image.push_applied_operation({"class": "Earlier"})
    result = array(image)
    classes = [operation["class"] for operation in result.applied_operations]
    assert classes == (["Earlier"] if name == "WindowHU" else ["Earlier", name])
    assert result.meta["filename_or_obj"] == "ct.nii.gz"
    assert len(image.applied_operations) == 1


@pytest.mark.parametrize("form", [LoadVolumed, SliceToFramed, WindowHUd, ResizeFramesd, QuantizeFramesd, PadFramesd])
def test_missing_key_is_an_error_unless_it_is_allowed(form):
    with pytest.raises(KeyError, match="image"):
        form("image")({"label": 1})
    assert form("image", allow_missing_keys=True)({"label": 1}) == {"label": 1}


def test_missing_key_is_allowed_on_the_way_back():
    assert PadFramesd("image", 3, allow_missing_keys=True).inverse({"label": 1}) == {"label": 1}


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
    result = transform({"image": path})
    assert result["image"].shape == (1, 200, 16, 16)
    frames = shape[3] if len(shape) == 4 else shape[2]
    assert result["num_frames"] == min(200, frames)
    assert transform.inverse(result)["image"].shape == ((shape[3], *shape[:3]) if len(shape) == 4 else (1, *shape))
