"""What a training costs is told once, from the steps after the first, with cheaper settings where it is long."""

import re

import pytest
from ignite.engine import Engine, Events

from monai_chd.handlers import CostEstimate, cost_estimate


def steps(monkeypatch, seconds: list[float], *, epochs: int, length: int, batch: int, **choices) -> CostEstimate:
    """A training whose steps end at the given times of the clock, up to the last of them."""
    clock = iter(seconds)
    monkeypatch.setattr(cost_estimate.time, "monotonic", lambda: next(clock))
    engine = Engine(lambda engine, data: setattr(engine.state, "batch", [None] * batch))
    cost = CostEstimate(**choices)
    cost.attach(engine)
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: e.state.iteration == len(seconds) + 2 and e.terminate()
    )
    engine.run(range(length), max_epochs=epochs)
    return cost


def test_the_cost_is_told_once_after_three_steps_without_the_first(monkeypatch, told):
    # 20 s to warm up, then 6 s a step of 2 cases: 10 epochs of 5 steps and 10 validations of 4 cases at a third each
    steps(monkeypatch, [20.0, 26.0, 32.0], epochs=10, length=5, batch=2, validation_cases=4)
    [out] = told.messages
    minutes = 10 * (5 * 6 + 4 / 2 * 6 / 3) / 60
    assert out.startswith(f"estimated: about {minutes:.1f} minutes in all (3.00 s a case), peak memory so far ")
    assert re.search(r"peak memory so far \d+\.\d GiB", out)
    assert "\n" not in out and "Cheaper" not in out


def test_a_training_of_over_two_hours_names_cheaper_settings(monkeypatch, told):
    steps(monkeypatch, [0.0, 10.0, 20.0], epochs=100, length=10, batch=1, validation_cases=0)
    [out] = told.messages
    assert out.startswith("estimated: about 2.8 hours in all (10.00 s a case)")
    for setting in ("--frame_size 224", "--sequence_length 100", "--cache features", "--max_epochs", "GPU"):
        assert setting in out


@pytest.mark.parametrize(("seconds", "long"), [(7200, False), (7201, True), (59, False)])
def test_long_is_more_than_two_hours(seconds, long):
    assert ("This is long" in CostEstimate(0).report(seconds, 1, 1)) == long


def test_rarer_validations_cost_less(monkeypatch, told):
    steps(monkeypatch, [0.0, 6.0, 12.0], epochs=1, length=10, batch=1, validation_cases=30, validation_interval=2)
    assert told.messages[0].startswith("estimated: about 1.5 minutes")


def test_two_steps_are_too_few_to_tell(monkeypatch, told):
    steps(monkeypatch, [0.0, 6.0], epochs=1, length=2, batch=1, validation_cases=0)
    assert told.messages == []
