"""Every example runs, by the command that examples/README.md gives; the exported models' ones are in test_same_pixels.py."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from monai_chd.cli import main

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(*words) -> str:
    line = [sys.executable, "-W", "ignore", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_table_names_every_example_and_nothing_else():
    named = re.findall(r"^\| `([\w.]+)` \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(
        path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".json", ".ipynb")
    )


@pytest.mark.parametrize("kept", [[], ["--persistent", "kept"]], ids=["memory", "disk"])
def test_plain_monai_training(datalist, tmp_path, kept):
    words = [str(tmp_path / word) if word == "kept" else word for word in kept]
    small = ["--epochs", "1", "--size", "24", "--frames", "10"]
    text = run(EXAMPLES / "plain_monai_training.py", datalist, *small, *words)
    assert re.search(r"epoch 1: mean loss \d\.\d{3}\nfold 0: \d of 9 right", text), text
    assert bool(list(tmp_path.glob("kept/*.pt"))) is bool(kept)


@pytest.mark.slow
def test_a_3d_network_by_config(tmp_path):
    scans, work, out = tmp_path / "scans", tmp_path / "work", tmp_path / "out"
    assert main(["phantom", str(scans), "--patients", "12", "--size", "32", "--slices", "32", "34"]) == 0
    assert main(["prepare", str(scans), "--out", str(work), "--folds", "2", "--test-fraction", "0.25"]) == 0
    bundle = EXAMPLES.parent / "bundle"
    configs = f"['{bundle / 'configs' / 'train.json'}','{EXAMPLES / 'densenet3d.json'}']"
    words = [
        "--config_file",
        configs,
        "--bundle_root",
        bundle,
        "--datalist",
        work / "datalist.json",
        "--output_dir",
        out,
    ]
    run("-m", "monai.bundle", "run", *words, "--frame_size", "32", "--sequence_length", "34", "--max_epochs", "1")
    assert (out / "models" / "model.pt").is_file()


@pytest.mark.slow
def test_the_notebook_runs_from_an_empty_folder(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / "main_job.ipynb", as_version=4)
    pictures = [out for cell in notebook.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    assert len(pictures) >= 2, "stored with its pictures, as people see it without running it"
    for cell in notebook.cells:  # the same, of fewer epochs
        for name, count, fewer in (("structure_epochs", 5, 1), ("max_epochs", 20, 2)):
            cell["source"] = cell["source"].replace(f'"--{name}", "{count}"', f'"--{name}", "{fewer}"')
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "OUT" / "evaluation" / "metrics.json").is_file()
    text = json.dumps(notebook.cells)
    assert "Not a medical device" in text and "accuracy" in text


def federated():
    spec = importlib.util.spec_from_file_location("federated", EXAMPLES / "federated.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_weights_are_averaged_by_cases_and_counters_are_not():
    one, other = ({"w": torch.tensor([a]), "n": torch.tensor(b)} for a, b in ((1.0, 5), (4.0, 7)))
    mean = federated().averaged([one, other], [2, 1])
    assert mean["w"].tolist() == [2.0]
    assert mean["n"].item() == 5


@pytest.mark.slow
def test_two_sites_learn_together_and_the_average_is_a_model(tmp_path):
    """Two clients, two rounds: each site's weights differ, what is kept is their average, and it predicts."""
    sites = []
    for number in (1, 2):
        assert main(["phantom", str(tmp_path / f"c{number}"), "--patients", "12", "--size", "32", "--slices", "8", "10",
                     "--seed", str(number)]) == 0  # fmt: skip
        words = ["--out", str(tmp_path / f"w{number}"), "--folds", "2", "--test-fraction", "0.25"]
        assert main(["prepare", str(tmp_path / f"c{number}"), *words]) == 0
        sites.append(tmp_path / f"w{number}" / "datalist.json")
    out = tmp_path / "out"
    small = ["--rounds", "2", "--frame_size", "24", "--sequence_length", "10"]
    text = run(EXAMPLES / "federated.py", out, *sites, *small)
    rows = re.findall(r"'round': (\d), 'site': '(\w+)', 'validation_cases': (\d+), 'val_accuracy': ([\d.]+)", text)
    assert [row[:2] for row in rows] == [(r, f"site_{s}") for r in "12" for s in "12"]
    last = [torch.load(out / f"site_{n}" / "models" / "last.pt", weights_only=True)["network"] for n in (1, 2)]
    kept = torch.load(out / "models" / "model.pt", weights_only=True)
    cases = [json.loads(site.read_text())["training"] for site in sites]
    shares = [sum(record["fold"] != 0 for record in part) for part in cases]
    assert any(not torch.equal(last[0][name], last[1][name]) for name in kept)
    for name, value in kept.items():
        mean = (last[0][name] * shares[0] + last[1][name] * shares[1]) / sum(shares)
        torch.testing.assert_close(value, mean)
    assert main(["predict", str(tmp_path / "c1"), "--out", str(out)]) == 0
    seen = json.loads((out / "models" / "trained_on.json").read_text())
    assert len(seen["sha256"]) == sum(map(len, cases))
