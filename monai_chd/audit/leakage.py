"""Audits a datalist: scans or patients in two places, and whether something other than disease tells the classes apart.

Owns which pair is leakage, what could not be compared, and the result as a whole. How alike two scans are is `likeness`'
part, what confounders tell is `confounders`', the printed form `text`'s.
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
from monai_chd.audit.likeness import Likeness, score_limit, score_pairs
from monai_chd.audit.records import TEST_PART, Record, problem, read_records
from monai_chd.errors import UserError
from monai_chd.files import write_text
from monai_chd.identity import patient_key
from monai_chd.schemas import read_checked

COPIES = ("same bytes", "near duplicate")
SCHEMA = Path(__file__).with_name("audit.schema.json")
UNREAD = "cannot tell whether it is a copy of another"

LEAKAGE, INCOMPLETE = 1, 2
"""Exit codes: something leaks; nothing does as far as could be seen, but not all could be compared."""


def audit(
    datalist: str | Path,
    *,
    dataset_dir: str | Path | None = None,
    against: str | Path | None = None,
    trained: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    processes: int = 2,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare all scans and patients of a datalist, and test what could stand in for disease.

    Args:
        datalist: file to audit; need not pass `read_datalist`.
        dataset_dir: folder the images are in; None: the datalist's own `root`.
        against: second datalist whose scans and patients must not be among the first's, as an external test set's.
        trained: what weights were trained on, `patient` and `sha256`, by their name; none of it may be in the test part.
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
    records, classes, problems = read_records(Path(datalist), dataset_dir)
    other: list[Record] = []
    if against is not None:
        other, _, more = read_records(Path(against), cohort=str(against))
        problems += more
    everything = records + other
    paths = list(dict.fromkeys(record.path for record in everything))
    offsets = {record.path: record.hu_offset for record in reversed(everything)}
    scans = dict(
        zip(paths, scan_files([(p, offsets[p]) for p in paths], processes=processes, progress=progress), strict=True)
    )
    problems += _file_problems(everything, scans)
    alike, sample = _alike(everything, scans, processes, progress)
    limit = score_limit(sample)
    findings = _seen_by_weights(records, scans, trained or {})
    findings += _findings(everything, scans, [one for one in alike if (one.score or 0) >= limit])
    scored = sorted((one for one in alike if one.score is not None), key=lambda one: -(one.score or 0))
    return {
        "datalist": str(datalist),
        "against": None if against is None else str(against),
        "weights": sorted(trained or {}),
        "compared": _compared(records, other, scans, len(alike)),
        "near_duplicate_score": {
            "limit": round(limit, 4),
            "pairs_sampled": len(sample),
            "median_of_sample": round(float(np.median(sample)), 4) if sample else None,
            "closest": [_closest(everything, one) for one in scored if (one.score or 0) < limit][:3],
        },
        "leakage": [finding for finding in findings if finding["leakage"]],
        "notes": [finding for finding in findings if not finding["leakage"]],
        "problems": problems,
        **audit_confounders(records, scans, classes),
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
    write_text(path, json.dumps(result, indent=2, allow_nan=False) + "\n")


def read_audit(path: Path) -> dict[str, Any] | None:
    """What `write_audit` wrote; None when nothing is there.

    Raises:
        UserError: something else by that name.
    """
    if not path.is_file():
        return None
    return read_checked(path, SCHEMA, "an audit", "; write it again with `monai-chd audit`, or move it away")  # type: ignore[no-any-return]


def _file_problems(records: Sequence[Record], scans: Mapping[Path, Scan]) -> list[dict[str, Any]]:
    """Files unread, or other than when the datalist was made."""
    problems = []
    for record in records:
        scan = scans[record.path]
        if scan.problem:
            problems.append(problem(record.image, record.where, f"{scan.problem}; {UNREAD}", compared=False))
        elif scan.cells is None:
            problems.append(
                problem(record.image, record.where, f"{record.path}: shows nothing; {UNREAD}", compared=False)
            )
        if record.sha256 and scan.sha256 and scan.sha256 != record.sha256:
            text = f"{record.path}: the file has changed since the datalist was made (other sha256); prepare again"
            problems.append(problem(record.image, record.where, text, compared=True))
    return problems


def _digest(record: Record, scans: Mapping[Path, Scan]) -> str:
    """What the file's bytes are now, or were when the datalist was made, if it is gone."""
    return scans[record.path].sha256 or record.sha256


def _alike(
    records: Sequence[Record], scans: Mapping[Path, Scan], processes: int, progress: bool
) -> tuple[list[Likeness], list[float]]:
    """Likeness of all pairs of different files with something to compare, indices into `records`; and of a sample."""
    first: dict[str, int] = {}
    for index, record in enumerate(records):
        if scans[record.path].cells is not None:
            first.setdefault(_digest(record, scans), index)
    shown = list(first.values())
    pairs = [
        (a, b)
        for b in range(len(shown))
        for a in range(b)
        if not (records[shown[a]].cohort and records[shown[b]].cohort)
    ]
    found, sample = score_pairs(
        [scans[records[index].path] for index in shown], pairs, processes=processes, progress=progress
    )
    return [one._replace(first=shown[one.first], second=shown[one.second]) for one in found], sample


def _findings(
    records: Sequence[Record], scans: Mapping[Path, Scan], copies: Iterable[Likeness]
) -> list[dict[str, Any]]:
    """Patients in two places and pairs of copies, worst first; `leakage` is false within one place of one datalist."""
    same: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        same[_digest(record, scans) or str(record.path)].append(index)
    pairs: list[dict[str, Any]] = []
    for group in same.values():
        pairs += [_pair(records, a, b, "same bytes") for b in group for a in group if a < b]
    for one in copies:
        # a file stands once in the comparison, but perhaps several times in the datalist
        for a in same[_digest(records[one.first], scans)]:
            for b in same[_digest(records[one.second], scans)]:
                found = _pair(records, min(a, b), max(a, b), "near duplicate")
                pairs.append(found | {"score": round(one.score or 0, 4), "orientation": one.orientation})
    pairs = [pair for pair in pairs if pair["kind"]]
    shared = [map(patient_key, pair["patients"]) for pair in pairs if pair["kind"] not in (*COPIES, "")]
    told = {left for left, right in shared if left == right}
    findings = _patient_findings(records, told) + pairs
    return sorted(findings, key=lambda finding: not finding["leakage"])


def _seen_by_weights(
    records: Sequence[Record], scans: Mapping[Path, Scan], trained: Mapping[str, Mapping[str, Sequence[str]]]
) -> list[dict[str, Any]]:
    """Patients and scans of the test part that weights were trained on, those of a structure network among them."""
    findings = []
    for name, seen in sorted(trained.items()):
        patients, files = set(map(patient_key, seen.get("patient", ()))), set(seen.get("sha256", ()))
        for record in (record for record in records if record.place == TEST_PART):
            by_patient = bool(record.patient) and patient_key(record.patient) in patients
            if by_patient or _digest(record, scans) in files:
                found = _finding("seen by weights", "patient id" if by_patient else "same bytes", (record,), True)
                found["places"] = [f"{record.place}; {name} was trained on it"]
                findings.append(found)
    return findings


def _pair(records: Sequence[Record], a: int, b: int, by: str) -> dict[str, Any]:
    """A finding about two records; its kind is empty when both are of the second datalist, which is not audited."""
    left, right = records[a], records[b]
    kind = by
    if left.cohort != right.cohort:
        kind = f"shared with {left.cohort or right.cohort}"
    elif left.cohort:
        kind = ""
    return _finding(kind, by, (left, right), left.place != right.place or left.cohort != right.cohort)


def _patient_findings(records: Sequence[Record], told: Container[str]) -> list[dict[str, Any]]:
    """Patients in two places of the first datalist, or in both datalists, unless a copy of a scan tells that already."""
    by_patient: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.patient:
            by_patient[patient_key(record.patient)].append(record)
    findings = []
    for key, own in by_patient.items():
        first = [record for record in own if not record.cohort]
        if len({record.place for record in first}) > 1:
            findings.append(_finding("patient in two places", "patient id", first, True))
        others = {record.cohort for record in own if record.cohort}
        if first and others and key not in told:
            findings.append(_finding(f"shared with {others.pop()}", "patient id", own, True))
    return findings


def _finding(kind: str, by: str, records: Sequence[Record], leakage: bool) -> dict[str, Any]:
    return {
        "kind": kind,
        "by": by,
        "leakage": leakage,
        "images": [record.image for record in records],
        "places": [f"{record.place} of {record.cohort}" if record.cohort else record.place for record in records],
        "patients": [record.patient for record in records],
        "labels": [record.label for record in records],
        "score": None,
        "orientation": None,
    }


def _closest(records: Sequence[Record], one: Likeness) -> dict[str, Any]:
    """A pair that is most alike without being a copy, for the reader to look at."""
    left, right = records[one.first], records[one.second]
    return {"images": [left.image, right.image], "score": round(one.score or 0, 4), "orientation": one.orientation}


def _compared(
    records: Sequence[Record], other: Sequence[Record], scans: Mapping[Path, Scan], pairs: int
) -> dict[str, Any]:
    """How much was looked at."""
    return {
        "scans": len(records),
        "patients": len({patient_key(record.patient) for record in records if record.patient}),
        "places": dict(sorted(Counter(record.place for record in records).items())),
        "against_scans": len(other),
        "files_read": sum(not scan.problem for scan in scans.values()),
        "files_compared": sum(scan.cells is not None for scan in scans.values()),
        "files": len(scans),
        "pairs": pairs,
    }
