"""Scores how alike two scans are, by their fingerprints, and from which score a pair is a copy.

Knows pairs of fingerprints. How a file becomes one is `fingerprints`' part; which pair is leakage, `leakage`'s.

Two fingerprints are laid over each other in the best of 48 orientations, with a shift and a scale along each axis (a crop,
another spacing); the score is the median, over small tiles, of the correlation of fine detail. Hearts of two patients share
their coarse shape; a copy shares its detail everywhere.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from monai_chd.audit.fingerprints import GRID, Floats, Scan, regridded
from monai_chd.processes import mapped

MIDDLE, COARSE = 24, 16
"""Cells along each axis of the two coarser grids on which a fingerprint is first laid over another."""

INNER = 0.8
"""Each fingerprint is also tried as its central part, since a copy may be cropped."""

TILE, DETAIL = 12, 5.0
"""Cells along a side of a tile, and deviation in cells of the blur that is subtracted to leave detail."""

STARTS = 4
"""Orientations and crops that are worth an alignment."""

EARLY_GATE, GATE = 0.90, 0.94
"""Correlation on the coarse grid, half aligned and aligned, below which a pair is no copy: planted ones had over 0.954."""

STRICT, LENIENT, STEP = 0.972, 0.90, 1.0
"""Limits of the score from which a pair is a copy, and its distance on Fisher's scale above the 90th percentile of pairs.

Measured on phantoms, whose hearts are alike as no patients' are. All pairs of different patients: realistic, 96 pixels
(110 patients, 5995 pairs) median 0.58, 90 % below 0.78, highest 0.929; realistic, 224 pixels (56, 1540) 0.59, 0.78,
0.952; plain, 96 pixels (64, 2016) 0.88, 0.94, 0.965; six real scans of five patients (14 pairs) highest 0.41. Copies of
the realistic ones, lowest and median of 32 comparisons: mirrored or axes exchanged 0.999, 1.00; resampled to 0.7 in all
axes 0.981, 0.988, to half 0.937, 0.975; 8 bit of -200…800 HU 0.963, 0.994; -100…300 HU 0.943, 0.979; cropped by 5 % on
every side 0.971, 0.981, by 10 % 0.932, 0.963; noise of 50 HU 0.973, 0.992, of 100 HU 0.949, 0.982; padded 0.946, 0.967;
mirrored, cropped, resampled, noise and window at once 0.939, 0.964. A real scan and its tighter crop: 0.979.
The rule gives 0.966 for realistic phantoms, 0.972 for plain ones, and 0.90 where most patients look unlike.
A second look at 96 cells, and a lower quantile of the tiles instead of their median, were tried on plain phantoms and leave no
wider gap: pairs of patients up to 0.766 there and copies resampled to 0.7 from 0.794; at the 10th percentile 0.931 and 0.971."""

FEW_PAIRS = 50
"""Below so many pairs, how alike patients are is not known, and the strict limit holds."""

ORIENTATIONS = [
    (axes, flips) for axes in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]
AXES = ("left-right", "back-front", "feet-head")


class Likeness(NamedTuple):
    """How alike two scans are: `score` up to 1, None when coarse shape already tells them apart; and how they lie."""

    first: int
    second: int
    score: float | None
    orientation: str


def _ranked(values: Floats) -> Floats:
    """Ranks with mean 0 and deviation 1; all 0 when there is one value."""
    ranks = rankdata(values).reshape(values.shape)
    ranks -= ranks.mean()
    return np.asarray(ranks / (ranks.std() or 1.0), np.float32)


class Sketch:
    """A fingerprint on the grids that comparing needs; coarse ones whole and central, as unit vectors."""

    def __init__(self, cells: NDArray[np.float16]) -> None:
        first, *others = cells.astype(np.float32)
        self.fine = _ranked(first)
        self.details = [fine - gaussian_filter(fine, DETAIL) for fine in (self.fine, *map(_ranked, others))]
        self.middle = _ranked(regridded(first, MIDDLE))
        self.coarse = _ranked(regridded(first, COARSE))
        self.inner = _ranked(regridded(_laid(first, np.array([INNER] * 3 + [0.0] * 3))[0], COARSE))


def _oriented(values: Floats, which: int) -> Floats:
    axes, flips = ORIENTATIONS[which]
    return values.transpose(axes)[tuple(slice(None, None, flip) for flip in flips)]


def _laid(values: Floats, place: NDArray[np.float64]) -> tuple[Floats, NDArray[np.bool_]]:
    """A volume seen through a scale and a shift along each axis.

    Args:
        values: shape (G, G, G), over -1…1 along each axis.
        place: scale of the three axes, then shift, in units of half a side.

    Returns:
        The volume at `scale * u + shift`, and where that lies inside it.
    """
    cells = values.shape[0]
    inside = []
    for axis in range(3):
        at = ((place[axis] * _ticks(cells) + place[3 + axis]) + 1) / 2 * cells - 0.5
        inside.append((at >= -0.5) & (at <= cells - 0.5))
        at = np.clip(at, 0, cells - 1)
        left = np.minimum(at.astype(np.int64), cells - 2)
        weights = np.zeros((cells, cells), np.float32)
        weights[np.arange(cells), left] = 1 - (at - left)
        weights[np.arange(cells), left + 1] = at - left
        values = np.moveaxis(np.tensordot(weights, values, axes=(1, axis)), 0, axis)
    return values, inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]


def _ticks(cells: int) -> NDArray[np.float64]:
    """Centres of cells along an axis of -1…1."""
    return (np.arange(cells) + 0.5) / cells * 2 - 1


def _correlation(left: Floats, right: Floats, weight: Floats) -> float:
    """Pearson correlation where the weight is 1, not 0."""
    count = float(weight.sum())
    left = (left - np.vdot(left, weight) / count) * weight
    right = (right - np.vdot(right, weight) / count) * weight
    scale = math.sqrt(float(np.vdot(left, left)) * float(np.vdot(right, right)))
    return float(np.vdot(left, right)) / scale if scale > 0 else 0.0


def _align(fixed: Floats, moving: Floats, place: NDArray[np.float64], steps: int) -> tuple[float, NDArray[np.float64]]:
    """Improve how a volume is laid over another by Gauss-Newton steps; gain and offset of intensity are fitted along.

    Returns:
        Correlation where both are, and the place it was found at; -1 when less than a quarter overlaps.
    """
    best, best_place = -1.0, place
    for step in range(steps + 1):
        laid, inside = _laid(moving, place)
        if inside.mean() < 0.25:
            break
        weight = inside.astype(np.float32)
        found = _correlation(fixed, laid, weight)
        improved = found - best
        if improved > 0:
            best, best_place = found, place
        if step == steps or (step > 2 and improved < 2e-4):
            break
        change = _gauss_newton(fixed, laid, weight, place)
        if change is None:
            break
        place = place + np.clip(change, -0.15, 0.15)
        place = np.concatenate([np.clip(place[:3], 0.6, 1 / 0.6), np.clip(place[3:], -0.5, 0.5)])
    return best, best_place


def _gauss_newton(
    fixed: Floats, laid: Floats, weight: Floats, place: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Change of place that lowers the squared difference most, to first order; None where intensities do not agree."""
    cells = fixed.shape[0]
    columns = np.empty((8, *laid.shape), np.float32)
    for axis in range(3):
        tick = _ticks(cells).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        columns[3 + axis] = np.gradient(laid, axis=axis)
        columns[3 + axis] *= weight * np.float32(cells / 2 / place[axis])
        columns[axis] = columns[3 + axis] * tick
    columns[6], columns[7] = laid * weight, weight
    rows = columns.reshape(8, -1)
    solution = np.linalg.lstsq(rows @ rows.T, rows @ fixed.ravel(), rcond=None)[0]
    gain = float(solution[6])
    return None if gain <= 0.05 else np.asarray(solution[:6] / gain, np.float64)


def _detail_score(left: Floats, right: Floats, inside: NDArray[np.bool_]) -> float:
    """Median over tiles of the correlation of detail; 0 when no tile has any. Tiles half outside do not count."""
    left, right, weight = (_tiled(volume) for volume in (left, right, inside.astype(np.float32)))
    seen = weight.mean(axis=1) > 0.5
    if not seen.any():
        return 0.0
    left, right, weight = left[seen], right[seen], weight[seen]
    count = weight.sum(axis=1, keepdims=True)
    left = (left - (left * weight).sum(axis=1, keepdims=True) / count) * weight
    right = (right - (right * weight).sum(axis=1, keepdims=True) / count) * weight
    power, other = (left * left).sum(axis=1), (right * right).sum(axis=1)
    # a tile cut flat by a display window has nothing to compare
    shown = (power > 1e-3 * power.mean()) & (other > 1e-3 * other.mean())
    if not shown.any():
        return 0.0
    return float(np.median((left * right).sum(axis=1)[shown] / np.sqrt(power * other)[shown]))


def _tiled(volume: Floats) -> Floats:
    """Shape (tiles, cells of a tile)."""
    n = GRID // TILE
    return volume.reshape(n, TILE, n, TILE, n, TILE).transpose(0, 2, 4, 1, 3, 5).reshape(n**3, -1)


def score_pair(
    first: Sketch, second: Sketch, coarse: Sequence[tuple[float, int, float]], gate: float
) -> tuple[float | None, int]:
    """Score of two sketches, None below the gate, and the orientation of the second in which they agree best.

    Args:
        first: laid under.
        second: laid over.
        coarse: correlation on the coarse grid, orientation and scale of each way to start, best first.
        gate: correlation on the coarse grid, once aligned, from which the fine one is worth while.
    """
    tried = [
        (*_align(first.coarse, _oriented(second.coarse, which), np.array([scale] * 3 + [0.0] * 3), 2), which)
        for _, which, scale in coarse
    ]
    found, place, which = max(tried, key=lambda way: way[0])
    if found < gate - (GATE - EARLY_GATE):
        return None, which
    found, place = _align(first.coarse, _oriented(second.coarse, which), place, 4)
    if found < gate:
        return None, which
    place = _align(first.middle, _oriented(second.middle, which), place, 5)[1]
    place = _align(first.fine, _oriented(second.fine, which), place, 3)[1]
    scores = [
        _detail_score(under, *_laid(_oriented(over, which), place))
        for under, over in zip(first.details, second.details, strict=True)
    ]
    return max(scores), which


def _starts(first: Sequence[Sketch], second: Sketch) -> list[list[tuple[float, int, float]]]:
    """The `STARTS` best ways to lay the second over each of the first: orientation, and which of the two is cropped."""

    def stack(volumes: Iterable[Floats]) -> Floats:
        rows = np.stack([volume.ravel() for volume in volumes])
        return np.asarray(rows / COARSE**1.5, np.float32)  # deviation 1, so this makes unit vectors

    every = range(len(ORIENTATIONS))
    whole = stack(_oriented(second.coarse, which) for which in every)
    inner = stack(_oriented(second.inner, which) for which in every)
    below, below_inner = stack(s.coarse for s in first), stack(s.inner for s in first)
    ways = ((below @ whole.T, 1.0), (below @ inner.T, INNER), (below_inner @ whole.T, 1 / INNER))
    table = np.concatenate([values for values, _ in ways], axis=1)
    best = np.argsort(-table, axis=1)[:, :STARTS]
    return [
        [(float(row[way]), int(way) % len(ORIENTATIONS), ways[int(way) // len(ORIENTATIONS)][1]) for way in chosen]
        for row, chosen in zip(table, best, strict=True)
    ]


def describe_orientation(which: int) -> str:
    """In words, how the second scan has to be turned: "as is", "mirrored left-right", "axes exchanged, …"."""
    axes, flips = ORIENTATIONS[which]
    words = ["axes exchanged"] if axes != (0, 1, 2) else []
    words += [f"mirrored {AXES[axis]}" for axis, flip in enumerate(flips) if flip < 0]
    return ", ".join(words) or "as is"


_SKETCHES: list[Sketch] = []
"""What a worker process compares; filled once, since sending it with every job would take longer than comparing."""


def _fill_sketches(scans: Sequence[Scan]) -> None:
    _SKETCHES[:] = [Sketch(scan.cells) for scan in scans if scan.cells is not None]


def _score_row(job: tuple[int, Sequence[int], Sequence[bool]]) -> list[Likeness]:
    """Likeness of one scan to several before it; for those marked, the fine score is taken whatever the coarse one."""
    second, firsts, always = job
    starts = _starts([_SKETCHES[first] for first in firsts], _SKETCHES[second])
    rows = []
    for first, coarse, whatever in zip(firsts, starts, always, strict=True):
        score, which = score_pair(_SKETCHES[first], _SKETCHES[second], coarse, -1.0 if whatever else GATE)
        rows.append(Likeness(first, second, score, describe_orientation(which)))
    return rows


def score_pairs(
    scans: Sequence[Scan], pairs: Iterable[tuple[int, int]], *, processes: int, progress: bool, sample: int = 400
) -> tuple[list[Likeness], list[float]]:
    """Compare pairs of scans.

    Args:
        scans: all with cells.
        pairs: indices (first, second) to compare.
        processes: at once.
        progress: show a bar.
        sample: number of pairs, drawn with a fixed seed, that get the fine score whatever the coarse one says.

    Returns:
        Likeness of each pair; and the scores of the sample: how alike two scans of these cohorts are.
    """
    listed = sorted(pairs, key=lambda pair: (pair[1], pair[0]))
    drawn = np.zeros(len(listed), bool)
    drawn[np.random.default_rng(0).permutation(len(listed))[:sample]] = True
    jobs = []
    for second, group in itertools.groupby(zip(listed, drawn.tolist(), strict=True), key=lambda entry: entry[0][1]):
        members = list(group)
        jobs.append((second, [pair[0] for pair, _ in members], [always for _, always in members]))
    label = "comparing scans" if progress else ""
    rows = mapped(_score_row, jobs, processes, label, functools.partial(_fill_sketches, scans))
    found = [likeness for row in rows for likeness in row]
    return found, [float(one.score or 0.0) for one, always in zip(found, drawn, strict=True) if always]


def score_limit(sample: Sequence[float]) -> float:
    """Score from which a pair is a copy, given how alike pairs of scans of these cohorts are.

    Patients of one protocol look more alike than those of many, so the limit is set above the 90th percentile of the
    pairs themselves, on Fisher's scale, within `LENIENT` and `STRICT`.
    """
    if len(sample) < FEW_PAIRS:
        return STRICT
    common = float(np.arctanh(np.clip(np.quantile(sample, 0.9), -0.999, 0.999)))
    return float(np.clip(np.tanh(common + STEP), LENIENT, STRICT))
