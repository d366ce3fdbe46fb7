"""One scan, however it is predicted: the same frames reach the network, to the bit, and the same probabilities leave it.

A preprocessing that drifts between training and use costs accuracy in silence. Hosts that come are added to `WAYS`.
"""

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import run

from monai_chd.cli import main
from monai_chd.labels import CLASSES
from monai_chd.networks import CNNLSTM
from monai_chd.workflow.export import export_onnx, export_torchscript, model_facts
from monai_chd.workflow.run import configured
from monai_chd.workflow.weights import load_weights
from monai_chd.workflow.zoo_bundle import pack

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT / "tests" / "data" / "ts_cardiac_ct_b.nii.gz"
OFFSETS = {"ct_1001_image.nii.gz": -1024.0, "ct_1002_image.nii.gz": -1024.0, REAL.name: 0.0}
"""Scans and what makes HU of their values: phantoms as ImageCHD stores them, and a real CT, larger than the network's frames."""

RECORDER = """
import csv, sys, numpy, torch
from monai_chd.networks import CNNLSTM
seen, forward = [], CNNLSTM.forward
def recording(self, frames, num_frames=None):
    seen.append(frames.as_subclass(torch.Tensor)[0, :, : int(num_frames[0])].numpy())
    return forward(self, frames, num_frames)
CNNLSTM.forward = recording
import monai_chd
from monai.bundle import run
root, scans, out = sys.argv[1:4]
assert monai_chd.__file__.startswith(root), monai_chd.__file__
run(config_file=root + "/configs/inference.json", bundle_root=root, dataset_dir=scans, output_dir=out)
numpy.savez(out + "/frames.npz", *seen)
"""


@pytest.fixture(scope="module")
def scans(cohort, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for name in OFFSETS:
        shutil.copy(REAL if name == REAL.name else cohort / name, folder / name)
    return folder


def table_of(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="") as file:
        return {row["image"]: np.array([float(row[name]) for name in CLASSES]) for row in csv.DictReader(file)}


def recorded(call) -> list[np.ndarray]:
    """Frames that reach the network during a call, those of padding left out."""
    seen: list[np.ndarray] = []
    forward = CNNLSTM.forward

    def recording(self, frames, num_frames=None):
        seen.append(frames.as_subclass(torch.Tensor)[0, :, : int(num_frames[0])].numpy())
        return forward(self, frames, num_frames)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CNNLSTM, "forward", recording)
        call()
    return seen


def example(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_command(model, scans, folder):
    shutil.copytree(model, folder / "out")
    frames = recorded(lambda: main(["predict", str(scans), "--out", str(folder / "out")]))
    return frames, table_of(folder / "out" / "inference" / "predictions.csv")


def by_bundle_run(model, scans, folder):
    places = {"bundle_root": str(ROOT / "bundle"), "output_dir": str(folder), "dataset_dir": str(scans)}
    config = str(ROOT / "bundle" / "configs" / "inference.json")
    frames = recorded(lambda: run(config_file=config, checkpoint=str(model / "models" / "model.pt"), **places))
    return frames, table_of(folder / "inference" / "predictions.csv")


def by_built_bundle(model, scans, folder):
    root = pack(model, folder / "dist")
    line = [sys.executable, "-W", "ignore", "-c", RECORDER, str(root), str(scans), str(folder / "out")]
    done = subprocess.run(line, cwd=folder, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out" / "frames.npz") as file:
        frames = [file[name] for name in file.files]
    return frames, table_of(folder / "out" / "inference" / "predictions.csv")


def exported(model: Path, folder: Path) -> tuple[Path, Path]:
    checkpoint = model / "models" / "model.pt"
    (network,) = configured(["inference"], {"output_dir": str(model)}, ["network_def"])
    load_weights(network, checkpoint)
    facts = model_facts(checkpoint)
    return export_torchscript(network, folder, facts), export_onnx(network, folder, facts["frame_size"], facts)[0]


def printed(name: str, file: Path, scan: Path) -> np.ndarray:
    """Probabilities that an example prints of a scan."""
    line = [
        sys.executable,
        "-W",
        "ignore",
        str(ROOT / "examples" / f"{name}.py"),
        str(file),
        str(scan),
        str(OFFSETS[scan.name]),
    ]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = dict(row.split(",") for row in done.stdout.split())
    assert list(rows) == list(CLASSES)
    return np.array([float(value) for value in rows.values()])


def by_example(name: str, place: int):
    def way(model, scans, folder):
        file, facts = exported(model, folder)[place], model_facts(model / "models" / "model.pt")
        frames, table = [], {}
        for scan in sorted(scans.iterdir()):
            found = np.asarray(example(name).frames_of(str(scan), facts, OFFSETS[scan.name]))[0]
            frames.append(found if found.dtype == np.uint8 else np.rint(found * 255).astype(np.uint8))
            table[scan.name] = printed(name, file, scan)
        return frames, table

    return way


WAYS = {
    "monai.bundle run": by_bundle_run,
    "built bundle": by_built_bundle,
    "TorchScript": by_example("predict_torchscript", 0),
    "ONNX": by_example("predict_onnx", 1),
}
"""How a scan is predicted elsewhere; each gives frames (1, T, S, S), uint8, in the order of names, and probabilities."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_sees_the_same_pixels_and_says_the_same(way, evaluated, scans, tmp_path):
    if way == "ONNX":
        pytest.importorskip("onnxruntime")
    (tmp_path / "command").mkdir()
    frames, probabilities = by_command(evaluated, scans, tmp_path / "command")
    found, said = WAYS[way](evaluated, scans, tmp_path)
    assert len(frames) == len(found) == len(OFFSETS)
    for own, other in zip(frames, found, strict=True):
        assert own.dtype == other.dtype == np.uint8
        np.testing.assert_array_equal(other, own)
    assert probabilities.keys() == said.keys()
    for name, own in probabilities.items():
        np.testing.assert_allclose(said[name], own, atol=1e-5, rtol=0)


def test_an_exported_model_says_what_its_user_has_to_know(evaluated, tmp_path):
    extra = {"model.json": ""}
    torch.jit.load(str(exported(evaluated, tmp_path)[0]), _extra_files=extra)
    facts = json.loads(extra["model.json"])
    assert facts["classes"] == list(CLASSES) and facts["window"] == [-200, 900]
    assert (facts["frame_size"], facts["sequence_length"], facts["sampling"]) == (24, 10, "even")
