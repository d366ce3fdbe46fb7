"""What is known of ImageCHD itself: its 110 patients, their flags as released, and what speaks for or against "normal".

Knows no files of a user: it is asked about rows that were read elsewhere.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from monai_chd.identity import patient_key
from monai_chd.labels import FLAGS
from monai_chd.wording import some_of

PATIENTS = Path(__file__).with_name("imagechd.csv")
MINIMUM = 20
"""Fewer ids say too little about which cohort they are of: 1001, 1002, … are anybody's."""
SHARE = 0.9
"""Part of the ids, and of the flags of these, that have to be ImageCHD's."""
ALIKE = 0.5
"""Part of the patients whose flags have to be ImageCHD's for a table to be a changed one of it; others use its ids, too."""

NORMALS = ("unflagged", "uncontradicted", "confirmed")
"""What it takes to be normal: no diagnosis listed; no other source that lists one; a source that says normal."""
TIERS = {"unflagged": ("A", "B", "C1", "C2"), "uncontradicted": ("A", "B"), "confirmed": ("A",)}
NO_DIAGNOSIS = "no listed diagnosis"
"""Beginning of the reason why a patient without a flag is left out."""


class Known(NamedTuple):
    """A patient of ImageCHD as released.

    Attributes:
        flags: in the order of `labels.FLAGS`.
        shape: voxels (X, Y, Z) of the volume.
        tier: for a patient without flags: A the authors' earlier table says normal, B no other source lists anything, C1 the
            authors' earlier table lists a diagnosis, C2 only the re-review of 2021 does.
        chd68: diagnoses of the authors' earlier table, joined by +.
        review2021: those of the re-review of 2021, joined by +.
        note: a remark of that re-review.
    """

    flags: tuple[str, ...]
    shape: tuple[int, int, int]
    tier: str
    chd68: str
    review2021: str
    note: str


@cache
def patients() -> Mapping[str, Known]:
    """The 110 patients, by `identity.patient_key`."""
    with PATIENTS.open(newline="", encoding="utf-8") as file:
        return {
            row["index"]: Known(
                tuple(flag for flag in FLAGS if row[flag] == "1"),
                (int(row["shape_x"]), int(row["shape_y"]), int(row["shape_z"])),
                row["tier"],
                row["chd68"].replace("|", "+"),
                row["review2021"].replace("|", "+"),
                row["note"],
            )
            for row in csv.DictReader(file)
        }


def known_patient(patient: str) -> Known | None:
    """What is known of a patient; None for an id that ImageCHD has not."""
    return patients().get(patient_key(patient))


def mismatch(flags: Mapping[str, tuple[str, ...]]) -> str:
    """Why a table is not that of ImageCHD (or a large part of it); "" when it is.

    Args:
        flags: of each patient of the table, by `identity.patient_key`.
    """
    known = [patient for patient in flags if patient in patients()]
    if len(known) < MINIMUM or len(known) < SHARE * len(flags):
        return f"{len(known)} of its {len(flags)} ids are ids of ImageCHD"
    same = sum(set(flags[patient]) == set(patients()[patient].flags) for patient in known)
    if same < SHARE * len(known):
        return f"its ids are those of ImageCHD, but only {same} of {len(known)} patients have the flags of ImageCHD"
    return ""


def differences(flags: Mapping[str, tuple[str, ...]]) -> list[str]:
    """How a changed table of ImageCHD differs from the released one; nothing for that of another cohort.

    ImageCHD is told by ids and flags together: ids alone are anybody's (a phantom's are the same).

    Args:
        flags: of each patient of the table, by `identity.patient_key`.
    """
    known = [patient for patient in flags if patient in patients()]
    if len(known) < MINIMUM or len(known) < SHARE * len(flags):
        return []
    if sum(set(flags[patient]) == set(patients()[patient].flags) for patient in known) < ALIKE * len(known):
        return []
    found = []
    if absent := [patient for patient in patients() if patient not in flags]:
        found.append(f"the table lacks {len(absent)} of ImageCHD's {len(patients())} patients: {', '.join(absent)}")
    if extra := [patient for patient in flags if patient not in patients()]:
        found.append(f"the table has {len(extra)} patients that ImageCHD has not: {', '.join(extra)}")
    here = Counter(flag for patient in known for flag in flags[patient])
    released = Counter(flag for patient in known for flag in patients()[patient].flags)
    for flag in FLAGS:
        who = [p for p in known if (flag in flags[p]) != (flag in patients()[p].flags)]
        if who:
            found.append(
                f"{flag}: {here[flag]} patients, {released[flag]} in ImageCHD as released; they differ in {some_of(who, 12)}"
            )
    return found


def exclusion_reason(patient: str, normal: str) -> str:
    """Why a patient of ImageCHD without a flag does not count as normal; "" when it does.

    Args:
        patient: id.
        normal: one of `NORMALS`.
    """
    known = known_patient(patient)
    if known is None or not known.tier:
        return "" if normal == NORMALS[0] else f"{NO_DIAGNOSIS}: not among the patients whose other sources are known"
    if known.tier in TIERS[normal]:
        return ""
    evidence = [
        f"CHD68 lists {known.chd68}" if known.chd68 else "not in CHD68",
        f"2021 re-review lists {known.review2021}" if known.review2021 else "2021 re-review lists nothing",
    ]
    if known.note:
        evidence.append(f"its remark: {known.note}")
    return f"{NO_DIAGNOSIS}: tier {known.tier} ({'; '.join(evidence)}), left out by normal={normal}"


def contrast(patient: str) -> bool | None:
    """Whether the scan of a patient of ImageCHD is with contrast; None for an unknown id."""
    known = known_patient(patient)
    return None if known is None else known.note != "no contrast"
