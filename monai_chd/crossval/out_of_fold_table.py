"""The table of out-of-fold predictions: that of all fits of a cross-validation, each patient once a repeat; predictions.csv.

What a fit leaves is `fits`' part; what the table means `metrics.evaluation`'s.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_chd.crossval.design import FOLDS_FILE, Design, fit_datalist, read_folds
from monai_chd.crossval.fits import FITS_FOLDER, PREDICTIONS, check_done, check_rows, fit_folder, model_path, read_done
from monai_chd.errors import UserError, UserFileError
from monai_chd.files import write_text
from monai_chd.labels import CLASSES
from monai_chd.metrics.calibration import read_calibration, scale
from monai_chd.metrics.out_of_fold import RAW
from monai_chd.metrics.predictions import PREDICTION_COLUMNS, is_number, read_cells, read_predictions, row_faults
from monai_chd.wording import join_faults

TABLE_FILE = "predictions.csv"

RAW_COLUMNS = tuple(RAW + name for name in CLASSES)
COLUMNS = (*PREDICTION_COLUMNS, "repeat", "fold", *RAW_COLUMNS)
"""Columns of the table: those of a fit's predictions, which fit, and the probabilities before the temperature."""


def out_of_fold_table(
    design: Design, fits: Path, repeats: Iterable[int], labels: Mapping[str, int] | None = None
) -> pd.DataFrame:
    """Put the predictions of all fits together.

    Args:
        design: the cross-validation.
        fits: folder of the fits.
        repeats: which.
        labels: of a control, as given to its fits.

    Returns:
        A frame of `COLUMNS`, types as of `predictions.read_predictions`, sorted by repeat, patient and image.

    Raises:
        UserError: a fit that never finished, was changed, or predicts another datalist; probabilities that are none.
    """
    tables = []
    for repeat in repeats:
        for fold in range(design.folds):
            folder = fit_folder(fits, repeat, fold)
            datalist = fit_datalist(design, repeat, fold, folder, labels)
            check_done(folder, datalist)
            table = read_predictions(folder / PREDICTIONS)
            check_rows(folder / PREDICTIONS, table, datalist["test"])
            table[["repeat", "fold"]] = repeat, fold
            temperature = read_calibration(model_path(folder)).temperature
            table[list(RAW_COLUMNS)] = scale(table[list(CLASSES)].to_numpy(), 1 / temperature)
            tables.append(table)
    return pd.concat(tables).sort_values(["repeat", "patient", "image"], ignore_index=True)[list(COLUMNS)]


def write_out_of_fold_table(table: pd.DataFrame, folder: Path) -> Path:
    """Write the table into the folder of the cross-validation; reading it gives the same numbers to the last bit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in table.to_dict("records"):
        cells = {name: _cell(row[name], name in (*CLASSES, *RAW_COLUMNS)) for name in COLUMNS}
        writer.writerow((cells | {"synthetic": "true" if row["synthetic"] else ""}).values())
    write_text(folder / TABLE_FILE, text.getvalue())
    return folder / TABLE_FILE


def _cell(value: Any, is_probability: bool) -> str:
    if is_probability:
        return "" if np.isnan(value) else np.format_float_positional(value, unique=True, min_digits=6)
    return str(value).lower() if isinstance(value, (bool, np.bool_)) else str(value)


def read_out_of_fold_table(folder: str | Path) -> pd.DataFrame:
    """Read the table of a finished cross-validation.

    Raises:
        UserFileError: no cross-validation there, or no table in it yet.
        UserError: a fit that never finished, or no such table.
    """
    folder = Path(folder)
    design = read_folds(folder / FOLDS_FILE)
    for repeat in range(design["repeats"]):
        for fold in range(design["folds"]):
            read_done(fit_folder(folder / FITS_FOLDER, repeat, fold))
    path = folder / TABLE_FILE
    if not path.is_file():
        raise UserFileError(f"{path}: not written yet; run `monai-chd crossval` there to its end")
    rows = read_cells(path, COLUMNS)
    faults = [
        f"row {i}, {fault}" for i, row in enumerate(rows, start=2) for fault in row_faults(row) + _own_faults(row)
    ]
    if faults:
        raise UserError(f"{path}: {join_faults(faults)}; run the same `monai-chd crossval` command there again")
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in (*CLASSES, *RAW_COLUMNS):
        table[name] = [float(cell) if cell else np.nan for cell in table[name]]
    for name in ("abstain", "synthetic"):
        table[name] = table[name] == "true"
    table[["repeat", "fold"]] = table[["repeat", "fold"]].astype(int)
    return table


def _own_faults(row: Mapping[str, str]) -> list[str]:
    """What is wrong with the cells that a fit's table has not."""
    faults = [
        f"{name}: expected a whole number, came {row[name]!r}"
        for name in ("repeat", "fold")
        if not row[name].isdecimal()
    ]
    expected = "a number" if row[CLASSES[0]] else "nothing"
    wrong = [name for name in RAW_COLUMNS if is_number(row[name]) != bool(row[CLASSES[0]])]
    return faults + [f"{name}: expected {expected}, came {row[name]!r}" for name in wrong]
