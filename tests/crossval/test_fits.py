"""Fits: what the bundle itself gives on the fold's datalist, finished or not there at all, and the same bytes again."""

from __future__ import annotations

import os

import pytest
from tiny_design import TINY_SETTINGS

from monai_chd.cli import main
from monai_chd.crossval.design import new_design
from monai_chd.crossval.fits import check_rows, fit_folder, learning_curves, run_fit
from monai_chd.errors import UserError
from monai_chd.metrics.predictions import read_predictions, write_predictions

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config


def test_a_fit_is_the_model_that_a_user_trains(tiny_design, done_fits, tmp_path, capsys):
    """The commands of the README on the fold's datalist give the same predictions, to the last digit."""
    datalist, out = done_fits / "r0f1" / "datalist.json", str(tmp_path / "out")
    # where the fold's datalist lies decides where its scans are
    keys = ["--dataset_dir", str(tiny_design.root), "--seed", str(tiny_design.fit_seed(0, 1))]
    keys += [word for key, value in TINY_SETTINGS.items() for word in (f"--{key}", str(value))]
    assert main(["train", str(datalist), "--out", out, *keys]) == 0
    assert main(["evaluate", str(datalist), "--out", out, *keys]) == 0
    theirs = (tmp_path / "out" / "evaluation" / "predictions.csv").read_bytes()
    assert theirs == (done_fits / "r0f1" / "evaluation" / "predictions.csv").read_bytes()


def test_predictions_of_a_scan_whose_name_is_of_other_bytes_are_known_for_its_own(tmp_path):
    records = [{"image": os.fsdecode(b"ct_\xe9.nii.gz"), "patient": "1", "label": 2}]
    row = {**records[0], "probabilities": (0.2, 0.3, 0.5), "reason": ""}
    table = read_predictions(write_predictions([row], tmp_path / "predictions.csv"))
    check_rows(tmp_path / "predictions.csv", table, records)
    with pytest.raises(UserError, match="1 of its scans"):
        check_rows(tmp_path / "predictions.csv", table, [{**records[0], "label": 1}])


def test_a_fit_says_nothing_and_keeps_its_log(done_fits, capfd):
    assert "model and learning curves:" in (done_fits / "r0f0" / "log.txt").read_text()


def test_a_finished_fit_keeps_its_model_and_not_what_only_resuming_needs(done_fits):
    names = {path.name for path in (done_fits / "r0f0" / "models").iterdir()}
    assert "model.pt" in names and "last.pt" not in names


def test_a_finished_fit_is_not_done_again(tiny_design, done_fits):
    before = {path: path.stat().st_mtime_ns for path in done_fits.rglob("*")}
    assert run_fit(tiny_design, fit_folder(done_fits, 0, 0), 0, 0) is None
    assert {path: path.stat().st_mtime_ns for path in done_fits.rglob("*")} == before


def test_an_interrupted_fit_is_done_again_with_the_same_bytes(tiny_design, done_fits, fits_copy):
    (fits_copy / "r0f0" / "done.json").unlink()
    (fits_copy / "r0f0" / "models" / "model.pt").write_bytes(b"half")
    assert run_fit(tiny_design, fits_copy / "r0f0", 0, 0)
    for name in ("evaluation/predictions.csv", "learning_curves.csv"):
        assert (fits_copy / "r0f0" / name).read_bytes() == (done_fits / "r0f0" / name).read_bytes()


def test_a_fit_of_other_folds_is_one_error(datalist, fits_copy):
    other = new_design(datalist, folds=2, repeats=1, seed=1, settings=TINY_SETTINGS)
    with pytest.raises(ValueError, match="of another cross-validation"):
        run_fit(other, fits_copy / "r0f0", 0, 0)


def test_a_users_mistake_in_a_fit_names_the_fit_and_its_log(datalist, tmp_path):
    design = new_design(datalist, folds=2, repeats=1, settings={**TINY_SETTINGS, "pooling": "median"})
    with pytest.raises(ValueError, match=r"fit r0f0: unknown pooling 'median'.*\(log: .*r0f0/log\.txt\)"):
        run_fit(design, tmp_path / "r0f0", 0, 0)
    assert not (tmp_path / "r0f0" / "done.json").exists()


def test_learning_curves_are_read_back_an_entry_an_epoch(done_fits):
    curves = learning_curves(done_fits / "r0f0")
    assert [row["epoch"] for row in curves] == [1, 2]
    assert all({"train_loss", "val_macro_f1"} <= row.keys() for row in curves)
