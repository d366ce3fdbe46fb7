"""Rows and scans find each other by id, path or pattern; what stays alone is said."""

import re
import unicodedata

import pytest

from monai_chd.cohort.joining import find_scans_by, join
from monai_chd.cohort.tables import Diagnosis
from monai_chd.scans.finding import find_nifti, find_scans


def rows_of(*patients):
    return [Diagnosis(i, patient, label="Normal") for i, patient in enumerate(patients, start=2)]


def test_a_pattern_says_which_files_are_scans_and_whose(tmp_path):
    for name in (
        "pat1_orig.nii.gz",
        "pat10_orig.nii.gz",
        "pat1_orig_seg.nii.gz",
        "pat1_cropped.nii.gz",
        "._pat2_orig.nii.gz",
    ):
        (tmp_path / name).touch()
    owners = find_scans_by(re.compile(r"(pat\d+)_orig\.nii"), find_nifti(tmp_path))
    assert {path.name: patient for path, patient in owners.items()} == {
        "pat1_orig.nii.gz": "pat1", "pat10_orig.nii.gz": "pat10",
    }  # fmt: skip
    cohort = join(tmp_path, list(owners), rows_of("pat1", "pat10"), owners)
    assert {case.patient: case.image.name for case in cohort.cases} == {
        "pat1": "pat1_orig.nii.gz", "pat10": "pat10_orig.nii.gz",
    }  # fmt: skip
    assert not cohort.problems


def test_a_pattern_that_matches_nothing_shows_a_path_it_was_tried_on(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "scan.nii").touch()
    with pytest.raises(
        FileNotFoundError, match=r"none of 1 NIfTI files matches id_pattern '\(x\)'.*the first is a/scan\.nii"
    ):
        find_scans_by(re.compile("(x)"), find_nifti(tmp_path))


@pytest.mark.parametrize("name", ["ct_1002_image.mha", "ct_1002_image.nii.bz2", "ct_1002_image.gz", "1002.nrrd"])
def test_a_missing_volume_of_another_format_is_pointed_at(tmp_path, name):
    (tmp_path / name).touch()
    (tmp_path / "ct_1001_image.nii.gz").touch()
    cohort = join(tmp_path, find_scans(find_nifti(tmp_path)), rows_of("1001", "1002", "1003"), {})
    assert cohort.problems == [
        f"row 3: no scan found for 1002 ({name} is not NIfTI; convert it to .nii.gz, or rename it if it is one)",
        "row 4: no scan found for 1003",
    ]


def test_a_pattern_may_find_the_patient_in_a_folders_name(tmp_path):
    for patient in ("p1", "p2"):
        (tmp_path / patient).mkdir()
        (tmp_path / patient / "scan_2.nii").touch()
    owners = find_scans_by(re.compile(r"(p\d+)/scan"), find_nifti(tmp_path))
    cohort = join(tmp_path, list(owners), rows_of("p1", "p2"), owners)
    assert [(case.patient, case.image.parent.name) for case in cohort.cases] == [("p1", "p1"), ("p2", "p2")]
    assert not cohort.problems


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("by", ["id", "path", "absolute path", "pattern"])
def test_a_name_with_accents_is_found_however_they_are_stored(tmp_path, on_disk, by):
    in_table = {"NFC": "NFD", "NFD": "NFC"}[on_disk]
    stored, written = (unicodedata.normalize(form, "Müller1001") for form in (on_disk, in_table))
    folder = tmp_path / unicodedata.normalize(on_disk, "Köln")
    (folder / stored).mkdir(parents=True)
    (folder / stored / f"{stored}_ct.nii").touch()
    images = {"path": f"{written}/{written}_ct.nii", "absolute path": f"{folder}/{written}/{written}_ct.nii"}
    pattern = re.compile(unicodedata.normalize("NFC", "(Mü[a-z]+[0-9]+)_ct"))
    owners = find_scans_by(pattern, find_nifti(folder)) if by == "pattern" else {}
    row = Diagnosis(2, written, image=images.get(by, ""), label="Normal")
    cohort = join(folder, find_scans(find_nifti(folder)), [row], owners)
    assert not cohort.problems
    assert [case.image for case in cohort.cases] == [folder / stored / f"{stored}_ct.nii"]


def joined(folder, *patients):
    return join(folder, find_scans(find_nifti(folder)), rows_of(*patients), {})


def test_a_scan_that_fits_several_patients_is_refused_with_the_candidates(tmp_path):
    for name in ("P_1_1", "P_1_2", "P_2_1", "P_2_2"):
        (tmp_path / f"{name}.nii").touch()
    cohort = joined(tmp_path, "1", "2")
    assert {case.image.stem: case.patient for case in cohort.cases} == {"P_1_1": "1", "P_2_2": "2"}
    assert [problem.partition(";")[0] for problem in cohort.problems] == [
        "P_1_2.nii: belongs to row 2 (1) and row 3 (2)", "P_2_1.nii: belongs to row 2 (1) and row 3 (2)",
    ]  # fmt: skip
    assert all("say whose it is in a column image of the table" in problem for problem in cohort.problems)


def test_a_scan_whose_id_the_table_lacks_has_no_row(tmp_path):
    for name in (*(f"sub-{n:02d}_ct" for n in range(1, 9)), "sub-12_run-3_ct"):
        (tmp_path / f"{name}.nii.gz").touch()
    cohort = joined(tmp_path, *map(str, range(1, 9)))
    assert cohort.problems == ["sub-12_run-3_ct.nii.gz: the table has no row for this scan"]
    assert [case.patient for case in cohort.cases] == [str(n) for n in range(1, 9)]


def test_a_scan_named_by_its_path_says_nothing_of_where_ids_stand(tmp_path):
    for name in ("P_1_x", "P_2_x", "1_odd_2"):
        (tmp_path / f"{name}.nii").touch()
    rows = [*rows_of("1", "2"), Diagnosis(9, "1", image="1_odd_2.nii", label="Normal")]
    cohort = join(tmp_path, find_scans(find_nifti(tmp_path)), rows, {})
    assert not [problem for problem in cohort.problems if "odd" in problem]


@pytest.mark.parametrize(
    "copy",
    [
        "a_7 (1)",
        "a_7(2)",
        "a_7 copy",
        "a_7 copy 2",
        "a_7 - Copy",
        "a_7 - Copy (2)",
        "a_7-copy",
        "a_7_copy",
        "Copy of a_7",
    ],
)
def test_a_copy_by_its_name_is_named_and_nobodys(tmp_path, copy):
    for name in ("a_7", copy, "a_8"):
        (tmp_path / f"{name}.nii.gz").touch()
    cohort = joined(tmp_path, "7", "8")
    assert cohort.problems == [f"{copy}.nii.gz: a copy of a_7.nii.gz by its name; remove or rename one of the two"]
    assert [row["image"] for row in cohort.excluded] == [f"{copy}.nii.gz"]
    assert [case.image.name for case in cohort.cases] == ["a_7.nii.gz", "a_8.nii.gz"]
    # without the first it is a name like another, and a table may name both
    (tmp_path / "a_7.nii.gz").unlink()
    assert not any("a copy of" in problem for problem in joined(tmp_path, "7", "8").problems)
    (tmp_path / "a_7.nii.gz").touch()
    rows = [Diagnosis(2, "7", image=f"{name}.nii.gz", label="Normal") for name in ("a_7", copy, "a_8")]
    assert not join(tmp_path, find_scans(find_nifti(tmp_path)), rows, {}).problems


def test_the_copy_of_a_label_map_is_a_label_map(tmp_path):
    for name in ("ct_1001_image", "ct_1001_label", "ct_1001_label (1)", "ct_1001_seg copy"):
        (tmp_path / f"{name}.nii.gz").touch()
    files = find_nifti(tmp_path)
    assert [path.name for path in files.scans] == ["ct_1001_image.nii.gz"] and len(files.label_maps) == 3


def test_hidden_folders_and_files_are_counted_and_shadows_are_not(tmp_path):
    for name in (
        ".Trash-1000/ct_1.nii",
        "__MACOSX/ct_1.nii",
        "a/.snapshot/b/ct_1.nii",
        "a/.ct_1.nii",
        "a/._ct_1.nii",
        "ct_1.nii",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = find_nifti(tmp_path)
    assert [path.name for path in files.scans] == ["ct_1.nii"]
    assert files.skipped() == (
        "left out, since they are hidden: 4 folders or files (.Trash-1000, __MACOSX, a/.snapshot, a/.ct_1.nii)"
    )


def test_a_dead_link_belongs_to_its_row_or_is_named(tmp_path):
    for name in ("ct_1.nii", "ct_2.nii", "ct_3.nii"):
        (tmp_path / name).symlink_to(tmp_path / "store" / name)
    (tmp_path / "more").symlink_to("gone")
    files = find_nifti(tmp_path)
    assert [path.name for path in files.scans] == ["ct_1.nii", "ct_2.nii", "ct_3.nii"]
    assert files.dead == [tmp_path / "more"]
    rows = [Diagnosis(2, "1", label="Normal"), Diagnosis(3, "2", image="ct_2.nii", label="Normal")]
    cohort = join(tmp_path, find_scans(files), rows, {})
    assert [case.image.name for case in cohort.cases] == ["ct_1.nii", "ct_2.nii"]
    (problem,) = cohort.problems
    assert problem.startswith(f"{tmp_path / 'ct_3.nii'}: a dead link (to {tmp_path / 'store' / 'ct_3.nii'}); ")
