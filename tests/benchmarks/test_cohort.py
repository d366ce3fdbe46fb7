"""Many patients are the same few volumes under many names."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import cohort


@pytest.mark.parametrize("cache", ["none", "frames"])
def test_an_epoch_reads_every_patient(scan, work, cache):
    made = cohort.side(3, cache, [str(scan)], str(scan), 24, 8)
    names = sorted(Path(work, f"cohort_3_{cache}").iterdir())
    assert [name.resolve() for name in names] == [scan.resolve()] * 3
    for call in made:
        call()
    names[2].unlink()
    with pytest.raises(ValueError, match=names[2].name):
        made.call()
