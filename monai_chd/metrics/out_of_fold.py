"""Out-of-fold predictions of a repeated cross-validation as checked arrays, with what is counted by repeat and by patient.

Owns what such a table must be. The figures are `evaluation`'s part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monai_chd.errors import UserError
from monai_chd.labels import CLASSES
from monai_chd.metrics.estimates import SHARE, Estimate, Evaluation, bootstrap_estimate, evaluate, probability_fault
from monai_chd.metrics.formulas import patient_weights, weighted_figures
from monai_chd.wording import join_faults

RAW = "raw_"
"""Before a class's name: the column of its probability before the temperature was applied."""


@dataclass(frozen=True)
class Cases:
    """Cases that have probabilities.

    Attributes:
        labels: class index of each case, shape (N,).
        probabilities: shape (N, K).
        patients: index of each case's patient in `names`, shape (N,).
        repeats: index of each case's repeat, shape (N,), 0..M-1.
        answered: whether each is not abstained from, shape (N,).
        names: patients, sorted.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    patients: NDArray[np.int64]
    repeats: NDArray[np.int64]
    answered: NDArray[np.bool_]
    names: list[str]

    @property
    def repeat_count(self) -> int:
        """M."""
        return int(self.repeats.max()) + 1

    @property
    def n(self) -> int:
        """Cases of a repeat, in the mean."""
        return round(len(self.labels) / self.repeat_count)

    def some(self, rows: NDArray[Any]) -> Cases:
        """Some of the cases, by mask or index; patients keep theirs."""
        parts = {
            name: getattr(self, name)[rows] for name in ("labels", "probabilities", "patients", "repeats", "answered")
        }
        return replace(self, **parts)

    def with_probabilities(self, probabilities: NDArray[np.float64]) -> Cases:
        """The same cases with other probabilities, shape (N, K)."""
        return replace(self, probabilities=probabilities)

    def by_repeat(self) -> list[Cases]:
        """The cases of each repeat."""
        return [self.some(self.repeats == repeat) for repeat in np.unique(self.repeats)]

    def right(self) -> NDArray[np.bool_]:
        """Whether the most probable class of each case is the true one, shape (N,)."""
        right: NDArray[np.bool_] = self.probabilities.argmax(axis=1) == self.labels
        return right

    def right_by_patient(self) -> NDArray[np.float64]:
        """Share of each patient's predictions that are right, over repeats and scans, shape (P,)."""
        size = len(self.names)
        shares: NDArray[np.float64] = np.bincount(self.patients, self.right(), size) / np.bincount(
            self.patients, minlength=size
        )
        return shares

    def all_right(self) -> NDArray[np.bool_]:
        """Which patients have all of their predictions right, shape (P,)."""
        wrong = np.bincount(self.patients, ~self.right(), len(self.names))
        return np.equal(wrong, 0)

    def labels_by_patient(self) -> NDArray[np.int64]:
        """Class of each patient, shape (P,)."""
        labels = np.zeros(len(self.names), dtype=np.int64)
        labels[self.patients] = self.labels
        return labels

    def evaluate(self, **options: Any) -> Evaluation:
        """`estimates.evaluate` of these cases."""
        patients, repeats = self.patients.tolist(), self.repeats.tolist()
        return evaluate(self.labels, self.probabilities, patients=patients, repeats=repeats, **options)

    def figures(self, resamples: int, seed: int) -> dict[str, NDArray[np.float64]]:
        """`formulas.weighted_figures`, with patients in the order of their names, so that two tables share resamples."""
        weights = patient_weights(len(self.names), resamples, seed)
        return weighted_figures(self.labels, self.probabilities, self.patients, self.repeats, weights)


def figure_estimate(
    samples: NDArray[np.float64], resamples: int, n: int, limits_of_value: tuple[float, float] = SHARE
) -> Estimate:
    """Estimate out of a figure of `Cases.figures`, or of the difference of two, shape (1 + R + P,)."""
    value, resampled, jackknife = np.split(samples, [1, 1 + resamples])
    return bootstrap_estimate(float(value[0]), resampled, jackknife, n, limits_of_value=limits_of_value)


def read_cases(table: pd.DataFrame) -> Cases:
    """Check a table of out-of-fold predictions, and take the cases that have probabilities.

    Args:
        table: see `evaluation.evaluate_out_of_fold`.

    Raises:
        UserError: no rows, a repeat with other images, an image twice, a patient with two labels, probabilities that are
            none, no probabilities at all, or a missing column; all bad rows are named.
    """
    needed = ["image", "patient", "label", *CLASSES, "abstain", "repeat", "fold"]
    if missing := [name for name in needed if name not in table.columns]:
        raise UserError(f"predictions: expected the columns {', '.join(needed)}, {', '.join(missing)} is missing")
    if table.empty:
        raise UserError("predictions: expected at least one row, came none")
    images = table.groupby("repeat")["image"].agg(list)
    everyone = set(table["image"])
    faults = [
        f"repeat {repeat}: expected each of {len(everyone)} images once, came {len(found)} rows of {len(set(found))} images "
        f"(a fold that did not finish?)"
        for repeat, found in images.items()
        if len(found) != len(everyone) or set(found) != everyone
    ]
    several = table.groupby("patient")["label"].nunique()
    faults += [f"patient {patient}: expected one label, came {n}" for patient, n in several.items() if n > 1]
    faults += [
        f"repeat {row['repeat']}, image {row['image']}: {fault}"
        for row in table.to_dict("records")
        if (fault := _row_fault(row))
    ]
    if faults:
        raise UserError(f"predictions: {join_faults(faults)}")
    kept = table[table[CLASSES[0]].notna()]
    if kept.empty:
        raise UserError("predictions: expected probabilities, no row has any")
    names, patients = np.unique(kept["patient"].astype(str).to_numpy(dtype=str), return_inverse=True)
    return Cases(
        labels=np.array([CLASSES.index(label) for label in kept["label"]], dtype=np.int64),
        probabilities=kept[list(CLASSES)].to_numpy(dtype=np.float64),
        patients=patients,
        repeats=np.unique(kept["repeat"], return_inverse=True)[1],
        answered=~kept["abstain"].to_numpy(dtype=bool),
        names=names.tolist(),
    )


def _row_fault(row: Mapping[Any, Any]) -> str | None:
    if row["label"] not in CLASSES:
        return f"expected a label out of {', '.join(CLASSES)}, came {row['label']!r}"
    probabilities = np.array([row[name] for name in CLASSES], dtype=np.float64)
    # Without probabilities there is a reason, hence an abstention; NaN in an answer is a fault.
    return None if np.isnan(probabilities).all() and row["abstain"] else probability_fault(probabilities)


def mean_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row an image with its mean probabilities over repeats, patient and label; sorted by image."""
    kept = table[table[CLASSES[0]].notna()]
    return kept.groupby("image").agg({"patient": "first", "label": "first", **dict.fromkeys(CLASSES, "mean")})


def raw_probabilities(table: pd.DataFrame) -> NDArray[np.float64] | None:
    """Probabilities before the temperature of the rows that have any; None when the table lacks some."""
    columns = [RAW + name for name in CLASSES]
    kept = table[table[CLASSES[0]].notna()]
    known = set(columns) <= set(table.columns) and kept[columns].notna().all(axis=None)
    return kept[columns].to_numpy(dtype=np.float64) if known else None
