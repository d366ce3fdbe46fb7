"""The sections say what the figures allow and no more, show every figure with its interval and n, and name what is missing."""

import copy

import pytest
from tiny_report import COUNTS, make_report, rows_of, section, text_of

from monai_chd.cohort.overview import NORMAL_MEANS
from monai_chd.labels import CLASSES, FLAGS
from monai_chd.report.sections import DIAGNOSES, flat, plain_value, results


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report"))


def text(report, key):
    return text_of(section(report, key))


def test_the_headline_has_main_figure_and_baseline_with_interval_and_n(report):
    accuracy = report["results"]["all"]["overall"]["accuracy"]
    low, high = f"{100 * accuracy['low']:.0f}", f"{100 * accuracy['high']:.0f}"
    headline = text_of(section(report, "summary").find("p[@class='lead']"))
    assert f"{100 * accuracy['value']:.0f}% (95% interval {low}% to {high}%; n = 33 patients)" in headline
    assert f"Always answering {CLASSES[0]}" in headline and headline.count("n = 33 patients") == 2
    assert headline.endswith(". " + report["results"]["verdict"]["sentence"])


def test_the_summary_has_sentences_control_readings_and_all_warnings(report):
    found = text(report, "summary")
    assert "not a medical device" in found and "not been tested on patients of another hospital" in found
    assert all(warning in found for warning in report["results"]["warnings"])
    assert "1 remark on the data: see Patients and labels." in found
    assert all(control["reading"] in found for control in report["controls"])
    assert "A sentence." in found


def test_what_the_headline_says_is_not_said_again(report):
    assert text(report, "summary").count("Always answering") == 1


def test_cards_give_the_interval_and_n(report):
    cards = [one for one in section(report, "summary").iter("div") if one.get("class") == "card"]
    assert len(cards) == 3
    assert all("95% interval" in "".join(one.itertext()) and "; n = " in "".join(one.itertext()) for one in cards)


def test_the_flow_shows_every_step_in_order_with_reason(report):
    steps = section(report, "cohort").find("ol")
    assert [one.find("strong").text for one in steps] == ["46", "13", "33"]
    assert steps[1].find("small").text == report["cohort"]["flow"][1]["why"]


def test_remarks_on_the_data_stand_with_the_patients(report):
    assert all(warning in text(report, "cohort") for warning in report["cohort"]["warnings"])


def test_the_policy_explains_what_unflagged_means(report):
    found = text(report, "cohort")
    assert report["cohort"]["rule"]["description"] in found and NORMAL_MEANS["unflagged"] in found
    given = copy.deepcopy(report)
    del given["cohort"]["rule"]["normal"]
    given["cohort"]["normal"] = "confirmed"
    assert NORMAL_MEANS["confirmed"] in text(given, "cohort")


def test_class_by_fold_counts_add_up(report):
    found = rows_of(section(report, "cohort"))
    assert found[0] == ["repeat", *CLASSES] and found[-1] == ["all folds", *map(str, COUNTS)]
    for row in found[1:-1]:
        assert [sum(map(int, cell.split(", "))) for cell in row[1:]] == list(COUNTS)


def test_the_design_says_how_choices_were_made_and_lists_the_settings(report):
    found = text(report, "design")
    assert report["design"]["sentence"] in found and "never on a test fold" in found and "not time" in found
    root = section(report, "design")
    settings = {
        one.find("dt").text: "".join(one.find("dd").itertext())
        for one in root.iter("div")
        if one.find("dt") is not None
    }
    assert settings["window"] == "-200, 900" and settings["bidirectional"] == "yes" and settings["dropout"] == "none"
    assert set(settings) == set(report["design"]["settings"])


def test_controls_stand_beside_the_model_with_interval_n_and_reading(report):
    accuracy, balanced, differences = (rows_of(one) for one in section(report, "controls").iter("table"))
    model = report["results"]["all"]["overall"]
    for found, key in ((accuracy, "accuracy"), (balanced, "balanced_accuracy")):
        one = model[key]
        assert found[1][:4] == ["The model", f"{one['value']:.3f}", f"{one['low']:.3f} to {one['high']:.3f}", "33"]
    assert accuracy[2][:4] == ["Shuffled labels", "0.360", "0.210 to 0.510", "33"]
    assert balanced[2][:4] == ["Shuffled labels", "0.330", "0.180 to 0.480", "33"]
    assert differences[1:] == [["Shuffled labels", "+0.210", "+0.060 to +0.360", "33"]]
    words = text(report, "controls")
    assert all(control["reading"] in words and control["question"] in words for control in report["controls"])


def test_a_control_that_was_not_done_is_shown_as_undefined(report):
    none = {"value": None, "low": None, "high": None, "n": 0, "method": "undefined"}
    control = {**report["controls"][0], "accuracy": none, "balanced_accuracy": none, "details": {}}
    assert rows_of(section({**report, "controls": [control]}, "controls"))[2][1:3] == ["undefined", "\u2013"]


def test_the_comparison_shows_differences_with_interval_n_and_tests(report):
    root = section(report, "comparison")
    found, against = rows_of(root), report["against"]
    for key, one in against["differences"].items():
        wanted = [f"{one['value']:+.3f}", f"{one['low']:+.3f} to {one['high']:+.3f}", "33"]
        assert any(row[1:4] == wanted for row in found), key
    assert ["less is better" in row for row in found if row[0] == "Log-loss"] == [True]
    assert len([row for row in found if row[0].startswith("Repeat ")]) == 2
    words = text(report, "comparison")
    assert (
        "Corrected t-test over 6 fits: accuracy differs by" in words
        and ", n = 33]; p " in words
        and "runs/other" in words
    )


def test_a_case_shows_classes_probabilities_frames_and_that_it_is_no_evidence(report):
    pictures = {case["sheet"]: "data:image/png;base64,AAAA" for case in report["worst_cases"]}
    root = section(report, "mistakes", pictures)
    articles = list(root.iter("article"))
    assert len(articles) == 2 and "Not evidence. A network may answer oddly" in text(report, "mistakes")
    words = text_of(articles[0])
    assert (
        f"Patient 1001: {CLASSES[0]}, called {CLASSES[1]}" in words
        and f"{CLASSES[1]} 92%" in words
        and "Not evidence." in words
    )
    image, chart = articles[0].find(".//img"), articles[0].find(".//svg")
    assert image.get("src") == "data:image/png;base64,AAAA" and "8 axial slices of patient 1001" in image.get("alt")
    assert chart.get("role") == "img" and "frames 1 to 5" in chart.get("aria-label")


def test_changes_too_small_to_see_are_said_in_words(report):
    still = [{**window, "change": 0.001} for window in report["worst_cases"][0]["occlusion"]]
    found = text({**report, "worst_cases": [{**report["worst_cases"][0], "occlusion": still}]}, "mistakes")
    assert (
        f"Hiding any one stretch of frames changes the probability of {CLASSES[1]} by less than 0.005. Not evidence."
        in found
    )


def test_a_case_without_frames_says_so(report):
    bare = {**report, "worst_cases": [{**report["worst_cases"][0], "sheet": None, "occlusion": []}]}
    assert "Not in this report: frames of this patient." in text(bare, "mistakes")


def test_learning_curves_are_called_validation(report):
    assert "not a test result" in text(report, "training") and "not how good the model is" in text(report, "training")


@pytest.mark.parametrize(
    ("key", "anchor", "words"),
    [
        ("controls", "controls", "controls: without them nothing is known"),
        ("against", "comparison", "comparison with another model"),
        ("training", "training", "learning curves"),
        ("worst_cases", "mistakes", "the worst mistakes"),
        ("audit", "audit", "an audit for leaks and confounders"),
        ("provenance", "provenance", "run time, versions, seeds and hashes"),
    ],
)
def test_what_is_missing_is_named(report, key, anchor, words):
    for nothing in ({**report, key: None}, {name: value for name, value in report.items() if name != key}):
        assert f"Not in this report: {words}" in text(nothing, anchor)


def test_a_cohort_of_counts_only_is_named_as_such(report):
    bare = {**report, "cohort": {"patients": 33, "classes": list(CLASSES)}}
    found = text(bare, "cohort")
    for part in ("the flow of patients", "the rule from diagnoses to classes", "counts by class and fold"):
        assert f"Not in this report: {part}" in found


def cells(estimate):
    return [f"{estimate['value']:.3f}", f"{estimate['low']:.3f} to {estimate['high']:.3f}", str(estimate["n"])]


def holds(found, estimate):
    """Whether some row has value, interval and n beside each other."""
    wanted = cells(estimate)
    return any(row[i : i + 3] == wanted for row in found for i in range(len(row)))


@pytest.mark.parametrize("part", ["all", "answered"])
def test_every_figure_of_all_and_of_the_answered_patients_stands_with_interval_and_n(report, part):
    found = rows_of(section(report, "results"))
    scores = report["results"][part]
    assert all(holds(found, one) for one in scores["overall"].values())
    for one in scores["per_class"].values():
        assert all(holds(found, one[key]) for key in ("recall", "precision", "f1", "auc"))


def test_the_baseline_and_the_ensemble_stand_there_too(report):
    found = rows_of(section(report, "results"))
    results = report["results"]
    assert holds([row for row in found if row[0].startswith("Baseline: always")], results["baseline"]["accuracy"])
    assert all(holds(found, one) for one in results["ensemble"]["overall"].values())
    assert results["ensemble"]["sentence"] in text(report, "results")


def test_every_table_of_values_has_columns_for_interval_and_n(report):
    for key in ("results", "calibration", "abstention", "lesions", "controls", "comparison"):
        for table in section(report, key).iter("table"):
            header = [one.text for one in table.find("thead/tr")]
            assert not {"value", "class right", "difference"} & set(header) or {"95% interval", "n"} <= set(header), (
                header
            )


def test_the_method_of_each_interval_is_named_and_explained(report):
    root = section(report, "results")
    words = text_of(root)
    used = {one["method"] for one in report["results"]["all"]["overall"].values()}
    assert used and all(report["results"]["methods"][key] in words for key in used)
    assert report["results"]["methods"]["mcnemar"] not in words


def test_the_spread_over_repeats_is_a_range_and_no_interval(report):
    words = text(report, "results")
    values = report["results"]["repeat_spread"]["accuracy"]
    assert f"{min(values):.3f} to {max(values):.3f}" in words and "This is no interval" in words
    once = {**report, "results": {**report["results"], "repeats": 1}}
    assert "Lowest to highest" not in text(once, "results")


def test_without_answered_patients_nothing_is_said_of_them(report):
    bare = {**report, "results": {**report["results"], "answered": None}}
    assert "Answered patients" not in text(bare, "results")
    assert len(list(section(bare, "confusion").iter("table"))) == 1


def test_the_matrix_has_true_classes_as_rows_counts_and_row_percent(report):
    table = next(section(report, "confusion").iter("table"))
    matrix = report["results"]["all"]["confusion_matrix"]
    found = [row for row in rows_of(table) if not row[0].startswith("true class")]
    assert [row[0] for row in found] == [f"{name} (n = {n})" for name, n in zip(CLASSES, COUNTS, strict=True)]
    for i, row in enumerate(found):
        for j, cell in enumerate(row[1:]):
            count = f"{matrix['counts'][i][j]:.1f}".removesuffix(".0")
            assert cell == f"{count}{matrix['row_percent'][i][j]:.0f}%"
    assert [one.text for one in table.find("thead/tr")][1:] == [f"called {name}" for name in CLASSES]
    marked = [
        (i, j)
        for i, row in enumerate(table.find("tbody"))
        for j, one in enumerate(row)
        if one.get("class") == "diagonal"
    ]
    assert marked == [(0, 1), (1, 2), (2, 3)]


def test_a_class_without_patients_has_no_percent(report):
    results = copy.deepcopy(report["results"])
    results["all"]["confusion_matrix"] = {
        "counts": [[1, 0, 0], [0, 0, 0], [0, 0, 1]],
        "row_percent": [[100, 0, 0], [None] * 3, [0, 0, 100]],
    }
    found = rows_of(section({**report, "results": results}, "confusion").find(".//table"))
    assert found[2] == [f"{CLASSES[1]} (n = 0)", "0no patient", "0no patient", "0no patient"]


def test_there_is_a_chart_for_each_class_and_kind(report):
    assert len(list(section(report, "curves").iter("figure"))) == 2 * len(CLASSES)


def test_calibration_has_all_figures_before_and_after(report):
    found = rows_of(section(report, "calibration"))
    reliability = report["results"]["curves"]["reliability"]
    assert all(
        holds(found, reliability[when][key]) for when in ("before", "after") for key in ("ece", "log_loss", "brier")
    )


def test_abstention_tells_the_published_point_and_that_it_is_another_task(report):
    root = section(report, "abstention")
    words = text_of(root)
    curve = report["results"]["curves"]["risk_coverage"]
    assert curve["published"]["sentence"] in words and "another task" in curve["published"]["sentence"]
    assert holds(rows_of(root), curve["aurc"]) and holds(rows_of(root), curve["augrc"])


def test_lesions_have_their_names_and_figures(report):
    root = section(report, "lesions")
    found = rows_of(root)
    for one in report["results"]["per_lesion"]:
        assert holds([row for row in found if row[0] == one["flag"] + DIAGNOSES[one["flag"]]], one["recall"])


def test_every_flag_of_imagechd_has_a_name_and_an_unknown_one_is_shown_as_it_is(report):
    assert tuple(DIAGNOSES) == FLAGS
    odd = {
        **report,
        "results": {**report["results"], "per_lesion": [{**report["results"]["per_lesion"][0], "flag": "XYZ"}]},
    }
    assert rows_of(section(odd, "lesions"))[1][0] == "XYZ"


def test_without_flags_the_section_says_so(report):
    bare = {**report, "results": {**report["results"], "per_lesion": []}}
    assert "Not in this report: results by lesion" in text(bare, "lesions")


def test_undefined_figures_are_shown_as_such(report):
    results = copy.deepcopy(report["results"])
    results["all"]["overall"]["mcc"] = {"value": None, "low": None, "high": None, "n": 0, "method": "undefined"}
    results["all"]["overall"]["ece"] = {"value": 0.1, "low": None, "high": None, "n": 33, "method": "not_estimable"}
    found = rows_of(section({**report, "results": results}, "results"))
    assert ["undefined", "\u2013", "0"] in [row[1:4] for row in found]
    assert ["0.100", "no interval", "33"] in [row[1:4] for row in found]


def test_only_the_methods_used_are_explained_in_the_order_they_are_given(report):
    methods = {"bca_bootstrap": "two", "mcnemar": "three", "wilson_mean": "one"}
    notes = results({**report, "results": {**report["results"], "methods": methods}})["methods"]
    assert notes == [("BCa bootstrap", "two"), ("Wilson mean", "one")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "none"), (True, "yes"), (False, "no"), (0.0003, "0.0003"), (1 / 3, "0.333333"), (float("nan"), "none"), (7, "7"),
     ([1.5, None], "1.5, none"), ([], "none"), ("x", "x")],
)  # fmt: skip
def test_values_read_as_words(value, expected):
    assert plain_value(value) == expected


def test_inner_values_come_with_their_path():
    assert flat({"a": 1, "b": {"c": [1, 2], "d": {}}}) == [("a", "1"), ("b / c", "1, 2"), ("b / d", "{}")]
