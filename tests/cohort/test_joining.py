"""Rows and scans find each other by id, path or pattern; what stays alone is said."""

import re

import pytest

from monai_chd.cohort.joining import find_nifti, find_scans, find_scans_by, join
from monai_chd.cohort.tables import Diagnosis


def rows_of(*patients):
    return [Diagnosis(i, patient, label="Normal") for i, patient in enumerate(patients, start=2)]


def test_a_pattern_says_which_files_are_scans_and_whose(tmp_path):
    for name in (
        "pat1_orig.nii.gz",
        "pat10_orig.nii.gz",
        "pat1_orig_seg.nii.gz",
        "pat1_cropped.nii.gz",
        "._pat2_orig.nii.gz",
    ):
        (tmp_path / name).touch()
    owners = find_scans_by(re.compile(r"(pat\d+)_orig\.nii"), find_nifti(tmp_path))
    assert {path.name: patient for path, patient in owners.items()} == {
        "pat1_orig.nii.gz": "pat1", "pat10_orig.nii.gz": "pat10",
    }  # fmt: skip
    cohort = join(tmp_path, list(owners), rows_of("pat1", "pat10"), owners)
    assert {case.patient: case.image.name for case in cohort.cases} == {
        "pat1": "pat1_orig.nii.gz", "pat10": "pat10_orig.nii.gz",
    }  # fmt: skip
    assert not cohort.problems


def test_a_pattern_that_matches_nothing_shows_a_path_it_was_tried_on(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "scan.nii").touch()
    with pytest.raises(
        FileNotFoundError, match=r"none of 1 NIfTI files matches id_pattern '\(x\)'.*the first is a/scan\.nii"
    ):
        find_scans_by(re.compile("(x)"), find_nifti(tmp_path))


@pytest.mark.parametrize("name", ["ct_1002_image.mha", "ct_1002_image.nii.bz2", "ct_1002_image.gz", "1002.nrrd"])
def test_a_missing_volume_of_another_format_is_pointed_at(tmp_path, name):
    (tmp_path / name).touch()
    (tmp_path / "ct_1001_image.nii.gz").touch()
    cohort = join(tmp_path, find_scans(find_nifti(tmp_path)), rows_of("1001", "1002", "1003"), {})
    assert cohort.problems == [
        f"row 3: no scan found for 1002 ({name} is not NIfTI; convert it to .nii.gz, or rename it if it is one)",
        "row 4: no scan found for 1003",
    ]


def test_a_pattern_may_find_the_patient_in_a_folders_name(tmp_path):
    for patient in ("p1", "p2"):
        (tmp_path / patient).mkdir()
        (tmp_path / patient / "scan_2.nii").touch()
    owners = find_scans_by(re.compile(r"(p\d+)/scan"), find_nifti(tmp_path))
    cohort = join(tmp_path, list(owners), rows_of("p1", "p2"), owners)
    assert [(case.patient, case.image.parent.name) for case in cohort.cases] == [("p1", "p1"), ("p2", "p2")]
    assert not cohort.problems
