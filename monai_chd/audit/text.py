"""The result of an audit as plain text; computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any

from monai_chd.audit.confounders import CONFOUNDERS
from monai_chd.metrics.wording import format_estimate
from monai_chd.wording import p_words, text_table

SHOWN = 20
"""Findings of one sort that the text lists; the JSON has all."""


def audit_text(result: Mapping[str, Any]) -> str:
    """The result of `audit` as a short plain text."""
    compared = result["compared"]
    places = ", ".join(f"{place} {count}" for place, count in compared["places"].items())
    lines = [f"Audit of {result['datalist']}"]
    lines.append(
        f"compared: {compared['scans']} scans of {compared['patients']} patients in {len(compared['places'])} places ({places})"
    )
    if result["against"]:
        lines.append(f"against: {compared['against_scans']} scans of {result['against']}")
    if result.get("weights"):
        lines.append(f"weights whose patients must not be in the test part: {', '.join(result['weights'])}")
    lines.append(
        f"files read: {compared['files_read']} of {compared['files']}; pairs of scans compared: {compared['pairs']}"
    )
    lines += ["", *_not_compared_lines(result), *_leakage_lines(result), "", *_problem_lines(result)]
    lines += ["CLASS BY PLACE (scans)", _indented(_place_rows(result["class_by_place"])), ""]
    lines += [
        "CONFOUNDERS (patients; median [min-max] or counts)",
        _indented(_confounder_rows(result["confounders"])),
        "",
    ]
    lines += _by_place_lines(result["confounders_by_place"])
    lines += _test_lines(result)
    return "\n".join(lines)


def _leakage_lines(result: Mapping[str, Any]) -> list[str]:
    leaks, notes = result["leakage"], result["notes"]
    if leaks:
        lines = [f"LEAKAGE: {len(leaks)} found. Results of this split cannot be trusted."]
        lines += _listed([_finding_line(finding) for finding in leaks])
        lines.append(
            "  what to do: keep one scan of each, keep a patient's scans in one place, draw the split again with"
        )
        lines.append(
            "  `monai-chd prepare` into a new folder, and train again; leave shared cases out of an external test."
        )
    elif not result["compared"]["files_compared"]:
        lines = ["LEAKAGE: cannot be told, since no scan was compared; no patient id stands in two places."]
    elif any(not one["compared"] for one in result["problems"]):
        lines = ["LEAKAGE: none found among what was compared; what stands above was not."]
    else:
        lines = ["LEAKAGE: none found."]
    if notes:
        lines += [f"NOTES: {len(notes)} copies within one place (no leakage, but the case counts twice)"]
        lines += _listed([_finding_line(finding) for finding in notes])
    return lines


def _finding_line(finding: Mapping[str, Any]) -> str:
    pairs = zip(finding["images"], finding["patients"], finding["places"], strict=True)
    listed = " and ".join(f"{image} (patient {patient or '?'}, {place})" for image, patient, place in pairs)
    how = "" if finding["by"] == finding["kind"] or finding["kind"].startswith("patient") else f", by {finding['by']}"
    if finding["by"] == "patient id" and how and finding["kind"] != "seen by weights":
        how += " alone; do both sets number the same patients?"
    if finding["score"] is not None:
        how += f" (likeness {finding['score']:.3f}, {finding['orientation']})"
    if len(set(finding["labels"])) > 1:
        how += "; with different classes"
    return f"{finding['kind']}{how}: {listed}"


def _listed(lines: Sequence[str]) -> list[str]:
    more = [f"  … and {len(lines) - SHOWN} more in the JSON (--out)"] if len(lines) > SHOWN else []
    return [f"  {line}" for line in lines[:SHOWN]] + more


def _not_compared_lines(result: Mapping[str, Any]) -> list[str]:
    """First of all, so that nobody takes silence about a file for its innocence."""
    missed = [one for one in result["problems"] if not one["compared"]]
    if not missed:
        return []
    none = "" if result["compared"]["files_compared"] else " NO SCAN COULD BE COMPARED."
    return [
        f"NOT COMPARED: {len(missed)} found.{none} The audit is not complete (exit code 2, or 1 with leakage).",
        *_listed([_problem_line(one) for one in missed]),
        "",
    ]


def _problem_line(one: Mapping[str, Any]) -> str:
    return f"{one['problem']} ({one['place']})"


def _problem_lines(result: Mapping[str, Any]) -> list[str]:
    problems = [one for one in result["problems"] if one["compared"]]
    if not problems:
        return []
    return [f"PROBLEMS: {len(problems)}", *_listed([_problem_line(one) for one in problems]), ""]


def _place_rows(table: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    places = list(next(iter(table.values()), {}))
    rows = [
        [name, *(str(count) for count in counts.values()), str(sum(counts.values()))] for name, counts in table.items()
    ]
    return [["class", *places, "all"], *rows]


def _confounder_rows(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[list[str]]:
    names = list(next(iter(table.values()), {}))
    rows = [[_heading(confounder), *(_cell(cells[name]) for name in names)] for confounder, cells in table.items()]
    return [["", *names], *rows]


def _by_place_lines(table: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]) -> list[str]:
    """A row for each class in each place; confounders known of nobody are left out."""
    known = {
        name: cells
        for name, cells in table.items()
        if any(c["n"] for places in cells.values() for c in places.values())
    }
    if not known:
        return []
    rows = [["class", "place", "n", *(_heading(name) for name in known)]]
    for class_name, places in next(iter(known.values())).items():
        for place, first in places.items():
            cells = [_short_cell(cells[class_name][place]) for cells in known.values()]
            rows.append([class_name, place, str(first["patients"]), *cells])
    title = "CONFOUNDERS BY CLASS AND PLACE (n patients; of k known where not all are; median [min-max] or counts)"
    return [title, _indented(rows), ""]


def _heading(confounder: str) -> str:
    return CONFOUNDERS[confounder][0] + (" (mm)" if confounder.endswith("_mm") else "")


def _short_cell(cell: Mapping[str, Any]) -> str:
    if not cell["n"]:
        return "-"
    known = "" if cell["n"] == cell["patients"] else f" of {cell['n']}"
    return _summary(cell) + known


def _summary(cell: Mapping[str, Any]) -> str:
    if "counts" in cell:
        return ", ".join(f"{value} {count}" for value, count in cell["counts"].items())
    return f"{cell['median']:.4g} [{cell['min']:.4g}-{cell['max']:.4g}]"


def _cell(cell: Mapping[str, Any]) -> str:
    if not cell["n"]:
        return f"unknown (n=0 of {cell['patients']})"
    return f"{_summary(cell)} (n={cell['n']})"


def _indented(rows: Sequence[Sequence[str]]) -> str:
    return indent(text_table(rows), "  ")


def _test_lines(result: Mapping[str, Any]) -> list[str]:
    """Tests, prediction and warnings."""
    tests, prediction = result["association"], result["prediction"]
    done = sum(test["p"] is not None for test in tests)
    lines = [f"ASSOCIATION WITH CLASS ({done} tests; descriptive)"]
    for test in tests:
        words = CONFOUNDERS[test["confounder"]][0]
        if test["p"] is None:
            lines.append(f"  {words}: not tested, {test['skipped']}")
        else:
            lines.append(
                f"  {words}: {test['test']}, n={test['n']}, {p_words(test['p'])}, after Holm {p_words(test['p_holm'])}"
            )
    if "skipped" in prediction:
        lines.append(f"  class from confounders alone: not tried, {prediction['skipped']}")
    else:
        lines.append(
            f"  class from confounders alone: right in {format_estimate(prediction['accuracy'], 'share')} of patients"
        )
        lines.append(
            f"  always {prediction['largest_class']}: right in {format_estimate(prediction['majority'], 'share')} of patients"
        )
    warnings = result["warnings"]
    return [
        *lines,
        "",
        *([f"WARNINGS: {len(warnings)}", *(f"  {text}" for text in warnings)] if warnings else ["WARNINGS: none"]),
    ]
