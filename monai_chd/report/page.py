"""Writes the evaluation report as one HTML file that needs nothing else: no network, no script, no file beside it.

Owns the order of the sections and how templates are loaded; what a section shows is gathered in `sections`, and how the page
looks is written in `templates` and `report.css`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from monai_chd.errors import UserError, UserFileError
from monai_chd.files import write_text
from monai_chd.metrics.wording import estimate_cells, format_estimate
from monai_chd.report import sections
from monai_chd.report.model_card import card, words_of
from monai_chd.wording import NOTE, p_words

NAME = "report.html"
FOLDER = Path(__file__).parent
STYLE = FOLDER / "report.css"

NEEDED = ("title", "cohort", "design", "results")

SECTIONS: dict[str, tuple[str, Callable[[sections.Report], Any]]] = {
    "summary": ("In short", sections.summary),
    "cohort": ("Patients and labels", sections.cohort),
    "design": ("How it was tested", sections.design),
    "results": ("All figures", sections.results),
    "confusion": ("Confusion matrix", sections.confusion),
    "curves": ("ROC and precision\u2013recall", sections.curves),
    "calibration": ("Calibration", sections.calibration),
    "abstention": ("Abstaining", sections.abstention),
    "lesions": ("By diagnosis", sections.lesions),
    "structures": ("Structures of the heart", sections.structures),
    "controls": ("Controls", sections.controls),
    "comparison": ("Comparison", sections.comparison),
    "mistakes": ("Worst mistakes", sections.mistakes),
    "training": ("Learning curves", sections.training),
    "audit": ("Audit of the data", sections.audit),
    "provenance": ("Where it comes from", sections.provenance),
    "card": ("Model card", card),
    "checklists": ("Reporting checklists", sections.checklists),
}
"""Anchor of each section to its heading and what gathers it. The template of the same name sees it under that name."""

TEMPLATES = Environment(
    loader=FileSystemLoader([FOLDER / "templates", FOLDER]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
"""The one way to the templates; all text that is put into them is shown as text."""
TEMPLATES.filters |= {
    "estimate_cells": estimate_cells,
    "flat": sections.flat,
    "format_estimate": format_estimate,
    "p_words": p_words,
    "words": words_of,
}


def write_report(report: Mapping[str, Any], folder: str | Path) -> Path:
    """Write `report.html`.

    Args:
        report: as in report.json. `title`, `cohort`, `design` and `results` must be there; the page says what else is missing.
            All text in it is shown as text, never as markup.
        folder: where to, and where the sheets of `worst_cases` lie; these are put into the page.

    Returns:
        The file.

    Raises:
        UserError: a needed part is missing, or a sheet is no PNG or outside of the folder.
        UserFileError: a sheet that is named is not there.
    """
    folder = Path(folder)
    missing = [key for key in NEEDED if not report.get(key)]
    if missing:
        raise UserError(
            f"{folder / NAME}: the report lacks {', '.join(missing)}; expected the content of report.json as crossval writes it"
        )
    text = page(report, _pictures(report, folder))
    write_text(folder / NAME, text)
    return folder / NAME


def page(report: Mapping[str, Any], pictures: Mapping[str, str] | None = None) -> str:
    """The report as HTML.

    Args:
        report: as for `write_report`.
        pictures: data URI of each sheet, by its name in the report.
    """
    return TEMPLATES.get_template("page.html.j2").render(
        title=report["title"],
        note=report.get("note") or NOTE,
        created=report.get("created"),
        contents={key: heading for key, (heading, _) in SECTIONS.items()},
        pictures=pictures or {},
        **{key: gather(report) for key, (_, gather) in SECTIONS.items()},
    )


def _pictures(report: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Data URIs of the sheets that the report names."""
    pictures = {}
    for case in report.get("worst_cases") or ():
        name = case.get("sheet")
        if not name:
            continue
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"{name}: the sheet of patient {case.get('patient')} lies outside of {folder}; expected a path within"
            )
        if not path.is_file():
            raise UserFileError(f"{path}: no such sheet, though the report names it for patient {case.get('patient')}")
        content = path.read_bytes()
        if not content.startswith(b"\x89PNG\r\n\x1a\n"):
            raise UserError(f"{path}: expected a PNG, as the sheet of patient {case.get('patient')}")
        pictures[name] = "data:image/png;base64," + base64.b64encode(content).decode()
    return pictures
