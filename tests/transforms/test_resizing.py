"""A resized frame keeps its proportions and its place in the world, and goes back."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Resized
from scipy import ndimage
from tiny_volumes import frames_of, turned, world

from monai_chd.transforms import ResizeFrames


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
