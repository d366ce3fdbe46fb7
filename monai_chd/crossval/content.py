"""Puts report.json of a cross-validation together: who took part, how, the results, and where all of it comes from.

Figures are `evaluation`'s, controls `controls`', pages `report_html`'s part.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from monai_chd.cohort.datalist import read_datalist
from monai_chd.cohort.imagechd import NO_DIAGNOSIS
from monai_chd.cohort.rules import UNDETERMINED
from monai_chd.crossval.design import FOLDS_FILE, INNER_SHARE, Design
from monai_chd.crossval.fits import best_epoch, fit_folder, history, read_done
from monai_chd.files import replacing
from monai_chd.labels import CLASSES
from monai_chd.metrics.predictions import NOTE, software_versions
from monai_chd.networks.cnn_lstm import has_bfloat16
from monai_chd.workflow.run import config_content
from monai_chd.workflow.settings import plain

TITLE = "Classification of congenital heart disease from cardiac CT: cross-validation"

SCIENCE = (
    "frame_size", "sequence_length", "sampling", "window", "encoder", "encoder_precision", "projection", "hidden_size",
    "num_layers", "bidirectional", "pooling", "learning_rate", "lr_decay", "batch_size", "max_epochs", "early_stop_patience",
    "val_interval", "coverage", "risk", "cache",
)  # fmt: skip
"""Config keys that the report lists, whether they were given or are the config's defaults."""


def build_report(
    design: Design,
    folder: Path,
    *,
    results: Mapping[str, Any],
    controls: Sequence[Mapping[str, Any]],
    against: Mapping[str, Any] | None,
    worst: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of report.json, in which nothing depends on the time of day but `created` and seconds.

    Args:
        design: the cross-validation.
        folder: its output folder.
        results: of `evaluation.results`.
        controls: of `controls`.
        against: of `evaluation.compare` with the other's path as `other`, or None.
        worst: of `worst_cases`.
        facts: `mode`, `command` and `seconds` (by step).
    """
    datalist = read_datalist(design.datalist)
    audit = design.datalist.with_name("audit.json")
    return {
        "note": NOTE,
        "title": TITLE,
        "created": date.today().isoformat(),
        "cohort": _cohort(design, datalist, folder),
        "design": _design(design, datalist, str(facts["mode"])),
        "results": dict(results),
        "controls": [dict(control) for control in controls],
        "against": None if against is None else dict(against),
        "training": _training(design, folder / "fits"),
        "worst_cases": [dict(case) for case in worst],
        "audit": json.loads(audit.read_text()) if audit.is_file() else None,
        "provenance": _provenance(design, folder, facts),
    }


def write_report_json(report: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.json`.

    Raises:
        UserError: a NaN or infinity, which JSON does not have.
    """
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(folder / "report.json") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return folder / "report.json"


def _cohort(design: Design, datalist: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    warnings = [*datalist.get("notes", ()), *_version_warnings(design, folder / "fits")]
    return {
        "patients": len(design.labels),
        "scans": len(design.records),
        "flow": _flow(design),
        "rule": datalist.get("rule") or {},
        "normal": datalist.get("normal"),
        "classes": list(CLASSES),
        "class_by_fold": design.class_by_fold(),
        "warnings": warnings,
    }


def _flow(design: Design) -> list[dict[str, Any]]:
    """Patients found, left out by reason, and taking part; the former only where `excluded.csv` lies beside the datalist."""
    patients, path = len(design.labels), design.datalist.with_name("excluded.csv")
    last = {"step": "took part in the cross-validation", "patients": patients, "why": "each is tested once a repeat"}
    if not path.is_file():
        return [last]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # a patient with one scan left out may take part with another
    reasons: dict[str, str] = {}
    for row in rows:
        if row["patient"] not in design.labels:
            reasons.setdefault(row["patient"] or row["image"], _short(row["reason"]))
    left_out = [
        {"step": "left out", "patients": count, "why": why} for why, count in Counter(reasons.values()).most_common()
    ]
    found = {"step": "patients in table and folder", "patients": patients + len(reasons), "why": ""}
    return [found, *left_out, last]


def _short(reason: str) -> str:
    """A reason without what is of one patient only."""
    return re.sub(rf"^({UNDETERMINED}|{NO_DIAGNOSIS}): .*", r"\1", reason)


def _design(design: Design, datalist: Mapping[str, Any], mode: str) -> dict[str, Any]:
    held_out = len({record["patient"] for record in datalist["test"]})
    former = (
        f"the {held_out} that were held out for a final test are among them and are nothing special here: after this, "
        f"they are no untouched test set any more"
        if held_out
        else "the datalist held nobody out"
    )
    settings = {**config_content("train"), **design.settings}
    times = f"In each of {design.repeats} repeats" if design.repeats > 1 else "Once"
    return {
        "folds": design.folds,
        "repeats": design.repeats,
        "inner_share": INNER_SHARE,
        "mode": mode,
        "seed": design.seed,
        "settings": plain({key: settings[key] for key in (*SCIENCE, *design.settings) if key in settings}),
        "fits": design.folds * design.repeats,
        "sentence": (
            f"All {len(design.labels)} patients of the datalist took part; {former}. {times} they "
            f"were dealt into {design.folds} folds, by patient and with the classes in proportion; a model that had not seen a "
            f"fold predicted it. {INNER_SHARE:.0%} of the other patients chose the epoch, the temperature and the threshold of "
            f"abstention."
        ),
    }


def sentence_of(report: Mapping[str, Any]) -> str:
    """What the design says of who took part."""
    return str(report["design"]["sentence"])


def _training(design: Design, fits: Path) -> list[dict[str, Any]]:
    found = []
    for repeat in range(design.repeats):
        for fold in range(design.folds):
            curves = history(fit_folder(fits, repeat, fold))
            found.append({"repeat": repeat, "fold": fold, "history": curves, "best_epoch": best_epoch(curves)})
    return found


def _done(design: Design, fits: Path) -> list[dict[str, Any]]:
    return [read_done(fit_folder(fits, r, f)) for r in range(design.repeats) for f in range(design.folds)]


def _version_warnings(design: Design, fits: Path) -> list[str]:
    """Fits made with different versions are one experiment by name only."""
    versions = {json.dumps(done["versions"], sort_keys=True) for done in _done(design, fits)}
    if len(versions) < 2:
        return []
    return [f"the fits were made with {len(versions)} different sets of software versions; start again in a new folder"]


def _provenance(design: Design, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    done = _done(design, folder / "fits")
    files = {"datalist.json": design.datalist, "predictions.csv": folder / "predictions.csv"}
    files |= {FOLDS_FILE: folder / FOLDS_FILE}
    seconds = {"fits": round(sum(one["seconds"] for one in done), 1), **facts["seconds"]}
    return {
        "versions": software_versions(),
        "seeds": {"folds": design.seed, "fits": f"{done[0]['seed']} to {done[-1]['seed']}", "resampling": 42},
        "hashes": {
            **{name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
            **design.sha256,
        },
        "seconds": seconds,
        "processor": processor(),
        "command": str(facts["command"]),
    }


def processor() -> str:
    """The name of the processor, its cores, and whether encoders can work in bfloat16 on it."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        name = found[1] if found else name
    except OSError:  # not Linux
        pass
    low = "with" if has_bfloat16(torch.device("cpu")) else "without"
    text = f"{name}, {os.cpu_count()} cores, {low} bfloat16"
    return f"{text}; GPU {torch.cuda.get_device_name()}" if torch.cuda.is_available() else text
