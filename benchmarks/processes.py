"""Starts a process for each side and asks them in turn for timed calls.

What goes on in such a process is `child`'s part. Holds the standard library only, see the package.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.comparison import Bench
from benchmarks.volumes import ROOT


class Process:
    """A child, and what it has reported.

    Args:
        measure: module of `benchmarks` whose `side` it runs.
        given: arguments of that.
        work: folder for what it writes.
    """

    def __init__(self, measure: str, given: Mapping[str, Any], work: Path) -> None:
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks", "--child", measure, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={
                **os.environ,
                "OMP_WAIT_POLICY": "passive",  # as `monai-chd` sets it, and large pages
                "THP_MEM_ALLOC_ENABLE": "1",
                "BENCH_WORK": str(work),
                "PYTHONPATH": os.pathsep.join(path),
            },
        )
        self.interpreter = 0
        self.missing: str | None = None
        self.calls: list[dict[str, Any]] = []

    def wait_until_ready(self) -> None:
        """Until it has done all that is not timed, or has said why it cannot.

        Raises:
            RuntimeError: it ended; with the end of what it printed.
        """
        answer = self._answer()
        self.missing = answer.get("missing")
        self.interpreter = answer.get("interpreter", 0)

    def measure(self) -> dict[str, Any]:
        """One timed call; errors as in `wait_until_ready`."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.calls.append(self._answer())
        return self.calls[-1]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(
                f"a side ended with exit code {self._process.returncode}:\n{self._errors.read()[-4000:]}"
            )
        return json.loads(line)

    def close(self) -> None:
        """End it; it has nothing left to lose."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def summary(self) -> dict[str, Any]:
        """What came of it, as the report has it."""
        if self.missing:
            return {"missing": self.missing}
        peak = max((call["peak"] for call in self.calls), default=0)
        return {
            "wall": [call["wall"] for call in self.calls],
            "cpu": [call["cpu"] for call in self.calls],
            "peak": peak,
            "over_interpreter": peak - self.interpreter,
            "note": self.calls[-1]["note"] if self.calls else None,
        }


def run_bench(bench: Bench, repeats: int, out: Path) -> dict[str, dict[str, Any]]:
    """Measure the sides of a bench in turn, A B A B.

    Returns:
        Name of the side to what came of it, see `Process.summary`.
    """
    rounds = min(repeats, bench.rounds or repeats)
    groups = [[name] for name in bench.sides] if bench.alone else [list(bench.sides)]
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=out) as work:
        for names in groups:
            found |= in_turn({name: Process(*bench.sides[name], Path(work)) for name in names}, rounds)
    return found


def run_once(measure: str, given: Mapping[str, Any], out: Path) -> Any:
    """A process that does one thing; its note."""
    with tempfile.TemporaryDirectory(dir=out) as work:
        return in_turn({measure: Process(measure, given, Path(work))}, 1)[measure]["note"]


def in_turn(processes: Mapping[str, Process], rounds: int) -> dict[str, dict[str, Any]]:
    """One call of each, round by round, when all are ready; then they are ended."""
    try:
        for process in processes.values():
            process.wait_until_ready()
        for _ in range(rounds):
            for process in processes.values():
                if process.missing is None:
                    process.measure()
        return {name: process.summary() for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.close()
