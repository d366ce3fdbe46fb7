import gzip
import itertools
import shutil
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ct_storage import stored_volumes
from monai.data import MetaTensor
from tiny_frames import chain
from tiny_volumes import random_ct

from monai_chd import nifti, streaming
from monai_chd.errors import UserError
from monai_chd.transforms import LoadFrames, LoadFramesd, LoadVolume, load_frames

REAL = sorted((Path(__file__).parents[1] / "data").glob("*ct*.nii.gz"))
SHAPE = (23, 19, 14)


def ct(shape=SHAPE, dtype=np.int16, seed=0):
    if np.dtype(dtype).kind == "u" or np.dtype(dtype).itemsize == 1:
        return np.random.default_rng(seed).integers(0, 120 if np.dtype(dtype).itemsize == 1 else 3000, shape, dtype)
    return random_ct(shape, seed).astype(dtype)


def write(path, values, affine=None, *, slope=None, kind=nib.Nifti1Image):
    image = kind(values, np.diag([0.7, 0.7, 1.5, 1.0]) if affine is None else affine)
    if slope:
        image.header.set_slope_inter(*slope)
    image.to_filename(path)
    return path


def assert_equal(path, size=17, length=10, *, hu_offset=None, **settings):
    """Same values to the last bit, same meta data, same history."""
    case = {"image": str(path), "label": 2}
    one = LoadFramesd("image", size, length, hu_offset=hu_offset, **settings)(case)
    other = chain(size, length, hu_offset=hu_offset, **settings)(case)
    assert sorted(one) == sorted(other) and one["num_frames"] == other["num_frames"]
    a, b = one["image"], other["image"]
    assert a.dtype == b.dtype and torch.equal(a.as_tensor(), b.as_tensor())
    assert set(a.meta) == set(b.meta)
    for name, value in b.meta.items():
        assert torch.equal(a.meta[name], value) if isinstance(value, torch.Tensor) else str(a.meta[name]) == str(value)
    assert history(a) == history(b)
    return a


def history(image):
    """What was done, without the identity of the objects that did it."""
    return [str({**step, "id": None}) for step in image.applied_operations]


@pytest.mark.parametrize("quantize", [True, False])
@pytest.mark.parametrize("size", [SHAPE[0], 17, 40, 8])
@pytest.mark.parametrize("length", [5, 14, 20])
def test_one_pass_equals_the_single_transforms(tmp_path, size, length, quantize):
    image = assert_equal(write(tmp_path / "a.nii.gz", ct()), size, length, quantize=quantize)
    assert image.shape == (1, length, size, size) and len(image.unique()) > 50


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_all_types_of_numbers(tmp_path, dtype, order, kind):
    values = ct(dtype=dtype)
    image = kind(values, np.eye(4), kind.header_class(endianness=order))
    image.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    image.to_filename(tmp_path / "a.nii.gz")
    assert_equal(tmp_path / "a.nii.gz", hu_offset=-100 if np.dtype(dtype).kind == "u" else 0)


@pytest.mark.parametrize("slope", [(2.0, -1024.0), (0.37, -12.3), (1.0, -1024.0)])
@pytest.mark.parametrize("dtype", ["i2", "u2", "u1", "f4"])
def test_slope_and_intercept(tmp_path, slope, dtype):
    assert_equal(write(tmp_path / "a.nii.gz", ct(dtype=dtype), slope=slope), hu_offset=0)


ORIENTATIONS = ["".join(c) for axes in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*axes)]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_all_orientations(tmp_path, codes):
    ornt = nib.orientations.axcodes2ornt(codes)
    matrix = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), ornt), SHAPE
    )
    assert "".join(nib.aff2axcodes(matrix)) == codes or "".join(nib.aff2axcodes(np.linalg.inv(matrix))) == codes
    for affine in (matrix, np.linalg.inv(matrix)):
        assert_equal(write(tmp_path / "a.nii.gz", ct(), affine @ np.diag([0.7, 0.8, 2, 1])), 17, 10)
        assert_equal(tmp_path / "a.nii.gz", 17, 8, sampling="first")


def test_oblique_affine(tmp_path):
    a, b = 0.3, 0.2
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ tilt @ np.diag([-0.7, 0.8, 1.5]), [3, -40, 7]
    assert_equal(write(tmp_path / "a.nii.gz", ct(), affine))


@pytest.mark.parametrize("shape", [(20, 16), (20, 16, 1), (20, 16, 9, 1), (5, 40, 9), (20, 16, 6, 4), (20, 16, 1, 5)])
def test_all_shapes(tmp_path, shape):
    assert_equal(write(tmp_path / "a.nii.gz", ct(shape)))


def test_uncompressed_file(tmp_path):
    assert_equal(write(tmp_path / "a.nii", ct()))


def test_header_extension_is_stepped_over(tmp_path):
    image = nib.Nifti1Image(ct(), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 5000))
    image.to_filename(tmp_path / "a.nii.gz")
    assert_equal(tmp_path / "a.nii.gz")


def test_several_gzip_members(tmp_path):
    data = write(tmp_path / "a.nii", ct()).read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(b"".join(gzip.compress(data[i : i + 999]) for i in range(0, len(data), 999)))
    assert_equal(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("window", [(-200, 900), (-200.5, 900.25), (0, 1)])
def test_all_windows(tmp_path, window):
    assert_equal(write(tmp_path / "a.nii.gz", ct(dtype="f4") + np.float32(0.1)), window=window)


@pytest.mark.parametrize("reader", ["nibabel", "itk"])
def test_other_readers_give_the_same(tmp_path, reader, itk_loaded):
    path = write(tmp_path / "a.nii.gz", ct())
    streamed, read = LoadFrames(17, 10)(path), LoadFrames(17, 10, reader=reader)(path)
    assert torch.equal(streamed.as_tensor(), read.as_tensor())


def test_zlib_gives_the_same_where_isal_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "_gzip", gzip)
    assert_equal(write(tmp_path / "a.nii.gz", ct()))


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
@pytest.mark.parametrize("size", [224, 96])
def test_real_scans(path, size):
    image = assert_equal(path, size, 200)
    assert image.meta["hu_offset"] == 0 and len(image.unique()) > 100


@pytest.mark.parametrize("slab", [1, 10**6])
@pytest.mark.parametrize("codes", ["RAS", "LPI", "ASR"])
def test_a_file_is_read_once_however_late_its_offset_shows(tmp_path, monkeypatch, slab, codes):
    monkeypatch.setattr(streaming, "SLAB_BYTES", slab)
    opened = []
    monkeypatch.setattr(streaming, "open_stream", lambda path, f=streaming.open_stream: opened.append(1) or f(path))
    step = LoadFrames(17, 10)
    affine = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (64, 64, 40))
    for name, (values, offset) in stored_volumes().items():
        if values.dtype.kind in "iuf" and offset is not None:
            path = write(tmp_path / "a.nii", values, affine)
            opened.clear()
            frames = step(path)
            assert len(opened) == 1 and frames.meta["hu_offset"] == offset, name
            assert torch.equal(frames.as_tensor(), step(path, hu_offset=offset).as_tensor()), name


def test_frames_are_made_with_one_offset_once_the_slices_told_it(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "SLAB_BYTES", 1)
    made = []
    render = load_frames._FrameRenderer.render
    monkeypatch.setattr(load_frames._FrameRenderer, "render", lambda *a, **k: made.append(a[2]) or render(*a, **k))
    raw = np.tile(stored_volumes()["raw"][0], (1, 1, 3))
    LoadFrames(17, 200)(write(tmp_path / "a.nii", raw, np.diag([1, 1, -1, 1])))
    assert made.count(-1024) == raw.shape[2] and made.count(0) == 15


def test_the_volume_reader_and_the_streaming_one_agree_on_the_offset(tmp_path):
    for name, (values, _) in stored_volumes().items():
        path = write(tmp_path / "a.nii", values.astype(np.int32) if values.dtype == np.int64 else values)
        answers = []
        for step in (LoadVolume(), LoadFrames(17, 10)):
            try:
                answers.append(step(path).meta["hu_offset"])
            except UserError as error:
                answers.append(str(error))
        assert answers[0] == answers[1], name


def test_offset_of_the_case_goes_before_that_of_the_constructor(tmp_path):
    path = str(write(tmp_path / "a.nii.gz", ct()))
    own = LoadFramesd("image", 17, 10, hu_offset=5)({"image": path, "hu_offset": -300})
    assert own["image"].meta["hu_offset"] == -300 and "hu_offset" not in own
    assert torch.equal(own["image"], LoadFrames(17, 10)(path, hu_offset=-300))


def test_slice_of_a_cine_can_be_chosen(tmp_path):
    path = str(write(tmp_path / "a.nii.gz", ct((20, 16, 6, 4))))
    pictures = [LoadFramesd("image", 17, 10)({"image": path, "cine_slice": k})["image"] for k in (1, 4)]
    assert not torch.equal(*pictures)
    assert torch.equal(pictures[1], LoadFrames(17, 10)(path, cine_slice=4))
    of_all = LoadFramesd("image", 17, 10, cine_slice=4)
    assert torch.equal(of_all({"image": path})["image"], pictures[1])
    assert torch.equal(of_all({"image": path, "cine_slice": 1})["image"], pictures[0])


@pytest.mark.parametrize("codes", ["RAS", "ASR"])
def test_mr_is_refused_in_the_same_words(tmp_path, codes):
    affine = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), SHAPE)
    path = write(tmp_path / "a.nii.gz", np.abs(ct()) % 500, affine)
    errors = []
    for step in (LoadFramesd("image", 17, 10), chain(17, 10).transforms[0]):
        with pytest.raises(ValueError, match="cannot tell Hounsfield units") as raised:
            step({"image": str(path)})
        errors.append(str(raised.value))
    assert errors[0] == errors[1]


def test_bad_voxels_are_counted_over_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "SLAB_BYTES", 1)
    values = ct(dtype="f4")
    values[3, 4, 1], values[5, 6, 9], values[0, 0, 13] = np.nan, np.inf, -np.inf
    with pytest.raises(ValueError, match=f"3 of {values.size} voxels are NaN or infinite"):
        LoadFrames(17, 10)(write(tmp_path / "a.nii.gz", values))


def test_cut_file_is_refused_with_its_name_and_place(tmp_path):
    path = write(tmp_path / "a.nii.gz", ct((64, 64, 40)))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ValueError, match=r"a\.nii\.gz: truncated or corrupt NIfTI \(.* at byte \d+"):
        LoadFrames(17, 10)(path)


def test_slices_that_are_not_kept_are_neither_windowed_nor_resized(tmp_path, monkeypatch):
    resized = []
    resize = load_frames.interpolate
    monkeypatch.setattr(load_frames, "interpolate", lambda *a: resized.append(1) or resize(*a))
    LoadFrames(17, 4)(write(tmp_path / "a.nii.gz", ct()), hu_offset=0)
    assert len(resized) == 4


def test_nothing_is_read_after_the_last_slice_kept_when_the_offset_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "SLAB_BYTES", 1)
    path = write(tmp_path / "a.nii.gz", ct((64, 64, 60)))
    whole = LoadFrames(17, 4, sampling="first")(path, hu_offset=0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert torch.equal(LoadFrames(17, 4, sampling="first")(path, hu_offset=0), whole)
    with pytest.raises(ValueError, match="truncated"):
        LoadFrames(17, 4, sampling="first")(path)


def test_memory_does_not_grow_with_the_number_of_slices(tmp_path):
    peaks = []
    for slices in (60, 600):
        path = write(tmp_path / f"{slices}.nii.gz", np.tile(ct((200, 200, 20)), slices // 20))
        load = LoadFrames(64, 30)
        tracemalloc.start()
        load(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] and peaks[1] < 8 * 2**20


def test_inverse_brings_frames_back_to_the_voxels_they_came_from(tmp_path):
    values = ct((32, 32, 12))
    path = write(tmp_path / "a.nii.gz", values, np.diag([-1, 1, -2, 1]))
    step = LoadFrames(32, 20, window=(-1000, 2000))
    volume = step.inverse(step(path, hu_offset=0))
    assert volume.shape == (1, 32, 32, 12) and isinstance(volume, MetaTensor)
    np.testing.assert_allclose(volume[0].numpy() * 3000 - 1000, values, atol=3000 / 255)
    case = LoadFramesd("image", 32, 20, window=(-1000, 2000), hu_offset=0)
    assert torch.equal(case.inverse(case({"image": str(path)}))["image"], volume)


def test_input_is_left_alone(tmp_path):
    case = {"image": str(write(tmp_path / "a.nii.gz", ct())), "hu_offset": 0}
    before = dict(case)
    LoadFramesd("image", 17, 10)(case)
    assert case == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reader": "dicom"}, "unknown reader 'dicom': expected one of stream, nibabel, itk"),
        ({"window": (3, 1)}, "window: expected"),
        ({"sampling": "odd"}, "sampling: expected one of even, first"),
        ({"frame_size": 0}, "frame_size: expected a whole number of 8 or more"),
        ({"sequence_length": 0}, "sequence_length: expected a whole number of 1 or more"),
        ({"cine_slice": -1}, "cine_slice: expected"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        LoadFramesd("image", **settings)


def test_missing_file_and_twin_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.nii\.gz: no such file"):
        LoadFrames()(tmp_path / "a.nii.gz")
    path = write(tmp_path / "a.nii.gz", ct())
    shutil.copy(path, tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"a\.nii lies beside it"):
        LoadFrames()(path)
