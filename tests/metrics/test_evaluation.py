"""Results of a cross-validation equal scikit-learn's on each repeat, count patients, and say in words what they allow."""

import json
import re
import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk
from statsmodels.stats.proportion import proportion_confint
from tiny_predictions import LABELS, REPEATS, SCORES, of_repeat, table

from monai_chd.labels import CLASSES
from monai_chd.metrics.estimates import METHODS, OVERALL
from monai_chd.metrics.evaluation import evaluate_out_of_fold
from monai_chd.metrics.verdict import judge


@pytest.fixture(scope="module")
def predictions():
    return table(threshold=0.5)


@pytest.fixture(scope="module")
def flags():
    names = [f"p{i:03}" for i in range(len(LABELS))]
    return {
        name: (["ToF", "VSD"] if k == 0 else ["VSD"] if k == 1 else []) for name, k in zip(names, LABELS, strict=True)
    }


@pytest.fixture(scope="module")
def found(predictions, flags):
    return evaluate_out_of_fold(predictions, flags, resamples=300)


def walk(value, path=""):
    """All values of a result with where they stand."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from walk(child, f"{path}/{key}")
        if set(value) == {"value", "low", "high", "n", "method"}:
            yield path, value
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from walk(child, f"{path}/{i}")


@pytest.mark.parametrize("name", SCORES)
def test_each_figure_is_the_mean_over_repeats_of_scikit_learns(found, predictions, name):
    values = [SCORES[name](*of_repeat(predictions, repeat)) for repeat in range(REPEATS)]
    assert found["repeat_spread"][name] == pytest.approx(values, abs=1e-12)
    assert found["all"]["overall"][name]["value"] == pytest.approx(np.mean(values), abs=1e-12)


def test_every_figure_of_the_contract_is_there(found):
    assert set(SCORES) | {"ece"} == set(OVERALL) == set(found["all"]["overall"])
    for each in found["all"]["per_class"].values():
        assert set(each) == {"precision", "recall", "f1", "auc", "support"}
    assert [each["support"] for each in found["all"]["per_class"].values()] == [16, 13, 7]


def test_n_is_never_patients_times_repeats(found):
    counts = [estimate["n"] for _, estimate in walk(found)]
    assert len(counts) > 40 and max(counts) == len(LABELS) == found["patients"]


def test_every_figure_has_an_interval_and_an_explained_method(found):
    for path, estimate in walk(found):
        assert estimate["method"] in METHODS, path
        assert estimate["method"] in found["methods"]
        assert estimate["low"] is not None and estimate["low"] <= estimate["value"] <= estimate["high"], path


def test_proportions_have_wilsons_interval_of_their_mean(found, predictions):
    right = np.mean([SCORES["accuracy"](*of_repeat(predictions, repeat)) for repeat in range(REPEATS)])
    accuracy = found["all"]["overall"]["accuracy"]
    expected = proportion_confint(right * len(LABELS), len(LABELS), method="wilson")
    assert (accuracy["low"], accuracy["high"]) == pytest.approx(expected, abs=1e-9)
    assert accuracy["method"] == "wilson_mean"


def test_confusion_matrix_is_the_mean_and_its_rows_are_percent(found, predictions):
    counts = np.mean(
        [sk.confusion_matrix(y, p.argmax(1)) for y, p in (of_repeat(predictions, r) for r in range(REPEATS))], axis=0
    )
    matrix = found["all"]["confusion_matrix"]
    np.testing.assert_allclose(matrix["counts"], counts)
    np.testing.assert_allclose(matrix["row_percent"], 100 * counts / counts.sum(axis=1, keepdims=True))


def test_answered_figures_are_those_of_the_cases_not_abstained_from(found, predictions):
    kept = predictions[~predictions["abstain"]]
    assert 0 < len(kept) < len(predictions)
    for name in ("accuracy", "log_loss"):
        values = [SCORES[name](*of_repeat(kept, repeat)) for repeat in range(REPEATS)]
        assert found["answered"]["overall"][name]["value"] == pytest.approx(np.mean(values), abs=1e-12)
    assert found["coverage"]["value"] == pytest.approx(len(kept) / len(predictions))
    assert found["coverage"]["n"] == len(LABELS)
    assert found["answered"]["overall"]["accuracy"]["n"] == round(len(kept) / REPEATS)


@pytest.mark.parametrize(("threshold", "coverage"), [(0.0, 1.0), (1.1, 0.0)])
def test_all_or_none_answered_leave_no_second_set_of_figures(threshold, coverage):
    found = evaluate_out_of_fold(table(threshold=threshold), resamples=20)
    assert found["answered"] is None and found["coverage"]["value"] == coverage


def test_the_baseline_is_the_largest_class_and_part_of_a_patient_is_no_evidence(found, predictions):
    baseline = found["baseline"]
    assert baseline["label"] == CLASSES[0] and baseline["accuracy"]["value"] == pytest.approx(16 / 36)
    right = sum(predictions["prediction"] == predictions["label"]) / REPEATS
    expected = binomtest(int(right), 36, 16 / 36, alternative="greater").pvalue
    assert baseline["binomial_p"] == pytest.approx(expected, abs=1e-12)


def test_the_permutation_statistic_is_the_balanced_accuracy_and_says_what_it_asks(found):
    permutation = found["permutation"]
    assert permutation["statistic"] == pytest.approx(found["all"]["overall"]["balanced_accuracy"]["value"], abs=1e-12)
    assert permutation["p"] == pytest.approx(1 / 301) and "Nothing is trained again" in permutation["tests"]


def test_labels_that_do_not_go_with_predictions_are_called_so():
    shuffled = np.random.default_rng(5).permutation(LABELS)
    predictions = table(signal=0.0).assign(label=np.tile([CLASSES[k] for k in shuffled], REPEATS))
    found = evaluate_out_of_fold(predictions, resamples=300)
    assert found["permutation"]["p"] > 0.05 and found["baseline"]["binomial_p"] > 0.05
    text = " ".join(found["sentences"])
    assert found["verdict"]["is"] in ("worse", "not shown") and "do not measurably go together" in text


def test_the_verdict_is_that_of_accuracy_baseline_and_test_and_a_sentence_of_the_results(found):
    accuracy, baseline = found["all"]["overall"]["accuracy"], found["baseline"]
    assert found["verdict"] == judge(accuracy, baseline["accuracy"], baseline["binomial_p"])
    told = next(sentence for sentence in found["sentences"] if sentence.startswith("Always answering"))
    assert told.endswith(". " + found["verdict"]["sentence"])


# lesions, ensemble, words


def test_recall_by_lesion_counts_patients_with_the_flag_whose_class_was_right(found, predictions):
    right = (predictions["prediction"] == predictions["label"]).groupby(predictions["patient"]).mean().to_numpy()
    by_flag = {lesion["flag"]: lesion for lesion in found["per_lesion"]}
    assert list(by_flag) == ["VSD", "ToF"]  # in the order of the workbook
    assert (by_flag["VSD"]["patients"], by_flag["ToF"]["patients"]) == (29, 16)
    assert by_flag["ToF"]["recall"]["value"] == pytest.approx(right[:16].mean())
    assert by_flag["VSD"]["recall"]["value"] == pytest.approx(right[:29].mean())
    expected = proportion_confint(right[:16].sum(), 16, method="wilson")
    assert (by_flag["ToF"]["recall"]["low"], by_flag["ToF"]["recall"]["high"]) == pytest.approx(expected, abs=1e-9)


def test_the_ensemble_is_of_the_mean_probabilities(found, predictions):
    mean = np.mean([of_repeat(predictions, repeat)[1] for repeat in range(REPEATS)], axis=0)
    overall = found["ensemble"]["overall"]
    assert overall["accuracy"]["value"] == pytest.approx(np.mean(mean.argmax(axis=1) == LABELS))
    assert overall["log_loss"]["value"] == pytest.approx(sk.log_loss(LABELS, mean))
    assert overall["accuracy"]["method"] == "wilson"


def test_small_classes_and_an_uncertain_ece_are_warned_of(found):
    text = " ".join(found["warnings"])
    assert "Normal: 7 patients, fewer than 30" in text and "Cyanotic: 16 patients" in text
    assert "biased upwards" in text
    large = evaluate_out_of_fold(table(labels=np.repeat([0, 1, 2], [80, 70, 60]), repeats=1), resamples=20)
    assert large["warnings"] == []


def test_no_share_stands_in_a_sentence_without_its_interval_and_n(found):
    text = " ".join(found["sentences"][:-1])  # the last is about the spread over repeats
    shares = re.findall(r"\d+\.\d% \[95% interval \d+\.\d% to \d+\.\d%, n = \d+\]", text)
    assert len(shares) == 7
    assert len(re.findall(r"\d\.\d%", text)) == 3 * len(shares)


def test_one_repeat_is_enough_and_has_no_spread():
    found = evaluate_out_of_fold(table(repeats=1), resamples=100)
    assert found["all"]["overall"]["accuracy"]["method"] == "wilson"
    assert not any("Drawing the folds anew" in sentence for sentence in found["sentences"])


def test_the_result_is_json_and_the_same_whatever_the_order_of_rows(found, predictions, flags):
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    again = evaluate_out_of_fold(predictions.sample(frac=1, random_state=3), flags, resamples=300)
    for (path, ours), (_, theirs) in zip(walk(found), walk(again), strict=True):
        assert {**theirs, "method": ""} == pytest.approx({**ours, "method": ""}, abs=1e-12), path


def test_all_of_it_takes_seconds_for_imagechd():
    predictions = table(labels=np.repeat([0, 1, 2], [49, 40, 21]), repeats=5, threshold=0.5)
    seconds = []
    for _ in range(3):  # the machine may be busy with other things: the best counts
        start = time.process_time()
        evaluate_out_of_fold(predictions)
        seconds.append(time.process_time() - start)
        if seconds[-1] < 10:
            break
    assert min(seconds) < 10


def test_several_scans_of_a_patient_are_drawn_together():
    single = table(repeats=1)
    copies = pd.concat([single, single.assign(image="again_" + single["image"])], ignore_index=True)
    once, twice = (evaluate_out_of_fold(each, resamples=300)["all"] for each in (single, copies))
    assert twice["patients"] == 36
    for name in ("macro_f1", "auc_macro", "log_loss"):
        assert twice["overall"][name]["low"] == pytest.approx(once["overall"][name]["low"], abs=1e-9)


def test_predictions_that_are_missing_with_a_reason_are_not_covered():
    predictions = table(repeats=1)
    predictions.loc[3, [*CLASSES, *(f"raw_{name}" for name in CLASSES)]] = np.nan
    predictions.loc[3, ["abstain", "reason", "prediction"]] = [True, "cannot be read", ""]
    found = evaluate_out_of_fold(predictions, resamples=20)
    assert found["coverage"]["value"] == pytest.approx(35 / 36) and found["all"]["overall"]["accuracy"]["n"] == 35
    assert any("1 predictions are missing" in warning for warning in found["warnings"])
