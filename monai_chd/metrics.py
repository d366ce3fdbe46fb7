"""Metrics of a classification, each with an interval and its number of cases.

Owns the formulas, the Wilson interval and the bootstrap by patient. Touches no files: tables are `predictions`' part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from monai_chd.labels import CLASSES

SUM_TOLERANCE = 1e-3
"""How far from 1 the probabilities of a case may sum: what half precision leaves of a softmax."""

NO_PATIENT = frozenset({"", "None", "nan", "<NA>"})
"""What a missing patient id looks like as a string."""

METHODS = {
    "wilson": "Wilson score interval; no patient has two cases in the denominator",
    "wilson_patients": "Wilson score interval of patients: some have several cases, all of them right or all wrong",
    "patient_bootstrap": "percentiles of resampled patients, all cases of a patient drawn together",
    "not_estimable": "all resamples give the same value, as when all or no cases are right: no interval, not certainty",
    "undefined": "no case in the denominator",
}
"""The values of `Estimate.method`, explained."""


class Estimate(TypedDict):
    """A figure with its interval; all None when undefined, no interval when not estimable.

    `n` counts the cases of its denominator: all; for precision those predicted as the class; for recall those of the
    class; for F1 those of the class or predicted as it. `method` is a key of `METHODS`.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str


class ClassEstimates(TypedDict):
    """Figures of one class; `support` is its number of cases."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int


class Intervals(TypedDict):
    """How the intervals of an evaluation were made; `methods` is `METHODS`, so that a saved result explains itself."""

    confidence: float
    resamples: int
    seed: int
    methods: dict[str, str]


class MajorityBaseline(TypedDict):
    """The most frequent class of the evaluated cases and the accuracy of always answering it."""

    label: str
    accuracy: Estimate


class Evaluation(TypedDict):
    """What `evaluate` returns; plain lists, dicts and numbers, so JSON takes it as it is."""

    cases: int
    patients: int
    classes: list[str]
    intervals: Intervals
    overall: dict[str, Estimate]
    majority_baseline: MajorityBaseline
    per_class: dict[str, ClassEstimates]
    confusion_matrix: list[list[int]]


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
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
    _check_confidence(confidence)
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


def evaluate(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    patients: Sequence[object],
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 42,
) -> Evaluation:
    """Measure predictions against labels; the prediction of a case is its most probable class.

    Accuracy, precision and recall get a Wilson interval, unless a patient has several cases in the denominator: these
    are not independent, so the patients are resampled (or counted, when all cases or none are right). All other figures
    always have the bootstrap by patient. Averages over classes count an undefined precision, recall or F1 as 0
    (scikit-learn's `zero_division=0`, with all classes as `labels`), in the resamples as in the data; balanced accuracy
    leaves out classes that have no case.

    Args:
        labels: class index of each case, shape (N,).
        probabilities: shape (N, K), in the order of `labels.CLASSES`.
        patients: patient of each case, N values; compared as strings.
        resamples: bootstrap resamples.
        confidence: coverage of the intervals, in (0, 1).
        seed: of the resampling; the same seed gives the same intervals, whatever the order of the cases.

    Returns:
        The evaluation; `overall` has accuracy, balanced_accuracy and macro_ and weighted_ precision, recall and f1.
        Rows of `confusion_matrix` are the true classes, columns the predicted.

    Raises:
        ValueError: no cases, lengths that differ, a label out of range, probabilities that are none, a missing patient.
    """
    _check_confidence(confidence)
    if resamples < 1:
        raise ValueError(f"expected at least 1 resample, came {resamples}")
    true, scores, names = _checked(labels, probabilities, patients)
    counts = _confusion_by_patient(true, scores.argmax(axis=1), names)  # (P, K, K)
    estimator = _Estimator(counts, resamples, confidence, seed)
    return {
        "cases": len(true),
        "patients": len(counts),
        "classes": list(CLASSES),
        "intervals": {"confidence": confidence, "resamples": resamples, "seed": seed, "methods": dict(METHODS)},
        "overall": estimator.overall(),
        "majority_baseline": estimator.majority_baseline(),
        "per_class": {name: estimator.class_estimates(k) for k, name in enumerate(CLASSES)},
        "confusion_matrix": counts.sum(axis=0).tolist(),
    }


def score_confusion(confusion: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Compute every metric from confusion matrices; the one place that has the formulas.

    Args:
        confusion: counts, shape (..., K, K), rows true, columns predicted, at least one case in each matrix.

    Returns:
        `precision`, `recall`, `f1`, `support` of shape (..., K); accuracy and the averages of shape (...). 0 / 0 is 0.
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
    scores = {
        "accuracy": hits.sum(axis=-1) / cases,
        "balanced_accuracy": by_class["recall"].sum(axis=-1) / (support > 0).sum(axis=-1),
    }
    scores |= {f"macro_{name}": values.mean(axis=-1) for name, values in by_class.items()}
    scores |= {f"weighted_{name}": (values * support).sum(axis=-1) / cases for name, values in by_class.items()}
    return {**by_class, **scores, "support": support}


def probability_fault(probabilities: NDArray[np.float64]) -> str | None:
    """Say what is wrong with the probabilities of one case, shape (K,); None when nothing is."""
    if probabilities.shape != (len(CLASSES),):
        return f"expected {len(CLASSES)} probabilities, came shape {probabilities.shape}"
    came = probabilities.tolist()
    if not np.isfinite(probabilities).all():
        return f"expected finite probabilities, came {came}"
    if (probabilities < 0).any():
        return f"expected probabilities of at least 0, came {came} (logits? apply softmax)"
    if abs(probabilities.sum() - 1) > SUM_TOLERANCE:
        return f"expected a sum of 1 within {SUM_TOLERANCE}, came {came}, sum {probabilities.sum():.6g}"
    return None


def join_faults(faults: Sequence[str], limit: int = 10) -> str:
    """Join faults into one message that stays readable when every row is bad."""
    more = [f"and {len(faults) - limit} more"] if len(faults) > limit else []
    return "; ".join([*faults[:limit], *more])


class _Estimator:
    """Figures with intervals from confusion counts by patient, shape (P, K, K)."""

    def __init__(self, counts: NDArray[np.int64], resamples: int, confidence: float, seed: int) -> None:
        self.counts = counts
        self.confidence = confidence
        self.total = counts.sum(axis=0)  # (K, K)
        self.cases = int(self.total.sum())
        self.data = score_confusion(self.total)
        self.resampled = score_confusion(_resample_confusion(counts, resamples, seed))

    def overall(self) -> dict[str, Estimate]:
        """Accuracy and the averages over classes."""
        hits = np.diagonal(self.counts, axis1=1, axis2=2).sum(axis=1)  # (P,)
        accuracy = self._proportion(hits, self.counts.sum(axis=(1, 2)), self.resampled["accuracy"])
        averages = [name for name, values in self.data.items() if np.ndim(values) == 0 and name != "accuracy"]
        return {
            "accuracy": accuracy,
            **{name: self._bootstrap(self.data[name], self.resampled[name], self.cases) for name in averages},
        }

    def majority_baseline(self) -> MajorityBaseline:
        """Accuracy of always answering the most frequent class; of equals the first in the order of `CLASSES`."""
        k = int(self.data["support"].argmax())
        shares = self.resampled["support"][:, k] / self.resampled["support"].sum(axis=1)
        accuracy = self._proportion(self.counts[:, k].sum(axis=1), self.counts.sum(axis=(1, 2)), shares)
        return {"label": CLASSES[k], "accuracy": accuracy}

    def class_estimates(self, k: int) -> ClassEstimates:
        """Figures of the class with index `k`."""
        hits = self.counts[:, k, k]  # (P,)
        precision, recall, f1 = (self.resampled[name][:, k] for name in ("precision", "recall", "f1"))
        support = int(self.total[k].sum())
        involved = support + int(self.total[:, k].sum() - self.total[k, k])
        return {
            "precision": self._proportion(hits, self.counts[:, :, k].sum(axis=1), precision),
            "recall": self._proportion(hits, self.counts[:, k].sum(axis=1), recall),
            "f1": self._bootstrap(self.data["f1"][k], f1, involved),
            "support": support,
        }

    def _proportion(self, hits: NDArray[np.int64], trials: NDArray[np.int64], samples: NDArray[np.float64]) -> Estimate:
        """Estimate hits / trials, both by patient, shape (P,)."""
        n, successes = int(trials.sum()), int(hits.sum())
        if n == 0:
            return self._bootstrap(0, samples, n)
        value = successes / n
        if trials.max() == 1:
            low, high = wilson_interval(successes, n, self.confidence)
            return {"value": value, "low": low, "high": high, "n": n, "method": "wilson"}
        if successes in (0, n):
            # Resampling has nothing to vary here, but each patient is one trial that came out all right or all wrong.
            patients = int((trials > 0).sum())
            low, high = wilson_interval(value * patients, patients, self.confidence)
            return {"value": value, "low": low, "high": high, "n": n, "method": "wilson_patients"}
        return self._bootstrap(value, samples, n)

    def _bootstrap(self, value: Any, samples: NDArray[np.float64], n: int) -> Estimate:
        """Estimate with the percentile interval of `samples`, shape (R,)."""
        if n == 0:
            return {"value": None, "low": None, "high": None, "n": 0, "method": "undefined"}
        tail = (1 - self.confidence) / 2
        low, high = (float(limit) for limit in np.quantile(samples, [tail, 1 - tail]))
        # An interval of no width would claim certainty where resampling has nothing to vary.
        if high - low < 1e-9:
            return {"value": float(value), "low": None, "high": None, "n": n, "method": "not_estimable"}
        return {"value": float(value), "low": low, "high": high, "n": n, "method": "patient_bootstrap"}


def _resample_confusion(counts: NDArray[np.int64], resamples: int, seed: int) -> NDArray[np.int64]:
    """Draw as many patients as there are, with replacement, and sum their counts: (P, K, K) to (R, K, K).

    Patients with equal counts are interchangeable, so one multinomial over the distinct ones draws them all: it is the
    same distribution, needs a few weights a resample, and does not depend on the order or the names of the patients.
    """
    size = counts.shape[-1]
    distinct, patients = np.unique(counts.reshape(len(counts), -1), axis=0, return_counts=True)
    weights = np.random.default_rng(seed).multinomial(len(counts), patients / len(counts), size=resamples)
    return (weights @ distinct).reshape(resamples, size, size)


def _confusion_by_patient(
    labels: NDArray[np.int64], predictions: NDArray[np.int64], patients: NDArray[np.str_]
) -> NDArray[np.int64]:
    """Count the cases of each patient by true and predicted class, shape (P, K, K)."""
    names = np.unique(patients)
    counts = np.zeros((len(names), len(CLASSES), len(CLASSES)), dtype=np.int64)
    np.add.at(counts, (np.searchsorted(names, patients), labels, predictions), 1)
    return counts


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    """Divide, with 0 where the denominator is 0."""
    quotient: NDArray[np.float64] = np.zeros(np.shape(numerator))
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, came {confidence}")


def _checked(
    labels: ArrayLike, probabilities: ArrayLike, patients: Sequence[object]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.str_]]:
    """Return labels (N,), probabilities (N, K) and patients (N,) as arrays, or raise ValueError."""
    true, scores = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    names = [str(patient).strip() for patient in patients]
    if not names:
        raise ValueError("expected at least one case, came none")
    if true.shape != (len(names),) or scores.shape != (len(names), len(CLASSES)):
        raise ValueError(
            f"expected labels (N,), probabilities (N, {len(CLASSES)}) and N patients, "
            f"came {true.shape}, {scores.shape} and {len(names)}"
        )
    if true.dtype.kind not in "iuf":
        raise ValueError(f"expected labels as class indices 0..{len(CLASSES) - 1}, came dtype {true.dtype}")
    faults = [
        f"labels[{i}]: expected a class index 0..{len(CLASSES) - 1}, came {label}"
        for i, label in enumerate(true.tolist())
        if label not in range(len(CLASSES))
    ]
    faults += [f"probabilities[{i}]: {fault}" for i, row in enumerate(scores) if (fault := probability_fault(row))]
    # Cases without a patient would be taken for the cases of one patient.
    faults += [f"patients[{i}]: expected an id, came {name!r}" for i, name in enumerate(names) if name in NO_PATIENT]
    if faults:
        raise ValueError(join_faults(faults))
    return true.astype(np.int64), scores, np.array(names)
