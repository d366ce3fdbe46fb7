"""Copies of a scan are above the limit whatever a copy usually loses, and other patients are not."""

import itertools

import numpy as np
import pytest
from phantom_scans import PATIENTS, likeness, phantom_volumes, scanned
from scipy.ndimage import zoom

from monai_chd.audit import likeness as module
from monai_chd.audit.likeness import LENIENT, ORIENTATIONS, STRICT, describe_orientation, score_limit, score_pairs

LIMIT = 0.966
"""What `score_limit` gives for realistic phantoms."""


@pytest.fixture(scope="module")
def volumes():
    return phantom_volumes()


def cropped(values, *cuts):
    return values[tuple(slice(low, n - high) for n, (low, high) in zip(values.shape, cuts, strict=True))]


COPIES = {
    "mirrored": lambda v: v[::-1],
    "upside down": lambda v: v[:, :, ::-1],
    "turned": lambda v: v[::-1, ::-1],
    "axes exchanged": lambda v: v.transpose(2, 0, 1),
    "in HU": lambda v: v - 1024,
    "scaled": lambda v: v * 0.25 + 7,
    "8 bit window": lambda v: np.rint(np.clip((v - 824) / 1000, 0, 1) * 255).astype(np.uint8),
    "resampled": lambda v: zoom(v, (0.75, 0.75, 0.75), order=1),
    "finer in plane": lambda v: zoom(v, (1.4, 1.4, 1), order=1),
    "cropped": lambda v: cropped(v, (3, 3), (3, 3), (2, 2)),
    "padded": lambda v: np.pad(v, ((9, 5), (0, 8), (3, 0)), constant_values=0),
    "noisy": lambda v: v + np.random.default_rng(0).normal(0, 40, v.shape),
}


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_is_above_the_limit(change, volumes, tmp_path):
    copy = np.asarray(COPIES[change](volumes[0]))
    copy = copy if copy.dtype == np.uint8 else copy.astype(np.float32)
    found = likeness(scanned(volumes[0], tmp_path), scanned(copy, tmp_path, name="copy"))
    assert found.score is not None
    assert found.score > LIMIT


def test_different_patients_are_below_the_limit_in_any_orientation(volumes, tmp_path):
    scans = [scanned(volume, tmp_path) for volume in volumes]
    scans.append(scanned(volumes[0][::-1].transpose(1, 0, 2), tmp_path))
    pairs = [(a, b) for a, b in itertools.combinations(range(len(scans)), 2) if (a, b) != (0, PATIENTS)]
    found, sample = score_pairs(scans, pairs, processes=1, progress=False)
    assert [(one.first, one.second) for one in found] == sorted(pairs, key=lambda pair: (pair[1], pair[0]))
    assert max(sample) < LIMIT


@pytest.mark.parametrize(
    ("axis", "words"), [(0, "mirrored left-right"), (1, "mirrored back-front"), (2, "mirrored feet-head")]
)
def test_a_mirrored_copy_names_its_axis(axis, words, volumes, tmp_path):
    found = likeness(scanned(volumes[1], tmp_path), scanned(np.flip(volumes[1], axis), tmp_path, name="copy"))
    assert found.orientation == words


def test_orientations_are_all_48_ways_to_lay_a_box():
    values = np.arange(27).reshape(3, 3, 3)
    laid = {module._oriented(values, which).tobytes() for which in range(len(ORIENTATIONS))}
    assert len(laid) == 48
    assert describe_orientation(0) == "as is"


@pytest.mark.parametrize(
    ("sample", "limit"),
    [([0.1] * 20, STRICT), ([0.1] * 200, LENIENT), ([0.95] * 200, STRICT), ([0.776] * 200, LIMIT)],
    ids=["few pairs", "unlike patients", "patients all alike", "realistic phantoms"],
)
def test_the_limit_follows_how_alike_patients_are(sample, limit):
    assert score_limit(sample) == pytest.approx(limit, abs=1e-3)
