"""Processes end with the one that started them, also when that is killed; one that nobody started is left alone."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from monai_chd.crossval.fit_processes import fit_processes
from monai_chd.processes import end_with_parent, mapped

SPAWN = multiprocessing.get_context("spawn")


@pytest.mark.parametrize("kind", ["fits", "audit", "nothing"])
def test_processes_end_with_the_one_that_started_them(tmp_path, kind):
    first = SPAWN.Process(target=_start_two, args=(kind, tmp_path))
    first.start()
    until(lambda: len(list(tmp_path.iterdir())) == 2, 120)
    running = [int(path.name) for path in tmp_path.iterdir()]
    assert len(running) == 2
    first.kill()
    first.join()
    try:
        if kind == "nothing":  # or the other two would show nothing
            time.sleep(2)
            assert all(map(is_running, running))
        else:
            until(lambda: not any(map(is_running, running)), 20)
            assert not any(map(is_running, running))
    finally:
        for process in filter(is_running, running):
            os.kill(process, 9)


def test_a_process_that_nobody_started_waits_for_nobody():
    before = threading.active_count()
    end_with_parent()
    assert threading.active_count() == before


def until(happened, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # one that has ended stays in the table until whoever took it over asks for it
    stat = Path(f"/proc/{process}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def _start_two(kind: str, folder: Path) -> None:
    if kind == "fits":
        with fit_processes(2) as pool:
            list(pool.map(_note_and_wait, [folder, folder]))
    elif kind == "audit":
        list(mapped(_note_and_wait, [folder, folder], 2, ""))
    else:
        others = [SPAWN.Process(target=_note_and_wait, args=(folder,)) for _ in range(2)]
        for other in others:
            other.start()
        time.sleep(600)


def _note_and_wait(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(600)
