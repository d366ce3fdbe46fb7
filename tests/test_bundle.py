"""The bundle keeps MONAI's contracts: config ids, metadata, export, one preprocessing, and figures that repeat from its table."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft7Validator
from monai.bundle import ConfigParser, ConfigWorkflow, verify_net_in_out
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support
from tiny_training import SMALL

import monai_chd
from monai_chd.cli import main
from monai_chd.labels import CLASSES

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


def test_metadata_names_the_tested_versions():
    metadata = json.loads(METADATA.read_text())
    constraints = dict(
        line.split("==") for line in (BUNDLE.parent / "constraints.txt").read_text().splitlines() if "==" in line
    )
    named = {
        **metadata["required_packages_version"],
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
    }
    assert {name: constraints[name] for name in named} == named


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
    assert train["settings"] == inference["settings"]
    science = {key: value for key, value in train.items() if key in train["settings"]}
    assert science == {key: inference[key] for key in science}


def test_expressions_are_one_call_at_most():
    def expressions(value):
        if isinstance(value, str) and value.startswith("$") and not value.startswith("$import"):
            yield value
        elif isinstance(value, dict):
            for part in value.values():
                yield from expressions(part)
        elif isinstance(value, list):
            for part in value:
                yield from expressions(part)

    for name in ("train", "evaluate", "inference"):
        for expression in expressions(config(name)):
            assert "lambda" not in expression
            assert expression.count("(") <= 2, expression


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
    out = tmp_path / "out"
    inputs = {"dataset_dir": str(cohort)} if kind == "infer" else {"datalist": str(datalist)}
    settings = json.loads((trained / "models" / "settings.json").read_text())
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / f"{name}.json") for name in names],
        meta_file=str(METADATA),
        logging_file=False,
        workflow_type=kind,
        bundle_root=str(BUNDLE),
        output_dir=str(out),
        checkpoint=str(trained / "models" / "model.pt"),
        **inputs,
        **settings,
    )
    workflow.initialize()
    try:
        assert workflow.check_properties() == []
    finally:
        workflow.finalize()


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
    assert list(rows[0]) == ["image", "patient", "label", "prediction", *CLASSES, "abstain", "reason"]
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
    figures = re.findall(r"accuracy +(\S+) (\[[^\]]*\])? ?(n=\d+)?", printed)
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
    settings = str(out / "models" / "settings.json")
    done = run_bundle(
        "--config_file", f"['{train}','{evaluate}','{settings}']", "--datalist", str(datalist), *common, cwd=elsewhere
    )
    assert done.returncode == 0, done.stdout + done.stderr
    done = run_bundle(
        "--config_file", f"['{inference}','{settings}']", "--dataset_dir", str(cohort), *common, cwd=elsewhere
    )
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


@pytest.mark.slow
def test_two_processes_train_together_and_save_bare_weights(datalist, tmp_path):
    words = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words += ["-m", "monai.bundle", "run", "--bundle_root", str(BUNDLE), "--datalist", str(datalist)]
    words += ["--config_file", f"['{CONFIGS / 'train.json'}','{CONFIGS / 'multi_gpu_train.json'}']"]
    words += ["--output_dir", str(tmp_path / "out"), "--max_epochs", "2", *SMALL]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    weights = torch.load(tmp_path / "out" / "models" / "model.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in weights)
    # both processes see half of the validation cases; the calibration is from all
    cases = sum(record["fold"] == 0 for record in json.loads(datalist.read_text())["training"])
    assert json.loads((tmp_path / "out" / "models" / "calibration.json").read_text())["cases"] == cases
    assert main(["evaluate", str(datalist), "--out", str(tmp_path / "out")]) == 0


def test_installed_package_and_bundle_have_one_version():
    assert version("monai_chd") == monai_chd.__version__
