"""What a bench compares, and the figures that are made of its sides: paired by round, judged against their targets.

Measuring is the part of `processes` and `child`; words and tables are `report`'s.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

MB = 10**6
LARGER_IS_BETTER = {
    "time": True,
    "memory": True,
    "times": False,
    "flat": False,
    "flat process": False,
    "peak": False,
    "seconds": False,
}
UNITS = {"peak": " MB", "seconds": " s"}


class Row(NamedTuple):
    """One figure and its target.

    Attributes:
        what: in words.
        figure: "time" (`other`'s seconds over `ours`'), "times" (`ours`' seconds over `other`'s), "memory" (`other`'s peak over
            `ours`'), "flat" (largest peak over smallest, of `ours`), "peak" (largest peak of `ours`, MB) or "seconds"
            (of `ours`). Peaks are over the interpreter, but for "flat process", of the processes as they are.
        ours: side; for "flat", "flat process" and "peak" several.
        other: side it is compared with.
        target: None when it is only told.
    """

    what: str
    figure: str
    ours: str | tuple[str, ...]
    other: str = ""
    target: float | None = None

    @property
    def sides(self) -> list[str]:
        """The sides that it compares."""
        ours = [self.ours] if isinstance(self.ours, str) else list(self.ours)
        return [*ours, self.other] if self.other else ours


class Bench(NamedTuple):
    """Sides that are measured in turn, and what is made of it.

    Attributes:
        name: to be named with --only.
        title: what is measured.
        sides: name to measure (a module of `benchmarks`) and arguments of its `side`.
        rows: what is compared.
        quick: the sides that --quick measures; none: not a part of it.
        rounds: at most so many rounds (memory is the same in each).
        alone: the sides' processes run one after the other, not at the same time (they take much memory).
        phantoms: slices and seeds of the volumes that it needs besides those that every run makes.
        small: how many scans of few voxels it needs.
    """

    name: str
    title: str
    sides: dict[str, tuple[str, dict[str, Any]]]
    rows: tuple[Row, ...]
    quick: tuple[str, ...] = ()
    rounds: int | None = None
    alone: bool = False
    phantoms: tuple[tuple[int, int], ...] = ()
    small: int = 0

    def in_brief(self) -> Bench:
        """The part that --quick measures; all of it where it has none, for who asks for it with --only."""
        if not self.quick:
            return self
        measured = {name: side for name, side in self.sides.items() if name in self.quick}
        rows = tuple(row for row in self.rows if set(row.sides) <= set(measured))
        return self._replace(sides=measured, rows=rows)


def judge(row: Row, sides: Mapping[str, Mapping[str, Any]], *, quick: bool = False) -> dict[str, Any]:
    """A row's figure, whether its target holds, and whether the run fails.

    Returns:
        `figures` (one a round, in the order of the rounds), `median`, `low`, `high`, `holds` (None: no target, or not measured),
        `fails` (a target missed by more than half, in a quick run), `missing` (why it was not measured).
    """
    missing = [sides[name]["missing"] for name in row.sides if "missing" in sides[name]]
    result: dict[str, Any] = {**row._asdict(), "unit": UNITS.get(row.figure, "x"), "holds": None, "fails": False}
    if missing:
        return {**result, "missing": missing[0]}
    figures = _figures(row, sides)
    median = statistics.median(figures)
    result |= {"figures": figures, "median": median, "low": min(figures), "high": max(figures)}
    if row.target is not None:
        better = LARGER_IS_BETTER[row.figure]
        result["holds"] = median >= row.target if better else median <= row.target
        result["fails"] = quick and (median < row.target / 2 if better else median > row.target * 2)
    return result


def _figures(row: Row, sides: Mapping[str, Mapping[str, Any]]) -> list[float]:
    names = row.sides
    peaks = [sides[name]["over_interpreter"] for name in names]
    if row.figure == "flat process":
        peaks = [sides[name]["peak"] for name in names]
    if row.figure in ("flat", "flat process"):
        return [max(peaks) / min(peaks)]
    if row.figure == "peak":
        return [max(peaks) / MB]
    if row.figure == "memory":
        return [peaks[1] / peaks[0]]
    ours = sides[names[0]]["wall"]
    if row.figure == "seconds":
        return list(ours)
    other = sides[row.other]["wall"]
    pairs = zip(other, ours, strict=True)
    return [a / b if row.figure == "time" else b / a for a, b in pairs]
