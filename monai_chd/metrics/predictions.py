"""The table of predictions and the tables of metrics: their columns, how they are written, checked and printed.

Computes no metric; that is `metrics`' part. Draws nothing; that is `figures`' part.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monai_chd import __version__
from monai_chd.errors import UserError
from monai_chd.files import replacing
from monai_chd.labels import CLASSES
from monai_chd.metrics.estimates import (
    NO_PATIENT,
    Estimate,
    Evaluation,
    join_faults,
    probability_fault,
    proportion_estimate,
)
from monai_chd.metrics.formulas import wilson_interval

PREDICTION_COLUMNS = ("image", "patient", "label", "prediction", *CLASSES, "abstain", "reason")
"""Columns of predictions.csv. `prediction` is the most probable class of every case that has probabilities, those abstained
from included; a case with a reason is abstained from, and a case without probabilities needs a reason."""

METRIC_COLUMNS = ("metric", "class", "value", "low", "high", "n", "method")
"""Columns of metrics.csv, one figure a row; `class` is empty for figures of all classes together."""

ROW_KEYS = frozenset({"image", "patient", "label", "probabilities", "reason"})
"""What `write_predictions` takes of a case."""

FEW_CASES = 30
"""A class with fewer cases has an interval that means little (methods.md, section 3)."""

NOTE = "Research software, not a medical device."


def write_predictions(rows: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Write the table of predictions, one row a case, sorted by patient and image.

    Probabilities are written so that reading them gives the same numbers to the last bit, hence the same metrics.

    Args:
        rows: cases with the keys `image`, `patient` ("" or None when unknown, which a case with a label may not have),
            `label` (index in `CLASSES`, or None), `probabilities` (shape (K,), or None), `reason` (why the case is
            abstained from, or "").
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
    return _write_csv(PREDICTION_COLUMNS, records, Path(path))


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
    rows = _read_cells(path)
    faults = [f"row {i}, {fault}" for i, row in enumerate(rows, start=2) for fault in _row_faults(row)]
    faults += _repeated([row["image"] for row in rows])
    if faults:
        raise UserError(f"{path}: {join_faults(faults)}")
    # Cells stay the text they are: a patient "007" or "NA" is neither a number nor missing.
    table = pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))
    for name in CLASSES:
        table[name] = [float(cell) if cell else np.nan for cell in table[name]]
    table["abstain"] = [row["abstain"] == "true" for row in rows]
    return table


def scored_cases(table: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.float64], list[str]]:
    """Take what `metrics.evaluate` needs from a table: the cases that have a label and probabilities.

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
    by_patient = (~labelled["abstain"]).groupby(labelled["patient"]).agg(["sum", "count"])
    estimate = proportion_estimate(by_patient["sum"], by_patient["count"])
    if estimate is None:
        n, value = len(by_patient), float((by_patient["sum"] / by_patient["count"]).mean())
        low, high = wilson_interval(value * n, n)
        estimate = {"value": value, "low": low, "high": high, "n": n, "method": "wilson_mean"}
    return estimate


def write_metrics(
    result: Evaluation,
    folder: str | os.PathLike[str],
    *,
    context: Mapping[str, Any],
    coverage: Estimate | None = None,
    answered: Evaluation | None = None,
) -> tuple[Path, Path]:
    """Write an evaluation as metrics.json (everything) and metrics.csv (one figure a row).

    Args:
        result: from `metrics.evaluate`.
        folder: where to; made when missing.
        context: what was evaluated, as JSON takes it: seed of the training, checkpoint, data. Versions are added here.
        coverage: share of cases answered.
        answered: evaluation of the answered cases alone, when some were abstained from; in metrics.csv its figures begin
            with `answered_`.

    Returns:
        Paths of the json and of the csv.

    Raises:
        UserError: a NaN or infinity, which JSON does not have.
        TypeError: a value in `context` that JSON does not take, such as a path.
    """
    folder = Path(folder)
    content = {
        "note": NOTE,
        "context": {"seed": None, **context, "classes": list(CLASSES), "versions": software_versions()},
        "result": result,
        "coverage": coverage,
        "answered": answered,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    records = [
        [metric, name, *("" if value is None else value for value in estimate.values())]
        for metric, name, estimate in _all_figures(result, coverage, answered)
    ]
    with replacing(folder / "metrics.json") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return folder / "metrics.json", _write_csv(METRIC_COLUMNS, records, folder / "metrics.csv")


def software_versions() -> dict[str, str]:
    """Versions of what decides the numbers, by distribution name; none of it is imported for this."""
    others = {name: _version(name) for name in ("monai", "torch", "numpy", "scikit-learn")}
    return {"monai_chd": __version__, **others, "python": platform.python_version()}


def format_estimate(estimate: Estimate) -> str:
    """Print a figure as `0.533 [0.361, 0.698] n=30`; never without its interval and its n."""
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None:
        return f"undefined n={estimate['n']}"
    interval = "no interval" if low is None else f"{low:.3f}, {high:.3f}"
    return f"{value:.3f} [{interval}] n={estimate['n']}"


def metrics_table(result: Evaluation, *, coverage: Estimate | None = None, answered: Evaluation | None = None) -> str:
    """Print an evaluation as aligned text: figures of all classes and of each, confusion matrix, what to keep in mind.

    Args:
        result: from `metrics.evaluate`, or its JSON read back.
        coverage: share of cases answered.
        answered: evaluation of the answered cases alone; stands in columns beside that of all.

    Returns:
        Lines without a newline at the end.
    """
    every = [result, *([answered] if answered else [])]
    overall = [
        [_spoken(name), *(format_estimate(part["overall"][name]) for part in every)] for name in result["overall"]
    ]
    baselines = [part["majority_baseline"] for part in every]
    overall.append([f"baseline: always {baselines[0]['label']}", *(format_estimate(b["accuracy"]) for b in baselines)])
    header = ["all classes", "value [interval] n"]
    if answered:
        header = ["all classes", "all cases: value [interval] n", "answered cases only"]
    if coverage and coverage["value"] != 1:
        overall.insert(0, ["share answered", format_estimate(coverage), *([""] if answered else [])])
    tables = [_aligned(header, overall), *_class_tables(result)]
    if answered:
        tables += [f"{answered['cases']} answered cases only", *_class_tables(answered)]
    return "\n\n".join(
        [f"{result['cases']} cases of {result['patients']} patients", *tables, "\n".join(_remarks(result))]
    )


def _spoken(name: str) -> str:
    """A key of `metrics.OVERALL` as it is printed."""
    words = {"f1": "F1", "mcc": "MCC", "auc": "AUC", "ece": "ECE", "brier": "Brier score"}
    return " ".join(words.get(word, word) for word in name.split("_"))


def _class_tables(result: Evaluation) -> list[str]:
    """Figures of each class, and the confusion matrix."""
    by_class = [
        [
            name,
            *map(format_estimate, (each["precision"], each["recall"], each["f1"], each["auc"])),
            f"{each['support']}",
        ]
        for name, each in result["per_class"].items()
    ]
    confusion = [
        [name, *map(str, row)] for name, row in zip(result["classes"], result["confusion_matrix"], strict=True)
    ]
    return [
        _aligned(["class", "precision", "recall", "F1", "AUC", "cases"], by_class),
        _aligned(["true \\ predicted", *result["classes"]], confusion),
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # monai-weekly is monai under another name; no reason to lose an evaluation
        return "unknown"


def _write_csv(header: Iterable[str], records: Iterable[Iterable[Any]], path: Path) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *records])
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def _case_fault(case: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a case given to `write_predictions`; None when nothing is."""
    if set(case) != ROW_KEYS:
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
    return [str(case["image"]), _patient(case), label, prediction, *cells, abstain, str(case["reason"])]


def _repeated(images: list[str]) -> list[str]:
    """Name images that come twice, as when a distributed sampler fills its last batch: they would count twice."""
    return [f"image {image}: expected one row, came {rows}" for image, rows in Counter(images).items() if rows > 1]


def _read_cells(path: Path) -> list[dict[str, str]]:
    """Read the rows of a csv that has `PREDICTION_COLUMNS`, as text by column."""
    columns = list(PREDICTION_COLUMNS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets prepend a BOM
            header, *rows = list(csv.reader(file)) or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        # Not chained: `errors` shows the first cause, and that one does not name the file.
        raise UserError(f"{path}: expected a csv in UTF-8: {error}") from None
    if header != columns:
        raise UserError(f"{path}: expected the columns {', '.join(columns)}, came {', '.join(header) or 'none'}")
    if not rows:
        raise UserError(f"{path}: expected at least one case, came none")
    for i, row in enumerate(rows, start=2):
        if len(row) != len(columns):
            raise UserError(f"{path}: row {i}: expected {len(columns)} cells, came {len(row)}")
    cells = [dict(zip(columns, row, strict=True)) for row in rows]
    return [{**row, "abstain": row["abstain"].lower()} for row in cells]  # spreadsheets write TRUE


def _row_faults(row: Mapping[Any, str]) -> list[str]:
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
    elif (row["abstain"] == "true") != bool(row["reason"]):
        faults.append(f"reason: expected one exactly when abstain is true, came {row['reason']!r}")
    return faults or _score_faults(row)


def _score_faults(row: Mapping[Any, str]) -> list[str]:
    """Say what is wrong with the probabilities of a row, or with a prediction that does not follow from them."""
    cells, expected = [row[name] for name in CLASSES], ""
    if any(cells) or row["abstain"] == "false":
        by_name = zip(CLASSES, cells, strict=True)
        faults = [f"{name}: expected a number, came {cell!r}" for name, cell in by_name if not _is_number(cell)]
        if faults:
            return faults
        probabilities = np.array(cells, dtype=np.float64)
        if fault := probability_fault(probabilities):
            return [f"{'/'.join(CLASSES)}: {fault}"]
        expected = CLASSES[int(probabilities.argmax())]
    if row["prediction"] == expected:
        return []
    return [f"prediction: expected {expected or 'none without probabilities'}, came {row['prediction'] or 'none'}"]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _tidy(result: Evaluation) -> Iterator[tuple[str, str, Estimate]]:
    """Walk all figures of an evaluation as metric, class, estimate."""
    for metric, estimate in result["overall"].items():
        yield metric, "", estimate
    baseline = result["majority_baseline"]
    yield "majority_baseline_accuracy", baseline["label"], baseline["accuracy"]
    for name, estimates in result["per_class"].items():
        yield "precision", name, estimates["precision"]
        yield "recall", name, estimates["recall"]
        yield "f1", name, estimates["f1"]
        yield "auc", name, estimates["auc"]
        support = estimates["support"]
        yield "support", name, {"value": support, "low": None, "high": None, "n": support, "method": "count"}


def _all_figures(
    result: Evaluation, coverage: Estimate | None, answered: Evaluation | None
) -> Iterator[tuple[str, str, Estimate]]:
    """The figures of all cases, and when some were abstained from the share answered and the figures of the others."""
    yield from _tidy(result)
    if coverage and coverage["value"] != 1:
        yield "coverage", "", coverage
    if answered:
        yield from ((f"answered_{metric}", name, estimate) for metric, name, estimate in _tidy(answered))


def _aligned(header: list[str], rows: list[list[str]]) -> str:
    """Lay out columns; counts to the right, all else to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    aligned = [
        [cell.rjust(width) if cell.isdigit() else cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        for row in [header, *rows]
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in aligned)


def _remarks(result: Evaluation) -> list[str]:
    """What a reader of the figures has to know."""
    intervals = result["intervals"]
    remarks = [
        f"Intervals: {intervals['confidence']:.0%}. Accuracy, precision, recall: Wilson if no patient has two cases;",
        f"all else: BCa bootstrap, {intervals['resamples']} resamples of patients (seed {intervals['seed']}), percentiles where "
        f"BCa is undefined.",
        "Log-loss, Brier score (0..2) and ECE: smaller is better.",
    ]
    few = [f"{name} {each['support']}" for name, each in result["per_class"].items() if each["support"] < FEW_CASES]
    if few:
        remarks.append(f"Fewer than {FEW_CASES} cases ({', '.join(few)}): such an interval is wide and means little.")
    if any(estimate["method"] == "not_estimable" for _, _, estimate in _tidy(result)):
        remarks.append("[no interval]: all resamples give this value, so resampling cannot tell; it is not certainty.")
    return [*remarks, NOTE]
