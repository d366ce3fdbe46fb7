"""What the controls of a cross-validation say about it, in words chosen from intervals and paired differences.

Computes no figure; `controls` does.
"""

from __future__ import annotations

import math

from monai_chd.labels import CLASSES
from monai_chd.metrics.estimates import Estimate
from monai_chd.metrics.wording import format_estimate

CHANCE = 1 / len(CLASSES)
"""Balanced accuracy of any guess that does not look."""

TITLES = {
    "shuffled_labels": (
        "Shuffled labels",
        "Does the same training find anything when the classes are dealt out at random? It must not.",
    ),
    "frame_order": (
        "Shuffled frames",
        "Does the order of the frames matter? The same training with the frames of every scan in random order.",
    ),
    "intensity": (
        "Intensity only",
        "How far does brightness alone go? Logistic regression on a histogram of 64 bins, blind to shape.",
    ),
    "confounders": (
        "Confounders only",
        "How far do numbers about the scan go (slice count, spacing, scanner, age, contrast), without the picture?",
    ),
    "structures": (
        "Label maps",
        "What do sizes, places and contacts of the hand-drawn structures tell? Logistic regression on 49 numbers.",
    ),
}
"""Title and question of each control, in the order of the report."""

SUBJECTS = {
    "intensity": "Brightness alone",
    "confounders": "What is known of the scan without its picture",
    "structures": "The hand-drawn anatomy",
}
"""What the answer to a question is about."""


def meaning(name: str, balanced: Estimate, difference: Estimate | None) -> str:
    """What a control says, from where its interval lies to chance and where that of the paired difference lies to 0.

    Args:
        name: key of `TITLES`.
        balanced: its balanced accuracy; chance is one in the number of classes, whatever the classes' sizes.
        difference: accuracy of the model minus the control's; None where it cannot be had.
    """
    above = _side(balanced, CHANCE)
    figure = f"balanced accuracy {format_estimate(balanced, 'share')}, chance {CHANCE:.1%}"
    if name == "shuffled_labels":
        return {
            1: f"Better than chance although there is nothing to learn ({figure}): test patients leak into the training; do not "
            f"trust any figure of this report.",
            0: f"No better than chance, as it must be ({figure}): whatever the model finds with the true "
            f"labels, if anything, does not come from the procedure itself.",
            -1: f"Worse than chance ({figure}): no leak shows, but with so few patients the folds oppose each other.",
        }[above]
    if name == "frame_order":
        return _order_meaning(difference)
    chance = {
        1: f"tells the classes apart better than chance ({figure})",
        0: f"does not measurably tell the classes apart ({figure})",
        -1: f"is worse than chance ({figure})",
    }[above]
    return f"{SUBJECTS[name]} {chance}; {_model_meaning(name, above, difference)}."


def _order_meaning(difference: Estimate | None) -> str:
    if difference is None:
        return "The difference to the model could not be computed."
    figure = f"accuracy in order minus shuffled {format_estimate(difference, 'points')}"
    return {
        1: f"Frame order carries information: without it the model is right less often ({figure}).",
        0: f"Frame order carries no measurable information here ({figure}).",
        -1: f"The model is right more often without the frame order ({figure}): as a sequence it reads them worse.",
    }[_side(difference, 0.0)]


def _model_meaning(name: str, above: int, difference: Estimate | None) -> str:
    if difference is None:
        return "the difference to the model could not be computed"
    figure = f"model minus control {format_estimate(difference, 'points')}"
    side = _side(difference, 0.0)
    if side > 0:
        return f"the model is right more often ({figure})"
    if side < 0:
        more = (
            ", so the images hold more than the model reads"
            if name == "structures"
            else ", so it does not need the model"
        )
        return f"it is right more often than the model ({figure}){more}"
    doubt = ": the model may read nothing else" if above > 0 and name != "structures" else ""
    return f"the model is not measurably better ({figure}){doubt}"


def _side(estimate: Estimate, value: float) -> int:
    """1 when the whole interval is above a value, -1 below, 0 when it holds it; without one the figure itself is held to it.

    A figure has no interval when every resample gives the same, as when all patients are right.
    """
    figure, low, high = estimate["value"], estimate["low"], estimate["high"]
    if figure is None or (low is None and math.isclose(figure, value, abs_tol=1e-9)):
        return 0
    low, high = (figure if low is None else low), (figure if high is None else high)
    return 1 if low > value else -1 if high < value else 0
