"""Fits: what the bundle itself gives on the fold's datalist, finished or not there at all, and the same bytes again."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_design import edit, made_up, write_datalist

from monai_chd.cli import main
from monai_chd.crossval import fits
from monai_chd.crossval.design import fit_seed, new_design, save_or_check
from monai_chd.crossval.fits import (
    COLUMNS,
    fit_folder,
    history,
    pooled,
    read_pooled,
    run_fit,
    write_pooled,
)
from monai_chd.labels import CLASSES
from monai_chd.metrics.evaluation import evaluate_out_of_fold

TINY = {
    "encoder": "small_cnn",
    "frame_size": 16,
    "sequence_length": 8,
    "hidden_size": 8,
    "batch_size": 6,
    "max_epochs": 2,
    "cache": "memory",
}
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config


@pytest.fixture(scope="module")
def design(datalist):
    return new_design(datalist, folds=2, repeats=1, settings=TINY)


@pytest.fixture(scope="module")
def done(design, tmp_path_factory) -> Path:
    """A folder with both fits of the design."""
    root = tmp_path_factory.mktemp("cv") / "fits"
    for fold in range(2):
        assert run_fit(design, fit_folder(root, 0, fold), 0, fold)
    return root


@pytest.fixture
def copy(done, tmp_path) -> Path:
    shutil.copytree(done, tmp_path / "fits")
    return tmp_path / "fits"


def test_a_fit_is_the_model_that_a_user_trains(design, done, tmp_path, capsys):
    """The commands of the README on the fold's datalist give the same predictions, to the last digit."""
    datalist, out = done / "r0f1" / "datalist.json", str(tmp_path / "out")
    # where the fold's datalist lies decides where its scans are
    keys = ["--dataset_dir", str(design.root), "--seed", str(fit_seed(design, 0, 1))]
    keys += [word for key, value in TINY.items() for word in (f"--{key}", str(value))]
    assert main(["train", str(datalist), "--out", out, *keys]) == 0
    assert main(["evaluate", str(datalist), "--out", out, *keys]) == 0
    theirs = (tmp_path / "out" / "evaluation" / "predictions.csv").read_bytes()
    assert theirs == (done / "r0f1" / "evaluation" / "predictions.csv").read_bytes()


def test_a_fit_says_nothing_and_keeps_its_log(done, capfd):
    assert "model and learning curves:" in (done / "r0f0" / "log.txt").read_text()


def test_a_finished_fit_keeps_its_model_and_not_what_only_resuming_needs(done):
    names = {path.name for path in (done / "r0f0" / "models").iterdir()}
    assert "model.pt" in names and "last.pt" not in names


def test_a_finished_fit_is_not_done_again(design, done):
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    assert not run_fit(design, fit_folder(done, 0, 0), 0, 0)
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*")} == before


def test_an_interrupted_fit_is_done_again_with_the_same_bytes(design, done, copy):
    (copy / "r0f0" / "done.json").unlink()
    (copy / "r0f0" / "models" / "model.pt").write_bytes(b"half")
    assert run_fit(design, copy / "r0f0", 0, 0)
    for name in ("evaluation/predictions.csv", "learning_curves.csv"):
        assert (copy / "r0f0" / name).read_bytes() == (done / "r0f0" / name).read_bytes()


def test_fits_at_the_same_time_give_the_same_bytes(design, done, tmp_path):
    with fits.fit_processes(2) as pool:
        found = dict(fits.fits_at_once(pool, design, tmp_path, [(0, 0), (0, 1)]))
    assert set(found) == {(0, 0), (0, 1)} and all(seconds > 0 for seconds in found.values())
    for fold in ("r0f0", "r0f1"):
        for name in ("evaluation/predictions.csv", "learning_curves.csv"):
            assert (tmp_path / fold / name).read_bytes() == (done / fold / name).read_bytes()


def test_a_mistake_in_another_process_is_told_as_in_this_one_and_ends_the_others(design, tmp_path):
    wrong = {"pooling": "median"}
    with (
        pytest.raises(ValueError, match=r"^fit r0f[01]: unknown pooling 'median'.*log: "),
        fits.fit_processes(2) as pool,
    ):
        list(fits.fits_at_once(pool, design, tmp_path, [(0, 0), (0, 1)], overrides=wrong))
    assert multiprocessing.active_children() == []
    assert not list(tmp_path.glob("*/done.json"))


def test_a_killed_process_is_one_error_with_its_mend():
    told = "was killed, most often for want of memory; run the same command again"
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    with pytest.raises(ValueError, match=told), fits.fit_processes(2) as pool:
        pool.submit(_kill_itself).result()
    other.join(2)
    assert other.is_alive()  # what is not of the fits goes on
    other.kill()
    other.join()


def _kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_at_a_time_needs_no_process():
    with fits.fit_processes(1) as pool:
        assert pool is None


def test_pooled_predictions_have_every_patient_once_a_repeat(design, done):
    table = pooled(design, done, range(1))
    assert list(table.columns) == list(COLUMNS)
    assert table["patient"].tolist() == sorted(design.labels)
    assert all(design.assignment[row.patient][0] == row.fold for row in table.itertuples())
    assert all(CLASSES[design.labels[row.patient]] == row.label for row in table.itertuples())
    assert evaluate_out_of_fold(table)["patients"] == 24


def test_raw_probabilities_are_those_before_the_temperature(design, copy):
    """Logits divided by T and given to softmax are probabilities to the power of 1 / T, summing to one."""
    for fold in range(2):
        path = copy / f"r0f{fold}" / "models" / "calibration.json"
        content = json.loads(path.read_text()) if path.is_file() else {"threshold": 0.0, "wish": None}
        path.write_text(json.dumps({**content, "temperature": 2.0}))
    table = pooled(design, copy, range(1))
    calibrated = table[list(CLASSES)].to_numpy()
    raw = table[[f"raw_{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(raw.sum(axis=1), 1)
    roots = np.sqrt(raw)
    np.testing.assert_allclose(roots / roots.sum(axis=1, keepdims=True), calibrated)


def test_the_written_table_reads_back_to_the_last_bit(design, done, tmp_path):
    table = pooled(design, done, range(1))
    save_or_check(design, tmp_path)
    shutil.copytree(done, tmp_path / "fits")
    path = write_pooled(table, tmp_path / "predictions.csv")
    pd.testing.assert_frame_equal(read_pooled(tmp_path), table, check_exact=True, check_dtype=False)
    first = path.read_bytes()
    assert write_pooled(read_pooled(tmp_path), path).read_bytes() == first


def test_a_fold_that_never_finished_is_one_error(design, copy, tmp_path):
    (copy / "r0f1" / "done.json").unlink()
    with pytest.raises(ValueError, match=r"r0f1: this fit never finished; run the same `monai-chd crossval` command"):
        pooled(design, copy, range(1))
    save_or_check(design, tmp_path)
    with pytest.raises(ValueError, match="r0f1: this fit never finished"):
        read_pooled(tmp_path)


def test_predictions_of_another_datalist_are_one_error(design, copy):
    path = copy / "r0f0" / "evaluation" / "predictions.csv"
    shutil.copy(copy / "r0f1" / "evaluation" / "predictions.csv", path)
    with pytest.raises(ValueError, match=r"r0f0/evaluation/predictions\.csv: changed since the fit was finished"):
        pooled(design, copy, range(1))
    edit(copy / "r0f0" / "done.json", lambda content: content.update(predictions_sha256=fits._digest(path)))
    with pytest.raises(ValueError, match=r"r0f0/evaluation/predictions\.csv: predictions of another datalist: 24 of"):
        pooled(design, copy, range(1))


def test_a_fit_of_other_folds_is_one_error(datalist, copy):
    other = new_design(datalist, folds=2, repeats=1, seed=1, settings=TINY)
    with pytest.raises(ValueError, match="of another cross-validation"):
        run_fit(other, copy / "r0f0", 0, 0)


def test_probabilities_that_are_not_numbers_are_one_error(design, copy):
    path = copy / "r0f0" / "evaluation" / "predictions.csv"
    with path.open(newline="") as file:
        header, first, *rest = list(csv.reader(file))
    first[4:7] = ["nan"] * 3
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, first, *rest])
    edit(copy / "r0f0" / "done.json", lambda content: content.update(predictions_sha256=fits._digest(path)))
    with pytest.raises(ValueError, match=r"r0f0/evaluation/predictions\.csv: row 2.*finite"):
        pooled(design, copy, range(1))


def test_a_users_mistake_in_a_fit_names_the_fit_and_its_log(datalist, tmp_path):
    design = new_design(datalist, folds=2, repeats=1, settings={**TINY, "pooling": "median"})
    with pytest.raises(ValueError, match=r"fit r0f0: unknown pooling 'median'.*\(log: .*r0f0/log\.txt\)"):
        run_fit(design, tmp_path / "r0f0", 0, 0)
    assert not (tmp_path / "r0f0" / "done.json").exists()


def test_a_table_that_is_none_is_one_error(design, copy, tmp_path):
    with pytest.raises(FileNotFoundError, match="no cross-validation there"):
        read_pooled(tmp_path / "nowhere")
    save_or_check(design, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"predictions\.csv: not written yet"):
        read_pooled(tmp_path)
    (tmp_path / "predictions.csv").write_text("image,patient\n")
    with pytest.raises(ValueError, match="expected the columns image, patient, label"):
        read_pooled(tmp_path)


def test_abstentions_and_their_reasons_go_through_the_table(tmp_path):
    design = new_design(write_datalist(tmp_path), folds=3, repeats=1)
    table = made_up(design, 0.5)
    table.loc[3, ["abstain", "reason"]] = True, "confidence 0.40 below 0.50"
    write_pooled(table, tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["abstain"], row["reason"]) for row in rows[2:4]] == [
        ("false", ""),
        ("true", "confidence 0.40 below 0.50"),
    ]


def test_learning_curves_are_read_back_without_what_was_not_validated(done):
    curves = history(done / "r0f0")
    assert [row["epoch"] for row in curves] == [1, 2] and "train_loss" in curves[0]
