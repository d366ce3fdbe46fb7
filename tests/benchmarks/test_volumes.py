"""Volumes are made once, a longer one repeats the slices, and copies differ in bytes and not in voxels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks import volumes
from benchmarks.volumes import TINY, Scale, Volumes

SCALE = Scale(8, 6, (5, 8, 20), 2, pixels=32)


def voxels(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_every_volume_is_made_as_its_name_says_and_only_once(tmp_path):
    made = Volumes(tmp_path, SCALE)
    for call in volumes.side(str(tmp_path), list(SCALE), [[20, 0], [8, 0]], 2):
        call()
    assert {path.name for path in tmp_path.iterdir()} == {
        *(Path(path).name for path in (*made.several, made.phantom(20), made.tiny, *made.small(2)))
    }
    first, second, longer = voxels(made.several[0]), voxels(made.several[1]), voxels(made.phantom(20))
    assert first.shape == second.shape == (32, 32, 8) and not np.array_equal(first, second)
    assert np.array_equal(longer, first[:, :, np.arange(20) % 8])
    assert voxels(made.tiny).shape == (TINY[0], *TINY)
    assert all(150 <= voxels(path).shape[2] <= 250 for path in made.small(2))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    volumes.make(made, [(20, 0)], 2)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_volumes_of_another_size_have_other_names():
    assert Volumes(Path(), SCALE).phantom(8) != Volumes(Path(), SCALE._replace(pixels=64)).phantom(8)


def test_copies_differ_in_bytes_and_not_in_voxels(scan, tmp_path):
    made = Volumes(tmp_path, SCALE._replace(volumes=1, embedded=3))
    scan.rename(made.several[0])
    volumes.make_copies(made)
    copies = [Path(path) for path in made.copies]
    assert len({path.read_bytes() for path in copies}) == len(copies) == 3
    assert sorted(path.name for path in copies[0].parent.iterdir()) == [path.name for path in copies]
    assert all(np.array_equal(voxels(path), voxels(made.several[0])) for path in copies)
