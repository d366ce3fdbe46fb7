"""Cohorts other than ImageCHD by a small file: which files are scans, whose they are, and where diagnoses stand.

Reads and checks that file only; `layout_files` has examples and says what each key means. What it points to is read by
`cohort_tables`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_chd.errors import UserError, UserFileError
from monai_chd.labels import CLASSES, FLAGS, UNDETERMINED

COHORTS = Path(__file__).with_name("layout_files")
"""Folder of the examples that come with the package, usable by name."""

TEXTS = ("name", "description", "id_pattern", "table", "id_column", "class_column", "rule")
KEYS = (*TEXTS, "flag_columns", "info_files", "values", "hu_offset", "absent_classes")
SOURCES = ("class_column", "flag_columns", "info_files")


@dataclass(frozen=True)
class CohortConfig:
    """A checked cohort file.

    Attributes:
        name, description: for people.
        id_pattern: found in the path of a scan below the folder; its one group is the patient. Other files are no scans.
        table: path below the folder, "" to search for the only one.
        id_column: column of ids, "" for the usual names.
        class_column: column whose cells `values` explains.
        flag_columns: what a 1 in a column means: a flag, several joined by +, a class, or "undetermined".
        info_files: pattern of the files with `key: value` lines, one a patient, its one group the patient.
        info_key: the key in them whose value `values` explains.
        values: what a cell or value means, as for `flag_columns`; None: it is a class name.
        rule: name or path, "" for the default.
        hu_offset: HU = value + this; None: found for each file.
        absent_classes: classes that nobody of this cohort can have.
    """

    name: str
    description: str = ""
    id_pattern: re.Pattern[str] | None = None
    table: str = ""
    id_column: str = ""
    class_column: str = ""
    flag_columns: Mapping[str, str] = field(default_factory=dict)
    info_files: re.Pattern[str] | None = None
    info_key: str = ""
    values: Mapping[str, str] | None = None
    rule: str = ""
    hu_offset: float | None = None
    absent_classes: tuple[str, ...] = ()


def shipped() -> list[str]:
    """Names of the examples that come with the package."""
    return sorted(path.stem for path in COHORTS.glob("*.json"))


def load_cohort(name: str | Path) -> CohortConfig:
    """Read a cohort file by the name of an example or by its path.

    Raises:
        UserFileError: neither.
        UserError: not JSON, or keys or values that are wrong; all are said at once.
    """
    path = COHORTS / f"{name}.json" if str(name) in shipped() else Path(name)
    if not path.is_file():
        raise UserFileError(
            f"{name}: no such cohort file; expected one of {', '.join(shipped())}, or a file like those in {COHORTS}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a cohort file, since it is not JSON ({error})") from error
    faults = _faults(content)
    if faults:
        raise UserError(f"{path}: not a cohort file: {'; '.join(faults)}. What each key means: {COHORTS / 'README.md'}")
    info = content.get("info_files", {})
    rule = content.get("rule", "")
    return CohortConfig(
        **{key: content[key] for key in TEXTS if key in content and key not in ("id_pattern", "rule")},
        id_pattern=re.compile(content["id_pattern"]) if "id_pattern" in content else None,
        flag_columns=content.get("flag_columns", {}),
        info_files=re.compile(info["pattern"]) if info else None,
        info_key=info.get("key", ""),
        values=content.get("values"),
        # a rule beside the cohort file is named as seen from there
        rule=str(path.parent / rule) if rule and (path.parent / rule).is_file() else rule,
        hu_offset=content.get("hu_offset"),
        absent_classes=tuple(content.get("absent_classes", ())),
    )


def _faults(content: Any) -> list[str]:
    """Everything that is wrong with the content of a cohort file."""
    if not isinstance(content, dict):
        return [f"expected an object with keys out of {', '.join(KEYS)}, got {type(content).__name__}"]
    faults = [f"unknown key {key!r}; known: {', '.join(KEYS)}" for key in content if key not in KEYS]
    faults += [
        f"{key}: expected text, got {content[key]!r}"
        for key in TEXTS
        if key in content and not (isinstance(content[key], str) and content[key])
    ]
    if "name" not in content:
        faults.append("key 'name' is missing")
    if len(given := [key for key in SOURCES if key in content]) != 1:
        faults.append(f"expected one of {', '.join(SOURCES)}, got {' and '.join(given) or 'none'}")
    if "values" in content and "flag_columns" in content:
        faults.append("values: says what cells of class_column or info_files mean; flag_columns holds 1, 0 or blank")
    if isinstance(content.get("id_pattern"), str):
        faults += _faults_of_pattern("id_pattern", content["id_pattern"])
    for key in ("flag_columns", "values"):
        if key in content:
            faults += _faults_of_meanings(key, content[key])
    if "info_files" in content:
        faults += _faults_of_info_files(content["info_files"])
    offset = content.get("hu_offset", 0)
    if isinstance(offset, bool) or not isinstance(offset, (int, float)):
        faults.append(f"hu_offset: expected a number, got {offset!r}")
    absent = content.get("absent_classes", [])
    if not isinstance(absent, list) or any(name not in CLASSES for name in absent):
        faults.append(f"absent_classes: expected names out of {', '.join(CLASSES)}, got {absent!r}")
    return faults


def _faults_of_pattern(key: str, pattern: str) -> list[str]:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        return [f"{key}: not a regular expression ({error}): {pattern!r}"]
    return [] if groups == 1 else [f"{key}: expected one group (…) that is the patient, got {groups} in {pattern!r}"]


def _faults_of_meanings(key: str, meanings: Any) -> list[str]:
    if not isinstance(meanings, dict) or not meanings:
        return [f"{key}: expected an object of names and what they mean, got {meanings!r}"]
    bad = [f"{name!r}: {meaning!r}" for name, meaning in meanings.items() if not _is_meaning(meaning)]
    if not bad:
        return []
    return [
        f"{key}: {', '.join(bad)}; expected a class ({', '.join(CLASSES)}), {UNDETERMINED!r}, or flags joined by + "
        f"({', '.join(FLAGS)})"
    ]


def _is_meaning(meaning: Any) -> bool:
    if not isinstance(meaning, str):
        return False
    return meaning in (*CLASSES, UNDETERMINED) or all(flag in FLAGS for flag in meaning.split("+"))


def _faults_of_info_files(info: Any) -> list[str]:
    if (
        not isinstance(info, dict)
        or set(info) != {"pattern", "key"}
        or not all(isinstance(v, str) for v in info.values())
    ):
        return [f"info_files: expected {{'pattern': …, 'key': …}} with text in both, got {info!r}"]
    return _faults_of_pattern("info_files", info["pattern"])
