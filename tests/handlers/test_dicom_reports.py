"""Reports of a whole prediction: one a predicted series, none of NIfTI, and a fault that is told at the end."""

import shutil
import sys

import pydicom
import pytest
from dicom_series import write_as_dicom, write_series

from monai_chd.cli import main


@pytest.fixture
def out(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "out")
    return tmp_path / "out"


def predict(folder, out, *words):
    return main(["predict", str(folder), "--out", str(out), "--dicom-out", str(out.parent / "filed"), *words])


def test_each_predicted_series_has_a_report_and_nifti_has_none(out, cohort, tmp_path, caplog):
    write_as_dicom(cohort / "ct_1001_image.nii.gz", tmp_path / "in" / "a", "p1")
    write_series(tmp_path / "in" / "tilted", shear=(0, 0.3, 0))
    shutil.copy(cohort / "ct_1002_image.nii.gz", tmp_path / "in")
    assert predict(tmp_path / "in", out) == 1  # the tilted one
    (report,) = (tmp_path / "filed").rglob("*.dcm")
    assert report.name.endswith(".sr.dcm")
    assert pydicom.dcmread(report).PatientID == "p1"


def test_a_series_that_nothing_can_refer_to_is_told_after_all_others_are_done(out, tmp_path, capsys):
    def anonymous(ds, index):
        ds.SeriesInstanceUID = ""
        return ds

    write_series(tmp_path / "in" / "a", change=anonymous)
    write_series(tmp_path / "in" / "b")
    assert predict(tmp_path / "in", out) == 1
    assert "1 predicted series have no structured report, the others have theirs" in capsys.readouterr().err
    assert len(list((tmp_path / "filed").rglob("*.sr.dcm"))) == 1
    assert (out / "inference" / "predictions.csv").is_file()


def test_without_highdicom_it_is_said_before_anything_is_predicted(out, cohort, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert predict(cohort, out) == 1
    assert 'pip install "monai_chd[dicom]"' in capsys.readouterr().err
    assert not (out / "inference" / "predictions.csv").exists()
