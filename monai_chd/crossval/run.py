"""The cross-validation command: fits, out-of-fold predictions, controls and report, each taken up where a stop left it.

Owns the order of things and what is said meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from monai_chd.crossval.controls import FITTED, ControlResult, control_result, simple_controls
from monai_chd.crossval.design import FOLDS_FILE, Design, check_comparable, save_or_check
from monai_chd.crossval.fit_processes import fit_processes, processes_for, run_fits, threads_for
from monai_chd.crossval.fits import FITS_FOLDER
from monai_chd.crossval.flag_results import flag_results
from monai_chd.crossval.folds import INNER_SHARE
from monai_chd.crossval.out_of_fold_table import (
    TABLE_FILE,
    out_of_fold_table,
    read_out_of_fold_table,
    write_out_of_fold_table,
)
from monai_chd.crossval.report_json import REPORT_FILE, audit_of, build_report, write_report_json
from monai_chd.crossval.structure_results import structure_results
from monai_chd.crossval.structures import needs_structures, train_structures
from monai_chd.crossval.worst_cases import worst_cases
from monai_chd.files import locked
from monai_chd.metrics.comparison import compare_paired
from monai_chd.metrics.evaluation import evaluate_out_of_fold
from monai_chd.metrics.wording import MAIN_FIGURES, format_estimate
from monai_chd.report.checklists import fill_checklists
from monai_chd.report.model_card import write_model_card
from monai_chd.report.page import write_report
from monai_chd.wording import synthetic_note, text_table
from monai_chd.workflow.run import Expression, configured, literal
from monai_chd.workflow.settings import STRUCTURES_FOLDER

logger = logging.getLogger(__name__)

CARD_FILE = "model_card.md"


class Progress:
    """Says which fits are done and how long the rest will take.

    Args:
        steps: fits in all.
        at_once: how many of them run at the same time.
    """

    def __init__(self, steps: int, at_once: int = 1) -> None:
        self.steps = steps
        self.at_once = at_once
        self._done = 0
        self._seconds: list[float] = []

    def fit_done(self, name: str, seconds: float | None) -> None:
        """One fit is done; None seconds when it was done before."""
        self._done += 1
        if seconds is None:
            logger.info(f"fit {self._done} of {self.steps} ({name}): done before")
            return
        self._seconds.append(seconds)
        left = sum(self._seconds) / len(self._seconds) * (self.steps - self._done) / self.at_once
        logger.info(
            f"fit {self._done} of {self.steps} ({name}): {seconds:.0f} s, {_duration(left)} left for the others"
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return "about a minute" if seconds >= 60 else "less than a minute" if seconds else "nothing"
    return f"about {seconds / 3600:.1f} hours" if seconds >= 3600 else f"about {seconds / 60:.0f} minutes"


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Note the seconds of a step of the work."""
    started = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - started, 1)


def crossval(
    design: Design, out: str | Path, *, against: str | Path | None = None, controls: bool = True, command: str = ""
) -> dict[str, Any]:
    """Cross-validate the bundle's training on the patients of a design, and write predictions and report.

    Args:
        design: patients, folds and settings.
        out: output folder; one that a run of the same design left unfinished is gone on with.
        against: folder of another cross-validation on the same folds, to compare with.
        controls: also run the controls.
        command: as typed, for the report.

    Returns:
        The report.

    Raises:
        UserFileError: no other cross-validation.
        UserError: another cross-validation in `out`, changed files, a fit that failed, or predictions that cannot be compared.
    """
    folder = Path(out).resolve()
    other = None
    # what cannot be read is told before hours of fits
    if against is not None:
        check_comparable(design, against)
        other = read_out_of_fold_table(against)
    audit_of(design)
    with locked(folder, "cross-validation"):
        report = _crossval(design, folder, other, str(against), controls=controls, command=command)
    return report


def _crossval(
    design: Design, folder: Path, other: pd.DataFrame | None, where: str, *, controls: bool, command: str
) -> dict[str, Any]:
    """`crossval` in a folder of its own; `other` is the table to compare with, and `where` it is."""
    save_or_check(design, folder)
    logger.info(_beginning(design, folder))
    seconds: dict[str, float] = {}
    structures = folder / STRUCTURES_FOLDER if needs_structures(design) else None
    if structures:
        with _timed(seconds, "structures"):
            _train_structures(design, structures)
    elif design.settings.get("cache") == "features":
        with _timed(seconds, "features"):
            _fill_feature_cache(design)
    table, control_results = _fits_and_controls(design, folder, seconds, structures, controls=controls)
    logger.info("figures with intervals")
    with _timed(seconds, "evaluation"):
        evaluated = evaluate_out_of_fold(table, design.flags)
        compared = None if other is None else _compared(table, other, where)
    with _timed(seconds, "worst cases"):
        worst = worst_cases(design, table, folder / FITS_FOLDER, folder)
    report = build_report(
        design,
        folder,
        results=evaluated,
        controls=control_results,
        against=compared,
        worst=worst,
        structures=structure_results(design, folder, table) if structures else None,
        flags=flag_results(design, folder, table),
        command=command,
        seconds=seconds,
    )
    report["checklists"] = fill_checklists(report)
    write_report_json(report, folder)
    write_report(report, folder)
    write_model_card(report, folder / CARD_FILE)
    return report


def _beginning(design: Design, folder: Path) -> str:
    """What is said before the first fit."""
    folds, repeats = design.folds, design.repeats
    times = f"{folds} folds x {repeats} repeat{'s' if repeats > 1 else ''}"
    return (
        f"{len(design.labels)} patients, {times} = {folds * repeats} fits, {design.mode}; the datalist's held-out part is not "
        f"special here: its patients take part like all others\nfolds: {folder / FOLDS_FILE}"
    )


def _fill_feature_cache(design: Design) -> None:
    """Work out the features of all scans before the first fit, with all threads and a bar to be seen."""
    logger.info(f"features of the frozen encoder: {design.local['cache_dir']}")
    scans = [{**record, "image": str(design.image_path(record))} for record in design.records]
    parts = {"train#dataset#data": literal(scans), "network_with_structures": Expression("@network_def")}
    configured(["train"], {**design.overrides, **parts}, ["train#dataset"])


def _train_structures(design: Design, structures: Path) -> None:
    """Train a structure network for each outer fold, one after the other with all threads."""
    jobs = [(repeat, fold) for repeat in range(design.repeats) for fold in range(design.folds)]
    logger.info(f"structure networks, one for each fit's training patients: {structures}")
    progress = Progress(len(jobs))
    for repeat, fold in jobs:
        progress.fit_done(
            f"structures, repeat {repeat + 1}, fold {fold + 1}", train_structures(design, structures, repeat, fold)
        )


def _fits_and_controls(
    design: Design, folder: Path, seconds: dict[str, float], structures: Path | None, *, controls: bool
) -> tuple[pd.DataFrame, list[ControlResult]]:
    """Out-of-fold predictions of all fits, written, and the controls if they are asked for."""
    fits, repeats = folder / FITS_FOLDER, range(design.repeats)
    steps = design.folds * (design.repeats + (len(FITTED) if controls else 0))
    progress = Progress(steps, min(processes_for(design.mode), steps))
    with threads_for(design.mode), fit_processes(progress.at_once) as pool:
        for repeat, fold, spent in run_fits(design, fits, repeats, pool, structures=structures):
            progress.fit_done(f"repeat {repeat + 1}, fold {fold + 1}", spent)
        table = out_of_fold_table(design, fits, repeats)
        logger.info(f"out-of-fold predictions: {write_out_of_fold_table(table, folder)}")
        if not controls:
            return table, []
        with _timed(seconds, "controls"):
            return table, _controls(design, folder / "controls", table, progress, pool, structures)


def _controls(
    design: Design,
    folder: Path,
    table: pd.DataFrame,
    progress: Progress,
    pool: ProcessPoolExecutor | None,
    structures: Path | None,
) -> list[ControlResult]:
    """All controls; those that need fits are made on the first repeat, with its structure networks."""
    found = []
    for name, change_of in FITTED.items():
        change, first = change_of(design), range(1)
        for _, _, spent in run_fits(design, folder / name, first, pool, structures=structures, **change):
            progress.fit_done(f"control: {name.replace('_', ' ')}", spent)
        control = out_of_fold_table(design, folder / name, first, change.get("labels"))
        found.append(control_result(name, table, control))
    return found + simple_controls(design, table, folder)


def _compared(table: pd.DataFrame, other: pd.DataFrame, where: str) -> dict[str, Any]:
    return {**compare_paired(table, other, names=("this model", "the other"), inner_share=INNER_SHARE), "other": where}


def summary_text(report: Mapping[str, Any], out: str | Path) -> str:
    """What the command prints at the end: the figures with their intervals, what the controls say, and where all is."""
    found = report["results"]
    overall, baseline = found["all"]["overall"], found["baseline"]
    figures = [(name.replace("_", " "), format_estimate(overall[name])) for name in MAIN_FIGURES]
    figures.append((f"always {baseline['label']}", format_estimate(baseline["accuracy"])))
    cohort = report["cohort"]
    note = synthetic_note(cohort.get("synthetic", 0), cohort.get("scans", 0))
    lines = [
        *([note, ""] if note else []),
        report["design"]["sentence"],
        "",
        text_table(figures),
        found["verdict"]["sentence"],
    ]
    lines.append("n is patients; in brackets 95 % intervals; the report says how each was made")
    for control in report["controls"]:
        lines += ["", f"{control['title']}: {control['reading']}"]
    if report["against"]:
        lines += ["", *report["against"]["sentences"]]
    places = {"report": "report.html", "as data": REPORT_FILE, "model card": CARD_FILE}
    places |= {"out-of-fold predictions": TABLE_FILE, "fits, with their models and logs": FITS_FOLDER}
    lines += ["", *(f"{what}: {Path(out, name)}" for what, name in places.items())]
    return "\n".join(lines)
