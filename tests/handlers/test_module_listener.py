"""A listener hears every pass of a run, in and out, and lets go of the network when the run ends or fails."""

import pytest
import torch
from ignite.engine import Engine

from monai_chd.handlers.module_listener import ModuleListener


class Ear(ModuleListener):
    def __init__(self, part):
        super().__init__(part)
        self.heard = []

    def hear(self, given, made):
        self.heard.append((given.tolist(), made.tolist(), made.requires_grad))


def test_it_hears_every_pass_from_start_to_end():
    part = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(part.weight, 2.0), torch.nn.init.zeros_(part.bias)
    ear, engine = Ear(part), Engine(lambda _, batch: part(batch))
    ear.attach(engine)
    engine.run([torch.tensor([1.0]), torch.tensor([3.0])])
    part(torch.tensor([5.0]))  # after the run
    assert ear.heard == [([1.0], [2.0], False), ([3.0], [6.0], False)] and not part._forward_hooks


def test_it_lets_go_when_a_run_fails():
    part = torch.nn.Identity()

    def fail(engine, batch):
        raise RuntimeError("planted")

    engine = Engine(fail)
    Ear(part).attach(engine)
    with pytest.raises(RuntimeError, match="planted"):
        engine.run([0])
    assert not part._forward_hooks


def test_nothing_to_hear_is_nothing_to_do():
    engine = Engine(lambda _, batch: batch)
    ear = Ear(None)
    ear.attach(engine)
    engine.run([0])
    assert not ear.heard
