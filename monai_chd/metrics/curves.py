"""Curves: of out-of-fold predictions, each the mean over repeats (ROC, precision-recall, reliability, risk-coverage), and of
a training by epoch, with its best epoch.

Draws nothing; that is the part of `figures` (PNG) and of the report (SVG).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from monai_chd.errors import UserError
from monai_chd.labels import CLASSES
from monai_chd.metrics.estimates import Estimate, Evaluation
from monai_chd.metrics.formulas import (
    ECE_BINS,
    patient_weights,
    reliability_bins,
    risk_coverage,
    weighted_aurc,
    wilson_interval,
)
from monai_chd.metrics.out_of_fold import Cases, figure_estimate, read_cases

FEWEST_IN_BIN = 10
"""Patients in a bin of the reliability diagram: with fewer, each interval spans the picture and the line jumps from 0 to 1."""

PUBLISHED_COVERAGE, PUBLISHED_RISK = 0.884, 0.18
PUBLISHED = (
    "The ImageCHD baseline (MICCAI 2020) was right in 82.0% at 88.4% coverage, but at another task: 16 diagnoses from "
    "segmented hearts. The point is a landmark, not a competitor."
)


class Bin(TypedDict):
    """A bin of equal mass of the reliability diagram; the interval is Wilson's with `n` patients."""

    confidence: float
    accuracy: float
    n: int
    low: float
    high: float


class Reliability(TypedDict):
    """Reliability of the top class, and the figures that calibration changes."""

    bins: list[Bin]
    ece: Estimate
    log_loss: Estimate
    brier: Estimate


class BeforeAfter(TypedDict):
    """Before and after the temperature; `before` is None when the table has no raw probabilities."""

    before: Reliability | None
    after: Reliability


class RiskCoverage(TypedDict):
    """Share wrong among the most confident patients, by their share; areas are better when smaller.

    `published` has coverage, risk and a sentence.
    """

    coverage: list[float]
    risk: list[float]
    aurc: Estimate
    augrc: Estimate
    published: dict[str, Any]


class Curves(TypedDict):
    """Curves: `roc` {class: fpr, tpr} and `pr` {class: recall, precision, prevalence} are means over repeats."""

    roc: dict[str, dict[str, list[float]]]
    pr: dict[str, dict[str, Any]]
    reliability: BeforeAfter
    risk_coverage: RiskCoverage


class LearningCurves(NamedTuple):
    """What a drawing of one training shows: points (epoch, value) of each series by its name, and the epoch to mark.

    `loss` has training and validation; `score` has macro-F1 and accuracy, both of the validation cases. Points stand only
    where the value is a finite number; a line joins them across the epochs between. `best` is as from `best_epoch`.
    """

    loss: dict[str, list[tuple[float, float]]]
    score: dict[str, list[tuple[float, float]]]
    best: tuple[int, str] | None


CLASSIFIED = ("macro-F1", "accuracy")
SEGMENTED = ("mean Dice",)
SCORES = {"macro-F1": "val_macro_f1", "accuracy": "val_accuracy", "mean Dice": "val_mean_dice"}
"""Figures of a validation that are better when larger, by the name they are drawn with."""


def learning_curves(history: Sequence[Mapping[str, Any]]) -> LearningCurves:
    """What is drawn of a training.

    Args:
        history: one mapping an epoch with `epoch` and any of `train_loss`, `val_loss`, `val_macro_f1`, `val_accuracy`,
            `val_mean_dice`; a value may be missing, None or not finite.

    Raises:
        UserError: no epoch, or an entry without `epoch`.
    """
    bad = [i for i, entry in enumerate(history) if not math.isfinite(_number(entry, "epoch"))]
    if bad or not len(history):
        raise UserError(f"expected entries with an epoch, came {f'none in history{bad}' if bad else 'no entry'}")
    return LearningCurves(
        loss={"training": _points(history, "train_loss"), "validation": _points(history, "val_loss")},
        score={name: _points(history, SCORES[name]) for name in _scores_of(history)},
        best=best_epoch(history),
    )


def _scores_of(history: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What is drawn: a classifier's scores, unless it is a structure network that was trained."""
    return SEGMENTED if any(SCORES[SEGMENTED[0]] in entry for entry in history) else CLASSIFIED


def best_epoch(history: Sequence[Mapping[str, Any]]) -> tuple[int, str] | None:
    """The first epoch with the highest `val_macro_f1` or `val_mean_dice`, without any the one with the lowest `val_loss`, and
    the reason.

    Returns:
        Epoch and reason in words; None when no epoch was validated.
    """
    for key, sign, reason in (
        ("val_macro_f1", 1, "highest validation macro-F1"),
        ("val_mean_dice", 1, "highest validation mean Dice"),
        ("val_loss", -1, "lowest validation loss"),
    ):
        if points := _points(history, key):
            return int(max(points, key=lambda point: sign * point[1])[0]), reason
    return None


def mean_curves(
    cases: Cases, raw: NDArray[np.float64] | None, scored: Evaluation, *, resamples: int, seed: int
) -> Curves:
    """All curves.

    Args:
        cases: the cases.
        raw: their probabilities before the temperature, shape (N, K); None when unknown.
        scored: the evaluation of the cases.
        resamples, seed: of the intervals, as for `scored`.
    """
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    before = None
    if raw is not None:
        uncalibrated = cases.with_probabilities(raw)
        before = _diagram(uncalibrated, uncalibrated.evaluate(**options))
    return {
        "roc": mean_roc(cases),
        "pr": mean_pr(cases),
        "reliability": {"before": before, "after": _diagram(cases, scored)},
        "risk_coverage": _risk_coverage(cases, cases.figures(resamples, seed), resamples),
    }


def mean_roc(cases: Cases) -> dict[str, dict[str, list[float]]]:
    """Mean true positive rate over repeats at each false positive rate; classes that are all or none are left out."""
    curves = {}
    for k, name in enumerate(CLASSES):
        found = []
        for part in cases.by_repeat():
            ours = part.labels == k
            if 0 < ours.sum() < len(ours):
                found.append(roc_curve(ours, part.probabilities[:, k], drop_intermediate=False)[:2])
        if found:
            grid = np.unique(np.concatenate([np.round(fpr, 12) for fpr, _ in found]))
            # A staircase: the highest point reached at or before each rate.
            steps = [tpr[np.searchsorted(np.round(fpr, 12), grid, side="right") - 1] for fpr, tpr in found]
            mean = np.mean(steps, axis=0)
            curves[name] = {"fpr": [0.0, *grid.tolist()], "tpr": [0.0, *mean.tolist()]}
    return curves


def mean_pr(cases: Cases) -> dict[str, dict[str, Any]]:
    """Mean precision over repeats at each recall; classes without cases are left out."""
    curves: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(CLASSES):
        found = []
        for part in cases.by_repeat():
            ours = part.labels == k
            if ours.any():
                precision, recall, _ = precision_recall_curve(ours, part.probabilities[:, k])
                found.append((precision[:-1][::-1], np.round(recall[:-1][::-1], 12)))  # recall rises
        if found:
            grid = np.unique(np.concatenate([recall for _, recall in found]))
            grid = grid[grid > 0]
            # The first threshold that reaches a recall has the best precision of those that give it.
            mean = np.mean([precision[np.searchsorted(recall, grid)] for precision, recall in found], axis=0)
            prevalence = float(np.mean(cases.labels_by_patient() == k))
            curves[name] = {"recall": grid.tolist(), "precision": mean.tolist(), "prevalence": prevalence}
    return curves


def _points(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    points = [(_number(entry, "epoch"), _number(entry, key)) for entry in history]
    return [(epoch, value) for epoch, value in points if math.isfinite(value)]


def _number(entry: Mapping[str, Any], key: str) -> float:
    """A number of an epoch, NaN where there is none."""
    value = entry.get(key)
    return math.nan if value is None else float(value)


def _diagram(cases: Cases, scored: Evaluation) -> Reliability:
    count = max(1, min(ECE_BINS, scored["cases"] // FEWEST_IN_BIN))
    found = reliability_bins(cases.probabilities.max(axis=1), cases.right(), count)
    bins: list[Bin] = []
    for mean, accuracy, mass in zip(*(part.tolist() for part in found), strict=True):
        n = max(1, round(mass / scored["repeats"]))
        low, high = wilson_interval(min(accuracy * n, n), n)
        bins.append({"confidence": mean, "accuracy": accuracy, "n": n, "low": low, "high": high})
    overall = scored["overall"]
    return {"bins": bins, "ece": overall["ece"], "log_loss": overall["log_loss"], "brier": overall["brier"]}


def risk_coverage_by(
    table: pd.DataFrame, score: NDArray[np.float64], resamples: int = 2000, seed: int = 42
) -> dict[str, Any]:
    """The risk-coverage curve of answering cases in the order of another score than the confidence.

    Args:
        table: see `evaluation.evaluate_out_of_fold`; all rows have probabilities.
        score: larger for what is answered sooner, shape (N,).
        resamples, seed: of the bootstrap by patient.

    Returns:
        `coverage`, `risk` and `aurc` as of `RiskCoverage`; `all`, the share wrong of all, which a random order reaches at every
        coverage; and `gain`, that less the AURC.
    """
    cases = read_cases(table)
    weights = patient_weights(len(cases.names), resamples, seed)
    areas, risks, curves = [], [], []
    for repeat in range(cases.repeat_count):
        mine = cases.repeats == repeat
        own = weights[:, cases.patients[mine]]
        wrong = ~cases.right()[mine]
        areas.append(weighted_aurc(score[mine], ~wrong, own)[0])
        risks.append((own * wrong).sum(1) / own.sum(1))
        curves.append(risk_coverage(score[mine], ~wrong))
    coverage = max((curve[0] for curve in curves), key=len)
    area, share = np.mean(areas, axis=0), np.mean(risks, axis=0)
    return {
        "coverage": coverage.tolist(),
        "risk": np.mean([np.interp(coverage, *curve) for curve in curves], axis=0).tolist(),
        "aurc": figure_estimate(area, resamples, cases.n),
        "all": figure_estimate(share, resamples, cases.n),
        "gain": figure_estimate(share - area, resamples, cases.n, (-1.0, 1.0)),
    }


def _risk_coverage(cases: Cases, figures: Mapping[str, NDArray[np.float64]], resamples: int) -> RiskCoverage:
    curves = [risk_coverage(part.probabilities.max(axis=1), part.right()) for part in cases.by_repeat()]
    coverage = max((curve[0] for curve in curves), key=len)
    risk = np.mean([np.interp(coverage, *curve) for curve in curves], axis=0)
    return {
        "coverage": coverage.tolist(),
        "risk": risk.tolist(),
        "aurc": figure_estimate(figures["aurc"], resamples, cases.n),
        "augrc": figure_estimate(figures["augrc"], resamples, cases.n),
        "published": {"coverage": PUBLISHED_COVERAGE, "risk": PUBLISHED_RISK, "sentence": PUBLISHED},
    }
