"""Many fits: how many run at the same time, in processes of their own, and the order in which they end.

What one fit does is `fits`' part; what is said of it `run`'s.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from monai_chd.crossval.config_keys import Mode
from monai_chd.crossval.design import Design
from monai_chd.crossval.fits import DONE, fit_folder, run_fit
from monai_chd.errors import UserError
from monai_chd.processes import cores, end_with_parent

MOST_PROCESSES = 8
"""Fits at the same time at most; each takes 0.6 GB."""


def processes_for(mode: Mode) -> int:
    """How many fits run at the same time: of a small head, which wants one thread, one for each core."""
    if mode != "frozen" or torch.cuda.is_available():
        return 1
    return min(cores(), MOST_PROCESSES)


@contextmanager
def threads_for(mode: Mode) -> Iterator[None]:
    """One thread for a small head: with two it crawls on a busy machine, and the order of sums would depend on them."""
    before = torch.get_num_threads()
    if mode == "frozen":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def fit_processes(number: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes of one thread each for fits that run at the same time; None for one, which needs no process of its own.

    When what is done with them fails or is interrupted, they are stopped at once: a fit is finished or not there at all.

    Raises:
        UserError: a process was killed.
    """
    if number < 2:
        yield None
        return
    others = multiprocessing.active_children()  # of a program that calls this as a library
    pool = ProcessPoolExecutor(number, multiprocessing.get_context("spawn"), _prepare_process)
    try:
        yield pool
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - set(others):
            process.terminate()
        pool.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                f"one of the {number} processes that ran fits was killed, most often for want of memory; run the same command "
                f"again, it goes on from there"
            ) from None
        raise
    pool.shutdown()


def _prepare_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one says what an interruption means
    end_with_parent()
    torch.set_num_threads(1)


def run_fits(
    design: Design, fits: Path, repeats: Iterable[int], pool: ProcessPoolExecutor | None, **change: Any
) -> Iterator[tuple[int, int, float | None]]:
    """Run all fits of some repeats; those that are done already come first.

    Args:
        design: the cross-validation.
        fits: folder of the fits.
        repeats: which.
        pool: of `fit_processes`; None: one after the other in this process.
        change: more of `run_fit`: `structures`, and what a control changes, `labels` or `extra`.

    Yields:
        Repeat and fold of each as it ends, and its seconds, None when it was done before.
    """
    waiting = []
    for repeat, fold in ((repeat, fold) for repeat in repeats for fold in range(design.folds)):
        folder = fit_folder(fits, repeat, fold)
        if pool is None or (folder / DONE).is_file():
            yield repeat, fold, run_fit(design, folder, repeat, fold, **change)
        else:
            waiting.append((repeat, fold))
    if pool is None:
        return
    running = {pool.submit(run_fit, design, fit_folder(fits, *job), *job, **change): job for job in waiting}
    for future in as_completed(running):
        yield *running[future], future.result()
