"""Results of a repeated cross-validation from its out-of-fold predictions, and the paired comparison of two of them.

Every figure is that of patients: computed for each repeat on its own, averaged, with an interval that draws a patient's
repeats together. Reads and writes no file; the report's part is to show what is returned here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monai_chd.errors import UserError
from monai_chd.labels import CLASSES, FLAGS
from monai_chd.metrics.curves import Curves, mean_curves
from monai_chd.metrics.estimates import METHODS, OVERALL, ClassEstimates, Estimate, Evaluation, evaluate
from monai_chd.metrics.formulas import (
    ECE_BINS,
    binomial_test,
    corrected_t,
    mcnemar_exact,
    permutation_test,
    weighted_figures,
    wilson_interval,
)
from monai_chd.metrics.out_of_fold import Cases, figure_estimate, mean_table, read_cases

RAW = "raw_"
"""Before a class's name: the column of its probability before the temperature was applied."""

FEW_PATIENTS = 30
"""A class with fewer patients has an interval that means little."""

ECE_NEEDS = 20 * ECE_BINS
"""With fewer patients, hence fewer than 20 a bin, the expected calibration error says little: it is biased upwards."""

PERMUTATION = (
    "p of balanced accuracy when the labels are dealt out anew among the patients and the predictions stay as they are: asks "
    "whether predictions and labels go together at all. Nothing is trained again; the shuffled-label control does that."
)


class Matrix(TypedDict):
    """Confusion matrix, rows true, columns predicted: means over repeats, and percent of the row (None without cases)."""

    counts: list[list[float]]
    row_percent: list[list[float | None]]


class Scores(TypedDict):
    """Figures of some cases: `overall` has `metrics.OVERALL`, `per_class` precision, recall, f1, auc and support."""

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
    """What `results` returns; JSON takes it as it is.

    `answered` has the figures of the cases not abstained from, each repeat its own; None when none or all were answered.
    `repeat_spread` has each figure's value in each repeat: how much the draw of folds and seeds alone moves it.
    """

    patients: int
    repeats: int
    methods: dict[str, str]
    all: Scores
    answered: Scores | None
    coverage: Estimate
    baseline: Baseline
    permutation: Permutation
    curves: Curves
    per_lesion: list[Lesion]
    repeat_spread: dict[str, list[float | None]]
    ensemble: Ensemble
    warnings: list[str]
    sentences: list[str]


class McNemar(TypedDict):
    """Exact McNemar test: patients that only one of the two got right, and p. `of` says of which predictions."""

    of: str
    only_first: int
    only_second: int
    p: float


class CorrectedTest(TypedDict):
    """Nadeau and Bengio's corrected t-test of the accuracy difference over the fits."""

    difference: float
    low: float | None
    high: float | None
    p: float
    fits: int


class Comparison(TypedDict):
    """What `compare` returns; differences are first minus second, `better` is +1 where more is better, else -1."""

    patients: int
    repeats: int
    methods: dict[str, str]
    differences: dict[str, Estimate]
    better: dict[str, int]
    mcnemar: list[McNemar]
    corrected_t: CorrectedTest | None
    sentences: list[str]


def results(
    predictions: pd.DataFrame,
    flags: Mapping[str, Sequence[str]] | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 42,
) -> Results:
    """Evaluate the out-of-fold predictions of a repeated cross-validation.

    Args:
        predictions: columns `predictions.PREDICTION_COLUMNS` (calibrated probabilities), `repeat`, `fold`, and where known
            `raw_<class>` (before the temperature). Every repeat has the same images, each once. Rows without probabilities
            are no cases of any figure but count as not covered.
        flags: diagnosis flags of each patient, for the recall by lesion.
        resamples: bootstrap resamples, and permutations.
        confidence: coverage of the intervals.
        seed: of resamples and permutations.

    Returns:
        See `Results`.

    Raises:
        UserError: no rows, a repeat with other images, an image twice, a patient with two labels, probabilities that are
            none, or a missing column; all bad rows are named.
    """
    cases = read_cases(predictions)
    options: dict[str, Any] = {"resamples": resamples, "confidence": confidence, "seed": seed}
    scored = cases.evaluate(**options)
    some = cases.answered.any() and not cases.answered.all()
    part = cases.some(cases.answered).evaluate(**options) if some else None
    found: Results = {
        "patients": scored["patients"],
        "repeats": scored["repeats"],
        "methods": _methods(),
        "all": _scores(scored),
        "answered": _scores(part) if part else None,
        "coverage": _coverage(predictions, confidence),
        "baseline": _baseline(scored, cases),
        "permutation": _permutation(cases, resamples, seed),
        "curves": mean_curves(cases, _raw(predictions), scored, **options),
        "per_lesion": _per_lesion(cases, flags or {}, confidence),
        "repeat_spread": _spread(cases),
        "ensemble": _ensemble(predictions, options),
        "warnings": [],
        "sentences": [],
    }
    found["warnings"] = _warnings(found, predictions)
    found["sentences"] = _sentences(found, confidence)
    return found


def compare(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    names: tuple[str, str] = ("the first", "the second"),
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 42,
) -> Comparison:
    """Compare two cross-validations of the same patients on the same folds, patient by patient.

    Args:
        first, second: tables as for `results`.
        names: what to call them in sentences.
        resamples: bootstrap resamples; patients are drawn once for both.
        confidence: coverage of the intervals.
        seed: of the resamples.

    Returns:
        See `Comparison`. McNemar's test is for one prediction a patient: it is given for each repeat, and for the ensemble
        (the class with the largest mean probability over repeats), which is the one to read. No p is a mean of others.

    Raises:
        UserError: tables that are none, or not of the same patients, labels, repeats and folds.
    """
    keys = ["repeat", "image"]
    tables = [table.sort_values(keys, ignore_index=True) for table in (first, second)]
    a, b = (read_cases(table) for table in tables)
    columns = ["repeat", "fold", "patient", "image", "label"]
    if len(tables[0]) != len(tables[1]) or not tables[0][columns].astype(str).equals(tables[1][columns].astype(str)):
        raise UserError(f"cannot compare: {_difference(*tables)}; run both cross-validations on the same folds")
    if any(len(cases.labels) != len(tables[0]) for cases in (a, b)):
        raise UserError("cannot compare: some rows have no probabilities; run again the fits that they belong to")
    ours, theirs = (cases.figures(resamples, seed) for cases in (a, b))
    differences = {
        name: figure_estimate(ours[name] - theirs[name], resamples, a.n, confidence)
        for name in (*OVERALL, "aurc", "augrc")
    }
    return {
        "patients": len(a.names),
        "repeats": a.repeat_count,
        "methods": _methods(),
        "differences": differences,
        "better": {name: -1 if name in ("log_loss", "brier", "ece", "aurc", "augrc") else 1 for name in differences},
        "mcnemar": _mcnemar(a, b, tables),
        "corrected_t": _corrected_t(a, b, tables[0], confidence),
        "sentences": [_difference_sentence(differences, names, confidence)],
    }


def _raw(table: pd.DataFrame) -> NDArray[np.float64] | None:
    """Probabilities before the temperature of the rows that have any; None when the table lacks some."""
    columns = [RAW + name for name in CLASSES]
    kept = table[table[CLASSES[0]].notna()]
    known = set(columns) <= set(table.columns) and kept[columns].notna().all(axis=None)
    return kept[columns].to_numpy(dtype=np.float64) if known else None


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


def _methods() -> dict[str, str]:
    """Explanations of the methods of all estimates and tests."""
    return {
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


def _coverage(table: pd.DataFrame, confidence: float) -> Estimate:
    """Share of patients answered; a patient with several scans counts by their share answered."""
    answered = (1.0 - table["abstain"].astype(float)).groupby(table["patient"].astype(str)).mean()
    return _share_of_patients(np.asarray(answered, dtype=np.float64), table["repeat"].nunique(), confidence)


def _share_of_patients(shares: NDArray[np.float64], repeats: int, confidence: float) -> Estimate:
    """Mean of patients' shares over repeats, with Wilson's interval for as many trials as patients."""
    n, value = len(shares), float(shares.mean())
    low, high = wilson_interval(min(value * n, n), n, confidence)
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


def _per_lesion(cases: Cases, flags: Mapping[str, Sequence[str]], confidence: float) -> list[Lesion]:
    right = cases.right_by_patient()
    found: list[Lesion] = []
    for flag in FLAGS:
        having = [i for i, name in enumerate(cases.names) if flag in flags.get(name, ())]
        if having:
            estimate = _share_of_patients(right[having], cases.repeat_count, confidence)
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
        f"{name}: {each['support']} patients, fewer than {FEW_PATIENTS}; its intervals are wide and mean little, and so do the "
        f"macro averages that give it the same weight as the others."
        for name, each in found["all"]["per_class"].items()
        if each["support"] < FEW_PATIENTS
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


def _sentences(found: Results, confidence: float) -> list[str]:
    """The results in words for someone who does not read tables."""
    overall, baseline = found["all"]["overall"], found["baseline"]
    level = f"{confidence:.0%} interval"
    accuracy, always = overall["accuracy"], baseline["accuracy"]
    verdict = "better than" if baseline["binomial_p"] < 1 - confidence else "not measurably better than"
    sentences = [
        f"The right class was given to {_percent(accuracy, level)} of {found['patients']} patients that the model had not "
        f"seen.",
        f"Always answering {baseline['label']} would be right in {_percent(always, level)}; the model is {verdict} that "
        f"(binomial test, p {_p(baseline['binomial_p'])}).",
        f"Predictions and labels {'go' if found['permutation']['p'] < 1 - confidence else 'do not measurably go'} together "
        f"(permutation test, p {_p(found['permutation']['p'])}).",
    ]
    sentences += [
        f"Of the {each['support']} patients with the class {name}, {_percent(each['recall'], level)} were recognised."
        for name, each in found["all"]["per_class"].items()
        if each["recall"]["value"] is not None
    ]
    if found["answered"]:
        right = found["answered"]["overall"]["accuracy"]
        sentences.append(
            f"The model answers {_percent(found['coverage'], level)} of the patients and abstains from the others; of its "
            f"answers {_percent(right, level)} are right."
        )
    spread = [value for value in found["repeat_spread"]["accuracy"] if value is not None]
    if len(spread) > 1:
        sentences.append(
            f"Drawing the folds anew moves accuracy between {min(spread):.1%} and {max(spread):.1%} ({len(spread)} repeats): "
            f"differences of that size mean nothing."
        )
    return sentences


def _percent(estimate: Estimate, level: str) -> str:
    """A proportion in words, never without its interval."""
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None:
        return f"an undefined share (n = {estimate['n']})"
    interval = "no interval" if low is None or high is None else f"{level} {low:.1%} to {high:.1%}"
    return f"{value:.1%} ({interval}, n = {estimate['n']})"


def _p(p: float) -> str:
    return f"= {p:.3f}" if p >= 0.001 else "< 0.001"


def _mcnemar(a: Cases, b: Cases, tables: Sequence[pd.DataFrame]) -> list[McNemar]:
    """The test for each repeat and for the ensemble; a patient is right when all of its scans are."""
    found = [
        _mcnemar_of(f"repeat {i}", *(cases.some(cases.repeats == i).all_right() for cases in (a, b)))
        for i in range(a.repeat_count)
    ]
    means = []
    for table in tables:
        mean = mean_table(table)
        right = mean[list(CLASSES)].to_numpy().argmax(axis=1) == [CLASSES.index(label) for label in mean["label"]]
        means.append(pd.Series(right, index=mean.index).groupby(mean["patient"]).all().to_numpy())
    return [*found, _mcnemar_of("ensemble: mean probabilities over repeats", *means)]


def _mcnemar_of(name: str, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    p = mcnemar_exact(only_first, only_second)
    return {"of": name, "only_first": only_first, "only_second": only_second, "p": p}


def _corrected_t(a: Cases, b: Cases, table: pd.DataFrame, confidence: float) -> CorrectedTest | None:
    """The test over all fits; None with fewer than two fits or where one fit tests everyone."""
    gained = a.right().astype(float) - b.right()
    by_fit = pd.Series(gained).groupby([table["repeat"], table["fold"]])
    share = float(by_fit.size().mean()) / (len(table) / a.repeat_count)
    if len(by_fit) < 2 or share >= 1:
        return None
    test = corrected_t(by_fit.mean().to_numpy(), share / (1 - share), confidence)
    return {"difference": test.mean, "low": test.low, "high": test.high, "p": test.p, "fits": len(by_fit)}


def _difference(first: pd.DataFrame, second: pd.DataFrame) -> str:
    """Say in what two tables differ that should be of the same patients and folds."""
    for name, what in (("patient", "patients"), ("image", "images"), ("repeat", "repeats")):
        ours, theirs = set(first[name].astype(str)), set(second[name].astype(str))
        if ours != theirs:
            return (
                f"the {what} differ ({len(ours - theirs)} only in the first, {len(theirs - ours)} only in the second)"
            )
    both = first.merge(second, on=["repeat", "image"], suffixes=("", "_other"))
    for name in ("label", "patient", "fold"):
        differ = both[both[name].astype(str) != both[f"{name}_other"].astype(str)]
        if len(differ):
            row = differ.iloc[0]
            return (
                f"{len(differ)} rows have another {name}, for example {row['image']} in repeat {row['repeat']}: "
                f"{row[name]} and {row[f'{name}_other']}"
            )
    return f"{len(first)} and {len(second)} rows"


def _difference_sentence(differences: Mapping[str, Estimate], names: tuple[str, str], confidence: float) -> str:
    estimate = differences["accuracy"]
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None or low is None or high is None:
        return f"No difference in accuracy between {names[0]} and {names[1]} can be measured (n = {estimate['n']})."
    verdict = "the interval holds 0: no measurable difference" if low <= 0 <= high else "the interval leaves out 0"
    return (
        f"Accuracy of {names[0]} minus that of {names[1]}: {100 * value:+.1f} percentage points ({confidence:.0%} interval "
        f"{100 * low:+.1f} to {100 * high:+.1f}, n = {estimate['n']} patients); {verdict}."
    )
