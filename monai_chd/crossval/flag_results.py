"""What a report says of diagnosis flags as a second task: how well each is told, and what the class that they make is worth.

The network tells them in `networks.CNNLSTM`, the files are `handlers.predictions`'.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_chd.crossval.design import Design
from monai_chd.crossval.fits import FITS_FOLDER, fit_folder
from monai_chd.errors import UserError
from monai_chd.labels import CLASSES, FLAGS
from monai_chd.metrics.estimates import Estimate, share_by_patient
from monai_chd.metrics.flags import flag_estimates


def flag_results(design: Design, folder: Path, table: pd.DataFrame) -> dict[str, Any] | None:
    """Of a cross-validation whose classifier has flags as a second task; None of any other.

    Args:
        design: the cross-validation.
        folder: its output folder.
        table: its out-of-fold predictions.

    Returns:
        `flags` [{flag, patients, auc, ap}] of those that every fit learned; of the first repeat `by_flags`, the share right of
        the classes that flags make, `agree` and `disagree`, the share of the most probable classes that are right where both are
        the same and where not (Estimates; None without a case), and `open`, cases whose flags make no class.
    """
    if not design.config["flag_weight"]:
        return None
    told = pd.DataFrame(_rows(design, folder))
    merged = table.merge(told, on=["repeat", "image"], validate="one_to_one", suffixes=("", "_told"))
    names = [flag for flag in FLAGS if flag in merged and merged[flag].notna().all()]
    flags = design.flags
    found = []
    for flag in names:
        present = np.array([flag in flags[patient] for patient in merged["patient"]])
        probability = merged[flag].astype(float).to_numpy()
        figures = flag_estimates(present, probability, merged["patient"].tolist(), merged["repeat"].tolist())
        found.append({"flag": flag, "patients": sum(flag in own for own in flags.values()), **figures})
    first = merged[merged["repeat"] == 0]
    closed, right = first["class_by_flags"].isin(CLASSES), first["prediction"] == first["label"]
    same = first["class_by_flags"] == first["prediction"]
    return {
        "flags": found,
        "by_flags": _share(first[closed], (first["class_by_flags"] == first["label"])[closed]),
        "agree": _share(first[closed & same], right[closed & same]),
        "disagree": _share(first[closed & ~same], right[closed & ~same]),
        "open": int((~closed).sum()),
    }


def _share(rows: pd.DataFrame, right: pd.Series) -> Estimate | None:
    """Share of cases that are right; None without a case."""
    return None if rows.empty else share_by_patient(right, rows["patient"])


def _rows(design: Design, folder: Path) -> list[dict[str, Any]]:
    """Rows of the `flags.csv` of all fits, with their repeat.

    Raises:
        UserError: one is missing.
    """
    found = []
    for repeat in range(design.repeats):
        for fold in range(design.folds):
            path = fit_folder(folder / FITS_FOLDER, repeat, fold) / "evaluation" / "flags.csv"
            if not path.is_file():
                raise UserError(
                    f"{path}: missing, though the fit was finished; remove its folder and run the same command again"
                )
            with path.open(encoding="utf-8", newline="") as file:
                found += [{"repeat": repeat, **row} for row in csv.DictReader(file)]
    return found
