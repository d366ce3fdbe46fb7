"""The figures of an evaluation as files and as printed text: metrics.json, metrics.csv, aligned tables.

Computes no figure; one figure is written by `wording`, pictures are the part of `figures`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_chd.files import write_csv, write_text
from monai_chd.labels import CLASSES
from monai_chd.metrics.estimates import FEW, SHOWN, Estimate, Evaluation
from monai_chd.metrics.wording import format_estimate
from monai_chd.versions import software_versions
from monai_chd.wording import NOTE, text_table

METRIC_COLUMNS = ("metric", "class", "value", "low", "high", "n", "method")
"""Columns of metrics.csv, one figure a row; `class` is empty for figures of all classes together."""


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
        result: from `estimates.evaluate`.
        folder: where to; made when missing.
        context: what was evaluated, as JSON takes it: seed of the training, checkpoint, data. Versions are added here.
        coverage: share of cases answered.
        answered: evaluation of the answered cases alone, when some were abstained from; in metrics.csv its figures begin
            with `answered_`.

    Returns:
        Paths of the json and of the csv.

    Raises:
        ValueError: a NaN or infinity, which JSON does not have.
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
    write_text(folder / "metrics.json", text)
    return folder / "metrics.json", write_csv(folder / "metrics.csv", METRIC_COLUMNS, records)


def metrics_table(result: Evaluation, *, coverage: Estimate | None = None, answered: Evaluation | None = None) -> str:
    """An evaluation as aligned text: figures of all classes and of each, confusion matrix, what to keep in mind.

    Args:
        result: from `estimates.evaluate`, or its JSON read back.
        coverage: share of cases answered.
        answered: evaluation of the answered cases alone; stands in columns beside that of all.

    Returns:
        Lines without a newline at the end.
    """
    every = [result, *([answered] if answered else [])]
    overall = [[_spoken(name), *(format_estimate(part["overall"][name]) for part in every)] for name in SHOWN]
    baselines = [part["majority_baseline"] for part in every]
    overall.append([f"baseline: always {baselines[0]['label']}", *(format_estimate(b["accuracy"]) for b in baselines)])
    header = ["all classes", "value [interval] n"]
    if answered:
        header = ["all classes", "all cases: value [interval] n", "answered cases only"]
    if coverage and coverage["value"] != 1:
        overall.insert(0, ["share answered", format_estimate(coverage), *([""] if answered else [])])
    tables = [text_table([header, *overall]), *_class_tables(result)]
    if answered:
        tables += [f"{answered['cases']} answered cases only", *_class_tables(answered)]
    return "\n\n".join(
        [f"{result['cases']} cases of {result['patients']} patients", *tables, "\n".join(_remarks(result))]
    )


def _spoken(name: str) -> str:
    """A key of `estimates.OVERALL` as it is printed."""
    if name == "balanced_accuracy":
        return "balanced accuracy (macro recall)"
    words = {"f1": "F1", "mcc": "MCC", "auc": "AUC", "ece": "ECE", "brier": "Brier score"}
    return " ".join(words.get(word, word) for word in name.split("_"))


def _class_tables(result: Evaluation) -> list[str]:
    """Figures of each class, and the confusion matrix."""
    by_class = [
        [name, *map(format_estimate, (each["precision"], each["recall"], each["f1"], each["auc"])), each["support"]]
        for name, each in result["per_class"].items()
    ]
    confusion = [[name, *row] for name, row in zip(result["classes"], result["confusion_matrix"], strict=True)]
    return [
        text_table([["class", "precision", "recall", "F1", "AUC", "cases"], *by_class]),
        text_table([["true \\ predicted", *result["classes"]], *confusion]),
    ]


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


def _remarks(result: Evaluation) -> list[str]:
    """What a reader of the figures has to know."""
    intervals = result["intervals"]
    remarks = [
        f"Intervals: {intervals['confidence']:.0%}. Accuracy, precision, recall: Wilson if no patient has two cases;",
        f"all else: BCa bootstrap, {intervals['resamples']} resamples of patients (seed {intervals['seed']}), percentiles where "
        f"BCa is undefined.",
        "Log-loss, Brier score (0..2) and ECE: smaller is better.",
    ]
    few = [f"{name} {each['support']}" for name, each in result["per_class"].items() if each["support"] < FEW]
    if few:
        remarks.append(f"Fewer than {FEW} cases ({', '.join(few)}): such an interval is wide and means little.")
    if any(estimate["method"] == "not_estimable" for _, _, estimate in _tidy(result)):
        remarks.append("[no interval]: all resamples give this value, so resampling cannot tell; it is not certainty.")
    return [*remarks, NOTE]
