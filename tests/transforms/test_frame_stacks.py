"""Frames are drawn with their neighbours, real ones only, and by the seed."""

import numpy as np
import pytest
import torch

from monai_chd.transforms import RandFrameStacksd


def case(real: int = 6, length: int = 9) -> dict:
    """Frame t is t + 1 everywhere, its label map t; padding is 99."""
    frames = torch.full((1, length, 8, 8), 99, dtype=torch.uint8)
    frames[0, :real] = torch.arange(1, real + 1, dtype=torch.uint8)[:, None, None]
    return {"image": frames, "label": frames - 1, "num_frames": real, "patient": "1"}


def drawn(**options) -> list[dict]:
    transform = RandFrameStacksd("image", "label", **options)
    transform.set_random_state(seed=3)
    return transform(case())


def test_a_frame_lies_among_its_neighbours_and_its_label_map_beside_it():
    for stack in drawn(context=2, num_samples=6):
        middle = int(stack["label"][0, 0, 0]) + 1
        expected = np.clip(np.arange(middle - 2, middle + 3), 1, 6)
        np.testing.assert_allclose(stack["image"][:, 0, 0] * 255, expected, rtol=1e-6)
        assert stack["image"].shape == (5, 8, 8) and stack["label"].shape == (1, 8, 8)
        assert set(stack) == {"image", "label"}


def test_no_frame_is_drawn_twice_unless_there_are_too_few_and_padding_never():
    assert sorted(int(stack["label"][0, 0, 0]) for stack in drawn(num_samples=6)) == [0, 1, 2, 3, 4, 5]
    assert len(drawn(num_samples=20)) == 20
    assert max(int(stack["label"].max()) for stack in drawn(num_samples=20)) == 5


def test_the_seed_decides():
    first, again = ([int(s["label"][0, 0, 0]) for s in drawn(num_samples=3)] for _ in range(2))
    assert first == again


def test_no_context_is_the_frame_alone_and_a_negative_one_is_refused():
    assert drawn(context=0)[0]["image"].shape == (1, 8, 8)
    with pytest.raises(ValueError, match="context: expected a whole number of 0 or more"):
        RandFrameStacksd("image", "label", context=-1)
