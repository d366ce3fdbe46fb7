"""Writes the evaluation report as one HTML file that needs nothing else: no network, no script, no file beside it.

Puts the page together and says where things come from; sections on patients and figures are `report_sections`' part.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_chd.errors import UserError, UserFileError
from monai_chd.files import replacing
from monai_chd.metrics.predictions import NOTE
from monai_chd.report.checklists import STATUS, fill_checklists, sources
from monai_chd.report.markup import Content, Markup, element
from monai_chd.report.model_card import card
from monai_chd.report.parts import (
    Report,
    absent,
    bullets,
    p_words,
    pair_columns,
    pairs,
    plain_value,
    row,
    table,
    warning_box,
)
from monai_chd.report.results import abstention, calibration, confusion, curves, figures, lesions
from monai_chd.report.sections import cohort, comparison, controls, design, mistakes, summary, training

NAME = "report.html"
STYLE = Path(__file__).with_name("report.css")

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What the page may load: its own style and pictures, nothing else, whatever stands in it."""

NEEDED = ("title", "cohort", "design", "results")

MARKS = {"filled": "\u2713", "partly": "\u25d0", "user": "\u270e"}

MOST_HASHES = 12
"""Hashes shown without a click."""


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
    with replacing(folder / NAME) as temporary:
        # a file name whose bytes are no text comes as a lone surrogate, which UTF-8 does not have
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return folder / NAME


def page(report: Mapping[str, Any], pictures: Mapping[str, str] | None = None) -> str:
    """The report as HTML.

    Args:
        report: as for `write_report`.
        pictures: data URI of each sheet, by its name in the report.
    """
    drawn = pictures or {}
    built: list[tuple[str, str, Callable[[Report], Content]]] = [
        ("summary", "In short", summary),
        ("cohort", "Patients and labels", cohort),
        ("design", "How it was tested", design),
        ("results", "All figures", figures),
        ("confusion", "Confusion matrix", confusion),
        ("curves", "ROC and precision\u2013recall", curves),
        ("calibration", "Calibration", calibration),
        ("abstention", "Abstaining", abstention),
        ("lesions", "By diagnosis", lesions),
        ("controls", "Controls", controls),
        ("comparison", "Comparison", comparison),
        ("mistakes", "Worst mistakes", lambda content: mistakes(content, drawn)),
        ("training", "Learning curves", training),
        ("audit", "Audit of the data", audit),
        ("provenance", "Where it comes from", provenance),
        ("card", "Model card", model_card),
        ("checklists", "Reporting checklists", checklists),
    ]
    links = [element("li", element("a", title, href=f"#{key}")) for key, title, _ in built]
    sections = [
        element(
            "section", element("h2", title, id=f"{key}-title"), build(report), id=key, aria_labelledby=f"{key}-title"
        )
        for key, title, build in built
    ]
    note, created = report.get("note") or NOTE, report.get("created")
    body = [
        element("a", "Skip to the report", href="#main", class_="skip"),
        element(
            "header",
            element("h1", report["title"]),
            element("p", note, f" Report of {created}." if created else "", class_="quiet"),
            element("nav", element("ol", links), aria_label="Sections"),
        ),
        element("main", sections, id="main"),
        element("footer", element("p", note), element("p", "Every figure here is in report.json beside this page.")),
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", report["title"]),
        element("style", Markup(_style())),
    ]
    return "<!doctype html>\n" + element("html", element("head", head), element("body", body), lang="en") + "\n"


def audit(report: Report) -> Content:
    """What the audit of the datalist found."""
    found = report.get("audit")
    if not found:
        return absent(
            "an audit for leaks and confounders (monai-chd audit); without one, copies of a scan in two folds go unseen"
        )
    leaks, compared = found.get("leakage") or (), found.get("compared") or {}
    problems = [plain_value(one.get("problem", one)) for one in found.get("problems") or ()]
    verdict = f"{len(leaks)} leaks found: the figures cannot be trusted." if leaks else "No leak found."
    extent = {key: compared[key] for key in ("scans", "patients", "files_read", "files", "pairs") if key in compared}
    return [
        element("p", element("strong", verdict)),
        warning_box("Leaks", [_finding(one) for one in leaks]),
        pairs({key.replace("_", " "): value for key, value in extent.items()}) if extent else None,
        warning_box("Copies within one place", [_finding(one) for one in found.get("notes") or ()]),
        warning_box("Problems", problems),
        warning_box("What could stand in for disease", list(found.get("warnings") or ())),
        _associations(found),
    ]


def provenance(report: Report) -> Content:
    """Run time, versions, seeds, hashes, and the command."""
    facts = report.get("provenance") or {}
    if not facts:
        return absent("run time, versions, seeds and hashes")
    parts: list[Content] = []
    if facts.get("command"):
        parts.append(element("p", "Command: ", element("code", facts["command"])))
    if facts.get("processor"):
        parts.append(element("p", "Processor: ", facts["processor"]))
    seconds = {name: _duration(value) for name, value in (facts.get("seconds") or {}).items()}
    for title, content in (("Run time", seconds), ("Versions", facts.get("versions")), ("Seeds", facts.get("seeds"))):
        parts += [element("h3", title), pairs(content) if content else absent(title.lower())]
    hashes = facts.get("hashes") or {}
    parts.append(element("h3", "Hashes (SHA-256)"))
    if len(hashes) > MOST_HASHES:
        parts.append(element("details", element("summary", f"{len(hashes)} files"), pair_columns(hashes)))
    else:
        parts.append(pairs(hashes, mono=True) if hashes else absent("hashes"))
    return parts


def model_card(report: Report) -> Content:
    """The model card; the same is in model_card.md."""
    return element(
        "div",
        [element("div", element("h3", part.heading), bullets(part.statements)) for part in card(report)],
        class_="parts",
    )


def checklists(report: Report) -> Content:
    """Which items of CLAIM 2024 and TRIPOD+AI are filled here, and which are the reader's."""
    filled = report.get("checklists") or fill_checklists(report)
    about = sources()
    return [
        element("p", "Which items this report fills, and which only the authors can. A filled item is no judgement of quality."),
        [_checklist(name, items, about.get(name, {})) for name, items in filled.items()],
    ]  # fmt: skip


def _checklist(name: str, items: Sequence[Mapping[str, Any]], about: Mapping[str, str]) -> list[Markup]:
    counts = [f"{sum(item['status'] == key for item in items)} {text}" for key, text in STATUS.items()]
    rows = [
        element(
            "tr",
            element("th", item["item"], scope="row", role="rowheader"),
            element(
                "td", item["text"], element("div", item["section"], class_="small quiet"), class_="text", role="cell"
            ),
            element("td", _status(item), class_="nowrap", role="cell"),
            element("td", _where(item), role="cell"),
            role="row",
        )
        for item in items
    ]
    return [
        element("h3", name, f": {about['title']}" if about.get("title") else ""),
        element(
            "p",
            f"{len(items)} items: {'; '.join(counts)}. ",
            about.get("wording"),
            " ",
            about.get("source"),
            class_="small",
        ),
        table(
            f"{name}, items",
            ["item", "asks for", "status", "where, or what to do"],
            [element("tbody", rows, role="rowgroup")],
            class_="checklist",
            role="table",
        ),
    ]


def _status(item: Mapping[str, Any]) -> Markup:
    key = str(item["status"])
    mark = element("span", MARKS.get(key, ""), aria_hidden="true")
    return element(
        "span", mark, " ", {"user": "yours"}.get(key, key), class_=f"status {key if key in MARKS else 'user'}"
    )


def _where(item: Mapping[str, Any]) -> Content:
    anchor = str(item.get("anchor") or "")
    if not re.fullmatch(r"[a-z]+", anchor):
        return str(item["where_or_todo"])
    return [element("a", item["where_or_todo"].split(" To add: ")[0], href=f"#{anchor}"), _added(item["where_or_todo"])]


def _added(text: str) -> Content:
    todo = text.partition(" To add: ")[2]
    return [" ", element("strong", "To add: "), todo] if todo else None


def _finding(one: Mapping[str, Any]) -> str:
    places = zip(one.get("images") or (), one.get("patients") or (), one.get("places") or (), strict=False)
    listed = " and ".join(f"{image} (patient {patient or '?'}, {place})" for image, patient, place in places)
    return f"{one.get('kind', 'copy')}: {listed}"


def _associations(found: Mapping[str, Any]) -> Content:
    rows = [
        row(
            str(test["confounder"]).replace("_", " "),
            test.get("test") or f"not tested: {test.get('skipped', '')}",
            element("td", test["n"], class_="n"),
            p_words(test["p_holm"]) if test.get("p_holm") is not None else "",
        )
        for test in found.get("association") or ()
    ]
    alone = found.get("prediction") or {}
    return [
        table(
            "Association with the class (descriptive)",
            ["what the file tells", "test", "n", "p after Holm"],
            rows,
            numeric=(2,),
        )
        if rows
        else None,
        element(
            "p",
            f"From these alone, without the heart, the class was right for {_share(alone['accuracy'])}; always "
            f"{alone.get('largest_class')} for {_share(alone['majority'])}. Method: {alone.get('method', 'not given')}.",
        )
        if alone.get("accuracy") and alone.get("majority")
        else None,
    ]


def _share(one: Mapping[str, Any]) -> str:
    return f"{one['value']:.0%} (95% interval {one['low']:.0%} to {one['high']:.0%}; n = {one['n']} patients)"


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return plain_value(seconds)
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _style() -> str:
    """The style sheet, without its line breaks and indentation."""
    return re.sub(r"\s+", " ", STYLE.read_text(encoding="utf-8")).strip()


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
