import csv
import re

import numpy as np
import pytest
import torch

from monai_chd.labels import CLASSES
from monai_chd.metrics.estimates import evaluate
from monai_chd.metrics.formulas import wilson_interval
from monai_chd.metrics.predictions import (
    PREDICTION_COLUMNS,
    answered_cases,
    coverage_estimate,
    read_predictions,
    scored_cases,
    write_predictions,
)


def case(image="ct_1001_image.nii.gz", patient="1001", label=0, probabilities=(0.7, 0.2, 0.1), reason=""):
    return {"image": image, "patient": patient, "label": label, "probabilities": probabilities, "reason": reason}


def random_rows(n=60, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet([1, 1, 1], n)
    return [case(f"ct_{i}.nii.gz", f"p{i % 40}", int(rng.integers(3)), scores[i]) for i in range(n)]


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def evaluated(rows):
    labels, scores, patients = ([row[key] for row in rows] for key in ("label", "probabilities", "patient"))
    return evaluate(labels, scores, patients=patients, resamples=200)


def test_metrics_from_the_table_equal_those_from_memory(tmp_path):
    labels, scores, patients = scored_cases(read_predictions(write_predictions(random_rows(), tmp_path / "p.csv")))
    assert evaluate(labels, scores, patients=patients, resamples=200) == evaluated(random_rows())


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_probabilities_come_back_to_the_last_bit(tmp_path, dtype):
    scores = np.vstack([np.random.default_rng(1).dirichlet([0.05] * 3, 200), [[1, 0, 0], [0.5, 0.5, 0]]]).astype(dtype)
    rows = [case(f"{i:03}", str(i), None, row) for i, row in enumerate(scores)]
    table = read_predictions(write_predictions(rows, tmp_path / "p.csv")).sort_values("image")
    np.testing.assert_array_equal(table[list(CLASSES)].to_numpy(), scores.astype(np.float64))


def test_probabilities_are_plain_decimals_with_six_digits_or_more(tmp_path):
    write_predictions([case(probabilities=(1 - 1e-9, 1e-9, 0))], tmp_path / "p.csv")
    cells = rows_of(tmp_path / "p.csv")[0]
    assert [cells[name] for name in CLASSES] == ["0.999999999", "0.000000001", "0.000000"]


def test_tensors_and_numpy_labels_are_taken(tmp_path):
    rows = [case(label=np.int64(2), probabilities=torch.tensor([0.25, 0.25, 0.5]))]
    table = read_predictions(write_predictions(rows, tmp_path / "p.csv"))
    assert table.loc[0, ["label", "prediction"]].tolist() == ["Normal", "Normal"]


def test_file_does_not_depend_on_the_order_of_the_cases(tmp_path):
    rows = random_rows()
    first = write_predictions(rows, tmp_path / "a.csv").read_bytes()
    assert write_predictions(rows[::-1], tmp_path / "b.csv").read_bytes() == first
    table = read_predictions(tmp_path / "a.csv")
    assert list(zip(table["patient"], table["image"], strict=True)) == sorted((r["patient"], r["image"]) for r in rows)
    assert b"\r" not in first


def test_columns_and_cells(tmp_path):
    rows = [
        case(),
        case("b.nii", "2", None, (0.4, 0.35, 0.25), "most probable class below 0.5"),
        case("c.nii", "3", 1, None, 'cannot be read:\n"truncated", 12 bytes'),
    ]
    table = read_predictions(write_predictions(rows, tmp_path / "new" / "p.csv"))
    assert tuple(table.columns) == PREDICTION_COLUMNS
    assert table["label"].tolist() == ["Cyanotic", "", "Non-Cyanotic"]
    assert table["prediction"].tolist() == ["Cyanotic", "Cyanotic", ""]
    assert table["abstain"].tolist() == [False, True, True] and table["abstain"].dtype == bool
    assert table["reason"].tolist() == [row["reason"] for row in rows]
    assert table["Cyanotic"].tolist()[:2] == [0.7, 0.4] and table[list(CLASSES)].loc[2].isna().all()


def test_scored_cases_are_those_with_a_label_and_probabilities(tmp_path):
    rows = [
        case("a", "1", 0),
        case("b", "2", None),
        case("c", "3", 1, None, "cannot be read"),
        case("d", "4", 2, (0.4, 0.3, 0.3), "not sure"),
    ]
    labels, scores, patients = scored_cases(read_predictions(write_predictions(rows, tmp_path / "p.csv")))
    assert labels.tolist() == [0, 2] and patients == ["1", "4"] and scores.shape == (2, 3)


def test_answered_cases_and_coverage_leave_out_what_is_abstained_from(tmp_path):
    rows = [
        case("a", "1", 0),
        case("b", "2", None),
        case("c", "3", 1, None, "cannot be read"),
        case("d", "4", 2, (0.4, 0.3, 0.3), "not sure"),
        case("e", "5", 2),
    ]
    table = read_predictions(write_predictions(rows, tmp_path / "p.csv"))
    assert answered_cases(table)[2] == ["1", "5"]
    coverage = coverage_estimate(table)
    assert (coverage["value"], coverage["n"], coverage["method"]) == (0.5, 4, "wilson")
    assert (coverage["low"], coverage["high"]) == wilson_interval(2, 4)


def test_coverage_of_patients_with_several_scans_is_the_mean_share_of_the_patients(tmp_path):
    rows = [case("a", "1", 0), case("b", "1", 0, (0.4, 0.3, 0.3), "not sure"), case("c", "2", 1)]
    coverage = coverage_estimate(read_predictions(write_predictions(rows, tmp_path / "p.csv")))
    assert (coverage["value"], coverage["n"]) == (0.75, 2)


def test_cases_without_a_label_need_no_patient(tmp_path):
    rows = [case(name, patient, None) for name, patient in (("a", ""), ("b", None), ("c", float("nan")))]
    assert read_predictions(write_predictions(rows, tmp_path / "p.csv"))["patient"].tolist() == ["", "", ""]


def test_names_that_look_like_numbers_or_missing_values_stay_text(tmp_path):
    rows = [case(name, name) for name in ("007", "NA", "1e5", "inf", "Müller, A.")]
    table = read_predictions(write_predictions(rows, tmp_path / "p.csv"))
    assert sorted(table["patient"]) == sorted(["007", "NA", "1e5", "inf", "Müller, A."])


def test_table_saved_by_a_spreadsheet_is_read(tmp_path):
    rows = [case(), case("b", "2", 1, None, "cannot be read")]
    text = write_predictions(rows, tmp_path / "p.csv").read_text().replace("true", "TRUE").replace("false", "FALSE")
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_predictions(tmp_path / "excel.csv").equals(read_predictions(tmp_path / "p.csv"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one case, came none"),
        ([{"image": "a"}], "case 0: expected the keys image, label, patient, probabilities, reason, came image"),
        ([{**case(), "abstain": True}], "came abstain, image"),
        ([case(), case()], "image ct_1001_image.nii.gz: expected one row, came 2"),
        ([case(), case("b", label=3)], "case 1: image b: expected a label 0..2 or None, came 3"),
        ([case(label="Normal")], "expected a label 0..2 or None, came 'Normal'"),
        ([case(patient="")], "expected a patient, as it has a label, came ''"),
        ([case(patient=float("nan"))], "expected a patient, as it has a label, came nan"),
        ([case(image=None)], "image None: expected the name of an image"),
        ([case(probabilities=None)], "expected probabilities, or a reason"),
        ([case(probabilities=(0.5, 0.5))], r"expected 3 probabilities, came shape \(2,\)"),
        ([case(probabilities=(2.0, -1.0, 0.0))], "apply softmax"),
        ([case(probabilities=(np.nan, 0.5, 0.5))], "expected finite"),
    ],
)
def test_bad_cases_are_refused_and_nothing_is_written(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        write_predictions(rows, tmp_path / "p.csv")
    assert list(tmp_path.iterdir()) == []


GOOD = dict(
    zip(PREDICTION_COLUMNS, ["a.nii", "1", "Normal", "Cyanotic", "0.7", "0.2", "0.1", "false", "", ""], strict=True)
)


def write_rows(path, *rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, PREDICTION_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"image": ""}, "row 3, image: expected a name"),
        ({"patient": " "}, "row 3, patient: expected one, as there is a label"),
        ({"patient": "nan"}, "row 3, patient: expected one, as there is a label, came nan"),
        ({"label": "cyanotic"}, "row 3, label: expected Cyanotic, Non-Cyanotic, Normal or nothing, came 'cyanotic'"),
        ({"prediction": "CHD"}, "row 3, prediction: .* came 'CHD'"),
        ({"prediction": "Normal"}, "row 3, prediction: expected Cyanotic, came Normal"),
        ({"prediction": ""}, "row 3, prediction: expected Cyanotic, came none"),
        ({"Normal": "x"}, "row 3, Normal: expected a number, came 'x'"),
        ({"Normal": ""}, "row 3, Normal: expected a number, came ''"),
        ({"Normal": "nan"}, "row 3, Cyanotic/Non-Cyanotic/Normal: expected finite"),
        ({"Normal": "0.2"}, "row 3, Cyanotic/Non-Cyanotic/Normal: expected a sum of 1"),
        ({"abstain": "maybe"}, "row 3, abstain: expected true or false, came 'maybe'"),
        ({"reason": "late"}, "row 3, reason: expected one exactly when abstain is true, came 'late'"),
        ({"abstain": "true"}, "row 3, reason: expected one exactly when abstain is true, came ''"),
        (
            {"abstain": "true", "reason": "late", **dict.fromkeys(CLASSES, "")},
            "row 3, prediction: expected none without probabilities, came Cyanotic",
        ),
        ({"image": "a.nii"}, "image a.nii: expected one row, came 2"),
    ],
)
def test_bad_table_is_refused_with_file_row_and_column(tmp_path, cells, message):
    path = write_rows(tmp_path / "table.csv", GOOD, {**GOOD, "image": "b.nii", **cells})
    with pytest.raises(ValueError, match=re.escape(str(path)) + ": .*" + message):
        read_predictions(path)


def test_all_bad_rows_are_named_at_once(tmp_path):
    rows = [{**GOOD, "image": f"{i}", "label": "?"} for i in range(12)]
    with pytest.raises(ValueError, match=r"row 2, label.*row 11, label.*and 2 more"):
        read_predictions(write_rows(tmp_path / "table.csv", *rows))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the columns image, .* came none"),
        (b"image,patient\na,1\n", "expected the columns image, .* came image, patient"),
        (",".join(PREDICTION_COLUMNS).encode(), "expected at least one case"),
        ((",".join(PREDICTION_COLUMNS) + "\na,1\n").encode(), "row 2: expected 10 cells, came 2"),
        (b"\x89PNG\r\n\xff\xff", "expected a csv in UTF-8"),
    ],
)
def test_file_that_is_no_table_is_refused(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ": .*" + message):
        read_predictions(path)


def test_missing_table_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        read_predictions(tmp_path / "none.csv")


def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = write_predictions(random_rows(), tmp_path / "p.csv")
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            write_predictions(random_rows(seed=1), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
