"""Where real scans lie, for tests that need one."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data"
SHARED = DATA.parents[2] / "shared" / "data"
REAL = ("ts_cardiac_ct_b.nii.gz", "ts_abdomen_ct_small.nii.gz", "mr_heart_cine_256x256x1x16.nii.gz")
"""Cardiac and abdominal CT, and cine MR."""


def real_scan(name):
    """A scan of the repository, else of a folder of more beside it, else skip."""
    for folder in (DATA, SHARED):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"real scan {name}: {SHARED} is not there")
