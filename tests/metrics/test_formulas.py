"""Formulas for many weightings at once equal scikit-learn, scipy, statsmodels and plain counting for each of them."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from statsmodels.stats.contingency_tables import mcnemar

from monai_chd.metrics import formulas
from monai_chd.metrics.formulas import (
    bca_interval,
    binomial_test,
    case_losses,
    corrected_t,
    mcnemar_exact,
    patient_weights,
    percentile_interval,
    permutation_test,
    reliability_bins,
    risk_coverage,
    score_confusion,
    weighted_auc,
    weighted_aurc,
    weighted_ece,
    weighted_figures,
)


def random_cases(n, seed, ties=False):
    """Labels and probabilities that go with them; with ties only tenths."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=n, p=[0.45, 0.35, 0.2])
    scores = rng.normal(size=(n, 3))
    scores[np.arange(n), labels] += 1
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return labels, np.round(probabilities, 1) if ties else probabilities


def draws(n, rows=20, seed=1):
    """How often each case is taken, shape (rows, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=rows).astype(float)


def repeated(weights):
    """Indices of cases, each as often as its weight says."""
    return np.repeat(np.arange(len(weights)), weights.astype(int))


# weights


def test_weights_are_the_data_then_resamples_then_each_patient_left_out():
    weights = patient_weights(6, 50, seed=3)
    assert weights.shape == (57, 6)
    assert (
        (weights[0] == 1).all() and (weights[1:51].sum(axis=1) == 6).all() and len(np.unique(weights[1:51], axis=0)) > 1
    )
    np.testing.assert_array_equal(weights[51:], 1 - np.eye(6))


def test_resamples_draw_every_patient_alike():
    drawn = patient_weights(5, 40000, seed=0)[1:40001]
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(drawn.var(axis=0), 1 - 1 / 5, atol=0.03)  # of a binomial with 5 trials of 1/5


# each figure for each weighting


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_auc_matches_sklearn_on_the_cases_as_often_as_drawn(ties):
    labels, probabilities = random_cases(60, 0, ties)
    weights = draws(60)
    for k in range(3):
        found = weighted_auc(probabilities[:, k], labels == k, weights)
        for value, weight in zip(found, weights, strict=True):
            rows = repeated(weight)
            assert value == pytest.approx(sk.roc_auc_score(labels[rows] == k, probabilities[rows, k]), abs=1e-12)


def test_auc_without_one_side_is_undefined():
    assert np.isnan(weighted_auc(np.array([0.1, 0.9]), np.array([True, True]), np.ones((1, 2)))).all()
    assert np.isnan(weighted_auc(np.array([0.1, 0.9]), np.array([True, False]), np.array([[1.0, 0.0]]))).all()


def test_losses_match_sklearn():
    labels, probabilities = random_cases(80, 1)
    log_loss, brier = case_losses(labels, probabilities)
    assert log_loss.mean() == pytest.approx(sk.log_loss(labels, probabilities), abs=1e-12)
    assert brier.mean() == pytest.approx(sk.brier_score_loss(labels, probabilities), abs=1e-12)


def test_a_certain_mistake_has_the_finite_loss_of_sklearn():
    log_loss, brier = case_losses(np.array([0, 1]), np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]))
    assert log_loss.mean() == pytest.approx(sk.log_loss([0, 1], [[0, 1, 0], [0, 1, 0]], labels=[0, 1, 2]), abs=1e-9)
    assert brier.tolist() == [2, 0]


@pytest.mark.parametrize("n", [50, 110, 200])
def test_ece_matches_the_quantile_bins_of_sklearn(n):
    labels, probabilities = random_cases(n, n)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    share, mean = calibration_curve(right, confidence, n_bins=10, strategy="quantile")
    assert weighted_ece(confidence, right, np.ones((1, n)))[0] == pytest.approx(
        np.mean(np.abs(share - mean)), abs=1e-12
    )
    bins = reliability_bins(confidence, right)
    np.testing.assert_allclose(bins.confidence, mean, atol=1e-12)
    np.testing.assert_allclose(bins.accuracy, share, atol=1e-12)
    assert bins.mass.tolist() == [n / 10] * 10


def test_ece_in_one_bin_is_the_distance_of_mean_confidence_and_accuracy_for_each_weighting():
    labels, probabilities = random_cases(40, 2)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    weights = draws(40)
    for value, weight in zip(weighted_ece(confidence, right, weights, bins=1), weights, strict=True):
        rows = repeated(weight)
        assert value == pytest.approx(abs(confidence[rows].mean() - right[rows].mean()), abs=1e-12)


def test_a_case_drawn_twice_is_two_cases_in_one_bin():
    labels, probabilities = random_cases(40, 3)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    weights = draws(40)
    for value, weight in zip(weighted_ece(confidence, right, weights), weights, strict=True):
        rows = repeated(weight)
        assert value == pytest.approx(weighted_ece(confidence[rows], right[rows], np.ones((1, 40)))[0], abs=1e-12)


def test_equal_confidences_share_a_bin():
    bins = reliability_bins([0.6] * 30 + [0.9] * 10, [True] * 15 + [False] * 15 + [True] * 10)
    assert bins.mass.tolist() == [30, 10]
    assert bins.accuracy.tolist() == [0.5, 1] and bins.confidence == pytest.approx([0.6, 0.9])


@pytest.mark.parametrize("ties", [False, True])
def test_areas_of_risk_and_coverage_match_counting(ties):
    labels, probabilities = random_cases(30, 4, ties)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    weights = draws(30, rows=3)
    rng = np.random.default_rng(0)
    for row, weight in enumerate(weights):
        rows = repeated(weight)
        aurc, augrc = [], []
        for _ in range(3000):  # equally confident cases, the same case drawn twice among them, in random order
            order = np.lexsort((rng.random(len(rows)), -confidence[rows]))
            wrong = np.cumsum(~right[rows][order])
            aurc.append(np.mean(wrong / np.arange(1, 31)))
            augrc.append(np.mean(wrong / 30))
        found = weighted_aurc(confidence, right, weights)
        for values, counted in zip(found, (aurc, augrc), strict=True):
            assert values[row] == pytest.approx(np.mean(counted), abs=4 * np.std(counted) / np.sqrt(3000) + 1e-12)


def test_areas_without_ties_are_exact_and_those_of_the_curve():
    labels, probabilities = random_cases(37, 5)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    wrong = np.cumsum(~right[np.argsort(-confidence)])
    aurc, augrc = weighted_aurc(confidence, right, np.ones((1, 37)))
    coverage, risk = risk_coverage(confidence, right)
    np.testing.assert_allclose(risk, wrong / np.arange(1, 38))
    np.testing.assert_allclose(coverage, np.arange(1, 38) / 37)
    assert aurc[0] == pytest.approx(risk.mean(), abs=1e-12)
    assert augrc[0] == pytest.approx((risk * coverage).mean(), abs=1e-12)


def test_risk_at_full_coverage_is_the_share_wrong_and_equal_confidence_gives_a_flat_curve():
    right = np.array([True, False, True, True, False])
    assert risk_coverage([0.9, 0.8, 0.7, 0.6, 0.5], right)[1][-1] == pytest.approx(0.4)
    np.testing.assert_allclose(risk_coverage([0.5] * 5, right)[1], 0.4)


def test_confidence_that_sorts_mistakes_last_is_better():
    right = np.array([True] * 8 + [False] * 2)
    sorted_well, sorted_badly = (
        weighted_aurc(np.array(c), right, np.ones((1, 10))) for c in (range(10, 0, -1), range(10))
    )
    assert sorted_well[0] < sorted_badly[0] and sorted_well[1] < sorted_badly[1]


@pytest.mark.parametrize("seed", range(5))
def test_mcc_of_confusion_matrices_matches_sklearn(seed):
    labels, probabilities = random_cases(50, seed)
    predictions = probabilities.argmax(axis=1)
    mcc = score_confusion(sk.confusion_matrix(labels, predictions, labels=range(3)))["mcc"]
    assert mcc == pytest.approx(sk.matthews_corrcoef(labels, predictions), abs=1e-12)


def test_mcc_without_variation_is_zero_and_a_matrix_without_cases_has_no_figures():
    assert score_confusion(np.array([[5, 0, 0], [3, 0, 0], [0, 0, 0]]))["mcc"] == 0
    empty = score_confusion(np.zeros((3, 3)))
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "weighted_recall", "mcc"):
        assert np.isnan(empty[name]), name


def test_every_figure_of_a_weighting_is_that_of_the_cases_as_often_as_drawn(monkeypatch):
    labels, probabilities = random_cases(120, 6)
    patients, repeats = np.tile(np.arange(40) // 2, 3), np.repeat([0, 1, 2], 40)  # two cases a patient and repeat
    weights = np.vstack([np.ones(20), draws(20, rows=7)])
    found = weighted_figures(labels, probabilities, patients, repeats, weights)
    for row, weight in enumerate(weights):
        rows = repeated(weight[patients])
        alone = weighted_figures(
            labels[rows], probabilities[rows], np.arange(len(rows)), repeats[rows], np.ones((1, len(rows)))
        )
        for name, values in found.items():
            np.testing.assert_allclose(values[row], alone[name][0], atol=1e-12, err_msg=name)
    monkeypatch.setattr(formulas, "CHUNK", 300)  # two rows at a time
    for name, values in weighted_figures(labels, probabilities, patients, repeats, weights).items():
        np.testing.assert_allclose(values, found[name], atol=1e-12)


# intervals


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("statistic", [np.mean, np.std, stats.skew], ids=["mean", "std", "skew"])
def test_bca_matches_scipy_on_its_resamples(statistic, confidence):
    data = np.random.default_rng(0).lognormal(size=40)
    expected = stats.bootstrap(
        (data,), statistic, n_resamples=2000, method="BCa", confidence_level=confidence, rng=1, vectorized=False
    )
    jackknife = np.array([statistic(np.delete(data, i)) for i in range(40)])
    found = bca_interval(statistic(data), expected.bootstrap_distribution, jackknife, confidence)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=1e-9)


def test_percentiles_match_scipy_on_its_resamples():
    data = np.random.default_rng(0).lognormal(size=40)
    expected = stats.bootstrap((data,), np.mean, n_resamples=999, method="percentile", rng=1)
    found = percentile_interval(expected.bootstrap_distribution)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=1e-12)


def test_bca_is_undefined_without_resamples_on_both_sides_or_influence():
    resampled, jackknife = np.linspace(0.4, 0.6, 101), np.linspace(0.45, 0.55, 20)
    assert bca_interval(0.5, resampled, jackknife) is not None
    assert bca_interval(0.3, resampled, jackknife) is None
    assert bca_interval(0.7, resampled, jackknife) is None
    assert bca_interval(0.5, resampled, np.full(20, 0.5)) is None
    assert bca_interval(0.5, resampled, np.append(jackknife, np.nan)) is None


# tests


@pytest.mark.parametrize(
    ("successes", "n", "share"), [(59, 110, 49 / 110), (58, 110, 49 / 110), (27, 57, 20 / 57), (0, 5, 0.3)]
)
def test_binomial_test_is_the_upper_tail(successes, n, share):
    assert binomial_test(successes, n, share) == pytest.approx(stats.binom.sf(successes - 1, n, share), abs=1e-12)


def test_critical_counts_of_the_binomial_test_are_those_of_the_method_notes():
    # 5 % one-sided: 59 of 110 against a majority of 49, 27 of 57 against 20
    assert binomial_test(59, 110, 49 / 110) <= 0.05 < binomial_test(58, 110, 49 / 110)
    assert binomial_test(27, 57, 20 / 57) <= 0.05 < binomial_test(26, 57, 20 / 57)


@pytest.mark.parametrize(("first", "second"), [(3, 9), (9, 3), (0, 6), (5, 5), (1, 0)])
def test_mcnemar_matches_statsmodels(first, second):
    assert mcnemar_exact(first, second) == pytest.approx(
        mcnemar([[4, first], [second, 7]], exact=True).pvalue, abs=1e-12
    )


def test_two_that_never_differ_have_p_one():
    assert mcnemar_exact(0, 0) == 1


def test_permutation_test_agrees_with_all_permutations():
    labels = np.array([0, 0, 0, 1, 1, 2, 2])
    votes = np.eye(3)[[0, 0, 1, 1, 1, 2, 0]]
    votes[2] = [0.4, 0.6, 0]
    value, p = permutation_test(votes, labels, permutations=20000, seed=0)

    def balanced(given):
        return np.mean([votes[given == k, k].mean() for k in range(3)])

    exact = stats.permutation_test(
        (labels,), balanced, permutation_type="pairings", n_resamples=10000, alternative="greater", rng=0
    )
    assert value == pytest.approx(balanced(labels), abs=1e-12) == pytest.approx(exact.statistic)
    assert p == pytest.approx(exact.pvalue, abs=0.01)


def test_permutation_p_is_uniform_without_association_and_small_with_it():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [20, 15, 10])
    ps = [permutation_test(np.eye(3)[rng.integers(0, 3, 45)], labels, permutations=199, seed=i)[1] for i in range(200)]
    assert 0.01 <= np.mean(np.array(ps) <= 0.05) <= 0.1 and 0.4 <= np.mean(ps) <= 0.62
    assert permutation_test(np.eye(3)[labels], labels, permutations=199)[1] == 1 / 200


def test_corrected_t_is_the_t_test_when_training_sets_do_not_overlap_and_wider_else():
    differences = np.random.default_rng(0).normal(0.03, 0.05, 25)
    plain = stats.ttest_1samp(differences, 0)
    found = corrected_t(differences, 0.0)
    assert found.mean == pytest.approx(differences.mean()) and found.p == pytest.approx(plain.pvalue, abs=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(plain.confidence_interval(0.95)), abs=1e-12)
    corrected = corrected_t(differences, 1 / 4)
    # Nadeau and Bengio: variance (1/25 + 1/4) in place of 1/25
    assert (corrected.high - corrected.mean) / (found.high - found.mean) == pytest.approx(np.sqrt(1 + 25 / 4))
    assert corrected.p > found.p


def test_differences_that_do_not_vary_have_no_error():
    assert corrected_t([0.0, 0.0], 0.25).p == 1
    assert corrected_t([0.1, 0.1], 0.25) == (pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1), 0)


def test_macro_auc_of_torchmetrics_is_ours():
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    labels, probabilities = random_cases(110, 7)
    figures = weighted_figures(labels, probabilities, np.arange(110), np.zeros(110, dtype=int), np.ones((1, 110)))
    theirs = torch.tensor(probabilities), torch.tensor(labels)
    options = {"num_classes": 3}
    assert figures["auc_macro"][0] == pytest.approx(float(torchmetrics.multiclass_auroc(*theirs, **options)), abs=1e-6)
    assert figures["mcc"][0] == pytest.approx(
        float(torchmetrics.multiclass_matthews_corrcoef(*theirs, **options)), abs=1e-6
    )


def test_the_corrected_t_interval_stays_between_the_largest_differences():
    test = corrected_t([1.0, 1.0, 0.7, 1.0], 0.5)
    assert test.high == 1 and -1 <= test.low < test.mean
    assert corrected_t([-1.0, -1.0, -0.7, -1.0], 0.5).low == -1
