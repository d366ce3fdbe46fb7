#!/usr/bin/env python
"""Writes docs/errors.md: runs every row of the table of bad inputs in tests/bad_inputs, and notes what the command says.

.venv/bin/python scripts/errors_page.py    # half a minute; a test compares the page with the table
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "errors.md"
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "makers")]

HEAD = """# What the commands refuse, and what they say

Written by `scripts/errors_page.py`, which runs every row of the table in `tests/bad_inputs`. A test runs them again: each ends
with its exit code and one message with the words that matter, without a traceback, and leaves nothing half-written. `…` stands
for a folder.
"""


def cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", "<br>").replace("$", "\\$").replace("<!", "&lt;!")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell(text) for text in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _run(*words: object) -> str:
    """What a command says on stderr, from its error on."""
    from monai_chd.cli import main

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main([str(word) for word in words])
    text = said.getvalue()
    return text[text.find("error: ") + len("error: ") :].strip()


def _sections(folder: Path) -> Iterator[str]:
    from tests.bad_inputs.table import KINDS, SCANS, Kitchen

    _run("phantom", folder / "c", "--patients", "24", "--size", "32", "--slices", "8", "12")
    _run("prepare", folder / "c", "--out", folder / "w", "--folds", "2", "--test-fraction", "0.25")
    _run("train", folder / "w" / "datalist.json", "--out", folder / "t", "--max_epochs", "2", "--frame_size", "24",
         "--sequence_length", "10")  # fmt: skip

    def kitchen(name: str) -> Kitchen:
        (folder / name).mkdir()
        return Kitchen(folder / name, folder / "w" / "datalist.json", folder / "t")

    def bare(text: str, name: str) -> str:
        text = re.sub(r"(patient|series)-[0-9a-f]{12}", r"\1-…", text)  # made names, anew with each key
        return text.replace(str(folder / name), "…").replace(str(folder), "…").replace(str(ROOT), "…")

    own = kitchen("scans")
    for scan in SCANS:
        scan.write(own.scans() / scan.name)
    out = own.model()
    _run("predict", own.folder / "scans", "--out", out)
    with (out / "inference" / "predictions.csv").open(newline="") as file:
        reasons = {row["image"]: bare(row["reason"], "scans") for row in csv.DictReader(file)}
    yield "## Scans\n\n`prepare` names all of them at once; `predict` predicts the others and says why (exit code 1 of both).\n"
    yield _table(("what is wrong", "what is said"), [(scan.wrong, reasons[scan.name]) for scan in SCANS])
    said = []
    for number, kind in enumerate(KINDS):
        own = kitchen(str(number))
        said.append(bare(_run(kind.command, *kind.words(own)), str(number)))
    for command in dict.fromkeys(kind.command for kind in KINDS):
        rows = [(k.wrong, str(k.code), text) for k, text in zip(KINDS, said, strict=True) if k.command == command]
        yield f"## `monai-chd {command}`\n"
        yield _table(("what is wrong", "exit code", "what is said"), rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        PAGE.write_text("\n".join([HEAD, *_sections(Path(scratch).resolve())]), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
