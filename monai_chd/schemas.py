"""Reads JSON files that people or other programs may have written: data that holds to a schema, never a config.

A schema lies beside its reader. What a file means is the reader's part.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jsonschema import Draft7Validator, ValidationError
from jsonschema.validators import extend

from monai_chd.errors import UserError
from monai_chd.wording import join_faults

TYPES = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}
EMPTY = {"minLength": "text that is not empty", "minItems": "a list of one or more", "minProperties": "one key or more"}
LONGEST = 60
"""Characters of a value in a message."""

CONFIG_MARKS = ("$", "@", "%")
"""What text begins with that a MONAI config would run or look up."""


_Validator = extend(
    Draft7Validator, type_checker=Draft7Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
)
"""1.0 is no whole number: Python indexes with none."""


class Fault(NamedTuple):
    """What is wrong in one place of a file; `place` is the keys and positions that lead there."""

    place: tuple[str | int, ...]
    fault: str

    @property
    def text(self) -> str:
        """For a person: where (`steps 1, flags 2`, counted from 1), what was expected, what came."""
        steps: list[str] = []
        for step in self.place:
            if isinstance(step, int) and steps:
                steps[-1] += f" {step + 1}"
            else:
                steps.append(str(step))
        return f"{', '.join(steps)}: {self.fault}" if steps else self.fault


@cache
def schema_of(file: Path) -> dict[str, Any]:
    """A form of files, as JSON schema (draft 7)."""
    return json.loads(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def read_json(path: Path, kind: str, mend: str) -> Any:
    """What a JSON file holds.

    Args:
        path: of the file.
        kind: what it should be, with its article: "a datalist".
        mend: what to do when it is none.

    Raises:
        UserError: not JSON (which has no NaN), not in UTF-8, or a key twice in one object.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not {kind}, since it is not JSON ({error}){mend}") from None


def read_checked(path: Path, schema: Path, kind: str, mend: str) -> Any:
    """What a JSON file holds, refused where it does not hold to a schema.

    Args:
        path: of the file.
        schema: file of the schema.
        kind: what it should be, with its article.
        mend: what to do when it is none, behind the faults.

    Raises:
        UserError: see `read_json`; or wrong: all that is wrong is said at once.
    """
    content = read_json(path, kind, mend)
    if faults := schema_faults(content, schema_of(schema)):
        raise UserError(f"{path}: not {kind}: {join_faults([fault.text for fault in faults])}{mend}")
    return content


def schema_faults(content: Any, schema: dict[str, Any]) -> list[Fault]:
    """What of some content does not hold to a schema, each once."""
    errors = _Validator(schema).iter_errors(content)
    return list(dict.fromkeys(Fault(tuple(error.absolute_path), _fault(error)) for error in errors))


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {_shown(key)} stands in it twice")
        found[key] = value
    return found


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
        return f"{'one of ' if len(asked) > 1 else ''}{', '.join(map(str, asked))}"
    if kind == "type":
        return " or ".join(TYPES[name] for name in ([asked] if isinstance(asked, str) else asked))
    return EMPTY.get(kind) or str(schema["description"])


def _shown(value: Any) -> str:
    """A value as it stands in the file, cut when it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
