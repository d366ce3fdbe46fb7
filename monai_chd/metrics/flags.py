"""How well single diagnosis flags are told: area under the ROC curve and average precision, with intervals by patient.

What is a flag is the part of `labels`; figures of classes are those of `formulas`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_chd.metrics.estimates import Estimate, bootstrap_estimate
from monai_chd.metrics.formulas import patient_weights

FIGURES = {"auc": roc_auc_score, "ap": average_precision_score}


def flag_estimates(
    present: NDArray[np.bool_],
    probability: NDArray[np.float64],
    patients: Sequence[str],
    repeats: Sequence[int],
    *,
    resamples: int = 500,
    seed: int = 42,
) -> dict[str, Estimate]:
    """`auc` and `ap` of one flag, of each repeat on its own, then the mean over repeats.

    Args:
        present: whether the case has the flag, (N,).
        probability: of it, (N,).
        patients, repeats: of each case.
        resamples, seed: of the bootstrap.

    Returns:
        By name; undefined where all cases have the flag or none has.
    """
    names = sorted(set(patients))
    owner = np.array([names.index(patient) for patient in patients])
    weights = patient_weights(len(names), resamples, seed)[:, owner]  # (1 + R + P, N)
    rounds = [np.asarray(repeats) == repeat for repeat in sorted(set(repeats))]
    found = {}
    for name, figure in FIGURES.items():
        values = np.full((len(rounds), len(weights)), np.nan)
        for place, mine in enumerate(rounds):
            for row, weight in enumerate(weights[:, mine]):
                having = weight[present[mine]].sum()
                if 0 < having < weight.sum():
                    values[place, row] = figure(present[mine], probability[mine], sample_weight=weight)
        mean = values.mean(0)
        value, resampled, jackknife = np.split(mean, [1, 1 + resamples])
        found[name] = bootstrap_estimate(float(value[0]), resampled, jackknife, len(names))
    return found
