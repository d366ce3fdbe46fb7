"""A file to probabilities: ours with torch and with OpenVINO against the replaced pipeline.

Features without a head are the part of `embedding`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.child import MissingError, Side, work_folder
from benchmarks.comparison import Bench, Row
from benchmarks.replaced import jpg_frames, replaced_network
from benchmarks.volumes import STORED_OFFSET, Volumes
from benchmarks.ways import ours_uint8

SLICES = 150


def side(how: str, path: str, tiny: str, size: int, length: int) -> Side:
    """A file to the probabilities of ResNet18 and an LSTM."""
    import torch

    torch.manual_seed(0)
    network = _replaced() if how == "replaced" else _ours(how, size)
    make = jpg_frames if how == "replaced" else ours_uint8

    def predict(read: Callable[[], Any]) -> list[float]:
        frames = read()
        with torch.no_grad():
            return network(frames)

    first, whole = make(tiny, size, 16, STORED_OFFSET), make(path, size, length, STORED_OFFSET)
    return Side(lambda: predict(first), lambda: predict(whole), lambda: predict(whole))


def _replaced() -> Callable[[Any], list[float]]:
    from monai.networks.nets import resnet18

    network = resnet18(spatial_dims=2, n_input_channels=1, conv1_t_stride=2, num_classes=512)
    model = replaced_network(network, 512).eval()
    return lambda frames: model(frames[:, :, None]).softmax(1)[0].tolist()


def _ours(how: str, size: int) -> Callable[[Any], list[float]]:
    import torch

    from monai_chd.networks import CNNLSTM, make_encoder
    from monai_chd.networks.encoders import usable_precision

    precision = usable_precision("bfloat16", torch.device("cpu")) if how == "torch" else "float32"
    model = CNNLSTM(make_encoder("resnet18", precision)).eval()
    if how == "OpenVINO":
        _use_openvino(model, size)

    def predict(frames: Any) -> list[float]:
        return model(frames[None], torch.tensor([frames.meta["num_frames"]])).softmax(1)[0].tolist()

    return predict


def _use_openvino(model: Any, size: int) -> None:
    absent = [name for name in ("openvino", "onnx") if importlib.util.find_spec(name) is None]
    if absent:
        raise MissingError(f"{' and '.join(absent)} not installed (pip install 'monai_chd[openvino]')")
    from monai_chd.workflow.export import CompiledEncoder, export_onnx

    _, path = export_onnx(model, work_folder(), size)
    model.encoder.network = CompiledEncoder(path, model.encoder, size)


def notes(sides: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """How far the probabilities of our ways lie apart; `sides` are those that gave some."""
    plain = sides.get("torch, fp32")
    for name in ("torch", "OpenVINO"):
        if plain and name in sides:
            largest = max(abs(a - b) for a, b in zip(sides[name]["note"], plain["note"], strict=True))
            yield f"Largest difference of a probability, {name} against torch in fp32: {largest:.2g}."


def benches(made: Volumes) -> list[Bench]:
    """Each way on the same file."""
    given = {"path": made.phantom(SLICES), "tiny": made.tiny, "size": 224, "length": 200}
    return [
        Bench(
            "prediction",
            f"file of {SLICES} slices to probabilities, ResNet18 + LSTM at 224",
            {how: ("prediction", {"how": how, **given}) for how in ("torch", "torch, fp32", "OpenVINO", "replaced")},
            (
                Row("file to probabilities, replaced / ours with torch", "time", "torch", "replaced", 3.3),
                Row("file to probabilities, replaced / ours with OpenVINO", "time", "OpenVINO", "replaced", 4.5),
                Row("file to probabilities, replaced / ours with torch in fp32", "time", "torch, fp32", "replaced"),
            ),
            phantoms=((SLICES, 0),),
        )
    ]
