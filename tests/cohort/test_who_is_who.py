"""Patients of a table under the made names of their DICOM series, however table and files name them."""

from dicom_series import header, hu_volume, write_series
from tiny_cohort import write_cohort, write_rows

from monai_chd.cohort.datalist import Choices, prepare
from monai_chd.cohort.diagnoses import Diagnoses
from monai_chd.cohort.tables import Diagnosis
from monai_chd.cohort.who_is_who import name_apart
from monai_chd.dicom.private import Pseudonyms, describe_series
from monai_chd.dicom.series import find_series
from monai_chd.labels import CLASSES


def named(tmp_path, rows, folders):
    """Rows after it, owners of series by their folder, and the made names."""
    for number, (folder, patient) in enumerate(folders.items()):
        write_series(tmp_path / "scans" / folder, hu_volume((3, 8, 6), number), shared=header(patient))
    names = Pseudonyms(tmp_path / "private")
    series = describe_series(find_series(tmp_path / "scans").series, names)
    found = Diagnoses("table", list(rows), [], None, None, False)
    owners = name_apart(found, series, tmp_path / "scans", names.folder)
    return found.rows, {series[path].folder.name: owner for path, owner in owners.items()}, names


def test_the_patient_id_of_the_files_decides_and_spellings_of_numbers_are_one(tmp_path):
    rows, owners, names = named(
        tmp_path, [Diagnosis(2, patient="7"), Diagnosis(3, patient="8")], {"8": "007", "b": "8"}
    )
    assert owners == {"8": names.patient("7"), "b": names.patient("8")}
    assert [row.patient for row in rows] == [names.patient("7"), names.patient("8")]
    assert [row.row for row in rows] == [2, 3]


def test_without_the_id_in_the_table_a_folder_that_names_one_patient_does(tmp_path):
    rows = [Diagnosis(2, patient="case-1"), Diagnosis(3, patient="case-2")]
    _, owners, names = named(tmp_path, rows, {"case-1": "anon-a", "case-1_case-2": "anon-b", "else": "anon-c"})
    assert owners["case-1"] == names.patient("case-1")
    assert owners["case-1_case-2"] == names.patient("anon-b")
    assert owners["else"] == names.patient("anon-c")


def test_a_row_may_name_a_folder(tmp_path):
    rows, owners, _ = named(tmp_path, [Diagnosis(2, image="a"), Diagnosis(3, image="none")], {"a": "x", "b": "y"})
    assert (rows[0].patient, rows[0].image) == (owners["a"], "")
    assert rows[1] == Diagnosis(3, image="none")


def test_a_cohort_of_dicom_is_prepared_with_what_its_headers_know(tmp_path):
    for number in range(1, 13):
        write_series(
            tmp_path / "scans" / f"{number % 5}" / f"{number}",
            hu_volume((4, 8, 6), number),
            shared=header(f"MRN{number}"),
        )
    write_rows(tmp_path / "scans" / "t.csv", ["patient", "class"], [[f"MRN{n}", CLASSES[n % 3]] for n in range(1, 13)])
    choices = Choices(folds=2, test_fraction=0.25)
    datalist = prepare(tmp_path / "scans", tmp_path / "work", choices)
    records = datalist["training"] + datalist["test"]
    names = Pseudonyms(tmp_path / "work.private")
    assert {row["patient"]: row["label"] for row in records} == {names.patient(f"MRN{n}"): n % 3 for n in range(1, 13)}
    assert datalist["root"] == "../work.private"
    assert all(row["image"].startswith(row["patient"] + "/series-") for row in records)
    assert {row["hu_offset"] for row in records} == {0.0}
    assert records[0]["confounders"] == {
        "slices": 4, "spacing_mm": [1.5, 0.7, 0.8], "scanner": "Model 7", "contrast": None,
    }  # fmt: skip
    assert prepare(tmp_path / "scans", tmp_path / "work", choices) == datalist


def test_dicom_beside_nifti_is_left_out_aloud(tmp_path, caplog):
    caplog.set_level("INFO", "monai_chd")
    write_cohort(tmp_path / "scans", 9)
    write_series(tmp_path / "scans" / "dicom", hu_volume((4, 8, 6)))
    datalist = prepare(tmp_path / "scans", tmp_path / "work", Choices(folds=2, test_fraction=0.0))
    assert len(datalist["training"]) == 9
    assert "left out: 4 DICOM files beside NIfTI scans; prepare them from a folder of their own" in caplog.messages
