"""Finds and checks the JSON files that define what a cohort means: rules (flags to classes) and layouts (where things stand).

The form of each kind is its schema, beside the files that come with the package, and stands nowhere else. What a file means is
`rules`' and `layouts`' part.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, ValidationError

from monai_chd.errors import UserError, UserFileError

TYPES = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
}
EMPTY = {"minLength": "text that is not empty", "minItems": "a list of one or more", "minProperties": "one key or more"}
LONGEST = 60
"""Characters of a value in a message."""


@dataclass(frozen=True)
class Definitions:
    """A kind of definition.

    Attributes:
        kind: what to call one: "rule".
        folder: those that come with the package, usable by name, and `KIND.schema.json`.
    """

    kind: str
    folder: Path

    @property
    def names(self) -> list[str]:
        """Those that come with the package."""
        return sorted(path.stem for path in self.folder.glob("*.json") if path != self.schema_file)

    @property
    def schema_file(self) -> Path:
        """The form of a file."""
        return self.folder / f"{self.kind}.schema.json"

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The form of a file, as JSON schema (draft 7)."""
        return json.loads(self.schema_file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def find(self, name: str | Path) -> Path:
        """The file of one that comes with the package, or a user's own.

        Raises:
            UserFileError: neither.
        """
        path = self.folder / f"{name}.json" if str(name) in self.names else Path(name)
        if not path.is_file():
            raise UserFileError(
                f"{name}: no such {self.kind}; expected one of {', '.join(self.names)}, or a file like those in {self.folder}"
            )
        return path

    def read(self, path: Path, beyond: Callable[[dict[str, Any]], list[str]]) -> dict[str, Any]:
        """The content of a file.

        Args:
            path: of the file.
            beyond: finds what a schema cannot say, in the top-level keys that the schema finds right.

        Raises:
            UserError: not JSON, or wrong; all that is wrong is said at once.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a {self.kind}, since it is not JSON ({error})") from error
        errors = list(Draft7Validator(self.schema).iter_errors(content))
        faults = [_words(error) for error in errors]
        if isinstance(content, dict):
            wrong = {error.absolute_path[0] for error in errors if error.absolute_path}
            faults += beyond({key: value for key, value in content.items() if key not in wrong})
        if faults:
            listed = "; ".join(dict.fromkeys(faults))
            raise UserError(f"{path}: not a {self.kind}: {listed}. Its form: {self.schema_file}")
        return content  # type: ignore[no-any-return]


def _words(error: ValidationError) -> str:
    """What is wrong in one place, for a person: where (`steps 1, flags 2`, counted from 1), what was expected, what came."""
    place: list[str] = []
    for step in error.absolute_path:
        if isinstance(step, int):
            place[-1] += f" {step + 1}"
        else:
            place.append(step)
    return f"{', '.join(place)}: {_fault(error)}" if place else _fault(error)


def _fault(error: ValidationError) -> str:
    value, kind, asked, schema = error.instance, error.validator, error.validator_value, error.schema
    if kind == "required":
        return _missing([key for key in asked if key not in value], schema)
    if kind == "additionalProperties":
        known = schema["properties"]
        unknown = [key for key in value if key not in known]
        return f"unknown key {', '.join(map(_shown, unknown))}; known: {', '.join(known)}"
    if kind == "oneOf":
        keys = [key for choice in asked for key in choice["required"]]
        return f"expected one of {', '.join(keys)}, got {' and '.join(key for key in keys if key in value) or 'none'}"
    if kind == "not":
        return f"{' and '.join(asked['required'])} exclude each other: {asked['description']}"
    if kind == "uniqueItems":
        return f"expected every entry once, got {_shown(value)}"
    return f"expected {_expected(kind, asked, schema)}, got {_shown(value)}"


def _missing(keys: list[str], schema: dict[str, Any]) -> str:
    about = [schema.get("properties", {}).get(key, {}).get("description", "") for key in keys]
    told = (f"key {_shown(key)} is missing ({text})" for key, text in zip(keys, about, strict=True))
    return ", ".join(told)


def _expected(kind: str, asked: Any, schema: dict[str, Any]) -> str:
    if kind == "enum":
        return f"{'one of ' if len(asked) > 1 else ''}{', '.join(asked)}"
    if kind == "type":
        return " or ".join(TYPES[name] for name in ([asked] if isinstance(asked, str) else asked))
    return EMPTY.get(kind) or str(schema["description"])


def _shown(value: Any) -> str:
    """A value as it stands in the file, cut when it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
