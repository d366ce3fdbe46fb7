"""Peak memory by the slices of a volume: reading must not take more for a longer one.

Its sides are those of `reading`.
"""

from __future__ import annotations

from benchmarks.comparison import Bench, Row
from benchmarks.volumes import Volumes


def benches(made: Volumes) -> list[Bench]:
    """Three lengths of volume."""
    growing, length = made.scale.growing, made.scale.length
    given = {"how": "ours, uint8", "tiny": made.tiny, "size": 224, "length": length}
    sides = {f"{slices} slices": ("reading", {**given, "path": made.phantom(slices)}) for slices in growing}
    names, words = tuple(sides), ", ".join(map(str, growing))
    return [
        Bench(
            "slices",
            f"peak memory by slices, (1, {length}, 224, 224) uint8",
            sides,
            (
                Row(f"peak memory at {words} slices, largest / smallest", "flat", names, target=1.2),
                Row(f"peak memory at {words} slices, largest", "peak", names, target=150),
            ),
            quick=names,
            phantoms=tuple((slices, 0) for slices in growing),
        )
    ]
