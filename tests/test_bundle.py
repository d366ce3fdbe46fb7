"""The bundle keeps MONAI's contracts: config ids, metadata, export, one preprocessing, and figures that repeat from its table."""

from __future__ import annotations

import ast
import configparser
import csv
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft7Validator
from monai.bundle import ConfigParser, ConfigWorkflow, verify_net_in_out
from packaging.version import Version
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support
from tiny_training import SMALL

import monai_chd
from monai_chd import errors
from monai_chd.cli import main
from monai_chd.labels import CLASSES
from monai_chd.workflow.run import configured
from monai_chd.workflow.settings import MODEL_KEYS

BUNDLE = Path(__file__).resolve().parent.parent / "bundle"
CONFIGS = BUNDLE / "configs"
METADATA = CONFIGS / "metadata.json"


def config(name: str) -> dict:
    return json.loads((CONFIGS / f"{name}.json").read_text())


def run_bundle(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_metadata_keeps_the_zoo_rules():
    metadata = json.loads(METADATA.read_text())
    schema = json.loads((Path(__file__).parent / "data" / "meta_schema.json").read_text())
    assert [error.message for error in Draft7Validator(schema).iter_errors(metadata)] == []
    assert metadata["version"] == monai_chd.__version__
    assert metadata["version"] in metadata["changelog"]
    assert list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values()) == list(CLASSES)


def test_metadata_names_every_package_that_is_needed_in_a_version_that_will_do():
    """The zoo installs exactly these, on Python 3.10: so some are older than the tested ones in constraints.txt."""
    metadata = json.loads(METADATA.read_text())
    setup = configparser.ConfigParser()
    setup.read(BUNDLE.parent / "setup.cfg")
    needed = dict(line.split(">=") for line in setup["options"]["install_requires"].split())
    named = {
        **metadata["required_packages_version"],
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
    }
    assert named.keys() == needed.keys()
    assert all(Version(named[name]) >= Version(least) for name, least in needed.items())


def test_bundle_holds_no_python_and_carries_its_licence():
    assert list(BUNDLE.rglob("*.py")) == []
    assert "Apache License" in (BUNDLE / "LICENSE").read_text()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_configs_are_formatted_as_the_zoo_asks(path):
    text = path.read_text()
    assert text == json.dumps(json.loads(text), indent=4, ensure_ascii=False) + "\n"


def test_science_keys_have_the_promised_defaults():
    train = config("train")
    promised = {
        "frame_size": 512,
        "sequence_length": 200,
        "window": [-200, 900],
        "encoder": "small_cnn",
        "pooling": "last",
        "learning_rate": 1e-4,
        "batch_size": 1,
        "max_epochs": 20,
        "fold": 0,
        "seed": 42,
        "cache": "none",
    }
    assert {key: train[key] for key in promised} == promised


def test_training_and_inference_share_network_and_preprocessing():
    train, inference = config("train"), config("inference")
    assert train["network_def"] == inference["network_def"]
    assert train["train"]["preprocessing"] == inference["preprocessing"]
    assert train["validate"]["preprocessing"] == "%train#preprocessing"


def test_a_model_is_used_with_the_settings_beside_its_weights():
    train, inference, evaluate = config("train"), config("inference"), config("evaluate")
    for user in (inference, evaluate):
        assert user["trained_with"] == {"_target_": "monai_chd.workflow.trained_with", "checkpoint": "@checkpoint"}
        assert {key: user[key] for key in MODEL_KEYS} == {key: f"$@trained_with['{key}']" for key in MODEL_KEYS}
    # all that the network and its frames are made with, whatever else is a choice of the moment
    used = {*references(train["network_def"]), *references(train["train"]["preprocessing"])}
    assert used - set(MODEL_KEYS) == {"python_path", "reader", "hu_offset", "cine_slice"}


@pytest.mark.parametrize("name", ["train", "inference"])
def test_settings_are_references_to_keys_at_the_top(name):
    content = config(name)
    assert content["settings"] == {key: f"@{key}" for key in content["settings"]}
    assert set(MODEL_KEYS) | {"coverage", "risk"} <= set(content["settings"]) <= set(content)


PATHS = sorted(path for path in CONFIGS.glob("*.json") if path.stem != "metadata")


def leaves(value: object) -> list[object]:
    """All plain values of a config."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if parts is None else [leaf for part in parts for leaf in leaves(part)]


def references(value: object) -> set[str]:
    """Ids that a config refers to."""
    texts = [leaf for leaf in leaves(value) if isinstance(leaf, str) and leaf.startswith(("$", "@", "%"))]
    return {name for text in texts for name in re.findall(r"[@%]([\w#]+)", text)}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_expressions_are_short_and_one_call_at_most(path):
    found = [leaf for leaf in leaves(config(path.stem)) if str(leaf).startswith("$")]
    for expression in (text for text in found if not text.startswith("$import")):
        assert len(expression) <= 60, expression
        tree = ast.parse(re.sub(r"@[\w#]+", "reference", expression[1:]), mode="eval")
        nodes = list(ast.walk(tree))
        assert sum(isinstance(node, ast.Call) for node in nodes) <= 1, expression
        assert not any(isinstance(node, (ast.Lambda, ast.comprehension)) for node in nodes), expression


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_nothing_is_named_by_its_position(path):
    content = config(path.stem)
    assert not [name for name in references(content) if re.search(r"#\d+(#|$)", name)]
    expressions = [leaf for leaf in leaves(content) if str(leaf).startswith("$")]
    assert not [text for text in expressions if re.search(r"\[-?\d*:?-?\d*\]|\[[^']*:", text)]


def test_every_handler_has_an_id_but_the_one_that_hosts_look_for_in_its_list():
    train, multi, evaluate, inference = (config(n) for n in ("train", "multi_gpu_train", "evaluate", "inference"))
    # MONAI's check of properties and MONAI Label want dictionaries with a `_target_` in this list, and add to it
    assert [handler["_target_"] for handler in train["train"]["handlers"]] == ["ValidationHandler"]
    lists = [train["train"]["listeners"], multi["train#always"], multi["validate#always"]]
    lists += [train["validate"]["handlers"], evaluate["validate#handlers"], inference["handlers"]]
    for handlers in lists:
        assert len(handlers) >= 3 and all(handler.startswith("@") for handler in handlers)
    assert set(multi["train#always"]) < set(train["train"]["listeners"])
    assert set(multi["validate#always"]) < set(train["validate"]["handlers"])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_config_can_be_begun_without_data_and_checks_first_when_it_is_run(path):
    """A host that loads the network (`monai.bundle.load`) begins a config, and has neither datalist nor scans."""
    content = config(path.stem)
    if path.stem.startswith("preset"):
        assert "run" not in content and "initialize" not in content
        return
    assert content["run"][0] == "@begin"
    assert content.get("initialize", ["@python_path"])[0] == "@python_path"
    own = [step for step in content.get("initialize", []) if step.startswith("@")]
    assert set(own) <= {"@python_path", "@seeded"}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_config_imports_nothing_of_the_package(path):
    """Imports come before everything else: a bundle that carries the package is not on Python's path by then."""
    assert not [line for line in config(path.stem).get("imports", []) if "monai_chd" in line]


def test_both_trainings_share_frames():
    keys = ["sequence_length", "sampling", "window"]
    assert configured(["train_structures"], {}, keys) == [config("train")[key] for key in keys]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*trust.*:UserWarning")
@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["train"], "train"),
        (["train", "evaluate"], "train"),
        (["train", "multi_gpu_train"], "train"),
        (["inference"], "infer"),
    ],
)
def test_no_property_is_missing(names, kind, datalist, cohort, trained, tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "29517")
    # a new output folder, with the trained weights named, as a training refuses a folder that holds a model
    inputs = {"dataset_dir": str(cohort)} if kind == "infer" else {"datalist": str(datalist)}
    hook = sys.excepthook
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / f"{name}.json") for name in names],
        meta_file=str(METADATA),
        logging_file=False,
        workflow_type=kind,
        bundle_root=str(BUNDLE),
        output_dir=str(tmp_path / "out"),
        checkpoint=str(trained / "models" / "model.pt"),
        **inputs,
    )
    workflow.initialize()
    try:
        assert workflow.check_properties() == []
        assert workflow.parser.get_parsed_content("frame_size") == (
            512 if "evaluate" not in names and kind == "train" else 24
        )
    finally:
        workflow.finalize()
    assert "multi_gpu_train" in names or sys.excepthook is hook  # a process group of torch has a hook of its own


def test_network_takes_and_gives_what_the_metadata_says(tmp_path):
    # the shape of the real input is checked by the slow test below
    metadata = json.loads(METADATA.read_text())
    metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = [4, 32, 32]
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(tmp_path / "metadata.json"),
        config_file=str(CONFIGS / "inference.json"),
        device="cpu",
        bundle_root=str(BUNDLE),
    )


@pytest.mark.slow
def test_network_takes_the_full_input():
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(METADATA),
        config_file=str(CONFIGS / "inference.json"),
        device="cpu",
        bundle_root=str(BUNDLE),
    )


def test_trained_network_exports_to_torchscript(trained, tmp_path):
    words = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "ckpt_export", "--net_id", "network_def"]
    words += ["--filepath", str(tmp_path / "model.ts"), "--ckpt_file", str(trained / "models" / "model.pt")]
    words += ["--meta_file", str(METADATA), "--config_file", str(CONFIGS / "inference.json")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    scripted = torch.jit.load(str(tmp_path / "model.ts"))
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "inference.json"))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    frames = torch.rand(2, 1, 6, 24, 24)
    num_frames = torch.tensor([6, 3])
    with torch.no_grad():
        torch.testing.assert_close(scripted.eval()(frames, num_frames), network.eval()(frames, num_frames))


def test_evaluation_equals_scikit_learn_on_its_own_table(trained, datalist):
    assert main(["evaluate", str(datalist), "--out", str(trained)]) == 0
    folder = trained / "evaluation"
    assert {path.name for path in folder.iterdir()} == {
        "predictions.csv",
        "metrics.json",
        "metrics.csv",
        "confusion_matrix.png",
    }
    rows = read_csv(folder / "predictions.csv")
    assert list(rows[0]) == ["image", "patient", "label", "prediction", *CLASSES, "abstain", "reason", "synthetic"]
    records = json.loads(datalist.read_text())["test"]
    assert {row["patient"]: row["label"] for row in rows} == {r["patient"]: CLASSES[r["label"]] for r in records}
    assert {row["image"] for row in rows} == {record["image"] for record in records}
    labels = [row["label"] for row in rows]
    predictions = [max(CLASSES, key=lambda name, row=row: float(row[name])) for row in rows]
    assert predictions == [row["prediction"] for row in rows]
    result = json.loads((folder / "metrics.json").read_text())["result"]
    overall = {name: figure["value"] for name, figure in result["overall"].items()}
    assert overall["accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    assert overall["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predictions))
    for average in ("macro", "weighted"):
        expected = precision_recall_fscore_support(
            labels, predictions, labels=list(CLASSES), average=average, zero_division=0
        )
        got = [overall[f"{average}_{name}"] for name in ("precision", "recall", "f1")]
        np.testing.assert_allclose(got, expected[:3])
    np.testing.assert_array_equal(
        result["confusion_matrix"], confusion_matrix(labels, predictions, labels=list(CLASSES))
    )


def test_evaluation_does_not_show_a_figure_without_interval(trained, datalist, capfd):
    assert main(["evaluate", str(datalist), "--out", str(trained)]) == 0
    printed = capfd.readouterr().out
    assert "accuracy" in printed
    figures = re.findall(r"(?:accuracy|\(macro recall\)) +(\d\S+) (\[[^\]]*\])? ?(n=\d+)?", printed)
    assert figures and all(interval and count for _, interval, count in figures)
    assert "val_" not in printed


def test_the_three_commands_run_from_any_directory(cohort, datalist, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = tmp_path / "out"
    common = ["--bundle_root", str(BUNDLE), "--output_dir", str(out)]
    train, evaluate, inference = (str(CONFIGS / f"{n}.json") for n in ("train", "evaluate", "inference"))
    done = run_bundle(
        "--config_file", train, "--datalist", str(datalist), "--max_epochs", "1", *SMALL, *common, cwd=elsewhere
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model and learning curves:" in done.stdout.splitlines()[-1]  # not dated and named, as MONAI's log
    done = run_bundle("--config_file", f"['{train}','{evaluate}']", "--datalist", str(datalist), *common, cwd=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run_bundle("--config_file", inference, "--dataset_dir", str(cohort), *common, cwd=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(read_csv(out / "inference" / "predictions.csv")) == 24
    assert list(elsewhere.iterdir()) == []


def test_evaluation_and_inference_agree_on_the_same_scans(trained, datalist, cohort):
    assert main(["evaluate", str(datalist), "--out", str(trained)]) == 0
    assert main(["predict", str(cohort), "--out", str(trained)]) == 0
    inferred = {row["image"]: row for row in read_csv(trained / "inference" / "predictions.csv")}
    for row in read_csv(trained / "evaluation" / "predictions.csv"):
        for name in CLASSES:
            assert float(row[name]) == pytest.approx(float(inferred[row["image"]][name]), abs=1e-6)


def test_another_2d_and_a_3d_network_swap_in_by_config(datalist, tmp_path):
    encoder = {
        "_target_": "monai_chd.networks.FrameEncoder",
        "network": {
            "_target_": "monai.networks.nets.resnet18",
            "spatial_dims": 2,
            "n_input_channels": 1,
            "num_classes": 8,
            "conv1_t_stride": 2,
        },
    }
    (tmp_path / "resnet.json").write_text(json.dumps({"encoder": encoder}))
    volume = {
        "_target_": "monai_chd.networks.VolumeNetwork",
        "network": {
            "_target_": "monai.networks.nets.DenseNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 3,
            "block_config": [1, 1],
        },
    }
    (tmp_path / "densenet.json").write_text(json.dumps({"network_def": volume}))
    for name in ("resnet", "densenet"):
        done = run_bundle(
            "--config_file",
            f"['{CONFIGS / 'train.json'}','{tmp_path / name}.json']",
            "--bundle_root",
            str(BUNDLE),
            "--datalist",
            str(datalist),
            "--output_dir",
            str(tmp_path / name),
            "--max_epochs",
            "1",
            *SMALL,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / name / "models" / "model.pt").is_file()


FRAME_ENCODER = {"_target_": "monai_chd.networks.FrameEncoder", "chunk_size": 0}
FRAME_ENCODER["network"] = {"_target_": "monai_chd.networks.SmallCNN"}
VOLUME_NETWORK = {"_target_": "monai_chd.networks.VolumeNetwork", "norm": "batch", "network": None}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"datalist": "/nowhere.json"}, "nowhere.json: no such datalist"),
        ({"dataset_dir": "/nowhere"}, "scans of"),
        ({"fold": 7}, "fold: expected one of"),
        ({"max_epochs": 0}, "max_epochs: expected a whole number"),
        ({"resume": True}, "nothing to resume from"),
        ({"pooling": "median"}, "unknown pooling 'median'"),
        ({"encoder": FRAME_ENCODER}, "expected a chunk_size of at least 1 frame"),
        ({"network_def": VOLUME_NETWORK}, "unknown norm 'batch'"),
        ({"window": [1, 0]}, "window: expected [lower, upper]"),
        ({"cache": "disk"}, "cache: expected one of none"),
        ({"cache": "memory", "hu_offset": 1e9}, ".nii.gz"),
        ({"cache": "features"}, "frozen"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_mistake_in_any_part_of_a_training_ends_a_program_of_monai_bundle(
    datalist, cohort, tmp_path, monkeypatch, overrides, message
):
    monkeypatch.setattr(errors, "is_bundle_program", lambda: True)
    if "hu_offset" in overrides:  # a scan that cannot be read
        shutil.copytree(cohort, tmp_path / "scans")
        for path in (tmp_path / "scans").glob("*_image.nii.gz"):
            path.write_bytes(path.read_bytes()[:200])
        overrides = {"cache": "memory", "dataset_dir": str(tmp_path / "scans")}
    common = {"datalist": str(datalist), "output_dir": str(tmp_path / "out"), "frame_size": 16, "sequence_length": 6}
    with pytest.raises(SystemExit) as caught:
        configured(["train"], {**common, **overrides}, ["begin", "train#trainer"])
    assert message in str(caught.value.code) and str(caught.value.code).startswith("error: ")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dataset_dir": "/nowhere"}, "/nowhere: no such file or folder"),
        ({"engine": "tpu"}, "engine: expected one of torch, openvino, got 'tpu'"),
        ({"frame_size": 32}, "was trained with frame_size 24 (asked: 32)"),
        ({"risk": 2}, "risk: expected a share"),
        ({"checkpoint": "/nowhere/model.pt"}, "no trained model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_mistake_in_any_part_of_an_inference_ends_a_program_of_monai_bundle(
    trained, cohort, monkeypatch, overrides, message
):
    monkeypatch.setattr(errors, "is_bundle_program", lambda: True)
    common = {"dataset_dir": str(cohort), "output_dir": str(trained)}
    with pytest.raises(SystemExit) as caught:
        configured(["inference"], {**common, **overrides}, ["begin", "evaluator"])
    assert message in str(caught.value.code) and str(caught.value.code).startswith("error: ")


def test_a_scan_that_a_training_cannot_read_is_told_in_lines_without_traceback(datalist, cohort, tmp_path):
    scans = tmp_path / "scans"
    shutil.copytree(cohort, scans)
    for path in scans.glob("*_image.nii.gz"):
        path.write_bytes(path.read_bytes()[:200])
    words = ["--config_file", str(CONFIGS / "train.json"), "--bundle_root", str(BUNDLE), "--datalist", str(datalist)]
    words += ["--dataset_dir", str(scans), "--output_dir", str(tmp_path / "out"), *SMALL]
    done = run_bundle(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert re.search(r"^error: .*_image\.nii\.gz: ", done.stderr, re.MULTILINE)


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_has_the_curves_of_a_training(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard")).Reload()
    found = {name: [event.step for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert found["val_macro_f1"] == [1, 2] and len(found["train_loss"]) > 2
    rows = read_csv(trained / "learning_curves.csv")
    assert [event.value for event in events.Scalars("val_macro_f1")] == pytest.approx(
        [float(row["val_macro_f1"]) for row in rows]
    )


def test_installed_package_and_bundle_have_one_version():
    assert version("monai_chd") == monai_chd.__version__
