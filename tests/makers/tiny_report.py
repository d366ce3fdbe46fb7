"""A report as `crossval` writes it, of fabricated predictions that go through the real statistics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import torch

from monai_chd.crossval.occlusion import case_sheet, occlude, sheet_path
from monai_chd.labels import CLASSES, FLAGS
from monai_chd.metrics.comparison import compare_paired
from monai_chd.metrics.curves import risk_coverage_by
from monai_chd.metrics.evaluation import evaluate_out_of_fold
from monai_chd.report.page import SECTIONS, TEMPLATES

COUNTS = (14, 12, 7)
REPEATS = 2
FOLDS = 3


def predictions(skill: float = 1.2, seed: int = 0) -> pd.DataFrame:
    """Out-of-fold predictions of 33 patients in two repeats, with raw probabilities and some abstentions."""
    labels = np.repeat(np.arange(len(CLASSES)), COUNTS)
    rows = []
    rng = np.random.default_rng(seed)
    for repeat in range(REPEATS):
        logits = rng.normal(size=(len(labels), len(CLASSES))) + skill * np.eye(len(CLASSES))[labels]
        soft, raw = (np.exp(t * logits) / np.exp(t * logits).sum(1, keepdims=True) for t in (1.0, 2.5))
        for i, label in enumerate(labels):
            unsure = soft[i].max() < 0.45
            rows.append(
                {
                    "image": f"ct_{1000 + i}.nii.gz",
                    "patient": str(1000 + i),
                    "label": CLASSES[label],
                    "prediction": CLASSES[int(soft[i].argmax())],
                    **dict(zip(CLASSES, soft[i], strict=True)),
                    "abstain": bool(unsure),
                    "reason": "not confident" if unsure else "",
                    "repeat": repeat,
                    "fold": i % FOLDS,
                    **{f"raw_{name}": raw[i, k] for k, name in enumerate(CLASSES)},
                }
            )
    return pd.DataFrame(rows)


def estimate(value: float, n: int = 33) -> dict[str, Any]:
    """A figure with a made-up interval."""
    return {"value": value, "low": value - 0.15, "high": value + 0.15, "n": n, "method": "wilson_mean"}


DICE = {"value": 0.94, "low": 0.925, "high": 0.95, "n": sum(COUNTS), "method": "bca_bootstrap"}


def make_report(folder: Path, *, words: str = "") -> dict[str, Any]:
    """A whole report with two sheets in `folder`.

    Args:
        folder: where the sheets go.
        words: put into every text that comes from a user or from a file.
    """
    table = predictions()
    flags = {str(1000 + i): [FLAGS[i % 4]] for i in range(sum(COUNTS[:2]))}
    found: dict[str, Any] = dict(evaluate_out_of_fold(table, flags, resamples=200))
    against: dict[str, Any] = dict(compare_paired(table, predictions(0.6, 1), resamples=200))
    by_fold = {
        name: [[len(range(f, n, FOLDS)) for f in range(FOLDS)]] * REPEATS
        for name, n in zip(CLASSES, COUNTS, strict=True)
    }
    return {
        "note": "Research software, not a medical device.",
        "title": f"Cross-validation of a phantom cohort{words}",
        "created": "2026-11-24",
        "cohort": {
            "patients": sum(COUNTS),
            "flow": [
                {"step": f"patients in the table{words}", "patients": 46, "why": ""},
                {"step": "left out", "patients": 13, "why": f"undetermined: DORV or APVC, class open{words}"},
                {"step": "took part", "patients": sum(COUNTS), "why": ""},
            ],
            "rule": {
                "name": f"strict{words}",
                "description": f"Textbook classes, and nothing guessed.{words}",
                "normal": "unflagged",
            },
            "classes": list(CLASSES),
            "class_by_fold": by_fold,
            "warnings": [f"Header spacing of 33 scans is not in millimetres.{words}"],
        },
        "design": {
            "folds": FOLDS,
            "repeats": REPEATS,
            "inner_share": 0.2,
            "mode": "frozen",
            "seed": 42,
            "fits": FOLDS * REPEATS,
            "settings": {
                "encoder": f"efficientnet_lite0{words}",
                "hidden_size": 128,
                "bidirectional": True,
                "learning_rate": 0.0003,
                "window": [-200, 900],
                "max_epochs": 25,
                "dropout": None,
            },
            "sentence": f"All 33 patients take part; the part held out for a final test is not special here.{words}",
        },
        "results": {
            **found,
            "sentences": [*found["sentences"], f"A sentence.{words}"],
            "warnings": [*found["warnings"], f"A warning.{words}"],
        },
        "structures": {
            "dice": {name: {**DICE, "value": DICE["value"] - n / 50} for n, name in enumerate(("LV", "Myo", "mean"))},
            "refused": {f"no heart is found{words}": 2},
            "cases": sum(COUNTS) * REPEATS,
            "risk_coverage": risk_coverage_by(table, np.random.default_rng(0).normal(size=len(table)), resamples=200),
            "unseen": {"ASD": {"patients": 7, "only": 5}},
        },
        "flags": {
            "flags": [
                {"flag": "VSD", "patients": 8, "auc": DICE, "ap": {**DICE, "value": 0.8, "low": 0.7, "high": 0.9}}
            ],
            "by_flags": {**DICE, "value": 0.7, "low": 0.6, "high": 0.8},
            "agree": DICE,
            "disagree": None,
            "open": 3,
        },
        "controls": [
            {
                "name": "shuffled_labels",
                "title": f"Shuffled labels{words}",
                "question": f"Can the pipeline cheat?{words}",
                "accuracy": estimate(0.36),
                "balanced_accuracy": estimate(0.33),
                "reading": f"At chance, as it must be.{words}",
                "n": 33,
                "details": {"difference": estimate(0.21), "repeats": 1},
            },
            {
                "name": "intensity",
                "title": "Intensity histogram only",
                "question": "How far does brightness alone get?",
                "accuracy": estimate(0.42),
                "balanced_accuracy": estimate(0.4),
                "reading": "Not above chance.",
                "n": 33,
                "details": {"difference": None},
            },
        ],
        "against": {**against, "other": f"runs/other{words}"},
        "training": [_fit(repeat, fold) for repeat in range(REPEATS) for fold in range(FOLDS)],
        "worst_cases": _worst(folder, words),
        "audit": _audit(words),
        "provenance": {
            "versions": {"monai_chd": "0.1.0", "torch": f"2.13.0{words}"},
            "seeds": {"folds": 42, "training": 42},
            "hashes": {"datalist.json": "ab" * 32, f"ct_1000.nii.gz{words}": "cd" * 32},
            "seconds": {"embedding": 73.25, "fits": 4210, "whole run": 8000.0},
            "processor": f"2 cores{words}",
            "command": f"monai-chd crossval work/datalist.json --out CV{words}",
        },
        "checklists": {},
    }


def section(report: Mapping[str, Any], key: str, pictures: Mapping[str, str] | None = None) -> ElementTree.Element:
    """A section of the report page, written by its template and read back."""
    _, gather = SECTIONS[key]
    template = TEMPLATES.get_template(f"{key}.html.j2")
    return parsed(template.render({key: gather(report), "pictures": pictures or {}}))


def parsed(html: str) -> ElementTree.Element:
    """Elements of a piece of a page."""
    xml = re.sub(r"<img ([^>]*)>", r"<img \1/>", html)  # HTML does not close it
    return ElementTree.fromstring(f"<section>{xml}</section>")


def text_of(element: ElementTree.Element) -> str:
    """All text of an element, words one space apart."""
    return " ".join("".join(element.itertext()).split())


def rows_of(element: ElementTree.Element) -> list[list[str]]:
    """Text of the cells of all rows of an element."""
    return [[text_of(cell) for cell in row] for row in element.iter("tr")]


def _fit(repeat: int, fold: int) -> dict[str, Any]:
    rng = np.random.default_rng(10 * repeat + fold)
    history = [
        {
            "epoch": epoch,
            "train_loss": float(1.1 * np.exp(-0.08 * epoch) + 0.03 * rng.normal()),
            "val_loss": float(1.05 - 0.02 * epoch + 0.0012 * epoch**2 + 0.03 * rng.normal()),
            "val_accuracy": float(0.5 + 0.05 * rng.normal()),
            "val_macro_f1": float(min(0.6, 0.3 + 0.02 * epoch) + 0.04 * rng.normal()),
        }
        for epoch in range(1, 26)
    ]
    best = max(history, key=lambda entry: entry["val_macro_f1"])["epoch"]
    return {"repeat": repeat, "fold": fold, "history": history, "best_epoch": best}


def _worst(folder: Path, words: str) -> list[dict[str, Any]]:
    frames = torch.arange(40, dtype=torch.uint8)[None, None, :, None, None].mul(6).repeat(1, 1, 1, 24, 24)
    cases = []
    for patient in (f"1001{words}", "1020"):
        sheet = sheet_path(patient)
        case_sheet(frames, 40, folder / sheet, title=patient[:8])
        found = occlude(lambda case, n: case.float().mean((3, 4))[:, 0, 5:8] / 20, frames, torch.tensor([40]), 1)
        cases.append(
            {
                "patient": patient,
                "image": f"{patient}.nii.gz",
                "label": CLASSES[0],
                "prediction": CLASSES[1],
                "probabilities": dict(zip(CLASSES, (0.04, 0.92, 0.04), strict=True)),
                "sheet": sheet,
                "occlusion": found,
                "flags": ["ToF", f"VSD{words}"],
                "repeat": 0,
                "fold": 1,
            }
        )
    return cases


def _audit(words: str) -> dict[str, Any]:
    return {
        "datalist": f"work/datalist.json{words}",
        "compared": {"scans": 33, "patients": 33, "files": 33, "files_read": 33, "pairs": 528},
        "leakage": [],
        "problems": [{"problem": f"unread{words}", "place": "training"}],
        "notes": [
            {
                "kind": f"near duplicate{words}",
                "images": ["a", "b"],
                "patients": ["1", "2"],
                "places": ["fold 0", "fold 0"],
            }
        ],
        "association": [
            {"confounder": "slices", "test": "Kruskal-Wallis", "statistic": 3.1, "n": 33, "p": 0.2, "p_holm": 0.4},
            {
                "confounder": "age",
                "test": None,
                "statistic": None,
                "n": 0,
                "p": None,
                "p_holm": None,
                "skipped": f"unknown{words}",
            },
        ],
        "confounders": {"slices": {}},
        "prediction": {
            "n": 33,
            "accuracy": {"value": 0.4, "low": 0.25, "high": 0.57, "n": 33},
            "largest_class": CLASSES[0],
            "majority": {"value": 0.42, "low": 0.27, "high": 0.59, "n": 33},
            "method": "logistic regression",
        },
        "warnings": [f"Slice counts differ between classes.{words}"],
    }
