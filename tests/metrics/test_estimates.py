import json
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binom, bootstrap
from sklearn import metrics as sk
from statsmodels.stats.proportion import proportion_confint

from monai_chd.labels import CLASSES
from monai_chd.metrics.estimates import METHODS, OVERALL, bootstrap_estimate, evaluate, proportion_estimate
from monai_chd.metrics.formulas import score_confusion, wilson_interval

AVERAGED = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}


def one_hot(predictions):
    return np.eye(3)[np.asarray(predictions)]


def random_cases(n, seed, right=0.6):
    """Labels and predictions of which a share of about `right` agrees."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    return labels, np.where(rng.random(n) < right, labels, rng.integers(0, 3, n))


def run(labels, predictions, patients=None, **options):
    patients = range(len(labels)) if patients is None else patients
    return evaluate(labels, one_hot(predictions), patients=patients, **{"resamples": 200, **options})


def estimates(result):
    yield from result["overall"].items()
    yield "baseline", result["majority_baseline"]["accuracy"]
    for name, each in result["per_class"].items():
        yield from ((f"{key} {name}", each[key]) for key in ("precision", "recall", "f1", "auc"))


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (16, 30), (2.5, 7), (47, 110)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_matches_statsmodels(successes, n, confidence):
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [5, 30, 110])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_wilson_covers_about_as_often_as_it_says(n, share):
    limits = [wilson_interval(k, n) for k in range(n + 1)]
    covered = sum(binom.pmf(k, n, share) for k, (low, high) in enumerate(limits) if low <= share <= high)
    assert 0.9 < covered < 0.995


@pytest.mark.parametrize("arguments", [(1, 0), (-1, 5), (6, 5), (1, 5, 0.0), (1, 5, 1.0), (float("nan"), 5)], ids=str)
def test_wilson_refuses_what_is_no_proportion(arguments):
    with pytest.raises(ValueError, match="expected"):
        wilson_interval(*arguments)


CASES = {
    "random": random_cases(110, 0),
    "random small": random_cases(12, 1),
    "perfect": ([0, 1, 2, 2], [0, 1, 2, 2]),
    "all wrong": ([0, 1, 2], [1, 2, 0]),
    "class without cases": ([0, 0, 1, 1], [0, 1, 1, 2]),
    "class never seen": ([0, 0, 1, 1], [0, 1, 1, 1]),
    "never predicted": ([0, 1, 2, 2], [0, 1, 0, 1]),
    "single case right": ([2], [2]),
    "single case wrong": ([2], [0]),
}


@pytest.mark.parametrize("name", CASES)
def test_overall_figures_match_sklearn(name):
    labels, predictions = CASES[name]
    overall = run(labels, predictions)["overall"]
    assert overall["accuracy"]["value"] == pytest.approx(sk.accuracy_score(labels, predictions), abs=1e-12)
    # scikit-learn's own balanced accuracy warns when a prediction names a class without cases; its definition is this.
    present = sk.recall_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0)
    assert overall["balanced_accuracy"]["value"] == pytest.approx(present, abs=1e-12)
    assert overall["macro_recall"] == overall["balanced_accuracy"]
    for metric, score in AVERAGED.items():
        for average in ("macro", "weighted") if metric != "recall" else ("weighted",):
            expected = score(labels, predictions, labels=range(3), average=average, zero_division=0)
            assert overall[f"{average}_{metric}"]["value"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_class_figures_match_sklearn_and_are_none_where_it_has_nan(name):
    labels, predictions = CASES[name]
    per_class = run(labels, predictions)["per_class"]
    for metric, score in AVERAGED.items():
        expected = score(labels, predictions, labels=range(3), average=None, zero_division=np.nan)
        values = np.array([per_class[name][metric]["value"] for name in CLASSES], dtype=float)  # None to NaN
        assert [np.nan if value is None else value for value in values] == pytest.approx(
            expected, abs=1e-12, nan_ok=True
        )
    assert [per_class[name]["support"] for name in CLASSES] == np.bincount(labels, minlength=3).tolist()


def test_balanced_accuracy_matches_sklearn():
    labels, predictions = CASES["random"]
    value = run(labels, predictions)["overall"]["balanced_accuracy"]["value"]
    assert value == pytest.approx(sk.balanced_accuracy_score(labels, predictions), abs=1e-12)


def test_confusion_matrix_has_true_rows_in_the_order_of_classes():
    labels, predictions = CASES["random"]
    result = run(labels, predictions)
    assert result["confusion_matrix"] == sk.confusion_matrix(labels, predictions, labels=range(3)).tolist()
    assert result["classes"] == list(CLASSES)
    assert run([0], [2])["confusion_matrix"] == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_scores_of_a_stack_of_matrices_are_those_of_each():
    matrices = np.random.default_rng(3).integers(0, 5, (20, 3, 3))
    stacked = score_confusion(matrices)
    for i, matrix in enumerate(matrices):
        for name, value in score_confusion(matrix).items():
            np.testing.assert_array_equal(stacked[name][i], value)


def test_n_counts_the_denominator_and_undefined_has_none():
    # Hand count: Cyanotic 3 true, 2 predicted, 2 hits; Non-Cyanotic 1 true, 2 predicted, 1 hit; Normal nothing.
    result = run([0, 0, 0, 1], [0, 0, 1, 1])
    cyanotic, other, normal = (result["per_class"][name] for name in CLASSES)
    assert [cyanotic[key]["n"] for key in ("precision", "recall", "f1")] == [2, 3, 3]
    assert [other[key]["n"] for key in ("precision", "recall", "f1")] == [2, 1, 2]
    undefined = {"value": None, "low": None, "high": None, "n": 0, "method": "undefined"}
    assert normal == {"precision": undefined, "recall": undefined, "f1": undefined, "auc": undefined, "support": 0}
    assert {estimate["n"] for estimate in result["overall"].values()} == {4}


def test_precision_is_undefined_only_in_its_own_entry():
    result = run([0, 1, 2, 2], [0, 1, 0, 1])
    assert result["per_class"]["Normal"]["precision"]["value"] is None
    assert result["overall"]["macro_precision"]["value"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


def test_proportions_have_wilson_intervals_when_patients_have_one_case():
    labels, predictions = CASES["random"]
    result = run(labels, predictions)
    hits = int((labels == predictions).sum())
    accuracy = result["overall"]["accuracy"]
    assert accuracy["method"] == "wilson"
    assert (accuracy["low"], accuracy["high"]) == wilson_interval(hits, len(labels))
    for k, name in enumerate(CLASSES):
        both = int(((labels == k) & (predictions == k)).sum())
        for key, of in (("precision", predictions), ("recall", labels)):
            estimate = result["per_class"][name][key]
            expected = wilson_interval(both, int((of == k).sum()))
            assert (estimate["low"], estimate["high"], estimate["method"]) == (*expected, "wilson")


def test_only_denominators_where_a_patient_has_two_cases_are_resampled():
    labels, predictions = [0, 0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 1, 2, 0]
    result = run(labels, predictions, patients=["a", "a", "b", "c", "d", "e", "f"])
    methods = {name: estimate["method"] for name, estimate in estimates(result)}
    assert methods["accuracy"] == methods["recall Cyanotic"] == "bca_bootstrap"
    assert methods["recall Normal"] == methods["precision Cyanotic"] == methods["precision Non-Cyanotic"] == "wilson"
    assert result["patients"] == 6 and result["cases"] == 7


def test_majority_baseline_is_the_share_of_the_most_frequent_class():
    baseline = run([0, 1, 1, 1, 2], [0, 0, 0, 0, 0])["majority_baseline"]
    assert baseline["label"] == "Non-Cyanotic"
    assert baseline["accuracy"]["value"] == pytest.approx(3 / 5)
    assert (baseline["accuracy"]["low"], baseline["accuracy"]["high"]) == wilson_interval(3, 5)


@pytest.mark.parametrize("metric", ["macro_f1", "weighted_precision", "accuracy", "balanced_accuracy", "mcc"])
def test_bootstrap_by_patient_agrees_with_scipy(metric):
    labels, predictions = random_cases(60, 4)
    patients = np.random.default_rng(5).integers(0, 25, 60)
    options = {"labels": [0, 1, 2], "zero_division": 0}
    score = {
        "macro_f1": lambda a, b: sk.f1_score(a, b, average="macro", **options),
        "weighted_precision": lambda a, b: sk.precision_score(a, b, average="weighted", **options),
        "accuracy": sk.accuracy_score,
        "balanced_accuracy": lambda a, b: sk.recall_score(a, b, labels=np.unique(a), average="macro", zero_division=0),
        "mcc": sk.matthews_corrcoef,
    }[metric]
    rows_of = {name: np.flatnonzero(patients == name) for name in range(25)}

    def of_patients(drawn):
        rows = np.concatenate([rows_of[name] for name in drawn])
        return score(labels[rows], predictions[rows])

    estimate = run(labels, predictions, patients, resamples=20000)["overall"][metric]
    names = (np.unique(patients),)
    expected = bootstrap(names, of_patients, n_resamples=600, vectorized=False, method="BCa", rng=7).confidence_interval
    assert estimate["method"] == "bca_bootstrap"
    # Scipy's own error at a limit is near 0.01 with 600 resamples.
    assert [estimate["low"], estimate["high"]] == pytest.approx([expected.low, expected.high], abs=0.03)


def test_missing_classes_in_resamples_count_as_zero():
    # Of two patients one half of the resamples miss a class; macro-F1 is then 1/3, else 2/3; balanced accuracy 1.
    result = run([0, 1], [0, 1], resamples=1000)
    macro = result["overall"]["macro_f1"]
    assert (macro["value"], macro["low"], macro["high"]) == pytest.approx((2 / 3, 1 / 3, 2 / 3))
    assert macro["method"] == "percentile_bootstrap"  # without either patient it is the same: no acceleration
    for name in ("balanced_accuracy", "macro_recall"):
        assert result["overall"][name]["method"] == "not_estimable"


def test_balanced_accuracy_and_macro_recall_are_one_figure_with_one_interval():
    for name, (labels, predictions) in CASES.items():
        overall = run(labels, predictions)["overall"]
        assert overall["macro_recall"] == overall["balanced_accuracy"], name


@pytest.mark.parametrize("seed", range(12))
def test_no_interval_leaves_the_range_of_its_figure(seed):
    """Few, sure and mostly wrong or mostly right cases: there the limits used to go beyond 0 and 1."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 9))
    labels = rng.integers(0, 3, n)
    wanted = labels if seed % 2 else rng.integers(0, 3, n)
    probabilities = np.eye(3)[wanted] * 0.97 + 0.01
    result = evaluate(labels, probabilities, patients=[str(i) for i in range(n)], resamples=300, seed=seed)
    for name, estimate in estimates(result):
        if estimate["low"] is not None:
            low, high = {"mcc": (-1, 1), "log_loss": (0, np.inf), "brier": (0, 2)}.get(name, (0, 1))
            assert low <= estimate["low"] <= estimate["value"] <= estimate["high"] <= high, (name, estimate)


@pytest.mark.parametrize(("value", "limits"), [(0.99, (0.0, 1.0)), (0.01, (0.0, 1.0)), (-0.99, (-1.0, 1.0))])
def test_an_interval_that_is_moved_stops_at_the_end_of_the_range(value, limits):
    resampled = value + np.linspace(0.005, 0.5, 100) * (1 if value < 0.5 else -1)
    estimate = bootstrap_estimate(value, resampled, np.full(5, value), 5, limits_of_value=limits)
    assert estimate["method"] == "centred_bootstrap"
    assert limits[0] <= estimate["low"] <= value <= estimate["high"] <= limits[1]
    assert limits[0] == estimate["low"] or limits[1] == estimate["high"]


def test_several_cases_a_patient_widen_the_interval():
    labels, predictions = random_cases(40, 6)
    labels, predictions = np.repeat(labels, 5), np.repeat(predictions, 5)
    apart = run(labels, predictions, resamples=2000)["overall"]
    together = run(labels, predictions, np.repeat(range(40), 5), resamples=2000)["overall"]
    for name in ("accuracy", "macro_f1"):
        widths = [result[name]["high"] - result[name]["low"] for result in (apart, together)]
        assert widths[1] > 1.8 * widths[0]  # sqrt(5) = 2.2 when the cases of a patient are equal
        assert apart[name]["value"] == pytest.approx(together[name]["value"])


def test_copies_of_cases_add_no_certainty():
    labels, predictions = random_cases(40, 6)
    single = run(labels, predictions)["overall"]["macro_f1"]
    copied = run(np.repeat(labels, 3), np.repeat(predictions, 3), np.repeat(range(40), 3))["overall"]["macro_f1"]
    assert {**copied, "n": 40} == pytest.approx(single)


def test_bootstrap_by_patient_covers_the_truth():
    # Each patient has four equal cases, so an interval over cases would be half as wide and cover near 0.67.
    rng = np.random.default_rng(8)
    population = np.array([[0.4, 0.1, 0.0], [0.05, 0.2, 0.05], [0.05, 0.05, 0.1]])
    truth = {name: float(score_confusion(population)[name]) for name in ("accuracy", "macro_f1")}
    covered = dict.fromkeys(truth, 0)
    for _ in range(300):
        labels, predictions = np.divmod(np.repeat(rng.choice(9, 60, p=population.ravel()), 4), 3)
        overall = run(labels, predictions, np.repeat(range(60), 4))["overall"]
        for name, value in truth.items():
            covered[name] += overall[name]["low"] <= value <= overall[name]["high"]
    assert all(0.88 < count / 300 < 0.99 for count in covered.values())


def test_limits_hold_their_value_on_ordinary_data():
    highest = {"log_loss": 37, "brier": 2}  # of one-hot probabilities, see `formulas.case_losses`
    for seed in range(10):
        for name, estimate in estimates(run(*random_cases(57, seed))):
            assert estimate["low"] <= estimate["value"] <= estimate["high"] <= highest.get(name, 1), name
            assert estimate["low"] >= (-1 if name == "mcc" else 0), name


def test_more_confidence_gives_wider_intervals():
    labels, predictions = CASES["random"]
    results = [dict(estimates(run(labels, predictions, confidence=level))) for level in (0.5, 0.8, 0.95)]
    for narrow, wide in pairwise(results):
        for name in narrow:
            assert wide[name]["low"] <= narrow[name]["low"] and narrow[name]["high"] <= wide[name]["high"]
            assert wide[name]["high"] - wide[name]["low"] > narrow[name]["high"] - narrow[name]["low"]


def test_no_interval_claims_certainty():
    labels = [0] * 40 + [1] * 40 + [2] * 40
    for patients in (range(120), [case // 2 for case in range(120)], [1] * 120):
        result = run(labels, labels, patients)
        for _, estimate in estimates(result):
            assert estimate["low"] is None or estimate["low"] < estimate["high"]
        accuracy = result["overall"]["accuracy"]
        assert (accuracy["low"], accuracy["high"]) == wilson_interval(len(set(patients)), len(set(patients)))


def test_same_seed_same_intervals_whatever_the_order_and_names():
    labels, predictions = CASES["random"]
    patients = np.arange(110) // 2
    order = np.random.default_rng(9).permutation(110)
    expected = run(labels, predictions, patients)
    assert run(labels, predictions, patients) == expected
    assert run(labels[order], predictions[order], [f"p{i}" for i in patients[order]]) == expected
    other = run(labels, predictions, patients, seed=43)
    assert other["overall"]["macro_f1"]["low"] != expected["overall"]["macro_f1"]["low"]


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()
    run(*CASES["random"])
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_prediction_is_the_most_probable_class():
    result = evaluate([0, 1, 2], [[0.4, 0.3, 0.3], [0.1, 0.2, 0.7], [0.2, 0.3, 0.5]], patients="abc", resamples=10)
    assert result["confusion_matrix"] == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("name", CASES)
def test_result_survives_json(name):
    result = run(*CASES[name])
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_half_precision_probabilities_are_taken():
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 50).astype(np.float16)
    assert evaluate([0] * 50, probabilities, patients=range(50), resamples=10)["cases"] == 50


GOOD = [0.2, 0.3, 0.5]


@pytest.mark.parametrize(
    ("labels", "probabilities", "patients", "message"),
    [
        ([], np.zeros((0, 3)), [], "at least one case, came none"),
        ([0, 1], [GOOD], ["a", "b"], r"came \(2,\), \(1, 3\) and 2"),
        ([0, 1], [GOOD, GOOD], ["a"], r"came \(2,\), \(2, 3\) and 1"),
        ([0], [[0.5, 0.5]], ["a"], r"came \(1,\), \(1, 2\) and 1"),
        ([[1, 0, 0]], [GOOD], ["a"], r"came \(1, 3\)"),
        (["Normal"], [GOOD], ["a"], "class indices 0..2, came dtype"),
        ([0, 3], [GOOD, GOOD], ["a", "b"], r"labels\[1\]: expected a class index 0..2, came 3"),
        ([-1], [GOOD], ["a"], r"labels\[0\].*came -1"),
        ([0.5], [GOOD], ["a"], r"labels\[0\].*came 0.5"),
        ([float("nan")], [GOOD], ["a"], r"labels\[0\].*came nan"),
        ([0, 0], [GOOD, [0.2, np.nan, 0.5]], ["a", "b"], r"probabilities\[1\]: expected finite"),
        ([0, 0], [GOOD, [-0.1, 0.6, 0.5]], ["a", "b"], r"probabilities\[1\]: .* at least 0, came \[-0.1, 0.6, 0.5\]"),
        ([0, 0], [GOOD, [0.2, 0.3, 0.502]], ["a", "b"], r"probabilities\[1\]: expected a sum of 1 .* sum 1.002"),
        ([0, 0], [GOOD, GOOD], ["a", None], r"patients\[1\]: expected an id, came 'None'"),
        ([0, 0], [GOOD, GOOD], ["a", float("nan")], r"patients\[1\]"),
    ],
)
def test_bad_input_is_refused_with_its_row(labels, probabilities, patients, message):
    with pytest.raises(ValueError, match=message):
        evaluate(labels, probabilities, patients=patients)


def test_all_bad_rows_are_named_in_one_readable_message():
    with pytest.raises(ValueError, match=r"labels\[0\].*probabilities\[2\].*and 3 more") as caught:
        evaluate([9, 9, *[0] * 11], [GOOD] * 2 + [[1, 1, 1]] * 11, patients=range(13))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"resamples": 0}, {"confidence": 0.0}, {"confidence": 95}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        run([0], [0], **options)


# all classes together, from probabilities


def random_probabilities(n, seed, sharpness=2.0):
    """Labels and probabilities that go with them."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    scores = rng.normal(size=(n, 3))
    scores[np.arange(n), labels] += 1
    powers = np.exp(sharpness * scores)
    return labels, powers / powers.sum(axis=1, keepdims=True)


def test_figures_of_probabilities_match_sklearn():
    labels, probabilities = random_probabilities(110, 0)
    result = evaluate(labels, probabilities, patients=range(110), resamples=50)
    overall = {name: estimate["value"] for name, estimate in result["overall"].items()}
    assert tuple(overall) == OVERALL
    assert overall["mcc"] == pytest.approx(sk.matthews_corrcoef(labels, probabilities.argmax(axis=1)), abs=1e-12)
    assert overall["auc_macro"] == pytest.approx(sk.roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-12)
    assert overall["log_loss"] == pytest.approx(sk.log_loss(labels, probabilities), abs=1e-12)
    assert overall["brier"] == pytest.approx(sk.brier_score_loss(labels, probabilities), abs=1e-12)
    for k, name in enumerate(CLASSES):
        expected = sk.roc_auc_score(labels == k, probabilities[:, k])
        assert result["per_class"][name]["auc"]["value"] == pytest.approx(expected, abs=1e-12)


# repeats


def test_a_figure_is_the_mean_over_repeats_each_computed_on_its_own():
    labels, _ = random_cases(40, 0)
    probabilities = [random_probabilities(40, seed)[1] for seed in range(3)]
    result = evaluate(
        np.tile(labels, 3), np.concatenate(probabilities), patients=[*range(40)] * 3, repeats=np.repeat([4, 5, 9], 40),
        resamples=50,
    )  # fmt: skip
    assert (result["repeats"], result["cases"], result["patients"]) == (3, 40, 40)
    f1 = [sk.f1_score(labels, p.argmax(axis=1), average="macro") for p in probabilities]
    assert result["overall"]["macro_f1"]["value"] == pytest.approx(np.mean(f1), abs=1e-12)
    auc = [sk.roc_auc_score(labels, p, multi_class="ovr") for p in probabilities]
    assert result["overall"]["auc_macro"]["value"] == pytest.approx(np.mean(auc), abs=1e-12)
    precision = [sk.precision_score(labels, p.argmax(axis=1), labels=[2], average=None)[0] for p in probabilities]
    assert result["per_class"]["Normal"]["precision"]["value"] == pytest.approx(np.mean(precision), abs=1e-12)
    confusion = [sk.confusion_matrix(labels, p.argmax(axis=1)) for p in probabilities]
    np.testing.assert_allclose(result["confusion_matrix"], np.mean(confusion, axis=0))


def test_equal_repeats_add_no_certainty():
    labels, probabilities = random_probabilities(40, 1)
    once = evaluate(labels, probabilities, patients=range(40), resamples=200)
    many = evaluate(
        np.tile(labels, 5), np.tile(probabilities, (5, 1)), patients=[*range(40)] * 5, repeats=np.repeat(range(5), 40),
        resamples=200,
    )  # fmt: skip
    for (name, single), (_, repeated) in zip(estimates(once), estimates(many), strict=True):
        assert {**repeated, "method": ""} == pytest.approx({**single, "method": ""}), name
    assert many["overall"]["accuracy"]["method"] == "wilson_mean"


def test_a_proportion_of_repeats_has_wilsons_interval_of_its_mean_with_as_many_trials_as_patients():
    hits = np.array([[1, 1, 0, 0, 1], [1, 0, 0, 0, 1]])
    estimate = proportion_estimate(hits, np.ones((2, 5)))
    low, high = proportion_confint(2.5, 5, method="wilson")
    assert estimate == pytest.approx({"value": 0.5, "low": low, "high": high, "n": 5, "method": "wilson_mean"})


def test_a_repeat_without_trials_is_left_out_of_the_mean():
    estimate = proportion_estimate([[1, 0], [0, 0]], [[1, 1], [0, 0]])
    assert (estimate["value"], estimate["n"]) == (0.5, 2)
    assert proportion_estimate([[0, 0]], [[0, 0]])["method"] == "undefined"


def test_repeats_that_are_not_one_a_case_are_refused():
    with pytest.raises(ValueError, match="expected a repeat for each of 2 cases, came 1"):
        evaluate([0, 1], [GOOD, GOOD], patients="ab", repeats=[0])


# the interval of a figure


def test_bca_gives_way_to_percentiles_where_it_is_undefined():
    rng = np.random.default_rng(0)
    resampled, jackknife = rng.normal(0.5, 0.1, 1000), rng.normal(0.5, 0.01, 20)
    assert bootstrap_estimate(0.5, resampled, jackknife, 20)["method"] == "bca_bootstrap"
    for broken in (np.full(20, 0.5), np.append(jackknife, np.nan)):
        estimate = bootstrap_estimate(0.5, resampled, broken, 20)
        assert estimate["method"] == "percentile_bootstrap"
        assert (estimate["low"], estimate["high"]) == pytest.approx(np.quantile(resampled, [0.025, 0.975]))


def test_a_figure_that_resampling_shifts_as_a_whole_keeps_its_value_inside():
    rng = np.random.default_rng(0)
    resampled = rng.normal(0.5, 0.02, 1000)
    estimate = bootstrap_estimate(0.1, resampled, rng.normal(0.1, 0.001, 20), 20)
    assert estimate["method"] == "centred_bootstrap"
    width = np.ptp(np.quantile(resampled, [0.025, 0.975]))
    assert estimate["high"] - estimate["low"] == pytest.approx(width)
    assert estimate["low"] < 0.1 < estimate["high"]
    assert bootstrap_estimate(0.01, resampled, np.zeros(20), 20)["low"] == 0  # an error is never negative


def test_resamples_without_the_figure_are_left_out_and_none_leave_no_interval():
    resampled = np.array([np.nan, 0.2, 0.4, 0.6] * 50)
    estimate = bootstrap_estimate(0.4, resampled, np.full(5, np.nan), 5)
    assert (estimate["low"], estimate["high"]) == (0.2, 0.6)
    assert bootstrap_estimate(0.4, np.full(9, np.nan), np.zeros(5), 5)["method"] == "not_estimable"
    assert bootstrap_estimate(np.nan, resampled, np.zeros(5), 5)["method"] == "undefined"


def test_every_method_that_occurs_is_explained():
    labels, probabilities = random_probabilities(30, 2)
    methods = {estimate["method"] for _, estimate in estimates(evaluate(labels, probabilities, patients=range(30)))}
    assert methods <= set(METHODS)
