"""Diagnoses from columns and info files, as a cohort file says; what it does not explain is a problem, never a guess."""

from pathlib import Path

import pytest
from tiny_cohort import write_rows

from monai_chd.cohort.layout_tables import read_cohort
from monai_chd.cohort.layouts import CohortConfig, load_cohort
from monai_chd.cohort.rules import load_rule

FLAGGED = CohortConfig(
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


def read(config, folder: Path, table: Path | None = None, rule: str = "strict"):
    return read_cohort(config, folder, table, load_rule(rule))


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
    assert by_id(table)["open"].reason == "undetermined: the cohort file leaves it open"
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
    config = CohortConfig("c", id_column="Pat", flag_columns={"VSD": "VSD"})
    path = write_rows(tmp_path / "t.csv", ["Pat", "VSD", "SV", "Age"], [["a", "1", "", "3"], ["b", "", "1", "4"]])
    (note,) = read(config, tmp_path, path).notes
    assert note.startswith("column SV looks like a diagnosis flag") and "; b have no other" in note


def test_cells_of_one_column_are_explained_by_values(tmp_path):
    config = CohortConfig("c", class_column="Group", values={"Fallot": "ToF", "shunt": "ASD+VSD", "healthy": "Normal"})
    path = write_rows(
        tmp_path / "t.csv", ["name", "group"], [["a", "fallot"], ["b", "SHUNT "], ["c", "healthy"], ["d", "?"]]
    )
    table = read(config, tmp_path, path)
    assert [(row.patient, row.label, row.flags) for row in table.rows] == [
        ("a", "Cyanotic", ("ToF",)), ("b", "Non-Cyanotic", ("ASD", "VSD")), ("c", "Normal", ()), ("d", None, ()),
    ]  # fmt: skip
    assert table.rows[3].problem == "value '?'; expected one of Fallot, shunt, healthy"
    assert table.has_flags


def test_without_values_cells_are_class_names(tmp_path):
    config = CohortConfig("c", class_column="group")
    path = write_rows(tmp_path / "t.csv", ["name", "group"], [["a", "non cyanotic"], ["b", "sick"]])
    table = read(config, tmp_path, path)
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
    table = read(load_cohort("acdc"), tmp_path)
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
        read(load_cohort("acdc"), tmp_path)
    path = write_rows(tmp_path / "t.csv", ["Pat", *FLAGGED.flag_columns], [])
    with pytest.raises(ValueError, match="a header but no rows"):
        read(FLAGGED, tmp_path, path)
