"""Memory by slices is measured at three lengths of volume that are made for it."""

from __future__ import annotations

from pathlib import Path

from benchmarks import slices
from benchmarks.volumes import QUICK, Volumes


def test_every_length_is_a_side_and_only_the_volume_differs():
    made = Volumes(Path("volumes"), QUICK)
    [bench] = slices.benches(made)
    paths = [given.pop("path") for _, given in bench.sides.values()]
    assert paths == [made.phantom(count) for count in QUICK.growing]
    assert bench.phantoms == tuple((count, 0) for count in QUICK.growing)
    first, *others = bench.sides.values()
    assert all(other == first for other in others)
