"""The heart's box by its label map: what the structure network of the box learns from."""

import pytest
import torch
from monai.data import MetaTensor

from monai_chd.transforms import HeartCropd


def case(size: int = 64) -> dict:
    labels = torch.zeros(1, 5, size, size, dtype=torch.uint8)
    labels[:, 1:4, 20:44, 10:34] = 3
    labels[:, 0] = 8  # not drawn: no structure
    frames = torch.randint(0, 255, labels.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"image": MetaTensor(frames, meta={"num_frames": 4}), "label": labels, "num_frames": 4}


def test_the_box_is_cut_out_of_frames_and_label_map_alike():
    given = case()
    cut = HeartCropd("image", size=24, margin=0.0)(given)
    assert cut["image"].shape == cut["label"].shape == (1, 5, 24, 24) and cut["image"].dtype == torch.uint8
    assert (cut["label"][:, 1:4] == 3).all() and (cut["label"][:, 0] == 8).all()
    assert torch.equal(cut["image"].as_tensor(), given["image"].as_tensor()[:, :, 20:44, 10:34])
    assert cut["image"].meta["num_frames"] == 4 and given["image"].shape[-1] == 64


def test_a_margin_leaves_room_around():
    cut = HeartCropd("image", size=24, margin=0.25)(case())
    inside = (cut["label"][0, 2] == 3).float().mean()
    assert float(inside) == pytest.approx((1 / 1.5) ** 2, abs=0.08)


def test_without_a_margin_the_whole_frame_is_made_smaller_and_without_a_size_nothing_happens():
    given = case()
    small = HeartCropd("image", size=32)(given)
    assert small["image"].shape == (1, 5, 32, 32) and (small["label"][0, 2, 10:22, 5:17] == 3).all()
    same = HeartCropd("image")(given)
    assert same["image"] is given["image"] and same["label"] is given["label"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 7}, "crop_size: expected a whole number of 16 or more, got 7"),
        ({"size": 24, "margin": 3}, "crop_margin: expected a number of 0 to 1, got 3"),
        ({"margin": 0.1}, r"crop_margin 0\.1: expected a crop_size"),
    ],
)
def test_what_cannot_be_cut_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        HeartCropd("image", **wrong)
