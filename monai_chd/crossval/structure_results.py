"""What a report says of the structures of a cross-validation: Dice on patients not trained on, and what doubting them is worth.

The networks are trained in `structures`, cases are refused for their structures in `handlers.structure_doubts`.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_chd.crossval.design import Design
from monai_chd.crossval.fits import FITS_FOLDER, fit_folder
from monai_chd.crossval.structures import structure_folder
from monai_chd.errors import UserError
from monai_chd.labels import CLASSES, STRUCTURES, UNSEEN_IN_LABEL_MAPS
from monai_chd.metrics.curves import risk_coverage_by
from monai_chd.metrics.dice import dice_estimates
from monai_chd.workflow.settings import STRUCTURES_FOLDER

MEND = "; remove its folder and run the same command again"


def structure_results(design: Design, folder: Path, table: pd.DataFrame) -> dict[str, Any]:
    """Of a cross-validation whose classifier reads structures.

    Args:
        design: the cross-validation.
        folder: its output folder.
        table: its out-of-fold predictions.

    Returns:
        `dice` {structure: Estimate} of the first repeat, None without label maps of outer folds; `refused` {reason: cases};
        `risk_coverage`, the curve of answering those first whose structures are most like the training's; `unseen`, patients with
        each flag that label maps cannot show, and how many have no other.
    """
    unseen = {flag: [flags for flags in design.flags.values() if flag in flags] for flag in UNSEEN_IN_LABEL_MAPS}
    refused: Counter[str] = Counter()
    distances = {}
    for repeat, fold in _fits(design):
        for row in _rows(fit_folder(folder / FITS_FOLDER, repeat, fold) / "evaluation" / "structures.csv"):
            distances[repeat, row["image"]] = float(row["distance"])
            if row["reason"]:
                refused[row["reason"].partition(":")[0]] += 1
    places = zip(table["repeat"], table["image"], strict=True)
    distance = np.array([distances.get(place, np.nan) for place in places])
    known = np.isfinite(distance) & table[CLASSES[0]].notna().to_numpy()
    curve = risk_coverage_by(table[known], -distance[known]) if known.any() else None
    return {
        "dice": _dice(design, folder / STRUCTURES_FOLDER),
        "refused": dict(refused),
        "cases": int(known.sum()),
        "risk_coverage": curve,
        "unseen": {
            flag: {"patients": len(having), "only": sum(len(flags) == 1 for flags in having)}
            for flag, having in unseen.items()
            if having
        },
    }


def _fits(design: Design) -> Iterator[tuple[int, int]]:
    return ((repeat, fold) for repeat in range(design.repeats) for fold in range(design.folds))


def _dice(design: Design, structures: Path) -> dict[str, Any] | None:
    """Dice of each structure on the outer folds of the first repeat: every patient once."""
    rows, patients = [], []
    for fold in range(design.folds):
        path = structure_folder(structures, 0, fold) / "dice.csv"
        for row in _rows(path) if path.is_file() else ():
            rows.append([float(row[name] or "nan") for name in STRUCTURES])
            patients.append(row["patient"])
    return dice_estimates(np.array(rows), patients) if rows else None  # type: ignore[return-value]


def _rows(path: Path) -> list[dict[str, str]]:
    """Rows of a table that a fit leaves beside its predictions, or a structure network beside its weights.

    Raises:
        UserError: it is missing or none.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no table ({error}), though it was finished{MEND}") from None
