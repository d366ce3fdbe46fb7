#!/usr/bin/env python
"""What a split redrawn after training does to the figures, shown on a phantom: the mistake behind the replaced pipeline's 92 %.

The same classifiers are tested twice: on the patients that each had not seen, and on patients dealt out anew, as if the split
had been drawn again before the evaluation. Nothing else differs. Run it on a datalist of `monai-chd prepare`, or without one on a
phantom that it makes:

    scripts/leak_demonstration.py [WORK/datalist.json]

A classifier that remembers its patients (logistic regression on coarse pixels) stands for the network: an example, no model.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_chd.crossval.controls import prediction_row
from monai_chd.crossval.design import Design, new_design
from monai_chd.crossval.folds import draw_folds
from monai_chd.labels import CLASSES
from monai_chd.metrics.comparison import compare_paired
from monai_chd.metrics.estimates import evaluate
from monai_chd.metrics.wording import format_estimate
from monai_chd.workflow.run import configured

FRAME_SIZE, FRAMES = 24, 12


def pixels(design: Design) -> dict[str, np.ndarray]:
    """Coarse frames of every scan as one row of numbers, through the bundle's own preprocessing."""
    settings = {"frame_size": FRAME_SIZE, "sequence_length": FRAMES}
    (preprocessing,) = configured(["train"], settings, ["train#preprocessing"])
    return {
        record["image"]: preprocessing({"image": str(Path(design.root, record["image"]))})["image"].numpy().ravel()
        / 255.0
        for record in design.records
    }


def tested_on(design: Design, models: dict[tuple[int, int], Pipeline], shown: Design, features: Any) -> pd.DataFrame:
    """Predictions of the models of a design's folds for the patients of another's folds; `fold` is the design's own."""
    rows = []
    for record in design.records:
        for repeat in range(design.repeats):
            model = models[repeat, shown.assignment[record["patient"]][repeat]]
            scores = model.predict_proba(features[record["image"]][None])[0]
            rows.append(prediction_row(record, scores, repeat, design.assignment[record["patient"]][repeat]))
    return pd.DataFrame(rows).sort_values(["repeat", "patient", "image"], ignore_index=True)


def demonstrate(datalist: str | Path, *, folds: int = 5, repeats: int = 1, seed: int = 42) -> dict[str, Any]:
    """Accuracy of the same models on an honest and on a redrawn split, and the gap, all with intervals.

    Args:
        datalist: file made by `monai-chd prepare`.
        folds, repeats, seed: of the honest split.

    Returns:
        `honest`, `redrawn` and `gap` as estimates, and `seen`: the share of the redrawn test that the models had trained on.
    """
    design = new_design(datalist, folds=folds, repeats=repeats, seed=seed)
    features = pixels(design)
    models: dict[tuple[int, int], Pipeline] = {}
    for repeat in range(repeats):
        for fold in range(folds):
            train = [record for record in design.records if design.assignment[record["patient"]][repeat] != fold]
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
            table = np.stack([features[record["image"]] for record in train])
            models[repeat, fold] = model.fit(table, [record["label"] for record in train])
    again = replace(design, assignment=draw_folds(design.labels, folds, repeats, seed + repeats))
    honest, redrawn = (tested_on(design, models, shown, features) for shown in (design, again))
    pairs = [(own, again.assignment[p][r]) for p, f in design.assignment.items() for r, own in enumerate(f)]
    return {
        "honest": _accuracy(honest),
        "redrawn": _accuracy(redrawn),
        "gap": compare_paired(redrawn, honest)["differences"]["accuracy"],
        "seen": sum(own != other for own, other in pairs) / len(pairs),
        "patients": len(design.labels),
    }


def _accuracy(table: pd.DataFrame) -> Any:
    labels = [CLASSES.index(label) for label in table["label"]]
    columns = {"patients": table["patient"].tolist(), "repeats": table["repeat"].tolist()}
    return evaluate(labels, table[list(CLASSES)].to_numpy(), **columns)["overall"]["accuracy"]


def text(found: dict[str, Any]) -> str:
    """The result in words; no figure without its interval and n."""
    return "\n".join(
        [
            f"honest split, test patients never seen:     accuracy {format_estimate(found['honest'])}",
            f"split redrawn after training:               accuracy {format_estimate(found['redrawn'])}",
            f"gap, by nothing but the redrawn split:      {format_estimate(found['gap'])}",
            f"{found['seen']:.0%} of the redrawn test patients had been trained on (n={found['patients']} patients).",
            "`monai-chd evaluate` refuses such a test, and `monai-chd prepare` never redraws a split.",
        ]
    )


def main(arguments: list[str]) -> None:
    """Print the demonstration on the datalist named, or on a phantom."""
    from monai_chd.cohort.datalist import prepare
    from monai_chd.phantom.cohort import write_cohort

    if arguments:
        print(text(demonstrate(arguments[0])))
        return
    with tempfile.TemporaryDirectory() as scratch:
        write_cohort(Path(scratch, "cohort"), patients=60, size=48, slices=(16, 20), difficulty="realistic")
        prepare(Path(scratch, "cohort"), Path(scratch, "work"))
        print(text(demonstrate(Path(scratch, "work", "datalist.json"))))


if __name__ == "__main__":
    main(sys.argv[1:])
