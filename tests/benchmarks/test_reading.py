"""Every way of reading can be measured, on a scan after a tiny one."""

from __future__ import annotations

import pytest

from benchmarks import reading
from benchmarks.child import MissingError
from benchmarks.volumes import REAL_SCAN
from benchmarks.ways import WAYS


@pytest.mark.parametrize("how", WAYS)
def test_every_way_gives_frames_of_the_shape_that_is_compared(scan, how):
    try:
        made = reading.side(how, str(scan), str(scan), 24, 8)
    except MissingError as missing:
        pytest.skip(str(missing))
    assert (made.warm() is None) == (how == "inflater alone")
    assert made.ready is made.call  # the same call once, to fill the page cache
    if how != "inflater alone":
        assert made.call().shape == (1, 8, 24, 24)


def test_a_scan_stored_in_hu_is_read_with_its_own_offset(scan):
    ours, monai = (reading.side(how, str(REAL_SCAN), str(scan), 24, 8, 0.0) for how in ("ours, float32", "MONAI stock"))
    assert float((ours.call().as_tensor() - monai.call().as_tensor()).abs().max()) < 1e-6
