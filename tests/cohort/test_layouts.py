"""Cohort files are checked whole: every fault in one error, before anything else is read."""

import json

import pytest

from monai_chd.cohort.layouts import COHORTS, KEYS, load_cohort, shipped


def sound(**changes) -> dict:
    config = {"name": "mine", "class_column": "group", **changes}
    return {key: value for key, value in config.items() if value is not None}


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_examples_are_sound_and_usable_by_name():
    assert shipped() == ["acdc", "hvsmr2"]
    assert load_cohort("acdc").values["DCM"] == "Non-Cyanotic"
    assert load_cohort("hvsmr2").flag_columns["D-TGA"] == "TGA"
    assert load_cohort("hvsmr2") == load_cohort(COHORTS / "hvsmr2.json")


def test_every_key_is_explained():
    text = (COHORTS / "README.md").read_text()
    assert [key for key in KEYS if f"`{key}`" not in text] == []


def test_a_rule_beside_the_cohort_file_is_found_from_anywhere(tmp_path):
    written(tmp_path / "r.json", "{}")
    assert load_cohort(written(tmp_path / "a.json", sound(rule="r.json"))).rule == str(tmp_path / "r.json")
    assert load_cohort(written(tmp_path / "b.json", sound(rule="strict"))).rule == "strict"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([], "expected an object with keys out of name, "),
        (sound(name=None), "key 'name' is missing"),
        (sound(name=7), "name: expected text, got 7"),
        (sound(tabel="a.csv"), "unknown key 'tabel'; known: name"),
        (sound(class_column=None), "expected one of class_column, flag_columns, info_files, got none"),
        (sound(flag_columns={"a": "VSD"}), "got class_column and flag_columns"),
        (sound(id_pattern="("), "id_pattern: not a regular expression"),
        (sound(id_pattern="pat.*"), "id_pattern: expected one group (…) that is the patient, got 0"),
        (sound(id_pattern="(a)(b)"), "that is the patient, got 2"),
        (sound(values={"DCM": "sick"}), "values: 'DCM': 'sick'; expected a class (Cyanotic, "),
        (sound(values={"DCM": "VSD+PuA"}), "values: 'DCM': 'VSD+PuA'"),
        (sound(values={"DCM": ["VSD"]}), "values: 'DCM': ['VSD']"),
        (sound(values=[]), "values: expected an object"),
        (sound(class_column=None, flag_columns={"a": ""}), "flag_columns: 'a': ''"),
        (
            sound(class_column=None, flag_columns={"a": "VSD"}, values={"1": "VSD"}),
            "values: says what cells of class_column",
        ),
        (sound(class_column=None, info_files="Info.cfg"), "info_files: expected {'pattern': …, 'key': …}"),
        (sound(class_column=None, info_files={"pattern": "x", "key": "Group"}), "info_files: expected one group"),
        (sound(hu_offset="0"), "hu_offset: expected a number, got '0'"),
        (sound(hu_offset=True), "hu_offset: expected a number, got True"),
        (sound(absent_classes=["blue"]), "absent_classes: expected names out of Cyanotic"),
        (sound(absent_classes="Cyanotic"), "absent_classes: expected names out of Cyanotic"),
    ],
)
def test_a_wrong_cohort_file_is_refused_with_file_and_fault(tmp_path, content, fault):
    path = written(tmp_path / "mine.json", content)
    with pytest.raises(ValueError) as caught:
        load_cohort(path)
    assert str(caught.value).startswith(f"{path}: not a cohort file: ")
    assert fault in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_not_json_and_what_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"mine\.json: not a cohort file, since it is not JSON"):
        load_cohort(written(tmp_path / "mine.json", "name: mine"))
    with pytest.raises(FileNotFoundError, match=r"acd: no such cohort file; expected one of acdc, hvsmr2, or a file"):
        load_cohort("acd")
