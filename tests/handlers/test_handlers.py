"""A stopped training goes on to the same weights, the best model stays, and costs, curves and predictions are told."""

import csv
import json
import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from PIL import Image
from tiny_cohort import write_cohort

from monai_chd.cli import main
from monai_chd.cohort.datalist import Choices, prepare
from monai_chd.handlers import handlers
from monai_chd.handlers.handlers import (
    Calibrator,
    Checkpoints,
    CostEstimate,
    LearningCurves,
    Predictions,
    probability_loss,
)
from monai_chd.metrics.calibration import calibrate, read_calibration, scale, write_calibration
from monai_chd.networks.cnn_lstm import CNNLSTM

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


# stop and resume


def test_two_epochs_and_two_resumed_give_the_four_to_the_last_bit(runs):
    whole, parts = last(runs.whole), last(runs.parts)
    assert (whole["epoch"], parts["epoch"], runs.half["epoch"]) == (4, 4, 2)
    for key in ("network", "optimizer", "lr_scheduler", "best", "history", "rng"):
        assert_equal_tensors(whole[key], parts[key])
    assert_equal_tensors(
        *(torch.load(out / "models" / "model.pt", weights_only=True) for out in (runs.whole, runs.parts))
    )
    assert (runs.whole / "learning_curves.csv").read_text() == (runs.parts / "learning_curves.csv").read_text()


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
    ],
    ids=["no more epochs", "other settings"],
)
def test_resuming_what_cannot_go_on_is_refused_and_changes_nothing(runs, datalist, capsys, more, message):
    before = {path: path.read_bytes() for path in (runs.parts / "models").iterdir()}
    assert train(datalist, runs.parts, 4, "--resume", "true", *more) == 1
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (runs.parts / "models").iterdir()} == before


def test_the_calibration_of_a_resumed_training_is_that_of_one_that_ran_through(runs):
    files = [(out / "models" / "calibration.json").read_bytes() for out in (runs.whole, runs.parts)]
    assert files[0] == files[1]
    assert json.loads(files[0])["cases"] == 6  # the validation fold


def test_training_grants_a_wished_coverage_and_tells_what_it_is_from(datalist, tmp_path, capfd):
    assert train(datalist, tmp_path / "out", 1, "--coverage", "0.5") == 0
    calibration = read_calibration(tmp_path / "out" / "models" / "model.pt")
    assert calibration.wish == {"coverage": 0.5}
    assert sum(c >= calibration.threshold for c in calibration.confidence) >= 3
    told = next(line for line in capfd.readouterr().out.splitlines() if "calibration:" in line)
    assert "validation cases, which also chose the model" in told
    assert json.loads((tmp_path / "out" / "models" / "settings.json").read_text())["coverage"] == 0.5


def test_wishes_that_are_none_are_refused_before_training(datalist, tmp_path, capsys):
    for wish in (["--coverage", "0"], ["--risk", "1"], ["--coverage", "0.5", "--risk", "0.1"]):
        assert train(datalist, tmp_path / "out", 1, *wish) == 1
        assert re.search("coverage|risk", capsys.readouterr().err)
    assert not (tmp_path / "out" / "models").exists()


# checkpoints and curves on engines of their own, with scores given


def engines(tmp_path, scores, *, resume=False, interval=1, network=None, calibrator=None):
    """A trainer whose epochs get the given validation scores; returns it and its checkpoints."""
    network = network or torch.nn.Linear(1, 1)

    def step(engine, batch):
        with torch.no_grad():
            network.weight += 1
        return [{"loss": torch.tensor(float(engine.state.iteration))}]

    trainer, evaluator = Engine(step), Engine(lambda engine, batch: None)
    trainer.state.rank = 0
    evaluator.state.key_metric_name = "score"

    def validate(engine):
        evaluator.state.epoch = engine.state.epoch
        evaluator.state.metrics = {"score": scores[engine.state.epoch - 1]}

    trainer.add_event_handler(Events.EPOCH_COMPLETED(every=interval), validate)
    curves = LearningCurves(tmp_path, evaluator)
    curves.attach(trainer)
    checkpoints = Checkpoints(
        tmp_path, {"network": network}, evaluator, curves, settings={"frame_size": 16}, cases=[{"patient": "1"}],
        resume=resume, calibrator=calibrator,
    )  # fmt: skip
    checkpoints.attach(trainer)
    return trainer, checkpoints


def saved_weight(tmp_path) -> float:
    return torch.load(tmp_path / "models" / "model.pt", weights_only=True)["weight"].item()


def start_at_zero() -> torch.nn.Linear:
    network = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(network.weight)
    return network


@pytest.fixture
def no_picture(monkeypatch):
    """Drawing takes most of the time of an epoch."""
    monkeypatch.setattr(handlers, "learning_curves_figure", lambda history, path: None)


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


def test_learning_curves_are_the_means_of_each_epoch_and_a_picture(tmp_path):
    trainer, checkpoints = engines(tmp_path, [0.25, 0.5])
    trainer.run([0, 0, 0], max_epochs=2)
    expected = [{"epoch": 1, "train_loss": 2.0, "score": 0.25}, {"epoch": 2, "train_loss": 5.0, "score": 0.5}]
    assert checkpoints.curves.history == expected
    with (tmp_path / "learning_curves.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert rows == expected
    with Image.open(tmp_path / "learning_curves.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 100
    assert not list(tmp_path.rglob(".*"))


def validated(calibrator, labels, probabilities):
    """Run a validation of these cases, two a batch, past the calibrator."""
    cases = [{"label": torch.tensor(k), "pred": torch.tensor(p)} for k, p in zip(labels, probabilities, strict=True)]
    engine = Engine(lambda engine, batch: batch)
    calibrator.attach(engine)
    for _ in range(2):  # each validation stands alone
        engine.run([cases[i : i + 2] for i in range(0, len(cases), 2)])
    return calibrator


def validation(seed, n=15):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, n), rng.dirichlet([0.3] * 3, n)


def test_the_calibration_is_fitted_to_the_last_validation_alone():
    labels, probabilities = validation(0)
    calibrator = validated(Calibrator(coverage=0.6), labels, probabilities)
    assert calibrator.calibration() == calibrate(labels, probabilities, coverage=0.6)


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


@pytest.mark.parametrize(("wait", "drawn"), [(3600.0, 1), (-1.0, 4)])
def test_the_picture_of_the_curves_waits_and_is_drawn_at_the_end(tmp_path, monkeypatch, wait, drawn):
    pictures = []
    monkeypatch.setattr(handlers, "learning_curves_figure", lambda history, path: pictures.append(len(history)))
    monkeypatch.setattr(LearningCurves, "DRAW_AFTER", wait)
    trainer, _ = engines(tmp_path, [0.1, 0.2, 0.3])
    trainer.run([0], max_epochs=3)
    assert len(pictures) == drawn and pictures[-1] == 3


def test_random_states_come_back_of_all_three_generators():
    def draw():
        return random.random(), float(np.random.rand()), float(np.random.randn()), torch.rand(1).item()

    np.random.randn()  # leaves half of a pair in the generator
    state = handlers._rng_state()
    first = draw()
    assert draw() != first
    handlers._restore_rng(state)
    assert draw() == first


def test_the_validation_loss_is_the_mean_negative_log_of_the_true_class():
    probabilities, labels = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]), torch.tensor([0, 2])
    assert probability_loss(probabilities, labels).item() == pytest.approx(np.log(2) / 2)
    expected = torch.nn.functional.cross_entropy(probabilities[:1].log(), labels[:1])
    assert probability_loss(probabilities[:1], labels[:1]).item() == pytest.approx(expected.item())
    assert torch.isfinite(probability_loss(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([0])))


# cost


def steps(
    monkeypatch, seconds: list[float], *, epochs: int, length: int, batch: int, network=None, shape=(1,), **choices
) -> CostEstimate:
    """A training whose steps end at the given times of the clock, up to the last of them."""
    clock = iter(seconds)
    monkeypatch.setattr(handlers.time, "monotonic", lambda: next(clock))
    images = [{"image": torch.zeros(shape)}] * batch
    engine = Engine(lambda engine, data: setattr(engine.state, "batch", images))
    engine.network = network
    cost = CostEstimate(**choices)
    cost.attach(engine)
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: e.state.iteration == len(seconds) + 2 and e.terminate()
    )
    engine.run(range(length), max_epochs=epochs)
    return cost


def test_the_cost_is_told_once_after_three_steps_without_the_first(monkeypatch, capsys):
    # 20 s to warm up, then 6 s a step of 2 cases: 10 epochs of 5 steps and 10 validations of 4 cases at a third each
    steps(monkeypatch, [20.0, 26.0, 32.0], epochs=10, length=5, batch=2, validation_cases=4)
    out = capsys.readouterr().out
    minutes = 10 * (5 * 6 + 4 / 2 * 6 / 3) / 60
    assert out.startswith(f"estimated: about {minutes:.1f} minutes in all (3.00 s a case), peak memory so far ")
    assert re.search(r"peak memory so far \d+\.\d GiB", out)
    assert out.count("\n") == 1 and "Cheaper" not in out


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        # 10 steps of 6 s and 4 validation cases at 3 s, which are encoded, too
        (
            (1, 2, 4, 4),
            "estimated: about 1.2 minutes for the first epoch, in which the frozen encoder describes each scan;",
        ),
        ((2, 8), "estimated: about 10.7 minutes in all"),  # features that were kept before: every epoch costs the same
    ],
)
def test_an_encoder_that_remembers_costs_once(monkeypatch, capsys, shape, told):
    network = SimpleNamespace(encoder=SimpleNamespace(remembers=True))
    choices = {"epochs": 10, "length": 10, "batch": 2, "validation_cases": 4}
    steps(monkeypatch, [20.0, 26.0, 32.0], network=network, shape=shape, **choices)
    assert capsys.readouterr().out.startswith(told)


def test_a_training_of_over_two_hours_names_cheaper_settings(monkeypatch, capsys):
    steps(monkeypatch, [0.0, 10.0, 20.0], epochs=100, length=10, batch=1, validation_cases=0)
    out = capsys.readouterr().out
    assert out.startswith("estimated: about 2.8 hours in all (10.00 s a case)")
    for setting in ("--frame_size 224", "--sequence_length 100", "--encoder efficientnet_lite0", "--max_epochs", "GPU"):
        assert setting in out


@pytest.mark.parametrize(("seconds", "long"), [(7200, False), (7201, True), (59, False)])
def test_long_is_more_than_two_hours(seconds, long):
    assert ("This is long" in CostEstimate(0).report(seconds, 1, 1)) == long


def test_rarer_validations_cost_less(monkeypatch, capsys):
    steps(monkeypatch, [0.0, 6.0, 12.0], epochs=1, length=10, batch=1, validation_cases=30, validation_interval=2)
    assert capsys.readouterr().out.startswith("estimated: about 1.5 minutes")


def test_two_steps_are_too_few_to_tell(monkeypatch, capsys):
    steps(monkeypatch, [0.0, 6.0], epochs=1, length=2, batch=1, validation_cases=0)
    assert capsys.readouterr().out == ""


# predictions


def predict(tmp_path, cases: list[dict], dataset_dir: Path, **choices) -> Predictions:
    """Run the handler over cases {image, label, patient, pred, reason}, two a batch."""

    def step(engine, chunk):
        batch = []
        for case in chunk:
            image = MetaTensor(torch.zeros(1), meta={"filename_or_obj": str(case["image"])})
            batch.append({**{k: v for k, v in case.items() if k != "pred"}, "image": image})
        engine.state.batch = batch
        return [{"pred": torch.tensor(case["pred"])} for case in chunk]

    class KeepsBatch(Engine):
        """As MONAI's engines, which put the decollated batch in place of the loaded one."""

    engine = KeepsBatch(step)
    predictions = Predictions(tmp_path / "out", dataset_dir, **choices)
    predictions.attach(engine)
    engine.run([cases[i : i + 2] for i in range(0, len(cases), 2)])
    return predictions


def table(tmp_path) -> list[dict[str, str]]:
    with (tmp_path / "out" / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def case(image, pred=(0.7, 0.2, 0.1), **more) -> dict:
    return {"image": image, "pred": list(pred), **more}


def test_images_are_named_relative_to_their_folder(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    images = [folder / "a" / "x.nii.gz", folder / "b" / "x.nii.gz", tmp_path / "other" / "x.nii.gz"]
    predict(tmp_path, [case(image) for image in images], folder)
    assert [row["image"] for row in table(tmp_path)] == ["../other/x.nii.gz", "a/x.nii.gz", "b/x.nii.gz"]
    assert all(row["label"] == "" and row["prediction"] == "Cyanotic" for row in table(tmp_path))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_names_do_not_depend_on_how_the_folder_is_written(tmp_path, monkeypatch):
    (tmp_path / "scans").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "scans")
    monkeypatch.chdir(tmp_path)
    ways = [("scans", "scans"), ("./scans", "scans"), (tmp_path / "scans", "scans"), (tmp_path / "scans", "link")]
    ways.append(("link", "link"))
    for image, folder in ways:
        predict(tmp_path, [case(Path(image, "a", "x.nii.gz"))], Path(folder))
        assert [row["image"] for row in table(tmp_path)] == ["a/x.nii.gz"]


def test_a_single_file_is_named_by_its_name(tmp_path):
    predict(tmp_path, [case(tmp_path / "x.nii.gz")], tmp_path / "x.nii.gz")
    assert [row["image"] for row in table(tmp_path)] == ["x.nii.gz"]


def test_scores_are_of_the_predictions_in_the_table(tmp_path, capsys):
    sure = np.eye(3) * 0.7 + 0.1
    cases = [
        case(f"{i}.nii", sure[p], label=t, patient=str(i)) for i, (p, t) in enumerate([(0, 0), (1, 1), (2, 1), (2, 2)])
    ]
    predict(tmp_path, cases, tmp_path, score=True, context={"seed": 7, "part": "test"})
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["result"]["overall"]["accuracy"]["value"] == 0.75
    assert metrics["result"]["confusion_matrix"] == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert (metrics["context"]["seed"], metrics["context"]["part"]) == (7, "test")
    assert (tmp_path / "out" / "metrics.csv").is_file() and (tmp_path / "out" / "confusion_matrix.png").is_file()
    out = capsys.readouterr().out
    assert "4 scans predicted" in out and re.search(r"accuracy +0\.750 \[", out)


def test_files_that_could_not_be_read_are_rows_without_figures_and_listed_at_the_end(tmp_path):
    cases = [case("a.nii", reason=""), case("b.nii", reason="b.nii: truncated"), case("c.nii", reason="c.nii: no CT")]
    predictions = predict(tmp_path, cases, tmp_path)
    rows = {Path(row["image"]).name: row for row in table(tmp_path)}
    assert (rows["a.nii"]["prediction"], rows["a.nii"]["abstain"]) == ("Cyanotic", "false")
    assert (rows["b.nii"]["prediction"], rows["b.nii"]["Cyanotic"], rows["b.nii"]["reason"]) == (
        "",
        "",
        "b.nii: truncated",
    )
    with pytest.raises(
        ValueError,
        match=r"2 of 3 files have no prediction, the others have theirs:\n  b\.nii: truncated\n  c\.nii: no CT",
    ):
        predictions.check()


def test_when_all_files_were_read_nothing_is_raised_and_a_second_run_starts_afresh(tmp_path):
    predictions = predict(tmp_path, [case("a.nii", reason="")], tmp_path)
    predictions.check()
    predictions._start()
    assert predictions.rows == []


# calibration and abstention


@pytest.fixture
def model(tmp_path) -> Path:
    """A model with a temperature of 2 that abstains below 0.5; the weights themselves are not read."""
    content = {"temperature": 2.0, "threshold": 0.5, "wish": {"coverage": 0.8}}
    content["validation"] = {"confidence": [0.9, 0.6, 0.4, 0.35], "right": [True, True, False, True]}
    (tmp_path / "calibration.json").write_text(json.dumps(content))
    return tmp_path / "model.pt"


SURE, UNSURE = (0.9, 0.06, 0.04), (0.5, 0.1, 0.4)


def test_probabilities_are_calibrated_and_the_class_of_an_abstention_is_still_told(tmp_path, model):
    predict(tmp_path, [case("a.nii", SURE), case("b.nii", UNSURE)], tmp_path, checkpoint=model)
    rows = {Path(row["image"]).name: row for row in table(tmp_path)}
    for name, pred in (("a.nii", SURE), ("b.nii", UNSURE)):
        found = [float(rows[name][each]) for each in ("Cyanotic", "Non-Cyanotic", "Normal")]
        assert found == pytest.approx(scale(pred, 2.0).tolist(), abs=1e-6)  # the network's are float32
    assert (rows["a.nii"]["abstain"], rows["a.nii"]["reason"]) == ("false", "")
    assert (rows["b.nii"]["abstain"], rows["b.nii"]["prediction"]) == ("true", "Cyanotic")
    assert rows["b.nii"]["reason"] == "confidence 0.43 below 0.50"


def test_an_abstention_is_no_unread_file(tmp_path, model, capsys):
    predictions = predict(tmp_path, [case("b.nii", UNSURE, reason="")], tmp_path, checkpoint=model)
    predictions.check()
    assert "1 scans predicted, 0 without a prediction, 1 of the predicted abstained from" in capsys.readouterr().out
    both = [case("b.nii", UNSURE, reason=""), case("c.nii", reason="c.nii: truncated")]
    predictions = predict(tmp_path, both, tmp_path, checkpoint=model)
    with pytest.raises(
        ValueError, match=r"1 of 2 files have no prediction, the others have theirs:\n  c\.nii: truncated$"
    ):
        predictions.check()
    assert "1 scans predicted, 1 without a prediction, 1 of the predicted abstained from" in capsys.readouterr().out


def test_figures_are_given_for_all_cases_and_for_the_answered(tmp_path, model, capsys):
    wanted = [(SURE, 0), (SURE, 0), (SURE, 1), (UNSURE, 1), (UNSURE, 2)]
    cases = [case(f"{i}.nii", pred, label=label, patient=str(i)) for i, (pred, label) in enumerate(wanted)]
    predict(tmp_path, cases, tmp_path, score=True, checkpoint=model)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["result"]["overall"]["accuracy"]["value"] == pytest.approx(2 / 5)
    assert metrics["answered"]["overall"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert (metrics["coverage"]["value"], metrics["coverage"]["n"]) == (pytest.approx(3 / 5), 5)
    used = metrics["context"]["calibration"]
    assert (used["temperature"], used["threshold"], used["validation_cases"]) == (2.0, 0.5, 4)
    losses = [-np.log(pred[label]) for pred, label in wanted]
    assert used["before"]["log_loss"]["value"] == pytest.approx(np.mean(losses), abs=1e-6)
    with (tmp_path / "out" / "metrics.csv").open() as file:
        rows = {(row["metric"], row["class"]): float(row["value"] or "nan") for row in csv.DictReader(file)}
    assert rows["accuracy", ""] == pytest.approx(2 / 5) and rows["answered_accuracy", ""] == pytest.approx(2 / 3)
    assert rows["coverage", ""] == pytest.approx(3 / 5)
    out = capsys.readouterr().out
    assert re.search(r"share answered +0\.600 \[", out) and re.search(
        r"accuracy +0\.400 \[.*\] n=5 +0\.667 \[.*\] n=3", out
    )


@pytest.mark.parametrize(
    ("wish", "answered"), [({}, 1), ({"coverage": 1.0}, 2), ({"risk": 0.35}, 1), ({"risk": 0.1}, 0)]
)
def test_another_wish_at_the_time_of_use_moves_the_threshold(tmp_path, model, wish, answered):
    cases = [case(f"{i}.nii", pred, label=0, patient=str(i)) for i, pred in enumerate((SURE, UNSURE))]
    predict(tmp_path, cases, tmp_path, score=True, checkpoint=model, **wish)
    assert sum(row["abstain"] == "false" for row in table(tmp_path)) == answered
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["coverage"]["value"] == answered / 2 and (metrics["answered"] is None) == (answered != 1)


def test_a_model_without_calibration_gives_what_the_network_gives(tmp_path):
    bare = tmp_path / "elsewhere" / "model.pt"
    predict(tmp_path, [case("a.nii", UNSURE)], tmp_path, checkpoint=bare)
    row = table(tmp_path)[0]
    given = torch.tensor(UNSURE).double().tolist()
    assert [float(row[name]) for name in ("Cyanotic", "Non-Cyanotic", "Normal")] == given and row["abstain"] == "false"
