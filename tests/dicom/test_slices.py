"""Headers of single DICOM files: what an image is, where it lies, and every reason why one cannot be used."""

import sys

import numpy as np
import pytest
from dicom_series import CT, header, hu_volume, save, write_enhanced, write_series
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    generate_uid,
)

from monai_chd.dicom.slices import is_dicom, read_slices


def one(folder, change=None, **settings):
    """The only image of a file."""
    (path,) = write_series(folder, hu_volume((1, 8, 6)), change=change, **settings)
    (image,) = read_slices(path)
    return image


def without(*names):
    def change(ds, index):
        for name in names:
            delattr(ds, name)
        return ds

    return change


def with_values(**values):
    def change(ds, index):
        for name, value in values.items():
            setattr(ds, name, value)
        return ds

    return change


def test_an_image_is_described_as_its_header_has_it(tmp_path):
    image = one(tmp_path, with_values(ContrastBolusAgent="Iodine", TriggerTime="430.0"))
    assert (image.rows, image.columns, image.spacing) == (8, 6, (0.7, 1.5))
    assert image.position == (-100, -80, -300)
    assert image.axes == (1, 0, 0, 0, 1, 0)
    assert (image.modality, image.scanner, image.contrast) == ("CT", "Model 7", True)
    assert image.phases == {"TriggerTime": "430", "AcquisitionNumber": "1"}
    assert (image.pixels.dtype, image.pixels.bits, image.pixels.slope, image.pixels.intercept) == ("<u2", 12, 1, -1024)
    assert not image.fault
    assert not image.left_out


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_pixels_lie_where_it_is_said(tmp_path, syntax):
    values = hu_volume((1, 8, 6))
    image = one(tmp_path, syntax=syntax)
    stored = np.fromfile(image.path, image.pixels.dtype, 48, offset=image.pixels.offset).reshape(8, 6)
    np.testing.assert_array_equal(stored.astype(int) - 1024, values[0].clip(-1024))


def test_compressed_pixels_have_no_place_of_their_own(tmp_path):
    (path,) = write_series(tmp_path, hu_volume((1, 64, 64)), syntax=JPEG2000Lossless)
    (image,) = read_slices(path)
    assert (image.pixels.offset, image.fault) == (-1, "")


def test_each_frame_of_an_enhanced_file_is_an_image(tmp_path):
    images = read_slices(write_enhanced(tmp_path / "a.dcm", hu_volume((3, 8, 6)), order=[2, 0, 1]))
    assert [image.position[2] for image in images] == [-297, -300, -298.5]
    assert [image.pixels.offset - images[0].pixels.offset for image in images] == [0, 96, 192]
    assert {(image.spacing, image.axes, image.pixels.intercept) for image in images} == {
        ((0.7, 0.8), (1, 0, 0, 0, 1, 0), -1024)
    }


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localiser"),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]}, "reformat"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "reformat"),
        ({"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"]}, "projection"),
        ({"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "no CT image (MR)"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "no CT image (Secondary Capture Image Storage)"),
    ],
)
def test_what_is_no_slice_of_a_ct_is_named(tmp_path, values, said):
    image = one(tmp_path, with_values(**values))
    assert image.left_out == said
    assert not image.fault


def test_a_derived_axial_image_is_a_slice(tmp_path):
    assert not one(tmp_path, with_values(ImageType=["DERIVED", "PRIMARY", "AXIAL"])).left_out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("RescaleSlope"), "no rescale slope and intercept"),
        (with_values(RescaleType="US"), "rescale type 'US' where a CT has HU"),
        (without("PixelData"), "no pixels in it"),
        (with_values(PixelData=b""), "no pixels in it"),
        (without("ImagePositionPatient"), "its place is unknown"),
        (without("ImageOrientationPatient"), "its place is unknown"),
        (without("PixelSpacing"), "its size is unknown"),
        (with_values(PixelSpacing=[0, 1]), "its size is unknown"),
        (with_values(PhotometricInterpretation="RGB", SamplesPerPixel=3), "RGB where a CT has MONOCHROME2"),
        (with_values(PhotometricInterpretation="MONOCHROME1"), "MONOCHROME1 where"),
        (with_values(HighBit=15), "12 of 16 bits a pixel"),
        (with_values(Rows=9), "cut: 96 of 108 bytes of pixels"),
    ],
)
def test_a_fault_is_told_without_name_or_path(tmp_path, change, said):
    image = one(tmp_path / "Zebedee", change)
    assert said in image.fault
    assert "Zebedee" not in image.fault


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless])
@pytest.mark.parametrize("kept", [0.999, 0.6])
def test_a_file_that_is_cut_is_found_without_decoding(tmp_path, syntax, kept):
    (path,) = write_series(tmp_path, hu_volume((1, 64, 64)), syntax=syntax)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    (image,) = read_slices(path)
    assert image.fault.startswith("cut")


@pytest.mark.parametrize("size", range(132, 1200, 71))
def test_a_header_that_is_cut_anywhere_is_a_fault_or_says_that_there_are_no_pixels(tmp_path, size):
    (path,) = write_series(tmp_path, hu_volume((1, 8, 6)))
    path.write_bytes(path.read_bytes()[:size])
    for image in read_slices(path):
        assert image.fault or image.left_out


def test_rubbish_after_the_mark_of_dicom_is_a_fault(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / f"{number}"
        path.write_bytes(bytes(128) + b"DICM" + rng.bytes(int(rng.integers(0, 400))))
        assert is_dicom(path)
        assert all(image.fault or image.left_out for image in read_slices(path))


def test_what_dicom_is_stands_in_its_first_bytes(tmp_path):
    (path,) = write_series(tmp_path / "a", hu_volume((1, 8, 6)))
    bare = Dataset()
    bare.SpecificCharacterSet, bare.SOPClassUID, bare.SOPInstanceUID = "ISO_IR 100", CT, generate_uid()
    bare.update(header())
    bare.save_as(tmp_path / "bare", implicit_vr=True, little_endian=True)
    for name, content in {"text": b"patient,class\n" * 20, "empty": b"", "zip": b"PK\3\4" + bytes(300)}.items():
        (tmp_path / name).write_bytes(content)
    found = {p.name for p in [path, *tmp_path.iterdir()] if is_dicom(p)}
    assert found == {path.name, "bare"}


def test_a_dicomdir_is_left_out_by_its_name(tmp_path):
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.1.3.10", generate_uid()
    ds.FileSetID = "SET"
    (image,) = read_slices(save(ds, tmp_path / "DICOMDIR"))
    assert image.left_out == "DICOMDIR"


def test_without_pydicom_it_is_said_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match=r'pip install "monai_chd\[dicom\]"'):
        read_slices(tmp_path / "a")
