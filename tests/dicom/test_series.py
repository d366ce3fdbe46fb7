"""Folders of DICOM files: which series are in them, by identifiers and geometry, whatever the files are called."""

import shutil

import numpy as np
import pytest
from dicom_series import header, hu_volume, save, write_enhanced, write_series
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from real_scans import real_scan

from monai_chd.dicom.series import Wanted, find_series, only_series


def test_series_of_several_patients_and_studies_in_one_folder_are_kept_apart(tmp_path):
    study = generate_uid()
    for number, (patient, of_study) in enumerate([("a", None), ("b", None), ("a", study), ("a", study)]):
        write_series(
            tmp_path,
            hu_volume((4 + number, 8, 6)),
            shared=header(patient, of_study),
            names=lambda i, n=number: f"{i}_{n}",
        )
    found = find_series(tmp_path)
    assert sorted((one.slices[0].patient, len(one.slices)) for one in found.series) == [
        ("a", 4), ("a", 6), ("a", 7), ("b", 5),
    ]  # fmt: skip
    assert not any(one.refused for one in found.series)


def test_one_series_in_many_folders_is_one(tmp_path):
    for index, path in enumerate(write_series(tmp_path / "all")):
        (tmp_path / f"{index % 3}").mkdir(exist_ok=True)
        shutil.move(path, tmp_path / f"{index % 3}")
    (one,) = find_series(tmp_path).series
    assert len(one.slices) == 12


def test_order_comes_from_positions_not_from_names_or_instance_numbers(tmp_path):
    paths = write_series(tmp_path)
    assert [one.path for one in only_series(tmp_path).slices] == paths
    assert sorted(paths) != paths


def test_what_is_no_volume_is_counted_by_what_it_is(tmp_path):
    def localiser(ds, index):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        return ds

    write_series(tmp_path / "ct")
    write_series(tmp_path / "scout", hu_volume((2, 8, 6)), change=localiser)
    mr = header()
    mr.Modality = "MR"
    write_series(tmp_path / "mr", hu_volume((3, 8, 6)), shared=mr)
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.33", generate_uid(), "SR"
    save(report, tmp_path / "report")
    (tmp_path / "notes.txt").write_text("hello")
    found = find_series(tmp_path)
    assert len(found.series) == 1
    assert dict(found.left_out) == {"localiser": 2, "no CT image (MR)": 3, "no CT image (SR)": 1}
    assert found.others == 1
    assert found.told() == "DICOM files left out: 3 no CT image (MR), 2 localiser, 1 no CT image (SR)"


def test_a_faulty_file_refuses_its_series_and_no_other_and_is_known(tmp_path):
    write_series(tmp_path / "sound")
    paths = write_series(tmp_path / "cut")
    paths[5].write_bytes(paths[5].read_bytes()[:-100])
    refused, sound = find_series(tmp_path).series
    assert not sound.refused
    assert refused.refused == "1 of 12 images: cut: 2780 of 2880 bytes of pixels; copy or send the series again"
    assert list(refused.faulty) == [paths[5]]


def test_a_missing_slice_is_told_by_its_place(tmp_path):
    write_series(tmp_path, change=lambda ds, index: None if index == 7 else ds)
    (one,) = find_series(tmp_path).series
    assert "a slice is missing: 1.60 mm between slices 7 and 8 of 11" in one.refused


def test_copies_of_files_count_once_and_two_contents_of_one_identifier_are_refused(tmp_path):
    paths = write_series(tmp_path / "a")
    shutil.copy(paths[3], tmp_path / "copy of it")
    (one,) = find_series(tmp_path).series
    assert (len(one.slices), one.refused, one.notes) == (12, "", ["1 copies of its files left out"])
    data = bytearray((tmp_path / "copy of it").read_bytes())
    data[-1] ^= 1
    (tmp_path / "copy of it").write_bytes(bytes(data))
    (one,) = find_series(tmp_path).series
    assert "two files of one SOP Instance UID with different content" in one.refused


def two_phases(folder, **names):
    shared = header()
    for number, (time, seed) in enumerate([("430", 1), ("90", 2)]):

        def change(ds, index, time=time):
            ds.TriggerTime = time
            return ds

        write_series(
            folder, hu_volume((5, 8, 6), seed), shared=shared, change=change, names=lambda i, n=number: f"{i}_{n}"
        )


def test_phases_of_one_series_are_scans_of_their_own(tmp_path):
    two_phases(tmp_path)
    found = find_series(tmp_path)
    assert [(one.phase, len(one.slices), one.refused) for one in found.series] == [
        ("TriggerTime=90", 5, ""),
        ("TriggerTime=430", 5, ""),
    ]
    assert found.series[0].notes == ["2 phases in one series"]


def test_a_wanted_phase_is_the_only_one_and_the_others_are_told(tmp_path):
    two_phases(tmp_path)
    found = find_series(tmp_path, Wanted(phase="430"))
    assert [one.phase for one in found.series] == ["TriggerTime=430"]
    assert found.left_out == {"images of other phases than 430": 5}
    with pytest.raises(ValueError, match=r"--phase 75: no series has it; .* TriggerTime=90, TriggerTime=430"):
        find_series(tmp_path, Wanted(phase="75"))


def test_a_series_without_phases_needs_none(tmp_path):
    write_series(tmp_path)
    assert len(find_series(tmp_path, Wanted(phase="75")).series) == 1


def test_two_slices_at_one_place_that_nothing_tells_apart_are_refused(tmp_path):
    shared = header()
    for number in range(2):
        write_series(tmp_path, hu_volume((5, 8, 6)), shared=shared, names=lambda i, n=number: f"{i}_{n}")
    (one,) = find_series(tmp_path).series
    assert "two slices at one place" in one.refused


def test_tilt_is_refused_or_resampled_as_asked(tmp_path):
    write_series(tmp_path, shear=(0, 0.2, 0))
    (one,) = find_series(tmp_path).series
    assert one.refused.startswith("tilted by 14.0 degrees")
    (one,) = find_series(tmp_path, Wanted(tilt="resample")).series
    assert one.notes == ["tilted by 14.0 degrees, resampled upright"]
    with pytest.raises(ValueError, match="tilt: expected one of refuse, resample, got 'maybe'"):
        Wanted(tilt="maybe")


def test_a_folder_for_one_series_has_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="no CT series in it; 0 files"):
        only_series(tmp_path)
    write_series(tmp_path / "a")
    assert len(only_series(tmp_path).slices) == 12
    write_enhanced(tmp_path / "b" / "one")
    with pytest.raises(ValueError, match=r"2 CT series or phases in it \(12 slices, 12 slices\); give each a folder"):
        only_series(tmp_path)


def test_ten_thousand_files_that_are_no_dicom_are_looked_at_and_counted(tmp_path):
    for number in range(10_000):
        (tmp_path / f"{number}.txt").write_bytes(b"x" * 200)
    write_series(tmp_path / "a")
    found = find_series(tmp_path)
    assert (len(found.series), found.others) == (1, 10_000)


def test_real_slices_without_any_identifier_are_one_series():
    """Made anonymous by emptying their identifiers; their files' names say another order than their positions do not."""
    one = only_series(real_scan("dicom_ct"))
    assert len(one.slices) == 20
    np.testing.assert_allclose(np.diff([part.position[2] for part in one.slices]), 2)
