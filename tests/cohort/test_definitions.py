"""Rules and layouts are found by name or path, and hold to their schemas."""

import json

import pytest
from jsonschema import Draft7Validator

from monai_chd.cohort.layouts import LAYOUTS
from monai_chd.cohort.rules import RULES


@pytest.mark.parametrize("kind", [RULES, LAYOUTS], ids=lambda kind: kind.kind)
def test_all_that_comes_with_the_package_holds_to_its_schema(kind):
    for name in kind.names:
        assert list(Draft7Validator(kind.schema).iter_errors(json.loads(kind.find(name).read_text()))) == []


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
