"""A datalist is read for its audit as far as it can be, and what is missing in a record is said."""

import json

import pytest
from tiny_cohort import write_scan
from tiny_datalist import quiet, record, write_list

from monai_chd.audit.records import read_records
from monai_chd.audit.text import audit_text
from monai_chd.labels import CLASSES


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no json", "not a datalist"),
        ("[1]", "not a datalist"),
        ('{"training": 3}', "not a datalist"),
        ("{}", "no case"),
    ],
)
def test_what_is_no_datalist_is_refused(content, words, tmp_path):
    (tmp_path / "datalist.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        quiet(tmp_path / "datalist.json")


def test_records_that_lack_everything_are_problems(tmp_path):
    write_scan(tmp_path / "a.nii.gz", 1)
    content = {"root": ".", "training": ["text", {"patient": "1"}, {"image": "a.nii.gz"}], "test": []}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    result = quiet(tmp_path / "datalist.json")
    assert [
        next(words for words in ("names no image", "no patient id") if words in one["problem"])
        for one in result["problems"]
    ] == ["names no image", "names no image", "no patient id"]
    assert result["compared"]["places"] == {"training, no fold": 1}
    assert audit_text(result)


def test_records_keep_what_the_datalist_says(tmp_path):
    given = record("sub/a.nii.gz", 7, 2, sha256="ab" * 32, hu_offset=-1024, confounders={"slices": 9})
    path = write_list(tmp_path, {"fold 1": [given], "the test part": [record("b.nii.gz", " 8 ")]}, root="scans")
    (one, two), classes, problems = read_records(path, cohort="theirs")
    assert (one.place, one.patient, one.label, one.hu_offset, one.sha256) == ("fold 1", "7", 2, -1024.0, "ab" * 32)
    assert one.path == tmp_path / "scans" / "sub" / "a.nii.gz"
    assert (one.confounders, one.where) == ({"slices": 9}, "theirs: fold 1")
    assert (two.place, two.patient, two.confounders) == ("the test part", "8", {})
    assert (classes, problems) == (list(CLASSES), [])


def test_the_second_datalists_faults_name_it(tmp_path):
    path = write_list(tmp_path, {"fold 0": [record("a.nii.gz", "")]})
    _, _, (fault,) = read_records(path, cohort="theirs")
    assert (fault["place"], fault["compared"]) == ("theirs: fold 0", False)


def test_classes_default_to_ours(tmp_path):
    (tmp_path / "datalist.json").write_text(json.dumps({"test": [{"image": "a.nii.gz", "patient": "1"}]}))
    assert read_records(tmp_path / "datalist.json")[1] == list(CLASSES)
