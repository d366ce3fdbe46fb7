"""Measures the native path against the ways it replaces, each side in a process of its own; called by `scripts/bench`.

What a measure is, is its own module's part. Holds the standard library only, see the package.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import agreement, cache, cohort, embedding, head, prediction, reading, report, slices, training, workers
from benchmarks.comparison import Bench, judge
from benchmarks.processes import run_bench, run_once
from benchmarks.volumes import FULL, PATIENTS, QUICK, ROOT, Scale, Volumes

MEASURES = (reading, cache, slices, workers, cohort, training, prediction, embedding, head)
"""In the order of the report."""


def all_benches(made: Volumes) -> list[Bench]:
    """Everything that can be measured, in order."""
    return [bench for measure in MEASURES for bench in measure.benches(made)]


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split("\n")[0])
    names = [bench.name for bench in all_benches(Volumes(Path(), FULL))]
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test of reading, memory and caches in smaller volumes"
    )
    parser.add_argument("--full", action="store_true", help=f"embed all {PATIENTS} patients; takes 10 GB of disk")
    parser.add_argument("--out", type=Path, default=ROOT / "bench_output", help="folder for results and volumes")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}")
    parser.add_argument("--repeats", type=int, help="rounds (default: 5; with --quick 3)")
    given = parser.parse_args(argv)
    given.repeats = given.repeats if given.repeats is not None else 3 if given.quick else 5
    if given.repeats < 1:
        parser.error(f"--repeats: expected 1 or more, got {given.repeats}")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write both reports after every bench.

    Returns:
        Exit code: 1 when ours gives other numbers, or in a quick run a ratio misses half of its target.
    """
    given = arguments(argv)
    made = Volumes(given.out / "volumes", _scale(given))
    made.folder.mkdir(parents=True, exist_ok=True)
    chosen = [bench for bench in all_benches(made) if _chosen(bench, given)]
    found = report.begun(made.scale, given.repeats, quick=given.quick)
    started = time.perf_counter()

    def tell(text: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {text}", flush=True)

    tell(f"volumes: {made.folder}")
    _make_volumes(made, chosen, given.out)
    tell("ours against the single transforms and the other ways")
    found["equality"] = _compare(made, given)
    for bench in chosen:
        tell(f"{bench.name}: {bench.title}")
        found["benches"].append(_measured(bench.in_brief() if given.quick else bench, given, tell))
        report.save(found, given.out)
    report.save(found, given.out)
    tell(f"results: {given.out / 'bench.md'}, {given.out / 'bench.json'}")
    return exit_code(found)


def _scale(given: argparse.Namespace) -> Scale:
    scale = QUICK if given.quick else FULL
    return scale._replace(embedded=PATIENTS) if given.full else scale


def _chosen(bench: Bench, given: argparse.Namespace) -> bool:
    return bench.name in given.only if given.only else bool(bench.quick) or not given.quick


def _make_volumes(made: Volumes, chosen: Sequence[Bench], out: Path) -> None:
    asked = {
        "folder": str(made.folder),
        "scale": made.scale,
        "phantoms": [phantom for bench in chosen for phantom in bench.phantoms],
        "small": max((bench.small for bench in chosen), default=0),
    }
    run_once("volumes", asked, out)


def _compare(made: Volumes, given: argparse.Namespace) -> list[dict[str, Any]]:
    asked = {
        "volume": made.several[0],
        "sizes": [224] if given.quick else [512, 224],
        "length": made.scale.length,
        "rounded": not given.quick,
    }
    equality: list[dict[str, Any]] = run_once("agreement", asked, given.out)
    for found in equality:
        print(
            f"          {found['scan']}, {found['size']}, {found['ours against']}: {found['largest']:.3g} {found['unit']}"
        )
    return equality


def _measured(bench: Bench, given: argparse.Namespace, tell: Callable[[str], None]) -> dict[str, Any]:
    """A bench as the report has it; measured again, twice at most, when a row fails."""
    for left in (2, 1, 0):
        sides = run_bench(bench, given.repeats, given.out)
        rows = [judge(row, sides, quick=given.quick) for row in bench.rows]
        if not left or not any(row["fails"] for row in rows):
            break
        tell(
            f"{bench.name}: a row misses half of its target; measured again, in case the machine was busy with something else"
        )
    for row in rows:
        verdict = {True: "holds", False: "DOES NOT HOLD", None: ""}[row["holds"]]
        print(f"          {report.told(row)} {verdict}", flush=True)
    return {"name": bench.name, "title": bench.title, "sides": sides, "rows": rows}


def exit_code(found: Mapping[str, Any]) -> int:
    """1, and why on standard error, when a run fails."""
    wrong = [each for each in found["equality"] if agreement.wrong(each)]
    for each in wrong:
        print(f"error: {each['scan']}, {each['size']}: not what {each['ours against']} give", file=sys.stderr)
    failed = [row for bench in found["benches"] for row in bench["rows"] if row["fails"]]
    for row in failed:
        print(
            f"error: {row['what']}: {report.shown(row)} misses half of its target {report.target(row)}", file=sys.stderr
        )
    return 1 if wrong or failed else 0
