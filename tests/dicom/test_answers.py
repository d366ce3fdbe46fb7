"""What is filed back: reports and segmentations that validators accept and readers understand, naming no more than they must."""

import shutil
import subprocess

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_series import header, hu_volume, write_enhanced, write_series
from real_scans import real_scan

from monai_chd import __version__
from monai_chd.dicom.answers import CODES, WARNING, segmentation, source_headers, structured_report
from monai_chd.dicom.private import Pseudonyms, describe_series
from monai_chd.dicom.series import Wanted, find_series
from monai_chd.labels import CLASSES, STRUCTURES

WEIGHTS = "ab" * 32
ANSWER = {"probabilities": [0.2, 0.7, 0.1], "weights": WEIGHTS, "settings": {"temperature": "1.2"}}
KEPT = ("Zebedee^Quentin", "MRN-778812", "20190403", "ACC-55121", "20211231")
"""What filing needs."""


@pytest.fixture(params=["slices", "enhanced"])
def series(request, tmp_path):
    """The file that describes a series, and its HU (Z, Y, X)."""
    values = hu_volume((6, 16, 12))
    if request.param == "slices":
        write_series(tmp_path / "in", values)
    else:
        write_enhanced(tmp_path / "in" / "one", values, order=[4, 0, 2, 1, 5, 3])
    (path,) = describe_series(find_series(tmp_path / "in").series, Pseudonyms(tmp_path / "private"))
    return path


def items(dataset):
    """All content items of a report by their meaning."""
    found = {}
    for item in dataset.get("ContentSequence", ()):
        name = item.ConceptNameCodeSequence[0].CodeMeaning
        value = item.get("TextValue")
        if item.ValueType == "CODE":
            value = item.ConceptCodeSequence[0].CodeMeaning
        if item.ValueType == "NUM":
            value = float(item.MeasuredValueSequence[0].NumericValue)
        found.setdefault(name, []).append(value)
        for inner, values in items(item).items():
            found.setdefault(inner, []).extend(values)
    return found


@pytest.mark.parametrize("reason", ["", "no contrast agent in the heart"])
def test_a_report_says_class_probabilities_and_whether_they_are_stood_by(series, tmp_path, reason):
    report = pydicom.dcmread(structured_report(series, tmp_path / "a.dcm", reason=reason, **ANSWER))
    said = items(report)
    assert said["Class of congenital heart disease"] == [CLASSES[1]]
    assert [said[f"Probability of {name}"][0] for name in CLASSES] == [0.2, 0.7, 0.1]
    assert said["Model abstains"] == ["Yes" if reason else "No"]
    assert (reason in said["Comment"][0]) and WARNING in said["Comment"][0]
    assert said["Algorithm Name"] == ["monai_chd"]
    assert said["Algorithm Version"] == [__version__]
    assert said["Algorithm Parameters"] == [WARNING, f"weights sha256 {WEIGHTS}", "temperature 1.2"]
    assert (report.VerificationFlag, report.CompletionFlag) == ("UNVERIFIED", "COMPLETE")
    assert highdicom.sr.srread(tmp_path / "a.dcm").content.get_image_measurement_groups()


def test_a_report_refers_to_every_file_of_its_series_and_is_filed_in_its_study(series, tmp_path):
    report = pydicom.dcmread(structured_report(series, tmp_path / "a.dcm", reason="", **ANSWER))
    sources = source_headers(series)
    evidence = [
        *report.get("CurrentRequestedProcedureEvidenceSequence", ()),
        *report.get("PertinentOtherEvidenceSequence", ()),
    ]
    referred = {
        one.ReferencedSOPInstanceUID
        for study in evidence
        for part in study.ReferencedSeriesSequence
        for one in part.ReferencedSOPSequence
    }
    assert referred == {one.SOPInstanceUID for one in sources}
    assert report.StudyInstanceUID == sources[0].StudyInstanceUID
    assert report.SeriesInstanceUID != sources[0].SeriesInstanceUID


def test_the_same_answer_is_the_same_object_and_another_is_another(series, tmp_path):
    def uid(**changes):
        return pydicom.dcmread(
            structured_report(series, tmp_path / "a.dcm", **({"reason": "", **ANSWER} | changes))
        ).SOPInstanceUID

    assert uid() == uid()
    assert len({uid(), uid(reason="x"), uid(weights="cd" * 32), uid(probabilities=[0.3, 0.6, 0.1])}) == 4


def labels_of(shape=(12, 16, 6)):
    labels = np.zeros(shape, np.uint8)
    for number in range(1, 8):
        labels[number : number + 3, 2 * number : 2 * number + 2, number % 4 : number % 4 + 2] = number
    return labels


def test_a_segmentation_lies_where_the_label_map_lies(series, tmp_path):
    labels = labels_of()
    found = highdicom.seg.segread(segmentation(series, labels, tmp_path / "a.dcm", weights=WEIGHTS))
    volume = found.get_volume(combine_segments=True, rescale_fractional=False)
    measures = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    y, x = map(float, measures.PixelSpacing)
    z = 0.8 if len(source_headers(series)) > 1 else 1.5
    for index in zip(*np.nonzero(labels), strict=True):
        column, row, slice_ = (int(i) for i in index)
        own = np.linalg.inv(volume.affine) @ [-100 + x * column, -80 + y * row, -300 + z * slice_, 1]
        where = tuple(np.rint(own[:3]).astype(int))
        assert volume.array[where] == labels[index]
    assert int((volume.array > 0).sum()) == int((labels > 0).sum())


def test_segments_are_named_by_snomed(series, tmp_path):
    found = pydicom.dcmread(segmentation(series, labels_of(), tmp_path / "a.dcm", weights=WEIGHTS))
    codes = [
        (one.SegmentLabel, one.SegmentedPropertyTypeCodeSequence[0].CodeValue, one.SegmentAlgorithmType)
        for one in found.SegmentSequence
    ]
    assert codes == [(CODES[name][1], CODES[name][0], "AUTOMATIC") for name in STRUCTURES]


def test_codes_of_snomed_are_those_of_dicoms_own_dictionary():
    from pydicom.sr.codedict import codes

    names = {"LV": "LeftVentricle", "RV": "RightVentricle", "LA": "LeftAtrium", "RA": "RightAtrium", "Ao": "Aorta"}
    names["PA"] = "PulmonaryArtery"
    assert {name: CODES[name][0] for name in names} == {
        name: getattr(codes.SCT, word).value for name, word in names.items()
    }


@pytest.mark.parametrize("kind", ["SR", "SEG"])
def test_nothing_but_what_filing_needs_is_told_of_the_patient(series, tmp_path, kind):
    out = tmp_path / "a.dcm"
    if kind == "SR":
        structured_report(series, out, reason="", **ANSWER)
    else:
        segmentation(series, labels_of(), out, weights=WEIGHTS)
    content = out.read_bytes()
    assert all(word.encode() in content for word in KEPT)
    assert not [word for word in ("Foxglove", "St. Example", "Model 7") if word.encode() in content]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian: dicom3tools)")
@pytest.mark.parametrize("kind", ["SR", "SEG"])
def test_dciodvfy_finds_no_error(series, tmp_path, kind):
    out = tmp_path / "a.dcm"
    if kind == "SR":
        structured_report(series, out, reason="tilted", **ANSWER)
    else:
        segmentation(series, labels_of(), out, weights=WEIGHTS)
    said = subprocess.run(["dciodvfy", str(out)], capture_output=True, text=True).stderr.splitlines()
    assert said[0] in ("ComprehensiveSR", "Segmentation"), said
    assert [line for line in said[1:] if "99MONAICHD" not in line] == []


def test_dciodvfy_would_find_an_error(series, tmp_path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("needs dciodvfy (Debian: dicom3tools)")
    report = pydicom.dcmread(structured_report(series, tmp_path / "a.dcm", reason="", **ANSWER))
    del report.CompletionFlag
    report.save_as(tmp_path / "b.dcm")
    assert "Error" in subprocess.run(["dciodvfy", str(tmp_path / "b.dcm")], capture_output=True, text=True).stderr


def test_a_resampled_series_has_no_segmentation(tmp_path):
    write_series(tmp_path / "in", shear=(0, 0.2, 0))
    found = find_series(tmp_path / "in", Wanted(tilt="resample"))
    (path,) = describe_series(found.series, Pseudonyms(tmp_path / "private"))
    with pytest.raises(ValueError, match="resampled for its tilt, so that its label map lies on none of its slices"):
        segmentation(path, np.zeros((36, 40, 12), np.uint8), tmp_path / "a.dcm", weights=WEIGHTS)


def test_files_without_identifiers_cannot_be_referred_to(tmp_path):
    """The real slices have none."""
    (path,) = describe_series(find_series(real_scan("dicom_ct")).series, Pseudonyms(tmp_path / "private"))
    with pytest.raises(ValueError, match="its files have no SOPClassUID, so that nothing can refer to them"):
        structured_report(path, tmp_path / "a.dcm", reason="", **ANSWER)
    assert not (tmp_path / "a.dcm").exists()


def test_a_patient_without_a_name_is_filed_all_the_same(tmp_path):
    shared = header()
    del shared.PatientName, shared.StudyDate, shared.AccessionNumber
    write_series(tmp_path / "in", hu_volume((3, 8, 6)), shared=shared)
    (path,) = describe_series(find_series(tmp_path / "in").series, Pseudonyms(tmp_path / "private"))
    report = pydicom.dcmread(structured_report(path, tmp_path / "a.dcm", reason="", **ANSWER))
    assert (report.PatientName, report.AccessionNumber) == ("", "")
