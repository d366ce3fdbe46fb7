"""Rules and layouts are found by name or path, and their schemas say everything in kinds that have words."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator

from monai_chd.cohort.layouts import LAYOUTS
from monai_chd.cohort.rules import RULES

WORDED = {
    "required", "additionalProperties", "enum", "type", "minLength", "minItems", "minProperties", "uniqueItems", "oneOf",
    "not", "anyOf",
}  # fmt: skip
"""Kinds of demands in a schema that a message can be made of."""

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


@pytest.mark.parametrize("kind", [RULES, LAYOUTS], ids=lambda kind: kind.kind)
def test_a_schema_is_one_and_all_that_comes_with_the_package_holds_to_it(kind):
    Draft7Validator.check_schema(kind.schema)
    for name in kind.names:
        assert list(Draft7Validator(kind.schema).iter_errors(json.loads(kind.find(name).read_text()))) == []


@pytest.mark.parametrize("kind", [RULES, LAYOUTS], ids=lambda kind: kind.kind)
def test_a_schema_demands_nothing_that_there_are_no_words_for(kind):
    for schema in schemas(kind.schema):
        assert set(schema) <= WORDED | SILENT
        assert "description" in schema or "anyOf" not in schema
        assert "description" in schema.get("not", {"description": ""})


@pytest.mark.parametrize("kind", [RULES, LAYOUTS], ids=lambda kind: kind.kind)
def test_every_key_is_explained(kind):
    assert [key for key, about in kind.schema["properties"].items() if not about.get("description")] == []


def test_a_users_own_file_goes_by_its_path_and_not_by_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("{}")
    assert RULES.find("mine").read_text() == "{}"
    (tmp_path / "strict").write_text("{}")
    assert RULES.find("strict").parent == RULES.folder
    with pytest.raises(FileNotFoundError, match=r"rule\.schema: no such rule; expected one of all-cyanotic, "):
        RULES.find("rule.schema")


def test_a_long_value_is_cut(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"name": list(range(100)), "class_column": "a"}))
    with pytest.raises(ValueError, match=r"name: expected text, got \[0, 1, 2, .*…\. Its form: .*layout\.schema\.json"):
        LAYOUTS.read(path, lambda content: [])


def test_what_is_wrong_is_not_looked_at_again_and_what_is_right_is(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"name": 7, "id_pattern": "x"}))
    seen = []
    with pytest.raises(ValueError, match="name: expected text, got 7; too few groups"):
        LAYOUTS.read(path, lambda content: seen.append(content) or ["too few groups"])
    assert seen == [{"id_pattern": "x"}]
