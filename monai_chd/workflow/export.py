"""A trained network as TorchScript and ONNX, and its frame encoder run by OpenVINO in place of torch; how far results differ.

How a network is trained or what it predicts from is not decided here. OpenVINO and onnx are an extra: monai_chd[openvino].
"""

from __future__ import annotations

import json
import logging
import time
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.networks.utils import convert_to_onnx
from monai.utils import optional_import
from torch import Tensor, nn

from monai_chd import __version__
from monai_chd.data.feature_cache import encoder_key
from monai_chd.errors import UserError, UserFileError, bare_mistakes
from monai_chd.files import replacing
from monai_chd.labels import CLASSES
from monai_chd.metrics.calibration import read_calibration
from monai_chd.networks.cnn_lstm import CNNLSTM
from monai_chd.networks.encoders import FrameEncoder, feature_vectors
from monai_chd.networks.sequences import frame_mask
from monai_chd.networks.structure_encoder import StructureEncoder
from monai_chd.workflow.run import Expression, configured
from monai_chd.workflow.settings import trained_with
from monai_chd.workflow.weights import load_weights

logger = logging.getLogger(__name__)

ENGINES = ("torch", "openvino")
MODEL_ONNX = "model.onnx"
MODEL_TS = "model.ts"
ENCODER_ONNX = "encoder.onnx"

FACTS = "model.json"
"""What an exported file says of itself, as `model_facts` gives it: an extra file of TorchScript, a property of ONNX."""

_EXAMPLE_CASES, _EXAMPLE_FRAMES = 2, 3
"""Cases and frames of the tensor that an export is traced with; the graph takes any number of both."""


class EngineAgreement(NamedTuple):
    """How far ONNX and OpenVINO are from torch, over a number of scans."""

    scans: int
    precision: str
    onnx_difference: float
    engine_difference: float
    other_class: int
    torch_seconds: float
    engine_seconds: float

    def text(self) -> str:
        """Two lines for people."""
        return (
            f"largest difference to torch's probabilities over {self.scans} scans: {MODEL_ONNX} {self.onnx_difference:.1e}, "
            f"engine openvino ({self.precision}) {self.engine_difference:.1e}; most probable class changed in "
            f"{self.other_class} of {self.scans}\n"
            f"frames to probabilities, median of {self.scans} scans: torch {self.torch_seconds:.2f} s, openvino "
            f"{self.engine_seconds:.2f} s"
        )


class _AnyCases(nn.Module):
    """A network over any number of cases and frames: image (B, C, T, S, S) and num_frames (B,) to logits (B, K), in one piece.

    The size of a frame stands in it as a number: ONNX knows no pooling of a size that is left open.
    """

    def __init__(self, network: CNNLSTM, frame_size: int) -> None:
        super().__init__()
        self.network, self.frame_size = network, frame_size

    def forward(self, image: Tensor, num_frames: Tensor) -> Tensor:
        encoder = self.network.encoder
        if not isinstance(encoder, FrameEncoder):
            return self.network(image, num_frames)  # type: ignore[no-any-return]
        images = image.transpose(1, 2).reshape(-1, encoder.in_channels, self.frame_size, self.frame_size)
        features = feature_vectors(encoder.network(images)).reshape(image.shape[0], image.shape[2], -1)
        real = frame_mask(num_frames, image.shape[2])
        return self.network.judge(features.masked_fill(~real[:, :, None], 0.0), num_frames)


class CompiledEncoder(nn.Module):
    """A frame encoder's 2D network as OpenVINO runs it, images (n, C, H, W) to features (n, F).

    Takes the place of `FrameEncoder.network`. OpenVINO works in bfloat16 where the processor has it.

    Args:
        path: the `encoder.onnx` that `export_onnx` wrote.
        encoder: the encoder it has to be of.
        frame_size: pixels of a frame, in each direction.
        facts: `model_facts` of the model it has to be of; None: of which one is not asked.

    Raises:
        UserFileError: not exported yet.
        UserError: exported from other weights, for other frames or classes, or OpenVINO is not installed.
    """

    def __init__(
        self, path: Path, encoder: FrameEncoder, frame_size: int, facts: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        if not path.is_file():
            raise UserFileError(f"{path}: not there; write it with `monai-chd export OUT --scans SCANS`")
        openvino = _package("openvino")
        core = openvino.Core()
        model = core.read_model(path)
        said = {
            name: model.get_rt_info(["framework", name]).astype(str) if model.has_rt_info(["framework", name]) else ""
            for name in ("encoder", "frame_size", FACTS)
        }
        own = _properties(encoder, frame_size)
        if any(said[name] != value for name, value in own.items()):
            raise UserError(
                f"{path} was exported from other weights or for frames of another size than {frame_size}; write it again "
                f"with `monai-chd export OUT --scans SCANS`"
            )
        told = json.loads(said[FACTS] or "{}")
        if facts is not None and told and (fault := _other_facts(told, facts)):
            raise UserError(
                f"{path} was exported with {fault}; write it again with `monai-chd export OUT --scans SCANS`"
            )
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = "bfloat16" if "BF16" in able else "float32"
        self.chunk_size = encoder.frames_at_once(frame_size, frame_size)
        model.reshape([self.chunk_size, encoder.in_channels, frame_size, frame_size])  # fixed shapes run fastest
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if "BF16" in able else "f32"}
        self._compiled = core.compile_model(model, "CPU", hints)

    def forward(self, images: Tensor) -> Tensor:
        """Describe up to a chunk of images."""
        missing = self.chunk_size - images.shape[0]
        filled = nn.functional.pad(images.float(), (0, 0, 0, 0, 0, 0, 0, missing))
        features = torch.from_numpy(self._compiled(filled.cpu().numpy())[0])
        return features[: images.shape[0]].to(images.device)


class InferenceEngine:
    """Puts the asked engine into a network when an evaluator starts. Attach it behind the handler that loads weights.

    Args:
        engine: "torch" leaves the network as it is; "openvino" runs its frame encoder by OpenVINO.
        network: the network that predicts.
        checkpoint: its weights; `encoder.onnx` lies beside them.
        frame_size: pixels of a frame, in each direction.

    Raises:
        UserError: an unknown engine; when the evaluator starts, see `CompiledEncoder`.
    """

    @bare_mistakes()
    def __init__(self, engine: str, network: nn.Module, checkpoint: str | Path, frame_size: int) -> None:
        if engine not in ENGINES:
            raise UserError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
        self.engine, self.network, self.checkpoint, self.frame_size = engine, network, Path(checkpoint), frame_size

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        if self.engine == "openvino":
            engine.add_event_handler(Events.STARTED, self._start)

    def _start(self) -> None:
        encoder = frame_encoder(self.network)
        compiled = CompiledEncoder(
            self.checkpoint.with_name(ENCODER_ONNX), encoder, self.frame_size, model_facts(self.checkpoint)
        )
        encoder.network = compiled
        logger.info(f"engine: OpenVINO in {compiled.precision}")


def _other_facts(told: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """What an exported file says of classes and frames that is not the model's."""
    keys = ("classes", "window", "frame_size", "sequence_length", "sampling")
    return ", ".join(f"{key} {told.get(key)} (the model's: {own[key]})" for key in keys if told.get(key) != own[key])


def frame_encoder(network: nn.Module) -> FrameEncoder:
    """The frame encoder of a network.

    Raises:
        UserError: it has none, as a 3D network or one that reads structures.
    """
    encoder = getattr(network, "encoder", None)
    if reads_structures(network):
        raise UserError(
            f"OpenVINO runs no encoder of structures within the network; take --engine torch, or {MODEL_ONNX} in any runtime of "
            f"ONNX"
        )
    if not isinstance(network, CNNLSTM) or not isinstance(encoder, FrameEncoder):
        raise UserError(
            f"ONNX and OpenVINO are for a CNNLSTM with a FrameEncoder, came {type(network).__name__} with "
            f"{type(encoder).__name__}"
        )
    return encoder


def reads_structures(network: nn.Module) -> bool:
    """Whether a network describes frames by their structures: it is exported whole, and no part of it is run by OpenVINO."""
    return isinstance(network, CNNLSTM) and isinstance(network.encoder, StructureEncoder)


def model_facts(checkpoint: str | Path) -> dict[str, Any]:
    """What a program without monai_chd has to know to use a model's exported file.

    Returns:
        `classes` in the order of the logits; `window` (HU, scaled to 0..1), `frame_size`, `sequence_length` and `sampling` of
        its frames; `temperature`, which logits are divided by before the softmax; `encoder`; `version` of the package.

    Raises:
        UserError: see `settings.read_settings`.
    """
    settings = trained_with(checkpoint)
    frames = {key: settings[key] for key in ("window", "frame_size", "sequence_length", "sampling")}
    return {
        "classes": list(CLASSES),
        **frames,
        "temperature": read_calibration(checkpoint).temperature,
        "encoder": settings["encoder"],
        "version": __version__,
    }


def export_torchscript(network: nn.Module, folder: str | Path, facts: Mapping[str, Any]) -> Path:
    """Write a network to `folder` as `model.ts`, scripted: image (B, C, T, S, S) and num_frames (B,), or none, to logits (B, K).

    Args:
        network: trained, on the CPU.
        folder: where the file goes.
        facts: see `model_facts`.

    Raises:
        UserError: a network that cannot be scripted, such as `VolumeNetwork` around one of MONAI's.
    """
    path = Path(folder, MODEL_TS)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        try:
            scripted = torch.jit.script(network.eval())
        except (RuntimeError, torch.jit.frontend.FrontendError) as error:
            raise UserError(
                f"{type(network).__name__} cannot be scripted: {str(error).strip().splitlines()[0]}"
            ) from None
        with replacing(path) as temporary:
            # an open file, since the archive inside would be named after the temporary one
            with temporary.open("wb") as file:
                torch.jit.save(scripted, file, _extra_files={FACTS: json.dumps(facts)})
            without_source_paths(temporary)
    return path


def without_source_paths(path: Path) -> None:
    """Take out of a TorchScript file what says where the source lay on the machine that made it."""
    with zipfile.ZipFile(path) as archive:
        kept = [
            (info.filename, archive.read(info))
            for info in archive.infolist()
            if not info.filename.endswith(".debug_pkl")
        ]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in kept:
            archive.writestr(zipfile.ZipInfo(name), content)


def export_onnx(
    network: nn.Module, folder: str | Path, frame_size: int, facts: Mapping[str, Any] | None = None
) -> tuple[Path, ...]:
    """Write a network to `folder` as ONNX, by the function behind `python -m monai.bundle onnx_export`.

    `model.onnx` is the whole: "image" (B, C, T, S, S), float in [0, 1], and "num_frames" (B,), int64, to "pred", logits (B, K),
    for any B and T. `encoder.onnx`, of a `FrameEncoder`, is the 2D network: "images" (n, C, S, S) for any n to "features" (n, F).

    Args:
        network: trained, on the CPU.
        folder: where the files go.
        frame_size: S.
        facts: see `model_facts`; they go into the file.

    Raises:
        UserError: another kind of network, or onnx is not installed.
    """
    onnx = _package("onnx")
    encoder = None if reads_structures(network) else frame_encoder(network).eval()
    channels = 1 if encoder is None else encoder.in_channels
    image = torch.rand(_EXAMPLE_CASES, channels, _EXAMPLE_FRAMES, frame_size, frame_size)
    example = [image, torch.tensor([_EXAMPLE_FRAMES, 1])]
    axes = {"image": {0: "cases", 2: "frames"}, "num_frames": {0: "cases"}, "pred": {0: "cases"}}
    whole = _traced(_AnyCases(cast(CNNLSTM, network), frame_size), example, ("image", "num_frames", "pred"), axes)
    told = {"frame_size": str(frame_size), **({FACTS: json.dumps(facts)} if facts else {})}
    if encoder is None:
        onnx.helper.set_model_props(whole, told)
        return (_saved(whole, Path(folder, MODEL_ONNX)),)
    images = image[0].transpose(0, 1)
    axes = {"images": {0: "frames"}, "features": {0: "frames"}}
    part = _traced(_Pooled(encoder.network), [images], ("images", "features"), axes)
    paths = Path(folder, MODEL_ONNX), Path(folder, ENCODER_ONNX)
    for graph, path in zip((whole, part), paths, strict=True):
        onnx.helper.set_model_props(graph, told | _properties(encoder, frame_size))
        _saved(graph, path)
    return paths


def _saved(graph: Any, path: Path) -> Path:
    with replacing(path) as temporary:
        _package("onnx").save(graph, str(temporary))
    return path


class _Pooled(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return feature_vectors(self.network(images))


def _traced(
    module: nn.Module, example: list[Tensor], names: Sequence[str], axes: Mapping[str, Mapping[int, str]]
) -> Any:
    with warnings.catch_warnings():
        # of the tracer, about checks of fixed sizes; and that torch.export is newer, which cannot give an LSTM any length
        warnings.simplefilter("ignore")
        return convert_to_onnx(
            module.eval(),
            example,
            input_names=names[:-1],
            output_names=names[-1:],
            dynamic_axes=axes,
            use_trace=True,
            dynamo=False,
        )


def _properties(encoder: FrameEncoder, frame_size: int) -> dict[str, str]:
    return {"encoder": encoder_key(encoder), "frame_size": str(frame_size)}


def _package(name: str) -> Any:
    package, found = optional_import(name)
    if not found:
        raise UserError(f'{name} is not installed: pip install "monai_chd[openvino]"')
    return package


@contextmanager
def _in_place(encoder: FrameEncoder, network: nn.Module) -> Iterator[None]:
    """Another 2D network in an encoder for a while."""
    own, encoder.network = encoder.network, network
    try:
        yield
    finally:
        encoder.network = own


def engine_agreement(
    network: nn.Module, items: Iterable[Mapping[str, Any]], folder: str | Path, frame_size: int
) -> EngineAgreement:
    """Probabilities of torch, of `model.onnx` in OpenVINO's float32, and of the engine, on the same frames.

    Args:
        network: the network that was exported, on the CPU.
        items: cases with padded frames `image` (C, L, S, S), uint8, and `num_frames`; those with a `reason` why they have
            no frames are left out.
        folder: where `export_onnx` wrote.
        frame_size: S.

    Raises:
        UserError: no case; see `CompiledEncoder`.
    """
    core = _package("openvino").Core()
    compiled = None
    if not reads_structures(network):
        encoder = frame_encoder(network)
        compiled = CompiledEncoder(Path(folder, ENCODER_ONNX), encoder, frame_size)
    whole = core.compile_model(str(Path(folder, MODEL_ONNX)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    seconds: list[tuple[float, float]] = []
    for item in items:
        if item.get("reason"):
            continue
        count = int(item["num_frames"])
        frames = item["image"].as_tensor()[None, :, :count]
        own, own_seconds = _timed(network, frames)
        start = time.perf_counter()
        given = {"image": (frames.float() / 255).numpy(), "num_frames": np.array([count])}
        onnx = torch.from_numpy(whole(given)[0]).softmax(1)
        fast, fast_seconds = onnx, time.perf_counter() - start
        if compiled is not None:
            with _in_place(encoder, compiled):
                fast, fast_seconds = _timed(network, frames)
        rows.append((own, onnx, fast))
        seconds.append((own_seconds, fast_seconds))
    if not rows:
        raise UserError("no scan that can be read, to compare on")
    own, onnx, fast = (torch.cat(column) for column in zip(*rows, strict=True))
    return EngineAgreement(
        scans=len(rows),
        precision="float32, the whole" if compiled is None else compiled.precision,
        onnx_difference=float((onnx - own).abs().max()),
        engine_difference=float((fast - own).abs().max()),
        other_class=int((fast.argmax(1) != own.argmax(1)).sum()),
        torch_seconds=median(own for own, _ in seconds),
        engine_seconds=median(fast for _, fast in seconds),
    )


def _timed(network: nn.Module, frames: Tensor) -> tuple[Tensor, float]:
    """Probabilities (1, K) and the seconds they took."""
    start = time.perf_counter()
    with torch.no_grad():
        probabilities = network(frames, torch.tensor([frames.shape[2]])).softmax(1)
    return probabilities, time.perf_counter() - start


def export(out: str, scans: str, overrides: Mapping[str, Any]) -> EngineAgreement:
    """Export the model trained into `out` beside its weights, and compare on scans what comes out.

    Args:
        out: output folder of the training.
        scans: NIfTI file or folder of them.
        overrides: keys of the config `inference`.

    Raises:
        UserFileError: no model or no scan.
        UserError: settings other than the model's, a network of another kind, or a missing package.
    """
    keys = {"output_dir": out, "dataset_dir": scans, **overrides, "device": Expression("$torch.device('cpu')")}
    parts = ("begin", "checkpoint", "frame_size", "network", "dataset")
    with bare_mistakes():
        _, checkpoint, frame_size, network, dataset = configured(["inference"], keys, parts)
    load_weights(network, checkpoint)
    network.eval()
    folder = Path(checkpoint).parent
    facts = model_facts(checkpoint)
    for path in (export_torchscript(network, folder, facts), *export_onnx(network, folder, frame_size, facts)):
        logger.info(f"written: {path}")
    return engine_agreement(network, (dataset[index] for index in range(len(dataset))), folder, frame_size)
