"""Formulas and tests on arrays: every metric for many weightings of the cases at once, intervals, paired tests, curves.

A resample of patients, a left-out patient and the data themselves are all weights of cases, so one pass gives a figure, its
bootstrap and its jackknife. Knows no classes by name, no tables and no files.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest
from scipy.stats import t as student

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
"""Coverage of an interval where no other is asked for."""

SIGNIFICANT = 0.05
"""A p value below it is called a difference."""

ECE_BINS = 10
"""Bins of equal mass for the expected calibration error and the reliability diagram."""

CHUNK = 4_000_000
"""Weights held at once by `weighted_figures`: what bounds its memory for large cohorts."""


class Bins(NamedTuple):
    """Bins of a reliability diagram, each of shape (M,): mean confidence, share right, mass."""

    confidence: Floats
    accuracy: Floats
    mass: Floats


class CorrectedT(NamedTuple):
    """Mean difference over the fits of a repeated cross-validation with Nadeau and Bengio's interval and two-sided p."""

    mean: float
    low: float
    high: float
    p: float


def wilson_interval(successes: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927), without continuity correction.

    Args:
        successes: 0..n.
        n: independent trials, at least 1.
        confidence: coverage aimed at, in (0, 1).

    Returns:
        Lower and upper limit, in [0, 1].

    Raises:
        ValueError: an argument out of its range.
    """
    check_confidence(confidence)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected n of at least 1 and successes within 0..n, came successes={successes}, n={n}")
    z = float(ndtri(0.5 + confidence / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The limits at no and at all successes are 0 and 1 exactly; rounding would leave 1e-17 and 0.9999999999999999.
    low = 0.0 if successes == 0 else max(0.0, float(centre - reach))
    high = 1.0 if successes == n else min(1.0, float(centre + reach))
    return low, high


def check_confidence(confidence: float) -> None:
    """Raise ValueError unless a coverage lies in (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, came {confidence}")


def patient_weights(patients: int, resamples: int, seed: int) -> Floats:
    """Weights of patients: the data, then resamples with replacement, then each patient left out.

    Args:
        patients: P.
        resamples: R, at least 1.
        seed: of the resampling.

    Returns:
        Shape (1 + R + P, P): ones; how often each patient was drawn; ones with a zero on the diagonal.
    """
    drawn = np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), size=resamples)
    return np.vstack([np.ones((1, patients)), drawn, 1 - np.eye(patients)])


def percentile_interval(resampled: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Percentiles of resampled values, shape (R,)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def bca_interval(
    value: float, resampled: Floats, jackknife: Floats, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987), as `scipy.stats.bootstrap` has it.

    Args:
        value: the figure of the data.
        resampled: of resamples, shape (R,).
        jackknife: of the data without each unit, shape (P,).
        confidence: coverage aimed at.

    Returns:
        Lower and upper limit; None where it is undefined: all resamples on one side of the value, a figure that no unit
        moves, or one that is undefined without some unit.
    """
    below = (np.sum(resampled < value) + np.sum(resampled <= value)) / (2 * len(resampled))
    influence = np.mean(jackknife) - jackknife
    spread = np.sum(influence**2)
    if not 0 < below < 1 or not np.isfinite(spread) or np.sqrt(spread) < 1e-9:
        return None
    bias, acceleration = ndtri(below), np.sum(influence**3) / (6 * spread**1.5)
    z = bias + ndtri([(1 - confidence) / 2, (1 + confidence) / 2])
    if (acceleration * z >= 1).any():
        return None
    low, high = np.quantile(resampled, ndtr(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def score_confusion(confusion: NDArray[Any]) -> dict[str, Floats]:
    """Compute every metric that follows from confusion matrices; the one place that has the formulas.

    Args:
        confusion: counts, shape (..., K, K), rows true, columns predicted.

    Returns:
        `precision`, `recall`, `f1`, `support` of shape (..., K); accuracy, the averages and `mcc` (Gorodkin's, for K
        classes) of shape (...). 0 / 0 is 0 within a matrix; a matrix without any case gives NaN.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    support = confusion.sum(axis=-1)
    predicted = confusion.sum(axis=-2)
    cases = support.sum(axis=-1)
    by_class = {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + predicted),
    }
    right = hits.sum(axis=-1)
    scores = {
        "accuracy": _ratio(right, cases, np.nan),
        "balanced_accuracy": _ratio(by_class["recall"].sum(axis=-1), (support > 0).sum(axis=-1), np.nan),
    }
    scores |= {
        f"macro_{name}": np.where(cases > 0, by_class[name].mean(axis=-1), np.nan) for name in ("precision", "f1")
    }
    scores["macro_recall"] = scores["balanced_accuracy"]  # two names of one figure
    scores |= {
        f"weighted_{name}": _ratio((values * support).sum(axis=-1), cases, np.nan) for name, values in by_class.items()
    }
    covariance = right * cases - (support * predicted).sum(axis=-1)
    spread = (cases**2 - (support**2).sum(axis=-1)) * (cases**2 - (predicted**2).sum(axis=-1))
    scores["mcc"] = np.where(cases > 0, _ratio(covariance, np.sqrt(spread.astype(float))), np.nan)
    return {**by_class, **scores, "support": support}


def case_losses(labels: NDArray[np.int64], probabilities: Floats) -> tuple[Floats, Floats]:
    """Log-loss (natural, probabilities at least 2.2e-16) and multiclass Brier score (0..2) of each case, both (N,)."""
    rows = np.arange(len(labels))
    of_truth = np.clip(probabilities[rows, labels], np.finfo(np.float64).eps, 1)
    truth = np.zeros_like(probabilities)
    truth[rows, labels] = 1
    return -np.log(of_truth), ((probabilities - truth) ** 2).sum(axis=1)


def weighted_auc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Area under the ROC curve by ranks, ties counted half.

    Args:
        scores: shape (N,).
        positive: which cases are of the class, shape (N,).
        weights: shape (W, N).

    Returns:
        Shape (W,); NaN where only one side has weight.
    """
    order, starts = _tied(scores)
    heavy = weights[:, order]
    ours = np.add.reduceat(heavy * positive[order], starts, axis=1)
    others = np.add.reduceat(heavy * ~positive[order], starts, axis=1)
    wins = (ours * (np.cumsum(others, axis=1) - others / 2)).sum(axis=1)
    return _ratio(wins, ours.sum(axis=1) * others.sum(axis=1), np.nan)


def weighted_ece(confidence: Floats, right: NDArray[np.bool_], weights: Floats, bins: int = ECE_BINS) -> Floats:
    """Expected calibration error of the top class, in bins of equal mass; equal confidences share a bin.

    Args:
        confidence: largest probability of each case, shape (N,).
        right: whether the most probable class is the true one, shape (N,).
        weights: shape (W, N).
        bins: number of bins.

    Returns:
        Shape (W,), in [0, 1]; NaN without weight. Biased upwards in small samples.
    """
    order, starts = _tied(confidence)
    mass = np.add.reduceat(weights[:, order], starts, axis=1)
    gaps = np.add.reduceat(weights[:, order] * (confidence - right)[order], starts, axis=1)
    flat = _bin_of(mass, bins) + bins * np.arange(len(weights))[:, None]
    sums = np.bincount(flat.ravel(), gaps.ravel(), minlength=bins * len(weights)).reshape(len(weights), bins)
    return _ratio(np.abs(sums).sum(axis=1), mass.sum(axis=1), np.nan)


def reliability_bins(confidence: ArrayLike, right: ArrayLike, bins: int = ECE_BINS) -> Bins:
    """Bins of equal mass of `weighted_ece`, those without a case left out.

    Args:
        confidence, right: shape (N,).
        bins: at most so many.
    """
    values, hits = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    order, starts = _tied(values)
    mass = np.add.reduceat(np.ones((1, len(values))), starts, axis=1)
    index = _bin_of(mass, bins)[0]
    parts = [np.bincount(index, np.add.reduceat(x[order], starts), bins) for x in (np.ones_like(values), values, hits)]
    kept = parts[0] > 0
    count, sums, hit = (part[kept] for part in parts)
    return Bins(sums / count, hit / count, count.astype(np.float64))


def weighted_aurc(confidence: Floats, right: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Areas under the risk-coverage curve: of the share wrong among the answered, and among all (AUGRC).

    AURC is the mean over i of the share wrong among the i most confident cases (Geifman and El-Yaniv 2017), AUGRC that of
    their number wrong over all cases (Traub et al. 2024). Equally confident cases count as in random order, in expectation.

    Args:
        confidence, right: shape (N,).
        weights: whole numbers (a case drawn twice counts twice), shape (W, N).

    Returns:
        AURC and AUGRC, each (W,); NaN without weight. Smaller is better.
    """
    order, starts = _tied(-confidence)
    heavy = weights[:, order]
    mass = np.add.reduceat(heavy, starts, axis=1)
    errors = np.add.reduceat(heavy * ~right[order], starts, axis=1)
    before, wrong_before = np.cumsum(mass, axis=1) - mass, np.cumsum(errors, axis=1) - errors
    rate = _ratio(errors, mass)
    # Within a group risk is (wrong_before + rate j) / (before + j), j = 1..mass, which sums to this.
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(mass.sum(axis=1).max(initial=0)) + 1))])
    whole = before.astype(np.int64), (before + mass).astype(np.int64)
    risk = rate * mass + (wrong_before - rate * before) * (harmonic[whole[1]] - harmonic[whole[0]])
    general = wrong_before * mass + rate * mass * (mass + 1) / 2
    total = mass.sum(axis=1)
    return _ratio(risk.sum(axis=1), total, np.nan), _ratio(general.sum(axis=1), total**2, np.nan)


def risk_coverage(confidence: ArrayLike, right: ArrayLike) -> tuple[Floats, Floats]:
    """Risk-coverage curve: share wrong among the i most confident of N cases.

    Args:
        confidence, right: shape (N,).

    Returns:
        Coverage i / N and risk, i = 1..N; equally confident cases are taken as in random order, in expectation.
    """
    values, hits = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    order, starts = _tied(-values)
    ends = np.append(starts[1:], len(values))
    wrong = np.cumsum(~hits[order])[ends - 1]
    taken = np.arange(1, len(values) + 1)
    return taken / len(values), np.interp(taken, np.append(0, ends), np.append(0, wrong)) / taken


def weighted_figures(
    labels: NDArray[np.int64],
    probabilities: Floats,
    patients: NDArray[np.int64],
    repeats: NDArray[np.int64],
    weights: Floats,
) -> dict[str, Floats]:
    """Compute all figures for each weighting of the patients: of each repeat on its own, then the mean over repeats.

    Args:
        labels: class index of each case, shape (N,).
        probabilities: shape (N, K).
        patients: index of the patient of each case, shape (N,), 0..P-1.
        repeats: index of the repeat of each case, shape (N,), 0..M-1.
        weights: shape (W, P), see `patient_weights`.

    Returns:
        What `score_confusion` gives, `auc` (W, K), `auc_macro`, `log_loss`, `brier`, `ece`, `aurc`, `augrc` (W,). A figure
        undefined in some repeat is the mean over the others, NaN in all.
    """
    rows = max(1, CHUNK // max(1, len(labels)))
    chunks = [
        _mean_over_repeats(labels, probabilities, patients, repeats, weights[i : i + rows])
        for i in range(0, len(weights), rows)
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def permutation_test(
    votes: Floats, labels: NDArray[np.int64], *, permutations: int = 2000, seed: int = 42
) -> tuple[float, float]:
    """Permutation test of the balanced accuracy of fixed predictions: labels are dealt out anew among the patients.

    It asks whether the predictions go with the labels at all. No model is trained again: that is the shuffled-label
    control's part.

    Args:
        votes: share of each patient's predictions that say each class, over repeats and cases, shape (P, K).
        labels: class of each patient, shape (P,).
        permutations: how many.
        seed: of the permutations.

    Returns:
        Balanced accuracy, and p = (1 + permutations at least as good) / (1 + permutations).
    """
    size = votes.shape[1]
    share = 1 / np.bincount(labels, minlength=size).clip(1)[labels] / len(np.unique(labels))  # of each patient
    rng = np.random.default_rng(seed)
    dealt = rng.permuted(np.tile(np.arange(len(labels)), (permutations, 1)), axis=1)  # (M, P)
    value = float((votes[np.arange(len(labels)), labels] * share).sum())
    null = (votes[np.arange(len(labels)), labels[dealt]] * share[dealt]).sum(axis=1)
    # Rounding must not decide a tie against the null hypothesis.
    return value, float((1 + np.sum(null >= value - 1e-12)) / (1 + permutations))


def binomial_test(successes: int, n: int, share: float) -> float:
    """Exact one-sided p of at least so many successes in n trials when each has probability `share`."""
    return float(binomtest(successes, n, share, alternative="greater").pvalue)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test of two paired classifiers.

    Args:
        only_first: patients that only the first got right.
        only_second: patients that only the second got right.

    Returns:
        p; 1 when they never differ.
    """
    differ = only_first + only_second
    return float(binomtest(only_first, differ, 0.5).pvalue) if differ else 1.0


def corrected_t(differences: ArrayLike, test_share: float, confidence: float = CONFIDENCE) -> CorrectedT:
    """Corrected resampled t-test for repeated cross-validation (Nadeau and Bengio 2003).

    Training sets of different fits overlap, so the variance is taken times 1 / J + test size / training size.

    Args:
        differences: of accuracies (or other shares) in each fit, shape (J,), J at least 2.
        test_share: size of a fit's test part over the number of cases that it really trained on.
        confidence: coverage aimed at.
    """
    values = np.asarray(differences, dtype=np.float64)
    mean, free = float(values.mean()), len(values) - 1
    error = float(np.sqrt(values.var(ddof=1) * (1 / len(values) + test_share)))
    reach = float(student.ppf(0.5 + confidence / 2, free)) * error
    if error == 0:
        return CorrectedT(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    low, high = max(mean - reach, -1.0), min(mean + reach, 1.0)  # shares differ by no more than 1
    return CorrectedT(mean, low, high, float(2 * student.sf(abs(mean) / error, free)))


def _mean_over_repeats(
    labels: NDArray[np.int64],
    probabilities: Floats,
    patients: NDArray[np.int64],
    repeats: NDArray[np.int64],
    weights: Floats,
) -> dict[str, Floats]:
    """`weighted_figures` of a few weightings."""
    found: list[dict[str, Floats]] = []
    for repeat in np.unique(repeats):
        rows = repeats == repeat
        found.append(_figures(labels[rows], probabilities[rows], weights[:, patients[rows]]))
    return {name: _mean([figures[name] for figures in found]) for name in found[0]}


def _figures(labels: NDArray[np.int64], probabilities: Floats, weights: Floats) -> dict[str, Floats]:
    """All figures of the cases of one repeat, weights (W, N)."""
    size = probabilities.shape[1]
    predictions = probabilities.argmax(axis=1)
    cells = np.zeros((len(labels), size * size))
    cells[np.arange(len(labels)), labels * size + predictions] = 1
    figures = score_confusion((weights @ cells).reshape(-1, size, size))
    aucs = [weighted_auc(probabilities[:, k], labels == k, weights) for k in range(size)]
    log_loss, brier = case_losses(labels, probabilities)
    total = weights.sum(axis=1)
    confidence, right = probabilities.max(axis=1), predictions == labels
    figures |= {
        "auc": np.stack(aucs, axis=1),
        "auc_macro": _mean(aucs),
        "log_loss": _ratio(weights @ log_loss, total, np.nan),
        "brier": _ratio(weights @ brier, total, np.nan),
        "ece": weighted_ece(confidence, right, weights),
    }
    figures["aurc"], figures["augrc"] = weighted_aurc(confidence, right, weights)
    return figures


def _mean(values: list[Floats]) -> Floats:
    """Mean over a list of arrays without those that are NaN; NaN where all are."""
    stacked = np.stack(values)
    return _ratio(np.nansum(stacked, axis=0), np.isfinite(stacked).sum(axis=0), np.nan)


def _tied(values: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order of rising values, and where in it each group of equal values starts."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(values[order]) > 0))
    return order, starts


def _bin_of(mass: Floats, bins: int) -> NDArray[np.int64]:
    """Bin of each group of equal confidences by the middle of its mass, (W, G) to (W, G)."""
    middle = np.cumsum(mass, axis=1) - mass / 2
    share = _ratio(middle, mass.sum(axis=1, keepdims=True))
    return cast(NDArray[np.int64], np.minimum((share * bins).astype(np.int64), bins - 1))


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any], empty: float = 0.0) -> Floats:
    """Divide, with `empty` where the denominator is 0."""
    top, bottom = np.broadcast_arrays(numerator, denominator)
    quotient: Floats = np.full(top.shape, empty)
    np.divide(top, bottom, out=quotient, where=bottom > 0)
    return quotient
