"""Layouts are checked whole; diagnoses are read from where they say, and what they do not explain is never guessed."""

import json
from pathlib import Path

import pytest
from tiny_cohort import write_rows

from monai_chd.cohort.layouts import LAYOUTS, Layout, load_layout, read_by_layout
from monai_chd.cohort.rules import UNDETERMINED, load_rule
from monai_chd.labels import CLASSES, FLAGS


def sound(**changes) -> dict:
    content = {"name": "mine", "class_column": "group", **changes}
    return {key: value for key, value in content.items() if value is not None}


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_examples_are_sound_and_usable_by_name():
    assert LAYOUTS.names == ["acdc", "hvsmr2"]
    assert load_layout("acdc").values["DCM"] == "Non-Cyanotic"
    assert load_layout("hvsmr2").flag_columns["D-TGA"] == "TGA"
    assert load_layout("hvsmr2") == load_layout(LAYOUTS.folder / "hvsmr2.json")


def test_the_schema_has_the_classes_and_flags_of_labels():
    words, pattern = LAYOUTS.schema["definitions"]["meaning"]["anyOf"]
    flag = f"({'|'.join(FLAGS)})"
    assert words["enum"] == [*CLASSES, UNDETERMINED]
    assert pattern["pattern"] == rf"^{flag}(\+{flag})*$(?!\n)"
    assert LAYOUTS.schema["properties"]["absent_classes"]["items"]["enum"] == list(CLASSES)


def test_a_rule_beside_the_layout_is_found_from_anywhere(tmp_path):
    written(tmp_path / "r.json", "{}")
    assert load_layout(written(tmp_path / "a.json", sound(rule="r.json"))).rule == str(tmp_path / "r.json")
    assert load_layout(written(tmp_path / "b.json", sound(rule="strict"))).rule == "strict"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([], "expected an object, got []"),
        (sound(name=None), 'key "name" is missing (what to call the cohort)'),
        (sound(name=7), "name: expected text, got 7"),
        (sound(tabel="a.csv"), 'unknown key "tabel"; known: name, '),
        (sound(class_column=None), "expected one of class_column, flag_columns, info_files, got none"),
        (sound(flag_columns={"a": "VSD"}), "got class_column and flag_columns"),
        (sound(id_pattern="("), "id_pattern: not a regular expression"),
        (sound(id_pattern="pat.*"), "id_pattern: expected one group (…) that is the patient, got 0"),
        (sound(id_pattern="(a)(b)"), "that is the patient, got 2"),
        (
            sound(values={"DCM": "sick"}),
            "values, DCM: expected a class (Cyanotic, Non-Cyanotic, Normal), undetermined (left out), or diagnosis flags",
        ),
        (sound(values={"DCM": "VSD+PuA"}), 'got "VSD+PuA"'),
        (sound(values={"DCM": ["VSD"]}), 'values, DCM: expected text, got ["VSD"]'),
        (sound(values={"DCM": "VSD\n"}), 'got "VSD\\n"'),
        (sound(values={}), "values: expected one key or more, got {}"),
        (sound(class_column=None, info_files={"key": "Group"}), 'info_files: key "pattern" is missing'),
        (sound(values=[]), "values: expected an object, got []"),
        (sound(class_column=None, flag_columns={"a": ""}), "flag_columns, a: expected a class (Cyanotic, "),
        (
            sound(class_column=None, flag_columns={"a": "VSD"}, values={"1": "VSD"}),
            "values and flag_columns exclude each other: values says what cells of class_column",
        ),
        (sound(class_column=None, info_files="Info.cfg"), 'info_files: expected an object, got "Info.cfg"'),
        (
            sound(class_column=None, info_files={"pattern": "x", "key": "Group"}),
            "info_files, pattern: expected one group",
        ),
        (sound(hu_offset="0"), 'hu_offset: expected a number, got "0"'),
        (sound(hu_offset=True), "hu_offset: expected a number, got true"),
        (sound(absent_classes=["blue"]), "absent_classes 1: expected one of Cyanotic, Non-Cyanotic, Normal, got"),
        (sound(absent_classes="Cyanotic"), 'absent_classes: expected a list, got "Cyanotic"'),
    ],
)
def test_a_wrong_layout_is_refused_with_file_and_fault(tmp_path, content, fault):
    path = written(tmp_path / "mine.json", content)
    with pytest.raises(ValueError) as caught:
        load_layout(path)
    assert str(caught.value).startswith(f"{path}: not a layout: ")
    assert fault in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_not_json_and_what_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"mine\.json: not a layout, since it is not JSON"):
        load_layout(written(tmp_path / "mine.json", "name: mine"))
    with pytest.raises(FileNotFoundError, match=r"acd: no such layout; expected one of acdc, hvsmr2, or a file"):
        load_layout("acd")


# reading by a layout


FLAGGED = Layout(
    "c",
    id_column="Pat",
    flag_columns={
        "VSD": "VSD",
        "D-TGA": "TGA",
        "DORV": "DORV",
        "Fontan": "Cyanotic",
        "Other": "undetermined",
        "Normal": "Normal",
    },
)


def read(layout, folder: Path, table: Path | None = None, rule: str = "strict"):
    return read_by_layout(layout, folder, table, load_rule(rule))


def by_id(table):
    return {row.patient: row for row in table.rows}


def test_columns_mean_flags_or_classes_and_cyanotic_goes_first(tmp_path):
    header = ["pat ", "VSD", "D-TGA", "DORV", "Fontan", "Other", "Normal"]
    rows = {
        "tga": "010000", "vsd": "100000", "both": "110000", "dorv": "101000", "fontan": "100100", "open": "000010",
        "open+vsd": "100010", "open+tga": "010010", "normal": "000001", "none": "000000",
    }  # fmt: skip
    path = write_rows(tmp_path / "t.csv", header, [[name, *cells] for name, cells in rows.items()])
    table = read(FLAGGED, tmp_path, path)
    assert {name: row.label for name, row in by_id(table).items()} == {
        "tga": "Cyanotic", "vsd": "Non-Cyanotic", "both": "Cyanotic", "dorv": None, "fontan": "Cyanotic", "open": None,
        "open+vsd": None, "open+tga": "Cyanotic", "normal": "Normal", "none": "Normal",
    }  # fmt: skip
    assert by_id(table)["both"].flags == ("VSD", "TGA")
    assert by_id(table)["dorv"].reason.startswith("undetermined: VSD+DORV is")
    assert by_id(table)["open"].reason == "undetermined: the layout leaves it open"
    assert table.has_flags and not any(row.problem for row in table.rows)


def test_the_rule_has_its_say(tmp_path):
    path = write_rows(tmp_path / "t.csv", ["Pat", *FLAGGED.flag_columns], [["a", "", "", "1", "", "", ""]])
    assert read(FLAGGED, tmp_path, path, "conventional").rows[0].label == "Cyanotic"


def test_bad_rows_are_given_with_what_is_wrong_and_empty_lines_are_not(tmp_path):
    rows = [
        ["a", "1", "", "", "", "", "1"], ["", "1", "", "", "", "", ""], ["b", "x", "", "", "", "", ""], [""] * 7,
    ]  # fmt: skip
    path = write_rows(tmp_path / "t.csv", ["Pat", *FLAGGED.flag_columns], rows)
    assert [(row.row, row.problem, row.label) for row in read(FLAGGED, tmp_path, path).rows] == [
        (2, "Normal and VSD at once", None),
        (3, "the id is empty", None),
        (4, "VSD is 'x'; expected 1, 0 or blank", None),
    ]


def test_columns_that_are_not_there_are_named_and_unknown_flags_warned_of(tmp_path):
    path = write_rows(tmp_path / "t.csv", ["Pat", "VSD"], [["a", "1"]])
    with pytest.raises(ValueError, match=r"t\.csv: no column 'D-TGA', .*which cohort c names; got Pat, VSD"):
        read(FLAGGED, tmp_path, path)
    layout = Layout("c", id_column="Pat", flag_columns={"VSD": "VSD"})
    path = write_rows(tmp_path / "t.csv", ["Pat", "VSD", "SV", "Age"], [["a", "1", "", "3"], ["b", "", "1", "4"]])
    (note,) = read(layout, tmp_path, path).notes
    assert note.startswith("column SV looks like a diagnosis flag") and "; b have no other" in note


def test_cells_of_one_column_are_explained_by_values(tmp_path):
    layout = Layout("c", class_column="Group", values={"Fallot": "ToF", "shunt": "ASD+VSD", "healthy": "Normal"})
    path = write_rows(
        tmp_path / "t.csv", ["name", "group"], [["a", "fallot"], ["b", "SHUNT "], ["c", "healthy"], ["d", "?"]]
    )
    table = read(layout, tmp_path, path)
    assert [(row.patient, row.label, row.flags) for row in table.rows] == [
        ("a", "Cyanotic", ("ToF",)), ("b", "Non-Cyanotic", ("ASD", "VSD")), ("c", "Normal", ()), ("d", None, ()),
    ]  # fmt: skip
    assert table.rows[3].problem == "value '?'; expected one of Fallot, shunt, healthy"
    assert table.has_flags


def test_without_values_cells_are_class_names(tmp_path):
    layout = Layout("c", class_column="group")
    path = write_rows(tmp_path / "t.csv", ["name", "group"], [["a", "non cyanotic"], ["b", "sick"]])
    table = read(layout, tmp_path, path)
    assert [row.label for row in table.rows] == ["Non-Cyanotic", None]
    assert "expected one of Cyanotic" in table.rows[1].problem
    assert not table.has_flags


def test_info_files_give_a_row_each_under_their_own_name(tmp_path):
    for name, text in {
        "patient001": "ED: 1\nGroup: DCM\n",
        "patient002": "group :NOR",
        "patient003": "Group: XYZ",
        "patient004": "",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "Info.cfg").write_text(text)
    table = read(load_layout("acdc"), tmp_path)
    assert [(row.where, row.patient, row.label) for row in table.rows] == [
        ("patient001/Info.cfg", "patient001", "Non-Cyanotic"),
        ("patient002/Info.cfg", "patient002", "Normal"),
        ("patient003/Info.cfg", "patient003", None),
        ("patient004/Info.cfg", "patient004", None),
    ]
    assert [row.problem for row in table.rows[2:]] == [
        "value 'XYZ'; expected one of NOR, DCM, HCM, MINF, RV", "no line Group: …",
    ]  # fmt: skip
    assert not table.has_flags


def test_no_info_file_and_an_empty_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="no info file of cohort ACDC found; expected paths like"):
        read(load_layout("acdc"), tmp_path)
    path = write_rows(tmp_path / "t.csv", ["Pat", *FLAGGED.flag_columns], [])
    with pytest.raises(ValueError, match="a header but no rows"):
        read(FLAGGED, tmp_path, path)
