"""Fits at the same time: the bytes of one after the other, one error for a mistake or a killed process, and none left running."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from concurrent.futures import Future

import pytest
import torch

from monai_chd.crossval.fit_processes import MOST_PROCESSES, fit_processes, processes_for, run_fits, threads_for
from monai_chd.crossval.fits import run_fit

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config


def test_fits_at_the_same_time_give_the_same_bytes(tiny_design, done_fits, tmp_path):
    with fit_processes(2) as pool:
        found = list(run_fits(tiny_design, tmp_path, range(1), pool))
    assert sorted(job for *job, _ in found) == [[0, 0], [0, 1]] and all(seconds > 0 for *_, seconds in found)
    for fold in ("r0f0", "r0f1"):
        for name in ("evaluation/predictions.csv", "learning_curves.csv"):
            assert (tmp_path / fold / name).read_bytes() == (done_fits / fold / name).read_bytes()


def test_a_mistake_in_another_process_is_told_as_in_this_one_and_ends_the_others(tiny_design, tmp_path):
    wrong = {"pooling": "median"}
    with pytest.raises(ValueError, match=r"^fit r0f[01]: unknown pooling 'median'.*log: "), fit_processes(2) as pool:
        list(run_fits(tiny_design, tmp_path, range(1), pool, extra=wrong))
    assert multiprocessing.active_children() == []
    assert not list(tmp_path.glob("*/done.json"))


def test_a_killed_process_is_one_error_with_its_mend():
    told = "was killed, most often for want of memory; run the same command again"
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    with pytest.raises(ValueError, match=told), fit_processes(2) as pool:
        pool.submit(_kill_itself).result()
    other.join(2)
    assert other.is_alive()  # what is not of the fits goes on
    other.kill()
    other.join()


def _kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_at_a_time_needs_no_process():
    with fit_processes(1) as pool:
        assert pool is None


def test_fits_that_are_done_come_first_and_need_no_process(tiny_design, fits_copy):
    (fits_copy / "r0f0" / "done.json").unlink()
    asked_for = []

    class Pool:
        def submit(self, function, design, folder, repeat, fold):
            asked_for.append((function, folder.name))
            future = Future()
            future.set_result(7.0)
            return future

    assert list(run_fits(tiny_design, fits_copy, range(1), Pool())) == [(0, 1, None), (0, 0, 7.0)]
    assert asked_for == [(run_fit, "r0f0")]


def test_small_heads_are_fitted_at_the_same_time_and_encoders_are_not(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (processes_for("frozen"), processes_for("end-to-end")) == (MOST_PROCESSES, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert processes_for("frozen") == 1


@pytest.mark.parametrize(("mode", "threads"), [("frozen", 1), ("end-to-end", 3)])
def test_a_small_head_has_one_thread_until_its_fits_are_done(mode, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads_for(mode):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
