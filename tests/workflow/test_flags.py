"""Flags as a second task: who is learned, what class they make, and a training with them from end to end."""

import csv
import json

import pytest
import torch
from tiny_structures import FRAMES, write_phantom

from monai_chd.cli import main
from monai_chd.labels import FLAGS
from monai_chd.workflow import class_by_flags, flag_weights, flags

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config


def cases(**counts: int) -> list[dict]:
    return [{"flags": name.replace("_", "+")} for name, count in counts.items() for _ in range(count)] + [
        {"flags": ""}
    ] * 20


def test_flags_of_too_few_cases_are_not_learned():
    weights = flag_weights(cases(VSD=6, VSD_PA=5, CA=4), 0.2, "small_cnn")
    assert {flag: round(float(w), 3) for flag, w in zip(FLAGS, weights, strict=True) if w} == {"VSD": 0.2, "PA": 0.2}


def test_what_label_maps_cannot_show_counts_less_for_who_reads_them():
    weights = dict(zip(FLAGS, flag_weights(cases(ASD=6, VSD=6), 0.2, "structures").tolist(), strict=True))
    assert weights["ASD"] == pytest.approx(0.1) and weights["VSD"] == pytest.approx(0.2)
    assert dict(zip(FLAGS, flag_weights(cases(ASD=6), 0.2, "small_cnn").tolist(), strict=True))["ASD"] == pytest.approx(
        0.2
    )


def test_no_weight_is_no_task_and_what_cannot_be_is_refused():
    assert flag_weights(cases(VSD=9), 0, "small_cnn") is None
    with pytest.raises(ValueError, match=r"flag_weight: expected a number of 0 or more, got -1"):
        flag_weights(cases(VSD=9), -1, "small_cnn")
    with pytest.raises(ValueError, match="no diagnosis flag stands with 5 training cases or more"):
        flag_weights(cases(VSD=2), 0.5, "small_cnn")


def test_a_rule_that_is_not_known_makes_no_class(tmp_path):
    datalist = write_phantom(tmp_path, 12, 0)
    assert class_by_flags(datalist)(["VSD"]) == "Non-Cyanotic"
    content = json.loads(datalist.read_text())
    content["rule"] = {"name": "my own", "description": "x"}
    datalist.write_text(json.dumps(content))
    assert class_by_flags(datalist)(["VSD"]) is None


def test_a_training_with_flags_tells_them_and_can_abstain_by_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(flags, "FEWEST", 2)
    datalist, out = write_phantom(tmp_path), tmp_path / "out"
    words = [str(datalist), "--out", str(out)]
    head = ["--pooling", "mean", "--hidden_size", "4", "--max_epochs", "1", "--heads", "2", "--summary", "true"]
    assert main(["train", *words, *FRAMES, *head, "--flag_weight", "0.2", "--batch_size", "3"]) == 0
    model = torch.load(out / "models" / "model.pt", weights_only=True)
    learned = [flag for flag, known in zip(FLAGS, model["learned_flags"].tolist(), strict=True) if known]
    assert learned and model["classifier.bias"].shape == (3 + len(FLAGS),)
    assert main(["evaluate", *words]) == 0
    rows = list(csv.DictReader((out / "evaluation" / "flags.csv").read_text().splitlines()))
    assert list(rows[0]) == ["image", *learned, "class_by_flags", "prediction"]
    assert main(["predict", str(datalist.parents[1] / "cohort"), "--out", str(out), "--disagreement", "true"]) == 0
    told = {row["image"]: row for row in csv.DictReader((out / "inference" / "flags.csv").read_text().splitlines())}
    for row in csv.DictReader((out / "inference" / "predictions.csv").read_text().splitlines()):
        other = told[row["image"]]["class_by_flags"] not in ("", row["prediction"])
        assert ("by its diagnoses" in row["reason"]) == other
    assert all(0 <= float(row[flag]) <= 1 for row in rows for flag in learned)
