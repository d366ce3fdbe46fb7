"""report.json: counts by hand, what was left out, who took part, and where everything comes from."""

from __future__ import annotations

import hashlib
import json

import pytest
from tiny_design import edit_json, made_up_predictions, write_datalist

from monai_chd import __version__
from monai_chd.crossval.design import new_design, save_or_check
from monai_chd.crossval.fits import fit_folder
from monai_chd.crossval.out_of_fold_table import write_out_of_fold_table
from monai_chd.crossval.report_json import audit_of, build_report, processor, write_report_json
from monai_chd.labels import CLASSES
from monai_chd.metrics.evaluation import evaluate_out_of_fold


@pytest.fixture
def design(tmp_path):
    return new_design(
        write_datalist(tmp_path / "work"), folds=3, repeats=2, settings={"pooling": "max", "hidden_size": 8}
    )


def finished(design, folder, versions=None):
    """What a cross-validation leaves in its folder, without the fits themselves."""
    save_or_check(design, folder)
    table = made_up_predictions(design, 0.5)
    write_out_of_fold_table(table, folder)
    for repeat in range(design.repeats):
        for fold in range(design.folds):
            fit = fit_folder(folder / "fits", repeat, fold)
            fit.mkdir(parents=True)
            (fit / "learning_curves.csv").write_text("epoch,train_loss,val_macro_f1\n1,1.5,0.25\n2,1.25,0.5\n3,1.0,\n")
            note = {
                "repeat": repeat,
                "fold": fold,
                "datalist_sha256": "a",
                "predictions_sha256": "b",
                "seconds": 2.5,
                "seed": 42 + 3 * repeat + fold,
                "versions": {"torch": (versions or {}).get(fold, "1")},
            }
            (fit / "done.json").write_text(json.dumps(note))
    return table


def made(design, folder, **changes):
    table = finished(design, folder, changes.pop("versions", None))
    keys = {"results": evaluate_out_of_fold(table, resamples=50), "controls": [], "against": None, "worst": []}
    return build_report(design, folder, command="monai-chd crossval", seconds={"controls": 3.0}, **keys | changes)


def test_the_cohort_is_counted_by_hand(design, tmp_path):
    cohort = made(design, tmp_path / "cv")["cohort"]
    assert (cohort["patients"], cohort["scans"], cohort["classes"]) == (21, 21, list(CLASSES))
    assert {name: [sum(r) for r in by_repeat] for name, by_repeat in cohort["class_by_fold"].items()} == dict(
        zip(CLASSES, ([8, 8], [7, 7], [6, 6]), strict=True)
    )
    assert cohort["flow"] == [
        {"step": "took part in the cross-validation", "patients": 21, "why": "each is tested once a repeat"}
    ]


def test_the_flow_says_how_many_were_left_out_and_why(design, tmp_path):
    rows = ["patient,image,flags,reason", "2001,a.nii.gz,,undetermined: DORV", "2002,b.nii.gz,,undetermined: APVC"]
    rows += [
        "2003,,ToF,no scan found",
        "1001,second.nii.gz,,same bytes as another",
    ]  # 1001 takes part with its other scan
    (tmp_path / "work" / "excluded.csv").write_text("\n".join(rows) + "\n")
    flow = made(design, tmp_path / "cv")["cohort"]["flow"]
    assert [(step["patients"], step["why"]) for step in flow] == [
        (24, ""),
        (2, "undetermined"),
        (1, "no scan found"),
        (21, "each is tested once a repeat"),
    ]
    assert flow[0]["patients"] == sum(step["patients"] for step in flow[1:])


def test_it_says_that_the_held_out_patients_took_part(design, tmp_path):
    sentence = made(design, tmp_path / "cv")["design"]["sentence"]
    assert "All 21 patients" in sentence
    assert "the 3 that were held out for a final test are among them" in sentence
    assert "no untouched test set any more" in sentence


def test_nothing_held_out_is_said_too(design, tmp_path):
    def join(content):
        content["training"] += [{**record, "fold": 0} for record in content["test"]]
        content["test"] = []

    edit_json(design.datalist, join)
    assert "the datalist held nobody out" in made(design, tmp_path / "cv")["design"]["sentence"]


def test_the_settings_are_those_given_and_the_configs_own(design, tmp_path):
    report = made(design, tmp_path / "cv")
    settings = report["design"]["settings"]
    assert (settings["pooling"], settings["hidden_size"], settings["window"]) == ("max", 8, [-200, 900])
    assert report["design"]["fits"] == 6 and report["design"]["mode"] == design.mode == "end-to-end"


def test_learning_curves_and_the_epoch_kept_are_of_each_fit(design, tmp_path):
    training = made(design, tmp_path / "cv")["training"]
    assert [(one["repeat"], one["fold"]) for one in training] == [(r, f) for r in range(2) for f in range(3)]
    assert training[0]["best_epoch"] == 2
    assert training[0]["history"][2] == {"epoch": 3, "train_loss": 1.0}


def test_the_provenance_has_hashes_versions_seeds_and_seconds(design, tmp_path):
    provenance = made(design, tmp_path / "cv")["provenance"]
    digest = hashlib.sha256((tmp_path / "cv" / "predictions.csv").read_bytes()).hexdigest()
    assert provenance["hashes"]["predictions.csv"] == digest
    assert set(design.sha256.items()) <= set(provenance["hashes"].items())
    assert provenance["versions"]["monai_chd"] == __version__
    assert provenance["seconds"] == {"fits": 15.0, "controls": 3.0}
    assert provenance["seeds"] == {"folds": 42, "fits": "42 to 47", "resampling": 42}
    assert "cores" in processor() and "bfloat16" in processor()


def test_the_audit_beside_the_datalist_is_taken_along(design, tmp_path):
    assert made(design, tmp_path / "a")["audit"] is None
    keys = ("compared", "leakage", "notes", "problems", "association", "prediction", "warnings")
    found = {"datalist": "d", **{key: [] for key in keys}, "compared": {}, "prediction": None}
    (tmp_path / "work" / "audit.json").write_text(json.dumps(found))
    assert made(design, tmp_path / "b")["audit"] == found


@pytest.mark.parametrize("text", ["", "[]", '{"leakage": []}'])
def test_something_else_by_the_name_of_the_audit_is_refused(design, tmp_path, text):
    (tmp_path / "work" / "audit.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"audit\.json: not an audit.*; write it again with `monai-chd audit`, or move it"
    ):
        audit_of(design)


@pytest.mark.parametrize(
    "rows", [["patient,image"], ["patient,image,flags,reason", "1"], ["patient,image,flags,reason,x"]]
)
def test_something_else_by_the_name_of_the_excluded_is_refused(design, tmp_path, rows):
    (tmp_path / "work" / "excluded.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(
        ValueError, match=r"excluded\.csv: expected the columns patient, image, flags, reason in every row"
    ):
        made(design, tmp_path / "a")


def test_fits_of_different_versions_are_warned_of(design, tmp_path):
    assert made(design, tmp_path / "a")["cohort"]["warnings"] == []
    (warning,) = made(design, tmp_path / "b", versions={0: "1", 1: "2"})["cohort"]["warnings"]
    assert "2 different sets of software versions" in warning


def test_a_report_is_json_without_nan(design, tmp_path):
    report = made(design, tmp_path / "cv")
    path = write_report_json(report, tmp_path / "cv")
    assert json.loads(path.read_text()) == json.loads(json.dumps(report))
    with pytest.raises(ValueError, match="Out of range float"):
        write_report_json({"x": float("nan")}, tmp_path / "cv")
    assert json.loads(path.read_text())["title"] == report["title"]
