"""Writes a DICOM structured report for each predicted series, once all predictions are there.

What stands in a report is `dicom.answers`' part.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ignite.engine import Engine, Events

from monai_chd.dicom.answers import answers_can_be_written, structured_report
from monai_chd.dicom.private import is_series_file, private_folder
from monai_chd.errors import UserError
from monai_chd.files import sha256_of
from monai_chd.handlers.predictions import Predictions
from monai_chd.scans.opening import scan_stem

logger = logging.getLogger(__name__)


class DicomReports:
    """Listens to the same evaluator as `predictions`, after it.

    Args:
        folder: for `PATIENT/SERIES.sr.dcm`, under made names; the reports themselves name the patient, as filing needs. None: no
            reports.
        output_dir: of the predictions, beside which it stands who is who.
        predictions: has the rows.
    """

    def __init__(self, folder: str | Path | None, output_dir: str | Path, predictions: Predictions) -> None:
        self.folder = None if folder is None else Path(folder)
        self.private = private_folder(output_dir)
        self.predictions = predictions
        self.faults: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator, where reports are wanted."""
        if self.folder is not None:
            engine.add_event_handler(Events.STARTED, answers_can_be_written)
            engine.add_event_handler(Events.COMPLETED, self._write)

    def _write(self) -> None:
        assert self.folder is not None
        self.faults.clear()
        checkpoint, calibration = self.predictions.checkpoint, self.predictions.calibration
        weights = sha256_of(checkpoint) if checkpoint else "unknown"
        threshold = "everything" if calibration.threshold is None else f"{calibration.threshold:.4f}"
        settings = {"temperature": f"{calibration.temperature:.4f}", "abstains below": threshold}
        written = 0
        series = [row for row in self.predictions.rows if is_series_file(row["image"])]
        for row in series:
            if row["probabilities"] is None:
                continue
            out = self.folder / Path(row["image"]).with_name(f"{scan_stem(row['image'])}.sr.dcm")
            answer = {"probabilities": row["probabilities"].tolist(), "reason": row["reason"]}
            try:
                structured_report(self.private / row["image"], out, **answer, weights=weights, settings=settings)
            except UserError as error:
                self.faults.append(str(error))
                continue
            written += 1
        others = len(self.predictions.rows) - len(series)
        beside = f"; {others} scans are no DICOM series" if others else ""
        logger.info(f"structured reports: {self.folder} ({written} of {len(series)} series{beside})")

    def check(self) -> None:
        """Fail when a predicted series has no report, after all others have theirs.

        Raises:
            UserError: names the series and what is wrong with each.
        """
        if self.faults:
            listed = "\n  ".join(self.faults)
            raise UserError(
                f"{len(self.faults)} predicted series have no structured report, the others have theirs:\n  {listed}"
            )
