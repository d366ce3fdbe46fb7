"""Sides are measured in turn, each in a process of its own that is ended whatever happens."""

from __future__ import annotations

import pytest

from benchmarks import processes
from benchmarks.comparison import Bench


@pytest.fixture
def order(monkeypatch):
    """What was done in which order, by processes that only say so."""
    order = []

    class Fake:
        missing = None

        def __init__(self, measure, given, work):
            assert work.is_dir()
            self.name = given["name"]
            order.append(f"{self.name} started")

        def wait_until_ready(self):
            order.append(f"{self.name} ready")

        def measure(self):
            order.append(self.name)

        def summary(self):
            return {"note": self.name}

        def close(self):
            order.append(f"{self.name} closed")

    monkeypatch.setattr(processes, "Process", Fake)
    return order


TWO = Bench("x", "x", {name: ("reading", {"name": name}) for name in "AB"}, ())


def test_sides_take_turns(order, tmp_path):
    found = processes.run_bench(TWO, 2, tmp_path)
    assert found == {"A": {"note": "A"}, "B": {"note": "B"}}
    assert order == ["A started", "B started", "A ready", "B ready", "A", "B", "A", "B", "A closed", "B closed"]
    assert list(tmp_path.iterdir()) == []  # what they wrote is gone


def test_sides_that_take_much_memory_run_one_after_the_other_and_memory_is_measured_once(order, tmp_path):
    processes.run_bench(TWO._replace(alone=True, rounds=1), 5, tmp_path)
    assert order == ["A started", "A ready", "A", "A closed", "B started", "B ready", "B", "B closed"]


def test_a_process_that_does_one_thing_gives_its_note(order, tmp_path):
    assert processes.run_once("agreement", {"name": "A"}, tmp_path) == "A"
    assert order == ["A started", "A ready", "A", "A closed"]


def test_a_side_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it is found from everywhere
    process = processes.Process("reading", {"how": "ours, uint8"}, tmp_path)
    try:
        with pytest.raises(RuntimeError, match="missing 4 required positional arguments"):
            process.wait_until_ready()
    finally:
        process.close()
