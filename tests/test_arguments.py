"""The words of a command line: what argparse knows, and keys of the config as --key value, wherever they stand."""

import pytest

from monai_chd.arguments import BUNDLE_COMMANDS, command_parser, config_keys, split_words
from monai_chd.cli import COMMANDS
from monai_chd.errors import UserError


def test_every_command_that_can_be_said_is_done_and_the_other_way_round():
    (choices,) = (action.choices for action in command_parser()._actions if action.dest == "command")
    assert list(choices) == list(COMMANDS) and set(BUNDLE_COMMANDS) <= set(COMMANDS)


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        ([], {}),
        (["--a", "5", "--b", "0.5", "--c", "text", "--d", "/a/b"], {"a": 5, "b": 0.5, "c": "text", "d": "/a/b"}),
        (["--a=1=2", "--b="], {"a": "1=2", "b": ""}),
        (["--a", "true", "--b", "False", "--c", "None", "--d", "null"], {"a": True, "b": False, "c": None, "d": None}),
        (["--a", "-1024", "--b", "[-200, 900]"], {"a": -1024, "b": [-200, 900]}),
        (["--a#b#c", "3", "--x::y", '{"a": "b"}'], {"a#b#c": 3, "x::y": {"a": "b"}}),
        (["--patient", "007"], {"patient": "007"}),
    ],
)  # fmt: skip
def test_values_are_read_as_json_where_they_are_json(words, overrides):
    assert config_keys(words) == overrides


@pytest.mark.parametrize("words", [["--a"], ["--a", "--b", "1"], ["a"], ["a=1"], ["-a", "1"]], ids=" ".join)
def test_what_is_no_pair_is_refused(words):
    with pytest.raises(UserError, match="expected config keys as --key value, for example --max_epochs 5"):
        config_keys(words)


@pytest.mark.parametrize(
    ("words", "own", "pairs"),
    [
        (["train", "d", "--a", "1", "--out", "o"], ["train", "d", "--out", "o"], ["--a", "1"]),
        (["train", "--a=1", "d", "--out=o"], ["train", "d", "--out=o"], ["--a=1"]),
        (["train", "d", "--a", "--out", "o"], ["train", "d", "--out", "o"], ["--a"]),
        (["train", "--seed", "1", "d"], ["train", "d"], ["--seed", "1"]),
        (["crossval", "--seed", "1", "d"], ["crossval", "--seed", "1", "d"], []),
        (["prepare", "c", "--a", "1"], ["prepare", "c", "--a", "1"], []),
        ([], [], []),
    ],
)
def test_keys_are_told_from_a_commands_own_words(words, own, pairs):
    assert split_words(words) == (own, pairs)
