"""Where real scans lie, for tests that need one."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data"
SHARED = DATA.parents[2] / "shared" / "data"


def real_scan(name):
    """A scan of the repository, else of a folder of more beside it, else skip."""
    for folder in (DATA, SHARED):
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f"real scan {name}: {SHARED} is not there")
