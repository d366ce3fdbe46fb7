"""A process of the benchmark reports the time and the memory of its own calls, and says why it cannot."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.volumes import ROOT

MB = 10**6
CHILD = """
import sys, time, types
from benchmarks import child
seen = []
def side(size):
    def call():
        print("what a library prints")
        seen.append(1)
        bytes(bytearray([1]) * size)
        time.sleep(0.2)
        return str(len(seen))
    if size < 0:
        raise child.MissingError("no room")
    return child.Side(lambda: print("warm"), call, call)
sys.modules["benchmarks.made"] = types.ModuleType("benchmarks.made")
sys.modules["benchmarks.made"].side = side
child.serve("made", {{"size": {size}}})
"""


def answers(size):
    """Lines of JSON of a child that is asked for two calls."""
    # through a shell that forks: a process starts with the peak memory of the one that started it, here with PyTorch in it
    command = ["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, CHILD.format(size=size)]
    done = subprocess.run(command, input="go\ngo\n", capture_output=True, text=True, check=True, cwd=ROOT)
    return list(map(json.loads, done.stdout.splitlines()))


@pytest.mark.parametrize("size", [1, 200 * MB])
def test_a_child_reports_the_wall_time_and_the_peak_memory_of_its_own_calls(size):
    ready, *calls = answers(size)
    assert [call["note"] for call in calls] == ["2", "3"]  # the first was not timed
    for call in calls:
        assert 0.2 <= call["wall"] < 5
        assert 0 <= call["cpu"] < call["wall"] + 1
    over = calls[-1]["peak"] - ready["interpreter"]
    assert size <= over + 20 * MB
    assert over < 2 * size + 40 * MB


def test_a_side_that_cannot_be_measured_says_why():
    assert answers(-1) == [{"missing": "no room"}]
