"""Two cross-validations are compared patient by patient, by tests that equal statsmodels' and scipy's, or refused."""

import json
import re

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar
from tiny_predictions import LABELS, REPEATS, SCORES, of_repeat, table

from monai_chd.labels import CLASSES
from monai_chd.metrics.comparison import compare_paired
from monai_chd.metrics.evaluation import evaluate_out_of_fold


@pytest.fixture(scope="module")
def pair():
    return table(1, signal=1.2), table(2, signal=0.4)


@pytest.fixture(scope="module")
def comparison(pair):
    return compare_paired(*pair, names=("ours", "theirs"), resamples=500)


@pytest.mark.parametrize("name", SCORES)
def test_differences_are_first_minus_second(comparison, pair, name):
    values = [np.mean([SCORES[name](*of_repeat(each, repeat)) for repeat in range(REPEATS)]) for each in pair]
    assert comparison["differences"][name]["value"] == pytest.approx(values[0] - values[1], abs=1e-12)
    assert comparison["better"][name] == (-1 if name in ("log_loss", "brier") else 1)


def test_the_difference_of_equals_has_no_interval_but_zero():
    same = compare_paired(table(1), table(1), resamples=50)
    assert all(e["value"] == 0 and e["method"] == "not_estimable" for e in same["differences"].values())
    assert {test["p"] for test in same["mcnemar"]} == {1} and same["corrected_t"]["p"] == 1
    assert "No difference in accuracy" in same["sentences"][0]


def test_the_difference_swaps_with_the_order(pair, comparison):
    swapped = compare_paired(*pair[::-1], resamples=500)
    for name, estimate in comparison["differences"].items():
        other = swapped["differences"][name]
        assert other["value"] == pytest.approx(-estimate["value"])
        assert (other["low"], other["high"]) == pytest.approx((-estimate["high"], -estimate["low"]), abs=1e-9)


def test_pairing_makes_the_interval_narrower_than_two_that_know_nothing_of_each_other(pair, comparison):
    alone = [evaluate_out_of_fold(each, resamples=500)["all"]["overall"]["log_loss"] for each in pair]
    widths = [estimate["high"] - estimate["low"] for estimate in alone]
    difference = comparison["differences"]["log_loss"]
    assert difference["high"] - difference["low"] < np.hypot(*widths)


def test_mcnemar_is_of_each_repeat_and_of_the_ensemble(comparison, pair):
    tests = comparison["mcnemar"]
    assert [test["of"] for test in tests] == [
        "repeat 0",
        "repeat 1",
        "repeat 2",
        "ensemble: mean probabilities over repeats",
    ]
    rights = [[p.argmax(1) == y for y, p in (of_repeat(each, r) for r in range(REPEATS))] for each in pair]
    means = [np.mean([of_repeat(each, r)[1] for r in range(REPEATS)], axis=0).argmax(1) == LABELS for each in pair]
    for test, a, b in zip(tests, [*rights[0], means[0]], [*rights[1], means[1]], strict=True):
        both = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(b & ~a), np.sum(~a & ~b)]]
        assert (test["only_first"], test["only_second"]) == (both[0][1], both[1][0])
        assert test["p"] == pytest.approx(mcnemar(both, exact=True).pvalue, abs=1e-12)


def test_the_corrected_t_test_is_over_fits_and_more_careful_than_the_plain_one(comparison, pair):
    rights = [(each["prediction"] == each["label"]).astype(float) for each in pair]
    differences = (rights[0] - rights[1]).groupby([pair[0]["repeat"], pair[0]["fold"]]).mean()
    test = comparison["corrected_t"]
    assert test["fits"] == len(differences) == 9
    assert test["difference"] == pytest.approx(differences.mean())
    plain = ttest_1samp(differences, 0).confidence_interval()
    # test parts are a third, training parts two thirds: variance (1/9 + 1/2) in place of 1/9
    assert test["high"] - test["low"] == pytest.approx((plain.high - plain.low) * np.sqrt(1 + 9 / 2))


def test_the_corrected_t_test_counts_who_was_really_trained_on(pair, comparison):
    widths = [
        test["high"] - test["low"]
        for test in (comparison["corrected_t"], compare_paired(*pair, resamples=50, inner_share=0.2)["corrected_t"])
    ]
    # a third against two thirds, of which a fifth chose the epoch
    assert widths[1] / widths[0] == pytest.approx(np.sqrt((1 / 9 + 1 / 2 / 0.8) / (1 / 9 + 1 / 2)))


def test_differences_stay_between_their_largest(pair):
    wrong = pair[0].copy()
    wrong[list(CLASSES)] = np.eye(3)[(wrong["label"].map(CLASSES.index) + 1) % 3]
    right = wrong.copy()
    right[list(CLASSES)] = np.eye(3)[wrong["label"].map(CLASSES.index)]
    few = wrong["patient"].isin(sorted(set(wrong["patient"]))[:3])
    for first, second in ((right, wrong), (wrong, right), (right.where(~few, wrong), wrong)):
        found = compare_paired(first, second, resamples=100)
        for name, estimate in found["differences"].items():
            if estimate["low"] is not None and name != "log_loss":
                reach = {"mcc": 2, "brier": 2}.get(name, 1)
                assert -reach <= estimate["low"] <= estimate["high"] <= reach, name
        assert -1 <= found["corrected_t"]["low"] <= found["corrected_t"]["high"] <= 1


def test_one_repeat_has_no_ensemble_beside_it(pair):
    once = [each[each["repeat"] == 0] for each in pair]
    assert [test["of"] for test in compare_paired(*once, resamples=50)["mcnemar"]] == ["repeat 0"]
    assert evaluate_out_of_fold(once[0], resamples=50)["ensemble"] is None


def test_the_comparison_is_json_and_says_what_it_found(comparison):
    assert json.loads(json.dumps(comparison, allow_nan=False)) == comparison
    assert re.match(
        r"Accuracy of ours minus that of theirs: \+\d+\.\d percentage points \[95% interval ",
        comparison["sentences"][0],
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t[t["patient"] != "p000"], r"the patients differ \(1 only in the first, 0 only in the second\)"),
        (lambda t: t[t["repeat"] < 2], r"the repeats differ \(1 only in the first"),
        (
            lambda t: t.assign(fold=(t["fold"] + 1) % 3),
            "108 rows have another fold, for example ct_p000.nii.gz in repeat 0",
        ),
        (lambda t: t.replace({"label": {CLASSES[2]: CLASSES[1]}}), "21 rows have another label"),
    ],
)
def test_cross_validations_of_other_patients_or_folds_are_not_compared(pair, spoil, message):
    with pytest.raises(ValueError, match=f"cannot compare: .*{message}.*same folds"):
        compare_paired(pair[0], spoil(pair[1]), resamples=10)
