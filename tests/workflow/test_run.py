"""Running the bundle: where it is, which keys it has, and that a quiet run leaves screen and logging as they were."""

from __future__ import annotations

import logging
import re
import shutil
import sys
import warnings

import pytest
from torch.utils.tensorboard import SummaryWriter

from monai_chd.errors import UserError
from monai_chd.workflow import run
from monai_chd.workflow.run import (
    Expression,
    bundle_folder,
    check_keys,
    config_content,
    configured,
    literal,
    quietly,
    run_bundle,
)

BUNDLE = bundle_folder()
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config


def test_the_bundle_of_an_installed_package_goes_first_and_a_missing_one_says_where_it_was_looked_for(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(run, "__file__", str(tmp_path / "lib" / "monai_chd" / "workflow" / "run.py"))
    with pytest.raises(FileNotFoundError, match=r"configs are not at .*monai_chd/bundle, .*lib/bundle, .*lib; install"):
        bundle_folder()
    for place in (tmp_path / "lib" / "bundle", tmp_path / "lib" / "monai_chd" / "bundle"):
        shutil.copytree(BUNDLE / "configs", place / "configs")
        assert bundle_folder() == place


def test_keys_of_the_configs_pass_and_so_do_their_inner_ones():
    check_keys(["train"], {"max_epochs": 1, "train#trainer#max_epochs": 2}, ("datalist",))
    assert config_content("train")["max_epochs"] == 20


def test_an_unknown_key_is_refused_with_what_was_meant():
    with pytest.raises(ValueError, match=r"unknown config key max_epoch; did you mean max_epochs\?"):
        check_keys(["train"], {"max_epoch": 1}, ())


@pytest.mark.parametrize(
    ("configs", "given"), [(["train"], ("datalist",)), (["train", "evaluate"], ()), (["inference"], ())]
)
def test_an_unknown_key_is_refused_with_the_keys_that_are_for_people(configs, given):
    with pytest.raises(ValueError, match="unknown config key") as refused:
        check_keys(configs, {"network_dev": 1}, given)
    known = str(refused.value).partition("known: ")[2].split(", ")
    assert "did you mean" not in str(refused.value), "network_def is nothing to be set"
    assert {"frame_size", "batch_size", "checkpoint", "hu_offset", "output_dir"} <= set(known)
    assert not {"network_def", "mistakes", "device", "settings", "begin", "imports", "trained_with", *given} & set(
        known
    )


def test_a_key_that_the_command_gives_is_refused():
    with pytest.raises(ValueError, match="config key datalist: given by the command's own arguments"):
        check_keys(["train"], {"datalist": "x"}, ("datalist",))


def test_monai_warns_of_every_config_but_the_packages_own(monkeypatch):
    def parse(config_file, **_):
        for files in (config_file, ["/tmp/theirs.json"], [*config_file, "/tmp/theirs.json"], "configs/train.json"):
            warnings.warn(f"parsing config_file {files}: any `_target_` value", stacklevel=1)

    monkeypatch.setattr("monai.bundle.run", parse)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        run_bundle(["train", "evaluate"])
    assert ["theirs" in str(one.message) for one in heard] == [True, True, False]


def test_a_run_that_fails_leaves_no_log_without_an_event(monkeypatch, tmp_path):
    def fail(**_):
        writers = [SummaryWriter(f"{tmp_path}/tensorboard", filename_suffix=name) for name in ("a", "b")]
        writers[0].add_scalar("loss", 1.0, 1)
        for writer in writers:
            writer.close()
        (tmp_path / "tensorboard" / "other").touch()
        raise UserError("x")

    monkeypatch.setattr("monai.bundle.run", fail)
    with pytest.raises(UserError):
        run_bundle(["train"], output_dir=str(tmp_path))
    assert [path.name[-1] for path in sorted((tmp_path / "tensorboard").iterdir())] == ["a", "r"]


@pytest.fixture
def bare_logging(monkeypatch):
    """Earlier runs of the bundle leave a handler on the root logger."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


@pytest.mark.usefixtures("bare_logging")
def test_a_quiet_run_goes_to_the_file_and_leaves_logging_as_it_was(tmp_path, capsys):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    with quietly(tmp_path / "new" / "log.txt"):
        print("printed")
        print("drawn", file=sys.stderr)
        root.addHandler(logging.StreamHandler(sys.stdout))
        root.setLevel(logging.INFO)
        logging.getLogger("x").info("logged")
    print("seen")
    assert (root.handlers, root.level) == (before, level)
    logging.getLogger("x").warning("does not fail on a closed file")
    assert (tmp_path / "new" / "log.txt").read_text().split() == ["printed", "drawn", "logged"]
    assert capsys.readouterr().out == "seen\n"


@pytest.mark.usefixtures("bare_logging")
def test_loggers_with_a_screen_of_their_own_are_quiet_too(tmp_path, capsys):
    own = logging.getLogger("of a module")
    own.addHandler(handler := logging.StreamHandler(sys.stdout))
    with quietly(tmp_path / "log.txt"):
        own.warning("inside")
        late = logging.getLogger("made inside")
        late.addHandler(later := logging.StreamHandler(sys.stdout))
    own.warning("after")
    late.warning("late")
    own.removeHandler(handler)
    late.removeHandler(later)
    assert (tmp_path / "log.txt").read_text() == "inside\n"
    assert capsys.readouterr().out == "after\nlate\n"


def test_a_quiet_run_that_fails_still_gives_the_screen_back(tmp_path, capsys):
    with pytest.raises(ValueError, match="inner"), quietly(tmp_path / "log.txt"):
        raise ValueError("inner")
    print("seen")
    assert capsys.readouterr().out == "seen\n"


def test_a_run_of_the_bundle_trains_into_its_folder_and_logs_plainly(datalist, tmp_path, capsys):
    with quietly(tmp_path / "log.txt"):
        run_bundle(
            ["train"],
            datalist=str(datalist),
            output_dir=str(tmp_path / "out"),
            frame_size=16,
            sequence_length=6,
            hidden_size=4,
            max_epochs=1,
        )
    assert (tmp_path / "out" / "models" / "model.pt").is_file()
    # of the package as it says it, of MONAI with date and name
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[-1].startswith("model and learning curves:")
    assert any(re.match(r"\d{4}-.* - INFO - ", line) for line in lines)
    logging.getLogger("monai_chd.workflow").info("after the run")
    assert capsys.readouterr().out == "after the run\n"


TEXTS = [
    "$open('x', 'w')", "@frame_size", "%/nowhere.json::a", "run#3", "a::b", "@##encoder", "'$\\", "",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_text_of_an_override_is_data_whatever_it_begins_with(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = configured(["train"], {"output_dir": text, "window": [text, 1]}, ["output_dir", "cache_dir", "window"])
    assert found == [text, f"{text}/cache", [text, 1]]
    assert list(tmp_path.iterdir()) == []


def test_any_plain_data_comes_back_from_its_literal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = [{"image": text, text: [text, None, True, 1.5, {"a::b": -1}]} for text in TEXTS]
    assert configured(["train"], {"settings": literal(data)}, ["settings"]) == [data]
    assert list(tmp_path.iterdir()) == []


def test_an_expression_of_the_package_is_run(tmp_path):
    assert configured(["train"], {"hu_offset": Expression("$1 + @frame_size")}, ["hu_offset"]) == [513]


def test_values_that_are_given_stay_as_they_are():
    """MONAI would turn the # of a reference into :: in place."""
    given = {"settings": {"window": "@validate#dataloader#batch_size"}, "batch_size": 3}
    (found,) = configured(["train"], given, ["settings"])
    assert found == {"window": 3}
    assert given["settings"] == {"window": "@validate#dataloader#batch_size"}
