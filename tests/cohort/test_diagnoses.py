"""Who counts as what: table, rule and the meaning of no diagnosis together, or a refusal to mix what does not fit."""

import json
from collections import Counter

import pytest
from tiny_cohort import write_rows
from tiny_imagechd import write_diagnoses

from monai_chd.cohort.diagnoses import read_diagnoses
from monai_chd.cohort.layouts import load_layout
from monai_chd.labels import FLAGS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The workbook as released; not to be changed."""
    folder = tmp_path_factory.mktemp("released")
    write_diagnoses(folder / "imageCHD_dataset_info.xlsx")
    return folder


def counts(found):
    return Counter(row.label for row in found.rows)


def phantom_table(tmp_path):
    rows = [[1001 + i, *(int(flag == FLAGS[i % 16]) for flag in FLAGS)] for i in range(60)]
    return write_rows(tmp_path / "table.csv", ["index", *FLAGS], rows)


def test_the_default_is_strict_and_all_unflagged(folder):
    found = read_diagnoses(folder)
    assert counts(found) == {"Cyanotic": 36, "Non-Cyanotic": 40, "Normal": 21, None: 13}
    assert (found.rule["name"], found.normal, found.is_imagechd, found.notes) == ("strict", "unflagged", True, [])
    assert found.name == "imageCHD_dataset_info.xlsx"


@pytest.mark.parametrize(
    ("normal", "ids"), [("uncontradicted", "1003 1047 1063 1072 1101"), ("confirmed", "1072 1101")]
)
@pytest.mark.parametrize("rule", ["strict", "conventional", "public72"])
def test_normal_is_independent_of_the_rule(folder, normal, ids, rule):
    all_, some = (read_diagnoses(folder, rule=rule, normal=kind) for kind in ("unflagged", normal))
    # 1047 is non-cyanotic in the list, whatever normal means
    expected = set(ids.split()) - ({"1047"} if rule == "public72" else set())
    assert {row.patient for row in some.rows if row.label == "Normal"} == expected
    for label in ("Cyanotic", "Non-Cyanotic"):
        assert counts(all_)[label] == counts(some)[label]
    assert all(row.reason for row in some.rows if row.label is None)
    assert some.normal == normal


def test_conflicts_of_a_list_are_among_the_notes(folder):
    assert [note.split()[2] for note in read_diagnoses(folder, rule="public72").notes] == ["1008", "1047"]
    assert [note.split()[2] for note in read_diagnoses(folder, rule="seed57").notes] == ["1047"]


def test_counts_that_differ_from_the_released_ones_are_noted(tmp_path):
    def change(rows):
        next(row for row in rows if row[0] == 1041)[1 + FLAGS.index("VSD")] = None

    write_diagnoses(tmp_path / "imageCHD_dataset_info.xlsx", change)
    assert read_diagnoses(tmp_path).notes == ["VSD: 35 patients, 36 in ImageCHD as released; they differ in 1041"]


@pytest.mark.parametrize("normal", ["uncontradicted", "confirmed"])
def test_tiers_are_refused_for_another_cohort_and_say_why(tmp_path, normal):
    table = phantom_table(tmp_path)
    with pytest.raises(
        ValueError, match=rf"normal {normal}: .* table\.csv is not its table: \d+ of its 60 ids .* leave --normal"
    ):
        read_diagnoses(tmp_path, table, normal=normal)


def test_tiers_are_refused_where_the_ids_are_right_and_the_flags_are_not(tmp_path):
    def change(rows):
        flags = [row[1:] for row in rows[1:]]
        for row, other in zip(rows[1:], reversed(flags), strict=True):
            row[1:] = other

    write_diagnoses(tmp_path / "imageCHD_dataset_info.xlsx", change)
    with pytest.raises(ValueError, match=r"only .* of 110 patients have the flags of ImageCHD"):
        read_diagnoses(tmp_path, normal="confirmed")
    assert not read_diagnoses(tmp_path).is_imagechd


@pytest.mark.parametrize("rule", ["public72", "seed57"])
def test_a_list_of_imagechds_patients_is_refused_for_another_cohort(tmp_path, rule):
    with pytest.raises(ValueError, match=rf"rule {rule}: lists patients of ImageCHD, and table\.csv is not its table"):
        read_diagnoses(tmp_path, phantom_table(tmp_path), rule=rule)


def test_a_table_of_classes_takes_neither_rule_nor_normal(tmp_path):
    table = write_rows(tmp_path / "cases.csv", ["patient", "class"], [["1", "Normal"]])
    for choice in ({"rule": "strict"}, {"normal": "confirmed"}):
        with pytest.raises(ValueError, match=r"cases\.csv: holds classes, not diagnosis flags; --rule and --normal"):
            read_diagnoses(tmp_path, table, **choice)
    found = read_diagnoses(tmp_path, table)
    assert (found.rule, found.normal, found.is_imagechd) == (None, None, False)


def test_an_unknown_kind_of_normal(folder):
    with pytest.raises(ValueError, match="normal: expected one of unflagged, uncontradicted, confirmed, got 'all'"):
        read_diagnoses(folder, normal="all")


def test_the_rule_asked_for_goes_before_the_layouts(tmp_path):
    write_rows(tmp_path / "t.csv", ["id", "DORV"], [["a", "1"]])
    path = tmp_path / "cohort.json"
    path.write_text(
        json.dumps({"name": "c", "flag_columns": {"DORV": "DORV"}, "table": "t.csv", "rule": "conventional"})
    )
    layout = load_layout(path)
    assert counts(read_diagnoses(tmp_path, layout=layout)) == {"Cyanotic": 1}
    assert counts(read_diagnoses(tmp_path, layout=layout, rule="strict")) == {None: 1}
