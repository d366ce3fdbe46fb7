"""Every figure of an evaluation is in the files and in the printed tables, with its interval and n."""

import csv
import json
import re

import numpy as np
import pytest

from monai_chd.labels import CLASSES
from monai_chd.metrics.estimates import evaluate
from monai_chd.metrics.tables import METRIC_COLUMNS, metrics_table, write_metrics
from monai_chd.metrics.wording import format_estimate
from monai_chd.versions import software_versions


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(0)
    scores, labels = rng.dirichlet([1, 1, 1], 60), rng.integers(3, size=60)
    return evaluate(labels, scores, patients=[f"p{i % 40}" for i in range(60)], resamples=200)


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_metrics_json_holds_result_and_context(tmp_path, result):
    path, _ = write_metrics(result, tmp_path / "new", context={"seed": 7, "checkpoint": "model.pt"})
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["result"] == result
    assert content["context"]["seed"] == 7 and content["context"]["checkpoint"] == "model.pt"
    assert content["context"]["classes"] == list(CLASSES)
    assert content["context"]["versions"] == software_versions()
    assert content["note"] == "Research software, not a medical device."


def test_metrics_csv_has_one_figure_a_row_equal_to_the_result(tmp_path, result):
    _, path = write_metrics(result, tmp_path, context={})
    rows = rows_of(path)
    assert tuple(rows[0]) == METRIC_COLUMNS
    assert len(rows) == len(result["overall"]) + 1 + 5 * len(CLASSES)
    found = {(row["metric"], row["class"]): row for row in rows}
    pairs = [(found[name, ""], estimate) for name, estimate in result["overall"].items()]
    pairs += [(found["f1", name], each["f1"]) for name, each in result["per_class"].items()]
    for row, estimate in pairs:
        assert [float(row[key]) for key in ("value", "low", "high")] == [estimate[k] for k in ("value", "low", "high")]
        assert int(row["n"]) == estimate["n"] and row["method"] == estimate["method"]
    assert [int(found["support", name]["value"]) for name in CLASSES] == np.sum(result["confusion_matrix"], 1).tolist()


def test_undefined_figures_are_empty_cells(tmp_path):
    result = evaluate([0, 0], np.eye(3)[[0, 0]], patients="ab", resamples=10)
    _, path = write_metrics(result, tmp_path, context={})
    row = next(row for row in rows_of(path) if (row["metric"], row["class"]) == ("precision", "Normal"))
    assert [row[key] for key in METRIC_COLUMNS[2:]] == ["", "", "", "0", "undefined"]


def test_nothing_is_written_when_the_context_is_no_json(tmp_path, result):
    with pytest.raises(ValueError, match="JSON"):
        write_metrics(result, tmp_path, context={"loss": float("nan")})
    with pytest.raises(TypeError):
        write_metrics(result, tmp_path, context={"checkpoint": tmp_path})
    assert list(tmp_path.iterdir()) == []


def test_printed_table_has_every_figure_and_no_bare_number(result):
    text = metrics_table(result)
    overall = {name: one for name, one in result["overall"].items() if name != "macro_recall"}  # = balanced accuracy
    estimates = [*overall.values(), result["majority_baseline"]["accuracy"]]
    estimates += [each[key] for each in result["per_class"].values() for key in ("precision", "recall", "f1", "auc")]
    for estimate in estimates:
        assert format_estimate(estimate) in text
    figures = re.findall(r"\d\.\d{3} \[-?\d\.\d{3}, \d\.\d{3}\] n=\d+", text)
    assert len(figures) == len(estimates)
    assert len(re.findall(r"\d\.\d{3}", text)) == 3 * len(figures)
    assert "60 cases of 40 patients" in text
    assert f"always {result['majority_baseline']['label']}" in text
    assert "not a medical device" in text


def test_printed_confusion_matrix_is_that_of_the_result(result):
    lines = metrics_table(result).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("true"))
    for line, name, row in zip(lines[start + 1 :], CLASSES, result["confusion_matrix"], strict=False):
        assert line.split() == [name, *map(str, row)]


def test_printed_columns_are_aligned(result):
    lines = metrics_table(result).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("class"))
    for column in ("precision", "recall", "F1", "AUC"):
        position = lines[start].index(column)
        assert all(re.match(r"\d\.\d{3} \[", line[position:]) for line in lines[start + 1 : start + 4])


def test_printed_table_can_come_from_the_json(tmp_path, result):
    path, _ = write_metrics(result, tmp_path, context={})
    assert metrics_table(json.loads(path.read_text())["result"]) == metrics_table(result)


@pytest.mark.parametrize(("normal", "warned"), [(29, True), (30, False)])
def test_classes_with_few_cases_are_remarked(normal, warned):
    labels = np.repeat([0, 1, 2], [30, 31, normal])
    text = metrics_table(evaluate(labels, np.eye(3)[labels], patients=range(len(labels)), resamples=10))
    assert ("Fewer than 30 cases (Normal 29): such an interval is wide and means little." in text) == warned
