"""A structure network is trained, resumed, measured, and stands in a classifier, unless it saw that one's test patients."""

import csv
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_structures import FRAMES, train_structures, write_phantom

from monai_chd.cli import main
from monai_chd.networks import CNNLSTM
from monai_chd.workflow import structures
from monai_chd.workflow.run import run_bundle
from monai_chd.workflow.structures import (
    coarse_weights,
    find_structures,
    prepare_structures,
    standardize,
    trained_structures,
    with_structures,
)

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config
SETTINGS = {"frame_size": 24, "window": [-200, 900]}
HEAD = ["--encoder", "structures", "--standardize", "true", "--pooling", "mean", "--hidden_size", "8", *FRAMES]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training of three epochs, in one go and stopped after one, and the datalist."""
    folder = tmp_path_factory.mktemp("structures")
    datalist = write_phantom(folder)
    assert train_structures(datalist, folder / "whole", 3) == 0
    assert train_structures(datalist, folder / "parts", 1) == 0
    assert train_structures(datalist, folder / "parts", 3, "--resume", "true") == 0
    return SimpleNamespace(datalist=datalist, whole=folder / "whole", parts=folder / "parts")


def weights(out):
    return torch.load(out / "structures" / "models" / "model.pt", weights_only=True)


def test_a_resumed_training_gives_the_same_bytes(runs):
    for name in ("models/model.pt", "learning_curves.csv", "dice.csv"):
        assert (runs.whole / "structures" / name).read_bytes() == (runs.parts / "structures" / name).read_bytes()


def test_it_learns_and_its_dice_on_the_test_part_is_written(runs):
    curves = list(csv.DictReader((runs.whole / "structures" / "learning_curves.csv").read_text().splitlines()))
    assert float(curves[-1]["train_loss"]) < float(curves[0]["train_loss"])
    assert {"val_mean_dice", "val_dice_LV", "val_dice_PA"} <= curves[0].keys()
    test = json.loads(runs.datalist.read_text())["test"]
    rows = list(csv.DictReader((runs.whole / "structures" / "dice.csv").read_text().splitlines()))
    assert [row["patient"] for row in rows] == [record["patient"] for record in test]
    assert json.loads((runs.whole / "structures" / "dice.json").read_text())["LV"]["n"] == len(test)


def test_another_resolution_is_not_resumed(runs, capsys):
    assert train_structures(runs.datalist, runs.parts, 4, "--resume", "true", "--frame_size", "32") == 1
    assert re.search(r"last\.pt was trained with frame_size 24 \(asked: 32\)", capsys.readouterr().err)


def test_a_classifier_describes_frames_by_them_and_needs_them_no_more(runs, tmp_path):
    out = tmp_path / "out"
    (out / "structures").parent.mkdir()
    (out / "structures").symlink_to(runs.whole / "structures")
    words = [str(runs.datalist), "--out", str(out), "--cache_dir", str(tmp_path / "cache")]
    assert main(["train", *words, "--max_epochs", "2", "--cache", "features", *HEAD]) == 0
    model = torch.load(out / "models" / "model.pt", weights_only=True)
    own = weights(runs.whole)
    assert all(torch.equal(model[f"encoder.network.{name}"], own[name]) for name in own)
    assert model["standardization.deviation"].std() > 0
    (out / "structures").unlink()  # they are in the model
    assert main(["evaluate", *words]) == 0
    assert main(["predict", str(runs.datalist.parents[1] / "cohort"), "--out", str(out)]) == 0
    tables = [(out / part / "predictions.csv").read_text().splitlines() for part in ("evaluation", "inference")]
    evaluated, predicted = ({row["image"]: row for row in csv.DictReader(table)} for table in tables)
    assert len(predicted) == 18 and evaluated.keys() <= predicted.keys()
    for name, row in evaluated.items():
        assert float(row["Normal"]) == pytest.approx(float(predicted[name]["Normal"]), abs=1e-6)


@pytest.fixture(scope="module")
def cropped(runs, tmp_path_factory):
    """A pair of networks: one finds the heart, one reads its box."""
    out = tmp_path_factory.mktemp("cropped")
    assert train_structures(runs.datalist, out, 3, *CROPPED) == 0
    return out


CROPPED = ("--crop_margin", "0.1")


def test_a_pair_that_was_stopped_goes_on_to_the_same_bytes(runs, cropped, tmp_path, monkeypatch):
    def stop(names, **overrides):
        if overrides.get("crop_margin") is not None:
            raise KeyboardInterrupt
        run_bundle(names, **overrides)

    with monkeypatch.context() as patched:  # stopped between the two
        patched.setattr(structures, "run_bundle", stop)
        assert train_structures(runs.datalist, tmp_path, 3, *CROPPED) != 0
    assert train_structures(runs.datalist, tmp_path, 3, *CROPPED, "--resume", "true") == 0
    for name in ("models/model.pt", "coarse/models/model.pt", "dice.csv"):
        assert (cropped / "structures" / name).read_bytes() == (tmp_path / "structures" / name).read_bytes()


def test_a_pair_is_measured_on_whole_frames_and_writes_label_maps(runs, cropped, tmp_path, capsys):
    rows = list(csv.DictReader((cropped / "structures" / "dice.csv").read_text().splitlines()))
    assert len(rows) == len(json.loads(runs.datalist.read_text())["test"])
    settings = json.loads((cropped / "structures" / "models" / "settings.json").read_text())
    assert (settings["crop_size"], settings["crop_margin"]) == (96, 0.1)
    coarse = json.loads((cropped / "structures" / "coarse" / "models" / "settings.json").read_text())
    assert (coarse["crop_size"], coarse["crop_margin"], coarse["max_epochs"]) == (64, None, 1)
    scans = runs.datalist.parents[1] / "cohort"
    assert main(["segment", str(scans), "--out", str(tmp_path), "--structures", str(weights_file(cropped))]) == 0
    assert len(list((tmp_path / "segmentation").glob("*_seg.nii.gz"))) == 18


def weights_file(out):
    return out / "structures" / "models" / "model.pt"


def test_a_classifier_takes_the_pair_with_its_margin_and_no_other(runs, cropped):
    network = with_structures(CNNLSTM("cropped_structures"), weights_file(cropped), SETTINGS, {"test": []})
    own = torch.load(weights_file(cropped), weights_only=True)
    finder = torch.load(coarse_weights(weights_file(cropped)), weights_only=True)
    state = network.state_dict()
    assert all(torch.equal(state[f"encoder.network.fine.{name}"], own[name]) for name in own)
    assert all(torch.equal(state[f"encoder.network.coarse.{name}"], finder[name]) for name in finder)
    assert state["encoder.network.margin"] == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"trained on the heart's box; take it with --encoder cropped_structures"):
        with_structures(CNNLSTM("structures"), weights_file(cropped), SETTINGS, {"test": []})
    with pytest.raises(ValueError, match=r"trained on whole frames; take it with --encoder structures"):
        with_structures(CNNLSTM("cropped_structures"), weights_file(runs.whole), SETTINGS, {"test": []})


def test_a_pair_without_the_one_that_finds_the_heart_is_refused(cropped, tmp_path):
    shutil.copytree(cropped / "structures" / "models", tmp_path / "models")
    with pytest.raises(FileNotFoundError, match=r"coarse/models/model\.pt: no network that finds the heart"):
        trained_structures(tmp_path / "models" / "model.pt")


def test_patients_that_only_the_finder_has_seen_are_refused(cropped, tmp_path):
    shutil.copytree(cropped / "structures", tmp_path / "structures")
    note = tmp_path / "structures" / "models" / "trained_on.json"
    [seen, *_] = json.loads(note.read_text())["patient"]
    note.write_text(json.dumps({**json.loads(note.read_text()), "patient": []}))
    with pytest.raises(ValueError, match="patients of the test part were seen"):
        with_structures(CNNLSTM("cropped_structures"), weights_file(tmp_path), SETTINGS, {"test": [{"patient": seen}]})


@pytest.fixture
def bare(runs, tmp_path):
    """The same datalist without label maps."""
    content = json.loads(runs.datalist.read_text())
    for record in (*content["training"], *content["test"]):
        record.pop("label_map")
    content["root"] = str(runs.datalist.parents[1] / "cohort")
    (tmp_path / "bare.json").write_text(json.dumps(content))
    return tmp_path / "bare.json"


def test_without_structures_or_label_maps_it_says_how_to_get_them(bare, tmp_path, capsys):
    assert main(["train", str(bare), "--out", str(tmp_path / "out"), *HEAD]) == 1
    error = capsys.readouterr().err
    assert re.search(
        r"structures/models/model\.pt: no structure network.*train-structures.*take another encoder", error
    )
    assert "Traceback" not in error and not (tmp_path / "out" / "models").exists()


def test_a_training_that_needs_structures_trains_them_first_once(runs, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(structures, "train_structures", lambda *given: done.append(given))
    asked = {"encoder": "structures", "frame_size": 24, "structure_epochs": 3, "seed": 5}
    prepare_structures(runs.datalist, tmp_path, asked)
    [(datalist, folder, settings)] = done
    assert (datalist, folder) == (runs.datalist, tmp_path / "structures")
    assert (settings["frame_size"], settings["max_epochs"], settings["seed"]) == (24, 3, 5)
    assert settings["window"] == [-200, 900] and "encoder" not in settings
    prepare_structures(runs.datalist, runs.whole, asked)  # they are there
    prepare_structures(runs.datalist, tmp_path, {**asked, "structures": "elsewhere.pt"})
    prepare_structures(runs.datalist, tmp_path, {**asked, "resume": True})
    assert len(done) == 1


def test_a_structure_network_that_was_stopped_is_gone_on_with_and_not_used_as_it_is(runs, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(structures, "train_structures", lambda *words: done.append(words))
    asked = {"encoder": "structures", "structure_epochs": 3}
    shutil.copytree(runs.whole, tmp_path / "out")
    prepare_structures(runs.datalist, tmp_path / "out", asked)
    assert not done, "its last epoch is the last one asked for"
    settings = tmp_path / "out" / "structures" / "models" / "settings.json"
    noted = json.loads(settings.read_text())
    settings.write_text(json.dumps({**noted, "max_epochs": 4, "early_stop_patience": 4}))
    prepare_structures(runs.datalist, tmp_path / "out", asked)
    assert [words[2]["resume"] for words in done] == [True]
    coarse = tmp_path / "pair" / "structures" / "coarse"
    shutil.copytree(runs.whole / "structures", coarse)
    prepare_structures(runs.datalist, tmp_path / "pair", {**asked, "encoder": "cropped_structures"})
    assert [words[2]["resume"] for words in done] == [True, True], "stopped between the two"


def test_structures_that_a_bundle_ships_do_not_stand_in_for_ones_own_label_maps(runs, bare, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(structures, "train_structures", lambda *words: done.append(words))
    shipped = tmp_path / "bundle" / "structures" / "models"
    shipped.mkdir(parents=True)
    shutil.copy(runs.whole / "structures" / "models" / "model.pt", shipped)
    monkeypatch.setattr(structures, "find_structures", lambda *places: str(shipped / "model.pt"))
    prepare_structures(runs.datalist, tmp_path / "out", {"encoder": "structures"})
    assert len(done) == 1
    prepare_structures(bare, tmp_path / "out", {"encoder": "structures"})
    assert len(done) == 1, "without label maps there is nothing to learn from"


def test_label_maps_that_a_training_does_not_use_are_mentioned(runs, bare, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(structures.logger, "info", said.append)
    prepare_structures(runs.datalist, tmp_path, {"encoder": "small_cnn"})
    assert said == ["18 scans have a label map, which this training does not use: --preset best learns from them"]
    prepare_structures(bare, tmp_path, {})
    assert len(said) == 1


def refused(runs, cases=(), **settings):
    path = runs.whole / "structures" / "models" / "model.pt"
    return lambda: with_structures(CNNLSTM("structures"), path, {**SETTINGS, **settings}, {"test": cases})


def test_structures_of_patients_to_test_on_are_refused(runs):
    """The planted mistake: the structure network has seen a patient of the outer fold."""
    record = json.loads(runs.datalist.read_text())["training"][0]
    with pytest.raises(ValueError, match=rf"1 patients of the test part were seen .*\({record['patient']}\)"):
        refused(runs, [record])()
    refused(runs, [{"patient": "somebody else"}])()


def test_the_audit_holds_them_against_the_test_part(runs, tmp_path, capsys):
    words = ["audit", str(runs.datalist), "--out", str(tmp_path / "audit.json"), "--weights"]
    assert main([*words, str(runs.whole)]) == 0
    assert f"weights whose patients must not be in the test part: {runs.whole}/structures/models/model.pt" in (
        capsys.readouterr().out
    )
    content = json.loads(runs.datalist.read_text())
    content["test"].append({**content["training"].pop(), "fold": None})
    del content["test"][-1]["fold"]
    content["root"] = str(runs.datalist.parents[1] / "cohort")
    (tmp_path / "planted.json").write_text(json.dumps(content))
    assert main(["audit", str(tmp_path / "planted.json"), *words[2:], str(weights_file(runs.whole))]) == 1
    assert "seen by weights, by patient id: " in capsys.readouterr().out
    both = [
        "audit",
        "--weights",
        str(runs.whole),
        "--weights",
        str(tmp_path),
        str(runs.datalist),
    ]  # wherever they stand
    assert main([*both, "--out", str(tmp_path / "audit.json")]) == 2
    assert "no model.pt in this folder" in capsys.readouterr().err


@pytest.mark.parametrize(("key", "value"), [("frame_size", 32), ("window", [-100, 400])])
def test_structures_of_other_frames_are_refused(runs, key, value):
    with pytest.raises(ValueError, match=rf"trained on other frames: {key} .*\(here: "):
        refused(runs, **{key: value})()


def test_weights_of_another_network_are_refused(runs, tmp_path):
    for name in ("settings.json", "trained_on.json"):
        (tmp_path / name).write_bytes((runs.whole / "structures" / "models" / name).read_bytes())
    torch.save({"somewhere": torch.zeros(3)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="weights of another network"):
        with_structures(CNNLSTM("structures"), tmp_path / "model.pt", SETTINGS, {"test": []})
    (tmp_path / "settings.json").write_text('{"frame_size": 24, "window": [-200, 900], "encoder": "small_cnn"}')
    with pytest.raises(ValueError, match=r"no structure network: settings\.json beside it lacks channels, context"):
        with_structures(CNNLSTM("structures"), tmp_path / "model.pt", SETTINGS, {"test": []})


def test_other_encoders_are_left_alone():
    network = CNNLSTM("small_cnn")
    assert with_structures(network, "/nowhere", SETTINGS, {"test": []}) is network


def test_those_trained_here_go_before_those_that_the_bundle_ships(tmp_path):
    own, shipped = tmp_path / "out", tmp_path / "bundle"
    assert find_structures(own, shipped) == str(own / "structures" / "models" / "model.pt")
    (shipped / "structures" / "models").mkdir(parents=True)
    (shipped / "structures" / "models" / "model.pt").touch()
    assert find_structures(own, shipped) == str(shipped / "structures" / "models" / "model.pt")


def test_features_are_standardized_over_real_frames_only():
    network = CNNLSTM("structures", standardize=True)
    rng = np.random.default_rng(0)
    width = network.feature_size
    features = rng.normal(5, 3, (4, 6, width)).astype(np.float32)
    features[:, 4:] = 0  # padding
    features[:, :4, 0] = 7  # never varies
    dataset = [{"image": torch.from_numpy(case), "num_frames": 4} for case in features]
    standardize(network, dataset, resume=True)
    assert not network.standardization.mean.any()
    standardize(network, dataset)
    real = network.standardization(torch.from_numpy(features[:, :4]).reshape(-1, width))
    torch.testing.assert_close(real.mean(0), torch.zeros(width), atol=1e-5, rtol=0)
    torch.testing.assert_close(real[:, 1:].std(0, correction=0), torch.ones(width - 1), atol=1e-5, rtol=0)
    assert not real[:, 0].any()


def test_frames_that_are_no_features_yet_are_encoded_first():
    network = CNNLSTM("small_cnn", standardize=True)
    frames = torch.randint(0, 255, (1, 5, 16, 16), dtype=torch.uint8)
    standardize(network, [{"image": frames, "num_frames": 3}])
    with torch.no_grad():
        expected = network.eval().encoder(frames[None, :, :3], torch.tensor([3]))[0].mean(0)
    torch.testing.assert_close(network.standardization.mean, expected)
