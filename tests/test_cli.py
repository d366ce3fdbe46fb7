"""The command line: help, exit codes, one line for every mistake, and the whole path from scans to predictions."""

import csv
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_cohort import write_cohort, write_scan

from monai_chd import __version__, cli
from monai_chd.cli import main
from monai_chd.environment import UNLESS_TOLD
from monai_chd.errors import UserError
from monai_chd.workflow import run
from monai_chd.workflow.run import bundle_folder

COMMANDS = ["phantom", "prepare", "train", "evaluate", "predict", "crossval", "cache"]
TINY = ["--frame_size", "16", "--sequence_length", "8", "--hidden_size", "8", "--batch_size", "3"]
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Nobody's environment should change what is printed."""
    monkeypatch.delenv("MONAI_CHD_TRACEBACK", raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A cohort of 12 patients, prepared (two folds, 3 for the test) and trained for one epoch."""
    folder = tmp_path_factory.mktemp("cli")
    cohort, work, out = (str(folder / name) for name in ("cohort", "work", "out"))
    write_cohort(folder / "cohort", 12)
    assert main(["prepare", cohort, "--out", work, "--folds", "2", "--test-fraction", "0.25"]) == 0
    # keys before, between and after the command's own arguments
    assert main(["train", *TINY[:2], f"{work}/datalist.json", *TINY[2:], "--out", out, "--max_epochs=1"]) == 0
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def one_error(capsys) -> str:
    """The single line of the error, with nothing else but progress before it."""
    lines = capsys.readouterr().err.strip().splitlines()
    found = [line for line in lines if line.startswith("error: ")]
    assert len(found) == 1 and lines[-1] == found[0], lines
    assert not any("Traceback" in line for line in lines)
    return found[0]


# help and exit codes


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_its_arguments(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert f"monai-chd {command}" in out
    assert "Research software, not a medical device." in out
    if command in ("train", "evaluate", "predict", "crossval", "cache"):
        assert "--frame_size 224" in re.sub(r"\s+", " ", out)


def test_the_help_lists_the_commands_and_the_version_is_the_packages(capsys):
    for words in (["--help"], ["--version"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^ +{command} ", out, re.MULTILINE) for command in COMMANDS)
    assert f"monai_chd {__version__}" in out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fly"],
        ["train"],
        ["train", "datalist.json"],
        ["train", "a", "b", "--out", "c"],
        ["predict", "scans"],
        ["prepare", "cohort", "--out", "o", "--frame_size", "16"],
        ["prepare", "cohort", "--out", "o", "--folds", "many"],
        ["cache", "datalist.json", "--out", "o", "--format", "png"],
    ],
    ids=" ".join,
)
def test_words_that_make_no_command_exit_with_2_and_the_usage(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: monai-chd")


def test_ctrl_c_exits_with_130_and_one_word(monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_bundle", interrupt)
    assert main(["train", "datalist.json", "--out", "o"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_a_fault_of_the_program_is_not_dressed_up_as_a_users_mistake(monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("not of the package")

    monkeypatch.setattr(run, "run_bundle", fail)
    with pytest.raises(ValueError, match="not of the package"):
        main(["train", "datalist.json", "--out", "o"])


def test_the_traceback_can_be_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("MONAI_CHD_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main(["prepare", str(tmp_path / "nowhere"), "--out", str(tmp_path / "o")])


# config keys


@pytest.mark.parametrize("position", ["before", "after", "between"])
def test_keys_may_stand_anywhere_between_the_commands_own_words(position, monkeypatch, tmp_path):
    given = {}
    monkeypatch.setattr(run, "run_bundle", lambda configs, **keys: given.update(keys))
    keys = ["--hu_offset", "-1024", "--amp=false"]
    words = {
        "before": [*keys, "d.json", "--out", str(tmp_path)],
        "after": ["d.json", "--out", str(tmp_path), *keys],
        "between": ["d.json", *keys, f"--out={tmp_path}"],
    }
    assert main(["train", *words[position]]) == 0
    assert given == {
        "datalist": str(Path("d.json").resolve()), "output_dir": str(tmp_path), "hu_offset": -1024, "amp": False
    }  # fmt: skip


def test_a_cross_validation_tells_its_own_options_from_keys_of_the_config(monkeypatch):
    given, room = {}, "monai_chd.crossval"
    monkeypatch.setattr(f"{room}.design.new_design", lambda datalist, **drawn: given.update(drawn) or datalist)
    monkeypatch.setattr(f"{room}.config_keys.fit_settings", lambda keys, out: keys)
    monkeypatch.setattr(f"{room}.run.crossval", lambda design, out, **rest: given.update(rest, at=(design, out)))
    monkeypatch.setattr(f"{room}.run.summary_text", lambda report, out: "")
    words = ["--quick", "d.json", "--pooling", "max", "--folds=3", "--seed", "7", "--out", "o", "--no-controls"]
    assert main(["crossval", *words, "--max_epochs", "3", "--against", "a b"]) == 0
    assert given == {
        "at": ("d.json", "o"), "folds": 3, "repeats": 1, "seed": 7, "against": "a b", "controls": False,
        "settings": {"pooling": "max", "max_epochs": 3},
        "command": "monai-chd crossval --quick d.json --pooling max --folds=3 --seed 7 --out o --no-controls --max_epochs 3 "
        "--against 'a b'",
    }  # fmt: skip
    assert main(["crossval", "d.json", "--out", "o"]) == 0
    assert (given["folds"], given["repeats"], given["seed"], given["settings"]) == (5, 5, 42, {})


def test_commands_name_a_config_and_leave_the_settings_of_the_weights_to_it(monkeypatch, tmp_path, folder):
    seen = []
    monkeypatch.setattr(run, "run_bundle", lambda configs, **keys: seen.append((configs, keys)))
    out, other = str(folder / "out"), str(tmp_path / "m.pt")
    assert main(["evaluate", "d", "--out", out]) == main(["predict", "s", "--out", out, "--checkpoint", other]) == 0
    datalist, scans = str(Path("d").resolve()), str(Path("s").resolve())
    assert seen == [
        (["train", "evaluate"], {"datalist": datalist, "output_dir": out}),
        (["inference"], {"dataset_dir": scans, "output_dir": out, "checkpoint": other}),
    ]


def test_who_resumes_means_the_same_training_unless_another_is_asked_for(monkeypatch, folder):
    given = {}
    monkeypatch.setattr(run, "run_bundle", lambda configs, **keys: given.update(keys))
    words = ["train", "d", "--out", str(folder / "out"), "--resume", "true", "--max_epochs", "9", "--pooling", "max"]
    assert main(words) == 0
    assert (given["frame_size"], given["hidden_size"], given["pooling"], given["max_epochs"]) == (16, 8, "max", 9)
    noted = json.loads((folder / "out" / "models" / "settings.json").read_text())
    assert given.keys() >= noted.keys() - {"early_stop_patience"} and "early_stop_patience" not in given
    assert all(given[key] == noted[key] for key in ("learning_rate", "batch_size", "seed", "cache", "coverage"))


def test_a_model_that_the_bundle_ships_brings_its_settings(monkeypatch, tmp_path, folder):
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_folder() / "configs", bundle / "configs")
    shutil.copytree(folder / "out" / "models", bundle / "models")
    monkeypatch.setattr(run, "bundle_folder", lambda: bundle)
    write_scan(tmp_path / "scans" / "one.nii.gz", 1)
    assert main(["predict", str(tmp_path / "scans"), "--out", str(tmp_path / "new")]) == 0
    assert len(rows(tmp_path / "new" / "inference" / "predictions.csv")) == 1


@pytest.mark.parametrize("command", ["predict", "evaluate", "train"])
def test_settings_that_came_with_weights_are_never_run(folder, tmp_path, capsys, command):
    out, ran = tmp_path / "out", tmp_path / "ran"
    shutil.copytree(folder / "out", out)
    settings = {"frame_size": 16, "sequence_length": 8, "hidden_size": 8, "encoder": f"$open({str(ran)!r}, 'w')"}
    (out / "models" / "settings.json").write_text(json.dumps(settings))
    source = folder / "cohort" if command == "predict" else folder / "work" / "datalist.json"
    more = ["--resume", "true"] if command == "train" else []
    assert main([command, str(source), "--out", str(out), *more]) == 1
    assert "models/settings.json: encoder: text that a config would run or look up" in one_error(capsys)
    assert not ran.exists()


# surroundings


def test_what_the_package_logs_is_printed_as_it_is_while_a_command_runs(monkeypatch, capsys):
    log = logging.getLogger("monai_chd.workflow.export")

    def export(*args):
        log.info("written: model.onnx")
        log.debug("not said")
        raise UserError("no scan")

    monkeypatch.setattr("monai_chd.workflow.export.export", export)
    own = logging.getLogger("monai_chd")
    before = own.handlers[:], own.level, own.propagate
    assert main(["export", "o", "--scans", "s"]) == 1
    assert capsys.readouterr() == ("written: model.onnx\n", "error: no scan\n")
    assert (own.handlers, own.level, own.propagate) == before


LARGE_PAGES = """
import monai_chd.cli as cli, os, sys
assert "torch" not in sys.modules

def frames(options):
    import torch
    values = torch.zeros(1, 200, 224, 224, dtype=torch.uint8).float()
    found = [int(line.split()[1]) for line in open("/proc/self/smaps") if line.startswith("AnonHugePages:")]
    print(os.environ["OMP_WAIT_POLICY"], os.environ["THP_MEM_ALLOC_ENABLE"], sum(found) >= 30_000)

cli.COMMANDS["audit"] = frames
cli.main(["audit", "datalist.json"])
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "passive 1 True"), ({"THP_MEM_ALLOC_ENABLE": "0", "OMP_WAIT_POLICY": "active"}, "active 0 False")],
)
def test_a_command_tells_torch_to_wait_and_to_take_large_pages_unless_told_otherwise(given, expected):
    switch = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not switch.is_file() or "[madvise]" not in switch.read_text():
        pytest.skip("this system gives large pages to all or to nobody")
    environment = {key: value for key, value in os.environ.items() if key not in UNLESS_TOLD}
    done = subprocess.run(
        [sys.executable, "-c", LARGE_PAGES], env=environment | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def test_the_package_changes_no_environment():
    code = (
        "import os; before = dict(os.environ); import monai_chd, monai_chd.workflow; assert dict(os.environ) == before"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


# mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frame_sice", "16"], "unknown config key frame_sice; did you mean frame_size? known: amp, batch_size,"),
        (["--frame_size", "0"], "frame_size: expected a whole number of 8 or more, got 0"),
        (["--frame_size", "12.5"], "frame_size: expected a whole number of 8 or more, got 12.5"),
        (["--sequence_length", "0"], "sequence_length: expected a whole number of 1 or more, got 0"),
        (["--window", "[900, -200]"], "window: expected [lower, upper] in HU with lower < upper"),
        (["--encoder", "resnet9000"], "resnet9000"),
        (["--pooling", "median"], "median"),
        (["--reader", "dicom"], "unknown reader 'dicom'"),
        (["--cache", "disk"], "cache: expected one of none, memory, frames, jpg, features, got 'disk'"),
        (["--fold", "7"], "fold: expected one of [0, 1]"),
        (["--max_epochs"], "--max_epochs: expected config keys as --key value"),
        (["--max_epochs", "--amp", "false"], "--max_epochs: expected config keys as --key value"),
        (["--output_dir", "x"], "config key output_dir: given by the command's own arguments"),
        (["--dataset_dir", "/nowhere"], "12 scans of"),
        (["--resume", "true"], "last.pt: nothing to resume from"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_setting_of_a_training_is_one_line_and_exit_code_1(folder, tmp_path, capsys, words, message):
    tiny = [word for key, value in zip(TINY[::2], TINY[1::2], strict=True) if key != words[0] for word in (key, value)]
    assert main(["train", str(folder / "work" / "datalist.json"), "--out", str(tmp_path / "o"), *tiny, *words]) == 1
    assert message in one_error(capsys)
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize("command", ["train", "evaluate", "cache"])
def test_a_wrong_datalist_is_one_line(folder, tmp_path, capsys, command):
    wrong = tmp_path / "wrong.json"
    out = ["--out", str(folder / "out" if command == "evaluate" else tmp_path / "o")]
    assert main([command, str(wrong), *out]) == 1
    assert f"{wrong}: no such datalist; make one with `monai-chd prepare" in one_error(capsys)
    wrong.write_text('{"training": []}')
    assert main([command, str(wrong), *out]) == 1
    assert f"{wrong}: not a datalist" in one_error(capsys)


@pytest.mark.parametrize("command", ["prepare", "train", "predict", "cache"])
def test_an_output_that_cannot_be_written_is_one_line(folder, tmp_path, capsys, command):
    blocked = tmp_path / "file"
    blocked.write_text("mine")
    source = {"prepare": folder / "cohort", "predict": folder / "cohort"}.get(
        command, folder / "work" / "datalist.json"
    )
    words = [command, str(source), "--out", str(blocked)]
    if command == "predict":
        words += ["--checkpoint", str(folder / "out" / "models" / "model.pt")]
    assert main(words) == 1
    assert re.search(r"file(/inference)?: cannot write there \(.*\); choose another output folder", one_error(capsys))
    assert blocked.read_text() == "mine"


def test_no_model_is_one_line(folder, tmp_path, capsys):
    for command, source in (("evaluate", folder / "work" / "datalist.json"), ("predict", folder / "cohort")):
        assert main([command, str(source), "--out", str(tmp_path)]) == 1
        assert "model.pt: no trained model; train one" in one_error(capsys)


def test_nothing_to_predict_is_one_line(folder, tmp_path, capsys):
    assert main(["predict", str(tmp_path / "nowhere"), "--out", str(folder / "out")]) == 1
    assert "nowhere: no such file or folder" in one_error(capsys)
    assert main(["predict", str(tmp_path), "--out", str(folder / "out")]) == 1
    assert "no scan found" in one_error(capsys)


def test_bad_scans_stop_a_preparation_and_are_listed_under_one_error(tmp_path, capsys):
    cohort = write_cohort(tmp_path / "cohort", 9)
    for number in (1001, 1005):
        (cohort / f"ct_{number}_image.nii.gz").write_bytes(b"")
    assert main(["prepare", str(cohort), "--out", str(tmp_path / "work"), "--folds", "2"]) == 1
    err = capsys.readouterr().err
    assert "error: 2 bad rows or scans" in err and "Traceback" not in err
    assert "ct_1001_image.nii.gz: the file is empty" in err and "ct_1005_image.nii.gz: the file is empty" in err


# the whole path


def test_training_leaves_model_settings_and_curves(folder):
    names = {path.relative_to(folder / "out").as_posix() for path in (folder / "out").rglob("*")}
    assert {
        "models/model.pt", "models/last.pt", "models/settings.json", "models/trained_on.json", "learning_curves.csv",
        "learning_curves.png", "tensorboard",
    } <= names  # fmt: skip
    settings = json.loads((folder / "out" / "models" / "settings.json").read_text())
    assert (settings["frame_size"], settings["sequence_length"], settings["hidden_size"]) == (16, 8, 8)
    assert len(rows(folder / "out" / "learning_curves.csv")) == 1


def test_evaluation_needs_no_settings_again_and_is_of_the_held_out_patients(folder, capsys):
    assert main(["evaluate", str(folder / "work" / "datalist.json"), "--out", str(folder / "out")]) == 0
    datalist = json.loads((folder / "work" / "datalist.json").read_text())
    table = rows(folder / "out" / "evaluation" / "predictions.csv")
    assert [row["image"] for row in table] == sorted(record["image"] for record in datalist["test"])
    metrics = json.loads((folder / "out" / "evaluation" / "metrics.json").read_text())
    correct = sum(row["label"] == row["prediction"] for row in table)
    assert metrics["result"]["overall"]["accuracy"]["value"] == pytest.approx(correct / 3)
    assert metrics["context"]["part"] == "test"
    assert re.search(r"accuracy +\d\.\d{3} \[.*\] n=3", capsys.readouterr().out)


def test_evaluation_on_training_patients_is_refused(folder, tmp_path, capsys):
    datalist = json.loads((folder / "work" / "datalist.json").read_text())
    moved = datalist["training"].pop()
    datalist["test"].append({key: value for key, value in moved.items() if key != "fold"})
    datalist["root"] = str(folder / "cohort")
    other = tmp_path / "datalist.json"
    other.write_text(json.dumps(datalist))
    shutil.rmtree(folder / "out" / "evaluation", ignore_errors=True)
    assert main(["evaluate", str(other), "--out", str(folder / "out")]) == 1
    assert f"1 of the patients to evaluate on were seen in training ({moved['patient']})" in one_error(capsys)
    assert not (folder / "out" / "evaluation").exists()


def test_other_settings_than_the_models_are_refused(folder, capsys):
    assert main(["predict", str(folder / "cohort"), "--out", str(folder / "out"), "--frame_size", "32"]) == 1
    assert "was trained with frame_size 16 (asked: 32)" in one_error(capsys)


def test_prediction_names_the_damaged_file_and_still_gives_all_others(folder, tmp_path, capsys):
    scans = tmp_path / "scans"
    shutil.copytree(folder / "cohort", scans)
    whole = (scans / "ct_1004_image.nii.gz").read_bytes()
    (scans / "ct_1004_image.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert main(["predict", str(scans), "--out", str(folder / "out")]) == 1
    err = capsys.readouterr().err
    assert "error: 1 of 12 files have no prediction" in err and "ct_1004_image.nii.gz: truncated" in err
    table = {row["image"]: row for row in rows(folder / "out" / "inference" / "predictions.csv")}
    assert sorted(table) == [f"ct_{n}_image.nii.gz" for n in range(1001, 1013)]
    bad = table.pop("ct_1004_image.nii.gz")
    assert (bad["prediction"], bad["abstain"]) == ("", "true") and "truncated" in bad["reason"]
    for row in table.values():
        scores = [float(row[name]) for name in ("Cyanotic", "Non-Cyanotic", "Normal")]
        assert sum(scores) == pytest.approx(1, abs=1e-5) and row["reason"] == ""


def test_prediction_of_one_file_is_the_one_it_gets_among_others(folder):
    assert main(["predict", str(folder / "cohort"), "--out", str(folder / "out")]) == 0
    together = {row["image"]: row for row in rows(folder / "out" / "inference" / "predictions.csv")}
    assert len(together) == 12
    name = "ct_1002_image.nii.gz"
    assert main(["predict", str(folder / "cohort" / name), "--out", str(folder / "out")]) == 0
    (alone,) = rows(folder / "out" / "inference" / "predictions.csv")
    assert (alone["image"], alone["prediction"]) == (name, together[name]["prediction"])
    for column in ("Cyanotic", "Non-Cyanotic", "Normal"):
        assert float(alone[column]) == pytest.approx(float(together[name][column]), abs=1e-6)


def test_the_cache_holds_a_picture_a_frame_in_a_folder_a_patient(folder, tmp_path):
    words = ["--format", "jpg", "--out", str(tmp_path / "jpg"), "--frame_size", "16"]
    assert main(["cache", str(folder / "work" / "datalist.json"), *words]) == 0
    assert sorted(path.name for path in (tmp_path / "jpg").iterdir()) == [str(n) for n in range(1001, 1013)]
    assert len(list((tmp_path / "jpg" / "1001").glob("*.jpg"))) == 8


@pytest.mark.slow
def test_the_bundle_runs_without_the_console_script_from_any_folder(folder, tmp_path):
    """Training and inference as MONAI's users start them; a relative path is relative to where they stand."""
    bundle, environment = bundle_folder(), {**os.environ, "OMP_NUM_THREADS": "1"}
    write_scan(tmp_path / "scans" / "one.nii.gz", 1)
    (tmp_path / "scans" / "two.nii.gz").write_bytes(b"damaged")
    keys = [f"--bundle_root={bundle}", "--output_dir", str(tmp_path / "run")]

    def run(config: str, *words: str) -> subprocess.CompletedProcess[str]:
        file = str(bundle / "configs" / f"{config}.json")
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", file, *keys, *TINY, *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)

    done = run("train", "--datalist", str(folder / "work" / "datalist.json"), "--max_epochs", "1")
    assert done.returncode == 0, done.stderr
    assert torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    done = run("inference", "--dataset_dir", "scans")
    assert done.returncode == 1
    assert re.search(r"^error: 1 of 2 files have no prediction, .*:\n.*two\.nii\.gz: named", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
    table = rows(tmp_path / "run" / "inference" / "predictions.csv")
    assert [(row["image"], bool(row["prediction"])) for row in table] == [("one.nii.gz", True), ("two.nii.gz", False)]


def test_prediction_says_that_a_cine_was_scaled_by_percentiles(folder, tmp_path, capsys):
    voxels = np.random.default_rng(3).integers(0, 255, (12, 12, 2, 5)).astype(np.int16)
    write_scan(tmp_path / "scans" / "cine.nii.gz", voxels)
    shutil.copytree(folder / "out", tmp_path / "out")
    assert main(["predict", str(tmp_path / "scans"), "--out", str(tmp_path / "out")]) == 0
    assert "scaled by its 1st and 99th percentiles: cine.nii.gz" in capsys.readouterr().out


def test_frames_written_ahead_are_what_a_training_reads(folder, tmp_path, capsys):
    datalist, kept = str(folder / "work" / "datalist.json"), tmp_path / "frames"
    assert main(["cache", datalist, "--out", str(kept), *TINY[:4]]) == 0
    assert f"frames: {kept}" in capsys.readouterr().out
    written = {path: path.stat().st_mtime_ns for path in kept.glob("*.npy")}
    words = ["--cache", "frames", "--cache_dir", str(kept), "--max_epochs", "1"]
    assert main(["train", datalist, "--out", str(tmp_path / "out"), *TINY, *words]) == 0
    assert written and {path: path.stat().st_mtime_ns for path in kept.glob("*.npy")} == written


def test_a_full_disk_ends_the_cache_command_with_what_was_written(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5 * 2**20))
    words = ["cache", str(folder / "work" / "datalist.json"), "--out", str(tmp_path / "frames"), *TINY[:4]]
    assert main(words) == 1
    printed = capsys.readouterr()
    assert "error: 0 of 12 written: " in printed.err and "5.0 MiB of its disk are free" in printed.err
    assert "frames: " not in printed.out


def test_a_reader_who_has_gone_ends_a_command_without_a_traceback(monkeypatch, tmp_path, capsys):
    def gone(options):
        raise BrokenPipeError

    monkeypatch.setitem(cli.COMMANDS, "audit", gone)
    with (tmp_path / "stdout").open("w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert main(["audit", "d.json"]) == 141
        stream.write("goes nowhere")
    assert (tmp_path / "stdout").read_text() == "" and capsys.readouterr().err == ""
