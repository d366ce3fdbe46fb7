"""What each part of the presets is worth: cross-validations on the same folds, held against one of them, as one table.

Variants that differ in the head alone share their structure networks, which are what takes long.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_chd.cli import main as command
from monai_chd.crossval.report_json import REPORT_FILE
from monai_chd.files import write_text
from monai_chd.metrics.wording import format_estimate
from monai_chd.workflow.settings import STRUCTURES_FOLDER

BASE = "fast"
WHOLE, BOX = "whole frames", "heart's box"

VARIANTS: Mapping[str, tuple[str, str, Sequence[str]]] = {
    BASE: ("structures of whole frames, one LSTM (`--preset fast`)", WHOLE, ["--preset", "fast"]),
    "scratch": ("small CNN-LSTM from scratch", "", ["--preset", "reference", "--frame_size", "96"]),
    "lite0": ("EfficientNet-Lite0, frozen", "", []),
    "attention": ("`fast`, attention in place of the mean", WHOLE, ["--preset", "fast", "--pooling", "attention"]),
    "summary": ("`fast` and the summary head", WHOLE, ["--preset", "fast", "--summary", "true"]),
    "heads": ("`fast`, three LSTMs", WHOLE, ["--preset", "fast", "--heads", "3"]),
    "both": (
        "`fast`, three LSTMs and the summary head",
        WHOLE,
        ["--preset", "fast", "--heads", "3", "--summary", "true"],
    ),
    "best": ("the same in the heart's box (`--preset best`)", BOX, ["--preset", "best"]),
    "box": ("the heart's box, one LSTM", BOX, ["--preset", "best", "--heads", "1", "--summary", "false"]),
}
"""By name: in words, whose structure networks it shares ("" for none), options of `monai-chd crossval`."""

COLUMNS = ("what", "accuracy", "macro-F1", "against `fast`", "minutes, structures and fits")


def run(datalist: Path, out: Path, names: Sequence[str]) -> int:
    """Cross-validate each variant, and write the table after each.

    Returns:
        Exit code of the first that failed, else 0.
    """
    for name in [BASE, *(name for name in names if name != BASE)]:
        _, shared, options = VARIANTS[name]
        if shared:
            _share(out, name, shared)
        against = [] if name == BASE else ["--against", str(out / BASE)]
        words = ["crossval", str(datalist), "--out", str(out / name), "--quick", *options, *against]
        if name != BASE:
            words.append("--no-controls")
        print(f"\n$ monai-chd {' '.join(words)}", flush=True)
        if code := command(words):
            return code
        write_table(out)
    return 0


def _share(out: Path, name: str, shared: str) -> None:
    """Let a variant use the structure networks of those that read the same frames."""
    own, common = out / name / STRUCTURES_FOLDER, out / shared.replace(" ", "_").replace("'", "") / STRUCTURES_FOLDER
    common.mkdir(parents=True, exist_ok=True)
    own.parent.mkdir(parents=True, exist_ok=True)
    if not own.exists():
        own.symlink_to(Path("..", common.parent.name, STRUCTURES_FOLDER))


def rows(out: Path) -> list[tuple[str, ...]]:
    """The table's rows, of the variants that are finished."""
    found = []
    for name, (what, _, _) in VARIANTS.items():
        path = out / name / REPORT_FILE
        if not path.is_file():
            continue
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        overall, against = report["results"]["all"]["overall"], report["against"]
        seconds = report["provenance"]["seconds"]
        difference = format_estimate(against["differences"]["accuracy"], "points") if against else ""
        minutes = f"{seconds.get('structures', 0) / 60:.0f} and {seconds['fits'] / 60:.0f}"
        found.append((what, *(format_estimate(overall[key]) for key in ("accuracy", "macro_f1")), difference, minutes))
    return found


def write_table(out: Path) -> Path:
    """Write `ablation.md`."""
    table = [COLUMNS, tuple("---" for _ in COLUMNS), *rows(out)]
    text = "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n"
    write_text(out / "ablation.md", text)
    print(f"{text}\ntable: {out / 'ablation.md'}", flush=True)
    return out / "ablation.md"


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="scripts/ablation", description=__doc__)
    parser.add_argument("datalist", type=Path, metavar="WORK/datalist.json")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(VARIANTS)}; all unless told otherwise")
    asked = parser.parse_args(words)
    if unknown := [name for name in asked.names if name not in VARIANTS]:
        parser.error(f"no variant {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    return run(asked.datalist, asked.out, asked.names or list(VARIANTS))


if __name__ == "__main__":
    sys.exit(main())
