"""Collects the prediction of every case, writes their table, and with labels has it evaluated.

What the table's columns are, and how they are written, is `metrics.predictions`' part; figures with intervals are `metrics`'.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from numpy.typing import NDArray

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.files import sha256_of, writable_folder, write_csv
from monai_chd.handlers.flag_opinions import FlagOpinions, Opinion
from monai_chd.handlers.structure_doubts import StructureDoubts
from monai_chd.labels import CLASSES
from monai_chd.metrics.calibration import Calibration, calibration_line, read_calibration, scale
from monai_chd.metrics.estimates import evaluate
from monai_chd.metrics.figures import confusion_matrix_figure
from monai_chd.metrics.predictions import (
    answered_cases,
    coverage_estimate,
    read_predictions,
    scored_cases,
    write_predictions,
)
from monai_chd.metrics.tables import metrics_table, write_metrics
from monai_chd.scans.opening import is_synthetic, scan_name
from monai_chd.wording import synthetic_note, text_table

logger = logging.getLogger(__name__)

FEW_FRAMES = 8
"""A scan of fewer slices is predicted like any other, and named."""


DISTANCES = "structures.csv"
"""Beside the predictions: how far the structures of each case are from the training's, and why it is not answered for them."""


NO_HU = "no HU: structures were learned on CT"
"""Why a network that reads structures does not answer a 4D cine."""

FLAGS_FILE = "flags.csv"
"""Beside the predictions: probabilities of diagnosis flags, the class that they make by the rule, and the most probable one."""


class Predictions:
    """Collects the prediction of every case and writes the tables, and where labels are known the evaluation.

    The model's calibration is applied: probabilities are those after the temperature, and cases below the threshold are
    abstained from, with the most probable class all the same.

    Args:
        folder: where `predictions.csv` goes, and with labels `metrics.json`, `metrics.csv`, `confusion_matrix.png`.
        dataset_dir: image paths are written relative to it.
        context: what else `metrics.json` should say (seed, checkpoint, fold, …).
        scored_as: what the cases are called where they are scored (the confusion matrix); None: they have no labels.
        checkpoint: the weights, with their `calibration.json` beside; None, or without one: probabilities as they come.
        coverage: wished share of cases to answer; None: as the model was calibrated.
        risk: instead, wished share of the answers that may be wrong.
        doubts: listens to the same evaluator before this; a case whose structures speak against answering is abstained from, and
            `structures.csv` says how far those of each case are from the training's.
        opinions: the same of a network with diagnosis flags as a second task; `flags.csv` has their probabilities, and the class
            that they make.
    """

    def __init__(
        self,
        folder: str | Path,
        dataset_dir: str | Path,
        *,
        context: Mapping[str, Any] | None = None,
        scored_as: str | None = None,
        checkpoint: str | Path | None = None,
        coverage: float | None = None,
        risk: float | None = None,
        doubts: StructureDoubts | None = None,
        opinions: FlagOpinions | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.dataset_dir = Path(dataset_dir)
        self.context = dict(context or {})
        self.scored_as = scored_as
        self.checkpoint, self.coverage, self.risk = checkpoint, coverage, risk
        self.doubts, self.opinions = doubts, opinions
        self.calibration = Calibration()
        self.rows: list[dict[str, Any]] = []
        self.distances: list[tuple[str, str, str]] = []
        self.told: list[tuple[str, Opinion, str]] = []
        self.cine: list[str] = []
        self.short: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self) -> None:
        writable_folder(self.folder)
        self.calibration = read_calibration(self.checkpoint).with_target(self.coverage, self.risk)
        self.rows.clear()
        self.distances.clear()
        self.told.clear()
        self.cine.clear()
        self.short.clear()

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        doubts = self.doubts.last if self.doubts else []
        opinions = self.opinions.last if self.opinions else []
        for place, (case, output) in enumerate(zip(state.batch, state.output, strict=True)):
            reason = str(case.get("reason", ""))
            label = case.get("label")
            path = case["image"].meta["filename_or_obj"]
            name = scan_name(path, self.dataset_dir)
            if case["image"].meta.get("intensity") == "arbitrary":
                self.cine.append(name)
            elif not reason and int(case.get("num_frames", FEW_FRAMES)) < FEW_FRAMES:
                self.short.append(name)
            unread = bool(reason)
            probabilities = None if reason else self.calibration.apply(output["pred"].cpu().double().numpy())
            if probabilities is not None and np.isfinite(probabilities).all():
                reason = self.calibration.reason(probabilities)
                if self.opinions and opinions:
                    best = CLASSES[int(probabilities.argmax())]
                    self.told.append((name, opinions[place], best))
                    reason = self.opinions.reason(opinions[place], best) or reason
                if doubts:
                    doubt = doubts[place].reason
                    if case["image"].meta.get("intensity") == "arbitrary":
                        doubt = NO_HU
                    reason = doubt or reason
                    self.distances.append((name, f"{doubts[place].distance:.6g}", doubt))
            self.rows.append(
                {
                    "image": name,
                    "patient": str(case.get("patient", "")),
                    "label": None if label is None else int(label),
                    "probabilities": probabilities,
                    "reason": reason,
                    "synthetic": not unread and Path(path).is_file() and is_synthetic(path),
                }
            )

    def _write(self) -> None:
        try:
            path = write_predictions(self.rows, self.folder / "predictions.csv")
        except UserError:
            logger.info(f"the predictions, which could not be written:\n{self._rows_text()}")
            raise
        if self.distances:
            write_csv(self.folder / DISTANCES, ("image", "distance", "reason"), sorted(self.distances))
        if self.told:
            self._write_flags()
        self._tell(path)
        if self.scored_as is not None:
            self._score(path, self.scored_as)

    def _write_flags(self) -> None:
        """Probabilities of the flags, in four digits, and the class that they make."""
        names = list(self.told[0][1].flags)
        rows = [
            [image, *(f"{opinion.flags[flag]:.4f}" for flag in names), opinion.label, best]
            for image, opinion, best in sorted(self.told, key=lambda row: row[0])
        ]
        write_csv(self.folder / FLAGS_FILE, ("image", *names, "class_by_flags", "prediction"), rows)

    def _rows_text(self) -> str:
        """All cases for the screen, so that hours of inference are not lost with a disk that is full."""
        rows = [("image", *CLASSES, "reason")]
        for row in self.rows:
            given = row["probabilities"]
            shown = [""] * len(CLASSES) if given is None else [f"{value:.6f}" for value in given]
            rows.append((row["image"], *shown, row["reason"]))
        return text_table(rows)

    def _tell(self, path: Path) -> None:
        """Say how many scans were predicted, and which of them deserve a second look."""
        without = sum(row["probabilities"] is None for row in self.rows)
        abstained = sum(bool(row["reason"]) for row in self.rows) - without
        logger.info(
            f"predictions: {path} ({len(self.rows) - without} scans predicted, {without} without a prediction"
            f"{f', {abstained} of the predicted abstained from' if abstained else ''})"
        )
        if text := calibration_line(self.calibration):
            logger.info(text)
        if text := self._synthetic_note():
            logger.info(text)
        if self.cine:
            logger.info(
                f"4D cine without HU, one slice over time, scaled by its 1st and 99th percentiles: {', '.join(self.cine)}"
            )
        if self.short:
            logger.info(f"fewer than {FEW_FRAMES} slices, hardly a heart, yet predicted: {', '.join(self.short)}")

    def _score(self, path: Path, title: str) -> None:
        """Metrics from the file, so that they are those of the table that people see."""
        table = read_predictions(path)
        labels, probabilities, patients = scored_cases(table)
        result, coverage, answered = evaluate(labels, probabilities, patients=patients), coverage_estimate(table), None
        if coverage["value"] not in (0, 1) and len((part := answered_cases(table))[0]):
            answered = evaluate(part[0], part[1], patients=part[2])
        context = {**self.context, "calibration": self._calibration(labels, probabilities, patients)}
        context["synthetic"] = self._synthetic_note() or None
        if (
            self.checkpoint is not None and Path(self.checkpoint).is_file()
        ):  # whose figures they are, whatever it is called
            context["weights_sha256"] = sha256_of(self.checkpoint)
        write_metrics(result, self.folder, context=context, coverage=coverage, answered=answered)
        confusion_matrix_figure(result["confusion_matrix"], self.folder / "confusion_matrix.png", title=title)
        logger.info(metrics_table(result, coverage=coverage, answered=answered))
        logger.info(f"metrics and confusion matrix: {self.folder}")

    def _synthetic_note(self) -> str:
        return synthetic_note(sum(row["synthetic"] for row in self.rows), len(self.rows))

    def _calibration(
        self, labels: NDArray[np.int64], probabilities: NDArray[np.float64], patients: Sequence[str]
    ) -> dict[str, Any]:
        """What was applied, for `metrics.json`, and what its temperature changed."""
        used = self.calibration
        wish = dict(used.target) if used.target else None
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
