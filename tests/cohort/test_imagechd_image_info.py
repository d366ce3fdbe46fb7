"""The sheet of images gives voxel size, scanner and, if asked, age; birth dates and sex never come out."""

import datetime
import re

import pytest
from openpyxl import Workbook
from tiny_imagechd import info_row, write_info

from monai_chd.cohort.imagechd_image_info import ImageInfo, find_image_info, read_image_info


def read_one(tmp_path, row, **choices):
    sheet = read_image_info(write_info(tmp_path / "a_image_info.xlsx", [row]), **choices)
    return sheet.scans.get("1001"), sheet.notes


def test_a_row_of_keys_and_values_gives_spacing_and_scanner_under_idx_plus_1000(tmp_path):
    sheet = read_image_info(write_info(tmp_path / "a.xlsx", [info_row(1178), info_row(1001, x=0.5, z="1,5")]))
    assert sheet.scans == {
        "1178": ImageInfo((0.25, 0.25, 0.75), "iCT 256"),
        "1001": ImageInfo((0.5, 0.5, 1.5), "iCT 256"),
    }
    assert sheet.notes == []


@pytest.mark.parametrize(
    "born", [20100101, 20100101.0, "20100101", " 20100101 ", "2010-01-01", datetime.datetime(2010, 1, 1)]
)
def test_the_age_is_from_birth_to_scan_in_years_however_dates_are_written(tmp_path, born):
    info, notes = read_one(tmp_path, info_row(1001, born=born), ages=True)
    assert info.age_years == 2.5  # 1 January 2010 to 1 July 2012: 912 days of 365.25 a year
    assert notes == []


def test_the_age_of_a_newborn_is_not_zero(tmp_path):
    assert read_one(tmp_path, info_row(1001, born=20120623), ages=True)[0].age_years == 0.02


def test_without_being_asked_there_is_no_age(tmp_path):
    assert read_one(tmp_path, info_row(1001))[0].age_years is None


def test_nothing_but_the_three_facts_leaves_the_reader(tmp_path):
    for born in (20100101, 20200101, "1.1.2010?", None):
        info, notes = read_one(tmp_path, info_row(1001, born=born, x="wide"), ages=True)
        assert set(vars(info)) == {"spacing_mm", "scanner", "age_years"}
        told = f"{info} {notes}"
        assert not re.search(r"2010|2012|2020|0101|0701|'F'|'M'", told), told


@pytest.mark.parametrize("born", [20200101, "soon", "", None, 20101399, 2010])
def test_two_dates_that_are_none_or_turned_round_give_no_age_and_a_note(tmp_path, born):
    info, notes = read_one(tmp_path, info_row(1001, born=born), ages=True)
    assert info.age_years is None
    assert notes == ["a_image_info.xlsx, row 1 (1001): the two dates are not dates in order; no age"]


@pytest.mark.parametrize("size", ["0", "-0,3", "", None, "wide", "nan", "1e999", "0.3\\0.3"])
def test_a_size_that_is_no_positive_number_gives_no_spacing_and_a_note(tmp_path, size):
    info, notes = read_one(tmp_path, info_row(1001, x=size))
    assert info.spacing_mm is None
    assert info.scanner == "iCT 256"
    assert "not three positive numbers; no spacing" in notes[0]


@pytest.mark.parametrize("idx", [1, 1.0, "1", " 1 ", "ct_1001", 1001])
def test_an_idx_is_a_number_however_it_is_written(tmp_path, idx):
    assert read_one(tmp_path, ["Idx ", idx, *info_row(1001)[2:]])[0].scanner == "iCT 256"


def test_keys_may_stand_in_another_order_and_case(tmp_path):
    row = info_row(1001)
    turned = [*row[8:11], *row[:8], *row[11:]]
    info, _ = read_one(tmp_path, [cell.upper() if isinstance(cell, str) and len(cell) > 3 else cell for cell in turned])
    assert info == ImageInfo((0.25, 0.25, 0.75), "ICT 256")


def test_a_scanner_without_its_key_stands_after_the_thickness_and_a_letter_there_is_none(tmp_path):
    row = info_row(1001)
    assert read_one(tmp_path, [*row[:13], "SOMATOM Definition Flash"])[0].scanner == "SOMATOM Definition Flash"
    assert read_one(tmp_path, [*row[:13], "M"])[0].scanner == ""
    assert read_one(tmp_path, row[:13])[0].scanner == ""


def test_a_row_without_idx_and_a_second_of_the_same_are_said_and_empty_ones_are_not(tmp_path):
    rows = [info_row(1001), [None], info_row(1002)[2:], info_row(1003), info_row(1003), info_row(1003)]
    sheet = read_image_info(write_info(tmp_path / "a.xlsx", rows))
    assert set(sheet.scans) == {"1001"}
    assert [note.split(":")[0] for note in sheet.notes] == ["a.xlsx, row 3", "a.xlsx, row 5", "a.xlsx, row 6"]


def test_files_that_are_no_such_sheet(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.xlsx: no such sheet of images"):
        read_image_info(tmp_path / "a.xlsx")
    (tmp_path / "a.xlsx").write_bytes(b"PK no workbook")
    with pytest.raises(ValueError, match=r"a\.xlsx: cannot be read as a workbook .* copy or download it again"):
        read_image_info(tmp_path / "a.xlsx")
    book = Workbook()
    book.active.append(["name", "of", "nothing"])
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(ValueError, match=r"a\.xlsx: no row holds an idx; expected rows of keys and values"):
        read_image_info(tmp_path / "a.xlsx")


def test_the_sheet_is_found_in_any_case_and_depth_and_two_are_refused(tmp_path):
    assert find_image_info(tmp_path) is None
    for name in (
        "._imagechd_dataset_image_info.xlsx",
        "imageCHD_dataset_info.xlsx",
        "x/ImageCHD_Dataset_IMAGE_INFO.XLSX",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_image_info(tmp_path) == tmp_path / "x/ImageCHD_Dataset_IMAGE_INFO.XLSX"
    (tmp_path / "b_image_info.xlsx").touch()
    with pytest.raises(ValueError, match=r"several sheets of images \(b_image_info.xlsx, x/ImageCHD"):
        find_image_info(tmp_path)


def test_an_unreadable_cell_is_no_value_and_none_moves_into_its_place(tmp_path):
    row = info_row(1001)
    size, scanner = row.index(" PixelSpacing ") + 1, len(row) - 1
    info, notes = read_one(tmp_path, [*row[:size], "#N/A", 0.3, 0.4, *row[size + 2 :]])
    assert info.spacing_mm is None and "not three positive numbers; no spacing" in notes[0]
    info, notes = read_one(tmp_path, [*row[:scanner], "#REF!", "ANALOG 5"])
    assert (info.scanner, info.spacing_mm) == ("", (0.25, 0.25, 0.75))
    assert notes == ["a_image_info.xlsx, row 1 (1001): O1 holds the error #REF!; write what it should say; no scanner"]
    sheet = read_image_info(write_info(tmp_path / "b.xlsx", [["idx", "#N/A", 7, *row[2:]], info_row(1002)]))
    assert set(sheet.scans) == {"1002"} and "row 1: no whole number after idx" in sheet.notes[0]


def test_a_birth_date_by_a_formula_never_worked_out_gives_no_age_and_is_not_shown(tmp_path):
    row = info_row(1001, born='=20100101&""')
    info, notes = read_one(tmp_path, row, ages=True)
    assert (info.age_years, notes) == (
        None, ["a_image_info.xlsx, row 1 (1001): the two dates are not dates in order; no age"],
    )  # fmt: skip
