"""The controls of a cross-validation: what the same folds give with nothing to learn, or something simpler to learn from.

Shuffled labels and shuffled frames go through the same fits as the model; intensity, confounders and label maps through a
logistic regression. What a control means in words is the part of `control_words`.
"""

from __future__ import annotations

import json
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
from monai_chd.cohort.inspection import label_map_of
from monai_chd.crossval.control_words import CHANCE, TITLES, meaning
from monai_chd.crossval.design import Design
from monai_chd.crossval.image_features import intensity_histogram, structure_features
from monai_chd.files import replacing
from monai_chd.labels import CLASSES
from monai_chd.metrics.comparison import compare_paired
from monai_chd.metrics.estimates import Estimate, evaluate
from monai_chd.workflow.run import config_content

FITTED = ("shuffled_labels", "frame_order")
"""Controls that need fits, in the first repeat only."""

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

FEWEST = 3
"""Patients of each class with a label map, outside every outer fold, that its control needs."""


class Control(TypedDict):
    """One control of the report; its figures are undefined with n = 0 where it was not done, and `reading` says why.

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
        np.random.default_rng([self.seed, zlib.crc32(name.encode())]).shuffle(order[:count])
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


def simple_controls(
    design: Design, model: pd.DataFrame, folder: Path, *, progress: Callable[[str], None] = lambda text: None
) -> list[Control]:
    """The controls that need no fit of the bundle: intensity, confounders and label maps.

    Args:
        design: the cross-validation.
        model: its pooled predictions.
        folder: where numbers that took long are kept.
        progress: told what is being done.

    Raises:
        UserError: a scan or label map that cannot be read.
    """
    progress("control: intensity histograms")
    settings = {**config_content("train"), **design.settings}
    window, offset = settings["window"], settings["hu_offset"]
    histograms = _kept(
        folder / "intensity.json",
        design.sha256,
        {"window": list(window), "hu_offset": offset},
        {
            record["image"]: partial(
                intensity_histogram,
                Path(design.root, record["image"]),
                window,
                hu_offset=record.get("hu_offset", offset),
            )
            for record in design.records
        },
    )
    controls = [_of_table("intensity", model, classified(design, histograms))]
    controls.append(_confounder_control(design, model))
    progress("control: label maps")
    controls.append(_structure_control(design, model, folder))
    return controls


def _kept(
    path: Path,
    hashes: Mapping[str, str],
    settings: Mapping[str, Any],
    compute: Mapping[str, Callable[[], NDArray[np.float64]]],
) -> dict[str, NDArray[np.float64]]:
    """Numbers of each image, from the file that an earlier run left or computed now."""
    key = {"sha256": {image: hashes[image] for image in compute}, **settings}
    try:
        content = json.loads(path.read_text())
        if content["key"] == key:
            return {image: np.array(values) for image, values in content["values"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = {image: function() for image, function in compute.items()}
    with replacing(path) as temporary:
        values = {image: numbers.tolist() for image, numbers in found.items()}
        temporary.write_text(json.dumps({"key": key, "values": values}))
    return found


def classified(
    design: Design, features: Mapping[str, NDArray[np.float64]], classifier: Pipeline | None = None
) -> pd.DataFrame:
    """Out-of-fold predictions of a classifier of numbers, on the outer folds of all repeats.

    Args:
        design: the cross-validation.
        features: numbers of each image; images without any are left out.
        classifier: not yet fitted; None: scaling and logistic regression.

    Returns:
        A frame like `fits.pooled`, without the raw probabilities.
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
    return {
        "image": record["image"],
        "patient": record["patient"],
        "label": CLASSES[record["label"]],
        "prediction": CLASSES[int(scores.argmax())],
        **dict(zip(CLASSES, scores.tolist(), strict=True)),
        "abstain": False,
        "reason": "",
        "repeat": repeat,
        "fold": fold,
    }


def _confounder_control(design: Design, model: pd.DataFrame) -> Control:
    """What the numbers in the datalist tell, those that vary."""
    items, _, _ = read_records(design.datalist)
    rows = {item.image: confounders_of(item, Scan()) for item in items}
    names = [name for name in CONFOUNDERS if len({row[name] for row in rows.values()}) > 1]
    if not names:
        return not_done("confounders", "the datalist records no confounder that varies between patients")
    table, classifier = predictor(list(rows.values()), names)
    features = dict(zip(rows, table, strict=True))
    control = _of_table("confounders", model, classified(design, features, classifier))
    control["details"]["confounders"] = [CONFOUNDERS[name][0] for name in names]
    return control


def _structure_control(design: Design, model: pd.DataFrame, folder: Path) -> Control:
    maps = {record["image"]: label_map_of(Path(design.root, record["image"])) for record in design.records}
    found = {image: path for image, path in maps.items() if path is not None}
    if short := _too_few(design, found):
        return not_done("structures", short)
    hashes = {image: f"{path.stat().st_size} {path.stat().st_mtime_ns}" for image, path in found.items()}
    numbers = _kept(
        folder / "structures.json",
        hashes,
        {},
        {image: partial(structure_features, path) for image, path in found.items()},
    )
    control = _of_table("structures", model, classified(design, numbers))
    control["details"]["without_label_map"] = len(maps) - len(found)
    return control


def _too_few(design: Design, images: Iterable[str]) -> str:
    """Why label maps are too few for a control; empty when they are enough."""
    having = {record["patient"] for record in design.records if record["image"] in set(images)}
    if not having:
        return "there are no label maps beside the scans"
    for repeat in range(design.repeats):
        for fold in range(design.folds):
            counts = Counter(design.labels[p] for p in having if design.assignment[p][repeat] != fold)
            if min(counts[k] for k in range(len(CLASSES))) < FEWEST:
                return (
                    f"label maps of {len(having)} patients are too few: a class has fewer than {FEWEST} outside a fold"
                )
    return ""


def _of_table(name: str, model: pd.DataFrame, table: pd.DataFrame) -> Control:
    """A control out of its predictions, compared with the model on the same rows."""
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


def fitted_control(name: str, model: pd.DataFrame, table: pd.DataFrame) -> Control:
    """A control of `FITTED` out of the pooled predictions of its fits."""
    return _of_table(name, model, table)


def not_done(name: str, why: str) -> Control:
    """The entry of a control that could not be done."""
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
