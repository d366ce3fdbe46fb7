"""A cell whose value nobody can know is a bad row with the cell's address, never a blank; text is told by its encoding."""

import datetime
import re
import unicodedata
import zipfile
from pathlib import Path

import pytest
from openpyxl import Workbook

from monai_chd.cohort.layouts import Layout, read_by_layout
from monai_chd.cohort.rules import load_rule
from monai_chd.cohort.tables import Diagnosis, Table, load_table
from monai_chd.labels import CLASSES, FLAGS

HEADER = ["index", "ToF", *(flag for flag in FLAGS if flag != "ToF")]
ERRORS = ["#N/A", "#REF!", "#DIV/0!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!"]


def write(path: Path, rows: list[list], merge: str = "", header: list | None = None) -> Path:
    """A workbook of one sheet with some cells merged."""
    book = Workbook()
    book.active.title = "classification dataset"
    for row in [header or HEADER, *rows]:
        book.active.append(row)
    if merge:
        book.active.merge_cells(merge)
    book.save(path)
    return path


def edit(path: Path, part: str, old: str, new: str) -> Path:
    """Change the XML of a workbook to what another program would have written."""
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name).decode() for name in book.namelist()}
    (name,) = (name for name in parts if name.endswith(part))
    assert re.search(old, parts[name])
    parts[name] = re.sub(old, new, parts[name])
    with zipfile.ZipFile(path, "w") as book:
        for name, text in parts.items():
            book.writestr(name, text)
    return path


def worked_out(path: Path, cell: str) -> Path:
    """Give the only formula of a workbook a stored value, as a spreadsheet program does."""
    edit(path, "workbook.xml", ' fullCalcOnLoad="1"', "")
    return edit(path, "sheet1.xml", r'<c r="(\w+)"[^>]*><f>(.*?)</f>.*?</c>', cell)


def problems(table: Table) -> dict[int, str]:
    return {row.row: row.problem for row in table.rows if row.problem}


def one(path: Path) -> Diagnosis:
    (row,) = load_table(path).rows
    return row


# workbooks


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_in_a_flag_cell_is_a_bad_row_with_its_address_and_not_absent(tmp_path, error):
    table = load_table(write(tmp_path / "a.xlsx", [[1001, 1], [1002, error], [1003, None]]))
    assert problems(table) == {3: f"B3 (ToF) holds the error {error}; write what it should say"}
    assert [(row.patient, row.label) for row in table.rows] == [
        ("1001", "Cyanotic"), ("1002", None), ("1003", "Normal"),
    ]  # fmt: skip


def test_an_error_that_stands_as_text_or_in_another_language_is_one(tmp_path):
    path = write(
        tmp_path / "a.xlsx",
        [[1001, "#BEZUG!"], [1002, "#NV"], [1003, "Err:502"], [1004, "#SPILL!"], [1005, "#¡REF!"], [1006, "#ДЕЛ/0!"]],
    )
    assert all("holds the error" in problems(load_table(path))[row] for row in range(2, 8))
    (tmp_path / "a.csv").write_text("patient,age,class\na,1,Normal\n#REF!,2,Cyanotic\nc,3,#N/A\n#12,,Normal\n")
    assert problems(load_table(tmp_path / "a.csv")) == {
        3: "A3 (patient) holds the error #REF!; write what it should say",
        4: "C4 (class) holds the error #N/A; write what it should say",
    }


@pytest.mark.parametrize("kept", ["", "<v></v>", "<v/>"], ids=repr)
def test_a_formula_without_a_stored_value_is_a_bad_row(tmp_path, kept):
    path = write(tmp_path / "a.xlsx", [[1001, "=1+0"], [1002, None]])
    path = worked_out(path, rf'<c r="\1"><f>\2</f>{kept}</c>')
    assert problems(load_table(path)) == {
        2: "B2 (ToF) holds a formula whose value was never worked out; open and save the table in a spreadsheet program"
    }


def test_a_formula_that_only_a_program_wrote_is_a_bad_row_even_with_a_zero(tmp_path):
    # XlsxWriter, also under pandas, stores 0 for every formula and asks for it to be worked out at the next opening
    path = write(tmp_path / "a.xlsx", [[1001, "=1+0"]])
    path = edit(path, "sheet1.xml", r"<f>(.*?)</f><v ?/>|<f>(.*?)</f><v></v>", r"<f>\1\2</f><v>0</v>")
    assert "B2 (ToF) holds a formula" in one(path).problem


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ('<c r="\\1"><f>\\2</f><v>1</v></c>', "Cyanotic"),
        ('<c r="\\1"><f>\\2</f><v>0</v></c>', "Normal"),
        ('<c r="\\1" t="b"><f>\\2</f><v>1</v></c>', "Cyanotic"),
        ('<c r="\\1" t="str"><f>\\2</f><v></v></c>', "Normal"),
        ('<c r="\\1" t="str"><f>\\2</f><v>1</v></c>', "Cyanotic"),
    ],
)
def test_a_formula_with_a_stored_value_is_that_value_also_when_it_is_an_empty_text(tmp_path, cell, label):
    path = worked_out(write(tmp_path / "a.xlsx", [[1001, '=IF(1,"","")']]), cell)
    assert (one(path).label, one(path).problem) == (label, "")


def test_a_formula_that_ended_in_an_error_is_a_bad_row(tmp_path):
    path = worked_out(write(tmp_path / "a.xlsx", [[1001, "=NA()"]]), r'<c r="\1" t="e"><f>\2</f><v>#N/A</v></c>')
    assert one(path).problem == "B2 (ToF) holds the error #N/A; write what it should say"


def test_the_lower_cells_of_a_merged_range_are_bad_rows_and_the_first_is_what_it_holds(tmp_path):
    table = load_table(write(tmp_path / "a.xlsx", [[1001, 1], [1002], [1003], [1004]], merge="B2:B4"))
    fault = "is one of the merged cells B2:B4, so its value is not known; unmerge them and fill in each"
    assert problems(table) == {3: f"B3 (ToF) {fault}", 4: f"B4 (ToF) {fault}"}
    assert [row.label for row in table.rows] == ["Cyanotic", None, None, "Normal"]


def test_cells_merged_across_columns_are_unknown_but_the_first(tmp_path):
    path = write(tmp_path / "a.xlsx", [[1001, 1], [1002, None]], merge="B2:C2")
    assert list(problems(load_table(path))) == [2]
    assert f"C2 ({HEADER[2]}) is one of the merged cells B2:C2" in load_table(path).rows[0].problem


def test_merged_cells_that_are_blank_hold_nothing(tmp_path):
    path = write(tmp_path / "a.xlsx", [[1001, None], [1002, None], [1003, 1]], merge="B2:B3")
    assert [row.label for row in load_table(path).rows] == ["Normal", "Normal", "Cyanotic"]


def test_an_id_merged_over_its_rows_is_unknown_below_the_first(tmp_path):
    table = load_table(write(tmp_path / "a.xlsx", [[1001, 1], [None, None], [1003, 1]], merge="A2:A3"))
    assert [(row.row, row.patient) for row in table.rows] == [(2, "1001"), (3, ""), (4, "1003")]
    assert problems(table)[3].startswith("A3 (index) is one of the merged cells A2:A3")


@pytest.mark.parametrize("unknown", ["#N/A", "=A1"])
def test_an_id_that_cannot_be_read_is_a_bad_row(tmp_path, unknown):
    table = load_table(write(tmp_path / "a.xlsx", [[unknown, 1], [1002, 1]]))
    assert [(row.patient, bool(row.problem)) for row in table.rows] == [("", True), ("1002", False)]
    assert "A2 (index) holds" in problems(table)[2]


def test_all_that_is_wrong_with_a_row_is_said(tmp_path):
    row = one(write(tmp_path / "a.xlsx", [["#REF!", "#N/A", "?", "=A1"]]))
    assert re.findall(r"[A-D]2 |'\?'", row.problem) == [
        "A2 ",
        "D2 ",
        "B2 ",
        "'?'",
    ]  # flags in the order of `labels.FLAGS`


def test_an_unreadable_cell_in_a_column_nobody_reads_does_not_matter(tmp_path):
    header = [*HEADER, "remark", "sum", "BMI"]
    blank = [None] * (len(HEADER) - 2)
    rows = [[1001, 1, *blank, "x", "=B2", "#DIV/0!"], [1002, None, *blank, None, None, 3]]
    column = chr(ord("A") + len(HEADER))
    table = load_table(write(tmp_path / "a.xlsx", rows, merge=f"{column}2:{column}3", header=header))
    assert not problems(table)
    assert [row.label for row in table.rows] == ["Cyanotic", "Normal"]


@pytest.mark.parametrize("text", ["#N/A", "n/a", "NA", "?", "unknown", "-", "x", "​"], ids=repr)
def test_no_text_in_a_flag_cell_is_absent(tmp_path, text):
    assert one(write(tmp_path / "a.xlsx", [[1001, text]])).problem
    (tmp_path / "a.csv").write_text(",".join(HEADER) + f"\n1001,{text}{',' * (len(HEADER) - 2)}\n", encoding="utf-8")
    assert one(tmp_path / "a.csv").problem


def test_a_class_or_path_that_cannot_be_read_is_a_bad_row_with_the_path_it_still_has(tmp_path):
    rows = [["a.nii", "Normal"], ["b.nii", "#N/A"], ["#REF!", "Normal"], ["d.nii", None]]
    table = load_table(write(tmp_path / "a.xlsx", rows, header=["image", "class"], merge="B2:B5"))
    assert [row.image for row in table.rows] == ["a.nii", "b.nii", "", "d.nii"]
    assert list(problems(table)) == [3, 4, 5]
    assert "A4 (image) holds the error #REF!" in problems(table)[4]


def test_a_layout_reads_no_unknown_cell_as_absent(tmp_path):
    flags = Layout("c", id_column="name", flag_columns={"Fallot": "ToF", "VSD": "VSD"})
    path = write(
        tmp_path / "a.xlsx",
        [["a", 1, "#N/A", "#N/A"], ["b", "#REF!"], ["c", "=B2"], ["#N/A"], ["e"]],
        header=["name", "Fallot", "age", "remark", "VSD"],
    )
    table = read_by_layout(flags, tmp_path, path, load_rule())
    assert {row: text.split(";")[0] for row, text in problems(table).items()} == {
        3: "B3 (Fallot) holds the error #REF!",
        4: "B4 (Fallot) holds a formula whose value was never worked out",
        5: "A5 (name) holds the error #N/A",
    }
    words = Layout("c", class_column="group", values={"x": "ToF", "#N/A": "Normal"})
    path = write(tmp_path / "b.xlsx", [["a", "x"], ["b", "#N/A"], ["c"]], header=["name", "group"], merge="B2:B4")
    assert list(problems(read_by_layout(words, tmp_path, path, load_rule()))) == [3, 4]


def test_a_column_that_stands_twice_is_refused_when_it_is_read(tmp_path):
    path = write(tmp_path / "a.xlsx", [[1001, 1]], header=[*HEADER, "tof ", "remark", "remark"])
    column = chr(ord("A") + len(HEADER))
    with pytest.raises(
        ValueError, match=rf"a\.xlsx: the name tof stands in B1 and {column}1; give every column one name"
    ):
        load_table(path)
    (tmp_path / "b.csv").write_text("patient,class,Class\na,Normal,Cyanotic\n")
    with pytest.raises(ValueError, match=r"b\.csv: the name Class stands in B1 and C1"):
        load_table(tmp_path / "b.csv")
    path = write(tmp_path / "c.xlsx", [[1001, 1]], header=[*HEADER, "remark", "remark"])
    assert one(path).label == "Cyanotic"


def test_a_name_merged_over_several_columns_is_refused_when_it_is_read(tmp_path):
    path = write(tmp_path / "a.xlsx", [["a", None, "Cyanotic"]], header=["id", "class", None], merge="B1:C1")
    with pytest.raises(ValueError, match=r"a\.xlsx: the name class in B1 is merged over several columns"):
        load_table(path)
    path = write(tmp_path / "b.xlsx", [["a", "Normal", 1, 2]], header=["id", "class", "size"], merge="C1:D1")
    assert one(path).label == "Normal"


def test_a_cell_formatted_far_below_makes_no_rows(tmp_path):
    book = Workbook()
    book.active.append(["id", "class"])
    book.active.append(["a", "Normal"])
    book.active["XFD1048576"].number_format = "0.00"
    book.save(tmp_path / "a.xlsx")
    assert one(tmp_path / "a.xlsx").label == "Normal"


def test_an_old_or_protected_workbook_is_told_by_its_first_bytes(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000))
    with pytest.raises(
        ValueError, match=r"a\.xlsx: cannot be read .* old \.xls workbook or has a password; save it as \.xlsx"
    ):
        load_table(tmp_path / "a.xlsx")


# CSV

TEXT = "patient;class\nMüller;Normal\nk;Cyanotic\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_is_told_by_name_with_the_mend(tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes(TEXT.encode(encoding))
    with pytest.raises(
        ValueError, match=r'a\.csv: cannot be read as a table, since it is in UTF-16.*save it as "CSV UTF-8"'
    ):
        load_table(tmp_path / "a.csv")


@pytest.mark.parametrize(("encoding", "byte"), [("cp1252", "FC"), ("latin-1", "FC"), ("mac-roman", "9F")])
def test_windows_and_latin_text_is_told_with_its_row_and_the_mend(tmp_path, encoding, byte):
    (tmp_path / "a.csv").write_bytes(TEXT.encode(encoding))
    with pytest.raises(ValueError) as caught:
        load_table(tmp_path / "a.csv")
    text = str(caught.value)
    assert "a.csv: cannot be read as a table, since it is not in UTF-8 but most likely in Windows-1252 (cp1252)" in text
    assert f"row 2 holds the byte 0x{byte}" in text and 'save it as "CSV UTF-8"' in text and "\n" not in text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_with_and_without_a_byte_order_mark_works(tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes(TEXT.encode(encoding))
    assert [row.patient for row in load_table(tmp_path / "a.csv").rows] == ["Müller", "k"]


def test_blank_lines_of_a_csv_count_as_rows_as_in_a_spreadsheet(tmp_path):
    (tmp_path / "a.csv").write_text("patient,class\r\n\r\na,Normal\r\n\r\nb,#N/A\r\n\r\n")
    table = load_table(tmp_path / "a.csv")
    assert [row.row for row in table.rows] == [3, 5]
    assert problems(table)[5].startswith("B5 (class)")


# ids and names


@pytest.mark.parametrize("written", [1001, 1001.0, "1001 ", " 1001", "1001\u00a0"], ids=repr)
def test_an_id_is_the_same_as_number_and_as_text_with_blanks(tmp_path, written):
    assert one(write(tmp_path / "a.xlsx", [[written, 1]])).patient == "1001"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_come_out_in_nfc_however_the_table_stores_them(tmp_path, form):
    header, name, path = (unicodedata.normalize(form, text) for text in ("Größe", "Müller1001", "Bücher/é.nii.gz"))
    (tmp_path / "a.csv").write_text(f"patient,image,class\n{name},,Normal\n,{path},Normal\n", encoding="utf-8")
    book = write(
        tmp_path / "a.xlsx", [[name, "", "Normal"], ["", path, "Normal"]], header=["patient", "image", "class"]
    )
    for file in (tmp_path / "a.csv", book):
        first, second = load_table(file).rows
        assert (first.patient, second.image) == ("Müller1001", "Bücher/é.nii.gz")
    layout = Layout("c", id_column="Größe", class_column="Größe", values={"Müller1001": "Normal"})
    (tmp_path / "b.csv").write_text(f"{header}\n{name}\n", encoding="utf-8")
    (row,) = read_by_layout(layout, tmp_path, tmp_path / "b.csv", load_rule()).rows
    assert (row.patient, row.label) == ("Müller1001", "Normal")


def test_a_blank_beside_dates_stays_blank(tmp_path):
    day = datetime.datetime(2020, 1, 1)
    rows = load_table(
        write(tmp_path / "a.xlsx", [[day, None], [None, None, day], [7, "Normal"]], header=["id", "class", "day"])
    ).rows
    assert [(row.row, row.problem) for row in rows] == [(2, f"class ''; expected one of {', '.join(CLASSES)}"), (4, "")]
