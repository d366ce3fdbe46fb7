"""The table of predictions: its columns, how it is written, read and checked, and which of its cases are scored.

What the figures of these cases are is the part of `estimates`, how they are written that of `tables`.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monai_chd.errors import UserError
from monai_chd.files import write_csv
from monai_chd.labels import CLASSES
from monai_chd.metrics.estimates import NO_PATIENT, Estimate, probability_fault, share_by_patient
from monai_chd.wording import join_faults

PREDICTION_COLUMNS = ("image", "patient", "label", "prediction", *CLASSES, "abstain", "reason", "synthetic")
"""Columns of predictions.csv. `prediction` is the most probable class of every case that has probabilities, those abstained
from included; a case with a reason is abstained from, and a case without probabilities needs a reason.
`synthetic` is true for a scan that says it was made up, and empty for one that says nothing."""

ROW_KEYS = frozenset({"image", "patient", "label", "probabilities", "reason"})
"""What `write_predictions` takes of a case."""


def write_predictions(rows: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Write the table of predictions, one row a case, sorted by patient and image.

    Probabilities are written so that reading them gives the same numbers to the last bit, hence the same metrics.

    Args:
        rows: cases with the keys `image`, `patient` ("" or None when unknown, which a case with a label may not have),
            `label` (index in `CLASSES`, or None), `probabilities` (shape (K,), or None), `reason` (why the case is
            abstained from, or ""), and `synthetic` where the scan says that it was made up.
        path: the csv to write; an existing one is replaced only when the new one is complete.

    Returns:
        `path`.

    Raises:
        UserError: no cases, or cases that are incomplete, contradict themselves or come twice; all of them are listed.
    """
    cases = list(rows)
    faults = [f"case {i}: {fault}" for i, case in enumerate(cases) if (fault := _case_fault(case))]
    if not faults:
        faults = _repeated([str(case["image"]) for case in cases])
    if faults or not cases:
        raise UserError(f"{path}: {join_faults(faults) if faults else 'expected at least one case, came none'}")
    records = sorted((_record(case) for case in cases), key=lambda record: (record[1], record[0]))
    return write_csv(Path(path), PREDICTION_COLUMNS, records)


def read_predictions(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read and check a table of predictions.

    Args:
        path: a csv of `write_predictions`.

    Returns:
        A frame with `PREDICTION_COLUMNS`: text (label and prediction are class names, empty where there is none),
        float64 probabilities (NaN where there are none) and bool `abstain`.

    Raises:
        UserFileError: no such file.
        UserError: no such table; names the file and the bad rows as a spreadsheet counts them (row 1 is the header).
    """
    path = Path(path)
    rows = read_cells(path, PREDICTION_COLUMNS)
    faults = [f"row {i}, {fault}" for i, row in enumerate(rows, start=2) for fault in row_faults(row)]
    faults += _repeated([row["image"] for row in rows])
    if faults:
        raise UserError(f"{path}: {join_faults(faults)}")
    # Cells stay the text they are: a patient "007" or "NA" is neither a number nor missing.
    table = pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))
    for name in CLASSES:
        table[name] = [float(cell) if cell else np.nan for cell in table[name]]
    for name in ("abstain", "synthetic"):
        table[name] = [row[name] == "true" for row in rows]
    return table


def scored_cases(table: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.float64], list[str]]:
    """Take what `estimates.evaluate` needs from a table: the cases that have a label and probabilities.

    Cases abstained from are among them when they have probabilities, so the metrics are those of full coverage.

    Args:
        table: as from `read_predictions`.

    Returns:
        Labels (N,), probabilities (N, K) and patients (N,).
    """
    scored = table[(table["label"] != "") & table[CLASSES[0]].notna()]
    labels = np.array([CLASSES.index(label) for label in scored["label"]], dtype=np.int64)
    return labels, scored[list(CLASSES)].to_numpy(dtype=np.float64), scored["patient"].tolist()


def answered_cases(table: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.float64], list[str]]:
    """The same as `scored_cases` of the cases that are not abstained from."""
    return scored_cases(table[~table["abstain"]])


def coverage_estimate(table: pd.DataFrame) -> Estimate:
    """Share of the cases with a label that are answered; those without probabilities are not.

    Where a patient has several cases, the interval is that of the mean share of the patients.

    Args:
        table: as from `read_predictions`.
    """
    labelled = table[table["label"] != ""]
    return share_by_patient(~labelled["abstain"], labelled["patient"])


def _case_fault(case: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a case given to `write_predictions`; None when nothing is."""
    if set(case) - {"synthetic"} != ROW_KEYS:
        return f"expected the keys {', '.join(sorted(ROW_KEYS))}, came {', '.join(sorted(case))}"
    name, label = f"image {case['image']}", case["label"]
    if case["image"] is None or not str(case["image"]).strip():
        return f"{name}: expected the name of an image"
    if label is not None and _patient(case) == "":
        return f"{name}: expected a patient, as it has a label, came {case['patient']!r}"
    if label is not None and label not in range(len(CLASSES)):
        return f"{name}: expected a label 0..{len(CLASSES) - 1} or None, came {label!r}"
    if case["probabilities"] is None:
        return None if case["reason"] else f"{name}: expected probabilities, or a reason why there are none"
    fault = probability_fault(np.asarray(case["probabilities"], dtype=np.float64))
    return f"{name}: {fault}" if fault else None


def _patient(case: Mapping[Any, Any]) -> str:
    """The patient of a case, empty when unknown."""
    name = str(case["patient"]).strip()
    return "" if name in NO_PATIENT else name


def _record(case: Mapping[str, Any]) -> list[str]:
    """Turn a case into cells in the order of `PREDICTION_COLUMNS`."""
    label = "" if case["label"] is None else CLASSES[int(case["label"])]
    prediction, cells = "", [""] * len(CLASSES)
    if case["probabilities"] is not None:
        probabilities = np.asarray(case["probabilities"], dtype=np.float64)
        # The shortest digits that read back as the same number, at least six, never as 1e-07.
        cells = [np.format_float_positional(value, unique=True, min_digits=6) for value in probabilities]
        prediction = CLASSES[int(probabilities.argmax())]
    abstain = "true" if case["reason"] else "false"
    synthetic = "true" if case.get("synthetic") else ""
    return [str(case["image"]), _patient(case), label, prediction, *cells, abstain, str(case["reason"]), synthetic]


def _repeated(images: list[str]) -> list[str]:
    """Name images that come twice, as when a distributed sampler fills its last batch: they would count twice."""
    return [f"image {image}: expected one row, came {rows}" for image, rows in Counter(images).items() if rows > 1]


def read_cells(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a csv that has `PREDICTION_COLUMNS`, or these and others, as text by column.

    Raises:
        UserFileError: no such file.
        UserError: no csv in UTF-8, other columns, no row, or a row of another length.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets prepend a BOM
            header, *rows = list(csv.reader(file)) or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        # Not chained: `errors` shows the first cause, and that one does not name the file.
        raise UserError(f"{path}: expected a csv in UTF-8: {error}") from None
    if header != list(columns):
        raise UserError(f"{path}: expected the columns {', '.join(columns)}, came {', '.join(header) or 'none'}")
    if not rows:
        raise UserError(f"{path}: expected at least one case, came none")
    for i, row in enumerate(rows, start=2):
        if len(row) != len(columns):
            raise UserError(f"{path}: row {i}: expected {len(columns)} cells, came {len(row)}")
    cells = [dict(zip(columns, row, strict=True)) for row in rows]
    return [{**row, **{name: row[name].lower() for name in ("abstain", "synthetic")}} for row in cells]  # TRUE in Excel


def row_faults(row: Mapping[Any, str]) -> list[str]:
    """Say what is wrong with a row of text cells, each fault beginning with its column."""
    faults = [] if row["image"].strip() else ["image: expected a name, came none"]
    if row["label"] and _patient(row) == "":
        faults.append(f"patient: expected one, as there is a label, came {row['patient'] or 'none'}")
    faults += [
        f"{name}: expected {', '.join(CLASSES)} or nothing, came {row[name]!r}"
        for name in ("label", "prediction")
        if row[name] not in (*CLASSES, "")
    ]
    if row["abstain"] not in ("true", "false"):
        faults.append(f"abstain: expected true or false, came {row['abstain']!r}")
    if row["synthetic"] not in ("true", ""):
        faults.append(f"synthetic: expected true or nothing, came {row['synthetic']!r}")
    if row["abstain"] in ("true", "false") and (row["abstain"] == "true") != bool(row["reason"]):
        faults.append(f"reason: expected one exactly when abstain is true, came {row['reason']!r}")
    return faults or _score_faults(row)


def _score_faults(row: Mapping[Any, str]) -> list[str]:
    """Say what is wrong with the probabilities of a row, or with a prediction that does not follow from them."""
    cells, expected = [row[name] for name in CLASSES], ""
    if any(cells) or row["abstain"] == "false":
        by_name = zip(CLASSES, cells, strict=True)
        faults = [f"{name}: expected a number, came {cell!r}" for name, cell in by_name if not is_number(cell)]
        if faults:
            return faults
        probabilities = np.array(cells, dtype=np.float64)
        if fault := probability_fault(probabilities):
            return [f"{'/'.join(CLASSES)}: {fault}"]
        expected = CLASSES[int(probabilities.argmax())]
    if row["prediction"] == expected:
        return []
    return [f"prediction: expected {expected or 'none without probabilities'}, came {row['prediction'] or 'none'}"]


def is_number(cell: str) -> bool:
    """Whether a cell holds a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
