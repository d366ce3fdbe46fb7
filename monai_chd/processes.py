"""Work shared out among processes, and what each that works beside the one that started it has to do.

Which work, and among how many, is decided by those who start them.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits
from tqdm import tqdm

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """End this process when the one that started it is gone, even killed, which leaves it no chance to say so.

    Otherwise it would keep its memory for ever, and the work in hand would go on beside that of the same command run again.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()


def mapped(
    function: Callable[[T], R],
    jobs: Sequence[T],
    processes: int,
    label: str,
    prepare: Callable[[], None] | None = None,
    *,
    unit: str = "scan",
) -> Iterator[R]:
    """What a function makes of each job, in order; in this process when one is asked for or there is little to do.

    Args:
        function: of one job; a process has to be able to import it.
        jobs: in the order of the results.
        processes: at once.
        label: of a bar; "" for none.
        prepare: run once in every process before its first job.
        unit: of the bar.
    """
    with tqdm(total=len(jobs), desc=label, unit=unit, disable=not label) as bar:
        if processes <= 1 or len(jobs) < 2:
            with threadpool_limits(1):
                if prepare:
                    prepare()
                for job in jobs:
                    yield function(job)
                    bar.update()
            return
        # spawned, not forked: threads of torch and BLAS, which the parent may have, do not survive a fork
        context = multiprocessing.get_context("spawn")
        started = functools.partial(_start, prepare, function)  # its libraries are loaded, then limited
        with ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=started) as pool:
            for result in pool.map(function, jobs):
                yield result
                bar.update()


def _start(prepare: Callable[[], None] | None, _: Callable[..., Any]) -> None:
    """Begin a worker: one thread of BLAS, whose products are small here; several wait for each other where cores are busy."""
    end_with_parent()
    threadpool_limits(1)
    if prepare:
        prepare()
