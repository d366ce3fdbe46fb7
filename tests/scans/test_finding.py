"""What of a folder is a scan: NIfTI, DICOM or both; what is left out is told, and no scan is an error."""

import sys

import pytest
from dicom_series import header, hu_volume, write_series
from tiny_cohort import write_scan

from monai_chd.scans.finding import find_dicom, find_inputs, find_nifti, find_scans, original_name, relative_name


def test_a_folder_of_both_kinds_gives_both(tmp_path):
    write_scan(tmp_path / "in" / "a.nii.gz")
    write_series(tmp_path / "in" / "dicom")
    first, second = find_inputs(tmp_path / "in", tmp_path / "out")
    assert first == {"image": str(tmp_path / "in" / "a.nii.gz")}
    assert second["image"].startswith(str(tmp_path / "out.private" / "patient-"))
    assert second["image"].endswith(".series.json")


def test_what_was_found_and_left_out_is_logged_without_a_name(tmp_path, caplog):
    def localiser(ds, index):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        return ds

    caplog.set_level("INFO", "monai_chd")
    write_series(tmp_path / "Zebedee" / "ct", shear=(0, 0.2, 0))
    write_series(tmp_path / "Zebedee" / "scout", hu_volume((2, 8, 6)), change=localiser)
    (series,) = find_dicom(tmp_path / "Zebedee", tmp_path / "out")
    assert caplog.messages[0] == f"DICOM: 1 series of 1 patients; who is who: {tmp_path / 'out.private' / 'names.csv'}"
    assert caplog.messages[1] == "DICOM files left out: 2 localiser"
    caplog.clear()
    find_inputs(tmp_path / "Zebedee", tmp_path / "out", tilt="resample")
    name = f"{series.parent.name}/{series.name}"
    assert caplog.messages[2] == f"{name}: tilted by 14.0 degrees, resampled upright"


def test_dicom_needs_an_output_beside_which_the_names_are_kept(tmp_path):
    write_series(tmp_path)
    with pytest.raises(ValueError, match="DICOM files, which name patients, and no output folder"):
        find_inputs(tmp_path)


def test_dicom_without_a_ct_is_told_by_what_it_is(tmp_path):
    mr = header()
    mr.Modality = "MR"
    write_series(tmp_path, hu_volume((3, 8, 6)), shared=mr)
    with pytest.raises(FileNotFoundError, match=r"no CT series in it; DICOM files left out: 3 no CT image \(MR\)"):
        find_inputs(tmp_path, tmp_path / "out")
    write_scan(tmp_path / "a.nii.gz")
    assert len(find_inputs(tmp_path, tmp_path / "out")) == 1


def test_a_folder_without_scans_says_what_was_expected(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        FileNotFoundError, match=r"no scan found; expected \.nii\.gz or \.nii files, or DICOM files of CT"
    ):
        find_inputs(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out.private").exists()


def test_a_phase_is_taken_as_text_or_number(tmp_path):
    shared = header()
    for number, time in enumerate(["40", "75"]):

        def change(ds, index, time=time):
            ds.NominalPercentageOfCardiacPhase = float(time)
            return ds

        write_series(
            tmp_path / "in", hu_volume((4, 8, 6)), shared=shared, change=change, names=lambda i, n=number: f"{i}{n}"
        )
    assert len(find_inputs(tmp_path / "in", tmp_path / "out")) == 2
    assert find_inputs(tmp_path / "in", tmp_path / "out", phase=75) == find_inputs(
        tmp_path / "in", tmp_path / "out", phase="75"
    )


def test_names_of_copies_and_of_scans_elsewhere(tmp_path):
    assert [original_name(name) for name in ("a (1)", "a - Copy", "Copy of a", "a")] == ["a", "a", "a", ""]
    assert relative_name(tmp_path / "a" / "b", tmp_path) == "a/b"
    assert relative_name(tmp_path, tmp_path / "a") == str(tmp_path)


def test_label_maps_are_no_scans(tmp_path):
    for name in ("a.nii.gz", "a_label.nii.gz", ".b.nii.gz"):
        write_scan(tmp_path / name)
    files = find_nifti(tmp_path)
    assert find_scans(files) == [tmp_path / "a.nii.gz"]
    assert files.label_maps == [tmp_path / "a_label.nii.gz"]
    assert "hidden: 1" in files.skipped()


def test_without_pydicom_nifti_is_read_and_dicom_left_out_aloud(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "monai_chd")
    write_series(tmp_path / "dicom")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match=r'pip install "monai_chd\[dicom\]"'):
        find_inputs(tmp_path, tmp_path / "out")
    write_scan(tmp_path / "a.nii.gz")
    assert find_inputs(tmp_path, tmp_path / "out") == [{"image": str(tmp_path / "a.nii.gz")}]
    assert caplog.messages[0].startswith("DICOM files left out: DICOM is read with pydicom, which is not installed")
