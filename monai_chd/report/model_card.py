"""The model card of an evaluation: what the model is, is for and is not for, its figures and limits, as text and Markdown.

Every figure comes with its interval and n out of the report; what only people know is named as theirs to fill.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai_chd.files import write_text
from monai_chd.metrics.wording import format_estimate
from monai_chd.wording import NOTE, synthetic_note

MODES = {
    "frozen": "a pretrained encoder with fixed weights, and a trained LSTM head",
    "end-to-end": "encoder and LSTM head trained together",
}

WORDS = {
    "balanced_accuracy": "Balanced accuracy (macro recall)",
    "auc": "AUC",
    "auc_macro": "AUC, mean of the classes",
    "mcc": "Matthews correlation (MCC)",
    "ece": "Calibration error (ECE)",
    "brier": "Brier score",
    "log_loss": "Log-loss",
    "aurc": "AURC",
    "augrc": "AUGRC",
    "mcnemar": "McNemar",
    "corrected_t": "Corrected t-test",
    "bca_bootstrap": "BCa bootstrap",
}
"""Metrics and methods whose key does not read as words."""


class Part(NamedTuple):
    """A heading of the card and its statements."""

    heading: str
    statements: list[str]


def card(report: Mapping[str, Any]) -> list[Part]:
    """What the card says, from a report as in report.json; plain text, nothing escaped."""
    classes = report["cohort"]["classes"]
    return [
        Part("The model", _model(report, classes)),
        Part(
            "Meant for",
            [
                "Research on classifying cardiac CT volumes of patients with suspected congenital heart disease; teaching; "
                "comparison of methods on the same folds."
            ],
        ),
        Part(
            "Not meant for",
            [
                NOTE,
                "Not for diagnosis, screening, triage, treatment or any other decision about a patient.",
                "Not for other scans than cardiac CT: the model does not know a heart from anything else.",
            ],
        ),
        Part("Patients", _patients(report, classes)),
        Part("Figures", _figures(report)),
        Part("Controls", _controls(report)),
        Part("Limits", _limits(report)),
        Part(
            "Yours to fill",
            [
                "Who answers for the model, and how to reach them.",
                "Licence and terms of the data; ethics approval or waiver.",
                "Age, sex, origin and treatment of the patients, and figures by these groups.",
                "Scanners and contrast protocol; results on patients of another hospital.",
            ],
        ),
        Part("Version", _version(report)),
    ]


def write_model_card(report: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the card as Markdown.

    Args:
        report: as in report.json.
        path: the file to write; an existing one is replaced.

    Returns:
        `path`.

    Raises:
        UserError: the folder cannot be written to.
    """
    lines = [f"# Model card: {_escaped(report['title'])}", "", f"**{_escaped(NOTE)}**"]
    for part in card(report):
        lines += ["", f"## {part.heading}", ""]
        lines += [f"- {_escaped(statement)}" for statement in part.statements]
    write_text(Path(path), "\n".join(lines) + "\n")
    return Path(path)


def _model(report: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    design = report["design"]
    return [
        "A CNN reads each frame of a volume, an LSTM the sequence of frames, and a linear layer scores the classes "
        f"{', '.join(classes)}. In CT a frame is an axial slice, so the sequence is space from feet to head, not time.",
        f"Training: {MODES.get(design.get('mode'), design.get('mode', 'unknown'))}.",
        "Output: a probability for each class; the most probable one is the prediction, and the model can abstain.",
    ]


def _patients(report: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    cohort = report["cohort"]
    counts = cohort.get("class_by_fold") or {}
    note = synthetic_note(cohort.get("synthetic", 0), cohort.get("scans", 0))
    statements = [*([note] if note else []), f"{cohort['patients']} patients took part."]
    if counts:
        statements.append("By class: " + ", ".join(f"{name} {sum(counts[name][0])}" for name in classes) + ".")
    statements += [
        f"{step['step']}: {step['patients']}{f' ({why})' if (why := step.get('why')) else ''}."
        for step in cohort.get("flow") or ()
    ]
    rule = cohort.get("rule") or {}
    if rule.get("name"):
        statements.append(f"Labels by the rule {rule['name']}: {rule.get('description', '')}".rstrip(": "))
    return statements


def _figures(report: Mapping[str, Any]) -> list[str]:
    results = report["results"]
    overall = results["all"]["overall"]
    baseline = results["baseline"]
    names = ("accuracy", "balanced_accuracy", "macro_f1", "auc_macro", "mcc", "brier", "log_loss", "ece")
    statements = [str(report["design"].get("sentence", ""))] if report["design"].get("sentence") else []
    statements += [f"{words_of(name)}: {format_estimate(overall[name])}." for name in names if name in overall]
    always = format_estimate(baseline["accuracy"])
    statements.append(f"Always answering {baseline['label']}: accuracy {always}. {results['verdict']['sentence']}")
    statements += [
        f"{name}: recall {format_estimate(one['recall'])}, precision {format_estimate(one['precision'])}."
        for name, one in results["all"]["per_class"].items()
    ]
    return [*statements, "In brackets the 95% interval; n counts patients."]


def _controls(report: Mapping[str, Any]) -> list[str]:
    controls = report.get("controls") or ()
    return [
        f"{control['title']}: accuracy {format_estimate(control['accuracy'])}. {control['reading']}"
        for control in controls
    ] or ["None was run: nothing is known of what the figures rest on."]


def _limits(report: Mapping[str, Any]) -> list[str]:
    remarks = len(report["cohort"].get("warnings") or ())
    return [
        "Internal validation only: all patients come from the data set the models were trained on. Figures elsewhere will "
        "differ, most likely for the worse.",
        "The class without disease means that no diagnosis is listed, which is not the same as a normal heart.",
        *(report["results"].get("warnings") or ()),
        *(
            [f"Remarks on the data, {remarks} of them, stand in report.html under Patients and labels."]
            if remarks
            else []
        ),
    ]


def _version(report: Mapping[str, Any]) -> list[str]:
    provenance = report.get("provenance") or {}
    versions, seeds = provenance.get("versions") or {}, provenance.get("seeds") or {}
    statements = [f"Report of {report['created']}."] if report.get("created") else []
    if versions:
        statements.append("Software: " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".")
    if seeds:
        statements.append("Seeds: " + ", ".join(f"{name} {seed}" for name, seed in seeds.items()) + ".")
    return statements or ["Unknown."]


def words_of(name: str) -> str:
    """A metric's or setting's key as words, with the abbreviations as they are usually written."""
    if name in WORDS:
        return WORDS[name]
    text = name.replace("_", " ").replace("f1", "F1")
    return text[:1].upper() + text[1:]


def _escaped(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    # brackets make a link only with what follows them, and an underscore within a word is one
    return re.sub(r"([\\`*<>&|#~$]|(?<!\w)_|_(?!\w)|\](?=[(\[:]))", r"\\\1", " ".join(str(text).split()))
