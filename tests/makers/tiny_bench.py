"""Sides as if they had been measured, and a report of them, for what needs no process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.comparison import Row, judge
from benchmarks.report import begun
from benchmarks.volumes import QUICK

MB = 10**6


def measured(wall: Sequence[float] = (1.0,), over: int = 100 * MB) -> dict[str, Any]:
    """A side of these seconds, one a round, whose interpreter took 300 MB."""
    return {"wall": list(wall), "cpu": list(wall), "peak": over + 300 * MB, "over_interpreter": over, "note": None}


def made_report(*, quick: bool = False) -> dict[str, Any]:
    """One bench with a row that is won, one that is lost, one that is not measured and one that is only told."""
    sides = {
        "ours": measured((1.0, 1.0, 2.0)),
        "other": measured((5.0, 4.0, 3.0)),
        "TorchIO": {"missing": "not installed"},
    }
    rows = [
        Row("won", "time", "ours", "other", 4),
        Row("lost", "time", "ours", "other", 5),
        Row("absent", "time", "ours", "TorchIO", 12),
        Row("told", "time", "ours", "other"),
    ]
    judged = [judge(row, sides, quick=quick) for row in rows]
    return {
        **begun(QUICK, 3, quick=quick),
        "equality": [{"scan": "phantom", "size": 224, "ours against": "JPG", "largest": 0.25, "unit": "of the window"}],
        "benches": [{"name": "b", "title": "t", "sides": sides, "rows": judged}],
    }
