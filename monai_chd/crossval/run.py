"""The cross-validation command: folds, fits, pooled predictions, controls and report, each taken up where a stop left it.

Owns the order of things, what is said meanwhile, and the settings of the frozen-encoder mode.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from monai_chd.crossval.content import build_report, sentence_of, write_report_json
from monai_chd.crossval.controls import (
    FITTED,
    SHUFFLED_FRAMES,
    Control,
    fitted_control,
    shuffled_labels,
    simple_controls,
)
from monai_chd.crossval.design import Design, check_comparable, new_design, save_or_check
from monai_chd.crossval.fits import (
    DONE,
    fit_folder,
    fit_processes,
    fits_at_once,
    pooled,
    read_pooled,
    timed_fit,
    write_pooled,
)
from monai_chd.crossval.worst_cases import flags_of, worst_cases
from monai_chd.metrics.comparison import compare_paired
from monai_chd.metrics.evaluation import evaluate_out_of_fold
from monai_chd.metrics.wording import format_estimate
from monai_chd.networks.cnn_lstm import has_bfloat16
from monai_chd.report.checklists import fill_checklists
from monai_chd.report.model_card import write_model_card
from monai_chd.report.page import write_report
from monai_chd.wording import text_table
from monai_chd.workflow.run import configured

FROZEN = "efficientnet_lite0"
"""The encoder that is frozen by default."""

FROZEN_SETTINGS: Mapping[str, Any] = {
    "encoder": FROZEN,
    "frame_size": 224,
    "cache": "features",
    "projection": 128,
    "hidden_size": 64,
    "bidirectional": True,
    "pooling": "max",
    "batch_size": 8,
    "learning_rate": 1e-3,
    "max_epochs": 25,
    "early_stop_patience": 10,
}
"""Config keys of the frozen-encoder mode; what is given goes before."""


def settings_of(given: Mapping[str, Any], out: Path) -> tuple[str, dict[str, Any]]:
    """The mode and the config keys of the fits.

    Args:
        given: config keys of the command line. Without `encoder`, or with the one that is frozen, the encoder's features are
            worked out once and only the head is trained ("frozen"); any other encoder is trained ("end-to-end"), unless `cache`
            says "features".
        out: folder of the cross-validation; the kept features go to its `cache` unless told otherwise.
    """
    if given.get("encoder", FROZEN) != FROZEN:
        # features are kept of a frozen encoder only, whichever it is
        mode = "frozen" if given.get("cache") == "features" else "end-to-end"
        return mode, {"cache_dir": str(out / "cache"), **given}
    # features in bfloat16 take half the time where the processor multiplies in it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = {"encoder_precision": "bfloat16"} if has_bfloat16(device) else {}
    return "frozen", {"cache_dir": str(out / "cache"), **FROZEN_SETTINGS, **precision, **given}


MOST_PROCESSES = 8
"""Fits at the same time at most; each takes 0.6 GB."""


class Progress:
    """Prints what is done and how long the rest will take.

    Args:
        steps: fits in all.
        at_once: how many of them run at the same time.
    """

    def __init__(self, steps: int, at_once: int = 1) -> None:
        self.steps = steps
        self.at_once = at_once
        self.at = 0
        self.seconds: list[float] = []
        self.spent: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Print a line now."""
        print(text, flush=True)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add up the seconds of a step of the work."""
        started = time.perf_counter()
        yield
        self.spent[step] = round(self.spent.get(step, 0) + time.perf_counter() - started, 1)

    def fit(self, name: str, seconds: float | None) -> None:
        """One fit is done; None seconds when it was done before."""
        self.at += 1
        if seconds is None:
            return self.say(f"fit {self.at} of {self.steps} ({name}): done before")
        self.seconds.append(seconds)
        left = sum(self.seconds) / len(self.seconds) * (self.steps - self.at) / self.at_once
        self.say(f"fit {self.at} of {self.steps} ({name}): {seconds:.0f} s, {_length(left)} left for the others")


def _length(seconds: float) -> str:
    if seconds < 90:
        return "about a minute" if seconds >= 60 else "less than a minute" if seconds else "nothing"
    return f"about {seconds / 3600:.1f} hours" if seconds >= 3600 else f"about {seconds / 60:.0f} minutes"


def crossval(
    datalist: str | Path,
    out: str | Path,
    *,
    folds: int = 5,
    repeats: int = 5,
    seed: int = 42,
    settings: Mapping[str, Any] | None = None,
    against: str | Path | None = None,
    controls: bool = True,
    command: str = "",
) -> dict[str, Any]:
    """Cross-validate the bundle's training on all patients of a datalist, and write predictions and report.

    Args:
        datalist: file made by `prepare`.
        out: output folder; one that a run with the same arguments left unfinished is gone on with.
        folds: outer folds of a repeat.
        repeats: how often they are drawn.
        seed: of the first draw.
        settings: config keys of the fits.
        against: another cross-validation on the same folds, to compare with.
        controls: also run the controls.
        command: as typed, for the report.

    Returns:
        The report.

    Raises:
        UserFileError: no datalist, scans, or other cross-validation.
        UserError: too few patients, another cross-validation in `out`, changed files, a fit that failed, or predictions
            that cannot be compared.
    """
    folder = Path(out).resolve()
    mode, chosen = settings_of(settings or {}, folder)
    design = new_design(datalist, folds=folds, repeats=repeats, seed=seed, settings=chosen)
    if against is not None:
        check_comparable(design, against)
        read_pooled(against)  # before hours of fits: one of its folds may never have finished
    save_or_check(design, folder)
    steps = folds * repeats + (len(FITTED) * folds if controls else 0)
    progress = Progress(steps, min(processes_for(mode), steps))
    times = f"{folds} folds x {repeats} repeat{'s' if repeats > 1 else ''}"
    progress.say(
        f"{len(design.labels)} patients, {times} = {folds * repeats} fits, {mode}; the datalist's held-out part is not special "
        f"here: its patients take part like all others\nfolds: {folder / 'folds.json'}"
    )
    if chosen.get("cache") == "features":
        with progress.timed("features"):
            _fill(design, progress)
    with _threads(mode), fit_processes(progress.at_once) as pool:
        _fit_all(design, folder / "fits", range(repeats), progress, pool)
        table = pooled(design, folder / "fits", range(repeats))
        write_pooled(table, folder / "predictions.csv")
        progress.say(f"out-of-fold predictions: {folder / 'predictions.csv'}")
        found = _controls(design, folder / "controls", table, progress, pool) if controls else []
    progress.say("figures with intervals")
    with progress.timed("evaluation"):
        evaluated = evaluate_out_of_fold(table, flags_of(design.records))
        other = None if against is None else _against(table, Path(against))
    with progress.timed("worst cases"):
        worst = worst_cases(design, table, folder / "fits", folder, progress=progress.say)
    report = build_report(
        design,
        folder,
        results=evaluated,
        controls=found,
        against=other,
        worst=worst,
        facts={"mode": mode, "command": command, "seconds": progress.spent},
    )
    _write(report, folder)
    return report


def _fill(design: Design, progress: Progress) -> None:
    """Work out the features of all scans before the first fit, with all threads and a bar to be seen."""
    progress.say(f"features of the frozen encoder: {design.local['cache_dir']}")
    scans = [{**record, "image": str(Path(design.root, record["image"]))} for record in design.records]
    configured(["train"], {**design.local, **design.settings, "train#dataset#data": scans}, ["train#dataset"])


@contextmanager
def _threads(mode: str) -> Iterator[None]:
    """One thread for a small head: with two it crawls on a busy machine, and the order of sums would depend on them."""
    before = torch.get_num_threads()
    if mode == "frozen":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def processes_for(mode: str) -> int:
    """How many fits run at the same time: of a small head, which wants one thread, one for each core."""
    if mode != "frozen" or torch.cuda.is_available():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)


def _fit_all(
    design: Design,
    fits: Path,
    repeats: range,
    progress: Progress,
    pool: ProcessPoolExecutor | None,
    name: str = "",
    **options: Any,
) -> None:
    left = []
    for repeat, fold in ((repeat, fold) for repeat in repeats for fold in range(design.folds)):
        folder = fit_folder(fits, repeat, fold)
        if pool is None or (folder / DONE).is_file():
            progress.fit(name or _title(repeat, fold), timed_fit(design, folder, repeat, fold, **options))
        else:
            left.append((repeat, fold))
    if pool is not None:
        for (repeat, fold), seconds in fits_at_once(pool, design, fits, left, **options):
            progress.fit(name or _title(repeat, fold), seconds)


def _title(repeat: int, fold: int) -> str:
    return f"repeat {repeat + 1}, fold {fold + 1}"


def _controls(
    design: Design, folder: Path, table: pd.DataFrame, progress: Progress, pool: ProcessPoolExecutor | None
) -> list[Control]:
    """All controls; those that need fits are made on the first repeat."""
    found = []
    with progress.timed("controls"):
        for name in FITTED:
            labels = shuffled_labels(design) if name == "shuffled_labels" else None
            overrides = SHUFFLED_FRAMES if name == "frame_order" else None
            title = f"control: {name.replace('_', ' ')}"
            _fit_all(design, folder / name, range(1), progress, pool, title, labels=labels, overrides=overrides)
            found.append(fitted_control(name, table, pooled(design, folder / name, range(1), labels)))
        return found + simple_controls(design, table, folder, progress=progress.say)


def _against(table: pd.DataFrame, other: Path) -> dict[str, Any]:
    compared = compare_paired(table, read_pooled(other), names=("this model", "the other"))
    return {**compared, "other": str(other)}


def _write(report: dict[str, Any], folder: Path) -> None:
    """report.json, the page and the card."""

    report["checklists"] = fill_checklists(report)
    write_report_json(report, folder)
    write_report(report, folder)
    write_model_card(report, folder / "model_card.md")


def summary(report: Mapping[str, Any], out: str | Path) -> str:
    """What the command prints at the end: the figures with their intervals, what the controls say, and where all is."""
    found = report["results"]
    overall, baseline = found["all"]["overall"], found["baseline"]
    shown = ("accuracy", "balanced_accuracy", "macro_f1", "auc_macro")
    figures = [(name.replace("_", " "), format_estimate(overall[name])) for name in shown]
    figures.append((f"always {baseline['label']}", format_estimate(baseline["accuracy"])))
    lines = [sentence_of(report), "", text_table(figures), found["verdict"]["sentence"]]
    lines.append("n is patients; in brackets 95 % intervals; the report says how each was made")
    for control in report["controls"]:
        lines += ["", f"{control['title']}: {control['reading']}"]
    if report["against"]:
        lines += ["", *report["against"]["sentences"]]
    places = {"report": "report.html", "as data": "report.json", "model card": "model_card.md"}
    places |= {"out-of-fold predictions": "predictions.csv", "fits, with their models and logs": "fits"}
    lines += ["", *(f"{what}: {Path(out, name)}" for what, name in places.items())]
    return "\n".join(lines)
