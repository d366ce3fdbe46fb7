"""Random transforms draw in an epoch what they draw in it after a stop."""

import torch
from ignite.engine import Engine
from monai.transforms import Compose, RandGaussianNoise

from monai_chd.handlers import EpochSeed


def drawn(first: int, last: int, seed: int = 1) -> list[float]:
    """What a chain gives in the epochs from `first` to `last`."""
    chain = Compose([RandGaussianNoise(prob=1.0)])
    found = []
    trainer = Engine(lambda engine, batch: found.append(float(chain(torch.zeros(1, 2, 2))[0, 0, 0])))
    EpochSeed(chain, seed).attach(trainer)
    trainer.state.epoch = first - 1
    trainer.state.epoch_length = 2
    trainer.state.max_epochs = last
    trainer.run([0, 1], max_epochs=last)
    return found[-2 * (last - first + 1) :]


def test_an_epoch_draws_the_same_whatever_came_before():
    assert drawn(1, 4)[4:] == drawn(3, 4)


def test_epochs_and_seeds_differ():
    found = drawn(1, 4)
    assert len(set(found)) == 8 and found != drawn(1, 4, seed=2)
