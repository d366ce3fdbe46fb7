"""Every case has its row, calibrated and by its own name, and what is scored is what stands in the table."""

import csv
import errno
import json
import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from monai_chd.errors import UserError
from monai_chd.handlers import Predictions
from monai_chd.metrics.calibration import scale

SURE, UNSURE = (0.9, 0.06, 0.04), (0.5, 0.1, 0.4)


def predict(tmp_path, cases: list[dict], dataset_dir: Path, **choices) -> Predictions:
    """Run the handler over cases {image, label, patient, pred, reason}, two a batch."""

    def step(engine, chunk):
        batch = []
        for case in chunk:
            image = MetaTensor(torch.zeros(1), meta={"filename_or_obj": str(case["image"])})
            batch.append({**{k: v for k, v in case.items() if k != "pred"}, "image": image})
        engine.state.batch = batch
        return [{"pred": torch.tensor(case["pred"])} for case in chunk]

    class KeepsBatch(Engine):
        """As MONAI's engines, which put the decollated batch in place of the loaded one."""

    engine = KeepsBatch(step)
    predictions = Predictions(tmp_path / "out", dataset_dir, **choices)
    predictions.attach(engine)
    engine.run([cases[i : i + 2] for i in range(0, len(cases), 2)])
    return predictions


def table(tmp_path) -> list[dict[str, str]]:
    with (tmp_path / "out" / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def case(image, pred=(0.7, 0.2, 0.1), **more) -> dict:
    return {"image": image, "pred": list(pred), **more}


def test_images_are_named_relative_to_their_folder(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    images = [folder / "a" / "x.nii.gz", folder / "b" / "x.nii.gz", tmp_path / "other" / "x.nii.gz"]
    predict(tmp_path, [case(image) for image in images], folder)
    assert [row["image"] for row in table(tmp_path)] == ["../other/x.nii.gz", "a/x.nii.gz", "b/x.nii.gz"]
    assert all(row["label"] == "" and row["prediction"] == "Cyanotic" for row in table(tmp_path))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_names_do_not_depend_on_how_the_folder_is_written(tmp_path, monkeypatch):
    (tmp_path / "scans").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "scans")
    monkeypatch.chdir(tmp_path)
    ways = [("scans", "scans"), ("./scans", "scans"), (tmp_path / "scans", "scans"), (tmp_path / "scans", "link")]
    ways.append(("link", "link"))
    for image, folder in ways:
        predict(tmp_path, [case(Path(image, "a", "x.nii.gz"))], Path(folder))
        assert [row["image"] for row in table(tmp_path)] == ["a/x.nii.gz"]


def test_a_name_of_other_bytes_is_written_escaped(tmp_path):
    predict(tmp_path, [case(tmp_path / os.fsdecode(b"ct_\xe9.nii.gz"))], tmp_path)
    assert [row["image"] for row in table(tmp_path)] == ["ct_\\udce9.nii.gz"]


def test_predictions_that_cannot_be_written_are_shown(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cases = [case("a.nii.gz"), case("b.nii.gz", reason="b.nii.gz: cut")]
    with (
        caplog.at_level(logging.INFO, "monai_chd"),
        pytest.raises(UserError, match=r"predictions\.csv: cannot be written \(No space left"),
    ):
        predict(tmp_path, cases, tmp_path)
    shown = [
        message for message in caplog.messages if message.startswith("the predictions, which could not be written:")
    ]
    assert [line.split() for line in shown[0].splitlines()[2:]] == [
        [os.path.relpath("a.nii.gz", tmp_path), "0.700000", "0.200000", "0.100000"],
        [os.path.relpath("b.nii.gz", tmp_path), "b.nii.gz:", "cut"],
    ]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_single_file_is_named_by_its_name(tmp_path):
    predict(tmp_path, [case(tmp_path / "x.nii.gz")], tmp_path / "x.nii.gz")
    assert [row["image"] for row in table(tmp_path)] == ["x.nii.gz"]


def test_scores_are_of_the_predictions_in_the_table(tmp_path, told):
    sure = np.eye(3) * 0.7 + 0.1
    cases = [
        case(f"{i}.nii", sure[p], label=t, patient=str(i)) for i, (p, t) in enumerate([(0, 0), (1, 1), (2, 1), (2, 2)])
    ]
    predict(tmp_path, cases, tmp_path, scored_as="test part", context={"seed": 7, "part": "test"})
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["result"]["overall"]["accuracy"]["value"] == 0.75
    assert metrics["result"]["confusion_matrix"] == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert (metrics["context"]["seed"], metrics["context"]["part"]) == (7, "test")
    assert (tmp_path / "out" / "metrics.csv").is_file() and (tmp_path / "out" / "confusion_matrix.png").is_file()
    out = "\n".join(told.messages)
    assert "4 scans predicted" in out and re.search(r"accuracy +0\.750 \[", out)


def test_files_that_could_not_be_read_are_rows_without_figures_and_listed_at_the_end(tmp_path):
    cases = [case("a.nii", reason=""), case("b.nii", reason="b.nii: truncated"), case("c.nii", reason="c.nii: no CT")]
    predictions = predict(tmp_path, cases, tmp_path)
    rows = {Path(row["image"]).name: row for row in table(tmp_path)}
    assert (rows["a.nii"]["prediction"], rows["a.nii"]["abstain"]) == ("Cyanotic", "false")
    assert (rows["b.nii"]["prediction"], rows["b.nii"]["Cyanotic"], rows["b.nii"]["reason"]) == (
        "",
        "",
        "b.nii: truncated",
    )
    with pytest.raises(
        ValueError,
        match=r"2 of 3 files have no prediction, the others have theirs:\n  b\.nii: truncated\n  c\.nii: no CT",
    ):
        predictions.check()


def test_when_all_files_were_read_nothing_is_raised_and_a_second_run_starts_afresh(tmp_path):
    predictions = predict(tmp_path, [case("a.nii", reason="")], tmp_path)
    predictions.check()
    predictions._start()
    assert predictions.rows == []


@pytest.fixture
def model(tmp_path) -> Path:
    """A model with a temperature of 2 that abstains below 0.5; the weights themselves are not read."""
    content = {"temperature": 2.0, "threshold": 0.5, "wish": {"coverage": 0.8}}
    content["validation"] = {"confidence": [0.9, 0.6, 0.4, 0.35], "right": [True, True, False, True]}
    (tmp_path / "calibration.json").write_text(json.dumps(content))
    return tmp_path / "model.pt"


def test_probabilities_are_calibrated_and_the_class_of_an_abstention_is_still_told(tmp_path, model):
    predict(tmp_path, [case("a.nii", SURE), case("b.nii", UNSURE)], tmp_path, checkpoint=model)
    rows = {Path(row["image"]).name: row for row in table(tmp_path)}
    for name, pred in (("a.nii", SURE), ("b.nii", UNSURE)):
        found = [float(rows[name][each]) for each in ("Cyanotic", "Non-Cyanotic", "Normal")]
        assert found == pytest.approx(scale(pred, 2.0).tolist(), abs=1e-6)  # the network's are float32
    assert (rows["a.nii"]["abstain"], rows["a.nii"]["reason"]) == ("false", "")
    assert (rows["b.nii"]["abstain"], rows["b.nii"]["prediction"]) == ("true", "Cyanotic")
    assert rows["b.nii"]["reason"] == "confidence 0.43 below 0.50"


def test_an_abstention_is_no_unread_file(tmp_path, model, told):
    predictions = predict(tmp_path, [case("b.nii", UNSURE, reason="")], tmp_path, checkpoint=model)
    predictions.check()
    assert "1 scans predicted, 0 without a prediction, 1 of the predicted abstained from" in told.text
    both = [case("b.nii", UNSURE, reason=""), case("c.nii", reason="c.nii: truncated")]
    predictions = predict(tmp_path, both, tmp_path, checkpoint=model)
    with pytest.raises(
        ValueError, match=r"1 of 2 files have no prediction, the others have theirs:\n  c\.nii: truncated$"
    ):
        predictions.check()
    assert "1 scans predicted, 1 without a prediction, 1 of the predicted abstained from" in told.text


def test_figures_are_given_for_all_cases_and_for_the_answered(tmp_path, model, told):
    wanted = [(SURE, 0), (SURE, 0), (SURE, 1), (UNSURE, 1), (UNSURE, 2)]
    cases = [case(f"{i}.nii", pred, label=label, patient=str(i)) for i, (pred, label) in enumerate(wanted)]
    predict(tmp_path, cases, tmp_path, scored_as="test part", checkpoint=model)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["result"]["overall"]["accuracy"]["value"] == pytest.approx(2 / 5)
    assert metrics["answered"]["overall"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert (metrics["coverage"]["value"], metrics["coverage"]["n"]) == (pytest.approx(3 / 5), 5)
    used = metrics["context"]["calibration"]
    assert (used["temperature"], used["threshold"], used["validation_cases"]) == (2.0, 0.5, 4)
    losses = [-np.log(pred[label]) for pred, label in wanted]
    assert used["before"]["log_loss"]["value"] == pytest.approx(np.mean(losses), abs=1e-6)
    with (tmp_path / "out" / "metrics.csv").open() as file:
        rows = {(row["metric"], row["class"]): float(row["value"] or "nan") for row in csv.DictReader(file)}
    assert rows["accuracy", ""] == pytest.approx(2 / 5) and rows["answered_accuracy", ""] == pytest.approx(2 / 3)
    assert rows["coverage", ""] == pytest.approx(3 / 5)
    out = "\n".join(told.messages)
    assert re.search(r"share answered +0\.600 \[", out) and re.search(
        r"accuracy +0\.400 \[.*\] n=5 +0\.667 \[.*\] n=3", out
    )


@pytest.mark.parametrize(
    ("wish", "answered"), [({}, 1), ({"coverage": 1.0}, 2), ({"risk": 0.35}, 1), ({"risk": 0.1}, 0)]
)
def test_another_wish_at_the_time_of_use_moves_the_threshold(tmp_path, model, wish, answered):
    cases = [case(f"{i}.nii", pred, label=0, patient=str(i)) for i, pred in enumerate((SURE, UNSURE))]
    predict(tmp_path, cases, tmp_path, scored_as="test part", checkpoint=model, **wish)
    assert sum(row["abstain"] == "false" for row in table(tmp_path)) == answered
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["coverage"]["value"] == answered / 2 and (metrics["answered"] is None) == (answered != 1)


def test_a_model_without_calibration_gives_what_the_network_gives(tmp_path):
    bare = tmp_path / "elsewhere" / "model.pt"
    predict(tmp_path, [case("a.nii", UNSURE)], tmp_path, checkpoint=bare)
    row = table(tmp_path)[0]
    given = torch.tensor(UNSURE).double().tolist()
    assert [float(row[name]) for name in ("Cyanotic", "Non-Cyanotic", "Normal")] == given and row["abstain"] == "false"
