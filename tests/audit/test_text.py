"""The printed audit has every figure with its range and n, and what was not compared before anything else."""

import copy

import pytest
from tiny_datalist import cohort_of_numbers, quiet, record, write_list

from monai_chd.audit.text import SHOWN, audit_text
from monai_chd.labels import CLASSES


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """Records of 60 patients without files, and their audit."""
    return cohort_of_numbers(tmp_path_factory.mktemp("numbers"))


def section(text, title):
    """Lines below a title, down to an empty one."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    return lines[start + 1 : lines.index("", start)]


def test_each_class_has_a_row_in_each_place_with_n_and_range(numbers):
    records, result = numbers
    header, *rows = section(audit_text(result), "CONFOUNDERS BY CLASS AND PLACE")
    assert header.split()[:3] == ["class", "place", "n"]
    assert len(rows) == 6
    parts = {"fold 0": records[::2], "the test part": records[1::2]}
    for row, (name, place) in zip(rows, [(name, place) for name in CLASSES for place in parts], strict=True):
        own = [one["confounders"] for one in parts[place] if one["label"] == CLASSES.index(name)]
        assert row.split()[: 2 + len(place.split())] == [name, *place.split(), str(len(own))]
        slices = sorted(one["slices"] for one in own)
        assert f"{(slices[4] + slices[5]) / 2:.4g} [{slices[0]}-{slices[-1]}]" in row
        ages = [one["age_years"] for one in own if one["age_years"] is not None]
        known = "" if len(ages) == len(own) else f" of {len(ages)}"
        assert f"[{min(ages):.4g}-{max(ages):.4g}]{known}  " in row
        assert "yes 10" in row


def test_confounders_known_of_nobody_have_no_column_by_place(tmp_path):
    known = record("a.nii.gz", "1", 0, confounders={"slices": 137})
    text = audit_text(quiet(write_list(tmp_path, {"fold 0": [known], "fold 1": [record("b.nii.gz", "2", 0)]})))
    header, first, second = section(text, "CONFOUNDERS BY CLASS AND PLACE")
    assert header.split() == ["class", "place", "n", "slice", "count"]
    assert first.split()[-3:] == ["1", "137", "[137-137]"]
    assert second.split()[-2:] == ["1", "-"]
    assert "unknown (n=0 of 2)" in text


def test_nothing_known_at_all_has_no_table_by_place(tmp_path):
    text = audit_text(quiet(write_list(tmp_path, {"fold 0": [record("a.nii.gz", "1")]})))
    assert "CONFOUNDERS BY CLASS AND PLACE" not in text


def test_many_findings_are_cut_and_the_json_named(tmp_path):
    lists = [record(f"{n}.nii.gz", str(n)) for n in range(SHOWN + 3)]
    text = audit_text(quiet(write_list(tmp_path, {"fold 0": lists})))
    listed = section(text, f"NOT COMPARED: {SHOWN + 3} found")
    assert len(listed) == SHOWN + 1
    assert "3 more in the JSON" in listed[-1]


def test_what_was_not_compared_is_listed_once(tmp_path):
    text = audit_text(quiet(write_list(tmp_path, {"fold 0": [record("gone.nii.gz", "1")]})))
    assert text.count("gone.nii.gz") == 1
    assert "PROBLEMS" not in text


def test_printing_changes_nothing(numbers):
    _, result = numbers
    before = copy.deepcopy(result)
    audit_text(result)
    assert result == before
