"""The best model and all that a training needs to go on, written so that a stop at any time loses little.

What else lies beside the weights, and what is compared before a training goes on, is `workflow.settings`' part.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from monai.handlers import EarlyStopHandler
from monai.transforms import Compose, Transform

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.files import replacing
from monai_chd.handlers.calibrator import Calibrator
from monai_chd.handlers.learning_curves import LearningCurves
from monai_chd.metrics.calibration import CALIBRATION, calibration_line, read_calibration, write_calibration
from monai_chd.workflow.settings import LAST, MODEL, write_settings
from monai_chd.workflow.weights import read_checkpoint

logger = logging.getLogger(__name__)


class Checkpoints:
    """Saves the best model, and everything needed to go on; restores the latter when training starts.

    `models/model.pt` is the bare state dict of the network with the best validation metric so far, tensors only, and
    `models/calibration.json` its temperature and abstention threshold from the same validation.
    `models/last.pt` holds network, optimizer, learning rate schedule, early stopping, loss scale, epoch, best metric, curves
    and random states: a training that was stopped and resumed gives the same weights as one that ran through. It is written
    after an epoch when the one before is `SAVE_AFTER` seconds old, and at the end: with the 300 tensors of a frozen encoder it
    took a tenth of an epoch of its head. MONAI's CheckpointSaver does not keep the random states or the best metric, and does
    not write under a temporary name.

    Put it behind LearningCurves and the LrScheduleHandler. With several processes all restore and the first one saves.

    Args:
        output_dir: the run's output folder; files go to `models/` in it.
        parts: {"network": …, "optimizer": …, "lr_scheduler": …, "loss": …, "frames": …}: what has a state is restored, and
            what was made with other values is refused; and where training may stop early MONAI's handler of that as
            "early_stop", with its trainer set before the training starts.
        curves: the run's learning curves; the key metric of their evaluator says which model is best.
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
        curves: LearningCurves,
        *,
        settings: Mapping[str, Any],
        cases: Sequence[Mapping[str, Any]],
        resume: bool = False,
        calibrator: Calibrator | None = None,
    ) -> None:
        self.folder = Path(output_dir, "models")
        self.parts = dict(parts)
        self.early_stop: EarlyStopHandler | None = self.parts.pop("early_stop", None)
        self.curves = curves
        self.evaluator = curves.evaluator
        self.settings = settings
        self.cases = cases
        self.resume = resume
        self.calibrator = calibrator
        self.best: float | None = None
        self._made_of = {name: _made_of(part) for name, part in self.parts.items() if name != "network"}
        self._noted = False
        self._saved = -math.inf
        self._unsaved: int | None = None

    def attach(self, engine: Engine) -> None:
        """Listen to a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._keep_best)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save_now_and_then)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    @bare_mistakes()
    def _start(self, engine: Engine) -> None:
        self._noted = False
        if not self.resume:
            return
        saved = read_checkpoint(self.folder / LAST)
        _refuse_other_parts(self.folder / LAST, saved["made_of"], self._made_of)
        for name, part in self._stateful().items():
            part.load_state_dict(saved[name])
        if saved["early_stop"] and (stopping := self._stopping()):
            stopping.load_state_dict(saved["early_stop"])
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

    def _stateful(self) -> dict[str, Any]:
        return {name: _bare(part) for name, part in self.parts.items() if hasattr(part, "state_dict")}

    def _stopping(self) -> EarlyStopping | None:
        """The part of MONAI's handler that counts; it has no way to ask for it."""
        return self.early_stop._handler if self.early_stop else None

    def _keep_best(self, engine: Engine) -> None:
        if engine.state.rank:  # type: ignore[attr-defined]
            return
        state: Any = self.evaluator.state
        score = state.metrics.get(state.key_metric_name)
        validated = state.epoch == engine.state.epoch and score is not None and math.isfinite(score)
        if validated and (self.best is None or score > self.best):
            self.best = float(score)
            self._note()
            with replacing(self.folder / MODEL) as temporary:
                _save(_bare(self.parts["network"]).state_dict(), temporary)
                # Stopped in between, a model without calibration is left, never one with that of another.
                (self.folder / CALIBRATION).unlink(missing_ok=True)
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
        stopping = self._stopping()
        content = {name: part.state_dict() for name, part in self._stateful().items()}
        content |= {
            "made_of": self._made_of,
            "epoch": engine.state.epoch,
            "best": self.best,
            "history": self.curves.history,
            "rng": _rng_state(),
            "early_stop": dict(stopping.state_dict()) if stopping else {},
            "scaler": scaler.state_dict() if scaler else {},
        }
        self._note()
        with replacing(self.folder / LAST) as temporary:
            _save(content, temporary)
        self._saved, self._unsaved = time.monotonic(), None

    def _note(self) -> None:
        """Say beside the first weights, and before them, what they come from: a training that fails earlier leaves nothing."""
        if not self._noted:
            write_settings(self.folder, self.settings, self.cases)
            self._noted = True

    def _finish(self, engine: Engine) -> None:
        if self._unsaved == engine.state.iteration:  # not when it ended within an epoch, from where nothing can go on
            self._save(engine)
        if not engine.state.rank and (text := calibration_line(read_calibration(self.folder / MODEL))):  # type: ignore[attr-defined]
            logger.info(text)


def _made_of(part: Any) -> dict[str, str]:
    """What an optimizer, schedule, loss or chain of transforms was made with, as text: it decides the result like a setting."""
    made = {"class": type(part).__qualname__}
    given = part.defaults if isinstance(part, torch.optim.Optimizer) else vars(part)
    if isinstance(part, Compose):
        given = {str(place): step for place, step in enumerate(part.transforms, 1)}
    for key, value in sorted(given.items()):
        if isinstance(value, Transform):
            made |= {f"{key} {inner}": text for inner, text in _made_of(value).items()}
        elif not key.startswith("_") and _is_plain(value):
            made[key] = repr(value)
    return made


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _refuse_other_parts(last: Path, before: Mapping[str, dict[str, str]], now: Mapping[str, dict[str, str]]) -> None:
    """Refuse to go on with parts that an override within the config made another: they are no settings of `begin`'s.

    Raises:
        UserError: names each value that differs.
    """
    differ = [
        f"{name}: {key} {before[name].get(key)} (asked: {now[name].get(key)})"
        for name in before.keys() & now.keys()
        for key in sorted(before[name].keys() | now[name].keys())
        if before[name].get(key) != now[name].get(key)
    ]
    if differ:
        raise UserError(
            f"{last} was trained with {', '.join(sorted(differ))}; ask for the same, or train anew into another folder"
        )


def _save(content: Mapping[str, Any], path: Path) -> None:
    """Write tensors so that equal ones give equal files: given a name, torch writes that of the temporary file into it."""
    with path.open("wb") as file:
        torch.save(content, file)


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


def _bare(part: Any) -> Any:
    """A network without DistributedDataParallel around it; any other part as it is."""
    return part.module if isinstance(part, torch.nn.parallel.DistributedDataParallel) else part
