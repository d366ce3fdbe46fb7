"""The MONAI Label app: serves a trained classifier, and a structure network where there is one, and trains from labels.

Runs in MONAI Label's own environment; `label_server` starts it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.train import TrainTask

from monai_chd import __version__
from monai_chd.cohort.datalist import Choices, prepare
from monai_chd.errors import UserError, user_error
from monai_chd.files import write_csv, write_text
from monai_chd.labels import CLASSES, STRUCTURES
from monai_chd.workflow.predictor import Predictor
from monai_chd.workflow.run import run_bundle
from monai_chd.workflow.settings import MODEL, model_settings
from monai_chd.workflow.structures import ENCODERS_OF_STRUCTURES, find_structures

logger = logging.getLogger(__name__)

CLASSIFIER = "chd"
TRAINED = "chd_trained"
STRUCTURE_MODEL = "chd_structures"
NOTICE = "research software, not a medical device: not for diagnosis"
TRAINING = "label_training"
"""Folder of the trainings below the output folder, one for each."""


def _answered(error: Exception) -> Exception:
    """A mistake of who asks as an answer with its text, which MONAI Label keeps to itself; others as they are."""
    if isinstance(error, MONAILabelException):
        return _answer(404, error.msg)
    mistake = user_error(error)
    return error if mistake is None else _answer(422, str(mistake))


def _answer(status: int, text: str) -> Exception:
    answer: Exception = HTTPException(status, text)
    return answer


class Classify(InferTask):  # type: ignore[misc]
    """A classifier: class names with probabilities, and whether the model stands by its answer.

    Args:
        out: folder of a training; begun with the first request, and anew when its weights change.
        description: for clients.
    """

    def __init__(self, out: Path, description: str) -> None:
        labels = {name: index for index, name in enumerate(CLASSES)}
        super().__init__(type=InferType.CLASSIFICATION, labels=labels, dimension=3, description=description)
        self.out = out
        self._held: tuple[int, Predictor] | None = None
        self._lock = threading.Lock()

    def is_valid(self) -> bool:
        """Whether there are weights."""
        return (self.out / "models" / MODEL).is_file()

    def _predictor(self) -> Predictor:
        try:
            stamp = (self.out / "models" / MODEL).stat().st_mtime_ns
        except OSError:
            raise UserError(f"{self.out}: no trained model in it any more; bring it back, or train one") from None
        if self._held is None or self._held[0] != stamp:
            if self._held is not None:
                self._held[1].close()
            self._held = stamp, Predictor(self.out)
        return self._held[1]

    def __call__(self, request: Mapping[str, Any]) -> tuple[None, dict[str, Any]]:
        """Answer a request for one image."""
        start = time.monotonic()
        with self._lock:  # requests come from several threads, and one predictor is closed when another is begun
            answer = self._predictor()(request["image"])
        scores = [
            {"idx": index, "label": name, "score": answer.probabilities[name]} for index, name in enumerate(CLASSES)
        ]
        return None, {
            "prediction": scores,
            "label": answer.prediction,
            "label_names": self.labels,
            "abstain": answer.abstain,
            "reason": answer.reason,
            "notice": NOTICE,
            "version": __version__,
            "latencies": {"total": round(time.monotonic() - start, 2)},
        }


class Segment(InferTask):  # type: ignore[misc]
    """The structure network: a label map of chambers, myocardium and great vessels in the scan's own space.

    Args:
        out: folder of a training with a structure network.
    """

    def __init__(self, out: Path) -> None:
        labels = {name: number for number, name in enumerate(STRUCTURES, 1)}
        super().__init__(
            type=InferType.SEGMENTATION, labels=labels, dimension=3, description=f"Structures of the heart ({NOTICE})"
        )
        self.out = out

    def is_valid(self) -> bool:
        """Whether there is a structure network."""
        return Path(find_structures(self.out, self.out)).is_file()

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segment one image."""
        source = Path(request["image"])
        if not self.is_valid():
            raise UserError(f"{self.out}: no structure network in it; train one with `monai-chd train-structures`")
        with tempfile.TemporaryDirectory() as folder:
            places = {"structures": find_structures(self.out, self.out), "output_dir": str(Path(folder, "out"))}
            run_bundle(["segment"], dataset_dir=str(source), **places)
            (found,) = Path(folder, "out", "segmentation").rglob("*_seg.nii.gz")
            handle, kept = tempfile.mkstemp(suffix=".nii.gz")
            os.close(handle)
            shutil.copyfile(found, kept)
        return kept, {"label_names": self.labels, "notice": NOTICE, "version": __version__}


class Train(TrainTask):  # type: ignore[misc]
    """Trains a classifier of the same kind from the classes that were submitted as labels.

    Never in place of the one that is served: it goes to a folder of its own, and is served as `chd_trained`.

    Args:
        out: folder of the training that is served.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(f"Train a classifier from submitted classes ({NOTICE})")
        self.out = out

    def config(self) -> dict[str, Any]:
        """What a client may change."""
        return {"max_epochs": 20, "folds": 5, "device": ["cpu", "cuda"]}

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Train from all labelled images of the datastore."""
        folder = self.out / TRAINING / time.strftime("%Y%m%d-%H%M%S")
        rows = [(one["image"], _class_of(Path(one["label"]))) for one in datastore.datalist()]
        if not rows:
            raise UserError('no image has a class yet; submit labels such as {"label": "Cyanotic"} with the tag final')
        studies = Path(os.path.commonpath([str(Path(image).parent) for image, _ in rows]))
        table = write_csv(folder / "labels.csv", ("image", "class"), rows)
        choices = Choices(table=table, folds=int(request.get("folds", 5)), test_fraction=0.0, skip_bad=True)
        datalist = prepare(studies, folder, choices)
        used = len(datalist["training"])
        checkpoint = self.out / "models" / MODEL
        settings = model_settings(checkpoint)
        if settings.get("encoder") in ENCODERS_OF_STRUCTURES:
            settings["structures"] = find_structures(self.out, self.out)
        places = {"datalist": str(folder / "datalist.json"), "output_dir": str(folder)}
        run_bundle(["train"], **places, **settings, max_epochs=int(request.get("max_epochs", 20)))
        newest = self.out / TRAINING / "newest.json"
        write_text(newest, json.dumps({"folder": folder.name}) + "\n")
        left_out = {"images": len(rows) - used, "why": str(folder / "excluded.csv")}
        return {"model": TRAINED, "folder": str(folder), "images": used, "left_out": left_out, "notice": NOTICE}


def _class_of(path: Path) -> str:
    """The class in a submitted label: `{"label": "Cyanotic"}`, or what this app answers."""
    try:
        content = json.loads(path.read_text("utf-8"))
        label = content["label"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path.name}: expected {{"label": one of {", ".join(CLASSES)}}} ({error})') from None
    if label not in CLASSES:
        raise UserError(f"{path.name}: expected one of {', '.join(CLASSES)} as label, got {label!r}")
    return str(label)


class _Newest(Classify):
    """The classifier that was trained last from submitted labels."""

    def __init__(self, served: Path) -> None:
        self.served = served
        super().__init__(served, f"Trained from submitted labels ({NOTICE})")

    def is_valid(self) -> bool:
        """Whether one was trained; it is looked up each time."""
        newest = self.served / TRAINING / "newest.json"
        if not newest.is_file():
            return False
        self.out = newest.parent / json.loads(newest.read_text("utf-8"))["folder"]
        return super().is_valid()

    def __call__(self, request: Mapping[str, Any]) -> tuple[None, dict[str, Any]]:
        """Answer a request for one image."""
        if not self.is_valid():
            raise UserError(f"{TRAINED}: nothing was trained from labels here yet")
        return super().__call__(request)


class App(MONAILabelApp):  # type: ignore[misc]
    """The app.

    Args:
        app_dir, studies, conf: as MONAI Label gives them; `conf["out"]` is the folder of a training.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.out = Path(conf["out"])
        super().__init__(
            app_dir,
            studies,
            conf,
            name="monai_chd",
            description=f"Congenital heart disease from cardiac CT ({NOTICE})",
            version=__version__,
        )

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> Any:
        """Answer a request; what is wrong with it comes back with its text."""
        image = request.get("image")
        if isinstance(image, str) and not Path(image).exists() and image not in self.datastore().list_images():
            raise _answer(404, f"{image}: no such image here; expected an id of the folder of scans, or a path")
        try:
            return super().infer(request, datastore)
        except Exception as error:
            answer = _answered(error)
            if answer is error:
                raise
            raise answer from error

    def init_infers(self) -> dict[str, InferTask]:
        """The models."""
        return {
            CLASSIFIER: Classify(self.out, f"Cyanotic, Non-Cyanotic or Normal ({NOTICE})"),
            TRAINED: _Newest(self.out),
            STRUCTURE_MODEL: Segment(self.out),
        }

    def init_trainers(self) -> dict[str, TrainTask]:
        """What can be trained."""
        return {CLASSIFIER: Train(self.out)}
