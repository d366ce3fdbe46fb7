"""Every step has two forms that agree, leaves its input alone, and keeps meta data and history."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tiny_volumes import frames_of

from monai_chd.transforms import (
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
