"""Dice of each structure, by patient, and its mean with an interval.

What is a structure, and what of a label map counts, is the part of `labels` and `transforms.LoadLabelFrames`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_chd.labels import MYOCARDIUM, STRUCTURES, UNDRAWN
from monai_chd.metrics.estimates import Estimate, bootstrap_estimate
from monai_chd.metrics.formulas import patient_weights


def dice_of_structures(predicted: Tensor, drawn: Tensor) -> NDArray[np.float64]:
    """Dice of each structure of one case, shape (S,), in the order of `labels.STRUCTURES`.

    NaN for what is not in the label map, the myocardium where nobody drew it among it.

    Args:
        predicted: numbers of structures, integers of any shape.
        drawn: the same of the label map; `labels.UNDRAWN` where the myocardium is unknown.
    """
    kinds = UNDRAWN + 1
    pairs = torch.bincount(drawn.flatten().long() * kinds + predicted.flatten().long(), minlength=kinds**2)
    counts = pairs.reshape(kinds, kinds).double().cpu().numpy()
    if counts[UNDRAWN].any():
        counts[0] += counts[UNDRAWN]
        counts[UNDRAWN] = 0
        counts[0, MYOCARDIUM] = 0  # may be right
    inner = slice(1, len(STRUCTURES) + 1)
    hits, truth = np.diagonal(counts)[inner], counts.sum(1)[inner]
    with np.errstate(invalid="ignore"):
        return np.where(truth > 0, 2 * hits / (truth + counts.sum(0)[inner]), np.nan)


def dice_estimates(
    dice: NDArray[np.float64], patients: Sequence[str], *, resamples: int = 2000, seed: int = 42
) -> dict[str, Estimate]:
    """Mean Dice of each structure over the patients that have it, and of all structures, with bootstrap intervals by patient.

    Args:
        dice: of each case, shape (N, S), NaN where undefined; cases of a patient are averaged first.
        patients: of each case.
        resamples, seed: of the bootstrap.

    Returns:
        By structure, and "mean": the mean of these means.
    """
    names = sorted(set(patients))
    owner = np.array([names.index(patient) for patient in patients])
    with np.errstate(invalid="ignore"):
        of_patient = np.array([_mean_of_defined(dice[owner == n], 0) for n in range(len(names))])
    weights = patient_weights(len(names), resamples, seed)  # (1 + R + P, P)
    defined = np.isfinite(of_patient)
    with np.errstate(invalid="ignore"):
        samples = weights @ np.where(defined, of_patient, 0) / (weights @ defined)
    found: dict[str, Estimate] = {}
    columns = {name: samples[:, k] for k, name in enumerate(STRUCTURES)} | {"mean": _mean_of_defined(samples, 1)}
    counts = [*defined.sum(0), len(names)]
    for (name, column), n in zip(columns.items(), counts, strict=True):
        value, resampled, jackknife = np.split(column, [1, 1 + resamples])
        found[name] = bootstrap_estimate(float(value[0]), resampled, jackknife, int(n))
    return found


def _mean_of_defined(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Mean without NaN; NaN where there is nothing else."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(defined, values, 0).sum(axis) / defined.sum(axis)
    return mean
