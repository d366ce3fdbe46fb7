"""Reads a scan into a small fingerprint by which a copy of it can be found, with what else an audit keeps of the file.

Knows single files. How alike two fingerprints are is `likeness`' part.

A fingerprint is the scan on a coarse grid after what a copy may have lost is taken away: padding, intensity scale, and
what lies below the 40th (or 55th) or above the 97th percentile (a display window cuts there).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_chd.errors import UserError
from monai_chd.hu_offset import detect_hu_offset
from monai_chd.processes import mapped
from monai_chd.scans.opening import check_scan, is_series, known_offset, open_scan, scan_digest

Floats = NDArray[np.float32]
T = TypeVar("T")
R = TypeVar("R")

GRID = 48
"""Cells along each axis of a fingerprint."""

READ_CELLS = 96
"""Most cells along an axis to which a file is averaged before padding is cut off."""

WINDOWS = ((0.40, 0.97), (0.55, 0.97))
"""Quantiles outside which intensities do not count: what a display window such as -200…800 HU cuts off. The second is
for copies whose window cuts off more than 40 %, as -200 HU does where half the scan is lung and air."""

BODY, BRIGHT = -300.0, 180.0
"""HU above which a voxel counts as body (neither air nor lung), and above which as bone or contrast."""


@dataclass
class Scan:
    """What the audit keeps of a file; `cells` is None when the file shows nothing to compare.

    `bright` is the share of body voxels (above -300 HU) that are above 180 HU, None when HU are unknown. `spacing_mm`
    is None unless the header says millimetres. `shape` and `spacing_mm` are in the order right, front, head.
    """

    sha256: str = ""
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] | None = None
    bright: float | None = None
    cells: NDArray[np.float16] | None = None
    problem: str = ""


def scan_file(job: tuple[Path, float | None]) -> Scan:
    """Read one file, given its path and its HU offset (None: find out); a fault becomes `problem`, never an exception."""
    path, hu_offset = job
    scan = Scan()
    try:
        check_scan(path)
        scan.sha256 = scan_digest(path)
        _fill(scan, path, hu_offset)
    except MemoryError:
        scan.problem = f"{path}: does not fit into memory"
    except (
        Exception
    ) as error:  # gzip, zlib and nibabel raise a dozen kinds for a damaged file, and one must not end the run
        text = str(error).strip().splitlines()
        scan.problem = (
            text[0] if text and str(path) in text[0] else f"{path}: cannot be read ({text[:1] or type(error)})"
        )
    return scan


def _fill(scan: Scan, path: Path, hu_offset: float | None) -> None:
    """Shape, spacing, brightness and cells of a scan."""
    stored, affine, spacing_mm, (slope, intercept) = _series(path) if is_series(path) else _nifti(path)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise UserError(f"{path}: the affine in the header is not finite or has no inverse")
    hu_offset = known_offset(path, hu_offset)
    to_head = nib.orientations.io_orientation(affine)
    order = np.argsort(to_head[:, 0])
    scan.shape = tuple(int(stored.shape[axis]) for axis in order)
    if spacing_mm is not None:
        scan.spacing_mm = tuple(spacing_mm[axis] for axis in order)
    thin = stored[tuple(slice(None, None, max(1, n // (2 * READ_CELLS))) for n in stored.shape[:3])]
    if stored.ndim == 4:
        thin = thin.mean(axis=3, dtype=np.float32)  # a cine: its mean over the beat
    if not np.isfinite(thin).all():
        raise UserError(f"{path}: has voxels that are NaN or infinite")
    if stored.ndim == 3:
        scan.bright = _bright(thin[::2, ::2, ::2] * slope + intercept, hu_offset, path)
    cells = _cells(thin if slope > 0 else -thin.astype(np.float32))
    if cells is not None:
        turned = [nib.orientations.apply_orientation(volume, to_head) for volume in cells]
        scan.cells = np.stack(turned).astype(np.float16)


def _nifti(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], Sequence[float] | None, tuple[float, float]]:
    """Values (X, Y, Z), time after them; affine; spacing where it is in mm; slope and intercept.

    Stored values, not scaled ones: ranks do not change with the scale, and float64 would need four times the memory.
    """
    image: Any = nib.load(path)
    stored = np.asanyarray(image.dataobj.get_unscaled())
    stored = stored.reshape((*stored.shape[:3], 1, 1)[:3] + ((-1,) if math.prod(stored.shape[3:]) > 1 else ()))
    zooms = (*map(float, image.header.get_zooms()[:3]), 1.0, 1.0)[:3]
    spacing = zooms if image.header.get_xyzt_units()[0] == "mm" else None
    return (
        stored,
        np.asarray(image.affine, np.float64),
        spacing,
        (float(image.dataobj.slope), float(image.dataobj.inter)),
    )


def _series(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], Sequence[float] | None, tuple[float, float]]:
    """The same of a DICOM series, in HU."""
    volume = open_scan(path)
    return volume.scaled(volume.read_whole()).T, volume.affine, volume.spacing_mm, (1.0, 0.0)


def _bright(values: NDArray[Any], hu_offset: float | None, path: Path) -> float | None:
    """Share of body voxels above 180 HU; None when the values cannot be told to be HU, or show no body."""
    try:
        hu = values + (detect_hu_offset(values, path) if hu_offset is None else hu_offset)
    except ValueError:
        return None
    body = int(np.count_nonzero(hu > BODY))
    return int(np.count_nonzero(hu > BRIGHT)) / body if body else None


def _cells(values: NDArray[Any]) -> Floats | None:
    """Ranks of a volume within each of `WINDOWS` on a grid, shape (2, GRID, GRID, GRID); None with one intensity."""
    levels, counts = np.unique(values[::2, ::2, ::2], return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / counts.sum()
    low, high = (float(levels[min(int(np.searchsorted(ranks, q)), len(levels) - 1)]) for q in WINDOWS[0])
    if not high > low:
        return None
    # a table of ranks for 4096 steps of the window: an interpolation for every voxel would take ten times as long
    steps = np.linspace(low, high, 4096)
    tables: list[Floats] = [np.interp(steps, levels, np.clip(ranks, *w)).astype(np.float32) for w in WINDOWS]
    edges = np.linspace(0, values.shape[2], _pieces(values) + 1).astype(int).tolist()
    slabs: list[list[Floats]] = [[] for _ in tables]
    for start, stop in itertools.pairwise(edges):
        step = _step(values[:, :, start:stop], low, high)
        for table, done in zip(tables, slabs, strict=True):
            done.append(_averaged(table[step], (0, 1)))
    small = [_averaged(np.concatenate(done, axis=2), (2,)) for done in slabs]
    box = _box(small[0])
    return None if box is None else np.stack([regridded(volume[box], GRID) for volume in small])


def _pieces(values: NDArray[Any]) -> int:
    """Number of slabs in which a volume is worked on, about 2 million voxels each, so that memory stays small."""
    return int(min(values.shape[2], math.ceil(values.size / 2e6)))


def _step(values: NDArray[Any], low: float, high: float) -> NDArray[np.intp]:
    """Step of the window, 0 to 4095, that each value falls on."""
    shown = np.clip(values, low, high).astype(np.float32) - np.float32(low)
    return np.asarray(shown * np.float32(4095 / (high - low)) + np.float32(0.5), np.intp)


def _averaged(values: Floats, axes: Iterable[int]) -> Floats:
    """Mean over runs of neighbours, so that at most `READ_CELLS` cells remain along each of the axes."""
    for axis in axes:
        length = values.shape[axis]
        if length > READ_CELLS:
            starts = np.arange(READ_CELLS) * length // READ_CELLS
            counts = np.diff(np.append(starts, length)).astype(np.float32)
            shape = [-1 if a == axis else 1 for a in range(3)]
            values = np.asarray(np.add.reduceat(values, starts, axis=axis) / counts.reshape(shape), np.float32)
    return values


def _box(values: Floats) -> tuple[slice, ...] | None:
    """Where a volume shows something: border planes that are next to constant are air or padding; None when all are."""
    least = 0.1 * float(values.std())
    box = []
    for axis in range(3):
        shown = np.flatnonzero(values.std(axis=tuple(a for a in range(3) if a != axis)) > least)
        if not len(shown):
            return None
        box.append(slice(int(shown[0]), int(shown[-1]) + 1))
        values = values[tuple(box[-1] if a == axis else slice(None) for a in range(3))]
    return tuple(box)


def regridded(values: Floats, cells: int) -> Floats:
    """A volume on `cells` cells along each axis: triangle weights, as wide as a new cell where that is the larger."""
    for axis in range(3):
        length = values.shape[axis]
        centres = (np.arange(cells) + 0.5) * length / cells - 0.5
        weights = np.maximum(0, 1 - np.abs(np.arange(length) - centres[:, None]) / max(1, length / cells))
        weights /= weights.sum(axis=1, keepdims=True)
        values = np.moveaxis(np.tensordot(weights.astype(np.float32), values, axes=(1, axis)), 0, axis)
    return values


def scan_files(jobs: Sequence[tuple[Path, float | None]], *, processes: int, progress: bool) -> list[Scan]:
    """`scan_file` for many files, one at a time in each process."""
    return list(mapped(scan_file, jobs, processes, "reading scans" if progress else ""))
