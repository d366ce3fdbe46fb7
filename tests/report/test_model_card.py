"""The card says what the model is not for, gives no figure without interval and n, and shows text as text."""

import re

import pytest
from tiny_report import make_report

from monai_chd.metrics.wording import format_estimate
from monai_chd.report.model_card import card, words_of, write_model_card


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report"))


def statements(report):
    return {part.heading: part.statements for part in card(report)}


def test_it_is_no_medical_device_and_not_for_decisions_about_patients(report):
    text = " ".join(statements(report)["Not meant for"])
    assert "not a medical device" in text and "diagnosis" in text and "other decision about a patient" in text


def test_main_figures_and_the_baseline_stand_with_interval_and_n(report):
    text = "\n".join(statements(report)["Figures"])
    results = report["results"]
    for key in ("accuracy", "balanced_accuracy", "macro_f1", "auc_macro"):
        assert format_estimate(results["all"]["overall"][key]) in text
    assert f"{format_estimate(results['baseline']['accuracy'])}. {results['verdict']['sentence']}" in text
    for name, one in results["all"]["per_class"].items():
        assert f"{name}: recall {format_estimate(one['recall'])}" in text


def test_no_decimal_number_stands_without_its_interval_and_n(report):
    text = "\n".join([*statements(report)["Figures"], *statements(report)["Controls"]])
    whole = re.sub(r"\d+\.\d{3} \[\d+\.\d{3}, \d+\.\d{3}\] n=\d+|p [=<] \d\.\d{3}", "", text)
    assert not re.search(r"\d\.\d", whole), whole


def test_warnings_of_the_results_are_limits_and_remarks_on_the_data_are_pointed_to(report):
    limits = statements(report)["Limits"]
    assert set(report["results"]["warnings"]) <= set(limits)
    assert limits[-1].startswith("Remarks on the data, 1 of them, stand in report.html")


def test_patients_are_counted_by_class_and_step(report):
    patients = statements(report)["Patients"]
    assert "By class: Cyanotic 14, Non-Cyanotic 12, Normal 7." in patients
    assert any(line.startswith("left out: 13 (undetermined") for line in patients)


def test_a_report_without_optional_parts_has_a_card_that_says_so(report):
    bare = {key: report[key] for key in ("title", "design", "results")} | {
        "cohort": {"patients": 33, "classes": report["cohort"]["classes"]}
    }
    found = statements(bare)
    assert found["Controls"] == ["None was run: nothing is known of what the figures rest on."]
    assert found["Version"] == ["Unknown."] and found["Patients"] == ["33 patients took part."]


def test_the_markdown_holds_all_headings_and_no_users_text_becomes_markup(tmp_path):
    nasty = " <img src=x onerror=alert(1)> **bold** [link](javascript:x) `code` |cell\n# heading"
    report = make_report(tmp_path, words=nasty)
    text = write_model_card(report, tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## {part.heading}" for part in card(report)
    ]
    assert [line for line in text.splitlines() if line.startswith("# ")] == [text.splitlines()[0]]
    rest = text.replace("**Research software, not a medical device.**", "")
    assert re.search(r"(?<!\\)[<*`|]", rest) is None
    assert re.search(r"(?<!\\)\][(:\[]", rest) is None and "\\](javascript" in rest
    assert "\\<img src=x" in text


def test_an_existing_card_is_replaced_as_a_whole(report, tmp_path):
    path = tmp_path / "new" / "model_card.md"
    write_model_card(report, path)
    first = path.read_text()
    path.write_text("old")
    assert write_model_card(report, path) == path and path.read_text() == first
    assert [file.name for file in path.parent.iterdir()] == ["model_card.md"]


@pytest.mark.parametrize(
    ("key", "words"),
    [("macro_f1", "Macro F1"), ("mcc", "Matthews correlation (MCC)"), ("balanced_accuracy", "Balanced accuracy (macro recall)"),
     ("bca_bootstrap", "BCa bootstrap"), ("x", "X")],
)  # fmt: skip
def test_keys_read_as_words(key, words):
    assert words_of(key) == words
