"""The command: everything that can be measured, what a run fails for, and a small run from end to end."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bench import made_report

from benchmarks import command, report
from benchmarks.volumes import FULL, PATIENTS, QUICK, REAL_SCAN, ROOT, Volumes


def test_the_targets_are_those_that_were_asked_for():
    benches = command.all_benches(Volumes(Path(), FULL))
    rows = [row for bench in benches for row in bench.rows if row.target is not None]
    asked = {
        "time": [9, 12, 6, 9] * 2 + [4, 40, 8, 40] + [1.0] * 3 + [1.0, 1.0] + [1.7] + [3.3, 4.5],
        "times": [1.3, 1.3],
        "memory": [5, 6, 8, 8],
        "flat": [1.2],
        "flat process": [1.1, 1.1],
        "peak": [150],
        "seconds": [60],
    }
    assert {kind: sorted(row.target for row in rows if row.figure == kind) for kind in asked} == {
        kind: sorted(targets) for kind, targets in asked.items()
    }
    assert {row.figure for row in rows} == set(asked)


@pytest.mark.parametrize("scale", [FULL, QUICK, FULL._replace(embedded=PATIENTS)], ids=["long", "quick", "full"])
def test_every_row_compares_sides_that_its_bench_measures_and_every_file_is_made(scale, tmp_path):
    made = Volumes(tmp_path, scale)
    for bench in command.all_benches(made):
        files = {*made.several, made.tiny, str(REAL_SCAN), *made.small(bench.small)}
        files |= {made.phantom(*phantom) for phantom in bench.phantoms}
        files |= set(made.copies) if scale.embedded > 1 else set()
        for part in (bench, bench.in_brief()):
            assert part.rows
            assert all(set(row.sides) <= set(part.sides) for row in part.rows)
        for _, given in bench.sides.values():
            assert {given[key] for key in ("path", "tiny") if key in given} | set(given.get("paths", ())) <= files


def test_every_side_takes_what_its_process_is_given():
    for bench in command.all_benches(Volumes(Path(), FULL)):
        for measure, given in bench.sides.values():
            side = importlib.import_module(f"benchmarks.{measure}").side
            assert not {"args", "kwargs"} & set(inspect.signature(side).bind(**given).arguments)
            assert json.loads(json.dumps(given)) == given


def test_a_quick_run_has_reading_memory_and_cache_rows():
    brief = [bench.in_brief() for bench in command.all_benches(Volumes(Path(), QUICK)) if bench.quick]
    figures = {row.figure for bench in brief for row in bench.rows if row.target is not None}
    assert {bench.name for bench in brief} == {"reading_512", "reading_224", "cache_512", "cache_224", "slices"}
    assert figures >= {"time", "times", "memory", "flat", "peak"}


def test_every_measure_is_in_the_list_and_every_module_has_its_tests():
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if not path.stem.startswith("__")}
    measures = {name for name in modules if hasattr(importlib.import_module(f"benchmarks.{name}"), "benches")}
    assert {f"benchmarks.{name}" for name in measures} == {measure.__name__ for measure in command.MEASURES}
    assert {path.stem for path in Path(__file__).parent.glob("test_*.py")} == {f"test_{name}" for name in modules}


def test_the_process_that_starts_the_others_holds_the_standard_library_only():
    code = "import sys; before = set(sys.modules); import benchmarks.command; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    roots = {name.partition(".")[0] for name in loaded.stdout.split()}
    assert roots <= {*sys.stdlib_module_names, "benchmarks"} and "benchmarks" in roots


def test_ours_that_gives_other_numbers_fails_the_run(capsys):
    content = made_report()
    assert command.exit_code(content) == 0
    content["equality"].append(
        {"scan": "phantom", "size": 512, "ours against": "the single transforms, uint8", "largest": 1.0, "unit": "x"}
    )
    assert command.exit_code(content) == 1
    assert "512: not what the single transforms" in capsys.readouterr().err


def test_a_ratio_below_half_of_its_target_fails_a_quick_run(capsys):
    content = made_report(quick=True)
    content["benches"][0]["rows"][1]["fails"] = True
    assert command.exit_code(content) == 1
    assert "lost: 4.00x" in capsys.readouterr().err


def test_no_rounds_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.arguments(["--repeats", "0"])
    assert "--repeats: expected 1 or more, got 0" in capsys.readouterr().err


@pytest.mark.parametrize(("peaks", "again", "fails"), [([10**10, 10**6], 1, False), ([10**10] * 4, 2, True)])
def test_a_bench_with_a_row_that_fails_is_measured_again_twice_at_most(monkeypatch, capsys, peaks, again, fails):
    asked = command.arguments(["--quick", "--only", "slices"])
    [bench] = [bench for bench in command.all_benches(Volumes(Path(), QUICK)) if bench.name == "slices"]
    left = iter(peaks)

    def run_bench(*_):
        peak = next(left)
        return {name: {"over_interpreter": peak} for name in bench.sides}

    monkeypatch.setattr(command, "run_bench", run_bench)
    told = []
    found = command._measured(bench, asked, told.append)
    assert any(row["fails"] for row in found["rows"]) == fails
    assert len(told) == again and all("measured again" in text for text in told)


SMALL_RUN = """
import sys, types
from benchmarks import command
from benchmarks.comparison import Bench, Row
from benchmarks.volumes import Scale
def benches(made):
    given = {"path": made.several[0], "tiny": made.tiny, "size": 512, "length": made.scale.length}
    ours, other = "ours, uint8", "inflater alone"
    rows = (Row("pair", "time", ours, other), Row("largest", "peak", (ours,)))
    return [Bench("two", "two ways", {how: ("reading", {"how": how, **given}) for how in (ours, other)}, rows)]
command.QUICK = Scale(96, 96, (5, 8, 12), 1, pixels=64)
command.MEASURES = (types.SimpleNamespace(benches=benches),)
sys.exit(command.main(["--quick", "--only", "two", "--repeats", "2", "--out", "out"]))
"""


@pytest.mark.slow
def test_a_small_run_measures_in_processes_and_writes_its_reports(tmp_path):
    # through a shell that forks: a process starts with the peak memory of the one that started it, here with PyTorch in it
    command_line = ["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, SMALL_RUN]
    done = subprocess.run(
        command_line, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out" / "bench.json").read_text())
    [found] = content["benches"]
    assert [(row["what"], len(row["figures"])) for row in found["rows"]] == [("pair", 2), ("largest", 1)]
    assert all(len(each["wall"]) == 2 and each["peak"] > 0 for each in found["sides"].values())
    frames = 96 * 512 * 512
    assert 0.9 * frames < found["sides"]["ours, uint8"]["over_interpreter"] < 4 * frames
    assert len(content["equality"]) >= 7
    assert (tmp_path / "out" / "bench.md").read_text() == report.markdown(content)
    assert "smoke test" in (tmp_path / "out" / "bench.md").read_text()
    assert "s  two: two ways" in done.stdout and "results: out/bench.md" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bench.json", "bench.md", "volumes"]
