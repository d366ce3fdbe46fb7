"""Whether a model is shown to be better than always answering the most frequent class: decided here only, in one sentence.

Computes no figure; every output prints what is stored in the results.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from monai_chd.metrics.estimates import Estimate
from monai_chd.metrics.formulas import SIGNIFICANT
from monai_chd.wording import p_words

Verdict = TypedDict("Verdict", {"is": Literal["better", "worse", "not shown", "unknown"], "sentence": str})
"""The verdict, and its sentence, which goes on from one that tells what always answering the most frequent class reaches."""


def judge(accuracy: Estimate, baseline: Estimate, binomial_p: float) -> Verdict:
    """Judge an accuracy by its interval and a test, of which one alone is not enough.

    Args:
        accuracy: of the model.
        baseline: accuracy of always answering the most frequent class of the same patients.
        binomial_p: exact one-sided p of the model's right answers against the baseline's share.

    Returns:
        "better" when the whole interval lies above the baseline's share and p is below `formulas.SIGNIFICANT`; "worse" when the
        whole interval lies below it; "unknown" without an interval; else "not shown".
    """
    value, low, high, share = accuracy["value"], accuracy["low"], accuracy["high"], baseline["value"]
    tested = f"(exact binomial test, {p_words(binomial_p)})"
    if value is None or low is None or high is None or share is None:
        return {
            "is": "unknown",
            "sentence": "Whether the model does better than that cannot be told from these patients.",
        }
    if low > share and binomial_p < SIGNIFICANT:
        sentence = f"So the model does better than that {tested}; it is wrong in the other {1 - value:.0%} of patients."
        return {"is": "better", "sentence": sentence}
    if high < share:
        return {"is": "worse", "sentence": "So the model does worse than that: it is of no use as it is."}
    return {"is": "not shown", "sentence": f"So it is not shown that the model does better than that {tested}."}
