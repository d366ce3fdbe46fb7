"""What goes on in a process of the benchmark: one side is made ready, and its calls are timed.

What the side does is its measure's part; what is made of the times, `comparison`'s.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Side(NamedTuple):
    """One way of doing something.

    Attributes:
        warm: done before the interpreter's memory is noted: everything is imported, nothing large is made.
        ready: done once after that, not timed: page cache, caches on disk, the batch.
        call: what is timed; its result is let go of after the clock has stopped, but may be a note for the report.
    """

    warm: Callable[[], Any]
    ready: Callable[[], Any]
    call: Callable[[], Any]


class MissingError(Exception):
    """A side that cannot be measured here, and why."""


def work_folder() -> Path:
    """The folder that the sides of one bench share, and that is gone after it."""
    return Path(os.environ["BENCH_WORK"])


def serve(measure: str, given: Mapping[str, Any]) -> None:
    """Make a side ready, then time one call for every line of standard input; a line of JSON comes out for each.

    Args:
        measure: module of `benchmarks` whose `side` is called.
        given: its arguments.
    """
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between

    def say(**what: Any) -> None:
        channel.write(json.dumps(what) + "\n")
        channel.flush()

    try:
        side: Side = importlib.import_module(f"benchmarks.{measure}").side(**given)
        side.warm()
        gc.collect()
        interpreter = resident()
        side.ready()
    except MissingError as reason:
        say(missing=str(reason))
        return
    say(interpreter=interpreter)
    for _ in sys.stdin:
        gc.collect()
        cpu, started = cpu_seconds(), time.perf_counter()
        result = side.call()
        wall, cpu = time.perf_counter() - started, cpu_seconds() - cpu
        note = result if isinstance(result, (str, list)) else None
        del result
        say(wall=wall, cpu=cpu, peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, note=note)


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds() -> float:
    """User and system seconds of this process and of the ones that it has waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
