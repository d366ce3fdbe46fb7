"""CT stored as HU and as HU + 1024 is told apart by its distribution, and what may be neither is refused."""

import time

import numpy as np
import pytest
from ct_storage import stored_volumes
from real_scans import real_scan

from monai_chd.errors import UserError
from monai_chd.hu_offset import StoredIntensities, detect_hu_offset
from monai_chd.nifti import read_volume

REFUSED = "cannot tell Hounsfield units .*MR, or a label map.*--hu-offset N"


@pytest.mark.parametrize(
    "name",
    ["ts_cardiac_ct_b.nii.gz", "ts_cardiac_ct_a.nii.gz", "ts_abdomen_ct_small.nii.gz", "pyrad_lung1_256x256x48.nii.gz"],
)
def test_offset_of_real_ct_is_found_as_it_was_stored(name):
    values = read_volume(real_scan(name)).values
    assert detect_hu_offset(values, name) == 0
    raw = np.clip(values.astype(np.int32) + 1024, 0, 4095)
    assert detect_hu_offset(raw.astype(np.uint16), name) == detect_hu_offset(raw.astype(np.float32), name) == -1024


@pytest.mark.parametrize(
    "name",
    [
        "ts_abdomen_mr_small.nii.gz",
        "ts_aorta.nii.gz",
        "ts_pulmonary_artery.nii.gz",
        "rodero01_fourchamber_labels_1mm.nii.gz",
    ],
)
def test_mr_and_label_maps_are_refused_with_the_option_that_mends_it(name):
    values = read_volume(real_scan(name)).values
    with pytest.raises(UserError, match=f"{name}: {REFUSED}"):
        detect_hu_offset(values, name)


def test_mr_of_a_wide_range_is_not_taken_for_raw_ct():
    values = read_volume(real_scan("ts_abdomen_mr_small.nii.gz")).values.astype(np.float32)
    for factor in (2, 4, 8, 10, 15):
        with pytest.raises(UserError, match=REFUSED):
            detect_hu_offset(values * factor, "mr")


@pytest.mark.parametrize("name", stored_volumes())
def test_padding_metal_and_stray_voxels_decide_nothing_and_contradictions_are_refused(name):
    values, offset = stored_volumes()[name]
    if offset is not None:
        assert detect_hu_offset(values, name) == offset
    else:
        with pytest.raises(UserError, match=f"{name}: {REFUSED}"):
            detect_hu_offset(values, name)


AIR = [*range(-1000, -900)]  # one of them counts as padding


@pytest.mark.parametrize(
    ("values", "offset"),
    [
        ([1000] * 5 + [0] * 95, -1024),
        ([874, 1223] * 5 + [0] * 190, -1024),
        ([1000] * 499 + [0] * 9501, None),
        ([873, 1224] * 5 + [0] * 90, None),
        ([1000] * 100 + [873] * 66, -1024),
        ([1000] * 100 + [873] * 67, None),
        ([1000] * 991 + AIR, -1024),
        ([1000] * 989 + AIR, None),
        ([1000] * 100 + [-100] * 25, -1024),
        ([1000] * 100 + [-100] * 26, None),
        ([0] * 1900 + AIR[:3], 0),
        ([0] * 1900 + AIR[:2], None),
        ([0] * 100 + [2000] * 1800 + AIR, 0),
        ([0] * 99 + [2000] * 1800 + AIR, None),
        ([0] * 90 + AIR + [1000] * 29, 0),
        ([0] * 90 + AIR + [1000] * 31, None),
        ([0] * 300 + AIR + [1000] * 32, 0),
        ([0] * 300 + AIR + [1000] * 34, None),
        ([0] * 100 + [-1101] * 99, None),
        ([0] * 100 + [*range(-1100, -1095)], 0),
        ([0] * 100 + [*range(-504, -499)], 0),
        ([0] * 100 + [*range(-499, -400)], None),
    ],
)
def test_offset_rule_at_its_edges(values, offset):
    values = np.array(values).reshape(-1, 1, 1)
    if offset is not None:
        assert detect_hu_offset(values, "scan") == offset
    else:
        with pytest.raises(UserError, match="scan: cannot tell"):
            detect_hu_offset(values, "scan")


def test_the_error_says_what_was_seen():
    values = np.array([0] * 50 + [1000] * 25 + [-800, -850, -900, -700, -700] + [1300] * 22).reshape(-1, 1, 1)
    seen = (
        r"minimum -900, maximum 1300; without padding 3\.00% within -1100…-500, 50\.00% within -150…199, 25\.00% within"
    )
    with pytest.raises(UserError, match=seen):
        detect_hu_offset(values, "scan")
    values, _ = stored_volumes()["first slices raw, most HU"]
    with pytest.raises(UserError, match="the first slices look like HU = value \\+ -1024, all do not"):
        detect_hu_offset(values, "scan")


@pytest.mark.parametrize("each", [1, 7, 1000])
def test_a_volume_seen_in_parts_has_the_offset_of_the_whole(each):
    for name, (values, offset) in stored_volumes().items():
        seen = StoredIntensities()
        for start in range(0, values.shape[2], each):
            seen.add(values.T[start : start + each])
        assert (seen.low, seen.high) == (values.min(), values.max())
        if offset is None:
            with pytest.raises(UserError, match="cannot tell"):
                seen.hu_offset(name)
        else:
            assert seen.hu_offset(name) == offset and seen.likely in (None, offset), name


def test_raw_and_hu_are_likely_after_a_few_slices():
    for name in ("raw", "HU", "HU, padding -2000", "raw, padding -1024"):
        values, offset = stored_volumes()[name]
        seen = StoredIntensities()
        seen.add(values.T[:30])
        assert seen.likely == offset, name


def test_looking_costs_a_small_part_of_reading():
    values = np.tile(stored_volumes()["raw"][0].T[:20], (1, 8, 8))
    seen = StoredIntensities()
    took = []
    for _ in range(5):
        start = time.process_time()
        seen.add(values)
        took.append(time.process_time() - start)
    assert min(took) / len(values) < 1e-3  # seconds for a slice of 512 x 512, which takes 1.4e-3 to inflate
