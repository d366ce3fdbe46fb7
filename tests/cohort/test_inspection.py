"""Each scan is looked at once: spacing that means something, sizes, and the label map beside it."""

import re

import nibabel as nib
import numpy as np
import pytest
from tiny_cohort import voxels, write_scan

from monai_chd.cohort.imagechd_image_info import ImageInfo
from monai_chd.cohort.inspection import add_confounders, header_spacing, inspect_scans, label_map_of, read_label_map
from monai_chd.cohort.joining import JoinedCohort, LabelledScan
from monai_chd.cohort.tables import Diagnosis


def write_header(path, zooms, unit, shape=(4, 4, 4)):
    image = nib.Nifti1Image(np.zeros(shape, np.int16), np.diag([*zooms[:3], 1]))
    image.header.set_zooms(zooms[: len(shape)])
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


def write_labels(path, values):
    nib.save(nib.Nifti1Image(np.asarray(values), np.eye(4)), path)
    return path


def cohort_of(*scans):
    return JoinedCohort(
        [LabelledScan(path.name[3:7], path, Diagnosis(2, path.name[3:7], label="Normal")) for path in scans]
    )


# spacing


@pytest.mark.parametrize(
    ("zooms", "unit", "expected"),
    [
        ((1, 1, 1), "unknown", None),
        ((1, 1, 1), "mm", (1, 1, 1)),
        ((0.25, 0.25, 0.5), "mm", (0.25, 0.25, 0.5)),
        ((0.25, 0.25, 0.5), "unknown", (0.25, 0.25, 0.5)),
        ((0.001, 0.001, 0.002), "meter", (1, 1, 2)),
        ((250, 250, 500), "micron", (0.25, 0.25, 0.5)),
    ],
)
def test_the_header_gives_millimetres_unless_it_is_ones_of_unknown_unit(tmp_path, zooms, unit, expected):
    assert header_spacing(write_header(tmp_path / "a.nii", zooms, unit)) == expected


def test_the_time_of_a_cine_is_no_spacing(tmp_path):
    path = write_header(tmp_path / "a.nii", (1.5, 1.5, 8, 0.03), "mm", (4, 4, 4, 3))
    assert header_spacing(path) == (1.5, 1.5, 8)


# label maps


def test_the_label_map_of_a_scan_is_the_one_of_its_name(tmp_path):
    for name in ("ct_1001_label.nii.gz", "CT_1002_Label.nii", "ct_1003_labels.nii.gz", "scan_label.nii.gz"):
        (tmp_path / name).touch()
    assert label_map_of(tmp_path / "ct_1001_image.nii.gz") == tmp_path / "ct_1001_label.nii.gz"
    assert label_map_of(tmp_path / "ct_1002_image.nii.gz") == tmp_path / "CT_1002_Label.nii"
    assert label_map_of(tmp_path / "ct_1003_image.nii.gz") is None
    assert label_map_of(tmp_path / "scan_image.nii.gz") is None  # other cohorts have other labels


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_stray_values_are_counted_in_any_type(tmp_path, dtype):
    values = np.array([0, 1, 2, 3, 4, 6, 7, 8, 15, 15, 0, 0]).reshape(2, 2, 3).astype(dtype)
    found = read_label_map(write_labels(tmp_path / "l.nii", values), tmp_path / "i.nii", values.shape)
    assert found == ({8: 1, 15: 2}, False, 0)


def test_values_are_rounded_before_they_are_counted(tmp_path):
    values = np.array([4.6, 5.4, 7.4, 7.6, 0.2, 0, 3, 3]).reshape(2, 2, 2).astype(np.float32)
    found = read_label_map(write_labels(tmp_path / "l.nii", values), tmp_path / "i.nii", values.shape)
    assert found == ({8: 1}, True, 5)


def test_a_label_map_of_another_shape_names_both(tmp_path):
    path = write_labels(tmp_path / "ct_1001_label.nii.gz", np.zeros((4, 4, 5), np.uint8))
    message = r"ct_1001_label\.nii\.gz: label map of 4 x 4 x 5 voxels, but ct_1001_image\.nii\.gz has 4 x 4 x 4; put"
    with pytest.raises(ValueError, match=message):
        read_label_map(path, tmp_path / "ct_1001_image.nii.gz", (4, 4, 4))


# a cohort


def test_what_is_odd_about_a_scan_is_noted_and_the_rest_is_not(tmp_path):
    scans = [write_scan(tmp_path / f"ct_{n}_image.nii.gz", voxels(n, (8, 8, 4 + n % 3))) for n in range(1001, 1006)]
    small = write_scan(tmp_path / "ct_1006_image.nii.gz", voxels(6, (7, 6, 5)))
    labels = np.arange(8 * 8 * 6, dtype=np.uint8).reshape(8, 8, 6) % 8  # 1001 has 4 + 1001 % 3 = 6 slices
    write_labels(tmp_path / "ct_1001_label.nii.gz", labels)
    write_labels(tmp_path / "ct_1004_label.nii.gz", np.where(labels == 5, 9, labels))
    cohort = cohort_of(*scans, small)
    inspect_scans(cohort, tmp_path, None, False)
    notes = {case.patient: case.notes for case in cohort.cases}
    assert notes["1006"] == ["slices of another size: 7 x 6, 8 x 8 in most scans"]
    assert notes["1004"] == [
        "stray label values: 48 voxels above 7 (9), to be read as 0",
        "no myocardium in the label map: label 5 does not occur",
    ]
    assert not any(notes[patient] for patient in ("1001", "1002", "1003", "1005"))
    assert [case.label_map is not None for case in cohort.cases] == [True, False, False, True, False, False]
    assert {case.spacing_mm for case in cohort.cases} == {None}
    assert not cohort.problems


def test_a_cohort_without_a_usual_size_has_no_unusual_one(tmp_path):
    scans = [write_scan(tmp_path / f"ct_{n}_image.nii.gz", voxels(n, (n % 100 + 5, 8, 4))) for n in range(1001, 1005)]
    cohort = cohort_of(*scans)
    inspect_scans(cohort, tmp_path, None, False)
    assert not any(case.notes for case in cohort.cases)


@pytest.mark.parametrize("kind", ["shape", "damaged", "not a number"])
def test_a_bad_label_map_makes_its_scan_a_problem(tmp_path, kind):
    scan = write_scan(tmp_path / "ct_1001_image.nii.gz", voxels(1, (8, 8, 4)))
    values = np.ones((8, 8, 5 if kind == "shape" else 4), np.float32)
    values[0, 0, 0] = np.nan if kind == "not a number" else 1
    path = write_labels(tmp_path / "ct_1001_label.nii.gz", values)
    if kind == "damaged":
        path.write_bytes(path.read_bytes()[:-20])
    cohort = cohort_of(scan)
    inspect_scans(cohort, tmp_path, None, False)
    assert cohort.cases == []
    (problem,) = cohort.problems
    assert "ct_1001_label.nii.gz" in problem
    assert [row["patient"] for row in cohort.excluded] == ["1001"]


def test_an_affine_that_is_not_finite_is_a_problem_that_names_the_scan(tmp_path):
    image = nib.Nifti1Image(voxels(1), np.eye(4))
    image.header["sform_code"], image.header["srow_x"], image.header["vox_offset"] = 1, [np.nan, 0, 0, 0], 352
    path = tmp_path / "ct_1001_image.nii"
    path.write_bytes(image.header.binaryblock + bytes(4) + voxels(1).tobytes("F"))
    cohort = cohort_of(path)
    inspect_scans(cohort, tmp_path, None, False)
    (problem,) = cohort.problems
    assert re.search(r"ct_1001_image\.nii: the affine in the header is not finite", problem), problem


def test_of_the_same_bytes_under_one_patient_the_shortest_name_is_kept(tmp_path):
    scan = write_scan(tmp_path / "ct_1001_image.nii.gz", voxels(1))
    for name in ("ct_1001_image_again.nii.gz", "ct_1001_image_x.nii.gz"):
        (tmp_path / name).write_bytes(scan.read_bytes())
    other = write_scan(tmp_path / "ct_1001_other.nii.gz", voxels(2))
    cohort = cohort_of(*sorted(tmp_path.glob("*.nii.gz")))
    inspect_scans(cohort, tmp_path, None, False)
    assert [case.image for case in cohort.cases] == [scan, other]
    text = "the same voxels in ct_1001_image.nii.gz and ct_1001_image_x.nii.gz and ct_1001_image_again.nii.gz; keep one of them"
    assert cohort.problems == [text]
    assert [(row["patient"], row["image"], row["reason"]) for row in cohort.excluded] == [
        ("1001", "ct_1001_image_x.nii.gz", text), ("1001", "ct_1001_image_again.nii.gz", text),
    ]  # fmt: skip


# what stands elsewhere


def test_the_sheets_spacing_goes_before_the_headers_which_goes_before_none(tmp_path):
    cohort = cohort_of(*(tmp_path / f"ct_{n}_image.nii.gz" for n in (1001, 1002, 1003)))
    cohort.cases[0].spacing_mm = cohort.cases[1].spacing_mm = (1.0, 1.0, 2.0)
    infos = {"1001": ImageInfo((0.3, 0.3, 0.5), "iCT 256", 1.5), "1002": ImageInfo(None, "Flash")}
    add_confounders(cohort, infos, False)
    found = [(case.spacing_mm, case.scanner, case.age_years, case.contrast) for case in cohort.cases]
    assert found == [((0.3, 0.3, 0.5), "iCT 256", 1.5, None), ((1, 1, 2), "Flash", None, None), (None, "", None, None)]


def test_contrast_and_remarks_are_known_of_imagechd_only(tmp_path):
    paths = [tmp_path / f"ct_{n}_image.nii.gz" for n in (1001, 1063, 1170)]
    known, other = cohort_of(*paths), cohort_of(*paths)
    add_confounders(known, {}, True)
    add_confounders(other, {}, False)
    assert [case.contrast for case in known.cases] == [True, False, True]
    assert [case.notes for case in known.cases] == [
        [],
        ["no contrast: 2021 re-review"],
        ["2021 re-review: image artifact"],
    ]
    assert all(case.contrast is None and not case.notes for case in other.cases)
