"""The controls of a cross-validation: what the same folds give with nothing to learn, or something simpler to learn from.

Shuffled labels and shuffled frames go through the same fits as the model; intensity, confounders and label maps through a
logistic regression. What a control means in words is `control_words`' part.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import Dataset

from monai_chd.audit.confounders import CONFOUNDERS, confounders_of, predictor
from monai_chd.audit.fingerprints import Scan
from monai_chd.audit.records import read_records
from monai_chd.crossval.control_words import CHANCE, TITLES, meaning
from monai_chd.crossval.design import Design
from monai_chd.crossval.image_features import intensity_histogram, structure_features
from monai_chd.files import escaped, write_text
from monai_chd.labels import CLASSES
from monai_chd.metrics.comparison import compare_paired
from monai_chd.metrics.estimates import Estimate, evaluate

logger = logging.getLogger(__name__)

SHUFFLED_FRAMES = {
    f"{part}#dataloader#dataset": {
        "_target_": "monai_chd.crossval.controls.ShuffledFrames",
        "dataset": f"@{part}#dataset",
        "seed": "@seed",
    }
    for part in ("train", "validate")
}
"""Config keys that put the frames of every case in a random order, in training, validation and test."""

UNDEFINED: Estimate = {"value": None, "low": None, "high": None, "n": 0, "method": "undefined"}

FEWEST_LABEL_MAPS = 3
"""Patients of each class with a label map, outside every outer fold, that its control needs."""


class ControlResult(TypedDict):
    """What the report has of one control; its figures are undefined with n = 0 where it was not done, and `reading` says why.

    `details` has `difference` (accuracy of the model minus the control's on the same patients, repeats and folds, as an
    `Estimate`, or None), `repeats` and what else there is to say.
    """

    name: str
    title: str
    question: str
    accuracy: Estimate
    balanced_accuracy: Estimate
    reading: str
    n: int
    details: dict[str, Any]


class ShuffledFrames(Dataset[dict[str, Any]]):
    """A dataset whose cases have their real frames in a random order, the same one at every access; padding stays at the end.

    Args:
        dataset: cases with `num_frames` and `image`: frames (C, T, H, W) or features (T, F).
        seed: of the order; each scan has its own.
    """

    def __init__(self, dataset: Dataset[dict[str, Any]], seed: int = 0) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        case = dict(self.dataset[index])
        image = case["image"]
        name = Path(str(image.meta["filename_or_obj"])).name
        count, axis = int(case["num_frames"]), 0 if image.ndim == 2 else 1
        order = np.arange(image.shape[axis])
        np.random.default_rng([self.seed, zlib.crc32(os.fsencode(name))]).shuffle(order[:count])
        case["image"] = image.index_select(axis, torch.from_numpy(order))
        return case


def shuffled_labels(design: Design, repeat: int = 0) -> dict[str, int]:
    """Classes dealt out at random within each outer fold, which keeps the folds stratified."""
    rng = np.random.default_rng([design.seed, repeat])
    labels = design.labels
    shuffled = dict(labels)
    for fold in range(design.folds):
        own = [patient for patient, folds in design.assignment.items() if folds[repeat] == fold]
        for patient, donor in zip(own, rng.permutation(len(own)), strict=True):
            shuffled[patient] = labels[own[donor]]
    return shuffled


FITTED: Mapping[str, Callable[[Design], dict[str, Any]]] = {
    "shuffled_labels": lambda design: {"labels": shuffled_labels(design)},
    "frame_order": lambda design: {"extra": SHUFFLED_FRAMES},
}
"""Controls that need fits, in the first repeat only, and what `fits.run_fit` is given for them."""


def simple_controls(design: Design, model: pd.DataFrame, folder: Path) -> list[ControlResult]:
    """The controls that need no fit of the bundle: intensity, confounders and label maps.

    Args:
        design: the cross-validation.
        model: its out-of-fold predictions.
        folder: where numbers that took long are kept.

    Raises:
        UserError: a scan or label map that cannot be read.
    """
    logger.info("control: intensity histograms")
    intensity = _intensity_control(design, model, folder)
    confounders = _confounder_control(design, model)
    logger.info("control: label maps")
    return [intensity, confounders, _structure_control(design, model, folder)]


def _intensity_control(design: Design, model: pd.DataFrame, folder: Path) -> ControlResult:
    config = design.config
    window, offset = config["window"], config["hu_offset"]
    histograms = _kept(
        folder / "intensity.json",
        design.sha256,
        {"window": list(window), "hu_offset": offset},
        {
            record["image"]: partial(
                intensity_histogram, design.image_path(record), window, hu_offset=record.get("hu_offset", offset)
            )
            for record in design.records
        },
    )
    return control_result("intensity", model, classifier_predictions(design, histograms))


def _kept(
    path: Path,
    versions: Mapping[str, str],
    settings: Mapping[str, Any],
    compute: Mapping[str, Callable[[], NDArray[np.float64]]],
) -> dict[str, NDArray[np.float64]]:
    """Numbers of each image, from the file that an earlier run left or computed now.

    Args:
        path: of that file.
        versions: what changes when the file of an image does.
        settings: what else the numbers depend on.
        compute: what gives the numbers of each image.
    """
    key = {"files": {image: versions[image] for image in compute}, **settings}
    try:
        content = json.loads(path.read_text())
        if content["key"] == key:
            return {image: np.array(values) for image, values in content["values"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = {image: function() for image, function in compute.items()}
    values = {image: numbers.tolist() for image, numbers in found.items()}
    write_text(path, json.dumps({"key": key, "values": values}))
    return found


def classifier_predictions(
    design: Design, features: Mapping[str, NDArray[np.float64]], classifier: Pipeline | None = None
) -> pd.DataFrame:
    """Out-of-fold predictions of a classifier of numbers, on the outer folds of all repeats.

    Args:
        design: the cross-validation.
        features: numbers of each image; images without any are left out.
        classifier: not yet fitted; None: scaling and logistic regression.

    Returns:
        A frame like `out_of_fold_table.out_of_fold_table`, without the raw probabilities.
    """
    classifier = classifier or make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    records = [record for record in design.records if record["image"] in features]
    table = np.stack([features[record["image"]] for record in records])
    labels = np.array([record["label"] for record in records])
    rows: list[dict[str, Any]] = []
    for repeat in range(design.repeats):
        folds = np.array([design.assignment[record["patient"]][repeat] for record in records])
        for fold in sorted(set(folds.tolist())):
            test = folds == fold
            fitted = clone(classifier).fit(table[~test], labels[~test])
            probabilities = np.zeros((int(test.sum()), len(CLASSES)))
            probabilities[:, fitted.classes_] = fitted.predict_proba(table[test])
            rows += [
                prediction_row(records[index], scores, repeat, fold)
                for index, scores in zip(np.flatnonzero(test), probabilities, strict=True)
            ]
    return pd.DataFrame(rows).sort_values(["repeat", "patient", "image"], ignore_index=True)


def prediction_row(record: Mapping[str, Any], scores: NDArray[np.float64], repeat: int, fold: int) -> dict[str, Any]:
    """A row of a table of out-of-fold predictions.

    Args:
        record: of the design.
        scores: its probabilities, shape (K,).
        repeat, fold: which model gave them.
    """
    return {
        "image": escaped(record["image"]),
        "patient": record["patient"],
        "label": CLASSES[record["label"]],
        "prediction": CLASSES[int(scores.argmax())],
        **dict(zip(CLASSES, scores.tolist(), strict=True)),
        "abstain": False,
        "reason": "",
        "repeat": repeat,
        "fold": fold,
    }


def _confounder_control(design: Design, model: pd.DataFrame) -> ControlResult:
    """What the numbers in the datalist tell, those that vary."""
    items, _, _ = read_records(design.datalist)
    rows = {item.image: confounders_of(item, Scan()) for item in items}
    names = [name for name in CONFOUNDERS if len({row[name] for row in rows.values()}) > 1]
    if not names:
        return control_not_done("confounders", "the datalist records no confounder that varies between patients")
    table, classifier = predictor(list(rows.values()), names)
    features = dict(zip(rows, table, strict=True))
    control = control_result("confounders", model, classifier_predictions(design, features, classifier))
    control["details"]["confounders"] = [CONFOUNDERS[name][0] for name in names]
    return control


def _structure_control(design: Design, model: pd.DataFrame, folder: Path) -> ControlResult:
    found = {r["image"]: Path(design.root, r["label_map"]) for r in design.records if r.get("label_map")}
    if short := _too_few(design, found):
        return control_not_done("structures", short)
    versions = {image: f"{path.stat().st_size} {path.stat().st_mtime_ns}" for image, path in found.items()}
    compute = {image: partial(structure_features, path) for image, path in found.items()}
    numbers = _kept(folder / "structures.json", versions, {}, compute)
    control = control_result("structures", model, classifier_predictions(design, numbers))
    control["details"]["without_label_map"] = len(design.records) - len(found)
    return control


def _too_few(design: Design, images: Iterable[str]) -> str:
    """Why label maps are too few for a control; empty when they are enough."""
    having = {record["patient"] for record in design.records if record["image"] in set(images)}
    if not having:
        return "there are no label maps beside the scans"
    for repeat in range(design.repeats):
        for fold in range(design.folds):
            counts = Counter(design.labels[p] for p in having if design.assignment[p][repeat] != fold)
            if min(counts[k] for k in range(len(CLASSES))) < FEWEST_LABEL_MAPS:
                return (
                    f"label maps of {len(having)} patients are too few: a class has fewer than {FEWEST_LABEL_MAPS} outside "
                    f"a fold"
                )
    return ""


def control_result(name: str, model: pd.DataFrame, table: pd.DataFrame) -> ControlResult:
    """What the report has of a control, out of its predictions, which are compared with the model's on the same rows.

    Args:
        name: key of `TITLES`.
        model: out-of-fold predictions of the model.
        table: those of the control.
    """
    own = model[model["image"].isin(set(table["image"])) & model["repeat"].isin(set(table["repeat"]))]
    same = sorted(own["label"]) == sorted(table["label"]) and own[CLASSES[0]].notna().all()
    difference = compare_paired(own, table)["differences"]["accuracy"] if same and name != "shuffled_labels" else None
    result = evaluate(
        [CLASSES.index(label) for label in table["label"]],
        table[list(CLASSES)].to_numpy(),
        patients=table["patient"].tolist(),
        repeats=table["repeat"].tolist(),
    )
    overall = result["overall"]
    title, question = TITLES[name]
    return {
        "name": name,
        "title": title,
        "question": question,
        "accuracy": overall["accuracy"],
        "balanced_accuracy": overall["balanced_accuracy"],
        "reading": meaning(name, overall["balanced_accuracy"], difference),
        "n": result["patients"],
        "details": {
            "difference": difference,
            "chance_of_balanced_accuracy": CHANCE,
            "repeats": table["repeat"].nunique(),
        },
    }


def control_not_done(name: str, why: str) -> ControlResult:
    """What the report has of a control that could not be done."""
    title, question = TITLES[name]
    return {
        "name": name,
        "title": title,
        "question": question,
        "accuracy": UNDEFINED,
        "balanced_accuracy": UNDEFINED,
        "reading": f"Not done: {why}.",
        "n": 0,
        "details": {"difference": None},
    }
