"""Weights are loaded when an evaluator starts, not when a config is read."""

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from monai_chd.errors import UserError
from monai_chd.handlers import Weights


def test_weights_are_there_when_the_first_batch_comes_and_bad_ones_end_the_run_before_it(tmp_path):
    trained, network, seen = nn.Linear(2, 3), nn.Linear(2, 3), []
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    engine = Engine(lambda engine, batch: seen.append(torch.equal(network.weight, trained.weight)))
    Weights(tmp_path / "model.pt", network).attach(engine)
    assert not torch.equal(network.weight, trained.weight)
    engine.run([0])
    assert seen == [True]
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"model\.pt: no weights"):
        engine.run([0])
    assert seen == [True]
