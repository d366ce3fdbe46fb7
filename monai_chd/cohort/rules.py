"""The class rule: which diagnosis flags make which class, or which patients are used at all, as a file of `rule_files` says.

What no flag means is `imagechd`'s part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from monai_chd.cohort.definitions import Definitions
from monai_chd.errors import UserError
from monai_chd.identity import patient_key
from monai_chd.labels import FLAGS, NORMAL

RULES = Definitions("rule", Path(__file__).with_name("rule_files"))
DEFAULT = "strict"

UNDETERMINED = "undetermined"
"""What a rule says of flags that do not determine a class; no class itself."""


class Step(NamedTuple):
    """One step of a rule: the first whose flags a patient has decides.

    Attributes:
        flags: any of these.
        label: one of `labels.CLASSES`, or None when they leave the class open.
        reason: why they do.
    """

    flags: frozenset[str]
    label: str | None
    reason: str = ""


@dataclass(frozen=True)
class Rule:
    """A checked rule.

    Attributes:
        name: as the file says.
        description: one paragraph for people.
        steps: tried in order, every flag in exactly one.
        ids: class of each patient of a fixed list, by `identity.patient_key`; None: no list, everybody is classed by the steps.
        cohort: the cohort whose ids the list is of, "" for any.
    """

    name: str
    description: str
    steps: tuple[Step, ...]
    ids: dict[str, str] | None = None
    cohort: str = ""

    def deciding_step(self, flags: Iterable[str]) -> Step:
        """The first step that a patient's flags meet; without any flag, one that says `Normal`.

        Args:
            flags: names out of `labels.FLAGS` that are present.

        Raises:
            UserError: a name that is no flag.
        """
        present = set(flags)
        unknown = sorted(present - set(FLAGS))
        if unknown:
            raise UserError(f"unknown diagnosis flag {', '.join(unknown)}: expected names out of {', '.join(FLAGS)}")
        return next((step for step in self.steps if step.flags & present), Step(frozenset(), NORMAL))

    def verdict(self, patient: str, flags: Iterable[str]) -> tuple[str | None, str]:
        """Class of a patient, or None and why there is none.

        Args:
            patient: id, looked up when the rule has a list.
            flags: names out of `labels.FLAGS`, in the order to name them.

        Raises:
            UserError: a name that is no flag.
        """
        flags = tuple(flags)
        step = self.deciding_step(flags)
        if self.ids is not None:
            label = self.ids.get(patient_key(patient))
            return label, "" if label else f"not in the list of patients of rule {self.name}"
        return step.label, "" if step.label else f"{UNDETERMINED}: {'+'.join(flags)} {step.reason}"

    def conflicts(self, patients: dict[str, tuple[str, ...]]) -> list[str]:
        """Where the list contradicts the flags, or names patients that are not there.

        Args:
            patients: flags of each patient of the table, by `identity.patient_key`.
        """
        listed = self.ids or {}
        found = []
        for patient, label in sorted(listed.items()):
            if patient in patients and (by_flags := self.deciding_step(patients[patient]).label) != label:
                flags = "+".join(patients[patient]) or "no flag"
                verdict = by_flags or f"{UNDETERMINED} class"
                found.append(f"rule {self.name}: {patient} is listed as {label}, the table has {flags} ({verdict})")
        absent = sorted(set(listed) - set(patients))
        if absent:
            found.append(f"rule {self.name}: {len(absent)} listed patients are not in the table ({', '.join(absent)})")
        return found

    def record(self) -> dict[str, Any]:
        """What a datalist says of the rule."""
        return {"name": self.name, "description": self.description}


def load_rule(name: str | Path = DEFAULT) -> Rule:
    """Read a rule by the name of one that comes with the package or the path of a file.

    Raises:
        UserFileError: neither.
        UserError: not JSON, or not a rule; all that is wrong is said at once.
    """
    content = RULES.read(RULES.find(name), _faults)
    ids = content.get("ids")
    return Rule(
        content["name"],
        content["description"],
        tuple(
            Step(frozenset(s["flags"]), None if s["class"] == UNDETERMINED else s["class"], s.get("reason", ""))
            for s in content["steps"]
        ),
        None if ids is None else {patient_key(patient): label for label, listed in ids.items() for patient in listed},
        content.get("cohort", ""),
    )


def _faults(content: dict[str, Any]) -> list[str]:
    """What a schema cannot say: every flag in exactly one step, every patient in one list."""
    faults = []
    if "steps" in content:
        places: dict[str, list[int]] = {}
        for number, step in enumerate(content["steps"], start=1):
            for flag in step["flags"]:
                places.setdefault(flag, []).append(number)
        for flag, numbers in places.items():
            if len(numbers) > 1:
                faults.append(f"flag {flag} stands in steps {' and '.join(map(str, numbers))}; give it to one")
        # a patient with such a flag alone would pass for one without any diagnosis
        if absent := [flag for flag in FLAGS if flag not in places]:
            faults.append(f"no step names {', '.join(absent)}; every flag needs a class or {UNDETERMINED!r}")
    counts = Counter(patient_key(patient) for listed in content.get("ids", {}).values() for patient in listed)
    if twice := [patient for patient, count in counts.items() if count > 1]:
        faults.append(f"ids: {', '.join(twice)} listed more than once")
    return faults
