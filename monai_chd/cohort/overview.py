"""What `prepare` tells about the datalist it made: counts, what was left out, how scans are stored, what is odd.

Takes everything from the files written; decides nothing.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_chd.cohort import imagechd
from monai_chd.cohort.rules import UNDETERMINED
from monai_chd.labels import CLASSES, NORMAL
from monai_chd.wording import some_of, text_table

MOST_NAMES = 8
NORMAL_MEANS = {
    "unflagged": "everybody without a listed diagnosis counts as normal; other sources give 16 of ImageCHD's 21 such patients "
    "one, so that a score measures whether a diagnosis is listed (--normal uncontradicted or confirmed asks for more)",
    "uncontradicted": "without a listed diagnosis only those count as normal for whom no other source lists one; few are left "
    "(5 in ImageCHD), too few for an estimate of their class",
    "confirmed": "only those count as normal whom the authors' earlier table calls so; almost none are left (2 in ImageCHD), so "
    "nothing can be said of their class",
}


def summary(datalist: dict[str, Any]) -> str:
    """Class by fold counts (cases) as aligned text."""
    folds = sorted({record["fold"] for record in datalist["training"]})
    header = ["class", *(f"fold {fold}" for fold in folds), "training", "test", "all"]
    rows = []
    for index, name in enumerate(datalist["classes"]):
        training = [record["fold"] for record in datalist["training"] if record["label"] == index]
        test = sum(record["label"] == index for record in datalist["test"])
        rows.append([name, *(training.count(fold) for fold in folds), len(training), test, len(training) + test])
    rows.append(["all", *(sum(int(row[i]) for row in rows) for i in range(1, len(header)))])
    return text_table([header, *rows])


def report(datalist: dict[str, Any], out: Path) -> str:
    """What `prepare` tells: the counts, what was left out and why, how intensities were read, and where the files are."""
    with (out / "excluded.csv").open(newline="", encoding="utf-8") as file:
        excluded = list(csv.DictReader(file))
    records = [*datalist["training"], *datalist["test"]]
    lines = [summary(datalist), "", *_policy(datalist)]
    lines.append(f"left out: {len(excluded)}" + (f" (why: {out / 'excluded.csv'})" if excluded else ""))
    reasons = Counter(
        re.sub(rf"^({UNDETERMINED}|{imagechd.NO_DIAGNOSIS}): .*", r"\1", row["reason"]) for row in excluded
    )
    lines += [f"  {count} {reason}" for reason, count in reasons.most_common()]
    lines += [*_intensity(records), *_spacing(records), *_remarks(records)]
    if any(record["label"] == CLASSES.index(NORMAL) and "flags" in record for record in datalist["training"]):
        lines.append("note: Normal means that the table lists no diagnosis, which is not the same as a normal heart")
    lines += [f"warning: {note}" for note in datalist.get("notes", ())]
    lines.append(f"datalist: {out / 'datalist.json'}")
    return "\n".join(lines)


def _policy(datalist: dict[str, Any]) -> list[str]:
    """The rule and what unflagged means, with what follows from it."""
    rule, normal = datalist.get("rule"), datalist.get("normal")
    if not rule:
        return []
    return [f"rule {rule['name']}: {rule['description']}", f"normal {normal}: {NORMAL_MEANS[str(normal)]}"]


def _intensity(records: Sequence[dict[str, Any]]) -> list[str]:
    """How values become HU, and a table of the offsets by class where there is more than one."""
    offsets = Counter(record.get("hu_offset") for record in records)
    lines = []
    for offset, count in offsets.most_common():
        how = (
            "cine in arbitrary units, scaled by its 1st and 99th percentile"
            if offset is None
            else f"HU = value {offset:+g}"
        )
        lines.append(f"intensity: {count} scans, {how}")
    rows: list[list[object]] = [["HU offset", *CLASSES, "all", "patients"]]
    for offset, count in offsets.most_common():
        own = [record for record in records if record.get("hu_offset") == offset]
        classes = [sum(record["label"] == index for record in own) for index in range(len(CLASSES))]
        rows.append(["none" if offset is None else f"{offset:+g}", *classes, count, _names(own)])
    return [*lines, text_table(rows)]


def _spacing(records: Sequence[dict[str, Any]]) -> list[str]:
    known = [record for record in records if record["confounders"]["spacing_mm"]]
    lines = []
    if known:
        sizes = [record["confounders"]["spacing_mm"] for record in known]
        ranges = " x ".join(f"{min(axis):g}…{max(axis):g}" for axis in zip(*sizes, strict=True))
        lines.append(f"spacing: {len(known)} scans, {ranges} mm")
    if unknown := len(records) - len(known):
        lines.append(
            f"spacing: {unknown} scans in voxel units, no millimetres (the header's 1 x 1 x 1 of unknown unit means nothing, "
            f"and no image-info sheet tells more)"
        )
    return lines


def _remarks(records: Sequence[dict[str, Any]]) -> list[str]:
    """Remarks on single scans, by subject."""
    subjects: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        for subject in {note.partition(":")[0] for note in record.get("notes", ())}:
            subjects.setdefault(subject, []).append(record)
    return [f"remark: {len(own)} scans, {subject}: {_names(own)}" for subject, own in sorted(subjects.items())]


def _names(records: Sequence[dict[str, Any]]) -> str:
    return some_of(sorted({str(record["patient"]) for record in records}), MOST_NAMES)
