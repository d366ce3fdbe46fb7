"""Puts the slices of a series in their order in space, and refuses a set of slices that is no regular volume.

Readers in use are silent here: they average the spacing, look at the first two slices, or let some degrees of tilt through.
What lies in the files is the part of `slices`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_chd.dicom.slices import Slice

SAME_PLACE_MM = 0.01
"""Slices nearer to each other lie at one place."""

TILT_DEGREES = 0.1
"""Most that the line through the slices may lean from their normal."""

UNEVEN = 0.1
"""Most that a slice may lie off its place in a regular volume, as a share of the distance of slices: headers round positions."""

TURNED = 1e-3
"""Most that directions of slices may differ from each other; some 0.06 degrees."""

CLOCK = "AcquisitionTime"
"""What tells phases apart and is a time of the day."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class IrregularError(ValueError):
    """Slices that make no regular volume; says where, without a name or path."""


class Arranged(NamedTuple):
    """Slices in their order along the normal, towards the head where they are axial.

    Attributes:
        order: indices into the slices given.
        affine: voxel index (column, row, slice) to RAS millimetres, shape (4, 4); of the volume made upright where it was tilted.
        shifts: of a tilted volume: pixels (rows, columns) by which each slice lies beside the first, shape (n, 2); None: upright.
        tilt: degrees that the line through the slices leans from their normal.
    """

    order: list[int]
    affine: NDArray[np.float64]
    shifts: NDArray[np.float64] | None
    tilt: float


def arrange(slices: Sequence[Slice], *, upright: bool = False) -> Arranged:
    """Order slices by where they are.

    Args:
        slices: without faults, of one series and one phase.
        upright: take a tilted volume, whose slices are then to be shifted.

    Raises:
        IrregularError: several sizes, spacings or directions, two slices at one place, a gap, uneven distances, a tilt.
    """
    row, column = _directions(slices)
    normal = np.cross(row, column)
    positions = np.array([one.position for one in slices])
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    distance = _distance(along[order])
    line = (positions[order[-1]] - positions[order[0]]) / (len(slices) - 1)
    lean = line - (line @ normal) * normal
    tilt = math.degrees(math.atan2(float(np.linalg.norm(lean)), distance))
    aside = positions[order] - positions[order[0]] - np.outer(np.arange(len(slices)), line)
    aside -= np.outer(aside @ normal, normal)
    if (furthest := float(np.abs(aside).max())) > UNEVEN * distance + SAME_PLACE_MM:
        index = int(np.abs(aside).max(axis=1).argmax())
        raise IrregularError(
            f"slice {index + 1} of {len(slices)} along the normal lies {furthest:.2f} mm beside the line through the others"
        )
    if tilt > TILT_DEGREES and not upright:
        raise IrregularError(
            f"tilted by {tilt:.1f} degrees: its slices lie above each other at a slant, which frames cannot show; have it "
            f"resampled with --tilt resample"
        )
    spacing = slices[0].spacing
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * spacing[1], column * spacing[0]
    affine[:3, 2], affine[:3, 3] = normal * distance, positions[order[0]]
    shifts = None
    if tilt > TILT_DEGREES:
        steps = np.arange(len(slices))
        shifts = np.stack([steps * (lean @ column) / spacing[0], steps * (lean @ row) / spacing[1]], axis=1)
    return Arranged(order.tolist(), LPS_TO_RAS @ affine, shifts, tilt)


def _directions(slices: Sequence[Slice]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors along which columns and rows are counted, which all slices share."""
    sizes = Counter((one.columns, one.rows) for one in slices)
    if len(sizes) > 1:
        raise IrregularError("slices of several sizes: " + _listed(f"{x} x {y}" for (x, y), _ in sizes.most_common()))
    spacings = np.array([one.spacing for one in slices])
    if np.ptp(spacings, axis=0).max() > 1e-3 * spacings.min():
        kinds = Counter(f"{x:g} x {y:g} mm" for y, x in spacings.tolist())
        raise IrregularError("slices of several pixel spacings: " + _listed(text for text, _ in kinds.most_common()))
    axes = np.array([one.axes for one in slices])
    if not np.isfinite(axes).all() or np.ptp(axes, axis=0).max() > TURNED:
        kinds = Counter(" ".join(f"{value:.3f}" for value in one.axes) for one in slices)
        raise IrregularError("slices of several directions: " + _listed(text for text, _ in kinds.most_common()))
    row, column = axes.mean(axis=0).reshape(2, 3)
    lengths = np.linalg.norm([row, column], axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(row @ column) > 0.01:
        raise IrregularError(
            "its Image Orientation (Patient) is no pair of perpendicular unit vectors, so its directions are unknown"
        )
    if not np.isfinite([one.position for one in slices]).all():
        raise IrregularError("its Image Position (Patient) is no number")
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column)


def _distance(along: NDArray[np.float64]) -> float:
    """The distance of neighbouring slices, sorted along the normal, in mm."""
    if len(along) < 2:
        raise IrregularError("one slice is no volume")
    gaps = np.diff(along)
    same = np.flatnonzero(gaps < SAME_PLACE_MM)
    if len(same):
        raise IrregularError(
            f"two slices at one place, {_mm(along[same[0]])} along their normal ({len(same)} such pairs of {len(along)}), "
            f"and nothing in the headers that tells phases apart"
        )
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    if gaps.max() > 1.5 * usual:
        index = int(gaps.argmax())
        raise IrregularError(
            f"a slice is missing: {gaps[index]:.2f} mm between slices {index + 1} and {index + 2} of {len(along)} "
            f"(at {_mm(along[index])} and {_mm(along[index + 1])} along their normal), where others are {usual:.2f} mm apart"
        )
    distance = float(along[-1] - along[0]) / (len(along) - 1)
    off = np.abs(along - (along[0] + distance * np.arange(len(along))))
    if off.max() > UNEVEN * distance + SAME_PLACE_MM:
        raise IrregularError(f"the distance of its slices changes, from {gaps.min():.2f} to {gaps.max():.2f} mm")
    return distance


def split_by_phase(slices: Sequence[Slice]) -> dict[str, list[Slice]]:
    """Slices by phase, where several lie at one place and something in their headers tells them apart; else all under "".

    What is a time of the day is named by its order, since it would identify.
    """
    places = Counter(_place(one) for one in slices)
    if max(places.values()) == 1:
        return {"": list(slices)}
    names = [name for name in slices[0].phases if all(name in one.phases for one in slices)]
    for name in names:
        groups: dict[str, list[Slice]] = {}
        for one in slices:
            groups.setdefault(one.phases[name], []).append(one)
        if len(groups) > 1 and all(_once(group) for group in groups.values()):
            ordered = sorted(groups, key=_by_number)
            shown = {value: str(number) for number, value in enumerate(ordered, 1)} if name == CLOCK else {}
            return {f"{name}={shown.get(value, value)}": groups[value] for value in ordered}
    return {"": list(slices)}


def _place(one: Slice) -> tuple[float, ...]:
    return tuple(round(value / SAME_PLACE_MM) for value in one.position)


def _once(group: Sequence[Slice]) -> bool:
    return max(Counter(map(_place, group)).values()) == 1


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _mm(value: float) -> str:
    return f"{value:.2f} mm"


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(list(texts)[:3])
