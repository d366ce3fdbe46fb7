"""Puts report.json of a cross-validation together: who took part, how, the results, and where all of it comes from.

Figures are `metrics.evaluation`'s part, controls `controls`', pages `report.page`'s.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from monai_chd.audit.leakage import read_audit
from monai_chd.cohort.datalist import read_datalist, read_excluded
from monai_chd.cohort.imagechd import NO_DIAGNOSIS
from monai_chd.cohort.rules import UNDETERMINED
from monai_chd.crossval.config_keys import REPORTED_KEYS
from monai_chd.crossval.design import FOLDS_FILE, Design
from monai_chd.crossval.fits import FITS_FOLDER, fit_folder, learning_curves, read_done
from monai_chd.crossval.folds import INNER_SHARE
from monai_chd.crossval.out_of_fold_table import TABLE_FILE
from monai_chd.files import sha256_of, write_text
from monai_chd.identity import patient_key
from monai_chd.labels import CLASSES
from monai_chd.metrics.curves import best_epoch
from monai_chd.networks.encoders import has_bfloat16
from monai_chd.versions import software_versions
from monai_chd.wording import NOTE
from monai_chd.workflow.settings import plain

REPORT_FILE = "report.json"

TITLE = "Classification of congenital heart disease from cardiac CT: cross-validation"


def build_report(
    design: Design,
    folder: Path,
    *,
    results: Mapping[str, Any],
    controls: Sequence[Mapping[str, Any]],
    against: Mapping[str, Any] | None,
    worst: Sequence[Mapping[str, Any]],
    structures: Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
    command: str,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The content of report.json, in which nothing depends on the time of day but `created` and seconds.

    Args:
        design: the cross-validation.
        folder: its output folder.
        results: of `evaluation.evaluate_out_of_fold`.
        controls: of `controls`.
        against: of `comparison.compare_paired` with the other's path as `other`, or None.
        worst: of `worst_cases`.
        structures: of `structure_results`, or None where the classifier reads none.
        flags: of `flag_results`, or None where flags are no second task.
        command: as typed.
        seconds: of each step besides the fits.
    """
    datalist = read_datalist(design.datalist)
    done = [read_done(fit) for _, _, fit in _fits(design, folder)]
    return {
        "note": NOTE,
        "title": TITLE,
        "created": date.today().isoformat(),
        "cohort": _cohort(design, datalist, done),
        "design": _design(design, datalist),
        "results": dict(results),
        "structures": None if structures is None else dict(structures),
        "flags": None if flags is None else dict(flags),
        "controls": [dict(control) for control in controls],
        "against": None if against is None else dict(against),
        "training": [_training(*fit) for fit in _fits(design, folder)],
        "worst_cases": [dict(case) for case in worst],
        "audit": audit_of(design),
        "provenance": {
            "versions": software_versions(),
            "seeds": {"folds": design.seed, "fits": f"{done[0]['seed']} to {done[-1]['seed']}", "resampling": 42},
            "hashes": _hashes(design, folder),
            "seconds": {"fits": round(sum(one["seconds"] for one in done), 1), **seconds},
            "processor": processor(),
            "command": command,
        },
    }


def audit_of(design: Design) -> dict[str, Any] | None:
    """The audit that lies beside the datalist of a cross-validation; None when there is none.

    Raises:
        UserError: something else by that name.
    """
    return read_audit(design.datalist.with_name("audit.json"))


def write_report_json(report: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.json`.

    Raises:
        UserError: a NaN or infinity, which JSON does not have.
    """
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(folder / REPORT_FILE, text)
    return folder / REPORT_FILE


def _fits(design: Design, folder: Path) -> list[tuple[int, int, Path]]:
    """Repeat, fold and folder of every fit."""
    fits = folder / FITS_FOLDER
    return [(r, f, fit_folder(fits, r, f)) for r in range(design.repeats) for f in range(design.folds)]


def _cohort(design: Design, datalist: Mapping[str, Any], done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "patients": len(design.labels),
        "scans": len(design.records),
        "synthetic": sum(bool(record.get("synthetic")) for record in design.records),
        "flow": _flow(design),
        "rule": datalist.get("rule") or {},
        "normal": datalist.get("normal"),
        "classes": list(CLASSES),
        "class_by_fold": design.class_by_fold(),
        "warnings": [*datalist.get("notes", ()), *_version_warnings(done)],
    }


def _flow(design: Design) -> list[dict[str, Any]]:
    """Patients found, left out by reason, and taking part; the former only where `excluded.csv` lies beside the datalist."""
    patients, path = len(design.labels), design.datalist.with_name("excluded.csv")
    last = {"step": "took part in the cross-validation", "patients": patients, "why": "each is tested once a repeat"}
    if not path.is_file():
        return [last]
    rows = read_excluded(path)
    # a patient with one scan left out may take part with another
    taking_part = {patient_key(patient) for patient in design.labels}
    reasons: dict[str, str] = {}
    for row in rows:
        if (key := patient_key(row["patient"])) not in taking_part:
            reasons.setdefault(key or row["image"], _short(row["reason"]))
    left_out = [
        {"step": "left out", "patients": count, "why": why} for why, count in Counter(reasons.values()).most_common()
    ]
    found = {"step": "patients in table and folder", "patients": patients + len(reasons), "why": ""}
    return [found, *left_out, last]


def _short(reason: str) -> str:
    """A reason without what is of one patient only."""
    return re.sub(rf"^({UNDETERMINED}|{NO_DIAGNOSIS}): .*", r"\1", reason)


def _design(design: Design, datalist: Mapping[str, Any]) -> dict[str, Any]:
    held_out = len({record["patient"] for record in datalist["test"]})
    former = (
        f"the {held_out} that were held out for a final test are among them and are nothing special here: after this, "
        f"they are no untouched test set any more"
        if held_out
        else "the datalist held nobody out"
    )
    config = design.config
    times = f"In each of {design.repeats} repeats" if design.repeats > 1 else "Once"
    return {
        "folds": design.folds,
        "repeats": design.repeats,
        "inner_share": INNER_SHARE,
        "mode": design.mode,
        "seed": design.seed,
        "settings": plain({key: config[key] for key in (*REPORTED_KEYS, *design.settings) if key in config}),
        "fits": design.folds * design.repeats,
        "sentence": (
            f"All {len(design.labels)} patients of the datalist took part; {former}. {times} they "
            f"were dealt into {design.folds} folds, by patient and with the classes in proportion; a model that had not seen a "
            f"fold predicted it. {INNER_SHARE:.0%} of the other patients chose the epoch, the temperature and the threshold of "
            f"abstention."
        ),
    }


def _training(repeat: int, fold: int, fit: Path) -> dict[str, Any]:
    curves = learning_curves(fit)
    best = best_epoch(curves)
    return {"repeat": repeat, "fold": fold, "history": curves, "best_epoch": best[0] if best else None}


def _version_warnings(done: Sequence[Mapping[str, Any]]) -> list[str]:
    """Fits made with different versions are one experiment by name only."""
    versions = {json.dumps(one["versions"], sort_keys=True) for one in done}
    if len(versions) < 2:
        return []
    return [f"the fits were made with {len(versions)} different sets of software versions; start again in a new folder"]


def _hashes(design: Design, folder: Path) -> dict[str, str]:
    """sha256 of what the report stands on: datalist, predictions, folds and images."""
    files = {"datalist.json": design.datalist, TABLE_FILE: folder / TABLE_FILE, FOLDS_FILE: folder / FOLDS_FILE}
    return {name: sha256_of(path) for name, path in files.items()} | dict(design.sha256)


def processor() -> str:
    """The name of the processor, its cores, and whether encoders can work in bfloat16 on it."""
    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        name = found[1] if found else name
    except OSError:  # not Linux
        pass
    low = "with" if has_bfloat16(torch.device("cpu")) else "without"
    text = f"{name}, {os.cpu_count()} cores, {low} bfloat16"
    return f"{text}; GPU {torch.cuda.get_device_name()}" if torch.cuda.is_available() else text
