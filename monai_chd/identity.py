"""Which ids are one patient: the one rule for joining, splitting, reading a datalist, auditing and refusing a leaked test.

Blanks around an id do not count, nor does how an accent is stored (Unicode NFC). Ids of decimal digits are compared as numbers
(07 is 7), all others as text (a07 is not a7). Finding an id in the name of a file is `cohort.naming`'s part.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def patient_key(patient: object) -> str:
    """What all spellings of one patient's id have in common, and those of no other patient."""
    text = unicodedata.normalize("NFC", str(patient)).strip()
    if not text.isdecimal():
        return text
    return "".join(str(unicodedata.decimal(digit)) for digit in text).lstrip("0") or "0"


def same_patient(left: object, right: object) -> bool:
    """Whether two ids are one patient's."""
    return patient_key(left) == patient_key(right)


def first_spellings(patients: Iterable[object]) -> dict[str, str]:
    """The spelling that each patient is written out with, by `patient_key`: the first, without the blanks around it."""
    spelled: dict[str, str] = {}
    for patient in patients:
        spelled.setdefault(patient_key(patient), str(patient).strip())
    return spelled
