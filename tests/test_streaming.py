import gzip
import threading

import nibabel as nib
import numpy as np
import pytest

from monai_chd import nifti, streaming
from monai_chd.streaming import StoredVolume


def write(path, values, affine=None):
    nib.Nifti1Image(values, np.eye(4) if affine is None else affine).to_filename(path)
    return path


def numbers(shape, dtype=np.int16):
    return np.random.default_rng(3).integers(0, 100, shape).astype(dtype)


@pytest.fixture(params=["isal", "zlib"])
def inflater(request, monkeypatch):
    if request.param == "zlib":
        monkeypatch.setattr(nifti, "_gzip", gzip)


@pytest.mark.parametrize("slab", [1, 700, 10**6], ids=["slice", "some slices", "all"])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_slabs_are_the_stored_slices_in_order(tmp_path, inflater, monkeypatch, slab, name):
    monkeypatch.setattr(streaming, "SLAB_BYTES", slab)
    values = numbers((11, 7, 13))
    stored = StoredVolume(write(tmp_path / name, values))
    assert stored.shape == (11, 7, 13) and stored.dtype == np.int16
    seen = [(start, part.copy()) for start, part in stored.slabs()]
    assert [start for start, _ in seen] == list(range(0, 13, max(1, slab // (11 * 7 * 2))))
    np.testing.assert_array_equal(np.concatenate([part for _, part in seen]), values.T)
    np.testing.assert_array_equal(stored.read_whole(), values.T)


def test_no_more_slices_are_read_than_asked_for(tmp_path, inflater, monkeypatch):
    monkeypatch.setattr(streaming, "SLAB_BYTES", 1)
    path = write(tmp_path / "a.nii.gz", numbers((30, 30, 90)))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    stored = StoredVolume(path)
    assert sum(len(part) for _, part in stored.slabs(10)) == 10
    with pytest.raises(ValueError, match="truncated or corrupt"):
        list(stored.slabs())


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_where_a_cut_file_ends_is_named(tmp_path, inflater, kept):
    path = write(tmp_path / "a.nii.gz", numbers((40, 40, 60)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ValueError, match=r"a\.nii\.gz: truncated or corrupt NIfTI \(.*at byte \d+ of the voxels"):
        list(StoredVolume(path).slabs())


def test_uncompressed_file_that_is_cut_names_the_bytes_promised(tmp_path):
    path = write(tmp_path / "a.nii", numbers((10, 10, 10)))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"the header promises 2352 bytes, but a file of 2345 can hold at most 2345"):
        StoredVolume(path)


def test_uncompressed_file_that_is_cut_while_it_is_read_names_the_bytes_promised(tmp_path):
    path = write(tmp_path / "a.nii", numbers((10, 10, 10)))
    stored = StoredVolume(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(
        ValueError, match=r"1993 bytes of voxels, but the header promises 2000 at byte 1993 of the voxels"
    ):
        stored.read_whole()


@pytest.mark.parametrize("position", [-6, -500])
def test_flipped_byte_is_found_by_the_checksum(tmp_path, inflater, position):
    path = write(tmp_path / "a.nii.gz", numbers((40, 40, 60)))
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="truncated or corrupt NIfTI"):
        list(StoredVolume(path).slabs())


def test_several_gzip_members_are_one_file(tmp_path, inflater):
    values = numbers((20, 20, 20))
    path = write(tmp_path / "a.nii", values)
    data = path.read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(data[:1000]) + gzip.compress(data[1000:]))
    np.testing.assert_array_equal(StoredVolume(tmp_path / "b.nii.gz").read_whole(), values.T)


def test_no_thread_is_left_when_the_caller_stops_early_or_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "SLAB_BYTES", 1)
    path = write(tmp_path / "a.nii.gz", numbers((30, 30, 90)))
    before = threading.active_count()
    slabs = StoredVolume(path).slabs()
    next(slabs)
    slabs.close()
    assert threading.active_count() == before


def test_scaling_is_nibabels(tmp_path):
    image = nib.Nifti1Image(numbers((5, 6, 7)), np.eye(4))
    image.header.set_slope_inter(0.37, -12.3)
    image.to_filename(tmp_path / "a.nii.gz")
    stored = StoredVolume(tmp_path / "a.nii.gz")
    truth = np.asanyarray(nib.load(tmp_path / "a.nii.gz").dataobj).T
    scaled = stored.scaled(stored.read_whole())
    assert scaled.dtype == truth.dtype
    np.testing.assert_array_equal(scaled, truth)


def test_header_is_checked_before_anything_is_read(tmp_path):
    path = write(tmp_path / "a.nii.gz", numbers((4, 4, 4)))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="truncated or corrupt"):
        StoredVolume(path)
