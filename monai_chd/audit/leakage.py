"""Audits a datalist: scans or patients in two places, and whether something other than disease tells the classes apart.

Owns which pair is leakage, what could not be compared, and the result as a whole. How alike two scans are is `likeness`'
part, what confounders tell is `confounders`', the printed form `audit_text`'s.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_chd.audit.confounders import audit_confounders
from monai_chd.audit.fingerprints import Scan, scan_files
from monai_chd.audit.likeness import Likeness, compare_all, score_limit
from monai_chd.audit.records import Item, problem, read_records
from monai_chd.cohort.identity import patient_key
from monai_chd.errors import UserError
from monai_chd.files import replacing

COPIES = ("same bytes", "near duplicate")
UNREAD = "cannot tell whether it is a copy of another"

LEAKAGE, INCOMPLETE = 1, 2
"""Exit codes: something leaks; nothing does as far as could be seen, but not all could be compared."""


def audit(
    datalist: str | Path,
    *,
    dataset_dir: str | Path | None = None,
    against: str | Path | None = None,
    processes: int = 2,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare all scans and patients of a datalist, and test what could stand in for disease.

    Args:
        datalist: file to audit; need not pass `read_datalist`.
        dataset_dir: folder the images are in; None: the datalist's own `root`.
        against: second datalist whose scans and patients must not be among the first's, as an external test set's.
        processes: scans read, and pairs compared, at once.
        progress: show bars.

    Returns:
        What was compared, `leakage`, `notes` (copies within one place), `problems` (records and files at fault; `compared` is
        false for those that an audit had to leave out), and what `confounders.audit_confounders` returns; plain JSON values.

    Raises:
        UserFileError: no such datalist.
        UserError: not a datalist at all, or fewer than one process.
    """
    if processes < 1:
        raise UserError(f"processes: expected 1 or more, came {processes}")
    started = time.perf_counter()
    items, classes, problems = read_records(Path(datalist), dataset_dir)
    other: list[Item] = []
    if against is not None:
        other, _, more = read_records(Path(against), cohort=str(against))
        problems += more
    everything = items + other
    paths = list(dict.fromkeys(item.path for item in everything))
    offsets = {item.path: item.hu_offset for item in reversed(everything)}
    scans = dict(
        zip(paths, scan_files([(p, offsets[p]) for p in paths], processes=processes, progress=progress), strict=True)
    )
    problems += _file_problems(everything, scans)
    alike, sample = _alike(everything, scans, processes, progress)
    limit = score_limit(sample)
    findings = _findings(everything, scans, [one for one in alike if (one.score or 0) >= limit])
    scored = sorted((one for one in alike if one.score is not None), key=lambda one: -(one.score or 0))
    return {
        "datalist": str(datalist),
        "against": None if against is None else str(against),
        "compared": _compared(items, other, scans, len(alike)),
        "near_duplicate_score": {
            "limit": round(limit, 4),
            "pairs_sampled": len(sample),
            "median_of_sample": round(float(np.median(sample)), 4) if sample else None,
            "closest": [_closest(everything, one) for one in scored if (one.score or 0) < limit][:3],
        },
        "leakage": [finding for finding in findings if finding["leakage"]],
        "notes": [finding for finding in findings if not finding["leakage"]],
        "problems": problems,
        **audit_confounders(items, scans, classes),
        "seconds": round(time.perf_counter() - started, 1),
    }


def has_leakage(result: Mapping[str, Any]) -> bool:
    """Whether a scan or patient stands in two places."""
    return bool(result["leakage"])


def exit_code(result: Mapping[str, Any]) -> int:
    """0, `LEAKAGE`, or `INCOMPLETE` when without leakage some scan or patient could not be compared."""
    if has_leakage(result):
        return LEAKAGE
    return 0 if all(one["compared"] for one in result["problems"]) else INCOMPLETE


def nothing_compared(result: Mapping[str, Any]) -> str:
    """What to tell a user none of whose scans could be compared; "" when some could."""
    counts = result["compared"]
    if counts["files_compared"]:
        return ""
    first = next((one["problem"] for one in result["problems"] if not one["compared"]), "")
    return (
        f"{result['datalist']}: none of its {counts['files']} scans could be compared; the first: {first}. Name the folder of "
        f"the scans with --dataset-dir, or prepare again"
    )


def write_audit(result: Mapping[str, Any], path: str | Path) -> None:
    """Write the result of `audit` as JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")


def _file_problems(items: Sequence[Item], scans: Mapping[Path, Scan]) -> list[dict[str, Any]]:
    """Files unread, or other than when the datalist was made."""
    problems = []
    for item in items:
        scan = scans[item.path]
        if scan.problem:
            problems.append(problem(item.image, item.where, f"{scan.problem}; {UNREAD}", compared=False))
        elif scan.cells is None:
            problems.append(problem(item.image, item.where, f"{item.path}: shows nothing; {UNREAD}", compared=False))
        if item.sha256 and scan.sha256 and scan.sha256 != item.sha256:
            text = f"{item.path}: the file has changed since the datalist was made (other sha256); prepare again"
            problems.append(problem(item.image, item.where, text, compared=True))
    return problems


def _digest(item: Item, scans: Mapping[Path, Scan]) -> str:
    """What the file's bytes are now, or were when the datalist was made, if it is gone."""
    return scans[item.path].sha256 or item.sha256


def _alike(
    items: Sequence[Item], scans: Mapping[Path, Scan], processes: int, progress: bool
) -> tuple[list[Likeness], list[float]]:
    """Likeness of all pairs of different files with something to compare, indices into `items`; and of a sample."""
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        if scans[item.path].cells is not None:
            first.setdefault(_digest(item, scans), index)
    shown = list(first.values())
    pairs = [
        (a, b) for b in range(len(shown)) for a in range(b) if not (items[shown[a]].cohort and items[shown[b]].cohort)
    ]
    found, sample = compare_all(
        [scans[items[index].path] for index in shown], pairs, processes=processes, progress=progress
    )
    return [one._replace(first=shown[one.first], second=shown[one.second]) for one in found], sample


def _findings(items: Sequence[Item], scans: Mapping[Path, Scan], copies: Iterable[Likeness]) -> list[dict[str, Any]]:
    """Patients in two places and pairs of copies, worst first; `leakage` is false within one place of one datalist."""
    same: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        same[_digest(item, scans) or str(item.path)].append(index)
    pairs: list[dict[str, Any]] = []
    for group in same.values():
        pairs += [_pair(items, a, b, "same bytes") for b in group for a in group if a < b]
    for one in copies:
        # a file stands once in the comparison, but perhaps several times in the datalist
        for a in same[_digest(items[one.first], scans)]:
            for b in same[_digest(items[one.second], scans)]:
                found = _pair(items, min(a, b), max(a, b), "near duplicate")
                pairs.append(found | {"score": round(one.score or 0, 4), "orientation": one.orientation})
    pairs = [pair for pair in pairs if pair["kind"]]
    shared = [map(patient_key, pair["patients"]) for pair in pairs if pair["kind"] not in (*COPIES, "")]
    told = {left for left, right in shared if left == right}
    findings = _patient_findings(items, told) + pairs
    return sorted(findings, key=lambda finding: not finding["leakage"])


def _pair(items: Sequence[Item], a: int, b: int, by: str) -> dict[str, Any]:
    """A finding about two records; its kind is empty when both are of the second datalist, which is not audited."""
    left, right = items[a], items[b]
    kind = by
    if left.cohort != right.cohort:
        kind = f"shared with {left.cohort or right.cohort}"
    elif left.cohort:
        kind = ""
    return _finding(kind, by, (left, right), left.place != right.place or left.cohort != right.cohort)


def _patient_findings(items: Sequence[Item], told: Container[str]) -> list[dict[str, Any]]:
    """Patients in two places of the first datalist, or in both datalists, unless a copy of a scan tells that already."""
    by_patient: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.patient:
            by_patient[patient_key(item.patient)].append(item)
    findings = []
    for key, own in by_patient.items():
        first = [item for item in own if not item.cohort]
        if len({item.place for item in first}) > 1:
            findings.append(_finding("patient in two places", "patient id", first, True))
        others = {item.cohort for item in own if item.cohort}
        if first and others and key not in told:
            findings.append(_finding(f"shared with {others.pop()}", "patient id", own, True))
    return findings


def _finding(kind: str, by: str, items: Sequence[Item], leakage: bool) -> dict[str, Any]:
    return {
        "kind": kind,
        "by": by,
        "leakage": leakage,
        "images": [item.image for item in items],
        "places": [f"{item.place} of {item.cohort}" if item.cohort else item.place for item in items],
        "patients": [item.patient for item in items],
        "labels": [item.label for item in items],
        "score": None,
        "orientation": None,
    }


def _closest(items: Sequence[Item], one: Likeness) -> dict[str, Any]:
    """A pair that is most alike without being a copy, for the reader to look at."""
    left, right = items[one.first], items[one.second]
    return {"images": [left.image, right.image], "score": round(one.score or 0, 4), "orientation": one.orientation}


def _compared(items: Sequence[Item], other: Sequence[Item], scans: Mapping[Path, Scan], pairs: int) -> dict[str, Any]:
    """How much was looked at."""
    return {
        "scans": len(items),
        "patients": len({patient_key(item.patient) for item in items if item.patient}),
        "places": dict(sorted(Counter(item.place for item in items).items())),
        "against_scans": len(other),
        "files_read": sum(not scan.problem for scan in scans.values()),
        "files_compared": sum(scan.cells is not None for scan in scans.values()),
        "files": len(scans),
        "pairs": pairs,
    }
