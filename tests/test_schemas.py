"""JSON files that others may have written are data that holds to a schema, and what is wrong is said with file and key."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

import monai_chd
from monai_chd.schemas import CONFIG_MARKS, Fault, read_checked, read_json, schema_faults, schema_of

FILES = sorted(Path(monai_chd.__file__).parent.rglob("*.schema.json"))

WORDED = {
    "required", "additionalProperties", "enum", "type", "minLength", "minItems", "minProperties", "uniqueItems", "oneOf",
    "not", "anyOf", "pattern", "minimum", "maximum", "exclusiveMinimum",
}  # fmt: skip
"""Kinds of demands in a schema that a message can be made of."""

DESCRIBED = {"anyOf", "pattern", "minimum", "maximum", "exclusiveMinimum"}
"""Those whose words are the schema's description."""

SILENT = {
    "$schema", "$ref", "title", "description", "definitions", "properties", "items", "if", "then",
}  # fmt: skip
"""What demands nothing by itself."""


def schemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema and those inside it that are reported one by one: not what decides an `anyOf`, `oneOf`, `not` or `if`."""
    yield schema
    for key in ("items", "then", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from schemas(schema[key])
    for key in ("properties", "definitions"):
        for inner in schema.get(key, {}).values():
            yield from schemas(inner)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_schema_is_one_explains_its_keys_and_demands_nothing_that_there_are_no_words_for(file):
    Draft7Validator.check_schema(schema_of(file))
    for schema in schemas(schema_of(file)):
        assert set(schema) <= WORDED | SILENT
        assert "description" in schema or not DESCRIBED & set(schema)
        assert "description" in schema.get("not", {"description": ""})
    assert [key for key, about in schema_of(file)["properties"].items() if not about.get("description")] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_key_that_no_schema_knows_is_refused(file):
    faults = schema_faults({"$x": 1}, schema_of(file))
    assert any(fault.text.startswith('unknown key "$x"; known: ') for fault in faults)


def test_text_that_a_config_would_run_is_refused_in_a_datalist():
    datalist = schema_of(next(file for file in FILES if file.name == "datalist.schema.json"))
    for mark in (*CONFIG_MARKS, "a"):
        record = {"image": f"{mark}x", "label": 0, "patient": f"{mark}x", "flags": [f"{mark}x"]}
        content = {"root": ".", "classes": [], "training": [], "test": [record]}
        places = {fault.place[2:] for fault in schema_faults(content, datalist)}
        assert places == ({("image",), ("patient",), ("flags", 0)} if mark in CONFIG_MARKS else set())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "Expecting value"),
        ('{"a": 1, "a": 2}', 'key "a" stands in it twice'),
        ('{"a": [NaN]}', "NaN is no JSON number"),
        ("-Infinity", "-Infinity is no JSON number"),
        ("[" * 100_000, "recursion"),
    ],
    ids=["empty", "twice", "NaN", "Infinity", "deep"],
)
def test_what_is_no_json_is_refused_with_the_file_and_a_mend(tmp_path, text, fault):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(
        ValueError, match=rf"a\.json: not a list, since it is not JSON \(.*{re.escape(fault)}.*\); mend it$"
    ):
        read_json(tmp_path / "a.json", "a list", "; mend it")


def test_bytes_that_are_no_utf_8_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(ValueError, match=r"a\.json: not a list, since it is not JSON \('utf-8' codec"):
        read_json(tmp_path / "a.json", "a list", "")


def test_all_that_is_wrong_is_said_once_with_its_place(tmp_path):
    schema = tmp_path / "schema.json"
    item = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
    schema.write_text(json.dumps({"type": "object", "properties": {"a": {"type": "array", "items": item}}}))
    (tmp_path / "a.json").write_text('{"a": [{"n": 1.0}, {"n": 0}, {"$m": 1}, {"n": true}]}')
    with pytest.raises(ValueError) as caught:
        read_checked(tmp_path / "a.json", schema, "a list", "; mend it")
    assert str(caught.value) == (
        f'{tmp_path / "a.json"}: not a list: a 1, n: expected a whole number, got 1.0; a 3: unknown key "$m"; known: n; '
        f"a 4, n: expected a whole number, got true; mend it"
    )


def test_a_place_in_a_list_of_lists_is_counted_from_1():
    assert Fault((), "x").text == "x"
    assert Fault(("a", 0, 1, "b"), "x").text == "a 1 2, b: x"
    assert Fault((3,), "x").text == "3: x"
