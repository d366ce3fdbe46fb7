"""Ignite handlers for what MONAI's do not do: checkpoints that survive a stop, learning curves, a cost estimate, predictions."""

from __future__ import annotations

import csv
import logging
import math
import os
import random
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from torch import Tensor

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.files import replacing, writable_folder
from monai_chd.metrics.calibration import (
    CALIBRATION,
    Calibration,
    calibrate,
    describe,
    read_calibration,
    scale,
    write_calibration,
)
from monai_chd.metrics.estimates import evaluate
from monai_chd.metrics.figures import confusion_matrix_figure, learning_curves_figure
from monai_chd.metrics.predictions import (
    answered_cases,
    coverage_estimate,
    metrics_table,
    read_predictions,
    scored_cases,
    write_metrics,
    write_predictions,
)
from monai_chd.workflow.settings import LAST, MODEL, write_settings

logger = logging.getLogger(__name__)

LONG_TRAINING = 2 * 3600.0
"""Seconds from which a training is called long and cheaper settings are named."""


def probability_loss(probabilities: Tensor, label: Tensor) -> Tensor:
    """Mean negative log of the true class's probability, unweighted; (B, K) and (B,)."""
    return torch.nn.functional.nll_loss(probabilities.clamp_min(1e-12).log(), label)


def _rng_state() -> dict[str, Any]:
    """States of Python's, NumPy's and PyTorch's generators, as tensors and numbers only."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore_rng(state: Mapping[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([generator.cpu() for generator in state["cuda"]])


def _bare(network: torch.nn.Module) -> torch.nn.Module:
    """The network without DistributedDataParallel around it."""
    return network.module if isinstance(network, torch.nn.parallel.DistributedDataParallel) else network


FEW_FRAMES = 8
"""A scan of fewer slices is predicted like any other, and named."""


class LearningCurves:
    """Keeps one row of figures an epoch; writes `learning_curves.csv` after each, `.png` now and then and at the end.

    Drawing takes a second, longer than an epoch of a small head, so it waits `DRAW_AFTER` seconds. Put it behind the
    ValidationHandler, so that the epoch's validation has run.

    Args:
        output_dir: folder of the two files.
        evaluator: engine whose metrics are the validation's.
    """

    DRAW_AFTER = 60.0

    def __init__(self, output_dir: str | Path, evaluator: Engine) -> None:
        self.output_dir = Path(output_dir)
        self.evaluator = evaluator
        self.history: list[dict[str, float]] = []
        self._losses: list[float] = []
        self._drawn = time.monotonic()

    def attach(self, engine: Engine) -> None:
        """Listen to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._losses.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._draw)

    def _draw(self, engine: Engine) -> None:
        if self.history and not engine.state.rank:  # type: ignore[attr-defined]
            learning_curves_figure(self.history, self.output_dir / "learning_curves.png")
            self._drawn = time.monotonic()

    def _collect(self, engine: Engine) -> None:
        self._losses.append(float(engine.state.output[0]["loss"]))  # type: ignore[index]

    def _write(self, engine: Engine) -> None:
        row: dict[str, float] = {"epoch": engine.state.epoch, "train_loss": float(np.mean(self._losses))}
        if self.evaluator.state.epoch == engine.state.epoch:  # not left standing from an earlier epoch
            row |= {name: float(value) for name, value in self.evaluator.state.metrics.items()}
        self.history.append(row)
        if engine.state.rank:  # type: ignore[attr-defined]
            return
        columns = list(dict.fromkeys(name for entry in self.history for name in entry))
        with replacing(self.output_dir / "learning_curves.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.history)
        if time.monotonic() - self._drawn > self.DRAW_AFTER:
            self._draw(engine)


class Calibrator:
    """Keeps the validation's predictions, and fits temperature and threshold to them when the model is kept.

    Listens to the evaluator in every process of a training: each sees a part of the validation cases.

    Args:
        coverage: wished share of cases to answer; 1 never abstains.
        risk: instead, wished share of the answers that may be wrong.
    """

    def __init__(self, coverage: float | None = 1.0, risk: float | None = None) -> None:
        self.coverage, self.risk = coverage, risk
        self._cases: list[tuple[int, list[float]]] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._cases.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._gather)

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        self._cases += [(int(case["label"]), case["pred"].cpu().double().tolist()) for case in output]

    def _gather(self) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, self._cases)
            self._cases[:] = [case for part in parts for case in part]

    def calibration(self) -> Calibration | None:
        """Fitted to the last validation; None when its probabilities are no numbers, as of a training that diverged."""
        labels, probabilities = [label for label, _ in self._cases], np.array([row for _, row in self._cases])
        if not labels or not np.isfinite(probabilities).all():
            return None
        return calibrate(labels, probabilities, coverage=self.coverage, risk=self.risk)


class Checkpoints:
    """Saves the best model, and everything needed to go on; restores the latter when training starts.

    `models/model.pt` is the bare state dict of the network with the best validation metric so far, tensors only, and
    `models/calibration.json` its temperature and abstention threshold from the same validation.
    `models/last.pt` holds network, optimizer, learning rate schedule, loss scale, epoch, best metric, curves and random
    states: a training that was stopped and resumed gives the same weights as one that ran through. It is written after an
    epoch when the one before is `SAVE_AFTER` seconds old, and at the end: with the 300 tensors of a frozen encoder it took a
    tenth of an epoch of its head. MONAI's CheckpointSaver does not keep the random states or the best metric, and does not
    write under a temporary name.

    Put it behind LearningCurves and the LrScheduleHandler. With several processes all restore and the first one saves.

    Args:
        output_dir: the run's output folder; files go to `models/` in it.
        parts: {"network": …, "optimizer": …, "lr_scheduler": …}, all with state dicts.
        evaluator: engine whose key metric says which model is best.
        curves: the run's learning curves.
        settings: what the network and its input depend on, see `settings.write_settings`.
        cases: all cases of training and validation.
        resume: go on from `last.pt`.
        calibrator: listens to the same evaluator; None: the model is not calibrated.
    """

    SAVE_AFTER = 5.0

    def __init__(
        self,
        output_dir: str | Path,
        parts: Mapping[str, Any],
        evaluator: Engine,
        curves: LearningCurves,
        *,
        settings: Mapping[str, Any],
        cases: Sequence[Mapping[str, Any]],
        resume: bool = False,
        calibrator: Calibrator | None = None,
    ) -> None:
        self.folder = Path(output_dir, "models")
        self.parts = dict(parts)
        self.evaluator = evaluator
        self.curves = curves
        self.settings = settings
        self.cases = cases
        self.resume = resume
        self.calibrator = calibrator
        self.best: float | None = None
        self._saved = -math.inf
        self._unsaved: int | None = None

    def attach(self, engine: Engine) -> None:
        """Listen to a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._keep_best)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save_now_and_then)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        if not self.resume:
            if engine.state.rank == 0:  # type: ignore[attr-defined]
                write_settings(self.folder, self.settings, self.cases)
            return
        saved = torch.load(self.folder / LAST, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            (_bare(part) if name == "network" else part).load_state_dict(saved[name])
        if saved["scaler"]:
            engine.scaler.load_state_dict(saved["scaler"])  # type: ignore[attr-defined]
        engine.state.epoch = saved["epoch"]
        engine.state.iteration = saved["epoch"] * (engine.state.epoch_length or 0)
        self.best = saved["best"]
        self.curves.history = saved["history"]
        if self.best is not None:  # or MONAI's log would call the best epoch since then the best of all
            state: Any = self.evaluator.state
            scores = {row.get(state.key_metric_name): row["epoch"] for row in reversed(self.curves.history)}
            state.best_metric, state.best_metric_epoch = self.best, scores.get(self.best, saved["epoch"])
        _restore_rng(saved["rng"])
        logger.info(f"resumed after epoch {saved['epoch']} from {self.folder / LAST}")

    def _keep_best(self, engine: Engine) -> None:
        if engine.state.rank:  # type: ignore[attr-defined]
            return
        state: Any = self.evaluator.state
        score = state.metrics.get(state.key_metric_name)
        validated = state.epoch == engine.state.epoch and score is not None
        if validated and (self.best is None or score > self.best):
            self.best = float(score)
            # Stopped in between, a model without calibration is left, never one with that of another.
            (self.folder / CALIBRATION).unlink(missing_ok=True)
            with replacing(self.folder / MODEL) as temporary:
                torch.save(_bare(self.parts["network"]).state_dict(), temporary)
            if self.calibrator and (calibration := self.calibrator.calibration()):
                write_calibration(calibration, self.folder)

    def _save_now_and_then(self, engine: Engine) -> None:
        if time.monotonic() - self._saved > self.SAVE_AFTER:
            self._save(engine)
        else:
            self._unsaved = engine.state.iteration

    def _save(self, engine: Engine) -> None:
        if engine.state.rank:  # type: ignore[attr-defined]
            return
        scaler = getattr(engine, "scaler", None)  # of mixed precision
        content = {name: part.state_dict() for name, part in self.parts.items() if name != "network"}
        content |= {
            "network": _bare(self.parts["network"]).state_dict(),
            "epoch": engine.state.epoch,
            "best": self.best,
            "history": self.curves.history,
            "rng": _rng_state(),
            "scaler": scaler.state_dict() if scaler else {},
        }
        with replacing(self.folder / LAST) as temporary:
            torch.save(content, temporary)
        self._saved, self._unsaved = time.monotonic(), None

    def _finish(self, engine: Engine) -> None:
        if self._unsaved == engine.state.iteration:  # not when it ended within an epoch, from where nothing can go on
            self._save(engine)
        if not engine.state.rank and (text := describe(read_calibration(self.folder / MODEL))):  # type: ignore[attr-defined]
            print(text)


class CostEstimate:
    """After three steps of a training, says how long all of it will take and how much memory it uses.

    Over two hours it names settings that cost less. The first step is left out of the mean: it pays for warming up. Of a frozen
    encoder that remembers its features, steps show the first epoch only, so that is what is told.

    Args:
        validation_cases: cases of one validation; one is counted as a third of a training step (forward only).
        validation_interval: epochs from one validation to the next.
    """

    STEPS = 3

    def __init__(self, validation_cases: int, validation_interval: int = 1) -> None:
        self.validation_cases = validation_cases
        self.validation_interval = validation_interval
        self._marks: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Listen to a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)

    def _step(self, engine: Engine) -> None:
        if len(self._marks) >= self.STEPS:
            return
        self._marks.append(time.monotonic())
        if len(self._marks) == self.STEPS:
            step = (self._marks[-1] - self._marks[0]) / (self.STEPS - 1)
            batch = len(engine.state.batch)  # type: ignore[arg-type]
            epochs = (engine.state.max_epochs or 1) - engine.state.epoch + 1
            per_epoch = (engine.state.epoch_length or 1) * step
            validation = self.validation_cases / batch * step
            total, what = epochs * (per_epoch + validation / 3 / self.validation_interval), "in all"
            if _encodes_once(engine):
                total = per_epoch + validation
                what = "for the first epoch, in which the frozen encoder describes each scan; the others take much less"
            print(self.report(total, step, batch, what), flush=True)

    def report(self, seconds: float, step: float, batch: int, what: str = "in all") -> str:
        """The lines printed: time of what, time a case, peak memory, and cheaper settings for a long training."""
        if seconds < 60:
            length = "less than a minute"
        else:
            length = f"about {seconds / 3600:.1f} hours" if seconds >= 3600 else f"about {seconds / 60:.1f} minutes"
        text = f"estimated: {length} {what} ({step / batch:.2f} s a case), peak memory so far {_peak_memory()}"
        if seconds <= LONG_TRAINING:
            return text
        return (
            f"{text}\nThis is long. Cheaper: --frame_size 224 (about a fifth of the work of 512), --sequence_length 100 (half), "
            f"--encoder efficientnet_lite0 --frame_size 224 (pretrained and frozen: no backward pass), fewer --max_epochs, "
            f"or a GPU."
        )


def _encodes_once(engine: Any) -> bool:
    """Whether a training gives frames to an encoder that keeps what it says of them."""
    encoder = getattr(_bare(engine.network), "encoder", None)
    frames = engine.state.batch[0]["image"].dim() == 4  # (C, L, S, S); features are (L, F)
    return frames and getattr(encoder, "remembers", False)


def _peak_memory() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{peak / (2**30 if sys.platform == 'darwin' else 2**20):.1f} GiB"


class Predictions:
    """Collects the prediction of every case and writes the tables, and where labels are known the evaluation.

    The model's calibration is applied: probabilities are those after the temperature, and cases below the threshold are
    abstained from, with the most probable class all the same.

    Args:
        folder: where `predictions.csv` goes, and with labels `metrics.json`, `metrics.csv`, `confusion_matrix.png`.
        dataset_dir: image paths are written relative to it.
        context: what else `metrics.json` should say (seed, checkpoint, fold, …).
        score: compute metrics; False for inference.
        title: what the cases are, for the confusion matrix.
        checkpoint: the weights, with their `calibration.json` beside; None, or without one: probabilities as they come.
        coverage: wished share of cases to answer; None: as the model was calibrated.
        risk: instead, wished share of the answers that may be wrong.
    """

    def __init__(
        self,
        folder: str | Path,
        dataset_dir: str | Path,
        *,
        context: Mapping[str, Any] | None = None,
        score: bool = False,
        title: str = "",
        checkpoint: str | Path | None = None,
        coverage: float | None = None,
        risk: float | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.dataset_dir = Path(dataset_dir)
        self.context = dict(context or {})
        self.score = score
        self.title = title
        self.checkpoint, self.coverage, self.risk = checkpoint, coverage, risk
        self.calibration = Calibration()
        self.rows: list[dict[str, Any]] = []
        self.cine: list[str] = []
        self.short: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self) -> None:
        writable_folder(self.folder)
        self.calibration = read_calibration(self.checkpoint).wished(self.coverage, self.risk)
        self.rows.clear()
        self.cine.clear()
        self.short.clear()

    def _name(self, image: str) -> str:
        """Path relative to `dataset_dir`, as given or through links; of a file that is `dataset_dir` itself its name."""
        path, folder = Path(os.path.abspath(image)), Path(os.path.abspath(self.dataset_dir))
        if not path.is_relative_to(folder):
            folder = self.dataset_dir.resolve()
        return path.name if path == folder else Path(os.path.relpath(path, folder)).as_posix()

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        for case, output in zip(state.batch, state.output, strict=True):
            reason = str(case.get("reason", ""))
            label = case.get("label")
            name = self._name(case["image"].meta["filename_or_obj"])
            if case["image"].meta.get("intensity") == "arbitrary":
                self.cine.append(name)
            elif not reason and int(case.get("num_frames", FEW_FRAMES)) < FEW_FRAMES:
                self.short.append(name)
            probabilities = None if reason else self.calibration.apply(output["pred"].cpu().double().numpy())
            if probabilities is not None and np.isfinite(probabilities).all():
                reason = self.calibration.reason(probabilities)
            self.rows.append(
                {
                    "image": name,
                    "patient": str(case.get("patient", "")),
                    "label": None if label is None else int(label),
                    "probabilities": probabilities,
                    "reason": reason,
                }
            )

    def _write(self) -> None:
        path = write_predictions(self.rows, self.folder / "predictions.csv")
        without = sum(row["probabilities"] is None for row in self.rows)
        abstained = sum(bool(row["reason"]) for row in self.rows) - without
        print(
            f"predictions: {path} ({len(self.rows) - without} scans predicted, {without} without a prediction"
            f"{f', {abstained} of the predicted abstained from' if abstained else ''})"
        )
        if text := describe(self.calibration):
            print(text)
        if self.cine:
            print(
                f"4D cine without HU, one slice over time, scaled by its 1st and 99th percentiles: {', '.join(self.cine)}"
            )
        if self.short:
            print(f"fewer than {FEW_FRAMES} slices, hardly a heart, yet predicted: {', '.join(self.short)}")
        if not self.score:
            return
        # from the file, so that the metrics are those of the table that people see
        table = read_predictions(path)
        labels, probabilities, patients = scored_cases(table)
        result, coverage, answered = evaluate(labels, probabilities, patients=patients), coverage_estimate(table), None
        if coverage["value"] not in (0, 1) and len((part := answered_cases(table))[0]):
            answered = evaluate(part[0], part[1], patients=part[2])
        context = {**self.context, "calibration": self._calibration(labels, probabilities, patients)}
        write_metrics(result, self.folder, context=context, coverage=coverage, answered=answered)
        confusion_matrix_figure(result["confusion_matrix"], self.folder / "confusion_matrix.png", title=self.title)
        print(metrics_table(result, coverage=coverage, answered=answered))
        print(f"metrics and confusion matrix: {self.folder}")

    def _calibration(
        self, labels: NDArray[np.int64], probabilities: NDArray[np.float64], patients: Sequence[str]
    ) -> dict[str, Any]:
        """What was applied, for `metrics.json`, and what its temperature changed."""
        used = self.calibration
        wish = dict(used.wish) if used.wish else None
        told: dict[str, Any] = {
            "temperature": used.temperature,
            "threshold": used.threshold,
            "wish": wish,
            "before": None,
        }
        if used.temperature != 1:
            raw = evaluate(labels, scale(probabilities, 1 / used.temperature), patients=patients)["overall"]
            told["before"] = {name: raw[name] for name in ("log_loss", "brier", "ece")}
        return {**told, "validation_cases": len(used.confidence)}

    @bare_mistakes()
    def check(self) -> None:
        """Fail when a file could not be read, after all others have been predicted.

        Raises:
            UserError: names the files and what is wrong with each.
        """
        unread = [row["reason"] for row in self.rows if row["probabilities"] is None]
        if unread:
            listed = "\n  ".join(unread)
            raise UserError(
                f"{len(unread)} of {len(self.rows)} files have no prediction, the others have theirs:\n  {listed}"
            )
