"""Label policies: data files that say which diagnosis flags make which class, or which patients are used at all.

Reads and checks the files; `rule_files/rule.schema.json` says the same for editors. What no flag means is `imagechd`'s part.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_chd.errors import UserError, UserFileError
from monai_chd.labels import CLASSES, FLAGS, RULES, UNDETERMINED, Step, deciding_step, steps_of

DEFAULT = "strict"
KEYS = ("name", "description", "cohort", "steps", "ids")
STEP_KEYS = ("flags", "class", "reason")
COHORTS = ("ImageCHD",)


@dataclass(frozen=True)
class Rule:
    """A checked label policy.

    Attributes:
        name: as the file says.
        description: one paragraph for people.
        steps: tried in order, every flag in exactly one.
        ids: class of each patient of a fixed list; None: no list, everybody is classed by the steps.
        cohort: the cohort whose ids the list is of, "" for any.
    """

    name: str
    description: str
    steps: tuple[Step, ...]
    ids: dict[str, str] | None = None
    cohort: str = ""

    def verdict(self, patient: str, flags: Iterable[str]) -> tuple[str | None, str]:
        """Class of a patient, or None and why there is none.

        Args:
            patient: id, looked up when the rule has a list.
            flags: names out of `labels.FLAGS`, in the order to name them.

        Raises:
            UserError: a name that is no flag.
        """
        flags = tuple(flags)
        step = deciding_step(flags, self.steps)
        if self.ids is not None:
            label = self.ids.get(patient)
            return label, "" if label else f"not in the list of patients of rule {self.name}"
        return step.label, "" if step.label else f"{UNDETERMINED}: {'+'.join(flags)} {step.reason}"

    def conflicts(self, patients: dict[str, tuple[str, ...]]) -> list[str]:
        """Where the list contradicts the flags, or names patients that are not there.

        Args:
            patients: flags of each patient of the table.
        """
        listed = self.ids or {}
        found = []
        for patient, label in sorted(listed.items()):
            if patient in patients and (by_flags := deciding_step(patients[patient], self.steps).label) != label:
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


def shipped() -> list[str]:
    """Names of the rules that come with the package."""
    return sorted(path.stem for path in RULES.glob("*.json") if not path.stem.endswith(".schema"))


def load_rule(name: str | Path = DEFAULT) -> Rule:
    """Read a rule by the name of a shipped one or the path of a file.

    Raises:
        UserFileError: neither.
        UserError: not JSON, or not a rule; all that is wrong is said at once.
    """
    path = RULES / f"{name}.json" if str(name) in shipped() else Path(name)
    if not path.is_file():
        raise UserFileError(
            f"{name}: no such rule; expected one of {', '.join(shipped())}, or a file like those in {RULES}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a rule, since it is not JSON ({error})") from error
    faults = _faults(content)
    if faults:
        raise UserError(f"{path}: not a rule: {'; '.join(faults)}. Its form: {RULES / 'rule.schema.json'}")
    ids = content.get("ids")
    return Rule(
        content["name"],
        content["description"],
        steps_of(content["steps"]),
        None if ids is None else {str(patient): label for label, listed in ids.items() for patient in listed},
        content.get("cohort", ""),
    )


def _faults(content: Any) -> list[str]:
    """Everything that is wrong with the content of a rule file."""
    if not isinstance(content, dict):
        return [f"expected an object with the keys {', '.join(KEYS)}, got {type(content).__name__}"]
    faults = [f"key {key!r} is missing" for key in ("name", "description", "steps") if key not in content]
    faults += _unknown_keys(content, KEYS, "")
    faults += [
        f"{key}: expected text, got {content[key]!r}"
        for key in ("name", "description")
        if key in content and not (isinstance(content[key], str) and content[key])
    ]
    if content.get("cohort", COHORTS[0]) not in COHORTS:
        faults.append(f"cohort: expected {' or '.join(COHORTS)}, got {content['cohort']!r}")
    if "steps" in content:
        faults += _faults_of_steps(content["steps"])
    if "ids" in content:
        faults += _faults_of_ids(content["ids"])
    return faults


def _unknown_keys(content: dict[str, Any], known: Iterable[str], where: str) -> list[str]:
    return [f"{where}unknown key {key!r}" for key in content if key not in known]


def _faults_of_steps(steps: Any) -> list[str]:
    if not isinstance(steps, list) or not steps:
        return [f"steps: expected a list of one step or more, got {steps!r}"]
    faults = [fault for number, step in enumerate(steps, start=1) for fault in _faults_of_step(step, number)]
    if faults:
        return faults
    places: dict[str, list[int]] = {}
    for number, step in enumerate(steps, start=1):
        for flag in step["flags"]:
            places.setdefault(flag, []).append(number)
    for flag, numbers in places.items():
        if len(numbers) > 1:
            faults.append(f"flag {flag} stands in steps {' and '.join(map(str, numbers))}; give it to one")
    # a patient with such a flag alone would pass for one without any diagnosis
    if absent := [flag for flag in FLAGS if flag not in places]:
        faults.append(f"no step names {', '.join(absent)}; every flag needs a class or {UNDETERMINED!r}")
    return faults


def _faults_of_step(step: Any, number: int) -> list[str]:
    where = f"step {number}: "
    if not isinstance(step, dict):
        return [f"{where}expected an object with flags and class, got {step!r}"]
    faults = [f"{where}key {key!r} is missing" for key in STEP_KEYS[:2] if key not in step]
    faults += _unknown_keys(step, STEP_KEYS, where)
    flags, label, reason = (step.get(key) for key in STEP_KEYS)
    if "flags" in step:
        if not isinstance(flags, list) or not flags:
            faults.append(f"{where}flags: expected a list of names, got {flags!r}")
        elif unknown := [flag for flag in flags if flag not in FLAGS]:
            faults.append(f"{where}unknown flag {', '.join(map(repr, unknown))}; known: {', '.join(FLAGS)}")
    if "class" in step and label not in (*CLASSES, UNDETERMINED):
        faults.append(f"{where}unknown class {label!r}; expected one of {', '.join((*CLASSES, UNDETERMINED))}")
    if (label == UNDETERMINED or "reason" in step) and not (isinstance(reason, str) and reason):
        faults.append(f"{where}{UNDETERMINED} needs a reason in words, got {reason!r}")
    return faults


def _faults_of_ids(ids: Any) -> list[str]:
    if not isinstance(ids, dict) or not ids:
        return [f"ids: expected lists of patients by class, got {ids!r}"]
    faults = [
        f"ids: unknown class {label!r}; expected one of {', '.join(CLASSES)}" for label in ids if label not in CLASSES
    ]
    for label, listed in ids.items():
        if not isinstance(listed, list) or not listed or any(type(patient) not in (int, str) for patient in listed):
            faults.append(f"ids: expected a list of ids for {label}, got {listed!r}")
    if not faults:
        counts = Counter(str(patient) for listed in ids.values() for patient in listed)
        twice = [patient for patient, count in counts.items() if count > 1]
        faults += [f"ids: {', '.join(twice)} listed more than once"] if twice else []
    return faults
