"""A stopped training goes on to the same weights, and the best model stays with its own calibration."""

import csv
import errno
import json
import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Events
from tiny_cohort import write_cohort
from tiny_engines import engines, saved_weight, start_at_zero, validated, validation

from monai_chd.cli import main
from monai_chd.cohort.datalist import Choices, prepare
from monai_chd.errors import UserError
from monai_chd.handlers import Calibrator, Checkpoints, checkpoints
from monai_chd.metrics.calibration import calibrate, read_calibration, write_calibration
from monai_chd.networks import CNNLSTM

TRUST = "ignore:parsing config_file:UserWarning"  # MONAI says so of every config
pytestmark = pytest.mark.filterwarnings(TRUST)
TINY = [
    "--frame_size",
    "16",
    "--sequence_length",
    "8",
    "--hidden_size",
    "8",
    "--learning_rate",
    "0.01",
    "--lr_decay",
    "0.9",
    "--batch_size",
    "2",
]


@pytest.fixture(scope="module")
def datalist(tmp_path_factory) -> Path:
    """12 patients, two folds, nothing held out."""
    folder = tmp_path_factory.mktemp("handlers")
    prepare(write_cohort(folder / "cohort", 12), folder / "work", Choices(folds=2, test_fraction=0))
    return folder / "work" / "datalist.json"


def train(datalist: Path, out: Path, epochs: int, *more: str) -> int:
    return main(["train", str(datalist), "--out", str(out), "--max_epochs", str(epochs), *TINY, *more])


@pytest.fixture(scope="module")
def runs(datalist, tmp_path_factory) -> SimpleNamespace:
    """The same training of four epochs, once in one go and once stopped after two and resumed."""
    folder = tmp_path_factory.mktemp("runs")
    assert train(datalist, folder / "whole", 4) == 0
    assert train(datalist, folder / "parts", 2) == 0
    half = torch.load(folder / "parts" / "models" / "last.pt", weights_only=True)
    assert train(datalist, folder / "parts", 4, "--resume", "true") == 0
    return SimpleNamespace(whole=folder / "whole", parts=folder / "parts", half=half)


def last(out: Path) -> dict:
    return torch.load(out / "models" / "last.pt", weights_only=True)


def assert_equal_tensors(left: object, right: object) -> None:
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal_tensors(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_equal_tensors(a, b)
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    else:
        assert left == right


def test_two_epochs_and_two_resumed_give_the_four_to_the_last_bit(runs):
    whole, parts = last(runs.whole), last(runs.parts)
    assert (whole["epoch"], parts["epoch"], runs.half["epoch"]) == (4, 4, 2)
    for key in ("network", "optimizer", "lr_scheduler", "best", "history", "rng"):
        assert_equal_tensors(whole[key], parts[key])
    assert_equal_tensors(
        *(torch.load(out / "models" / "model.pt", weights_only=True) for out in (runs.whole, runs.parts))
    )
    assert (runs.whole / "learning_curves.csv").read_text() == (runs.parts / "learning_curves.csv").read_text()


@pytest.mark.parametrize(
    ("override", "value", "said"),
    [
        ("optimizer#weight_decay", "0.1", r"optimizer: weight_decay 0 \(asked: 0\.1\)"),
        ("optimizer#_target_", "torch.optim.AdamW", r"optimizer: class Adam \(asked: AdamW\)"),
        ("lr_scheduler#gamma", "0.5", r"lr_scheduler: gamma 0\.9 \(asked: 0\.5\)"),
        ("loss#label_smoothing", "0.2", r"loss: label_smoothing 0\.0 \(asked: 0\.2\)"),
        (
            "train#preprocessing#transforms#0#sampling",
            "first",
            r"frames: 1 step pad sampling 'even' \(asked: 'first'\)",
        ),
    ],
)
def test_a_training_goes_on_with_no_other_part_of_the_config(datalist, runs, capsys, override, value, said):
    before = {path: path.read_bytes() for path in (runs.parts / "models").iterdir()}
    assert train(datalist, runs.parts, 6, "--resume", "true", f"--{override}", value) == 1
    error = capsys.readouterr().err
    assert re.search(rf"last\.pt was trained with {said}", error) and "Traceback" not in error
    assert before == {path: path.read_bytes() for path in (runs.parts / "models").iterdir()}


def test_the_epochs_differ_so_the_comparison_means_something(runs):
    states = runs.half["network"], last(runs.whole)["network"]
    assert not all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    losses = [row["train_loss"] for row in last(runs.whole)["history"]]
    assert len(set(losses)) == 4


def test_the_model_is_a_bare_state_dict_of_tensors(runs):
    state = torch.load(runs.whole / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    CNNLSTM("small_cnn", hidden_size=8).load_state_dict(state)


def test_the_best_metric_is_the_best_of_the_history(runs):
    saved = last(runs.parts)
    assert saved["best"] == max(row["val_macro_f1"] for row in saved["history"])


def test_a_folder_with_a_model_is_not_trained_into_again(runs, datalist, capsys):
    before = {path: path.read_bytes() for path in (runs.whole / "models").iterdir()}
    assert train(datalist, runs.whole, 1) == 1
    assert (
        "already holds a model; choose another output folder, or go on with it with --resume true"
        in capsys.readouterr().err
    )
    assert {path: path.read_bytes() for path in (runs.whole / "models").iterdir()} == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "already trained for 4 epochs; ask for more with --max_epochs N"),
        (("--max_epochs", "9", "--window", "[0, 100]"), "window [-200, 900] (asked: [0, 100])"),
        (("--max_epochs", "9", "--learning_rate", "0.1"), "learning_rate 0.01 (asked: 0.1)"),
        (("--max_epochs", "9", "--batch_size", "3", "--seed", "1"), "batch_size 2 (asked: 3), seed 42 (asked: 1)"),
        (("--max_epochs", "9", "--cache", "memory"), "cache 'none' (asked: 'memory')"),
    ],
    ids=["no more epochs", "other frames", "other rate", "other batches", "other cache"],
)
def test_resuming_what_cannot_go_on_is_refused_and_changes_nothing(runs, datalist, capsys, more, message):
    before = {path: path.read_bytes() for path in (runs.parts / "models").iterdir()}
    assert main(["train", str(datalist), "--out", str(runs.parts), "--resume", "true", *more]) == 1
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (runs.parts / "models").iterdir()} == before


def test_the_notes_of_a_resumed_training_are_those_of_one_that_ran_through(runs):
    for name in ("settings.json", "trained_on.json"):
        assert (runs.whole / "models" / name).read_text() == (runs.parts / "models" / name).read_text()


def test_equal_trainings_give_equal_files(runs):
    """torch writes the name of the file it is given into it; a temporary name is another one every time."""
    for name in ("model.pt", "calibration.json"):
        assert (runs.whole / "models" / name).read_bytes() == (runs.parts / "models" / name).read_bytes()


def test_a_training_without_a_validation_is_refused_before_it_starts(datalist, tmp_path, capsys):
    assert train(datalist, tmp_path / "out", 1, "--val_interval", "2") == 1
    assert "val_interval: expected no more than max_epochs, 1, got 2" in capsys.readouterr().err
    assert not (tmp_path / "out" / "models" / "last.pt").exists()


def test_the_calibration_of_a_resumed_training_is_that_of_one_that_ran_through(runs):
    files = [(out / "models" / "calibration.json").read_bytes() for out in (runs.whole, runs.parts)]
    assert files[0] == files[1]
    assert json.loads(files[0])["cases"] == 6  # the validation fold


def test_training_grants_a_wished_coverage_and_tells_what_it_is_from(datalist, tmp_path, capfd):
    assert train(datalist, tmp_path / "out", 1, "--coverage", "0.5") == 0
    calibration = read_calibration(tmp_path / "out" / "models" / "model.pt")
    assert calibration.target == {"coverage": 0.5}
    assert sum(c >= calibration.threshold for c in calibration.confidence) >= 3
    told = next(line for line in capfd.readouterr().out.splitlines() if "calibration:" in line)
    assert "validation cases, which also chose the model" in told
    assert json.loads((tmp_path / "out" / "models" / "settings.json").read_text())["coverage"] == 0.5


def test_wishes_that_are_none_are_refused_before_training(datalist, tmp_path, capsys):
    for wish in (["--coverage", "0"], ["--risk", "1"], ["--coverage", "0.5", "--risk", "0.1"]):
        assert train(datalist, tmp_path / "out", 1, *wish) == 1
        assert re.search("coverage|risk", capsys.readouterr().err)
    assert not (tmp_path / "out" / "models").exists()


@pytest.mark.usefixtures("no_picture")
@pytest.mark.parametrize(
    ("scores", "best_epoch"), [([0.1, 0.5, 0.3, 0.5], 2), ([0.9, 0.8, 0.7], 1), ([0.0, 0.0, 0.2], 3), ([-3, -2, -4], 2)]
)
def test_the_model_kept_is_the_first_with_the_best_score(tmp_path, scores, best_epoch):
    trainer, checkpoints = engines(tmp_path, scores, network=start_at_zero())
    trainer.run([0, 0], max_epochs=len(scores))
    assert saved_weight(tmp_path) == 2 * best_epoch  # a step adds one, an epoch has two
    assert checkpoints.best == max(scores)


@pytest.mark.usefixtures("no_picture")
def test_a_worse_epoch_after_resuming_does_not_replace_the_best_model(tmp_path):
    trainer, _ = engines(tmp_path, [0.5, 0.4], network=start_at_zero())
    trainer.run([0], max_epochs=2)
    trainer, checkpoints = engines(tmp_path, [9, 9, 0.45, 0.6], resume=True)
    trainer.run([0], max_epochs=3)
    assert (saved_weight(tmp_path), checkpoints.best) == (1, 0.5)
    state = checkpoints.evaluator.state
    assert (state.best_metric, state.best_metric_epoch) == (0.5, 1)  # what MONAI tells in the log
    trainer, checkpoints = engines(tmp_path, [9, 9, 9, 0.6], resume=True)
    trainer.run([0], max_epochs=4)
    assert (saved_weight(tmp_path), checkpoints.best) == (4, 0.6)


@pytest.mark.usefixtures("no_picture")
@pytest.mark.parametrize(("stop", "interval", "last"), [(1, 1, 5), (2, 1, 5), (4, 1, 5), (3, 2, 8)])
def test_a_training_stops_early_where_it_would_have_without_the_stop_before(tmp_path, stop, interval, last):
    scores = [0.3, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.3, 0.2, 0.1]
    for folder, parts in ((tmp_path / "whole", (10,)), (tmp_path / "parts", (stop, 10))):
        for number, epochs in enumerate(parts):
            network = start_at_zero()
            trainer, _ = engines(folder, scores, network=network, resume=number > 0, interval=interval, patience=3)
            trainer.run([0], max_epochs=epochs)
        assert (trainer.state.epoch, network.weight.item()) == (last, last)
    whole, parts = (torch.load(tmp_path / name / "models" / "last.pt") for name in ("whole", "parts"))
    assert whole["early_stop"] == parts["early_stop"] and whole["early_stop"]["counter"] == 3


@pytest.mark.usefixtures("no_picture")
def test_an_epoch_without_validation_neither_saves_a_model_nor_repeats_old_figures(tmp_path):
    trainer, _ = engines(tmp_path, [0.1, 0.2, 0.3, 0.9, 0.1], interval=2, network=start_at_zero())
    trainer.run([0], max_epochs=5)
    assert saved_weight(tmp_path) == 4
    with (tmp_path / "learning_curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["score"] for row in rows] == ["", "0.2", "", "0.9", ""]


def test_other_processes_than_the_first_write_nothing(tmp_path):
    trainer, _ = engines(tmp_path, [0.1])
    trainer.state.rank = 1
    trainer.run([0], max_epochs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_picture")
def test_the_loss_scale_of_mixed_precision_goes_on_where_it_stopped(tmp_path):
    trainer, _ = engines(tmp_path, [0.1])
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    trainer.run([0], max_epochs=1)
    trainer, _ = engines(tmp_path, [0.1, 0.1], resume=True)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    trainer.run([0], max_epochs=2)
    assert trainer.scaler.state_dict()["scale"] == 8.0


def test_a_training_that_fails_before_its_first_weights_leaves_nothing_beside_them(tmp_path):
    trainer, _ = engines(tmp_path, [0.1])

    def fail(engine):
        assert list(tmp_path.iterdir()) == []
        raise UserError("a.nii.gz: cut")

    trainer.add_event_handler(Events.ITERATION_STARTED, fail)
    with pytest.raises(UserError):
        trainer.run([0], max_epochs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_picture")
def test_a_model_that_cannot_be_written_leaves_the_one_before_with_its_calibration(tmp_path, monkeypatch):
    trainer, _ = engines(tmp_path, [0.1, 0.2])
    folder, save = tmp_path / "models", torch.save

    def full_from_the_second_on(content, file):
        if (folder / "model.pt").exists() and "epoch" not in content:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", full_from_the_second_on)
    trainer.add_event_handler(Events.EPOCH_STARTED(once=2), lambda: (folder / "calibration.json").write_text("its own"))
    with pytest.raises(UserError, match=r"model\.pt: cannot be written \(No space left on device\)"):
        trainer.run([0], max_epochs=2)
    assert (folder / "calibration.json").read_text() == "its own"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("calibration.json", "last.pt", "model.pt", "settings.json", "trained_on.json")
    ]


def saved_epoch(tmp_path) -> int:
    return torch.load(tmp_path / "models" / "last.pt", weights_only=True)["epoch"]


@pytest.mark.usefixtures("no_picture")
@pytest.mark.parametrize(("wait", "written"), [(3600.0, [1, 1, 1, 4]), (-1.0, [1, 2, 3, 4])])
def test_what_is_needed_to_go_on_is_written_now_and_then_and_at_the_end(tmp_path, monkeypatch, wait, written):
    monkeypatch.setattr(Checkpoints, "SAVE_AFTER", wait)
    trainer, _ = engines(tmp_path, [0.1, 0.2, 0.3, 0.4], network=start_at_zero())
    found = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: found.append(saved_epoch(tmp_path)))
    trainer.run([0, 0], max_epochs=4)
    assert [*found[:-1], saved_epoch(tmp_path)] == written
    assert torch.load(tmp_path / "models" / "last.pt", weights_only=True)["network"]["weight"].item() == 8


@pytest.mark.usefixtures("no_picture")
def test_a_training_that_fails_goes_on_from_what_was_last_written_to_the_same_model(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "SAVE_AFTER", 3600.0)
    scores = [0.1, 0.2, 0.3, 0.25]
    trainer, _ = engines(tmp_path, scores, network=start_at_zero())

    @trainer.on(Events.ITERATION_COMPLETED(once=7))
    def fail():
        raise OSError("power cut")

    with pytest.raises(OSError, match="power cut"):
        trainer.run([0, 0], max_epochs=4)
    assert (saved_epoch(tmp_path), saved_weight(tmp_path)) == (1, 6)  # the best model is newer
    trainer, checkpoints = engines(tmp_path, scores, resume=True)
    trainer.run([0, 0], max_epochs=4)
    assert (saved_epoch(tmp_path), saved_weight(tmp_path), checkpoints.best) == (4, 6, 0.3)


@pytest.mark.usefixtures("no_picture")
def test_a_training_that_ends_within_an_epoch_leaves_the_last_whole_one(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "SAVE_AFTER", 3600.0)
    trainer, _ = engines(tmp_path, [0.1, 0.2, 0.3], network=start_at_zero())
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=5), lambda: trainer.terminate())
    trainer.run([0, 0], max_epochs=3)
    assert trainer.state.epoch == 3
    assert saved_epoch(tmp_path) == 1


@pytest.mark.usefixtures("no_picture")
def test_the_calibration_kept_is_that_of_the_model_kept(tmp_path):
    calibrator = Calibrator()
    each = [validation(seed) for seed in range(3)]
    for epochs, best in enumerate([0, 1, 1], start=1):  # the third epoch is worse
        resume = epochs > 1
        validated(calibrator, *each[epochs - 1])
        trainer, _ = engines(tmp_path, [0.2, 0.5, 0.4], resume=resume, calibrator=calibrator)
        trainer.run([0], max_epochs=epochs)
        expected = calibrate(*each[best])
        assert read_calibration(tmp_path / "models" / "model.pt") == expected


@pytest.mark.usefixtures("no_picture")
def test_a_model_whose_validation_is_no_number_keeps_no_older_calibration(tmp_path):
    write_calibration(calibrate(*validation(0)), tmp_path / "models")
    calibrator = validated(Calibrator(), [0, 1], [[np.nan] * 3, [0.2, 0.3, 0.5]])
    trainer, _ = engines(tmp_path, [0.5], calibrator=calibrator)
    trainer.run([0], max_epochs=1)
    assert (tmp_path / "models" / "model.pt").is_file()
    assert not (tmp_path / "models" / "calibration.json").exists()


def test_random_states_come_back_of_all_three_generators():
    def draw():
        return random.random(), float(np.random.rand()), float(np.random.randn()), torch.rand(1).item()

    np.random.randn()  # leaves half of a pair in the generator
    state = checkpoints._rng_state()
    first = draw()
    assert draw() != first
    checkpoints._restore_rng(state)
    assert draw() == first
