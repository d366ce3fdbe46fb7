"""A trained model held ready for one scan after the other, as a server needs it: the bundle's own inference, begun once."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.labels import CLASSES
from monai_chd.workflow.run import Expression, configured

HANDLERS = ("weights", "inference_engine", "doubts", "opinions", "predictions", "mistakes")
"""Of inference.json, without its progress bar."""


class Answer(NamedTuple):
    """What a model says of a scan.

    Attributes:
        probabilities: calibrated, by class name in the order of `labels.CLASSES`.
        prediction: the most probable class, stood by or not.
        abstain: whether the model does not stand by it.
        reason: why not, "" when it does.
    """

    probabilities: dict[str, float]
    prediction: str
    abstain: bool
    reason: str


class Predictor:
    """Predicts scans one at a time, exactly as `monai-chd predict` does; calls from several threads wait for each other.

    Args:
        output_dir: folder of a training.
        overrides: keys of inference.json.

    Raises:
        UserFileError, UserError: no model there, or one that cannot be used; see `begin.begin_inference`.
    """

    def __init__(self, output_dir: str | Path, **overrides: Any) -> None:
        self._folder = tempfile.mkdtemp(prefix="monai_chd-")
        self._lock = threading.Lock()
        settings = {
            "dataset_dir": self._folder,
            "output_dir": str(Path(output_dir).resolve()),
            "dataset#data": [{"image": "none yet"}],  # replaced by each call
            "predictions#folder": self._folder,
            "handlers": [Expression(f"@{name}") for name in HANDLERS],
            **overrides,
        }
        names = ["begin", "dataset", "evaluator", "predictions"]
        try:
            with bare_mistakes():
                _, self._dataset, self._evaluator, self._predictions = configured(["inference"], settings, names)
        except BaseException:
            self.close()
            raise

    def __call__(self, path: str | Path) -> Answer:
        """Predict a scan.

        Args:
            path: NIfTI file, or folder with one DICOM series.

        Raises:
            UserError: it cannot be read, or is no CT; the reason.
        """
        with self._lock:
            self._dataset.data = [{"image": str(path)}]
            self._evaluator.run()
            (row,) = self._predictions.rows
        given = row["probabilities"]
        if given is None or not np.isfinite(given).all():
            raise UserError(row["reason"] or f"{path}: the model gives no finite probabilities")
        probabilities = {name: float(value) for name, value in zip(CLASSES, given, strict=True)}
        return Answer(probabilities, CLASSES[int(given.argmax())], bool(row["reason"]), row["reason"])

    def close(self) -> None:
        """Remove what was written for it."""
        shutil.rmtree(self._folder, ignore_errors=True)
