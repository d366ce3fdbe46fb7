"""Results of a repeated cross-validation from its out-of-fold predictions, in figures and in words.

Every figure is that of patients: computed for each repeat on its own, averaged, with an interval that draws a patient's
repeats together. Two cross-validations are held against each other in `comparison`; the report's part is to show all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monai_chd.labels import CLASSES, FLAGS
from monai_chd.metrics.curves import Curves, mean_curves
from monai_chd.metrics.estimates import FEW, METHODS, OVERALL, ClassEstimates, Estimate, Evaluation, evaluate
from monai_chd.metrics.formulas import (
    ECE_BINS,
    SIGNIFICANT,
    binomial_test,
    permutation_test,
    weighted_figures,
    wilson_interval,
)
from monai_chd.metrics.out_of_fold import Cases, mean_table, raw_probabilities, read_cases
from monai_chd.metrics.verdict import Verdict, judge
from monai_chd.metrics.wording import format_estimate
from monai_chd.wording import p_words

ECE_NEEDS = 20 * ECE_BINS
"""With fewer patients, hence fewer than 20 a bin, the expected calibration error says little: it is biased upwards."""

PERMUTATION = (
    "p of balanced accuracy when the labels are dealt out anew among the patients and the predictions stay as they are: asks "
    "whether predictions and labels go together at all. Nothing is trained again; the shuffled-label control does that."
)

EXPLAINED = {
    **METHODS,
    "unit": "n counts patients, never patients times repeats; each figure is the mean over repeats, computed for each "
    "repeat on its own",
    "binomial": "exact binomial test, one-sided: the mean number of patients right over repeats, rounded down, against the "
    "share of the most frequent class",
    "permutation": PERMUTATION,
    "mcnemar": "exact McNemar test, two-sided, on one prediction a patient",
    "corrected_t": "t-test of the accuracy difference over all fits, its variance corrected for overlapping training sets "
    "(Nadeau and Bengio 2003)",
    "ece": "expected calibration error of the most probable class in ten bins of equal mass; biased upwards in small "
    "samples",
    "brier": "multiclass Brier score, 0 (best) to 2",
    "aurc": "mean share wrong among the i most confident patients, i = 1..n; smaller is better",
    "augrc": "the same with the share of all patients (Traub et al. 2024)",
}
"""Methods of estimates and tests in words, for a reader of the results."""


class Matrix(TypedDict):
    """Confusion matrix, rows true, columns predicted: means over repeats, and percent of the row (None without cases)."""

    counts: list[list[float]]
    row_percent: list[list[float | None]]


class Scores(TypedDict):
    """Figures of some cases: `overall` has `estimates.OVERALL`, `per_class` precision, recall, f1, auc and support."""

    patients: int
    overall: dict[str, Estimate]
    per_class: dict[str, ClassEstimates]
    confusion_matrix: Matrix


class Baseline(TypedDict):
    """Always answering the most frequent class; `binomial_p` is the exact one-sided p of ours against its share."""

    label: str
    accuracy: Estimate
    binomial_p: float


class Permutation(TypedDict):
    """Permutation test of the predictions; `statistic` is balanced accuracy, `tests` says in words what it asks."""

    p: float
    permutations: int
    statistic: float
    tests: str


class Lesion(TypedDict):
    """How many patients with a diagnosis flag there are, and the share of them whose class was right."""

    flag: str
    patients: int
    recall: Estimate


class Ensemble(TypedDict):
    """Figures of the mean probabilities over repeats: secondary, since no single model that a user trains is like it."""

    overall: dict[str, Estimate]
    per_class: dict[str, ClassEstimates]
    confusion_matrix: Matrix
    sentence: str


class Results(TypedDict):
    """What `evaluate_out_of_fold` returns; JSON takes it as it is.

    `answered` has the figures of the cases not abstained from, each repeat its own; None when none or all were answered.
    With one repeat there is no `ensemble`: it would be the same figures again.
    `repeat_spread` has each figure's value in each repeat: how much the draw of folds and seeds alone moves it.
    """

    patients: int
    repeats: int
    methods: dict[str, str]
    all: Scores
    answered: Scores | None
    coverage: Estimate
    baseline: Baseline
    verdict: Verdict
    permutation: Permutation
    curves: Curves
    per_lesion: list[Lesion]
    repeat_spread: dict[str, list[float | None]]
    ensemble: Ensemble | None
    warnings: list[str]
    sentences: list[str]


def evaluate_out_of_fold(
    predictions: pd.DataFrame,
    flags: Mapping[str, Sequence[str]] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 42,
) -> Results:
    """Evaluate the out-of-fold predictions of a repeated cross-validation.

    Args:
        predictions: columns `predictions.PREDICTION_COLUMNS` (calibrated probabilities), `repeat`, `fold`, and where known
            `raw_<class>` (before the temperature). Every repeat has the same images, each once. Rows without probabilities
            are no cases of any figure but count as not covered.
        flags: diagnosis flags of each patient, for the recall by lesion.
        resamples: bootstrap resamples, and permutations.
        seed: of resamples and permutations.

    Returns:
        See `Results`.

    Raises:
        UserError: no rows, a repeat with other images, an image twice, a patient with two labels, probabilities that are
            none, or a missing column; all bad rows are named.
    """
    cases = read_cases(predictions)
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    scored = cases.evaluate(**options)
    baseline = _baseline(scored, cases)
    some = cases.answered.any() and not cases.answered.all()
    part = cases.some(cases.answered).evaluate(**options) if some else None
    found: Results = {
        "patients": scored["patients"],
        "repeats": scored["repeats"],
        "methods": dict(EXPLAINED),
        "all": _scores(scored),
        "answered": _scores(part) if part else None,
        "coverage": _coverage(predictions),
        "baseline": baseline,
        "verdict": judge(scored["overall"]["accuracy"], baseline["accuracy"], baseline["binomial_p"]),
        "permutation": _permutation(cases, resamples, seed),
        "curves": mean_curves(cases, raw_probabilities(predictions), scored, **options),
        "per_lesion": _per_lesion(cases, flags or {}),
        "repeat_spread": _spread(cases),
        "ensemble": _ensemble(predictions, options) if scored["repeats"] > 1 else None,
        "warnings": [],
        "sentences": [],
    }
    found["warnings"] = _warnings(found, predictions)
    found["sentences"] = _sentences(found)
    return found


def _scores(evaluation: Evaluation) -> Scores:
    return {
        "patients": evaluation["patients"],
        "overall": evaluation["overall"],
        "per_class": evaluation["per_class"],
        "confusion_matrix": _matrix(evaluation["confusion_matrix"]),
    }


def _matrix(counts: list[list[float]]) -> Matrix:
    percent = [[100 * cell / sum(row) if sum(row) else None for cell in row] for row in counts]
    return {"counts": counts, "row_percent": percent}


def _coverage(table: pd.DataFrame) -> Estimate:
    """Share of patients answered; a patient with several scans counts by their share answered."""
    answered = (1.0 - table["abstain"].astype(float)).groupby(table["patient"].astype(str)).mean()
    return _share_of_patients(np.asarray(answered, dtype=np.float64), table["repeat"].nunique())


def _share_of_patients(shares: NDArray[np.float64], repeats: int) -> Estimate:
    """Mean of patients' shares over repeats, with Wilson's interval for as many trials as patients."""
    n, value = len(shares), float(shares.mean())
    low, high = wilson_interval(min(value * n, n), n)
    return {"value": value, "low": low, "high": high, "n": n, "method": "wilson" if repeats == 1 else "wilson_mean"}


def _baseline(scored: Evaluation, cases: Cases) -> Baseline:
    majority = scored["majority_baseline"]
    labels, right = cases.labels_by_patient(), cases.right_by_patient()
    share = float(np.mean(labels == CLASSES.index(majority["label"])))
    # Rounded down: part of a patient is no evidence. The small term undoes the rounding of a sum of shares.
    successes = int(np.floor(right.sum() + 1e-9))
    return {**majority, "binomial_p": binomial_test(successes, len(labels), share)}


def _permutation(cases: Cases, permutations: int, seed: int) -> Permutation:
    votes = np.zeros((len(cases.names), len(CLASSES)))
    np.add.at(votes, (cases.patients, cases.probabilities.argmax(axis=1)), 1)
    labels = cases.labels_by_patient()
    value, p = permutation_test(votes / votes.sum(axis=1, keepdims=True), labels, permutations=permutations, seed=seed)
    return {"p": p, "permutations": permutations, "statistic": value, "tests": PERMUTATION}


def _per_lesion(cases: Cases, flags: Mapping[str, Sequence[str]]) -> list[Lesion]:
    right = cases.right_by_patient()
    found: list[Lesion] = []
    for flag in FLAGS:
        having = [i for i, name in enumerate(cases.names) if flag in flags.get(name, ())]
        if having:
            estimate = _share_of_patients(right[having], cases.repeat_count)
            found.append({"flag": flag, "patients": len(having), "recall": estimate})
    return found


def _spread(cases: Cases) -> dict[str, list[float | None]]:
    """Each figure in each repeat."""
    weights = np.ones((1, len(cases.names)))
    each = [
        weighted_figures(part.labels, part.probabilities, part.patients, part.repeats, weights)
        for part in cases.by_repeat()
    ]
    values = {name: [float(figures[name][0]) for figures in each] for name in OVERALL}
    return {name: [value if np.isfinite(value) else None for value in found] for name, found in values.items()}


def _ensemble(table: pd.DataFrame, options: Mapping[str, Any]) -> Ensemble:
    mean = mean_table(table)
    labels = [CLASSES.index(label) for label in mean["label"]]
    scored = evaluate(labels, mean[list(CLASSES)], patients=mean["patient"].tolist(), **options)
    return {
        "overall": scored["overall"],
        "per_class": scored["per_class"],
        "confusion_matrix": _matrix(scored["confusion_matrix"]),
        "sentence": "Mean of the probabilities of all repeats, one prediction a patient: secondary, since it is several models.",
    }


def _warnings(found: Results, table: pd.DataFrame) -> list[str]:
    """What makes figures mean less than they seem to."""
    warnings = [
        f"{name}: {each['support']} patients, fewer than {FEW}; its intervals are wide and mean little, and so do the "
        f"macro averages that give it the same weight as the others."
        for name, each in found["all"]["per_class"].items()
        if each["support"] < FEW
    ]
    if found["patients"] < ECE_NEEDS:
        warnings.append(
            f"The expected calibration error is biased upwards with fewer than {ECE_NEEDS} patients, here {found['patients']}; "
            f"read it beside log-loss and Brier score."
        )
    rare = [lesion["flag"] for lesion in found["per_lesion"] if lesion["patients"] < 10]
    if rare:
        warnings.append(f"Fewer than 10 patients each have {', '.join(rare)}: those rows are anecdotes, not rates.")
    without = int(table[CLASSES[0]].isna().sum())
    if without:
        warnings.append(
            f"{without} predictions are missing (files that could not be read); they count as not answered."
        )
    return warnings


def _sentences(found: Results) -> list[str]:
    """The results in words for someone who does not read tables."""
    accuracy, baseline = found["all"]["overall"]["accuracy"], found["baseline"]
    related = "go" if found["permutation"]["p"] < SIGNIFICANT else "do not measurably go"
    sentences = [
        f"The right class was given to {format_estimate(accuracy, 'share')} of {found['patients']} patients that the model had "
        f"not seen.",
        f"Always answering {baseline['label']} would be right in {format_estimate(baseline['accuracy'], 'share')}. "
        f"{found['verdict']['sentence']}",
        f"Predictions and labels {related} together (permutation test, {p_words(found['permutation']['p'])}).",
    ]
    sentences += [
        f"Of the {each['support']} patients with the class {name}, {format_estimate(each['recall'], 'share')} were recognised."
        for name, each in found["all"]["per_class"].items()
        if each["recall"]["value"] is not None
    ]
    if found["answered"]:
        right = found["answered"]["overall"]["accuracy"]
        sentences.append(
            f"The model answers {format_estimate(found['coverage'], 'share')} of the patients and abstains from the others; of "
            f"its answers {format_estimate(right, 'share')} are right."
        )
    spread = [value for value in found["repeat_spread"]["accuracy"] if value is not None]
    if len(spread) > 1:
        sentences.append(
            f"Drawing the folds anew moves accuracy between {min(spread):.1%} and {max(spread):.1%} ({len(spread)} repeats): "
            f"differences of that size mean nothing."
        )
    return sentences
