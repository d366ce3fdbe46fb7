"""A split redrawn after training makes a figure out of nothing; the honest split of the same models does not; ours refuse it."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
from tiny_cohort import write_cohort

from monai_chd.cli import main
from monai_chd.cohort.datalist import prepare
from monai_chd.crossval.design import new_design
from monai_chd.crossval.fits import run_fit

SCRIPT = Path(__file__).parent.parent / "scripts" / "leak_demonstration.py"
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def test_noise_cannot_be_learned_and_the_redrawn_split_says_it_was(script, tmp_path):
    """36 patients of noise: an honest interval holds chance; models that remember them are right in all that they saw."""
    write_cohort(tmp_path / "cohort", 36)
    prepare(tmp_path / "cohort", tmp_path / "work")
    found = script["demonstrate"](tmp_path / "work" / "datalist.json", repeats=2)
    assert found["honest"]["low"] < 1 / 3 < found["honest"]["high"]
    assert found["redrawn"]["value"] >= found["seen"] > 0.6
    assert found["redrawn"]["low"] > found["honest"]["high"]
    assert found["gap"]["low"] > 0
    assert found["gap"]["value"] == pytest.approx(found["redrawn"]["value"] - found["honest"]["value"])
    assert found["honest"]["n"] == found["redrawn"]["n"] == found["gap"]["n"] == 36


def test_the_gap_is_there_on_the_phantom_too(script, datalist):
    found = script["demonstrate"](datalist, folds=4)
    assert found["gap"]["low"] > 0 and found["patients"] == 24


def test_no_figure_of_it_is_without_interval_and_n(script):
    estimate = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 20, "method": "wilson"}
    shown = script["text"]({"honest": estimate, "redrawn": estimate, "gap": estimate, "seen": 0.8, "patients": 20})
    assert len(re.findall(r"0\.500 \[0\.250, 0\.750\] n=20", shown)) == 3
    assert "80% of the redrawn test patients had been trained on (n=20 patients)" in shown


def test_our_own_commands_refuse_the_mistake(datalist, tmp_path, capsys):
    """A model of one fold, evaluated on a split that was drawn again."""
    settings = {"encoder": "small_cnn", "frame_size": 16, "sequence_length": 6, "hidden_size": 4, "max_epochs": 1}
    design = new_design(datalist, folds=2, repeats=1, settings=settings)
    redrawn = new_design(datalist, folds=2, repeats=1, seed=1, settings=settings)
    run_fit(design, tmp_path / "fit", 0, 0)
    other = tmp_path / "redrawn"
    run_fit(redrawn, other, 0, 0)
    shutil.copy(other / "datalist.json", tmp_path / "fit" / "redrawn.json")
    words = [str(tmp_path / "fit" / "redrawn.json"), "--out", str(tmp_path / "fit"), "--dataset_dir", str(design.root)]
    assert main(["evaluate", *words]) == 1
    tested = {record["patient"] for record in json.loads((other / "datalist.json").read_text())["test"]}
    seen = tested & {patient for patient, folds in design.assignment.items() if folds[0] != 0}
    assert seen and f"{len(seen)} of the patients to evaluate on were seen in training" in capsys.readouterr().err
