"""Early stopping knows its trainer as soon as that has its handlers."""

from ignite.engine import Engine, Events
from monai.handlers import EarlyStopHandler

from monai_chd.handlers import StoppedBy


def test_the_trainer_is_stopped_when_the_evaluator_gets_no_better():
    trainer, evaluator = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    early_stop = EarlyStopHandler(patience=2, score_function=lambda engine: -engine.state.epoch)
    early_stop.attach(evaluator)
    StoppedBy(early_stop).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: evaluator.run([0], max_epochs=engine.state.epoch))
    trainer.run([0], max_epochs=20)
    assert trainer.state.epoch == 3


def test_a_trainer_that_only_is_built_is_not_named():
    """Naming it makes Ignite remember a process group, which a config that is looked at lets go of again."""
    named = []
    early_stop = EarlyStopHandler(patience=2, score_function=lambda engine: 0)
    early_stop.set_trainer = named.append
    trainer = Engine(lambda engine, batch: None)
    StoppedBy(early_stop).attach(trainer)
    assert named == []
    trainer.run([0], max_epochs=3)
    assert named == [trainer]
