"""The report of a run: what it was measured on, every row in words, and the tables.

How figures and targets come about is the part of `comparison`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import embedding, prediction
from benchmarks.comparison import LARGER_IS_BETTER, MB
from benchmarks.volumes import TINY, Scale

PACKAGES = ("torch", "monai", "numpy", "nibabel", "isal", "pillow", "torchio", "simpleitk", "openvino", "onnx")

NOTES = {"prediction": prediction.notes, "embedding": embedding.notes}
"""What a measure says of its sides' notes, by bench; a note in words is told as it is."""

HOW = """Each side runs in a process of its own. It first goes through a volume of {tiny} voxels, so that all is imported;
the memory it then has is "the interpreter". One call after that is not timed: it fills the page cache and what the side
keeps. (A training step is warmed with two frames, and for the head only the embeddings are made.) Then the sides take turns,
A B A B, one call each a round; only the call itself is timed. A ratio is that of the two calls of one round; the table has
the median of the rounds ({repeats}; memory by patients: 1) and, in brackets, the smallest and the largest. CPU
seconds are user and system, of the process and its workers. Peak memory is the process's highest resident size; a row's
memory is what that is above the interpreter, once a process. Threads wait without spinning (OMP_WAIT_POLICY=passive)."""


def begun(scale: Scale, repeats: int, *, quick: bool) -> dict[str, Any]:
    """The report of a run of which nothing is measured yet: `benches` and `equality` are empty."""
    return {
        "quick": quick,
        "repeats": repeats,
        "slices": scale.slices,
        "length": scale.length,
        "machine": machine(),
        "benches": [],
        "equality": [],
    }


def machine() -> dict[str, Any]:
    """What the figures depend on; nothing that names the machine or its folders."""
    model = re.search(r"model name\s*:\s*(.+)", _text("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", _text("/proc/meminfo"))
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "processor": model[1].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 2**20) if memory else None,
        "threads": os.environ.get("OMP_NUM_THREADS", "all cores"),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def save(report: Mapping[str, Any], out: Path) -> None:
    """Both files, whole, whatever was there before."""
    replace_file(out / "bench.json", json.dumps(report, indent=1) + "\n")
    replace_file(out / "bench.md", markdown(report))


def replace_file(path: Path, text: str) -> None:
    """Under a passing name, then renamed: a reader finds all of it or what was there before."""
    passing = path.with_name(f".{os.getpid()}-{path.name}")
    passing.write_text(text, encoding="utf-8")
    os.replace(passing, path)


def markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    rows = [row for bench in report["benches"] for row in bench["rows"]]
    lines = [*_head(report), *_rows_table(rows), *_equality_table(report["equality"])]
    for bench in report["benches"]:
        lines += ["", f"## {bench['name']}: {bench['title']}", "", *_sides_table(bench["sides"]), *_notes(bench)]
    return "\n".join(lines) + "\n"


def _head(report: Mapping[str, Any]) -> list[str]:
    lines = ["# Benchmark", ""]
    if report["quick"]:
        lines += [
            f"**A smoke test** on volumes of 512x512x{report['slices']} and sequences of {report['length']}: it finds what "
            "became much slower (a ratio below half of its target), and is no measurement.",
            "",
        ]
    about = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return [
        *lines,
        f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, threads: {about['threads']}, load before: "
        f"{about['load_before']}; {about['system']}, Python {about['python']}; {versions}.",
        "",
        HOW.format(tiny="{0}x{0}x{1}".format(*TINY), repeats=report["repeats"]),
        "",
    ]


def _rows_table(rows: list[Mapping[str, Any]]) -> list[str]:
    lines = ["| measure | median [range] | target | holds |", "|---|---|---|---|"]
    holds = {True: "yes", False: "**no**", None: ""}
    lines += [f"| {row['what']} | {shown(row)} | {target(row)} | {holds[row['holds']]} |" for row in rows]
    lost = [f"- {told(row)}" for row in rows if row["holds"] is False]
    lines += ["", "## What lost", "", *(lost or ["Nothing that was measured and has a target."])]
    absent = [f"- {row['what']}: {row['missing']}" for row in rows if "missing" in row]
    return [*lines, "", "## Not measured", "", *absent] if absent else lines


def _equality_table(equality: list[Mapping[str, Any]]) -> list[str]:
    return [
        *("", "## The same numbers", "", "| scan | size | ours against | largest difference |", "|---|---|---|---|"),
        *(
            f"| {found['scan']} | {found['size']} | {found['ours against']} | {found['largest']:.3g} {found['unit']} |"
            for found in equality
        ),
    ]


def _sides_table(sides: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| side | wall s, median [range] | CPU s | peak MB | over the interpreter |"
    yield "|---|---|---|---|---|"
    for name, side in sides.items():
        if "missing" in side:
            yield f"| {name} | not measured: {side['missing']} | | | |"
            continue
        wall = f"{statistics.median(side['wall']):.3f} [{min(side['wall']):.3f}, {max(side['wall']):.3f}]"
        cpu = f"{statistics.median(side['cpu']):.3f}"
        yield f"| {name} | {wall} | {cpu} | {side['peak'] / MB:.0f} | {side['over_interpreter'] / MB:.0f} |"


def _notes(bench: Mapping[str, Any]) -> list[str]:
    """What a bench says besides its figures."""
    sides = {name: side for name, side in bench["sides"].items() if side.get("note")}
    lines = [f"{name}: {side['note']}." for name, side in sides.items() if isinstance(side["note"], str)]
    if bench["name"] in NOTES:
        lines += NOTES[bench["name"]](sides)
    return ["", *lines] if lines else []


def told(row: Mapping[str, Any]) -> str:
    """A row in one line: what, the figure, its target."""
    return f"{row['what']}: {shown(row)}, target {target(row)}"


def shown(row: Mapping[str, Any]) -> str:
    """The figure with its range."""
    if "missing" in row:
        return "not measured"
    median = f"{row['median']:.2f}{row['unit']}"
    return median if len(row["figures"]) == 1 else f"{median} [{row['low']:.2f}, {row['high']:.2f}]"


def target(row: Mapping[str, Any]) -> str:
    """The target with its direction."""
    if row["target"] is None:
        return "reported"
    return f"{'≥' if LARGER_IS_BETTER[row['figure']] else '≤'} {row['target']:g}{row['unit']}"
