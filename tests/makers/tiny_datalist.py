"""Datalists for tests of the audit: records by place, with or without scans behind them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_chd.audit.leakage import audit
from monai_chd.labels import CLASSES

PLACES = ("fold 0", "fold 1", "the test part")


def record(image: str, patient: Any, label: int = 0, **more: Any) -> dict[str, Any]:
    """A record as `prepare` writes it, with nothing known but what is told."""
    return {"image": image, "patient": patient, "label": label, "flags": [], "sha256": "", **more}


def write_list(folder: Path, places: Mapping[str, Sequence[dict[str, Any]]], root: str | Path = ".") -> Path:
    """A datalist of records by place: folds of the training part, and the test part."""
    content: dict[str, Any] = {"root": str(root), "classes": list(CLASSES), "training": [], "test": []}
    for place, records in places.items():
        for one in records:
            training = place != PLACES[2]
            content["training" if training else "test"].append({**one, "fold": int(place[-1])} if training else one)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def quiet(path: Path, **options: Any) -> dict[str, Any]:
    """The audit of a datalist in this process, without bars."""
    return audit(path, processes=1, progress=False, **options)


def cohort_of_numbers(
    folder: Path, seed: int = 0, per_class: int = 20, by_class: bool = False, shuffled: bool = False
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A datalist without files; slice counts are random, or follow the class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(range(3), per_class)
    slices = rng.integers(150, 300, len(labels)) + (200 * labels if by_class else 0)
    labels = rng.permutation(labels) if shuffled else labels
    records = [
        record(f"{number}.nii.gz", str(number), int(label))
        | {
            "confounders": {
                "slices": int(count),
                "spacing_mm": [0.4, 0.5, float(rng.uniform(0.5, 1))] if number % 5 else None,
                "scanner": ["A", "B"][int(rng.integers(2))],
                "age_years": None if number % 4 == 0 else float(rng.uniform(0, 20)),
                "contrast": True,
            }
        }
        for number, (label, count) in enumerate(zip(labels, slices, strict=True))
    ]
    return records, quiet(write_list(folder, {"fold 0": records[::2], "the test part": records[1::2]}))
