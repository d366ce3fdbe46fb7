import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.networks.nets import resnet18
from tiny_cohort import write_cohort
from torch import nn

from monai_chd.cli import main
from monai_chd.labels import CLASSES
from monai_chd.networks import CNNLSTM, FrameEncoder, SmallCNN, VolumeNetwork
from monai_chd.workflow import export as module
from monai_chd.workflow.export import (
    CompiledEncoder,
    InferenceEngine,
    engine_agreement,
    export_onnx,
    export_torchscript,
    frame_encoder,
)
from monai_chd.workflow.run import config_content

SIZE = 32
WITHOUT_COUNTS = (1, 3, 8, 11)
"""Frames of a case: fewer than an export is traced with, as many, a whole chunk, more than a chunk."""

openvino = pytest.mark.skipif(
    any(not module.optional_import(name)[1] for name in ("openvino", "onnx")), reason="needs monai_chd[openvino]"
)


def network(encoder="resnet18", **head) -> CNNLSTM:
    torch.manual_seed(0)
    model = CNNLSTM(encoder, hidden_size=8, **head).eval()
    with torch.no_grad():  # spread the classes, so that a difference would show
        model.classifier.weight *= 20
    return model


def frames(count, seed=0):
    return torch.randint(1, 255, (1, 1, count, SIZE, SIZE), generator=torch.Generator().manual_seed(seed)).byte()


def items(counts=WITHOUT_COUNTS, length=12):
    """Cases as the dataset gives them: padded, one of them unreadable."""
    cases = []
    for seed, count in enumerate(counts):
        image = torch.zeros(1, length, SIZE, SIZE, dtype=torch.uint8)
        image[:, :count] = frames(count, seed)[0]
        cases.append({"image": MetaTensor(image), "num_frames": count, "reason": ""})
    return [
        *cases,
        {"image": MetaTensor(torch.zeros(1, 12, SIZE, SIZE).byte()), "num_frames": 1, "reason": "unreadable"},
    ]


@openvino
@pytest.mark.parametrize("encoder", ["small_cnn", "resnet18"])
@pytest.mark.parametrize("head", [{}, {"bidirectional": True, "num_layers": 2, "pooling": "attention"}])
def test_one_graph_gives_torchs_logits_for_any_number_of_frames(tmp_path, encoder, head):
    import openvino

    model = network(encoder, **head)
    path, _ = export_onnx(model, tmp_path, SIZE)
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in WITHOUT_COUNTS:
        with torch.no_grad():
            expected = model(frames(count), torch.tensor([count]))
        given = {"image": (frames(count).float() / 255).numpy(), "num_frames": np.array([count])}
        logits = torch.from_numpy(compiled(given)[0])
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


RUNTIME = pytest.mark.skipif(not module.optional_import("onnxruntime")[1], reason="needs onnxruntime")


@RUNTIME
@openvino
@pytest.mark.parametrize("encoder", ["small_cnn", "structures", "cropped_structures"])
def test_one_graph_gives_torchs_logits_for_any_number_of_cases_and_frames(tmp_path, encoder):
    import onnxruntime

    model = network(encoder, standardize=True, bidirectional=True, heads=2, summary=True)
    path = export_onnx(model, tmp_path, SIZE)[0]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for counts in ((3, 1), (1,), (7,), (5, 9, 2), (20, 11, 20, 1)):
        image = torch.zeros(len(counts), 1, max(counts), SIZE, SIZE)
        for case, count in enumerate(counts):
            image[case, :, :count] = frames(count, case)[0].float() / 255
        with torch.no_grad():
            expected = model(image, torch.tensor(counts))
        (logits,) = session.run(None, {"image": image.numpy(), "num_frames": np.array(counts)})
        torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("encoder", ["small_cnn", "cropped_structures"])
def test_torchscript_says_what_it_is_and_gives_the_same_logits(tmp_path, encoder):
    model = network(encoder, standardize=True, heads=2, summary=True)
    path = export_torchscript(model, tmp_path, {"classes": list(CLASSES), "window": [-200, 900]})
    again = export_torchscript(model, tmp_path / "again", {"classes": list(CLASSES), "window": [-200, 900]})
    assert path.read_bytes() == again.read_bytes()
    assert str(Path(module.__file__).parents[1]).encode() not in path.read_bytes()
    extra = {module.FACTS: ""}
    loaded = torch.jit.load(str(path), _extra_files=extra)
    assert json.loads(extra[module.FACTS]) == {"classes": list(CLASSES), "window": [-200, 900]}
    for batch, counts in ((frames(5), [5]), (torch.cat([frames(9), frames(9, 1)]), [9, 4])):
        with torch.no_grad():
            expected = model(batch, torch.tensor(counts))
            torch.testing.assert_close(loaded(batch, torch.tensor(counts)), expected, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_scripted_is_said_so(tmp_path):
    with pytest.raises(ValueError, match="VolumeNetwork cannot be scripted: "):
        export_torchscript(VolumeNetwork(nn.Sequential(nn.Flatten(), _Unscriptable())), tmp_path, {})
    assert not list(tmp_path.iterdir())


class _Unscriptable(nn.Module):
    def forward(self, *given):
        return given


@openvino
@pytest.mark.parametrize("encoder", ["small_cnn", "resnet18"])
def test_engine_gives_torchs_logits_whatever_the_length_and_padding(tmp_path, encoder):
    model = network(encoder, bidirectional=True)
    export_onnx(model, tmp_path, SIZE)
    batch = torch.stack([case["image"].as_tensor() for case in items()[:-1]])
    with torch.no_grad():
        expected = model(batch, torch.tensor(WITHOUT_COUNTS))
    engine = Engine(lambda engine, batch: model(*batch))
    InferenceEngine("openvino", model, tmp_path / "model.pt", SIZE).attach(engine)
    with torch.no_grad():
        engine.run([(batch, torch.tensor(WITHOUT_COUNTS))])
    assert isinstance(model.encoder.network, CompiledEncoder)
    atol = 1e-4 if model.encoder.network.precision == "float32" else 0.1 * float(expected.norm())
    torch.testing.assert_close(engine.state.output, expected, atol=atol, rtol=0)


@openvino
def test_comparison_counts_what_differs(tmp_path):
    model = network()
    export_onnx(model, tmp_path, SIZE)
    same = engine_agreement(model, items(), tmp_path, SIZE)
    assert same.scans == len(WITHOUT_COUNTS) and same.onnx_difference < 1e-4 and same.other_class == 0
    assert f"over {same.scans} scans" in same.text() and f"changed in 0 of {same.scans}" in same.text()

    class Black(nn.Module):
        precision = "float32"

        def __init__(self, *_):
            super().__init__()

        def forward(self, images):
            return torch.zeros(len(images), 512)

    with torch.no_grad():
        black = model.classifier(
            model.pooling(model.lstm(torch.zeros(1, 11, 512), torch.tensor([11])), torch.tensor([11]))
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CompiledEncoder", Black)
        other = engine_agreement(model, items(counts=(11,)), tmp_path, SIZE)
    with torch.no_grad():
        own = model(frames(11), torch.tensor([11]))
    assert other.engine_difference == pytest.approx(float((black.softmax(1) - own.softmax(1)).abs().max()), abs=1e-6)
    assert other.other_class == int(black.argmax() != own.argmax()) and other.engine_difference > 1e-3
    assert isinstance(model.encoder.network, type(network().encoder.network)), "the own network is back"


@openvino
def test_an_export_of_other_weights_or_sizes_is_refused(tmp_path):
    model = network()
    _, path = export_onnx(model, tmp_path, SIZE)
    CompiledEncoder(path, model.encoder, SIZE)
    with pytest.raises(ValueError, match="for frames of another size than 64; write it again with `monai-chd export"):
        CompiledEncoder(path, model.encoder, 64)
    with torch.no_grad():
        model.encoder.network.conv1.weight[0] += 1
    with pytest.raises(ValueError, match="exported from other weights"):
        CompiledEncoder(path, model.encoder, SIZE)


@openvino
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": ["Normal", "Cyanotic"]}, "exported with classes"),
        ({"window": [0, 400]}, r"exported with window \[0, 400\]"),
    ],
)
def test_an_export_of_other_classes_or_another_preprocessing_is_refused(tmp_path, changed, message):
    model = network()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    settings = {key: config_content("train")[key] for key in ("window", "sequence_length", "sampling")}
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "frame_size": SIZE, "encoder": "resnet18"}))
    facts = module.model_facts(tmp_path / "model.pt")
    _, path = export_onnx(model, tmp_path, SIZE, facts)
    CompiledEncoder(path, model.encoder, SIZE, facts)
    _, path = export_onnx(model, tmp_path, SIZE, {**facts, **changed})
    with pytest.raises(ValueError, match=message):
        CompiledEncoder(path, model.encoder, SIZE, facts)


def command(*words):
    """What a command prints, in a process of its own."""
    line = [sys.executable, "-W", "ignore", "-m", "monai_chd.cli", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


@openvino
@pytest.mark.slow
def test_export_and_prediction_by_the_command_line(tmp_path):
    scans, work, out = tmp_path / "scans", tmp_path / "work", tmp_path / "out"
    write_cohort(scans, 18)
    assert main(["prepare", str(scans), "--out", str(work), "--folds", "2", "--test-fraction", "0.33"]) == 0
    words = ["--frame_size", "16", "--sequence_length", "8", "--max_epochs", "1", "--encoder", "resnet18"]
    assert main(["train", str(work / "datalist.json"), "--out", str(out), *words]) == 0
    text = command("export", out, "--scans", scans)
    assert "over 18 scans: model.onnx" in text and "changed in 0 of 18" in text
    tables = {}
    for engine in ("torch", "openvino"):
        text = command("predict", scans, "--out", out, "--engine", engine)
        assert ("engine: OpenVINO in" in text) is (engine == "openvino")
        rows = csv.DictReader((out / "inference" / "predictions.csv").read_text().splitlines())
        tables[engine] = np.array([[float(row[name]) for name in CLASSES] for row in rows])
    assert tables["torch"].shape == (18, 3)
    assert np.abs(tables["openvino"] - tables["torch"]).max() < 0.02


def test_an_unknown_engine_is_refused_and_torch_changes_nothing():
    model = network("small_cnn")
    with pytest.raises(ValueError, match="engine: expected one of torch, openvino, got 'tpu'"):
        InferenceEngine("tpu", model, "model.pt", SIZE)
    own, engine = model.encoder.network, Engine(lambda engine, batch: None)
    InferenceEngine("torch", model, "model.pt", SIZE).attach(engine)
    engine.run([0])
    assert model.encoder.network is own


def test_a_missing_package_or_export_is_named_with_its_mend(tmp_path, monkeypatch):
    model = network("small_cnn")
    with pytest.raises(FileNotFoundError, match=r"encoder\.onnx: not there; write it with `monai-chd export"):
        CompiledEncoder(tmp_path / "encoder.onnx", model.encoder, SIZE)
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ValueError, match=r'onnx is not installed: pip install "monai_chd\[openvino\]"'):
        export_onnx(model, tmp_path, SIZE)
    (tmp_path / "encoder.onnx").touch()
    with pytest.raises(ValueError, match=r'openvino is not installed: pip install "monai_chd\[openvino\]"'):
        CompiledEncoder(tmp_path / "encoder.onnx", model.encoder, SIZE)


def test_other_networks_are_refused():
    assert isinstance(frame_encoder(network("small_cnn")), FrameEncoder)
    with pytest.raises(ValueError, match="for a CNNLSTM with a FrameEncoder, came VolumeNetwork with NoneType"):
        frame_encoder(VolumeNetwork(resnet18(spatial_dims=3, n_input_channels=1, num_classes=3)))
    plain = SmallCNN()
    plain.feature_size = 1024
    with pytest.raises(ValueError, match="came CNNLSTM with SmallCNN"):
        frame_encoder(CNNLSTM(plain))


def test_the_bundle_puts_the_engine_in_after_the_weights():
    config = config_content("inference")
    assert config["engine"] == "torch" and config["handlers"][:2] == ["@weights", "@inference_engine"]
    assert config["weights"]["_target_"] == "monai_chd.handlers.Weights"
    assert config["inference_engine"]["_target_"] == "monai_chd.workflow.export.InferenceEngine"


@pytest.mark.parametrize("encoder", ["structures", "cropped_structures"])
def test_a_network_that_reads_structures_is_exported_whole(tmp_path, encoder):
    torch.manual_seed(0)
    made = CNNLSTM(encoder, standardize=True, hidden_size=8, pooling="mean", heads=2, summary=True).eval()
    [path] = export_onnx(made, tmp_path, 48)
    items = [
        {"image": MetaTensor(torch.randint(0, 255, (1, 12, 48, 48), dtype=torch.uint8)), "num_frames": count}
        for count in (12, 5)
    ]
    found = engine_agreement(made, items, tmp_path, 48)
    assert path.name == "model.onnx" and found.scans == 2 and found.onnx_difference < 1e-4 and found.other_class == 0
    with pytest.raises(
        ValueError, match="OpenVINO runs no encoder of structures within the network; take --engine torch"
    ):
        frame_encoder(made)
