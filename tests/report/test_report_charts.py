"""The charts draw what the report holds, with interval and n beside it, and call validation what is validation."""

import copy
from xml.etree import ElementTree

import pytest
from tiny_report import make_report

from monai_chd.labels import CLASSES
from monai_chd.metrics.predictions import format_estimate
from monai_chd.report.charts import Panel
from monai_chd.report.report_charts import (
    learning_charts,
    pr_charts,
    reliability_charts,
    risk_coverage_chart,
    roc_charts,
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report"))


def parsed(markup):
    return ElementTree.fromstring(markup)


def text(root):
    return " ".join("".join(root.find("figcaption").itertext()).split())


def lines(root, class_):
    found = [one for one in root.iter("polyline") if class_ in one.get("class").split()]
    return [[tuple(map(float, pair.split(","))) for pair in one.get("points").split()] for one in found]


@pytest.mark.parametrize(
    ("draw", "kind", "x", "y"), [(roc_charts, "roc", "fpr", "tpr"), (pr_charts, "pr", "recall", "precision")]
)
def test_each_class_has_its_curve_and_every_point_of_it(report, draw, kind, x, y):
    results = report["results"]
    plane = Panel("", "")
    for k, (name, drawn) in enumerate(zip(CLASSES, draw(results, CLASSES), strict=True)):
        curve = results["curves"][kind][name]
        (found,) = lines(parsed(drawn), f"c{k}")
        expected = [(plane.x(a), plane.y(b)) for a, b in zip(curve[x], curve[y], strict=True)]
        assert found == pytest.approx(expected, abs=0.051) if len(expected) == 1 else len(found) == len(expected)
        for one, two in zip(found, expected, strict=True):
            assert one == pytest.approx(two, abs=0.051)


def test_roc_captions_have_the_area_with_interval_and_n(report):
    results = report["results"]
    for name, drawn in zip(CLASSES, roc_charts(results, CLASSES), strict=True):
        assert format_estimate(results["all"]["per_class"][name]["auc"]) in text(parsed(drawn))


def test_chance_is_the_diagonal_for_roc_and_the_share_of_the_class_for_precision(report):
    results = report["results"]
    plane = Panel("", "")
    (diagonal,) = lines(parsed(roc_charts(results, CLASSES)[0]), "reference")
    assert diagonal == [(plane.x(0), plane.y(0)), (plane.x(1), plane.y(1))]
    (level,) = lines(parsed(pr_charts(results, CLASSES)[2]), "reference")
    assert [y for _, y in level] == pytest.approx([plane.y(7 / 33)] * 2, abs=0.051)


def test_a_class_without_a_curve_is_left_out(report):
    results = copy.deepcopy(report["results"])
    del results["curves"]["roc"][CLASSES[1]]
    results["curves"]["pr"][CLASSES[1]] = None
    assert len(roc_charts(results, CLASSES)) == len(pr_charts(results, CLASSES)) == 2


def test_reliability_shows_both_states_with_a_point_and_an_interval_a_bin(report):
    results = report["results"]
    before, after = (parsed(drawn) for drawn in reliability_charts(results))
    for root, key in ((before, "before"), (after, "after")):
        bins = results["curves"]["reliability"][key]["bins"]
        dots = [one for one in root.iter("circle") if "c0" in one.get("class")]
        whiskers = [one for one in root.iter("line") if "whisker" in one.get("class")]
        assert len(dots) == len(whiskers) == len(bins) > 3
        assert format_estimate(results["curves"]["reliability"][key]["ece"]) in text(root)
        label = root.find("svg").get("aria-label")
        assert all(f"n={one['n']:g}" in label for one in bins)
    assert "Before temperature" in text(before) and "After temperature" in text(after)


def test_without_raw_probabilities_there_is_no_before(report):
    results = copy.deepcopy(report["results"])
    results["curves"]["reliability"]["before"] = None
    (only,) = reliability_charts(results)
    assert "After temperature" in text(parsed(only))


def test_the_published_point_is_drawn_where_it_is_and_called_another_task(report):
    results = report["results"]
    root = parsed(risk_coverage_chart(results))
    (diamond,) = [one for one in root.iter("path") if "c1" in one.get("class")]
    left = float(diamond.get("d").split("L")[3].split()[0])
    right = float(diamond.get("d").split("L")[1].split()[0])
    assert (left + right) / 2 == pytest.approx(Panel("", "").x(0.884), abs=0.1)
    words = [one.text for one in root.iter("text")]
    assert "another task" in words and any("ImageCHD" in word for word in words)
    assert "82.0% right at 88.4% coverage" in root.find("svg").get("aria-label")
    assert format_estimate(results["curves"]["risk_coverage"]["aurc"]) in text(root)


def test_risk_is_drawn_without_a_published_point_as_well(report):
    results = copy.deepcopy(report["results"])
    results["curves"]["risk_coverage"]["published"] = None
    root = parsed(risk_coverage_chart(results))
    assert not list(root.iter("path")) and len(lines(root, "c0")) == 1


def test_learning_curves_have_a_line_a_fit_and_say_that_they_are_validation(report):
    losses, scores = (parsed(drawn) for drawn in learning_charts(report["training"]))
    fits = len(report["training"])
    assert len(lines(losses, "c0")) == len(lines(losses, "c1")) == len(lines(scores, "c2")) == fits
    assert all(len(line) == 25 for line in lines(scores, "c2"))
    assert len(list(scores.iter("circle"))) == fits
    for root in (losses, scores):
        assert "chose the model: not a test result" in text(root)


def test_epochs_without_validation_are_joined_over_and_none_is_no_number():
    history = [
        {"epoch": e, "train_loss": 1.0, "val_loss": None if e % 2 else 0.9, "val_macro_f1": None} for e in range(1, 7)
    ]
    losses, scores = (parsed(drawn) for drawn in learning_charts([{"history": history, "best_epoch": None}]))
    assert [len(line) for line in lines(losses, "c0")] == [3] and [len(line) for line in lines(losses, "c1")] == [6]
    assert lines(scores, "c2") == []


@pytest.mark.parametrize("training", [[], [{"repeat": 0, "fold": 0, "history": [], "best_epoch": None}]])
def test_without_a_history_there_is_no_chart(training):
    assert learning_charts(training) == []
