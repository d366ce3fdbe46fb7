"""A datalist of made-up patients with files of a few bytes, for what needs folds but no voxels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from monai_chd.crossval.design import Design
from monai_chd.labels import CLASSES

TINY_SETTINGS = {
    "encoder": "small_cnn",
    "frame_size": 16,
    "sequence_length": 8,
    "hidden_size": 8,
    "batch_size": 6,
    "max_epochs": 2,
    "cache": "memory",
}
"""Config keys and values of fits that take seconds."""


def write_datalist(folder: Path, counts: Sequence[int] = (8, 7, 6), held_out: int = 3, scans: int = 1) -> Path:
    """Patients of each class (`counts`), some of them in the test part; the files hold their own names."""
    records: dict[str, list[dict[str, object]]] = {"training": [], "test": []}
    (folder / "scans").mkdir(parents=True, exist_ok=True)
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    for number, label in enumerate(labels):
        for scan in range(scans):
            name = f"ct_{1001 + number}_image{'' if scan == 0 else scan}.nii.gz"
            content = name.encode()
            (folder / "scans" / name).write_bytes(content)
            record = {
                "image": name,
                "label": label,
                "patient": str(1001 + number),
                "flags": [["ToF"], ["VSD", "ASD"], []][label],
                "sha256": hashlib.sha256(content).hexdigest(),
                "confounders": {"slices": 40 + 10 * label + number % 3, "scanner": "AB"[number % 2], "contrast": True},
            }
            if (
                number % (len(labels) // max(held_out, 1)) == 0
                and number // (len(labels) // max(held_out, 1)) < held_out
            ):
                records["test"].append(record)
            else:
                records["training"].append({**record, "fold": number % 2})
    path = folder / "datalist.json"
    path.write_text(json.dumps({"root": "scans", "classes": list(CLASSES), **records}))
    return path


def edit_json(path: Path, change) -> Path:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def made_up_predictions(
    design: Design, right: float, seed: int = 0, labels: Mapping[str, int] | None = None
) -> pd.DataFrame:
    """Out-of-fold predictions that are right for a share of the patients, drawn at random."""
    rng = np.random.default_rng(seed)
    rows = []
    for repeat in range(design.repeats):
        for record in design.records:
            label = (labels or design.labels)[record["patient"]]
            top = label if rng.random() < right else (label + 1 + rng.integers(0, 2)) % len(CLASSES)
            scores = rng.dirichlet([1] * len(CLASSES)) * 0.4
            scores[top] += 0.6
            rows.append(
                {
                    "image": record["image"],
                    "patient": record["patient"],
                    "label": CLASSES[label],
                    "prediction": CLASSES[int(scores.argmax())],
                    **dict(zip(CLASSES, scores, strict=True)),
                    "abstain": False,
                    "reason": "",
                    "synthetic": False,
                    "repeat": repeat,
                    "fold": design.assignment[record["patient"]][repeat],
                    **{f"raw_{name}": score for name, score in zip(CLASSES, scores, strict=True)},
                }
            )
    return pd.DataFrame(rows).sort_values(["repeat", "patient", "image"], ignore_index=True)
