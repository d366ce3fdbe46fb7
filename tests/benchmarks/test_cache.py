"""An epoch over every kind of cache runs, and what is kept is read."""

from __future__ import annotations

import pytest

from benchmarks import cache


@pytest.mark.parametrize("how", cache.WAYS)
def test_an_epoch_of_every_cache_runs(scan, how):
    made = cache.side(how, [str(scan)], str(scan), 24, 8)
    made.warm()
    made.ready()
    if how == "JPG cache":  # the pictures are all that an epoch reads
        scan.unlink()
    made.call()


def test_frames_are_kept_where_all_sides_of_a_bench_find_them(scan, work):
    def kept():
        return {path for path in (work / "frames_24_8").rglob("*.*") if path.is_file()}

    datasets = [cache.frame_dataset([str(scan)], 24, 8) for _ in range(2)]
    assert datasets[0][0]["image"].shape == (1, 8, 24, 24)
    before = kept()
    assert before and datasets[1][0]["image"].shape == (1, 8, 24, 24)
    assert kept() == before
