"""The sections on the model's figures show every estimate with its interval and n, and the matrix as counts and row percent."""

import copy
from xml.etree import ElementTree

import pytest
from tiny_report import COUNTS, make_report

from monai_chd.labels import CLASSES, FLAGS
from monai_chd.report.markup import join
from monai_chd.report.results import DIAGNOSES, abstention, calibration, confusion, curves, figures, lesions


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report"))


def parsed(content):
    return ElementTree.fromstring(f"<section>{join(content)}</section>")


def rows(root):
    return [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]


def cells(estimate):
    return [f"{estimate['value']:.3f}", f"{estimate['low']:.3f} to {estimate['high']:.3f}", str(estimate["n"])]


def holds(found, estimate):
    """Whether some row has value, interval and n beside each other."""
    wanted = cells(estimate)
    return any(row[i : i + 3] == wanted for row in found for i in range(len(row)))


@pytest.mark.parametrize("part", ["all", "answered"])
def test_every_figure_of_all_and_of_the_answered_patients_stands_with_interval_and_n(report, part):
    found = rows(parsed(figures(report)))
    scores = report["results"][part]
    assert all(holds(found, one) for one in scores["overall"].values())
    for one in scores["per_class"].values():
        assert all(holds(found, one[key]) for key in ("recall", "precision", "f1", "auc"))


def test_the_baseline_and_the_ensemble_stand_there_too(report):
    found = rows(parsed(figures(report)))
    results = report["results"]
    assert holds([row for row in found if row[0].startswith("Baseline: always")], results["baseline"]["accuracy"])
    assert all(holds(found, one) for one in results["ensemble"]["overall"].values())
    assert results["ensemble"]["sentence"] in "".join(parsed(figures(report)).itertext())


def test_every_table_of_values_has_columns_for_interval_and_n(report):
    for build in (figures, calibration, abstention, lesions):
        for table in parsed(build(report)).iter("table"):
            header = [one.text for one in table.find("thead/tr")]
            assert not {"value", "class right"} & set(header) or {"95% interval", "n"} <= set(header), header


def test_the_method_of_each_interval_is_named_and_explained(report):
    root = parsed(figures(report))
    text = "".join(root.itertext())
    used = {one["method"] for one in report["results"]["all"]["overall"].values()}
    assert used and all(report["results"]["methods"][key] in text for key in used)
    assert report["results"]["methods"]["mcnemar"] not in text


def test_the_spread_over_repeats_is_a_range_and_no_interval(report):
    text = "".join(parsed(figures(report)).itertext())
    values = report["results"]["repeat_spread"]["accuracy"]
    assert f"{min(values):.3f} to {max(values):.3f}" in text and "This is no interval" in text
    once = {**report, "results": {**report["results"], "repeats": 1}}
    assert "Lowest to highest" not in "".join(parsed(figures(once)).itertext())


def test_without_answered_patients_nothing_is_said_of_them(report):
    bare = {**report, "results": {**report["results"], "answered": None}}
    assert "Answered patients" not in "".join(parsed(figures(bare)).itertext())
    assert len(list(parsed(confusion(bare)).iter("table"))) == 1


def test_the_matrix_has_true_classes_as_rows_counts_and_row_percent(report):
    table = next(parsed(confusion(report)).iter("table"))
    matrix = report["results"]["all"]["confusion_matrix"]
    found = [row for row in rows(table) if not row[0].startswith("true class")]
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
    found = rows(next(parsed(confusion({**report, "results": results})).iter("table")))
    assert found[2] == [f"{CLASSES[1]} (n = 0)", "0no patient", "0no patient", "0no patient"]


def test_there_is_a_chart_for_each_class_and_kind(report):
    assert len(list(parsed(curves(report)).iter("figure"))) == 2 * len(CLASSES)


def test_calibration_has_all_figures_before_and_after(report):
    found = rows(parsed(calibration(report)))
    reliability = report["results"]["curves"]["reliability"]
    assert all(
        holds(found, reliability[when][key]) for when in ("before", "after") for key in ("ece", "log_loss", "brier")
    )


def test_abstention_tells_the_published_point_and_that_it_is_another_task(report):
    root = parsed(abstention(report))
    text = "".join(root.itertext())
    curve = report["results"]["curves"]["risk_coverage"]
    assert curve["published"]["sentence"] in text and "another task" in curve["published"]["sentence"]
    assert holds(rows(root), curve["aurc"]) and holds(rows(root), curve["augrc"])


def test_lesions_have_their_names_and_figures(report):
    root = parsed(lesions(report))
    found = rows(root)
    for one in report["results"]["per_lesion"]:
        assert holds([row for row in found if row[0] == one["flag"] + DIAGNOSES[one["flag"]]], one["recall"])


def test_every_flag_of_imagechd_has_a_name_and_an_unknown_one_is_shown_as_it_is(report):
    assert tuple(DIAGNOSES) == FLAGS
    odd = {
        **report,
        "results": {**report["results"], "per_lesion": [{**report["results"]["per_lesion"][0], "flag": "XYZ"}]},
    }
    assert rows(parsed(lesions(odd)))[1][0] == "XYZ"


def test_without_flags_the_section_says_so(report):
    bare = {**report, "results": {**report["results"], "per_lesion": []}}
    assert "Not in this report: results by lesion" in "".join(parsed(lesions(bare)).itertext())


def test_undefined_figures_are_shown_as_such(report):
    results = copy.deepcopy(report["results"])
    results["all"]["overall"]["mcc"] = {"value": None, "low": None, "high": None, "n": 0, "method": "undefined"}
    results["all"]["overall"]["ece"] = {"value": 0.1, "low": None, "high": None, "n": 33, "method": "not_estimable"}
    found = rows(parsed(figures({**report, "results": results})))
    assert ["undefined", "\u2013", "0"] in [row[1:4] for row in found]
    assert ["0.100", "no interval", "33"] in [row[1:4] for row in found]
