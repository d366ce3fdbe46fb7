"""Structures are learned from the patients who have a label map; without any, the answer is what to do instead."""

import json

import numpy as np
import pytest
from tiny_cohort import write_cohort, write_scan

from monai_chd.cohort.datalist import Choices, load_cases, prepare
from monai_chd.cohort.label_maps import load_structure_cases


@pytest.fixture
def cohort(tmp_path):
    """12 patients, all but two with a label map, and the datalist of two folds."""
    folder = write_cohort(tmp_path / "cohort", 12)
    for number in range(1001, 1011):
        write_scan(folder / f"ct_{number}_label.nii.gz", np.full((12, 12, 8), 5, np.uint8))
    prepare(folder, tmp_path / "work", Choices(folds=2, test_fraction=0))
    return folder, tmp_path / "work" / "datalist.json"


def test_the_datalist_says_where_the_label_map_of_a_scan_is(cohort):
    _, datalist = cohort
    records = json.loads(datalist.read_text())["training"]
    named = {record["patient"]: record.get("label_map") for record in records}
    assert named["1001"] == "ct_1001_label.nii.gz" and named["1011"] is None


def test_cases_without_one_are_left_out_and_the_others_have_it_as_label(cohort):
    folder, datalist = cohort
    cases = load_structure_cases(datalist, folder)
    both = [*cases["train"], *cases["validate"]]
    assert sorted(case["patient"] for case in both) == [str(number) for number in range(1001, 1011)]
    for case in both:
        assert case["label"] == case["image"].replace("image", "label")
    assert all(isinstance(case["label"], int) for case in load_cases(datalist, folder)["train"])


def test_a_cohort_without_label_maps_is_told_what_to_do(tmp_path):
    folder = write_cohort(tmp_path / "cohort", 12)
    prepare(folder, tmp_path / "work", Choices(folds=2, test_fraction=0))
    with pytest.raises(ValueError, match=r"no case to train or validate has a label map .* efficientnet_lite0"):
        load_structure_cases(tmp_path / "work" / "datalist.json", folder)


def test_label_maps_that_are_gone_are_named(cohort):
    folder, datalist = cohort
    (folder / "ct_1003_label.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 label maps of .* are not in .*ct_1003_label\.nii\.gz"):
        load_structure_cases(datalist, folder)
