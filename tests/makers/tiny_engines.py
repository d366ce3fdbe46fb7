"""A trainer with given validation scores, and validations of given cases, for the tests of the handlers."""

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.handlers import EarlyStopHandler

from monai_chd.handlers import Checkpoints, LearningCurves


def engines(tmp_path, scores, *, resume=False, interval=1, network=None, calibrator=None, patience=None):
    """A trainer whose epochs get the given validation scores; returns it and its checkpoints.

    With `patience`, it stops after so many validations without a better one.
    """
    network = network or torch.nn.Linear(1, 1)

    def step(engine, batch):
        with torch.no_grad():
            network.weight += 1
        return [{"loss": torch.tensor(float(engine.state.iteration))}]

    trainer, evaluator = Engine(step), Engine(lambda engine, batch: None)
    trainer.state.rank = 0
    evaluator.state.key_metric_name = "score"

    def validate(engine):
        evaluator.state.epoch = engine.state.epoch
        evaluator.state.metrics = {"score": scores[engine.state.epoch - 1]}
        if early_stop:
            early_stop(evaluator)

    early_stop = patience and EarlyStopHandler(patience, lambda engine: engine.state.metrics["score"], trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED(every=interval), validate)
    curves = LearningCurves(tmp_path, evaluator)
    curves.attach(trainer)
    checkpoints = Checkpoints(
        tmp_path, {"network": network, "early_stop": early_stop}, curves, settings={"frame_size": 16}, cases=[{"patient": "1"}],
        resume=resume, calibrator=calibrator,
    )  # fmt: skip
    checkpoints.attach(trainer)
    return trainer, checkpoints


def start_at_zero() -> torch.nn.Linear:
    network = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(network.weight)
    return network


def saved_weight(tmp_path) -> float:
    return torch.load(tmp_path / "models" / "model.pt", weights_only=True)["weight"].item()


def validated(calibrator, labels, probabilities):
    """Run a validation of these cases, two a batch, past the calibrator."""
    cases = [{"label": torch.tensor(k), "pred": torch.tensor(p)} for k, p in zip(labels, probabilities, strict=True)]
    engine = Engine(lambda engine, batch: batch)
    calibrator.attach(engine)
    for _ in range(2):  # each validation stands alone
        engine.run([cases[i : i + 2] for i in range(0, len(cases), 2)])
    return calibrator


def validation(seed, n=15):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, n), rng.dirichlet([0.3] * 3, n)
