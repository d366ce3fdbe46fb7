"""A model held ready says of each scan what the command says, in any order, from any thread, and goes on after a bad one."""

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dicom_series import write_as_dicom, write_series

from monai_chd.cli import main
from monai_chd.labels import CLASSES
from monai_chd.workflow.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(trained):
    held = Predictor(trained)
    yield held
    held.close()
    assert not Path(held._folder).exists()


@pytest.fixture(scope="module")
def truth(trained, cohort, tmp_path_factory):
    """What the command says, by the name of the scan."""
    out = tmp_path_factory.mktemp("out") / "out"
    shutil.copytree(trained, out)
    assert main(["predict", str(cohort), "--out", str(out)]) == 0
    with (out / "inference" / "predictions.csv").open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def test_it_says_what_the_command_says_from_several_threads(predictor, truth, cohort):
    names = sorted(truth)[:8]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(predictor, [cohort / name for name in names]))
    for name, answer in zip(names, answers, strict=True):
        assert answer.prediction == truth[name]["prediction"]
        assert answer.probabilities == {each: pytest.approx(float(truth[name][each]), abs=1e-6) for each in CLASSES}
        assert not answer.abstain


def test_it_goes_on_after_a_scan_that_cannot_be_read(predictor, cohort, tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.nii\.gz: named \.nii\.gz but not gzip-compressed"):
        predictor(tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match="no such file"):
        predictor(tmp_path / "b.nii.gz")
    assert predictor(cohort / "ct_1001_image.nii.gz").prediction in CLASSES


def test_a_folder_with_a_series_is_a_scan(predictor, cohort, tmp_path):
    write_as_dicom(cohort / "ct_1003_image.nii.gz", tmp_path / "dicom", "p")
    of_nifti, of_dicom = predictor(cohort / "ct_1003_image.nii.gz"), predictor(tmp_path / "dicom")
    assert of_dicom.probabilities == {
        name: pytest.approx(value, abs=1e-6) for name, value in of_nifti.probabilities.items()
    }
    write_series(tmp_path / "tilted", shear=(0, 0.3, 0))
    with pytest.raises(ValueError, match="tilted by"):
        predictor(tmp_path / "tilted")


def test_a_model_that_abstains_says_so(trained, cohort, tmp_path):
    shutil.copytree(trained / "models", tmp_path / "models")
    note = tmp_path / "models" / "calibration.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"threshold": 0.99}))
    held = Predictor(tmp_path)
    answer = held(cohort / "ct_1001_image.nii.gz")
    held.close()
    assert answer.abstain
    assert "0.99" in answer.reason
    assert answer.prediction in CLASSES


def test_no_model_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no trained model"):
        Predictor(tmp_path)
