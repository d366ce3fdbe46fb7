"""CT stored as HU and as HU + 1024 is told apart, and what may be neither is refused."""

import numpy as np
import pytest
from real_scans import real_scan

from monai_chd.hu_offset import IntensityRange, detect_hu_offset
from monai_chd.nifti import read_volume


@pytest.mark.parametrize(
    "name",
    [
        "ts_cardiac_ct_b.nii.gz",
        "ts_cardiac_ct_a.nii.gz",
        "ts_abdomen_ct_small.nii.gz",
        "pyrad_lung1_256x256x48.nii.gz",
    ],
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
    with pytest.raises(ValueError, match=f"{name}: cannot tell Hounsfield units .*MR, or a label map.*--hu-offset N"):
        detect_hu_offset(values, name)


@pytest.mark.parametrize(
    ("values", "offset"),
    [
        ([-201, 0, 0, 0], 0),
        ([-200, 0, 0, 0], None),
        ([0] * 19 + [900], -1024),
        ([0] * 19 + [1200], -1024),
        ([0] * 19 + [899], None),
        ([0] * 19 + [1201], None),
        ([0] * 20 + [1000], None),
        ([-1] + [1000] * 19, None),
    ],
)
def test_offset_rule_at_its_edges(values, offset):
    values = np.array(values).reshape(-1, 1, 1)
    if offset is not None:
        assert detect_hu_offset(values, "scan") == offset
    else:
        with pytest.raises(ValueError, match="scan: cannot tell"):
            detect_hu_offset(values, "scan")


def test_a_volume_seen_in_parts_has_the_offset_of_the_whole():
    parts = [np.full(90, 300), np.full(10, 1000)]
    seen = IntensityRange()
    for part in parts:
        seen.add(part)
    assert (seen.low, seen.high, seen.likely_offset()) == (300, 1000, -1024)
    assert seen.hu_offset("scan") == detect_hu_offset(np.concatenate(parts), "scan") == -1024
    seen.add(np.array([-300]))
    assert seen.likely_offset() == seen.hu_offset("scan") == 0
    too_few = IntensityRange()
    for part in (np.full(196, 300), np.full(9, 1000)):  # 4.4 %, though all of the last part
        too_few.add(part)
    with pytest.raises(ValueError, match="scan: cannot tell"):
        too_few.hu_offset("scan")
