"""The window is its formula, a cine without HU has its percentiles, and 256 steps are rounded to the nearest."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tiny_volumes import frames_of, save, to_frames

from monai_chd.transforms import QuantizeFrames, WindowHU, WindowHUd


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
