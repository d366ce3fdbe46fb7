"""Curves are the means over repeats, and their areas are the figures that scikit-learn gives; a training has one best epoch."""

import numpy as np
import pytest
from sklearn import metrics as sk
from tiny_predictions import LABELS, REPEATS, of_repeat, table

from monai_chd.errors import UserError
from monai_chd.labels import CLASSES
from monai_chd.metrics.curves import best_epoch, learning_curves, mean_curves, mean_pr, mean_roc, risk_coverage_by
from monai_chd.metrics.out_of_fold import read_cases

RAW = [f"raw_{name}" for name in CLASSES]
OPTIONS = {"resamples": 100, "seed": 42}


@pytest.fixture(scope="module")
def predictions():
    return table()


@pytest.fixture(scope="module")
def cases(predictions):
    return read_cases(predictions)


@pytest.fixture(scope="module")
def scored(cases):
    return cases.evaluate(**OPTIONS)


@pytest.fixture(scope="module")
def curves(cases, scored, predictions):
    return mean_curves(cases, predictions[RAW].to_numpy(), scored, **OPTIONS)


def test_the_area_under_the_roc_curve_is_the_auc(curves, scored):
    assert list(curves["roc"]) == list(CLASSES)
    for name, curve in curves["roc"].items():
        fpr, tpr = np.array(curve["fpr"]), np.array(curve["tpr"])
        assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
        assert (np.diff(fpr) >= 0).all() and (np.diff(tpr) >= 0).all()
        # a staircase: each step's height at its left end
        area = np.sum(np.diff(fpr) * tpr[:-1])
        assert area == pytest.approx(scored["per_class"][name]["auc"]["value"], abs=1e-9)


def test_the_area_under_the_precision_recall_curve_is_the_average_precision(curves, predictions):
    for k, name in enumerate(CLASSES):
        curve = curves["pr"][name]
        area = np.sum(np.diff([0, *curve["recall"]]) * curve["precision"])
        cases = [of_repeat(predictions, repeat) for repeat in range(REPEATS)]
        expected = np.mean([sk.average_precision_score(y == k, p[:, k]) for y, p in cases])
        assert area == pytest.approx(expected, abs=1e-9)
        assert curve["prevalence"] == pytest.approx(np.mean(k == LABELS))


def test_reliability_before_is_of_the_raw_probabilities(curves, scored, predictions):
    before, after = curves["reliability"]["before"], curves["reliability"]["after"]
    expected = np.mean([sk.log_loss(*of_repeat(predictions, repeat, RAW)) for repeat in range(REPEATS)])
    assert before["log_loss"]["value"] == pytest.approx(expected, abs=1e-12)
    assert after["ece"] == scored["overall"]["ece"]
    for diagram, columns in ((before, RAW), (after, list(CLASSES))):
        mean = np.average([b["confidence"] for b in diagram["bins"]], weights=[b["n"] for b in diagram["bins"]])
        assert mean == pytest.approx(predictions[columns].max(axis=1).mean(), abs=0.02)
        assert sum(b["n"] for b in diagram["bins"]) == pytest.approx(36, abs=5)
        assert all(b["low"] <= b["accuracy"] <= b["high"] for b in diagram["bins"])


def test_few_patients_make_few_bins_not_a_stripe(curves):
    """Each bin has ten patients or more, or its interval would span the picture."""
    bins = curves["reliability"]["after"]["bins"]
    assert len(bins) == 3 and min(b["n"] for b in bins) >= 10


def test_without_raw_probabilities_there_is_no_diagram_before(cases, scored):
    assert mean_curves(cases, None, scored, **OPTIONS)["reliability"]["before"] is None


def test_risk_at_full_coverage_is_one_minus_accuracy_and_its_mean_the_area(curves, scored):
    curve = curves["risk_coverage"]
    assert len(curve["coverage"]) == len(curve["risk"]) == 36 and curve["coverage"][-1] == 1
    assert curve["risk"][-1] == pytest.approx(1 - scored["overall"]["accuracy"]["value"])
    assert np.mean(curve["risk"]) == pytest.approx(curve["aurc"]["value"])
    assert np.mean(np.multiply(curve["risk"], curve["coverage"])) == pytest.approx(curve["augrc"]["value"])
    assert (curve["published"]["coverage"], curve["published"]["risk"]) == (0.884, 0.18)
    assert "another task" in curve["published"]["sentence"]


def test_in_the_order_of_the_confidence_it_is_the_same_curve(predictions, curves):
    found = risk_coverage_by(predictions, predictions[list(CLASSES)].max(axis=1).to_numpy(), **OPTIONS)
    assert found["aurc"] == curves["risk_coverage"]["aurc"] and found["risk"] == curves["risk_coverage"]["risk"]
    assert found["gain"]["value"] == pytest.approx(found["all"]["value"] - found["aurc"]["value"])


def test_a_score_that_knows_what_is_right_gains_and_one_that_knows_nothing_does_not(predictions, cases):
    right = cases.right().astype(float)
    knowing = risk_coverage_by(predictions, right, **OPTIONS)
    assert knowing["gain"]["low"] > 0 and knowing["risk"][0] == 0
    same = risk_coverage_by(predictions, np.zeros(len(predictions)), **OPTIONS)
    assert same["gain"]["value"] == pytest.approx(0, abs=1e-12)
    assert same["all"]["value"] == pytest.approx(1 - right.mean())


def test_a_class_that_no_patient_has_leaves_no_curve():
    labels = np.repeat([0, 1], [8, 6])
    cases = read_cases(table(labels=labels))
    assert list(mean_roc(cases)) == list(mean_pr(cases)) == list(CLASSES[:2])


def test_curves_of_one_repeat_are_scikit_learns(predictions):
    cases = read_cases(predictions[predictions["repeat"] == 0])
    labels, probabilities = of_repeat(predictions, 0)
    for k, name in enumerate(CLASSES):
        fpr, tpr, _ = sk.roc_curve(labels == k, probabilities[:, k], drop_intermediate=False)
        ours = mean_roc(cases)[name]
        # the highest point at each rate
        expected = {rate: max(tpr[np.isclose(fpr, rate)]) for rate in np.unique(fpr)}
        assert ours["fpr"][1:] == pytest.approx(list(expected)) and ours["tpr"][1:] == pytest.approx(
            list(expected.values())
        )


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([0.2, 0.6, 0.6, 0.1], (1, "highest validation macro-F1")),
        ([None, float("nan"), 0.3], (2, "highest validation macro-F1")),
    ],
)
def test_best_epoch_is_the_first_with_the_highest_macro_f1(history, expected):
    assert best_epoch([{"epoch": e, "val_macro_f1": f1} for e, f1 in enumerate(history)]) == expected


def test_best_epoch_falls_back_to_the_loss_and_to_none():
    history = [{"epoch": e, "val_loss": loss} for e, loss in enumerate([0.9, 0.5, float("nan"), 0.7])]
    assert best_epoch(history) == (1, "lowest validation loss")
    assert best_epoch([{"epoch": 1, "train_loss": 0.2}]) is None


def test_what_is_drawn_of_a_training_are_its_finite_values_and_its_best_epoch():
    history = [
        {"epoch": 1, "train_loss": 1.0, "val_loss": None, "val_macro_f1": float("nan")},
        {"epoch": 2, "train_loss": float("inf"), "val_loss": 0.9, "val_macro_f1": 0.5, "val_accuracy": 0.6},
        {"epoch": 4, "train_loss": 0.5, "val_loss": 0.8, "val_macro_f1": 0.5},
    ]
    drawn = learning_curves(history)
    assert drawn.loss == {"training": [(1, 1.0), (4, 0.5)], "validation": [(2, 0.9), (4, 0.8)]}
    assert drawn.score == {"macro-F1": [(2, 0.5), (4, 0.5)], "accuracy": [(2, 0.6)]}
    assert drawn.best == (2, "highest validation macro-F1")


@pytest.mark.parametrize(("history", "message"), [([], "no entry"), ([{"epoch": 1}, {}], r"none in history\[1\]")])
def test_a_history_without_epochs_cannot_be_drawn(history, message):
    with pytest.raises(UserError, match=message):
        learning_curves(history)
