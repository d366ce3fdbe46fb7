import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from monai_chd.handlers import head_threads
from monai_chd.handlers.head_threads import HeadThreads


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def engine_that_counts(seen, fail=False):
    def step(engine, batch):
        seen.append(torch.get_num_threads())
        if fail:
            raise OSError("disk full")

    return Engine(step)


@pytest.mark.parametrize(("active", "expected"), [(True, 1), (False, 3)])
def test_a_head_is_trained_in_one_thread_and_anything_else_as_before(active, expected):
    seen: list[int] = []
    engine = engine_that_counts(seen)
    HeadThreads(active).attach(engine)
    for _ in range(2):
        engine.run([0, 1], max_epochs=2)
        assert torch.get_num_threads() == 3
    assert seen == [expected] * 8


def test_threads_are_given_back_when_a_training_is_stopped():
    seen: list[int] = []
    engine = engine_that_counts(seen)
    HeadThreads().attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), lambda: engine.terminate())
    engine.run([0, 1, 2], max_epochs=2)
    assert seen == [1] and torch.get_num_threads() == 3


def test_threads_are_given_back_when_a_training_fails_and_its_error_goes_on():
    engine = engine_that_counts([], fail=True)
    HeadThreads().attach(engine)
    with pytest.raises(OSError, match="disk full"):
        engine.run([0])
    assert torch.get_num_threads() == 3


def test_the_bundle_uses_it_for_cached_features_only():
    config = json.loads((Path(head_threads.__file__).parents[2] / "bundle" / "configs" / "train.json").read_text())
    assert "@train#head_threads" in config["train"]["listeners"]
    assert config["train"]["head_threads"] == {
        "_target_": "monai_chd.handlers.HeadThreads",
        "active": "$@cache == 'features'",
    }
