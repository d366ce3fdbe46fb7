"""Temperature and threshold are those of greatest likelihood and of counting, and never change the most probable class."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import norm
from sklearn import metrics as sk

from monai_chd.metrics.calibration import (
    FEWEST_CASES,
    SPREAD,
    TEMPERATURES,
    Calibration,
    calibrate,
    calibration_line,
    coverage_threshold,
    fit_temperature,
    read_calibration,
    read_target,
    risk_threshold,
    scale,
    write_calibration,
)


def sharpened(n, seed, factor):
    """Labels drawn from softmax probabilities, and these with logits multiplied by a factor: its calibration is the factor."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3)) * 1.5
    labels = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=1)])
    return labels, softmax(factor * logits, axis=1)


# temperature


@pytest.mark.parametrize("factor", [0.7, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("n", [22, 110, 400])
def test_the_temperature_is_the_most_probable_one_as_scikit_learn_and_scipy_measure_it(n, factor):
    labels, probabilities = sharpened(n, n, factor)

    def loss(log_temperature):
        scaled = softmax(np.log(probabilities) / np.exp(log_temperature), axis=1)
        likelihood = -n * sk.log_loss(labels, scaled, labels=[0, 1, 2])
        return -likelihood - norm.logpdf(log_temperature, scale=SPREAD)

    best = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-10})
    # A minimum is known to the root of a number's precision only.
    assert fit_temperature(labels, probabilities) == pytest.approx(np.exp(best.x), rel=1e-6)


def test_the_temperature_matches_scikit_learns_own():
    calibration = pytest.importorskip("sklearn.calibration")
    scaling = getattr(calibration, "_TemperatureScaling", None)
    if scaling is None:
        pytest.skip("this scikit-learn has no temperature scaling")
    labels, probabilities = sharpened(20000, 0, 2.0)  # so many that nothing is left of the prior
    expected = 1 / float(scaling().fit(probabilities, labels).beta_)
    assert fit_temperature(labels, probabilities) == pytest.approx(expected, rel=2e-3)


def test_a_known_sharpening_is_found_again():
    assert fit_temperature(*sharpened(20000, 1, 3.0)) == pytest.approx(3.0, rel=0.05)


def test_the_fewer_cases_the_nearer_to_one():
    found = [fit_temperature(*sharpened(n, 2, 2.5)) for n in (12, 50, 400, 20000)]
    assert 1 < found[0] < found[1] < found[2] < found[3] < 2.6


# factor 1 is a calibrated network; what is gained or lost is log-loss on patients that the temperature never saw
@pytest.mark.parametrize("factor", [0.7, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("n", [20, 38, 100])
def test_over_ten_seeds_the_temperature_does_no_harm_to_new_patients(n, factor):
    changes = []
    for seed in range(10):
        labels, probabilities = sharpened(n, [seed, n], factor)
        new, unseen = sharpened(2000, [seed, n, 1], factor)
        calibrated = scale(unseen, fit_temperature(labels, probabilities))
        changes.append(sk.log_loss(new, calibrated, labels=[0, 1, 2]) - sk.log_loss(new, unseen, labels=[0, 1, 2]))
    assert np.mean(changes) < (
        0.004 if factor == 1 else -0.003
    )  # greatest likelihood loses 0.02 with 20 calibrated cases


def test_few_cases_and_those_that_are_all_right_stay_within_bounds():
    labels, probabilities = sharpened(FEWEST_CASES - 1, 3, 4.0)
    assert fit_temperature(labels, probabilities) == 1
    right = np.eye(3)[[0, 1, 2] * 500] * 0.4 + 0.2
    assert fit_temperature([0, 1, 2] * 500, right) == TEMPERATURES[0]
    assert fit_temperature([1, 2, 0] * 500, right**9 / (right**9).sum(1, keepdims=True)) == TEMPERATURES[1]
    assert fit_temperature([0, 1, 2] * 5, np.full((15, 3), 1 / 3)) == 1


@pytest.mark.parametrize("temperature", [0.5, 0.9, 1.3, 10])
def test_the_temperature_keeps_the_order_of_the_classes_and_comes_off_again(temperature):
    _, probabilities = sharpened(200, 4, 2.0)
    scaled = scale(probabilities, temperature)
    np.testing.assert_array_equal(scaled.argsort(axis=1), probabilities.argsort(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    np.testing.assert_allclose(scaled, softmax(np.log(probabilities) / temperature, axis=1))
    np.testing.assert_allclose(scale(scaled, 1 / temperature), probabilities, atol=1e-12)


def test_temperature_one_leaves_every_bit():
    probabilities = np.array([[0.1, 0.2, 0.7], [0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(scale(probabilities, 1.0), probabilities)


def test_a_probability_of_zero_stays_finite():
    scaled = scale([[0.0, 0.0, 1.0]], 10.0)
    assert np.isfinite(scaled).all() and scaled.argmax() == 2


# threshold


CONFIDENCE = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.4, 0.3]


@pytest.mark.parametrize(
    ("coverage", "threshold"), [(1, 0), (0.99, 0), (0.875, 0.35), (0.8, 0.35), (0.6, 0.45), (0.5, 0.55), (0.01, 0.85)]
)
def test_a_target_coverage_is_reached_halfway_to_the_next_case(coverage, threshold):
    found = coverage_threshold(CONFIDENCE, coverage)
    assert found == pytest.approx(threshold)
    assert np.mean(np.array(CONFIDENCE) >= found) >= coverage


@pytest.mark.parametrize("coverage", [0.1, 0.3, 0.7, 0.8, 0.9])
def test_the_smallest_coverage_that_reaches_the_target_is_taken(coverage):
    confidence = np.random.default_rng(0).random(30)
    answered = np.sum(confidence >= coverage_threshold(confidence, coverage))
    assert answered == np.ceil(coverage * 30 - 1e-9)


def brute_force_risk(confidence, right, risk):
    """Most cases answered by any threshold with (wrong + 1) / (answered + 1) at most the risk."""
    best = 0
    for threshold in [0, *confidence]:
        answered = confidence >= threshold
        if (np.sum(answered & ~right) + 1) / (answered.sum() + 1) <= risk:
            best = max(best, answered.sum())
    return best


@pytest.mark.parametrize("risk", [0.05, 0.1, 0.2, 0.4, 0.9])
@pytest.mark.parametrize("seed", range(6))
def test_a_target_risk_answers_as_many_as_trying_every_threshold(seed, risk):
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.random(25), 1 if seed % 2 else 6)  # with ties and without
    right = rng.random(25) < 0.5 + confidence / 2
    found = risk_threshold(confidence, right, risk)
    answered = 0 if found is None else np.sum(confidence >= found)
    assert answered == brute_force_risk(confidence, right, risk)


def test_a_handful_of_right_answers_promises_no_small_risk():
    assert risk_threshold([0.9, 0.8, 0.7], [True] * 3, 0.2) is None  # (0 + 1) / (3 + 1)
    assert risk_threshold([0.9, 0.8, 0.7, 0.6], [True] * 4, 0.2) == 0


@pytest.mark.parametrize(
    ("coverage", "risk", "message"),
    [
        (0, None, "coverage: expected a share above 0 up to 1, came 0"),
        (1.1, None, "coverage: .* came 1.1"),
        ("all", None, "coverage: .* came 'all'"),
        (True, None, "coverage: .* came True"),
        (float("nan"), None, "coverage: .* came nan"),
        (None, 0, "risk: expected a share above 0 and below 1, came 0"),
        (1.0, 1, "risk: .* came 1"),
        (0.8, 0.1, "a wished coverage or a wished risk, came both"),
    ],
)
def test_targets_that_are_none_are_refused(coverage, risk, message):
    with pytest.raises(ValueError, match=message):
        read_target(coverage, risk)


def test_a_risk_goes_with_the_coverage_that_stands_in_the_config():
    assert read_target(1.0, 0.1) == read_target(None, 0.1) == {"risk": 0.1}
    assert read_target(None, None) == read_target(1, None) == {"coverage": 1.0}


# a model's calibration


def test_temperature_first_then_the_threshold_on_calibrated_confidence():
    labels, probabilities = sharpened(40, 5, 3.0)
    found = calibrate(labels, probabilities, coverage=0.75)
    assert found.temperature == fit_temperature(labels, probabilities)
    calibrated = scale(probabilities, found.temperature)
    assert found.threshold == coverage_threshold(calibrated.max(axis=1), 0.75)
    answered = [not found.reason(row) for row in found.apply(probabilities)]
    assert sum(answered) == 30
    assert sorted(found.confidence, reverse=True) == list(found.confidence)
    assert sum(found.right) == np.sum(probabilities.argmax(axis=1) == labels)


def test_a_model_never_abstains_unless_it_was_asked_to():
    found = calibrate(*sharpened(40, 6, 3.0))
    assert found.threshold == 0 and found.reason([1 / 3, 1 / 3, 1 / 3]) == ""
    assert Calibration().reason([1 / 3, 1 / 3, 1 / 3]) == ""


def test_the_reason_names_both_numbers_with_digits_that_differ():
    calibration = Calibration(threshold=0.55)
    assert calibration.reason([0.41, 0.3, 0.29]) == "confidence 0.41 below 0.55"
    assert calibration.reason([0.5499, 0.3, 0.1501]) == "confidence 0.5499 below 0.5500"
    assert calibration.reason([0.55, 0.3, 0.15]) == ""


def test_a_risk_that_is_never_reached_abstains_from_everything_and_says_so():
    labels, probabilities = sharpened(15, 7, 1.0)
    found = calibrate(labels, probabilities, risk=0.01)
    assert found.threshold is None
    assert found.reason([1.0, 0.0, 0.0]) == "a risk of 0.01 was not reached at any confidence in validation"
    assert "abstains from everything: risk 0.01 is not reached" in calibration_line(found)


def test_another_target_needs_no_new_training(tmp_path):
    labels, probabilities = sharpened(40, 8, 2.0)
    stored = read_calibration(write_calibration(calibrate(labels, probabilities), tmp_path).with_name("model.pt"))
    for target in ({"coverage": 0.5}, {"risk": 0.3}):
        assert stored.with_target(**target) == calibrate(labels, probabilities, **target)
    assert stored.with_target() == stored


def test_a_target_for_a_model_without_calibration_is_refused_except_for_everything():
    with pytest.raises(ValueError, match=r"coverage: the model has no calibration\.json beside it"):
        Calibration().with_target(coverage=0.8)
    assert Calibration().with_target(coverage=1.0).threshold == 0
    assert Calibration().with_target() == Calibration()


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.array([[0.2, np.nan, 0.8]])])
def test_no_cases_and_probabilities_that_are_none_are_refused(rows):
    with pytest.raises(ValueError, match="finite probabilities of at least one validation case"):
        calibrate([0] * len(rows), rows)


# the file


def test_the_file_gives_the_same_calibration_back_and_explains_itself(tmp_path):
    calibration = calibrate(*sharpened(30, 9, 2.0), coverage=0.8)
    path = write_calibration(calibration, tmp_path)
    assert read_calibration(tmp_path / "model.pt") == calibration
    content = json.loads(path.read_text())
    assert (content["cases"], content["wish"], content["at_bound"]) == (30, {"coverage": 0.8}, False)
    assert "validation" in content["source"] and "chose the model" in content["source"]
    assert [file.name for file in tmp_path.iterdir()] == ["calibration.json"]


def test_weights_without_the_file_are_not_calibrated(tmp_path):
    assert read_calibration(tmp_path / "model.pt") == read_calibration(None) == Calibration()
    assert calibration_line(Calibration()) == ""


def test_a_file_with_the_contract_keys_alone_is_taken(tmp_path):
    (tmp_path / "calibration.json").write_text('{"temperature": 2, "threshold": 0.5, "wish": {"coverage": 0.8}}')
    found = read_calibration(tmp_path / "model.pt")
    assert (found.temperature, found.threshold) == (2.0, 0.5)
    assert found.reason(found.apply([0.49, 0.48, 0.03])) == "confidence 0.45 below 0.50"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Expecting value"),
        ("[]", "list"),
        ('{"threshold": 0, "wish": null}', "key 'temperature' is missing"),
        ('{"temperature": 0, "threshold": 0, "wish": null}', "temperature: expected a number above 0, came 0"),
        ('{"temperature": "1", "threshold": 0, "wish": null}', "temperature: .* came '1'"),
        ('{"temperature": 1, "threshold": 2, "wish": null}', "threshold: expected 0 to 1 or null, came 2"),
        (
            '{"temperature": 1, "threshold": 0, "wish": null, "validation": {"confidence": [0.5], "right": []}}',
            "as many right as confidence, came 0 and 1",
        ),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(ValueError, match=rf"calibration\.json: no calibration of a model: .*{message}.*; train"):
        read_calibration(tmp_path / "model.pt")
