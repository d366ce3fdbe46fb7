"""Processes that train together, of one machine or of several, learn what one process does on the same order of cases."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import SMALL

from monai_chd.cli import main

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"
CONFIGS = BUNDLE / "configs"

TOLERANCE = 1e-4
"""Of a weight or a metric: two processes add gradients up in another order than one does."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def twelve(cohort, tmp_path_factory) -> Path:
    """A datalist with 12 training cases, four of each class: an even share for two processes, and no class weighs more."""
    work = tmp_path_factory.mktemp("twelve")
    assert main(["prepare", str(cohort), "--out", str(work), "--folds", "3", "--test-fraction", "0.25"]) == 0
    cases = [record for record in json.loads((work / "datalist.json").read_text())["training"] if record["fold"] != 0]
    assert sorted(record["label"] for record in cases) == [0] * 4 + [1] * 4 + [2] * 4
    return work / "datalist.json"


def command(agent: list[str], datalist: Path, out: Path, **keys) -> list[str]:
    words = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", *agent, "-m", "monai.bundle", "run"]
    words += ["--config_file", f"['{CONFIGS / 'train.json'}','{CONFIGS / 'multi_gpu_train.json'}']"]
    words += ["--bundle_root", str(BUNDLE), "--datalist", str(datalist), "--output_dir", str(out), *SMALL]
    return words + [word for key, value in keys.items() for word in (f"--{key}", str(value))]


def start(words: list[str], folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0, said[-4000:]


def here(number: int) -> list[str]:
    return ["--standalone", "--nproc_per_node", str(number)]


def curves(out: Path) -> list[dict[str, str]]:
    with (out / "learning_curves.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "models" / "model.pt", weights_only=True)


def assert_same(first: Path, second: Path) -> None:
    rows, others = curves(first), curves(second)
    assert len(rows) == len(others) > 0 and rows[0].keys() == others[0].keys()
    compared = [key for key in rows[0] if key.startswith("val_")]
    assert compared
    for row, other in zip(rows, others, strict=True):
        for key in compared:
            assert float(row[key] or 0) == pytest.approx(float(other[key] or 0), abs=TOLERANCE), key
    for name, value in weights(first).items():
        torch.testing.assert_close(value, weights(second)[name], atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def two(twelve, tmp_path_factory) -> Path:
    """Output folder of two processes, each with one case of every step."""
    folder = tmp_path_factory.mktemp("two")
    finish(start(command(here(2), twelve, folder / "out", max_epochs=2), folder))
    return folder / "out"


def test_two_processes_learn_what_one_does_and_save_bare_weights(two, twelve, tmp_path):
    finish(start(command(here(1), twelve, tmp_path / "out", max_epochs=2, batch_size=2), tmp_path))
    assert_same(two, tmp_path / "out")
    assert not any(name.startswith("module.") for name in weights(two))
    # both processes see half of the validation cases; the calibration is from all
    cases = sum(record["fold"] == 0 for record in json.loads(twelve.read_text())["training"])
    assert json.loads((two / "models" / "calibration.json").read_text())["cases"] == cases
    assert main(["evaluate", str(twelve), "--out", str(two)]) == 0


def test_two_nodes_learn_what_two_processes_do(two, twelve, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", str(port)]
    agents = [[*place, "--node_rank", str(rank)] for rank in range(2)]
    finish(*(start(command(agent, twelve, tmp_path / "out", max_epochs=2), tmp_path) for agent in agents))
    assert_same(two, tmp_path / "out")


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_training_goes_on_with_another_number_of_processes(twelve, tmp_path, first, then):
    finish(start(command(here(first), twelve, tmp_path / "out", max_epochs=1), tmp_path))
    finish(start(command(here(then), twelve, tmp_path / "out", max_epochs=2, resume=True), tmp_path))
    assert [row["epoch"] for row in curves(tmp_path / "out")] == ["1", "2"]
