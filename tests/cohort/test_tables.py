"""Tables as people have them, read to the same classes; what is wrong with a row or file is said, never passed over."""

import csv
from collections import Counter
from pathlib import Path

import pytest
from openpyxl import Workbook

from monai_chd.cohort.rules import load_rule
from monai_chd.cohort.tables import Diagnosis, class_name, find_table, load_table, read_table
from monai_chd.labels import FLAGS

FLAG_TABLE = Path(__file__).parents[1] / "data" / "imagechd_flags.csv"
COUNTS = {"Cyanotic": 36, "Non-Cyanotic": 40, None: 13, "Normal": 21}


def write_book(path: Path, header: list, rows: list[list], sheet: str = "classification dataset", before: str = ""):
    """A workbook; `before` names a decoy sheet that stands first."""
    book = Workbook()
    book.active.title = sheet
    named = {str(name).strip().lower() for name in header}
    others = (
        [flag for flag in FLAGS if flag.lower() not in named] if len(named & {f.lower() for f in FLAGS}) > 1 else []
    )
    for row in [[*header, *others], *rows]:
        book.active.append(row)
    if before:
        book.create_sheet(before, 0).append(["notes", "of", "somebody"])
    book.save(path)
    return path


def imagechd_cells(present: object = 1) -> list[list]:
    """The 110 rows as in the released workbook: numeric id, `present` or blank, and the one explicit 0."""
    with FLAG_TABLE.open(newline="") as file:
        rows = [
            [int(row["index"]), *(present if row[f] == "1" else None for f in FLAGS)] for row in csv.DictReader(file)
        ]
    next(row for row in rows if row[0] == 1047)[1 + FLAGS.index("VSD")] = 0
    return rows


def flag_book(path: Path, *rows: list, flags: tuple[str, ...] = ("VSD", "ToF", "DORV")) -> Path:
    return write_book(path, ["index", *flags], list(rows))


def by_id(rows: list[Diagnosis]) -> dict[str, Diagnosis]:
    return {row.patient: row for row in rows}


# ImageCHD's workbook


def test_the_workbook_as_released_gives_the_published_counts(tmp_path):
    # used range A1:V111: five empty columns after the last flag
    cells = [[*row, *[None] * 5] for row in imagechd_cells()]
    rows = read_table(write_book(tmp_path / "imageCHD_dataset_info.xlsx", ["index", *FLAGS, *[None] * 5], cells))
    assert Counter(row.label for row in rows) == COUNTS
    assert [row.patient for row in rows] == [str(row[0]) for row in cells]
    assert [row.row for row in rows] == list(range(2, 112))
    assert not any(row.problem or row.image for row in rows)


def test_each_row_keeps_its_flags_in_the_order_of_the_sheet(tmp_path):
    rows = by_id(read_table(write_book(tmp_path / "a.xlsx", ["index", *FLAGS], imagechd_cells())))
    assert rows["1112"].flags == ("VSD", "DORV", "CA", "AAH", "PDA")
    assert rows["1010"].flags == ("ToF",)


def test_the_explicit_zero_of_1047_is_no_flag(tmp_path):
    row = by_id(read_table(write_book(tmp_path / "a.xlsx", ["index", *FLAGS], imagechd_cells())))["1047"]
    assert (row.label, row.flags) == ("Normal", ())


@pytest.mark.parametrize("present", [1, 1.0, "1", "1.0", " 1 ", True, "TRUE", "true"], ids=repr)
def test_any_spelling_of_one_means_present(tmp_path, present):
    rows = read_table(write_book(tmp_path / "a.xlsx", ["index", *FLAGS], imagechd_cells(present)))
    assert Counter(row.label for row in rows) == COUNTS


@pytest.mark.parametrize("absent", [None, 0, 0.0, "0", "", "  ", False, "false"], ids=repr)
def test_zero_and_blank_mean_absent(tmp_path, absent):
    (row,) = read_table(flag_book(tmp_path / "a.xlsx", [1, absent, absent, absent]))
    assert (row.label, row.flags, row.problem) == ("Normal", (), "")


@pytest.mark.parametrize("spelling", ["ToF", "TOF", "tof", " Tof "])
def test_fallot_is_found_in_any_case(tmp_path, spelling):
    header = ["Index ", *(spelling if flag == "ToF" else flag for flag in FLAGS)]
    rows = read_table(write_book(tmp_path / "a.xlsx", header, imagechd_cells()))
    assert sum("ToF" in row.flags for row in rows) == 12
    assert Counter(row.label for row in rows) == COUNTS


def test_columns_in_another_order_between_unknown_ones_are_read_the_same(tmp_path):
    header = ["NORMAL", *reversed(FLAGS), "AGE", "index", "*1"]
    cells = [[1, *reversed(row[1:]), 12, row[0], "x"] for row in imagechd_cells()]
    rows = read_table(write_book(tmp_path / "a.xlsx", header, cells))
    assert Counter(row.label for row in rows) == COUNTS
    assert by_id(rows)["1112"].flags == ("VSD", "DORV", "CA", "AAH", "PDA")


def test_the_named_sheet_is_read_wherever_it_stands(tmp_path):
    book = write_book(
        tmp_path / "a.xlsx", ["index", *FLAGS], imagechd_cells(), " Classification Dataset", before="notes"
    )
    assert Counter(row.label for row in read_table(book)) == COUNTS


def test_without_the_named_sheet_the_first_one_is_read(tmp_path):
    book = write_book(tmp_path / "a.xlsx", ["index", *FLAGS], imagechd_cells(), sheet="Sheet1")
    assert Counter(row.label for row in read_table(book)) == COUNTS


def test_a_hidden_sheet_is_not_the_one_a_person_sees_and_the_others_are_named(tmp_path):
    book = Workbook()
    book.active.title, book.active.sheet_state = "last year", "hidden"
    book.active.append(["patient", "class"])
    book.active.append([1001, "Normal"])
    seen = book.create_sheet("now")
    seen.append(["patient", "class"])
    seen.append([1001, "Cyanotic"])
    book.active = 1
    book.save(tmp_path / "a.xlsx")
    table = load_table(tmp_path / "a.xlsx")
    assert [row.label for row in table.rows] == ["Cyanotic"]
    assert table.notes == ["a.xlsx: read the sheet 'now', not 'last year'"]


def test_rows_that_a_filter_hides_are_read_and_named(tmp_path):
    book = Workbook()
    for row in (["patient", "class"], [1001, "Normal"], [1002, "Cyanotic"], [1003, "Normal"]):
        book.active.append(row)
    for number in (3, 4, 5000):  # the last is below the table
        book.active.row_dimensions[number].hidden = True
    book.save(tmp_path / "a.xlsx")
    table = load_table(tmp_path / "a.xlsx")
    assert [row.patient for row in table.rows] == ["1001", "1002", "1003"]
    assert table.notes == ["a.xlsx: rows hidden in the sheet are read like all others: 3, 4"]


@pytest.mark.parametrize(
    "written", [1001, 1001.0, "1001", " 1001 ", "ct_1001", "CT_1001", "ct_1001_image", "ct_1001_image.nii.gz"], ids=repr
)
def test_an_id_is_the_number_however_it_is_written(tmp_path, written):
    (row,) = read_table(flag_book(tmp_path / "a.xlsx", [written, 1]))
    assert row.patient == "1001"


@pytest.mark.parametrize(("flags", "names"), [(("VSD", "DORV"), "VSD+DORV"), (("APVC",), "APVC")])
def test_an_undetermined_row_says_which_flags_leave_it_open(tmp_path, flags, names):
    (row,) = read_table(write_book(tmp_path / "a.xlsx", ["index", *flags, "PDA", "CA"], [[1, *[1] * len(flags)]]))
    assert (row.label, row.problem) == (None, "")
    assert row.reason.startswith(f"undetermined: {names} is")


@pytest.mark.parametrize("cell", ["yes", 2, -1, "1?", "NA", "n/a"], ids=repr)
def test_a_flag_cell_that_says_neither_is_a_problem_of_its_row(tmp_path, cell):
    sound, bad = read_table(flag_book(tmp_path / "a.xlsx", [1, 1, None], [2, None, cell]))
    assert (sound.problem, sound.label) == ("", "Non-Cyanotic")
    assert (bad.row, bad.label) == (3, None)
    assert bad.problem == f"ToF is {str(cell)!r}; expected 1, 0 or blank"


def test_an_empty_id_is_a_problem_and_empty_lines_are_not(tmp_path):
    rows = read_table(flag_book(tmp_path / "a.xlsx", [1, 1], [None, None], [None, 1], [2, 1], [None, None]))
    assert [(row.row, row.patient, row.problem) for row in rows] == [
        (2, "1", ""),
        (4, "", "the id is empty"),
        (5, "2", ""),
    ]


def test_flags_without_an_id_column_are_refused_by_name(tmp_path):
    book = write_book(tmp_path / "a.xlsx", ["number", "VSD", "ToF"], [[1, 1, 0]])
    with pytest.raises(ValueError, match=r"a\.xlsx: no id column; expected one named 'index'.*got number, VSD, ToF"):
        read_table(book)


def test_the_workbooks_own_id_column_goes_before_other_ids(tmp_path):
    (row,) = read_table(write_book(tmp_path / "a.xlsx", ["id", "index", "VSD", "ToF"], [["x", 1001, 1, 0]]))
    assert row.patient == "1001"


def test_flags_may_come_as_csv(tmp_path):
    rows = read_table(FLAG_TABLE)
    assert Counter(row.label for row in rows) == COUNTS


# tables of classes


def test_a_csv_of_id_and_class_keeps_ids_as_they_are_written(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("patient,class\n007,Cyanotic\n7,Normal\nNA,Non-Cyanotic\n1001.0,Normal\n")
    assert [(row.patient, row.label, row.problem) for row in read_table(table)] == [
        ("007", "Cyanotic", ""),
        ("7", "Normal", ""),
        ("NA", "Non-Cyanotic", ""),
        ("1001.0", "Normal", ""),
    ]


def test_a_csv_of_path_and_class(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("image,class\na/scan 1.nii.gz,Cyanotic\nb.nii,Normal\n")
    assert read_table(table) == [
        Diagnosis(2, image="a/scan 1.nii.gz", label="Cyanotic"),
        Diagnosis(3, image="b.nii", label="Normal"),
    ]


def test_an_excel_table_of_classes_reads_numbers_as_ids(tmp_path):
    rows = read_table(
        write_book(tmp_path / "a.xlsx", ["id", "Diagnosis"], [[7, "Normal"], [8.0, "Cyanotic"]], "Sheet1")
    )
    assert [(row.patient, row.label) for row in rows] == [("7", "Normal"), ("8", "Cyanotic")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", ", "], ids=repr)
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "BOM"])
def test_any_usual_delimiter_and_a_byte_order_mark(tmp_path, delimiter, start):
    table = tmp_path / "a.csv"
    lines = [["patient_id", "scan", "Class"], ["01", "x", "Cyanotic"], ["02", "", "Non-Cyanotic"], ["é", "", "Normal"]]
    table.write_text(start + "\r\n".join(delimiter.join(line) for line in lines) + "\r\n", encoding="utf-8")
    assert [(row.patient, row.label) for row in read_table(table)] == [
        ("01", "Cyanotic"),
        ("02", "Non-Cyanotic"),
        ("é", "Normal"),
    ]


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("non cyanotic", "Non-Cyanotic"),
        ("NON-CYANOTIC", "Non-Cyanotic"),
        ("noncyanotic", "Non-Cyanotic"),
        ("Non_Cyanotic", "Non-Cyanotic"),
        (" cyanotic ", "Cyanotic"),
        ("NORMAL", "Normal"),
        ("acyanotic", None),
        ("1", None),
        ("", None),
    ],
)
def test_class_names_in_any_spelling_and_no_guess_beyond(tmp_path, written, label):
    assert class_name(written) == label
    table = tmp_path / "a.csv"
    table.write_text(f"patient,class\n1,{written}\n")
    (row,) = read_table(table)
    assert row.label == label
    assert bool(row.problem) == (label is None)


def test_bad_rows_of_classes_are_given_with_what_is_wrong(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("patient,image,class\n1,,sick\n,,Normal\n,,\n2,,\n,x.nii,Normal\n")
    rows = read_table(table)
    assert [(row.row, row.problem) for row in rows] == [
        (2, "class 'sick'; expected one of Cyanotic, Non-Cyanotic, Normal"),
        (3, "neither id nor path"),
        (5, "class ''; expected one of Cyanotic, Non-Cyanotic, Normal"),
        (6, ""),
    ]


@pytest.mark.parametrize("header", ["name,class", "patient,age", "patient", "VSD,patient"])
def test_a_table_without_the_columns_needed_says_which_are_accepted(tmp_path, header):
    table = tmp_path / "a.csv"
    table.write_text(f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    with pytest.raises(
        ValueError, match=r"a\.csv: expected either ImageCHD's columns .* got " + header.replace(",", ", ")
    ):
        read_table(table)


def test_a_row_shorter_than_the_header_lacks_what_is_not_there(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("patient,age,class\n1\n2,3,Normal\n")
    short, whole = read_table(table)
    assert (short.patient, short.problem) == ("1", "class ''; expected one of Cyanotic, Non-Cyanotic, Normal")
    assert (whole.patient, whole.label) == ("2", "Normal")


def test_a_row_longer_than_the_header_is_refused_not_shifted(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("patient,class\n1,Normal,Cyanotic\n")
    with pytest.raises(ValueError, match=r"a\.csv: cannot be read as a table"):
        read_table(table)


# files that are no table


def test_a_missing_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.csv: no such table"):
        read_table(tmp_path / "a.csv")


def test_another_suffix(tmp_path):
    path = tmp_path / "a.xls"
    path.write_text("patient,class\n1,Normal\n")
    with pytest.raises(ValueError, match=r"a\.xls: expected a \.csv or \.xlsx table"):
        read_table(path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"], ids=["empty", "text", "cut"])
def test_a_damaged_workbook(tmp_path, content):
    path = tmp_path / "a.xlsx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.xlsx: cannot be read as a table .*save it again"):
        read_table(path)


def test_a_workbook_cut_in_the_middle(tmp_path):
    path = write_book(tmp_path / "a.xlsx", ["index", *FLAGS], imagechd_cells())
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="cannot be read as a table"):
        read_table(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00patient"], ids=["empty", "not UTF-8"])
def test_a_damaged_csv(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.csv: cannot be read as a table"):
        read_table(path)


def test_a_header_alone_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a header but no rows"):
        read_table(write_book(tmp_path / "a.xlsx", ["index", *FLAGS], []))


# finding the table


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize("name", ["imageCHD_dataset_info.xlsx", "IMAGECHD_DATASET_INFO.XLSX", "x/y/dataset_info.xlsx"])
def test_imagechds_workbook_is_preferred_in_any_case_and_depth(tmp_path, name):
    touch(
        tmp_path,
        name,
        "imagechd_dataset_image_info.xlsx",
        "notes.csv",
        "~$imageCHD_dataset_info.xlsx",
        "._imageCHD_dataset_info.xlsx",
    )
    assert find_table(tmp_path) == tmp_path / name


def test_the_only_table_is_taken_past_the_image_sheet_and_shadows(tmp_path):
    touch(
        tmp_path,
        "labels.CSV",
        "phantom_nuisance.csv",
        "x/ImageCHD_dataset_IMAGE_INFO.xlsx",
        "._labels.csv",
        "~$a.xlsx",
        "readme.txt",
    )
    (tmp_path / "folder.csv").mkdir()
    assert find_table(tmp_path) == tmp_path / "labels.CSV"


@pytest.mark.parametrize("names", [("a.csv", "b/c.xlsx"), ("a/dataset_info.xlsx", "b/dataset_info.xlsx")])
def test_several_tables_are_listed_not_chosen_from(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(
        ValueError, match=rf"several tables could be meant \({names[0]}, {names[1]}\); name one with --table"
    ):
        find_table(tmp_path)


@pytest.mark.parametrize("names", [(), ("imagechd_dataset_image_info.xlsx",), ("~$a.xlsx", "._b.csv", "c.txt")])
def test_no_table(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(FileNotFoundError, match=r"no table of diagnoses found; expected imageCHD_dataset_info\.xlsx"):
        find_table(tmp_path)


def test_a_workbook_without_a_flags_column_is_refused(tmp_path):
    # the twin data set names pulmonary atresia PuA; taken as absent, 15 cyanotic patients would change class
    book = Workbook()
    book.active.append(["index", *("PuA" if flag == "PA" else flag for flag in FLAGS)])
    book.active.append([1001, *[1] * len(FLAGS)])
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(ValueError, match=r"no column for PA; .*PuA"):
        read_table(tmp_path / "a.xlsx")


# what is said of how a workbook was read


def test_another_sheet_name_is_said_and_the_right_one_is_not(tmp_path):
    book = write_book(tmp_path / "a.xlsx", ["index", *FLAGS], imagechd_cells(), sheet="Sheet1")
    assert load_table(book).notes == [
        "a.xlsx: no sheet is named 'classification dataset'; read the first one, 'Sheet1'"
    ]
    book = write_book(
        tmp_path / "b.xlsx", ["index", *FLAGS], imagechd_cells(), "Classification dataset ", before="notes"
    )
    assert load_table(book).notes == []
    assert load_table(FLAG_TABLE).notes == []


def test_a_column_that_looks_like_an_unknown_flag_is_named_with_whom_it_leaves_unflagged(tmp_path):
    header = ["index", "VSD", "ToF", "SV", "Age", "remark", "empty"]
    rows = [[1, 1, None, 1, 1, "x", None], [2, None, None, 1, 30, "", None], [3, None, 1, None, 0, "", None]]
    table = load_table(write_book(tmp_path / "a.xlsx", header, rows))
    (note,) = table.notes
    assert note.startswith("column SV looks like a diagnosis flag that is not known and was not read; 2 have no other")
    assert table.rows[1].label == "Normal"


def test_flags_of_a_table_are_those_of_sound_rows(tmp_path):
    table = load_table(flag_book(tmp_path / "a.xlsx", [1, 1, 1], [2, "?", 1], [None, 1, None]))
    assert table.has_flags and table.flags() == {"1": ("VSD", "ToF")}


def test_the_rule_decides(tmp_path):
    book = write_book(tmp_path / "a.xlsx", ["index", *FLAGS], imagechd_cells())
    assert Counter(row.label for row in load_table(book, load_rule("all-cyanotic")).rows)["Cyanotic"] == 49


def test_the_sheet_of_images_is_refused_without_showing_its_cells(tmp_path):
    book = Workbook()
    book.active.append(["idx", 1, "PatientBirthDate", 20100101])
    book.save(tmp_path / "imagechd_dataset_IMAGE_INFO.xlsx")
    with pytest.raises(ValueError, match="tells of images, not of diagnoses") as caught:
        read_table(tmp_path / "imagechd_dataset_IMAGE_INFO.xlsx")
    assert "2010" not in str(caught.value)
