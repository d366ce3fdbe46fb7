"""The paired comparison of two cross-validations of the same patients on the same folds, patient by patient.

What one of them gives alone is the part of `evaluation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monai_chd.errors import UserError
from monai_chd.labels import CLASSES
from monai_chd.metrics.estimates import OVERALL, SMALLER_IS_BETTER, Estimate, difference_range
from monai_chd.metrics.evaluation import EXPLAINED
from monai_chd.metrics.formulas import corrected_t, mcnemar_exact
from monai_chd.metrics.out_of_fold import Cases, figure_estimate, mean_table, read_cases
from monai_chd.metrics.wording import format_estimate


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
    """What `compare_paired` returns; differences are first minus second, `better` is +1 where more is better, else -1."""

    patients: int
    repeats: int
    methods: dict[str, str]
    differences: dict[str, Estimate]
    better: dict[str, int]
    mcnemar: list[McNemar]
    corrected_t: CorrectedTest | None
    sentences: list[str]


def compare_paired(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    names: tuple[str, str] = ("the first", "the second"),
    inner_share: float = 0.0,
    resamples: int = 2000,
    seed: int = 42,
) -> Comparison:
    """Compare two cross-validations of the same patients on the same folds, patient by patient.

    Args:
        first, second: tables as for `evaluation.evaluate_out_of_fold`.
        names: what to call them in sentences.
        inner_share: share of the patients outside a fold that its fit did not train on, since they chose its epoch.
        resamples: bootstrap resamples; patients are drawn once for both.
        seed: of the resamples.

    Returns:
        See `Comparison`. McNemar's test is for one prediction a patient: it is given for each repeat, and for the ensemble
        (the class with the largest mean probability over repeats), which is the one to read where there are
        several. No p is a mean of others.

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
        name: figure_estimate(ours[name] - theirs[name], resamples, a.n, difference_range(name))
        for name in (*OVERALL, "aurc", "augrc")
    }
    return {
        "patients": len(a.names),
        "repeats": a.repeat_count,
        "methods": dict(EXPLAINED),
        "differences": differences,
        "better": {name: -1 if name in SMALLER_IS_BETTER else 1 for name in differences},
        "mcnemar": _mcnemar(a, b, tables),
        "corrected_t": _corrected_t(a, b, tables[0], inner_share),
        "sentences": [_difference_sentence(differences, names)],
    }


def _mcnemar(a: Cases, b: Cases, tables: Sequence[pd.DataFrame]) -> list[McNemar]:
    """The test for each repeat and for the ensemble; a patient is right when all of its scans are."""
    found = [
        _mcnemar_of(f"repeat {i}", *(cases.some(cases.repeats == i).all_right() for cases in (a, b)))
        for i in range(a.repeat_count)
    ]
    if a.repeat_count == 1:
        return found
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


def _corrected_t(a: Cases, b: Cases, table: pd.DataFrame, inner_share: float) -> CorrectedTest | None:
    """The test over all fits; None with fewer than two fits or where one fit tests everyone."""
    gained = a.right().astype(float) - b.right()
    by_fit = pd.Series(gained).groupby([table["repeat"], table["fold"]])
    share = float(by_fit.size().mean()) / (len(table) / a.repeat_count)
    if len(by_fit) < 2 or share >= 1:
        return None
    test = corrected_t(by_fit.mean().to_numpy(), share / ((1 - share) * (1 - inner_share)))
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


def _difference_sentence(differences: Mapping[str, Estimate], names: tuple[str, str]) -> str:
    estimate = differences["accuracy"]
    low, high = estimate["low"], estimate["high"]
    if low is None or high is None:
        return f"No difference in accuracy between {names[0]} and {names[1]} can be measured (n = {estimate['n']})."
    judged = "the interval holds 0: no measurable difference" if low <= 0 <= high else "the interval leaves out 0"
    return f"Accuracy of {names[0]} minus that of {names[1]}: {format_estimate(estimate, 'points')}; {judged}."
