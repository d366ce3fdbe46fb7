"""The table of out-of-fold predictions: everybody once a repeat, to the last bit, and one error for what is no such table."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_design import edit_json, made_up_predictions, write_datalist

from monai_chd.crossval.design import new_design, save_or_check
from monai_chd.crossval.out_of_fold_table import (
    COLUMNS,
    out_of_fold_table,
    read_out_of_fold_table,
    write_out_of_fold_table,
)
from monai_chd.labels import CLASSES
from monai_chd.metrics.evaluation import evaluate_out_of_fold


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_patient_is_in_it_once_a_repeat(tiny_design, done_fits):
    table = out_of_fold_table(tiny_design, done_fits, range(1))
    assert list(table.columns) == list(COLUMNS)
    assert table["patient"].tolist() == sorted(tiny_design.labels)
    assert all(tiny_design.assignment[row.patient][0] == row.fold for row in table.itertuples())
    assert all(CLASSES[tiny_design.labels[row.patient]] == row.label for row in table.itertuples())
    assert evaluate_out_of_fold(table)["patients"] == 24


def test_raw_probabilities_are_those_before_the_temperature(tiny_design, fits_copy):
    """Logits divided by T and given to softmax are probabilities to the power of 1 / T, summing to one."""
    for fold in range(2):
        path = fits_copy / f"r0f{fold}" / "models" / "calibration.json"
        content = json.loads(path.read_text()) if path.is_file() else {"threshold": 0.0, "wish": None}
        path.write_text(json.dumps({**content, "temperature": 2.0}))
    table = out_of_fold_table(tiny_design, fits_copy, range(1))
    calibrated = table[list(CLASSES)].to_numpy()
    raw = table[[f"raw_{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(raw.sum(axis=1), 1)
    roots = np.sqrt(raw)
    np.testing.assert_allclose(roots / roots.sum(axis=1, keepdims=True), calibrated)


def test_the_written_table_reads_back_to_the_last_bit(tiny_design, done_fits, tmp_path):
    table = out_of_fold_table(tiny_design, done_fits, range(1))
    save_or_check(tiny_design, tmp_path)
    shutil.copytree(done_fits, tmp_path / "fits")
    path = write_out_of_fold_table(table, tmp_path)
    pd.testing.assert_frame_equal(read_out_of_fold_table(tmp_path), table, check_exact=True, check_dtype=False)
    first = path.read_bytes()
    assert write_out_of_fold_table(read_out_of_fold_table(tmp_path), tmp_path).read_bytes() == first


def test_a_fold_that_never_finished_is_one_error(tiny_design, fits_copy, tmp_path):
    (fits_copy / "r0f1" / "done.json").unlink()
    with pytest.raises(ValueError, match=r"r0f1: this fit never finished; run the same `monai-chd crossval` command"):
        out_of_fold_table(tiny_design, fits_copy, range(1))
    save_or_check(tiny_design, tmp_path)
    with pytest.raises(ValueError, match="r0f1: this fit never finished"):
        read_out_of_fold_table(tmp_path)


def test_predictions_of_another_datalist_are_one_error(tiny_design, fits_copy):
    path = fits_copy / "r0f0" / "evaluation" / "predictions.csv"
    shutil.copy(fits_copy / "r0f1" / "evaluation" / "predictions.csv", path)
    with pytest.raises(ValueError, match=r"r0f0/evaluation/predictions\.csv: changed since the fit was finished"):
        out_of_fold_table(tiny_design, fits_copy, range(1))
    edit_json(fits_copy / "r0f0" / "done.json", lambda content: content.update(predictions_sha256=sha256(path)))
    with pytest.raises(ValueError, match=r"r0f0/evaluation/predictions\.csv: predictions of another datalist: 24 of"):
        out_of_fold_table(tiny_design, fits_copy, range(1))


def test_probabilities_that_are_not_numbers_are_one_error(tiny_design, fits_copy):
    path = fits_copy / "r0f0" / "evaluation" / "predictions.csv"
    with path.open(newline="") as file:
        header, first, *rest = list(csv.reader(file))
    first[4:7] = ["nan"] * 3
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, first, *rest])
    edit_json(fits_copy / "r0f0" / "done.json", lambda content: content.update(predictions_sha256=sha256(path)))
    with pytest.raises(ValueError, match=r"r0f0/evaluation/predictions\.csv: row 2.*finite"):
        out_of_fold_table(tiny_design, fits_copy, range(1))


def test_a_table_that_is_none_is_one_error(tiny_design, fits_copy, tmp_path):
    with pytest.raises(FileNotFoundError, match="no cross-validation there"):
        read_out_of_fold_table(tmp_path / "nowhere")
    save_or_check(tiny_design, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"predictions\.csv: not written yet"):
        read_out_of_fold_table(tmp_path)
    (tmp_path / "predictions.csv").write_text("image,patient\n")
    with pytest.raises(ValueError, match="expected the columns image, patient, label"):
        read_out_of_fold_table(tmp_path)


@pytest.mark.parametrize(
    ("column", "cell", "fault"),
    [
        ("repeat", "$1", "row 2, repeat: expected a whole number, came '$1'"),
        ("raw_Normal", "a", "row 2, raw_Normal: expected a number, came 'a'"),
        ("raw_Normal", "", "row 2, raw_Normal: expected a number, came ''"),
        ("Normal", "2", "row 2, Cyanotic/Non-Cyanotic/Normal: "),
        ("abstain", "perhaps", "row 2, abstain: expected true or false, came 'perhaps'"),
    ],
)
def test_a_cell_that_cannot_be_is_named_with_file_row_and_column(tmp_path, done_fits, tiny_design, column, cell, fault):
    save_or_check(tiny_design, tmp_path)
    shutil.copytree(done_fits, tmp_path / "fits", dirs_exist_ok=True)
    table = out_of_fold_table(tiny_design, done_fits, range(1))
    path = write_out_of_fold_table(table, tmp_path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0][column] = cell
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(
        ValueError, match=rf"predictions\.csv: {re.escape(fault)}.*run the same `monai-chd crossval` command"
    ):
        read_out_of_fold_table(tmp_path)


def test_abstentions_and_their_reasons_go_through_the_table(tmp_path):
    design = new_design(write_datalist(tmp_path), folds=3, repeats=1)
    table = made_up_predictions(design, 0.5)
    table.loc[3, ["abstain", "reason"]] = True, "confidence 0.40 below 0.50"
    write_out_of_fold_table(table, tmp_path)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["abstain"], row["reason"]) for row in rows[2:4]] == [
        ("false", ""),
        ("true", "confidence 0.40 below 0.50"),
    ]
