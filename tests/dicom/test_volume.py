"""Series as volumes: the values and places that GDCM and highdicom give, in every syntax, slice by slice."""

import shutil
import threading
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_series import affine_of, header, hu_volume, write_enhanced, write_series
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from real_scans import real_scan

from monai_chd import streaming
from monai_chd.dicom import private, volume
from monai_chd.dicom.private import Pseudonyms, describe_series, open_series_file, series_digest
from monai_chd.dicom.series import ANYTHING, Wanted, described, find_series, only_series
from monai_chd.dicom.volume import SeriesVolume

SHAPE = (7, 64, 72)


def volume_of(folder, wanted=ANYTHING):
    (series,) = find_series(folder, wanted).series
    assert not series.refused
    return SeriesVolume(Path("series"), described(series))


def hu_of(volume):
    """HU (Z, Y, X)."""
    return volume.scaled(volume.read_whole())


def check_against_highdicom(volume, truth):
    """Its volumes are indexed slice, row, column, in LPS, and count slices the other way."""
    count = volume.shape[2]
    np.testing.assert_array_equal(truth.array[::-1], hu_of(volume))
    x, y, z = volume.shape
    for column, row, index in [(0, 0, 0), (x - 1, 0, 1), (2, y - 1, z - 1)]:
        place = truth.affine @ [count - 1 - index, row, column, 1] * [-1, -1, 1, 1]
        np.testing.assert_allclose(volume.affine @ [column, row, index, 1], place, atol=1e-9)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
        JPEGLSLossless,
        JPEGLosslessSV1,
    ],
    ids=lambda syntax: syntax.name,
)
def test_values_are_those_that_were_stored(tmp_path, syntax):
    values = hu_volume(SHAPE)
    write_series(tmp_path, values, syntax=syntax)
    volume = volume_of(tmp_path)
    np.testing.assert_array_equal(hu_of(volume), values)
    np.testing.assert_allclose(volume.affine, affine_of(), atol=1e-12)
    assert (volume.shape, volume.spacing_mm, volume.hu_offset) == ((72, 64, 7), (1.5, 0.7, 0.8), 0)


def test_lossy_jpeg_2000_is_decoded(tmp_path):
    values = hu_volume(SHAPE)
    write_series(tmp_path, values, syntax=JPEG2000)
    assert np.abs(hu_of(volume_of(tmp_path)) - values).mean() < 40


def test_an_enhanced_file_is_a_volume_in_any_order_of_its_frames(tmp_path):
    values = hu_volume()
    write_enhanced(tmp_path / "a", values, order=np.random.default_rng(2).permutation(len(values)))
    volume = volume_of(tmp_path)
    np.testing.assert_array_equal(hu_of(volume), values)
    truth = highdicom.imread(tmp_path / "a").get_volume(apply_modality_transform=True)
    check_against_highdicom(volume, truth)


def test_highdicom_and_gdcm_give_the_same_volume_of_an_oblique_series(tmp_path, itk_loaded):
    from monai.data import ITKReader

    axes = (0.96, 0.28, 0, -0.28 * 0.8, 0.96 * 0.8, 0.6)
    paths = write_series(tmp_path, hu_volume(), axes=axes)
    volume = volume_of(tmp_path)
    truth = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths], dtype=np.float64)
    check_against_highdicom(volume, truth)
    reader = ITKReader()
    array, meta = reader.get_data(reader.read(str(tmp_path)))
    np.testing.assert_array_equal(array, hu_of(volume).T)
    np.testing.assert_allclose(meta["affine"], volume.affine, atol=1e-4)


def test_real_slices_are_what_gdcm_reads(itk_loaded):
    """20 slices of a real CT in JPEG 2000. Their series UIDs are empty, so that GDCM is told the files."""
    import itk

    folder = real_scan("dicom_ct")
    series = only_series(folder)
    values = hu_of(SeriesVolume(folder, described(series)))
    for index in (0, 7, 19):
        truth = itk.array_from_image(itk.imread(str(series.slices[index].path), itk.SS))
        np.testing.assert_array_equal(values[index], truth.reshape(512, 512))
    assert values.min() == -1024
    assert 1000 < values.max() < 3072


def test_a_rescale_of_its_own_for_each_slice_is_applied(tmp_path):
    def rescaled(ds, index):
        ds.RescaleSlope, ds.RescaleIntercept = str(1 + index / 4), str(-1000 - index)
        return ds

    values = hu_volume(SHAPE)
    write_series(tmp_path, values, change=rescaled)
    volume = volume_of(tmp_path)
    truth = np.stack([(v + 1024) * (1 + i / 4) - 1000 - i for i, v in enumerate(values.astype(float))])
    assert volume.dtype == np.float32
    np.testing.assert_allclose(hu_of(volume), truth, rtol=1e-6)


def test_a_slope_that_is_no_whole_number_is_applied(tmp_path):
    shared = header()
    shared.RescaleSlope, shared.RescaleIntercept = "0.5", "-512.25"
    values = hu_volume(SHAPE)
    write_series(tmp_path, values, shared=shared)
    np.testing.assert_allclose(hu_of(volume_of(tmp_path)), (values + 1024) * 0.5 - 512.25)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_those_of_the_pixels_do_not_count(tmp_path, signed):
    """12 of 16 bits, an overlay in the others; a sign is that of bit 12."""
    values = hu_volume((3, 8, 6))

    def dirty(ds, index):
        stored = values[index].astype(np.int32) if signed else values[index].astype(np.int32) + 1024
        ds.PixelData = ((stored & 0xFFF) | 0x5000).astype("<u2").tobytes()
        ds.PixelRepresentation, ds.RescaleIntercept = int(signed), 0 if signed else -1024
        return ds

    write_series(tmp_path, values, change=dirty)
    np.testing.assert_array_equal(hu_of(volume_of(tmp_path)), values)


def test_a_tilted_series_is_made_upright(tmp_path):
    """A rod along the patient, scanned under a tilt of 20 degrees, stands upright again."""
    values = np.full((10, 40, 30), -900, np.int16)
    lean = 0.8 * np.tan(np.radians(20)) / 0.7  # rows a slice
    for index, frame in enumerate(values):
        centre = 25 - lean * index
        frame[:, 10:14] = np.where(np.abs(np.arange(40) - centre) < 3, 400, -900)[:, None]
    write_series(tmp_path, values, shear=(0, lean * 0.7, 0))
    volume = volume_of(tmp_path, Wanted(tilt="resample"))
    hu = hu_of(volume)
    rows = [np.average(np.arange(40), weights=np.clip(frame[:, 11], -900, 400) + 900.0 + 1e-9) for frame in hu[:8]]
    np.testing.assert_allclose(rows, rows[0], atol=0.6)
    assert np.degrees(np.arccos(volume.affine[2, 2] / np.linalg.norm(volume.affine[:3, 2]))) < 1e-6


@pytest.mark.parametrize("slab", [1, 5000, 10**7])
def test_slabs_are_the_slices_in_order(tmp_path, monkeypatch, slab):
    monkeypatch.setattr(streaming, "SLAB_BYTES", slab)
    values = hu_volume(SHAPE)
    write_series(tmp_path, values)
    volume = volume_of(tmp_path)
    before = threading.active_count()
    got = [(part.start, volume.scaled(part.values).copy()) for part in volume.slabs(5)]
    np.testing.assert_array_equal(np.concatenate([part for _, part in got]), values[:5])
    assert got[0][0] == 0
    assert threading.active_count() == before


def test_slices_that_are_not_wanted_are_not_read(tmp_path):
    values = hu_volume(SHAPE)
    paths = write_series(tmp_path, values)
    volume = volume_of(tmp_path)
    for path in paths[4:]:
        path.unlink()
    assert sum(len(part.values) for part in volume.slabs(4)) == 4
    with pytest.raises(
        ValueError, match=r"series: cut or damaged DICOM series \(slice 5: No such file or directory at byte"
    ):
        list(volume.slabs())


def test_a_file_that_changed_or_went_since_is_refused(tmp_path):
    paths = write_series(tmp_path / "Zebedee")
    description = described(only_series(tmp_path))
    paths[2].write_bytes(paths[2].read_bytes() + b"\0\0")
    with pytest.raises(ValueError, match=r"series: a file of this DICOM series has changed since") as error:
        SeriesVolume(Path("series"), description)
    paths[2].unlink()
    with pytest.raises(ValueError, match=r"cannot be read any more \(No such file or directory\)") as gone:
        SeriesVolume(Path("series"), description)
    assert "Zebedee" not in f"{error.value} {gone.value}"


def test_pixels_that_cannot_be_decoded_are_an_error_of_the_series(tmp_path):
    paths = write_series(tmp_path, hu_volume(SHAPE), syntax=JPEG2000Lossless)
    data = bytearray(paths[3].read_bytes())
    place = data.index(b"\xff\x4f\xff\x51")  # where the stream of JPEG 2000 begins
    data[place : place + 60] = bytes(60)
    paths[3].write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"cut or damaged DICOM series \(its pixels cannot be decoded"):
        list(volume_of(tmp_path).slabs())


def test_a_volume_is_the_same_wherever_its_files_lie(tmp_path):
    write_series(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    np.testing.assert_array_equal(hu_of(volume_of(tmp_path / "a")), hu_of(volume_of(tmp_path / "b")))


def test_a_compressed_file_of_many_frames_is_decoded_and_digested_once(tmp_path, monkeypatch):
    """Of 300 frames, once a frame would be hours."""
    values = hu_volume((6, 64, 72))
    write_enhanced(tmp_path / "in" / "a", values, order=[2, 0, 5, 1, 4, 3], syntax=RLELossless)
    (path,) = describe_series(find_series(tmp_path / "in").series, Pseudonyms(tmp_path / "private"))
    decoded, digested = [], []
    monkeypatch.setattr(volume, "_decoded", lambda path, f=volume._decoded: decoded.append(path) or f(path))
    monkeypatch.setattr(private, "sha256_of", lambda path, f=private.sha256_of: digested.append(path) or f(path))
    np.testing.assert_array_equal(hu_of(open_series_file(path)), values)
    assert len(decoded) == 1
    series_digest(path)
    assert len(digested) == 1
