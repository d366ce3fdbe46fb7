import csv
import hashlib
import zipfile

import nibabel as nib
import numpy as np
import openpyxl
import pandas as pd
import pytest

from monai_chd.cohort.rules import load_rule
from monai_chd.cohort.tables import read_table
from monai_chd.labels import CLASSES, FLAGS
from monai_chd.phantom import cohort as phantom_cohort
from monai_chd.phantom.cohort import LESIONS_OF_CLASS, deal_lesions, parse_diagnosis, write_cohort

SMALL = {"patients": 6, "size": 32, "slices": (8, 10), "progress": False}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    return write_cohort(folder, **SMALL)


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_files_are_those_of_imagechd(cohort):
    names = {path.name for path in cohort.parent.iterdir()}
    scans = {f"ct_{1001 + i}_{kind}.nii.gz" for i in range(6) for kind in ("image", "label")}
    assert names == scans | {"imageCHD_dataset_info.xlsx", "phantom_nuisance.csv"}
    assert cohort.name == "imageCHD_dataset_info.xlsx"


def test_same_seed_same_bytes_other_seed_others(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1.9e9)  # gzip and zip ask it
    again = digests(write_cohort(tmp_path / "again", **SMALL).parent)
    other = digests(write_cohort(tmp_path / "other", **SMALL, seed=43).parent)
    assert again == digests(cohort.parent)
    assert all(again[name] != other[name] for name in again if name.endswith("image.nii.gz"))


def test_workbook_holds_no_time_of_its_making(cohort):
    with zipfile.ZipFile(cohort) as book:
        assert {entry.date_time for entry in book.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        core = book.read("docProps/core.xml").decode()
    assert core.count("1980-01-01T00:00:00Z") == 2


def test_headers_are_those_of_imagechd(cohort):
    for kind, dtype in (("image", np.int16), ("label", np.uint8)):
        path = cohort.parent / f"ct_1001_{kind}.nii.gz"
        scan = nib.load(path)
        assert scan.get_data_dtype() == dtype and scan.shape[:2] == (32, 32) and 8 <= scan.shape[2] <= 10
        assert np.array_equal(scan.affine, np.eye(4)) and nib.aff2axcodes(scan.affine) == ("R", "A", "S")
        assert scan.header.get_zooms() == (1, 1, 1) and scan.header.get_xyzt_units() == ("unknown", "unknown")
        assert (int(scan.header["qform_code"]), int(scan.header["sform_code"])) == (0, 1)
        head = path.read_bytes()[:10]
        assert head[3] == 0 and head[4:8] == bytes(4)  # gzip: no name, no time


def test_workbook_has_imagechds_structure(cohort):
    book = openpyxl.load_workbook(cohort)
    assert book.sheetnames == ["classification dataset"]
    rows = list(book.active.iter_rows(values_only=True))
    assert rows[0] == ("index", *FLAGS)
    assert [row[0] for row in rows[1:]] == list(range(1001, 1007))
    assert {cell for row in rows[1:] for cell in row[1:]} == {1, None}
    frame = pd.read_excel(cohort)
    assert frame.shape == (6, 17) and frame["AVSD"].isna().all()


def test_project_reads_the_cohort_back(cohort):
    rows = read_table(cohort)
    assert not any(row.problem for row in rows)
    assert sorted(row.label for row in rows) == sorted(CLASSES * 2)
    with (cohort.parent / "phantom_nuisance.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [(row["patient"], row["class"]) for row in table] == [(row.patient, row.label) for row in rows]
    assert list(table[0])[:3] == ["patient", "class", "num_slices"] and "spacing" in table[0]
    for row in table:
        assert nib.load(cohort.parent / f"ct_{row['patient']}_image.nii.gz").shape[2] == int(row["num_slices"])


def test_nuisances_of_a_patient_do_not_depend_on_the_diagnoses(cohort, tmp_path):
    other = write_cohort(tmp_path / "other", **SMALL, lesions=["DORV", "none"])

    def drawn(workbook):
        with (workbook.parent / "phantom_nuisance.csv").open() as stream:
            return [row[:1] + row[2:] for row in csv.reader(stream)]

    assert drawn(other) == drawn(cohort)
    with (other.parent / "phantom_nuisance.csv").open() as stream:
        assert sorted(row["class"] for row in csv.DictReader(stream)) == ["Normal"] * 3 + ["Undetermined"] * 3


def class_of(flags):
    return load_rule("strict").deciding_step(flags).label


@pytest.mark.parametrize(
    "patients, counts", [(3, [1, 1, 1]), (60, [20, 20, 20]), (61, [21, 20, 20]), (62, [21, 21, 20])]
)
def test_classes_are_equal_and_lesions_spread(patients, counts):
    dealt = deal_lesions(patients, None, np.random.default_rng(0))
    names = [class_of(flags) for flags in dealt]
    assert [names.count(name) for name in CLASSES] == counts
    if patients >= 60:
        of_class = {name: [tuple(flags) for flags in dealt if class_of(flags) == name] for name in CLASSES}
        for name, lesions in LESIONS_OF_CLASS.items():
            times = [of_class[name].count(tuple(parse_diagnosis(text))) for text in lesions]
            assert sum(times) == len(of_class[name]) and max(times) - min(times) <= 1


def test_order_of_ids_tells_nothing_about_the_class():
    first_half = []
    for seed in range(200):
        names = [class_of(flags) for flags in deal_lesions(12, None, np.random.default_rng(seed))]
        first_half.append(names[:6].count("Normal"))
    assert np.mean(first_half) == pytest.approx(2, abs=0.2)
    assert len(set(first_half)) >= 4


def test_named_lesions_are_dealt_in_turn():
    dealt = deal_lesions(7, ["DORV+VSD", "DAA", "none"], np.random.default_rng(0))
    assert sorted(map(tuple, dealt)) == sorted([("VSD", "DORV")] * 3 + [("DAA",)] * 2 + [()] * 2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"patients": 2}, "patients: expected at least 3"),
        ({"size": 16}, "size: expected at least 32"),
        ({"slices": (20, 10)}, "slices"),
        ({"difficulty": "easy"}, "difficulty"),
        ({"lesions": ["ASD", "XYZ"]}, "cannot draw XYZ"),
        ({"lesions": ["AVSD"]}, "AVSD"),
        ({"lesions": []}, "lesions: expected a list"),
        ({"lesions": "ASD"}, "lesions: expected a list"),
    ],
)
def test_refuses_before_anything_is_written(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_cohort(tmp_path / "cohort", **{**SMALL, **arguments})
    assert not (tmp_path / "cohort").exists()


def test_refuses_a_folder_in_use(tmp_path):
    (tmp_path / "something").touch()
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        write_cohort(tmp_path, **SMALL)
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        write_cohort(tmp_path / "something", **SMALL)


def test_interrupted_cohort_has_no_workbook_and_no_half_file(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("nibabel.Nifti1Image.to_stream", fail)
    with pytest.raises(KeyboardInterrupt):
        write_cohort(tmp_path / "cohort", **SMALL)
    assert list((tmp_path / "cohort").iterdir()) == []


def test_several_processes_write_the_same_bytes(monkeypatch, tmp_path):
    options = {"patients": 4, "size": 32, "slices": (8, 10), "labels": "rough", "progress": False}
    write_cohort(tmp_path / "one", **options)
    monkeypatch.setattr(phantom_cohort, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(phantom_cohort, "cores", lambda: 2)
    write_cohort(tmp_path / "two", **options)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two and len(one) == 10
