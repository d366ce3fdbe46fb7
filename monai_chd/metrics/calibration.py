"""Calibration and abstention of a trained model: a temperature and a threshold, kept as `calibration.json` beside its weights.

Both come from the validation cases, never from test cases. These cases also chose the model's epoch, so what they promise is
on the hopeful side; the file says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import softmax

from monai_chd.errors import UserError
from monai_chd.files import write_text
from monai_chd.schemas import read_checked

CALIBRATION = "calibration.json"
SCHEMA = Path(__file__).with_name("calibration.schema.json")

TEMPERATURES = 0.5, 10.0
"""Bounds of the temperature. A few validation cases that are all right would sharpen without end; more than twofold is not
believed. Ten leaves next to nothing of a model's confidence."""

SPREAD = 0.25
"""How far the logarithm of a temperature is expected from 0 before any case is seen (standard deviation). 38 cases alone know it
to some 0.2, and made a calibrated model worse; so much prior holds them near 1, and gives way to hundreds."""

FEWEST_CASES = 10
"""With fewer validation cases the temperature stays 1: its error would be larger than what it mends."""

NEVER = 0.0
"""The threshold of a model that never abstains."""

SOURCE = "validation cases that also chose the model's epoch: hopeful; no test case was used"


@dataclass(frozen=True)
class Calibration:
    """Temperature and threshold of a model; without arguments those of a model that was never calibrated.

    Attributes:
        temperature: log probabilities are divided by it; above 1 it makes less confident.
        threshold: cases whose calibrated top probability is below it are abstained from; None when no threshold reaches the
            target, so that all cases are.
        target: {"coverage": share of cases to answer} or {"risk": share of the answers that may be wrong}; `wish` in the file.
        confidence: calibrated top probability of each validation case, falling.
        right: whether the most probable class of each was the true one.
    """

    temperature: float = 1.0
    threshold: float | None = NEVER
    target: Mapping[str, float] | None = None
    confidence: tuple[float, ...] = ()
    right: tuple[bool, ...] = ()

    def apply(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities, shape (..., K); the most probable class stays."""
        return scale(probabilities, self.temperature)

    def reason(self, calibrated: ArrayLike) -> str:
        """Why to abstain from a case with these calibrated probabilities, shape (K,); empty when it is answered."""
        if self.threshold is None:
            return f"a risk of {(self.target or {}).get('risk')} was not reached at any confidence in validation"
        top = float(np.max(calibrated))
        if top >= self.threshold:
            return ""
        # As many digits as it takes to tell them apart.
        digits = next(d for d in range(2, 18) if f"{top:.{d}f}" != f"{self.threshold:.{d}f}" or d == 17)
        return f"confidence {top:.{digits}f} below {self.threshold:.{digits}f}"

    def with_target(self, coverage: float | None = None, risk: float | None = None) -> Calibration:
        """The same temperature with the threshold for another target; both None: as it is.

        Raises:
            UserError: a target that is none, or a model without validation cases to choose its threshold from.
        """
        if coverage is None and risk is None:
            return self
        target = read_target(coverage, risk)
        if not self.confidence:
            if target == {"coverage": 1.0}:
                return Calibration(self.temperature, NEVER, target)
            raise UserError(
                f"{' and '.join(target)}: the model has no {CALIBRATION} beside it to choose a threshold from; leave it out, or "
                f"train the model again"
            )
        return Calibration(self.temperature, self._threshold(target), target, self.confidence, self.right)

    def _threshold(self, target: Mapping[str, float]) -> float | None:
        if "risk" in target:
            return risk_threshold(self.confidence, self.right, target["risk"])
        return coverage_threshold(self.confidence, target["coverage"])


def read_target(coverage: float | None, risk: float | None) -> dict[str, float]:
    """The target as `Calibration.target` has it; a coverage of 1 beside a risk is no target of its own.

    Raises:
        UserError: a coverage outside (0, 1], a risk outside (0, 1), or both.
    """
    for name, value, closed in (("coverage", coverage, True), ("risk", risk, False)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and (0 < value < 1 or (closed and value == 1))):
            raise UserError(f"{name}: expected a share above 0 {'up to' if closed else 'and below'} 1, came {value!r}")
    if risk is not None and coverage not in (None, 1):
        raise UserError(
            f"expected a wished coverage or a wished risk, came both ({coverage} and {risk}); leave one out"
        )
    return {"coverage": 1.0 if coverage is None else float(coverage)} if risk is None else {"risk": float(risk)}


def scale(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Softmax of log probabilities divided by a temperature; `scale(scale(p, t), 1 / t)` gives p back.

    Args:
        probabilities: shape (..., K).
        temperature: above 0; at 1 the probabilities stay as they are, to the last bit.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    scaled: NDArray[np.float64] = values if temperature == 1 else softmax(_logits(values) / temperature, axis=-1)
    return scaled


def fit_temperature(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Temperature (Guo et al. 2017), drawn towards 1 where the cases know little of it, within `TEMPERATURES`.

    It is the most probable one when log T is normal around 0 with `SPREAD` before the cases are seen.

    Args:
        labels: class index of each case, shape (N,).
        probabilities: as the network gives them, shape (N, K).

    Returns:
        The temperature; 1 with fewer than `FEWEST_CASES` cases, or when no temperature changes anything.
    """
    true, logits = np.asarray(labels, dtype=np.int64), _logits(np.asarray(probabilities, dtype=np.float64))
    if len(true) < FEWEST_CASES:
        return 1.0

    def slope(log_temperature: float) -> float:
        """Of the negative log-posterior by log T."""
        inverse = np.exp(-log_temperature)
        expected = (softmax(inverse * logits, axis=1) * logits).sum(axis=1)
        gained = inverse * np.sum(logits[np.arange(len(true)), true] - expected)
        return float(gained + log_temperature / SPREAD**2)

    cold, hot = np.log(TEMPERATURES)
    if np.ptp(logits, axis=1).max() < 1e-9:
        return 1.0
    if slope(hot) <= 0:
        return TEMPERATURES[1]
    return TEMPERATURES[0] if slope(cold) >= 0 else float(np.exp(brentq(slope, cold, hot, xtol=1e-13)))


def coverage_threshold(confidence: ArrayLike, coverage: float) -> float:
    """Threshold that answers at least a share of these cases, halfway to the first that is not answered.

    Args:
        confidence: calibrated top probability of each case, shape (N,), at least one.
        coverage: in (0, 1]; 1 never abstains, however unsure a later case may be.
    """
    values = np.sort(np.asarray(confidence, dtype=np.float64))[::-1]
    last = values[int(np.ceil(coverage * len(values) - 1e-9)) - 1]
    return NEVER if coverage == 1 else _below(values, last)


def risk_threshold(confidence: ArrayLike, right: ArrayLike, risk: float) -> float | None:
    """Threshold that answers as many of these cases as possible with at most a share of the answers wrong.

    One more wrong answer is counted than there are, so that a handful of right answers does not promise a small risk.

    Args:
        confidence: calibrated top probability of each case, shape (N,).
        right: whether each is right, shape (N,).
        risk: in (0, 1).

    Returns:
        The threshold; None when no threshold does it.
    """
    order = np.argsort(-np.asarray(confidence, dtype=np.float64), kind="stable")
    values, wrong = np.asarray(confidence, dtype=np.float64)[order], np.cumsum(~np.asarray(right, dtype=bool)[order])
    answered = np.arange(1, len(values) + 1)
    whole = np.append(values[1:] != values[:-1], True)  # equal confidences are answered together
    good = np.flatnonzero(whole & ((wrong + 1) / (answered + 1) <= risk))
    return _below(values, values[good[-1]]) if len(good) else None


def calibrate(
    labels: ArrayLike, probabilities: ArrayLike, *, coverage: float | None = 1.0, risk: float | None = None
) -> Calibration:
    """Fit the temperature and choose the threshold.

    Args:
        labels: class index of each validation case, shape (N,), at least one.
        probabilities: as the network gives them, shape (N, K).
        coverage: share of cases to answer.
        risk: instead, share of the answers that may be wrong.

    Raises:
        UserError: no case, probabilities that are not finite, or a target that is none.
    """
    true, scores = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    if not len(true) or not np.isfinite(scores).all():
        raise UserError("calibration: expected finite probabilities of at least one validation case")
    temperature = fit_temperature(true, scores)
    calibrated = scale(scores, temperature)
    top, right = calibrated.max(axis=1), scores.argmax(axis=1) == true
    order = np.lexsort((right, -top))
    start = Calibration(temperature, NEVER, None, tuple(top[order].tolist()), tuple(right[order].tolist()))
    target = read_target(coverage, risk)
    return start.with_target(target.get("coverage"), target.get("risk"))


def write_calibration(calibration: Calibration, folder: str | Path) -> Path:
    """Write `calibration.json` into the folder of the weights."""
    path = Path(folder, CALIBRATION)
    content = {
        "temperature": calibration.temperature,
        "threshold": calibration.threshold,
        "wish": calibration.target,
        "cases": len(calibration.confidence),
        "source": SOURCE,
        "at_bound": calibration.temperature in TEMPERATURES,
        "validation": {"confidence": calibration.confidence, "right": calibration.right},
    }
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return path


def read_calibration(checkpoint: str | Path | None) -> Calibration:
    """The calibration beside weights; that of an uncalibrated model when there is none.

    Raises:
        UserError: a file that is no calibration; names it and the key.
    """
    path = None if checkpoint is None else Path(checkpoint).with_name(CALIBRATION)
    if path is None or not path.is_file():
        return Calibration()
    mend = "; train the model again, or delete it"
    content = read_checked(path, SCHEMA, "a calibration of a model", mend)
    seen = content.get("validation", {"confidence": (), "right": ()})
    confidence, right = tuple(map(float, seen["confidence"])), tuple(seen["right"])
    if len(confidence) != len(right):
        raise UserError(
            f"{path}: validation: expected as many right as confidence, came {len(right)} and {len(confidence)}{mend}"
        )
    return Calibration(float(content["temperature"]), content["threshold"], content["wish"], confidence, right)


def calibration_line(calibration: Calibration) -> str:
    """One line for the terminal; empty for a model that was never calibrated."""
    if not calibration.confidence:
        return ""
    threshold, target = calibration.threshold, dict(calibration.target or {})
    asked = " ".join(f"{name} {value:g}" for name, value in target.items())
    if threshold is None:
        rule = f"abstains from everything: {asked} is not reached"
    else:
        rule = "never abstains" if threshold == NEVER else f"abstains below {threshold:.3f} ({asked})"
    bound = " (at its bound)" if calibration.temperature in TEMPERATURES else ""
    return (
        f"calibration: temperature {calibration.temperature:.3f}{bound}, {rule}; from {len(calibration.confidence)} "
        f"validation cases, which also chose the model"
    )


def _logits(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log probabilities; a probability of 0, which half precision makes of a small one, counts as the smallest number."""
    logits: NDArray[np.float64] = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return logits


def _below(falling: NDArray[np.float64], last: float) -> float:
    """Halfway between the last confidence answered and the next smaller one; never abstain when there is none."""
    lower = falling[falling < last]
    return float((last + lower[0]) / 2) if len(lower) else NEVER
