"""The report says what was won, lost and not measured, in words and tables, and nothing of who ran it."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
from tiny_bench import made_report, measured

from benchmarks import report
from benchmarks.volumes import FULL, ROOT


def test_the_report_says_what_won_what_lost_and_what_was_not_measured():
    text = report.markdown(made_report())
    assert "| won | 4.00x [1.50, 5.00] | ≥ 4x | yes |" in text
    assert "| lost | 4.00x [1.50, 5.00] | ≥ 5x | **no** |" in text
    assert "| told | 4.00x [1.50, 5.00] | reported |  |" in text
    lost = text.split("## What lost")[1].split("##")[0]
    assert lost.strip().splitlines() == ["- lost: 4.00x [1.50, 5.00], target ≥ 5x"]
    assert "- absent: not installed" in text.split("## Not measured")[1]
    assert "| phantom | 224 | JPG | 0.25 of the window |" in text.split("## The same numbers")[1]
    assert "| ours | 1.000 [1.000, 2.000] | 1.000 | 400 | 100 |" in text.split("## b: t")[1]
    assert "smoke test" not in text
    assert "smoke test" in report.markdown(made_report(quick=True))


def test_the_report_names_neither_the_machine_nor_its_folders():
    text = json.dumps(report.machine()) + report.markdown(made_report())
    assert platform.node() not in text
    assert str(Path.home()) not in text
    assert str(ROOT) not in text


@pytest.mark.parametrize(
    ("bench", "sides", "told"),
    [
        ("head", {"five folds": "5 folds of 9 patients"}, "five folds: 5 folds of 9 patients."),
        ("prediction", {"torch": [0.25, 0.75], "torch, fp32": [0.5, 0.5]}, "torch against torch in fp32: 0.25."),
        ("embedding", {"one patient": "float32"}, "110 patients take 220 s"),
    ],
)
def test_what_a_side_notes_is_told(bench, sides, told):
    noted = {name: {**measured((2.0,)), "note": note} for name, note in sides.items()}
    content = {**report.begun(FULL, 5, quick=False)}
    content["benches"] = [{"name": bench, "title": "t", "sides": noted, "rows": []}]
    assert told in report.markdown(content)


def test_a_file_is_replaced_whole(tmp_path):
    (tmp_path / "bench.md").write_text("before")
    report.replace_file(tmp_path / "bench.md", "after")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("bench.md", "after")]


def test_both_files_have_the_whole_report(tmp_path):
    content = made_report()
    report.save(content, tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text()) == json.loads(json.dumps(content))
    assert (tmp_path / "bench.md").read_text() == report.markdown(content)
