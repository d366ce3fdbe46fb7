"""Every row of the table of bad inputs: one clear message, the right exit code, nothing half done."""

from __future__ import annotations

import csv
import importlib.util
import os
from pathlib import Path

import pytest
from tiny_cohort import write_cohort

from monai_chd.cli import main
from tests.bad_inputs.table import KINDS, SCANS, Kitchen

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 6
"""Lines of a message at most: one, or a list of what is wrong with a line before and one after it."""


@pytest.fixture
def kitchen(tmp_path, datalist, trained, monkeypatch) -> Kitchen:
    monkeypatch.delenv("MONAI_CHD_TRACEBACK", raising=False)
    return Kitchen(tmp_path, datalist, trained)


def run(*words: object) -> int:
    try:
        return main([str(word) for word in words])
    except SystemExit as stop:  # argparse
        return int(stop.code or 0)


def in_order(text: str, words: tuple[str, ...]) -> bool:
    place = 0
    for word in words:
        place = text.find(word, place)
        if place < 0:
            return False
    return True


def test_the_table_has_sixty_kinds_and_none_twice():
    names = [kind.wrong for kind in KINDS] + [scan.wrong for scan in SCANS]
    assert len(names) == len(set(names)) >= 60


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.command}: {kind.wrong}")
def test_every_kind_ends_in_one_message_that_says_what_where_and_how_to_mend(kind, kitchen, capsys):
    words = kind.words(kitchen)
    before = {path for path in kitchen.folder.rglob("*") if path.is_dir()}
    assert run(kind.command, *words) == kind.code
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    message = shown.err[shown.err.index("error: ") :].strip()
    assert in_order(message, kind.says), message
    assert len(message.splitlines()) <= LONGEST
    left = list(kitchen.folder.rglob("*"))
    assert [path for path in left if path.name.startswith(f".{os.getpid()}-")] == []
    assert [path for path in left if path.is_dir() and path not in before and not any(path.iterdir())] == []


def test_no_bad_scan_is_predicted_and_the_sound_one_is(kitchen, capsys):
    folder, out = kitchen.scans(), kitchen.model()
    for scan in SCANS:
        scan.write(folder / scan.name)
    assert run("predict", folder, "--out", out) == 1
    assert f"{len(SCANS) + 1} of {len(SCANS) + 2} files have no prediction" in capsys.readouterr().err  # t.nii, too
    with (out / "inference" / "predictions.csv").open(newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert rows["one.nii.gz"]["prediction"] and not rows["one.nii.gz"]["reason"]
    for scan in SCANS:
        row = rows[scan.name]
        assert not row["prediction"] and in_order(row["reason"], (scan.name, *scan.says)), row


def test_every_bad_scan_of_a_cohort_is_named_at_once(kitchen, capsys):
    folder = write_cohort(kitchen.folder / "cohort", 9)
    with (folder / "cases.csv").open("a") as file:
        file.writelines(f"{2000 + place},Normal\n" for place in range(len(SCANS)))
    for place, scan in enumerate(SCANS):
        scan.write(folder / f"ct_{2000 + place}_image{scan.name[1:]}")
    assert run("prepare", folder, "--out", kitchen.folder / "work") == 1
    message = capsys.readouterr().err
    for place, scan in enumerate(SCANS):
        lines = [line for line in message.splitlines() if f"ct_{2000 + place}_image" in line]
        assert any(in_order(line, scan.says[:1]) for line in lines), (scan, lines)
    assert not (kitchen.folder / "work").exists()


def test_the_page_of_errors_has_every_kind_with_what_is_said():
    spec = importlib.util.spec_from_file_location("errors_page", ROOT / "scripts" / "errors_page.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    lines = page.PAGE.read_text(encoding="utf-8").splitlines()
    for one in (*KINDS, *SCANS):
        (line,) = [line for line in lines if line.startswith(f"| {page.cell(one.wrong)} |")]
        assert in_order(line, tuple(map(page.cell, one.says))), f"{line}: run scripts/errors_page.py"
