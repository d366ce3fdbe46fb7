"""The sections in words say what the figures allow and no more, and name what a report does not have."""

import copy
import re
from xml.etree import ElementTree

import pytest
from tiny_report import COUNTS, make_report

from monai_chd.cohort.overview import NORMAL_MEANS
from monai_chd.labels import CLASSES
from monai_chd.report.markup import join
from monai_chd.report.sections import (
    NOT_EVIDENCE,
    cohort,
    comparison,
    controls,
    design,
    headline,
    mistakes,
    summary,
    training,
    verdict,
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report"))


def parsed(content):
    xml = re.sub(r"<img ([^>]*)>", r"<img \1/>", join(content))  # HTML does not close it
    return ElementTree.fromstring(f"<section>{xml}</section>")


def text(content):
    return " ".join("".join(parsed(content).itertext()).split())


def rows(root):
    return [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]


def figure(value, low, high):
    return {"value": value, "low": low, "high": high, "n": 100, "method": "wilson"}


def always(share, p):
    return {"label": CLASSES[0], "accuracy": figure(share, share - 0.1, share + 0.1), "binomial_p": p}


@pytest.mark.parametrize(
    ("ours", "baseline", "expected"),
    [
        (figure(0.61, 0.52, 0.70), always(0.45, 0.0004), "does better than that (exact binomial test, p < 0.001)"),
        (figure(0.50, 0.41, 0.59), always(0.45, 0.18), "it is not shown that the model does better"),
        (figure(0.56, 0.46, 0.65), always(0.45, 0.06), "it is not shown that the model does better"),
        (figure(0.55, 0.451, 0.64), always(0.45, 0.06), "it is not shown that the model does better"),
        (figure(0.30, 0.22, 0.40), always(0.45, 1.0), "does worse than that"),
        (figure(0.61, None, None), always(0.45, 0.0004), "cannot be told"),
        (figure(0.61, 0.52, 0.70), always(0.45, None), "does better than that; it is wrong in the other 39% of patients"),
    ],
)  # fmt: skip
def test_better_is_said_only_where_interval_and_test_say_so(ours, baseline, expected):
    assert expected in verdict(ours, baseline)


def test_the_headline_has_main_figure_and_baseline_with_interval_and_n(report):
    accuracy = report["results"]["all"]["overall"]["accuracy"]
    low, high = f"{100 * accuracy['low']:.0f}", f"{100 * accuracy['high']:.0f}"
    assert f"{100 * accuracy['value']:.0f}% (95% interval {low} to {high}%; n = 33 patients)" in headline(report)
    assert f"Always answering {CLASSES[0]}" in headline(report) and headline(report).count("n = 33 patients") == 2


def test_the_summary_has_sentences_control_readings_and_all_warnings(report):
    found = text(summary(report))
    assert "not a medical device" in found and "not been tested on patients of another hospital" in found
    assert all(warning in found for warning in report["results"]["warnings"])
    assert "1 remark on the data: see Patients and labels." in found
    assert all(control["reading"] in found for control in report["controls"])
    assert "A sentence." in found


def test_what_the_headline_says_is_not_said_again(report):
    assert text(summary(report)).count("Always answering") == 1


def test_cards_give_the_interval_and_n(report):
    cards = [one for one in parsed(summary(report)).iter("div") if one.get("class") == "card"]
    assert len(cards) == 3
    assert all("95% interval" in "".join(one.itertext()) and "; n = " in "".join(one.itertext()) for one in cards)


def test_the_flow_shows_every_step_in_order_with_reason(report):
    steps = parsed(cohort(report)).find("ol")
    assert [one.find("strong").text for one in steps] == ["46", "13", "33"]
    assert steps[1].find("small").text == report["cohort"]["flow"][1]["why"]


def test_remarks_on_the_data_stand_with_the_patients(report):
    assert all(warning in text(cohort(report)) for warning in report["cohort"]["warnings"])


def test_the_policy_explains_what_unflagged_means(report):
    found = text(cohort(report))
    assert report["cohort"]["rule"]["description"] in found and NORMAL_MEANS["unflagged"] in found
    given = copy.deepcopy(report)
    del given["cohort"]["rule"]["normal"]
    given["cohort"]["normal"] = "confirmed"
    assert NORMAL_MEANS["confirmed"] in text(cohort(given))


def test_class_by_fold_counts_add_up(report):
    found = rows(parsed(cohort(report)))
    assert found[0] == ["repeat", *CLASSES] and found[-1] == ["all folds", *map(str, COUNTS)]
    for row in found[1:-1]:
        assert [sum(map(int, cell.split(", "))) for cell in row[1:]] == list(COUNTS)


def test_the_design_says_how_choices_were_made_and_lists_the_settings(report):
    found = text(design(report))
    assert report["design"]["sentence"] in found and "never on a test fold" in found and "not time" in found
    root = parsed(design(report))
    settings = {
        one.find("dt").text: "".join(one.find("dd").itertext())
        for one in root.iter("div")
        if one.find("dt") is not None
    }
    assert settings["window"] == "-200, 900" and settings["bidirectional"] == "yes" and settings["dropout"] == "none"
    assert set(settings) == set(report["design"]["settings"])


def test_controls_stand_beside_the_model_with_interval_n_and_reading(report):
    accuracy, balanced, differences = (rows(one) for one in parsed(controls(report)).iter("table"))
    model = report["results"]["all"]["overall"]
    for found, key in ((accuracy, "accuracy"), (balanced, "balanced_accuracy")):
        one = model[key]
        assert found[1][:4] == ["The model", f"{one['value']:.3f}", f"{one['low']:.3f} to {one['high']:.3f}", "33"]
    assert accuracy[2][:4] == ["Shuffled labels", "0.360", "0.210 to 0.510", "33"]
    assert balanced[2][:4] == ["Shuffled labels", "0.330", "0.180 to 0.480", "33"]
    assert differences[1:] == [["Shuffled labels", "+0.210", "+0.060 to +0.360", "33"]]
    words = text(controls(report))
    assert all(control["reading"] in words and control["question"] in words for control in report["controls"])


def test_a_control_that_was_not_done_is_shown_as_undefined(report):
    none = {"value": None, "low": None, "high": None, "n": 0, "method": "undefined"}
    control = {**report["controls"][0], "accuracy": none, "balanced_accuracy": none, "details": {}}
    assert rows(parsed(controls({**report, "controls": [control]})))[2][1:3] == ["undefined", "\u2013"]


def test_the_comparison_shows_differences_with_interval_n_and_tests(report):
    root = parsed(comparison(report))
    found, against = rows(root), report["against"]
    for key, one in against["differences"].items():
        wanted = [f"{one['value']:+.3f}", f"{one['low']:+.3f} to {one['high']:+.3f}", "33"]
        assert any(row[1:4] == wanted for row in found), key
    assert ["less is better" in row for row in found if row[0] == "Log-loss"] == [True]
    assert len([row for row in found if row[0].startswith("Repeat ")]) == 2
    words = text(comparison(report))
    assert "Corrected t-test over 6 fits of n = 33 patients" in words and "runs/other" in words


def test_a_case_shows_classes_probabilities_frames_and_that_it_is_no_evidence(report):
    pictures = {case["sheet"]: "data:image/png;base64,AAAA" for case in report["worst_cases"]}
    root = parsed(mistakes(report, pictures))
    articles = list(root.iter("article"))
    assert len(articles) == 2 and NOT_EVIDENCE in text(mistakes(report, pictures))
    words = " ".join("".join(articles[0].itertext()).split())
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
    found = text(mistakes({**report, "worst_cases": [{**report["worst_cases"][0], "occlusion": still}]}, {}))
    assert (
        f"Hiding any one stretch of frames changes the probability of {CLASSES[1]} by less than 0.005. Not evidence."
        in found
    )


def test_a_case_without_frames_says_so(report):
    bare = {**report, "worst_cases": [{**report["worst_cases"][0], "sheet": None, "occlusion": []}]}
    assert "Not in this report: frames of this patient." in text(mistakes(bare, {}))


def test_learning_curves_are_called_validation(report):
    assert "not a test result" in text(training(report)) and "not how good the model is" in text(training(report))


@pytest.mark.parametrize(
    ("key", "build", "words"),
    [
        ("controls", controls, "controls: without them nothing is known"),
        ("against", comparison, "comparison with another model"),
        ("training", training, "learning curves"),
        ("worst_cases", lambda report: mistakes(report, {}), "the worst mistakes"),
    ],
)
def test_what_is_missing_is_named(report, key, build, words):
    for nothing in ({**report, key: None}, {name: value for name, value in report.items() if name != key}):
        assert f"Not in this report: {words}" in text(build(nothing))


def test_a_cohort_of_counts_only_is_named_as_such(report):
    bare = {**report, "cohort": {"patients": 33, "classes": list(CLASSES)}}
    found = text(cohort(bare))
    for part in ("the flow of patients", "the rule from diagnoses to classes", "counts by class and fold"):
        assert f"Not in this report: {part}" in found
