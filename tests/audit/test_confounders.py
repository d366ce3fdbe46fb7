"""Tables of confounders are counts by hand, tests are scipy's, and what follows the class is warned of."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2_contingency, kruskal
from tiny_cohort import write_scan
from tiny_datalist import cohort_of_numbers, quiet, record, write_list

from monai_chd.audit.confounders import PERMUTATIONS, _permuted_chi_square
from monai_chd.audit.leakage import has_leakage
from monai_chd.audit.text import audit_text
from monai_chd.labels import CLASSES
from monai_chd.metrics.formulas import wilson_interval


def groups_of(records, get):
    values = [[get(one) for one in records if one["label"] == label] for label in range(3)]
    return [[value for value in group if value is not None] for group in values]


def test_tables_equal_counts_by_hand(tmp_path):
    records, result = cohort_of_numbers(tmp_path)
    for label, name in enumerate(CLASSES):
        own = [one for one in records if one["label"] == label]
        assert result["class_by_place"][name] == {"fold 0": 10, "the test part": 10}
        ages = [one["confounders"]["age_years"] for one in own if one["confounders"]["age_years"] is not None]
        assert result["confounders"]["age_years"][name] == {
            "patients": 20, "n": 15, "median": np.median(ages), "min": min(ages), "max": max(ages),
        }  # fmt: skip
        scanners = [one["confounders"]["scanner"] for one in own]
        assert result["confounders"]["scanner"][name]["counts"] == {s: scanners.count(s) for s in "AB"}
        pixel = result["confounders"]["in_plane_mm"][name]
        assert (pixel["n"], pixel["median"]) == (16, pytest.approx(0.45))
    assert f"[{min(ages):.4g}-{max(ages):.4g}] (n=15)" in audit_text(result)


def test_tables_by_place_equal_counts_by_hand(tmp_path):
    records, result = cohort_of_numbers(tmp_path)
    parts = {"fold 0": records[::2], "the test part": records[1::2]}
    table = result["confounders_by_place"]
    assert list(table) == list(result["confounders"])
    for label, name in enumerate(CLASSES):
        assert list(table["slices"][name]) == list(parts)
        for place, part in parts.items():
            own = [one["confounders"] for one in part if one["label"] == label]
            slices = [one["slices"] for one in own]
            assert table["slices"][name][place] == {
                "patients": 10, "n": 10, "median": np.median(slices), "min": min(slices), "max": max(slices),
            }  # fmt: skip
            scanners = Counter(one["scanner"] for one in own)
            assert table["scanner"][name][place] == {"patients": 10, "n": 10, "counts": dict(sorted(scanners.items()))}
            ages = [one["age_years"] for one in own if one["age_years"] is not None]
            assert table["age_years"][name][place]["n"] == len(ages)


def test_a_class_absent_from_a_place_is_a_row_of_none(tmp_path):
    lists = {"fold 0": [record("a.nii.gz", "1", 0)], "the test part": [record("b.nii.gz", "2", 2)]}
    table = quiet(write_list(tmp_path, lists))["confounders_by_place"]["slices"]
    assert list(table) == [CLASSES[0], CLASSES[2]]
    assert table[CLASSES[2]] == {"fold 0": {"patients": 0, "n": 0}, "the test part": {"patients": 1, "n": 0}}


def test_a_patient_in_two_places_counts_in_both_tables_and_once_in_all(tmp_path):
    one, two = (record(f"{n}.nii.gz", "7", 0, confounders={"slices": n}) for n in (100, 200))
    result = quiet(write_list(tmp_path, {"fold 0": [one], "the test part": [two]}))
    places = result["confounders_by_place"]["slices"][CLASSES[0]]
    assert {place: (cell["n"], cell["median"]) for place, cell in places.items()} == {
        "fold 0": (1, 100),
        "the test part": (1, 200),
    }
    assert result["confounders"]["slices"][CLASSES[0]]["n"] == 1


def test_tests_equal_scipys(tmp_path):
    records, result = cohort_of_numbers(tmp_path)
    tests = {test["confounder"]: test for test in result["association"]}
    getters = {
        "slices": lambda c: c["slices"],
        "age_years": lambda c: c["age_years"],
        "slice_mm": lambda c: c["spacing_mm"] and c["spacing_mm"][2],
    }
    for name, get in getters.items():
        groups = groups_of(records, lambda one, get=get: get(one["confounders"]))
        expected = kruskal(*groups)
        assert tests[name]["p"] == pytest.approx(expected.pvalue)
        assert tests[name]["statistic"] == pytest.approx(expected.statistic)
        assert tests[name]["n"] == sum(map(len, groups))
    groups = groups_of(records, lambda one: one["confounders"]["scanner"])
    expected = chi2_contingency([[group.count(s) for s in "AB"] for group in groups], correction=False)
    assert tests["scanner"]["statistic"] == pytest.approx(expected.statistic)
    assert tests["scanner"]["p"] == pytest.approx(expected.pvalue, abs=0.05)  # permutations, not the limit law
    assert tests["contrast"]["skipped"] == tests["in_plane_mm"]["skipped"] == "does not vary"


@pytest.mark.parametrize("related", [0.0, 0.3])
def test_a_chi_square_by_permutation_is_that_of_permuting_by_hand(related):
    rng = np.random.default_rng(3)
    labels = rng.integers(3, size=60)
    codes = np.where(rng.random(60) < related, labels % 2, rng.integers(2, size=60))

    def statistic(codes):
        counts = [[np.sum((labels == k) & (codes == c)) for k in range(3)] for c in range(2)]
        return chi2_contingency(counts, correction=False).statistic

    found, p = _permuted_chi_square(labels, codes)
    assert found == pytest.approx(statistic(codes))
    by_hand = np.mean([statistic(rng.permutation(codes)) >= found - 1e-9 for _ in range(2000)])
    assert p == pytest.approx(by_hand, abs=4 * np.sqrt(2 * by_hand * (1 - by_hand) / 2000))
    assert p * (PERMUTATIONS + 1) == pytest.approx(round(p * (PERMUTATIONS + 1)))
    assert _permuted_chi_square(labels, codes) == (found, p)


def test_of_six_patients_all_orders_are_counted(tmp_path):
    labels, codes = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1])
    assert _permuted_chi_square(labels, codes) == (pytest.approx(6), pytest.approx(2 * 6 * 6 / 720))
    given = {"slices": 100, "spacing_mm": None, "age_years": None, "contrast": None}
    six = [record(f"{n}.nii.gz", str(n), n // 3, confounders={**given, "scanner": "AB"[n // 3]}) for n in range(6)]
    tests = {test["confounder"]: test for test in quiet(write_list(tmp_path, {"fold 0": six}))["association"]}
    assert tests["scanner"]["test"] == "chi-square, 720 permutations"


def test_adjusted_p_values_are_holms(tmp_path):
    _, result = cohort_of_numbers(tmp_path, by_class=True)
    done = sorted((test for test in result["association"] if test["p"] is not None), key=lambda test: test["p"])
    expected = np.maximum.accumulate([min(1, test["p"] * (4 - rank)) for rank, test in enumerate(done)])
    np.testing.assert_allclose([test["p_holm"] for test in done], expected)
    assert {test["tests"] for test in done} == {4}


def test_slice_counts_that_follow_the_class_warn(tmp_path):
    _, result = cohort_of_numbers(tmp_path, by_class=True)
    assert any("slice count differs" in text and "not disease" in text for text in result["warnings"])
    assert any("without looking at the heart" in text for text in result["warnings"])
    prediction = result["prediction"]
    assert prediction["accuracy"]["low"] > prediction["majority"]["high"]
    right = round(prediction["accuracy"]["value"] * 60)
    assert (prediction["accuracy"]["low"], prediction["accuracy"]["high"]) == wilson_interval(right, 60)
    assert (prediction["majority"]["value"], prediction["n"]) == (pytest.approx(1 / 3), 60)
    assert not has_leakage(result)


@pytest.mark.parametrize("seed", [1, 3, 4])
@pytest.mark.parametrize("options", [{}, {"by_class": True, "shuffled": True}], ids=["unrelated", "labels shuffled"])
def test_nothing_warns_when_classes_do_not_differ(options, seed, tmp_path):
    _, result = cohort_of_numbers(tmp_path, seed, **options)
    assert result["warnings"] == []
    assert result["prediction"]["accuracy"]["low"] < result["prediction"]["majority"]["value"]


def test_too_few_patients_or_nothing_varying_is_said(tmp_path):
    same = {"slices": 100, "spacing_mm": None, "scanner": None, "age_years": None, "contrast": None}
    few = [record(f"{n}.nii.gz", str(n), n % 3, confounders=same) for n in range(6)]
    result = quiet(write_list(tmp_path, {"fold 0": few}))
    assert "fewer than two classes" in result["prediction"]["skipped"]
    assert all(test["p"] is None for test in result["association"])
    many = [record(f"{n}.nii.gz", str(n), n % 3, confounders=same) for n in range(30)]
    result = quiet(write_list(tmp_path, {"fold 0": many}))
    assert result["prediction"]["skipped"] == "no confounder varies"
    assert "not tested, does not vary" in audit_text(result)


def test_slices_and_contrast_come_from_the_file_where_the_datalist_has_none(tmp_path):
    bright = np.full((12, 12, 9), 1050, np.int16)
    bright[:3] = 1400
    bright[-1] = 0
    write_scan(tmp_path / "bright.nii.gz", bright)
    dark = bright.copy()
    dark[:3] = 1080
    write_scan(tmp_path / "dark.nii.gz", dark)
    places = {"fold 0": [record("bright.nii.gz", "1", 0), record("dark.nii.gz", "2", 1)]}
    table = quiet(write_list(tmp_path, places))["confounders"]
    assert [table["slices"][name]["median"] for name in CLASSES[:2]] == [9, 9]
    assert [table["contrast"][name]["counts"] for name in CLASSES[:2]] == [{"yes": 1}, {"no": 1}]
    places["fold 0"][0]["confounders"] = {"slices": 5, "spacing_mm": None, "scanner": None, "contrast": None}
    table = quiet(write_list(tmp_path, places))["confounders"]
    assert table["slices"][CLASSES[0]]["median"] == 5
    assert table["contrast"][CLASSES[0]]["n"] == 0


def test_a_patient_counts_once_in_the_confounders(tmp_path):
    records = [record(f"{n}.nii.gz", "1", 0, confounders={"slices": 100 + n}) for n in range(3)]
    table = quiet(write_list(tmp_path, {"fold 0": records}))["confounders"]
    assert table["slices"][CLASSES[0]] == {"patients": 1, "n": 1, "median": 100, "min": 100, "max": 100}
