import gzip
import struct
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from real_scans import real_scan
from scipy.spatial.transform import Rotation

from monai_chd.errors import UserError, UserFileError
from monai_chd.nifti import READERS, Volume, check_file, is_nifti, read_volume, stem, voxel_digest
from monai_chd.streaming import StoredVolume

REAL = (
    "ts_cardiac_ct_b.nii.gz",
    "ts_cardiac_ct_a.nii.gz",
    "mr_heart_cine_256x256x1x16.nii.gz",
    "ts_abdomen_ct_small.nii.gz",
    "pyrad_lung1_256x256x48.nii.gz",
)
STRAIGHT = np.array([[0.7, 0, 0, -10], [0, 0.8, 0, 5], [0, 0, 1.5, 33], [0, 0, 0, 1]])
OBLIQUE = STRAIGHT.copy()
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix() @ STRAIGHT[:3, :3]
VOXELS = np.random.default_rng(0).integers(-1000, 3000, (5, 6, 7)).astype(np.int16)
RGB = np.zeros((5, 6, 7), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])

readers = pytest.mark.parametrize("reader", READERS)


pytestmark = pytest.mark.usefixtures("itk_loaded")


def save(path, values, affine=STRAIGHT, *, scaling=None, byte_order="<", sform=None, qform=None):
    header = nib.Nifti1Header(endianness=byte_order)
    header.set_data_dtype(values.dtype)
    image = nib.Nifti1Image(values, affine, header)
    if scaling:
        # nibabel would divide by the slope on saving: write the numbers as they are, and the scaling into the header
        image.to_filename(path)
        return patch(path, 112, struct.pack("<2f", *scaling))
    if sform is not None:
        image.set_sform(*sform)
    if qform is not None:
        image.set_qform(*qform)
    image.to_filename(path)
    return path


def patch(path, offset, values):
    """Overwrite bytes of a NIfTI file; at 40 dim, 70 datatype, 108 offset, 112 scaling, 252 form codes, 280 srow."""
    packed = path.name.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    content[offset : offset + len(values)] = values
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    return path


def with_affine(path, affine):
    """nibabel refuses to write such affines."""
    save(path, VOXELS)
    patch(path, 252, struct.pack("<2h", 0, 1))
    return patch(path, 280, np.asarray(affine, dtype="<f4")[:3].tobytes())


def itk_affine(path):
    """RAS affine, worked out here from what ITK itself says of the file."""
    image = itk.imread(str(path))
    affine = np.eye(4)
    direction = itk.array_from_matrix(image.GetDirection())[:3, :3]
    affine[:3, :3] = direction * np.array(image.GetSpacing())[:3]
    affine[:3, 3] = np.array(image.GetOrigin())[:3]
    return np.diag([-1, -1, 1, 1]) @ affine


def test_reading_loads_neither_torch_nor_itk_until_itk_is_asked_for():
    code = "import sys, monai_chd.nifti; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "nibabel" in loaded and not {"torch", "monai", "itk"} & set(loaded)


@pytest.mark.parametrize("name", REAL)
def test_both_readers_give_what_nibabel_and_itk_themselves_give(name):
    path = real_scan(name)
    image = nib.load(path)
    for reader in READERS:
        values, affine = read_volume(path, reader)
        np.testing.assert_array_equal(values, np.asanyarray(image.dataobj))
        np.testing.assert_array_equal(values, itk.array_from_image(itk.imread(str(path))).T)
        np.testing.assert_array_equal(affine, image.affine)
        np.testing.assert_allclose(affine, itk_affine(path), atol=2e-4)


MADE = {
    "int16": {},
    "float32": {"values": VOXELS.astype(np.float32) / 3},
    "float64": {"values": VOXELS.astype(np.float64) / 3},
    "uint8": {"values": VOXELS.astype(np.uint8)},
    "uint16": {"values": VOXELS.astype(np.uint16)},
    "int32": {"values": VOXELS.astype(np.int32) * 1000},
    "big-endian": {"values": VOXELS.astype(">i2"), "byte_order": ">"},
    "oblique": {"affine": OBLIQUE},
    "mirrored": {"affine": OBLIQUE @ np.diag([-1, 1, 1, 1])},
    "axes-swapped": {"affine": OBLIQUE[:, [2, 0, 1, 3]]},
    "qform-only": {"sform": (None, 0), "qform": (OBLIQUE, 1), "expected": OBLIQUE},
    "sform-before-qform": {"sform": (OBLIQUE, 2), "qform": (STRAIGHT, 1), "expected": OBLIQUE},
    "one-row": {"values": VOXELS[:1, :1]},
    "one-slice": {"values": VOXELS[:, :, :1]},
    "cine": {"values": np.stack([VOXELS, VOXELS + 1, VOXELS + 2], -1)},
    "cine-of-one-slice": {"values": np.stack([VOXELS, VOXELS + 1], -1)[:, :, :1]},
}


@readers
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", MADE)
def test_both_readers_give_the_voxels_and_affine_that_were_written(tmp_path, kind, suffix, reader):
    options = dict(MADE[kind])
    expected = options.pop("expected", options.get("affine", STRAIGHT))
    values = options.pop("values", VOXELS)
    volume = read_volume(save(tmp_path / f"scan{suffix}", values, **options), reader)
    assert volume.values.dtype == values.dtype.newbyteorder("=") or volume.values.dtype == values.dtype
    np.testing.assert_array_equal(volume.values, values)
    assert volume.affine.shape == (4, 4) and volume.affine.dtype == np.float64
    np.testing.assert_allclose(volume.affine, expected, atol=1e-5)


@readers
@pytest.mark.parametrize("scaling", [(2, -1024), (0.1, -5.3)])
def test_slope_and_intercept_are_applied(tmp_path, reader, scaling):
    values, _ = read_volume(save(tmp_path / "scan.nii.gz", VOXELS, scaling=scaling), reader)
    np.testing.assert_allclose(values, VOXELS * scaling[0] + scaling[1], rtol=1e-6, atol=1e-4)
    with_offset = save(tmp_path / "raw.nii", VOXELS + 1024, scaling=(1, -1024))
    np.testing.assert_array_equal(read_volume(with_offset, reader).values, VOXELS)


@readers
@pytest.mark.parametrize("scaling", [(0, 0), (float("nan"), 0)])
def test_no_slope_means_no_scaling(tmp_path, reader, scaling):
    values, _ = read_volume(save(tmp_path / "scan.nii.gz", VOXELS, scaling=scaling), reader)
    np.testing.assert_array_equal(values, VOXELS)


@pytest.mark.parametrize("values", [VOXELS, VOXELS.astype(np.float32)])
def test_intercept_without_slope_is_not_added_by_either_reader(tmp_path, values):
    path = save(tmp_path / "scan.nii.gz", values, scaling=(0, 7))
    np.testing.assert_array_equal(read_volume(path).values, VOXELS)
    with pytest.raises(ValueError, match="use reader nibabel"):
        read_volume(path, "itk")


def test_sheared_affine_is_read_by_nibabel_and_refused_plainly_by_itk(tmp_path):
    sheared = STRAIGHT.copy()
    sheared[0, 1] = 0.3
    path = with_affine(tmp_path / "scan.nii.gz", sheared)
    np.testing.assert_allclose(read_volume(path).affine, sheared, atol=1e-6)
    with pytest.raises(ValueError, match="use reader nibabel"):
        read_volume(path, "itk")


@readers
@pytest.mark.parametrize(
    ("stored", "read"),
    [((5, 6), (5, 6, 1)), ((5, 6, 1, 1), (5, 6, 1)), ((5, 6, 3, 1), (5, 6, 3)), ((5, 6, 3, 1, 1), (5, 6, 3))],
)
def test_missing_and_idle_axes_give_a_3d_volume(tmp_path, reader, stored, read):
    values = np.arange(np.prod(stored), dtype=np.int16).reshape(stored)
    volume = read_volume(save(tmp_path / "scan.nii.gz", values), reader)
    np.testing.assert_array_equal(volume.values, values.reshape(read))
    np.testing.assert_allclose(volume.affine, STRAIGHT, atol=1e-6)


@readers
def test_one_idle_axis_after_time_is_dropped(tmp_path, reader):
    values = np.stack([VOXELS, VOXELS + 1], -1)[..., None]
    np.testing.assert_array_equal(read_volume(save(tmp_path / "a.nii", values), reader).values, values[..., 0])


@pytest.mark.parametrize("name", ["ä ö/scan ü.nii.gz", "SCAN.NII.GZ", "a.b.nii"])
@readers
def test_odd_names_are_read(tmp_path, name, reader):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    save(tmp_path / "plain.nii", VOXELS).rename(tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    path.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    np.testing.assert_array_equal(read_volume(str(path), reader).values, VOXELS)


@pytest.mark.parametrize("values", [VOXELS.astype(np.int8), VOXELS.astype(np.int64)])
def test_what_itk_cannot_read_names_nibabel_as_the_mend(tmp_path, values, monkeypatch):
    header = nib.Nifti1Header()
    header.set_data_dtype(values.dtype)
    path = tmp_path / "scan.nii.gz"
    nib.Nifti1Image(values, STRAIGHT, header).to_filename(path)
    np.testing.assert_array_equal(read_volume(path).values, values)
    monkeypatch.setattr("monai.data.ITKReader", None)  # ITK itself takes half a minute to say no
    with pytest.raises(ValueError, match=r"scan\.nii\.gz: the file is sound, but ITK .*use reader nibabel"):
        read_volume(path, "itk")


def test_nifti_2_is_read_by_nibabel_and_refused_plainly_by_itk(tmp_path):
    nib.Nifti2Image(VOXELS, OBLIQUE).to_filename(tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(volume.values, VOXELS)
    np.testing.assert_allclose(volume.affine, OBLIQUE)
    with pytest.raises(ValueError, match="use reader nibabel"):
        read_volume(tmp_path / "scan.nii.gz", "itk")


def missing(folder):
    return folder / "scan.nii.gz"


def a_folder(folder):
    (folder / "scan.nii.gz").mkdir()
    return folder / "scan.nii.gz"


def other_suffix(folder):
    return save(folder / "scan.nii.gz", VOXELS).rename(folder / "scan.dcm")


def apple_double(folder):
    return save(folder / "scan.nii.gz", VOXELS).rename(folder / "._scan.nii.gz")


def empty(folder):
    (folder / "scan.nii.gz").touch()
    return folder / "scan.nii.gz"


def not_gzip(folder):
    return save(folder / "scan.nii", VOXELS).rename(folder / "scan.nii.gz")


def gzip_named_nii(folder):
    return save(folder / "scan.nii.gz", VOXELS).rename(folder / "scan.nii")


def gzipped_twice(folder):
    path = save(folder / "scan.nii.gz", VOXELS)
    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


LFS = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24\n"
)


def lfs_pointer(folder):
    (folder / "scan.nii.gz").write_bytes(LFS)
    return folder / "scan.nii.gz"


def lfs_pointer_unpacked(folder):
    (folder / "scan.nii").write_bytes(LFS)
    return folder / "scan.nii"


def web_page(folder):
    (folder / "scan.nii.gz").write_bytes(b"\xef\xbb\xbf\n<!DOCTYPE HTML><html><title>Sign in</title></html>")
    return folder / "scan.nii.gz"


def error_of_a_store(folder):
    (folder / "scan.nii").write_bytes(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>')
    return folder / "scan.nii"


def zip_archive(folder):
    (folder / "scan.nii.gz").write_bytes(b"PK\x03\x04" + bytes(100))
    return folder / "scan.nii.gz"


def dicom(folder):
    (folder / "scan.nii").write_bytes(bytes(128) + b"DICM" + bytes(900))
    return folder / "scan.nii"


def header_of_a_pair(folder):
    return patch(save(folder / "scan.nii", VOXELS), 344, b"ni1\0")


def text(folder):
    (folder / "scan.nii").write_text("not found\n" * 100)
    return folder / "scan.nii"


def zipped_text(folder):
    (folder / "scan.nii.gz").write_bytes(gzip.compress(b"<html>" * 100))
    return folder / "scan.nii.gz"


def twin_unpacked(folder):
    save(folder / "scan.nii", VOXELS)
    return save(folder / "scan.nii.gz", VOXELS)


def twin_packed(folder):
    save(folder / "scan.nii.gz", VOXELS)
    return save(folder / "scan.nii", VOXELS)


def five_dimensions(folder):
    return save(folder / "scan.nii.gz", np.stack([VOXELS, VOXELS], -1)[:, :, :, None])


def one_dimension(folder):
    return save(folder / "scan.nii.gz", VOXELS[:, 0, 0])


def empty_axis(folder):
    return save(folder / "scan.nii.gz", VOXELS[:, :0])


def negative_axis(folder):
    return patch(save(folder / "scan.nii", VOXELS), 42, struct.pack("<h", -5))


def colour(folder):
    return save(folder / "scan.nii.gz", RGB)


def complex_numbers(folder):
    return save(folder / "scan.nii.gz", VOXELS.astype(np.complex64))


def not_a_number(folder):
    values = VOXELS.astype(np.float32)
    values[1, 2, 3] = values[0, 0, 0] = np.nan
    return save(folder / "scan.nii.gz", values)


def infinite(folder):
    values = VOXELS.astype(np.float32)
    values[1, 2, 3], values[0, 0, 0] = -np.inf, np.inf
    return save(folder / "scan.nii", values)


def affine_not_a_number(folder):
    return with_affine(folder / "scan.nii.gz", np.where(STRAIGHT == 33, np.nan, STRAIGHT))


def affine_infinite(folder):
    return with_affine(folder / "scan.nii.gz", np.where(STRAIGHT == 0.7, np.inf, STRAIGHT))


def affine_flat(folder):
    return with_affine(folder / "scan.nii.gz", STRAIGHT @ np.diag([1, 1, 0, 1]))


def affine_of_equal_axes(folder):
    return with_affine(folder / "scan.nii.gz", STRAIGHT[:, [0, 0, 2, 3]])


def unknown_datatype(folder):
    return patch(save(folder / "scan.nii.gz", VOXELS), 70, struct.pack("<h", 5))


def data_within_header(folder):
    return patch(save(folder / "scan.nii.gz", VOXELS), 108, struct.pack("<f", 88))


def data_at_the_start(folder):
    return patch(save(folder / "scan.nii.gz", VOXELS), 108, struct.pack("<f", 0))


def data_not_at_a_number(folder):
    return patch(save(folder / "scan.nii.gz", VOXELS), 108, struct.pack("<f", np.nan))


def data_within_header_of_nifti_2(folder):
    nib.Nifti2Image(VOXELS, STRAIGHT).to_filename(folder / "scan.nii")
    return patch(folder / "scan.nii", 168, struct.pack("<q", 352))


def data_nowhere(folder):
    return patch(save(folder / "scan.nii.gz", VOXELS), 108, struct.pack("<f", np.inf))


def broken_deflate_stream(folder):
    content = save(folder / "scan.nii", np.tile(VOXELS, (4, 4, 4))).read_bytes()
    (folder / "scan.nii").unlink()
    packer = zlib.compressobj(wbits=31)
    start = packer.compress(content[:9000]) + packer.flush(zlib.Z_FULL_FLUSH)
    (folder / "scan.nii.gz").write_bytes(start + b"\x07" * 5000)  # no block begins so
    return folder / "scan.nii.gz"


def more_slices_than_bytes(folder):
    return patch(save(folder / "scan.nii.gz", VOXELS), 46, struct.pack("<h", 8))


def claims_of_an_axis(folder):
    return patch(save(folder / "scan.nii.gz", VOXELS), 42, struct.pack("<3h", *(32767,) * 3))


def claims_of_nifti_2(folder):
    nib.Nifti2Image(VOXELS, STRAIGHT).to_filename(folder / "scan.nii.gz")
    return patch(folder / "scan.nii.gz", 24, struct.pack("<3q", *(1 << 62,) * 3))


def claims_of_a_late_start(folder):
    return patch(save(folder / "scan.nii.gz", VOXELS), 108, struct.pack("<f", 1e30))


WITHIN = "the voxels are said to begin at byte {}, within the header, which takes {}; write the file again"
PROMISES = r"\(the header promises {} bytes, but a file of \d+ can hold at most \d+\); copy or download"
DAMAGED = "truncated or corrupt NIfTI .*copy or download the file again"
REFUSALS = {
    missing: "no such file",
    a_folder: "no such file",
    other_suffix: r"expected a NIfTI file \(\.nii or \.nii\.gz\)",
    apple_double: r"expected a NIfTI file",
    empty: "the file is empty; copy it again",
    not_gzip: "not gzip-compressed; rename it to .nii or compress it",
    gzip_named_nii: r"compressed with gzip but named \.nii; rename it to scan\.nii\.gz",
    gzipped_twice: "compressed twice with gzip; decompress it once and keep the name",
    lfs_pointer: "a git-LFS pointer .*; fetch the scan itself with git lfs pull",
    lfs_pointer_unpacked: "a git-LFS pointer .*; fetch the scan itself with git lfs pull",
    web_page: "a web page .*; download the scan again, signed in",
    error_of_a_store: "a web page .*; download the scan again, signed in",
    zip_archive: "a zip archive; unpack it",
    dicom: "a DICOM file with a NIfTI name; rename it",
    header_of_a_pair: r"the header of a pair .*; convert the pair to one \.nii\.gz",
    text: DAMAGED,
    zipped_text: "a web page .*; download the scan again, signed in",
    twin_unpacked: r"scan\.nii lies beside it.*remove one of the two",
    twin_packed: r"scan\.nii\.gz lies beside it.*remove one of the two",
    five_dimensions: r"expected 2 to 4 dimensions .*got shape \(5, 6, 7, 1, 2\); split",
    one_dimension: r"expected 2 to 4 dimensions .*got shape \(5,\)",
    empty_axis: r"an axis is empty, shape \(5, 0, 7\); export",
    negative_axis: r"an axis is empty, shape \(-5, 6, 7\)",
    colour: "expected one real number a voxel, .*convert colour",
    complex_numbers: "expected one real number a voxel, got complex64; convert",
    not_a_number: "2 of 210 voxels are NaN or infinite; replace them",
    infinite: "2 of 210 voxels are NaN or infinite; replace them",
    affine_not_a_number: "affine .* not finite or has no inverse; write",
    affine_infinite: "affine .* not finite or has no inverse; write",
    affine_flat: "affine .* not finite or has no inverse; write",
    affine_of_equal_axes: "affine .* not finite or has no inverse; write",
    unknown_datatype: DAMAGED,
    data_within_header: WITHIN.format(88, 352),
    data_at_the_start: WITHIN.format(0, 352),
    data_not_at_a_number: WITHIN.format("nan", 352),
    data_within_header_of_nifti_2: WITHIN.format(352, 544),
    data_nowhere: DAMAGED,
    broken_deflate_stream: DAMAGED,
    more_slices_than_bytes: DAMAGED,
    claims_of_an_axis: PROMISES.format(352 + 2 * 32767**3),
    claims_of_nifti_2: PROMISES.format(544 + 2 * (1 << 62) ** 3),
    claims_of_a_late_start: PROMISES.format(int(np.float32(1e30)) + 2 * VOXELS.size),
}


@readers
@pytest.mark.parametrize("make", REFUSALS, ids=lambda make: make.__name__)
def test_refusal_is_one_line_that_names_the_file_and_the_mend(tmp_path, make, reader):
    path = make(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=REFUSALS[make]) as refused:
        read_volume(path, reader)
    assert type(refused.value) is (UserFileError if make in (missing, a_folder) else UserError)
    assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)


@readers
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [3, 0.02, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path, reader, suffix, kept):
    path = save(tmp_path / f"scan{suffix}", np.random.default_rng(1).integers(0, 999, (20, 20, 20)).astype(np.int16))
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
    with pytest.raises(ValueError, match=DAMAGED) as refused:
        read_volume(path, reader)
    assert str(refused.value).startswith(f"{path}: ")


@readers
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.98])
def test_truncated_real_scan_is_refused(tmp_path, reader, kept):
    content = real_scan("ts_cardiac_ct_b.nii.gz").read_bytes()
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=DAMAGED):
        read_volume(path, reader)


@readers
@pytest.mark.parametrize("cut", [1, 4, 8])
def test_cut_checksum_is_found(tmp_path, reader, cut):
    path = save(tmp_path / "scan.nii.gz", VOXELS)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=DAMAGED):
        read_volume(path, reader)


@readers
def test_flipped_byte_is_found_by_the_checksum(tmp_path, reader):
    voxels = np.tile(VOXELS, (4, 4, 4))
    path = save(tmp_path / "scan.nii", voxels)
    packer = zlib.compressobj(level=0, wbits=31)  # stored in gzip, so that damage passes the inflation
    content = bytearray(packer.compress(path.read_bytes()) + packer.flush())
    path.unlink()
    content[-200] ^= 0x10
    path = path.with_suffix(".nii.gz")
    path.write_bytes(content)
    assert (np.asanyarray(nib.load(path).dataobj) != voxels).sum() == 1, "nibabel alone takes the damage in silence"
    with pytest.raises(ValueError, match=r"CRC check failed.*copy or download the file again"):
        read_volume(path, reader)


@pytest.mark.parametrize("position", [0.05, 0.3, 0.6, 0.95])
def test_flipped_byte_of_a_real_scan_is_found(tmp_path, position):
    content = bytearray(real_scan("ts_cardiac_ct_b.nii.gz").read_bytes())
    content[int(position * len(content))] ^= 0x04
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=DAMAGED):
        read_volume(path)


@readers
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_sound_files_pass_the_checksum(tmp_path, reader, suffix):
    path = save(tmp_path / f"scan{suffix}", VOXELS)
    np.testing.assert_array_equal(read_volume(path, reader).values, VOXELS)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@readers
def test_no_damage_of_a_header_byte_gives_another_error_than_value_error(tmp_path, reader):
    content = save(tmp_path / "sound.nii", VOXELS).read_bytes()
    path = tmp_path / "scan.nii"
    refused = 0
    for position in range(348):
        byte = 255 if position % 2 else 0  # makes 16-bit numbers, read little-endian, negative
        path.write_bytes(content[:position] + bytes([byte]) + content[position + 1 :])
        try:
            read_volume(path, reader)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(("name", "shape"), [("scan.nii", (2, 1, 324)), ("scan.nii.gz", (32, 1, 32239))])
def test_a_header_may_promise_what_the_file_can_hold_and_no_byte_more(tmp_path, name, shape):
    for more in (0, 1):
        header = nib.Nifti1Header()
        header.set_data_dtype(np.uint8)
        header.set_data_shape(shape)
        header["vox_offset"] = 352 + more
        content = header.binaryblock + bytes(4)
        path = tmp_path / name
        path.write_bytes((gzip.compress(content) if name.endswith(".gz") else content).ljust(1000, b"\0"))
        if not more:
            check_file(path)
    promised, holds = 353 + np.prod(shape), 1000 * (1032 if name.endswith(".gz") else 1)
    assert promised == holds + 1
    with pytest.raises(UserError, match=f"promises {promised} bytes, but a file of 1000 can hold at most {holds}"):
        check_file(path)


@readers
def test_what_deflates_best_is_read(tmp_path, reader):
    content = save(tmp_path / "zeros.nii", np.zeros((200, 200, 200), np.int16)).read_bytes()
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(content))
    assert path.stat().st_size * 1000 < len(content)
    assert read_volume(path, reader).values.shape == (200, 200, 200)


def test_several_gzip_members_may_hold_as_much_as_one(tmp_path):
    path = save(tmp_path / "scan.nii", np.zeros((90, 90, 90), np.int16))
    content = path.read_bytes()
    path.unlink()
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"".join(gzip.compress(part) for part in (content[:100], content[100:400], content[400:])))
    assert read_volume(path).values.shape == (90, 90, 90)
    path.write_bytes(gzip.compress(content[:400]) + gzip.compress(b""))
    with pytest.raises(UserError, match=PROMISES.format(len(content))):
        check_file(path)


def test_no_memory_is_taken_for_what_a_header_claims(tmp_path):
    paths = [claims_of_an_axis(tmp_path)]
    for number, claim in enumerate((2**31 - 16, -16)):  # an extension of 2 GB, and one that ends before it begins
        path = tmp_path / f"{number}.nii.gz"
        paths.append(
            patch(
                patch(save(path, VOXELS), 108, struct.pack("<f", 400)), 348, struct.pack("<4B2i", 1, 0, 0, 0, claim, 4)
            )
        )
    for path in paths:
        for read in (check_file, read_volume, lambda path: read_volume(path, "itk"), StoredVolume):
            tracemalloc.start()
            with suppress(UserError):
                read(path)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 8 << 20, (path, read)


def test_what_does_not_fit_into_memory_is_said_so(tmp_path, monkeypatch):
    path = save(tmp_path / "scan.nii.gz", VOXELS)

    def full(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(np, "asanyarray", full)
    with pytest.raises(UserError, match=r"scan\.nii\.gz: does not fit into memory; .*resample"):
        read_volume(path)


@pytest.mark.parametrize("reader", ["", "ITK", "nib"])
def test_unknown_reader_is_refused_with_the_known_ones(tmp_path, reader):
    with pytest.raises(ValueError, match=f"unknown reader '{reader}': expected one of nibabel, itk"):
        read_volume(save(tmp_path / "scan.nii.gz", VOXELS), reader)


def test_file_without_permission_is_refused_with_the_mend(tmp_path, monkeypatch):
    path = save(tmp_path / "scan.nii.gz", VOXELS)

    def refuse(self, *args, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ValueError, match=r"scan\.nii\.gz: cannot be opened \(Permission denied\); check its perm"):
        read_volume(path)


@pytest.mark.parametrize(
    ("name", "nifti", "short"),
    [
        ("ct_1001_image.nii.gz", True, "ct_1001_image"),
        ("ct.1.nii", True, "ct.1"),
        ("CT.NII.GZ", True, "CT"),
        ("._ct.nii.gz", False, "._ct"),
        ("ct.nii.gz.part", False, "ct.nii.gz.part"),
        ("ct.gz", False, "ct.gz"),
        ("nii", False, "nii"),
    ],
)
def test_names_of_nifti_files(name, nifti, short):
    assert is_nifti(Path("folder.nii", name)) is nifti
    assert stem(Path("folder.nii", name)) == stem(f"folder.nii/{name}") == short


def test_the_digest_of_voxels_does_not_depend_on_how_they_are_stored(tmp_path):
    values = np.random.default_rng(0).integers(-1000, 2000, (7, 6, 5)).astype(np.int16)
    stored = [values, values.astype(np.float32), np.asfortranarray(values.astype(np.int32))]
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii", tmp_path / "c.nii.gz"]
    for path, array in zip(paths, stored, strict=True):
        nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    digests = {voxel_digest(read_volume(path)) for path in paths}
    assert len(digests) == 1
    for turned in ("LPS", "SPL", "AIL"):
        axes = nib.orientations.ornt_transform(nib.io_orientation(np.eye(4)), nib.orientations.axcodes2ornt(turned))
        nib.save(nib.Nifti1Image(values, np.eye(4)).as_reoriented(axes), tmp_path / "turned.nii.gz")
        assert voxel_digest(read_volume(tmp_path / "turned.nii.gz")) in digests
    other = values.copy()
    other[3, 3, 3] += 1
    for array in (other, values[:, :, ::-1], values.reshape(6, 7, 5)):
        assert voxel_digest(Volume(array, np.eye(4))) not in digests
    assert len(voxel_digest(Volume(values, np.zeros((4, 4))))) == 64  # a header that says nothing: as it is stored
