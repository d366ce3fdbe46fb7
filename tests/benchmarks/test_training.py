"""Every way of training takes its step."""

from __future__ import annotations

import pytest
import torch

from benchmarks import training
from benchmarks.child import MissingError
from monai_chd.networks.encoders import has_bfloat16


@pytest.mark.parametrize("how", ["ours", "replaced", "fp32, channels_last", "fp32"])
def test_training_sides_step(how):
    made = training.side(how, "small_cnn", 16, 4, 3)
    for call in made:
        call()


def test_a_step_changes_the_weights():
    network = training._network("ours", "small_cnn").train()
    before = [weight.clone() for weight in network.parameters()]
    training._step(network, torch.rand(1, 1, 3, 16, 16), torch.tensor([3]))()
    assert not any(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))


def test_bfloat16_is_measured_where_the_processor_has_it():
    given = ("bf16, channels_last", "small_cnn", 16, 4, 3)
    if has_bfloat16(torch.device("cpu")):
        for call in training.side(*given):
            call()
    else:
        with pytest.raises(MissingError, match="does not multiply in bfloat16"):
            training.side(*given)
