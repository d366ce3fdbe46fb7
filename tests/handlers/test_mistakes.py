"""A user's mistake ends a run as itself, and no handler behind it logs a traceback; a fault of the program ends it, too."""

import pytest
import torch
from ignite.engine import Engine, Events

from monai_chd.errors import UserError
from monai_chd.handlers.head_threads import HeadThreads
from monai_chd.handlers.mistakes import BareMistakes


def wrapped() -> RuntimeError:
    error = RuntimeError("applying transform")
    error.__cause__ = UserError("a.nii.gz: truncated")
    return error


def failing(error):
    def step(engine, batch):
        raise error

    return Engine(step)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("MONAI_CHD_TRACEBACK", raising=False)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (wrapped(), UserError, r"^a\.nii\.gz: truncated$"),
        (UserError("a.nii.gz: truncated"), UserError, "truncated"),
        (KeyError("image"), KeyError, "image"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
    ids=["wrapped mistake", "mistake", "fault", "interrupt"],
)
def test_a_run_ends_by_what_ended_it_and_handlers_behind_hear_nothing(error, kind, text):
    engine, heard = failing(error), []
    BareMistakes().attach(engine)
    engine.add_event_handler(Events.EXCEPTION_RAISED, heard.append)
    with pytest.raises(kind, match=text):
        engine.run([0])
    assert heard == []


def test_a_mistake_in_a_run_within_a_run_comes_out_of_both():
    outer, inner = Engine(lambda engine, batch: None), failing(wrapped())
    for engine in (outer, inner):
        BareMistakes().attach(engine)
    outer.add_event_handler(Events.EPOCH_COMPLETED, lambda: inner.run([0]))
    with pytest.raises(UserError, match=r"^a\.nii\.gz: truncated$"):
        outer.run([0])


def test_what_stands_before_it_clears_up_first():
    before, engine = torch.get_num_threads(), failing(wrapped())
    HeadThreads().attach(engine)
    BareMistakes().attach(engine)
    with pytest.raises(UserError, match=r"^a\.nii\.gz: truncated$"):
        engine.run([0])
    assert torch.get_num_threads() == before


def test_a_mistake_is_not_logged_before_it_is_raised(caplog):
    engine = failing(UserError("a.nii.gz: truncated"))
    BareMistakes().attach(engine)
    with pytest.raises(UserError):
        engine.run([0])
    engine.logger.error("something else")
    assert caplog.messages == ["something else"]
