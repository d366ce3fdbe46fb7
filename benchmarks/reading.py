"""File to frames: ours against MONAI, TorchIO, JPGs and the inflater alone, in time and peak memory.

The ways themselves are in `ways`; memory by slices has a measure of its own.
"""

from __future__ import annotations

from benchmarks.child import Side
from benchmarks.comparison import Bench, Row
from benchmarks.volumes import REAL_SCAN, STORED_OFFSET, Volumes
from benchmarks.ways import WAYS


def side(how: str, path: str, tiny: str, size: int, length: int, offset: float = STORED_OFFSET) -> Side:
    """A file to (1, length, size, size)."""
    make = WAYS[how]
    first, call = make(tiny, 32, length, STORED_OFFSET), make(path, size, length, offset)
    return Side(first, call, call)


def benches(made: Volumes) -> list[Bench]:
    """Volumes as large as ImageCHD's at both sizes of frames, and a small real scan."""
    return [_phantom(made, 512), _phantom(made, 224), _real_scan(made)]


def _phantom(made: Volumes, size: int) -> Bench:
    scale = made.scale
    given = {"path": made.several[0], "tiny": made.tiny, "size": size, "length": scale.length}
    output = f"file to (1, {scale.length}, {size}, {size})"
    uint8, float32, monai, torchio, same, jpg, inflater = WAYS
    return Bench(
        f"reading_{size}",
        f"{output}, from {scale.grid(scale.slices)}",
        {how: ("reading", {"how": how, **given}) for how in WAYS},
        (
            Row(f"{output} uint8, MONAI stock / ours", "time", uint8, monai, 9),
            Row(f"{output} uint8, TorchIO stock / ours", "time", uint8, torchio, 12),
            Row(f"{output} uint8, TorchIO made to give our frames / ours", "time", uint8, same),
            Row(f"{output} uint8, ours / the same inflater alone", "times", uint8, inflater, 1.3),
            Row(f"{output} float32, MONAI stock / ours", "time", float32, monai, 6),
            Row(f"{output} uint8, convert to JPG + read / ours", "time", uint8, jpg, 9),
            Row(
                f"peak memory of that (uint8), MONAI stock / ours, {size}",
                "memory",
                uint8,
                monai,
                {512: 5, 224: 6}[size],
            ),
        ),
        quick=(uint8, monai, jpg, inflater) if size == 512 else (uint8, float32, monai, inflater),
    )


def _real_scan(made: Volumes) -> Bench:
    length = made.scale.length
    given = {"path": str(REAL_SCAN), "tiny": made.tiny, "size": 224, "length": length, "offset": 0.0}
    uint8, float32, monai, torchio, same, jpg, _ = WAYS
    return Bench(
        "reading_real",
        f"a real cardiac CT ({REAL_SCAN.name}, 122x102x112) to (1, {length}, 224, 224), enlarged",
        {how: ("reading", {"how": how, **given}) for how in WAYS},
        (
            Row("real scan uint8, MONAI stock / ours", "time", uint8, monai),
            Row("real scan uint8, TorchIO stock / ours", "time", uint8, torchio),
            Row("real scan uint8, TorchIO made to give our frames / ours", "time", uint8, same),
            Row("real scan uint8, convert to JPG + read / ours", "time", uint8, jpg),
            Row("real scan float32, MONAI stock / ours", "time", float32, monai),
        ),
    )
