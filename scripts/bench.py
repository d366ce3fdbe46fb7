"""Measures the native path against the ways it replaces, each side in a process of its own; called by `scripts/bench`.

The parent process holds the standard library only: a child's peak memory starts from what its parent had when it was
started, so a parent with PyTorch in it would be seen in every figure.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
REAL_SCAN = ROOT / "tests" / "data" / "ts_cardiac_ct_b.nii.gz"
WINDOW = (-200.0, 900.0)
CLASSES = 3
HIDDEN = 128
PATIENTS = 110
STORED_OFFSET = -1024.0
"""HU = stored value + this, in the phantom as in ImageCHD. Ours finds it; the others are told."""

TINY = (64, 12)
"""In-plane size and slices of the volume that only warms imports."""

ROUNDED_FRAMES = 16
"""Frames that show what bfloat16 changes: emulated, it is slow."""

VOLUMES_VERSION = 1
"""In the names of the volumes: to be raised when they are made in another way."""

PACKAGES = ("torch", "monai", "numpy", "nibabel", "isal", "pillow", "torchio", "simpleitk", "openvino", "onnx")
MB = 10**6


class Scale(NamedTuple):
    """How large the volumes of a run are.

    Attributes:
        slices, length: slices of a volume, and frames of the sequence made of it, in the proportion of ImageCHD.
        growing: slices of the volumes whose memory is compared.
        volumes: how many different volumes an epoch of the caches reads.
    """

    slices: int
    length: int
    growing: tuple[int, int, int]
    volumes: int


FULL = Scale(250, 200, (150, 350, 700), 4)
QUICK = Scale(120, 96, (72, 168, 336), 1)


# --- What a child does: a side is what it warms up with, what it makes ready without being timed, and the call that is timed.


class Side(NamedTuple):
    """One way of doing something.

    Attributes:
        warm: done before the interpreter's memory is noted: everything is imported, nothing large is made.
        ready: done once after that, not timed: page cache, caches on disk, the batch.
        call: what is timed; its result is let go of after the clock has stopped, but may be a note for the report.
    """

    warm: Callable[[], Any]
    ready: Callable[[], Any]
    call: Callable[[], Any]


class MissingError(Exception):
    """A side that cannot be measured here, and why."""


def read_side(how: str, path: str, tiny: str, size: int, length: int, offset: float = STORED_OFFSET) -> Side:
    """A file to (1, length, size, size)."""
    make = READERS[how]
    first, call = make(tiny, 32, length, STORED_OFFSET), make(path, size, length, offset)
    return Side(first, call, call)


def _ours(
    path: str, size: int, length: int, offset: float, *, quantize: bool, sampling: str = "even"
) -> Callable[[], Any]:
    from monai_chd.transforms import LoadFramesd

    step = LoadFramesd("image", size, length, window=WINDOW, quantize=quantize, sampling=sampling)
    return lambda: step({"image": path})["image"]


def _ours_uint8(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
    return _ours(path, size, length, offset, quantize=True)


def _ours_float32(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
    return _ours(path, size, length, offset, quantize=False)


def _composed(path: str, size: int, length: int, *, quantize: bool) -> Callable[[], Any]:
    """The single transforms of `monai_chd`, which ours is compared with."""
    from monai.transforms import Compose, Orientationd

    from monai_chd import transforms as t

    steps = [
        t.LoadVolumed("image"),
        Orientationd("image", axcodes="LPS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
        t.SliceToFramed("image"),
        t.WindowHUd("image", WINDOW),
        t.ResizeFramesd("image", size),
        *([t.QuantizeFramesd("image")] if quantize else []),
        t.PadFramesd("image", length),
    ]
    chain = Compose(steps)
    return lambda: chain({"image": path})["image"]


class _Geometry(NamedTuple):
    """What MONAI's and TorchIO's chains have to be told to give the same as ours: the picture's place and the slices kept."""

    width: int
    height: int
    mode: str
    kept: Any


def _geometry(path: str, size: int, length: int) -> _Geometry:
    import nibabel as nib
    import torch

    image: Any = nib.load(path)
    order = nib.io_orientation(image.affine)[:, 0].astype(int).tolist()
    width, height, total = (image.shape[order.index(axis)] for axis in range(3))
    scale = size / max(width, height)
    kept = torch.linspace(0, total - 1, length, dtype=torch.float64).round().long() if total > length else None
    return _Geometry(round(width * scale), round(height * scale), "area" if scale <= 1 else "trilinear", kept)


def _monai_stock(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
    from monai import transforms as m

    place = _geometry(path, size, length)
    lower, upper = (edge - offset for edge in WINDOW)
    steps = [
        m.LoadImaged("image"),
        m.EnsureChannelFirstd("image"),
        m.Orientationd("image", axcodes="LPS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
        m.ScaleIntensityRanged("image", lower, upper, 0.0, 1.0, clip=True),
        m.Resized("image", (place.width, place.height, -1), mode=place.mode),
        m.Transposed("image", (0, 3, 2, 1)),
        *([m.Lambdad("image", lambda frames: frames[:, place.kept])] if place.kept is not None else []),
        m.SpatialPadd("image", (-1, size, size)),
        m.SpatialPadd("image", (length, size, size), method="end"),
    ]
    chain = m.Compose(steps)
    return lambda: chain({"image": path})["image"]


def _torchio_package() -> Any:
    try:
        import torchio
    except ImportError as error:
        raise MissingError("TorchIO is not installed (pip install 'monai_chd[bench]')") from error
    return torchio


def _torchio_stock(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
    """With TorchIO's own transforms: its Resize takes single points, between slices too, instead of the even slices."""
    tio = _torchio_package()
    lower, upper = (edge - offset for edge in WINDOW)
    chain = tio.Compose(
        [
            tio.ToOrientation("LPS"),
            tio.Clamp(lower, upper),
            tio.RescaleIntensity((0, 1), in_min_max=(lower, upper)),
            tio.Resize((size, size, length)),
        ]
    )
    return lambda: chain(tio.Subject(image=tio.ScalarImage(path)))["image"].data.permute(0, 3, 2, 1).contiguous()


def _torchio_same(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
    """With TorchIO, and PyTorch where its own transforms would not give the same frames as ours."""
    tio = _torchio_package()
    import torch.nn.functional as F

    place = _geometry(path, size, length)
    lower, upper = (edge - offset for edge in WINDOW)
    margins = size - place.width, size - place.height

    def resize(volume: Any) -> Any:
        shape = (place.width, place.height, volume.shape[3])
        return volume if tuple(volume.shape[1:]) == shape else F.interpolate(volume[None], shape, mode=place.mode)[0]

    def sequence(volume: Any) -> Any:
        frames = volume.permute(0, 3, 2, 1)
        frames = frames if place.kept is None else frames[:, place.kept]
        left, top = margins[0] // 2, margins[1] // 2
        padding = (left, margins[0] - left, top, margins[1] - top, 0, length - frames.shape[1])
        return F.pad(frames, padding) if any(padding) else frames.contiguous()

    chain = tio.Compose(
        [
            tio.ToOrientation("LPS"),
            tio.Clamp(lower, upper),
            tio.RescaleIntensity((0, 1), in_min_max=(lower, upper)),
            tio.Lambda(resize),
        ]
    )
    return lambda: sequence(chain(tio.Subject(image=tio.ScalarImage(path)))["image"].data)


def jpg_convert(path: str, folder: Path, size: int) -> None:
    """As the replaced pipeline did: the volume's minimum to maximum become 8 bits, every slice a JPG in the patient's folder."""
    import nibabel as nib
    import numpy as np
    from PIL import Image

    image: Any = nib.load(path)
    volume = image.get_fdata()
    low, high = volume.min(), volume.max()
    grey = ((volume - low) / (high - low) * 255).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(grey.shape[2]):
        Image.fromarray(grey[:, :, index]).resize((size, size)).save(folder / f"slice_{index:03d}.jpg")


def jpg_read(folder: Path, size: int, length: int) -> Any:
    """As the replaced pipeline did: the first `length` pictures of the patient, zeros after them, (1, length, size, size)."""
    import numpy as np
    import torch
    from PIL import Image

    names = sorted(folder.glob("*.jpg"))[:length]
    frames = torch.stack([torch.from_numpy(np.asarray(Image.open(name), np.float32) / 255) for name in names])
    return torch.cat([frames, torch.zeros(length - len(frames), size, size)])[None]


def _jpg(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
    folder = Path(tempfile.mkdtemp(dir=os.environ["BENCH_WORK"]))

    def call() -> Any:
        jpg_convert(path, folder, size)
        return jpg_read(folder, size, length)

    return call


def _inflater(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
    """Only inflates, into memory that is there: nothing that reads the file can be faster with this inflater."""
    import nibabel as nib
    import numpy as np
    from isal import igzip

    image: Any = nib.load(path)
    start = int(image.dataobj.offset)
    values = np.empty(image.shape[::-1], image.get_data_dtype())

    def call() -> None:
        view = memoryview(values).cast("B")
        with igzip.open(path) as stream:
            stream.read(start)
            done = 0
            while got := stream.readinto(view[done:]):
                done += got
        assert done == len(view)

    return call


READERS: dict[str, Callable[[str, int, int, float], Callable[[], Any]]] = {
    "ours, uint8": _ours_uint8,
    "ours, float32": _ours_float32,
    "MONAI stock": _monai_stock,
    "TorchIO stock": _torchio_stock,
    "TorchIO, our frames": _torchio_same,
    "JPG, written and read": _jpg,
    "inflater alone": _inflater,
}


def cache_side(how: str, paths: Sequence[str], tiny: str, size: int, length: int) -> Side:
    """An epoch over scans that are cached already."""
    work = Path(os.environ["BENCH_WORK"])
    if how == "JPG cache":
        return _jpg_epoch(work, paths, tiny, size, length)
    from monai.data import DataLoader

    def dataset(cases: Sequence[str], own: int) -> Any:
        return _frame_dataset(cases, own, length, work / f"frames_{size}_{length}")

    def epoch(found: Any) -> None:
        if how == "frames, batch":
            for batch in DataLoader(found, batch_size=1):
                assert batch["image"].dtype.itemsize == 1
            return
        for index in range(len(found)):
            frames = found[index]["image"].as_tensor()
            if how == "frames, float32":
                frames.float().div_(255)
            else:  # as it is handed over: mapped, every page of it there
                frames.numpy().reshape(-1)[:: os.sysconf("SC_PAGE_SIZE")].max()

    whole = dataset(paths, size)
    return Side(lambda: epoch(dataset([tiny], 32)), lambda: epoch(whole), lambda: epoch(whole))


def _frame_dataset(paths: Sequence[str], size: int, length: int, folder: Path, cache: str = "frames") -> Any:
    from monai.transforms import Compose

    from monai_chd.data.dataset import FrameDataset
    from monai_chd.transforms import LoadFramesd

    cases = [{"image": path, "label": 0, "patient": str(index)} for index, path in enumerate(paths)]
    chain = Compose([LoadFramesd("image", size, length, window=WINDOW)])
    return FrameDataset(cases, chain, cache=cache, cache_dir=None if cache == "none" else folder)


def _jpg_epoch(work: Path, paths: Sequence[str], tiny: str, size: int, length: int) -> Side:
    folders = [work / f"jpg_{size}" / str(index) for index, _ in enumerate(paths)]

    def warm() -> None:
        jpg_convert(tiny, work / "jpg_tiny", 32)
        jpg_read(work / "jpg_tiny", 32, length)

    def epoch() -> None:
        for folder in folders:
            jpg_read(folder, size, length)

    def ready() -> None:
        for path, folder in zip(paths, folders, strict=True):
            jpg_convert(path, folder, size)
        epoch()

    return Side(warm, ready, epoch)


def workers_side(
    workers: int, train: bool, cache: str, paths: Sequence[str], tiny: str, size: int, length: int
) -> Side:
    """An epoch through the bundle's kind of DataLoader: up to the float32 chunks that an encoder takes, or with its step."""
    import torch
    from monai.data import DataLoader

    from monai_chd.networks import CNNLSTM
    from monai_chd.networks.encoders import to_unit_range

    network = CNNLSTM().train()

    def epoch(found: Any) -> None:
        for batch in DataLoader(found, batch_size=1, num_workers=workers):
            frames = batch["image"].as_tensor()
            if train:
                network(frames, torch.as_tensor(batch["num_frames"])).sum().backward()
            else:
                for chunk in frames.split(network.encoder.frames_at_once(size, size), dim=2):
                    to_unit_range(chunk)

    folder = Path(os.environ["BENCH_WORK"], f"frames_{size}_{length}")
    whole = _frame_dataset(paths, size, length, folder, cache)
    first = _frame_dataset([tiny], 32, length, folder, cache)
    return Side(lambda: epoch(first), lambda: epoch(whole), lambda: epoch(whole))


def cohort_side(patients: int, cache: str, paths: Sequence[str], tiny: str, size: int, length: int) -> Side:
    """One epoch over many patients (the same few volumes under many names), batches of one."""
    from monai.data import DataLoader

    work = Path(os.environ["BENCH_WORK"])
    names = [work / f"cohort_{patients}_{cache}" / f"ct_{index}.nii.gz" for index in range(patients)]
    names[0].parent.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        name.symlink_to(Path(paths[index % len(paths)]).resolve())

    def epoch(cases: Sequence[str], own: int) -> None:
        dataset = _frame_dataset(cases, own, length, work / f"frames_{size}_{length}", cache)
        for batch in DataLoader(dataset, batch_size=1):
            batch["image"].as_tensor().max()

    return Side(lambda: epoch([tiny], 32), lambda: None, lambda: epoch([str(name) for name in names], size))


def _replaced_network(encoder: Any, features: int) -> Any:
    """The replaced pipeline's: all frames are encoded, padding too, and the LSTM's last state is that after the padding."""
    from torch import nn

    class Replaced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.lstm = nn.LSTM(features, HIDDEN, batch_first=True)
            self.classifier = nn.Linear(HIDDEN, CLASSES)

        def forward(self, frames: Any) -> Any:  # (B, T, C, H, W)
            B, T = frames.shape[:2]
            encoded = self.encoder(frames.flatten(0, 1)).reshape(B, T, -1)
            return self.classifier(self.lstm(encoded)[0][:, -1])

    return Replaced()


def _step(network: Any, *batch: Any) -> Callable[[], None]:
    import torch

    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    label = torch.tensor([1])

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(*batch), label).backward()
        optimizer.step()

    return step


def train_side(how: str, encoder: str, size: int, length: int, real: int) -> Side:
    """One training step of one case of `real` frames, padded to `length`: forward, backward, Adam."""
    import torch

    from monai_chd.networks import CNNLSTM, SmallCNN, make_encoder

    torch.manual_seed(0)
    replaced = how == "replaced"
    if replaced:
        network = _replaced_network(SmallCNN(), 1024)
    else:
        network = CNNLSTM(encoder)
        if how == "bf16, channels_last":
            if _precision() != "bfloat16":
                raise MissingError("this processor does not multiply in bfloat16")
            network = CNNLSTM(make_encoder(encoder, "bfloat16"))
        elif how == "fp32":
            network.encoder.network.to(memory_format=torch.contiguous_format)
    network.train()

    def batch(frames: int, padded: int) -> tuple[Any, ...]:
        values = torch.randint(0, 256, (1, 1, padded, size, size), dtype=torch.uint8)
        values[:, :, frames:] = 0
        if replaced:
            return ((values[:, 0, :, None] / 255),)
        return values, torch.tensor([frames])

    kept: dict[str, Callable[[], None]] = {}

    def ready() -> None:
        kept["step"] = _step(network, *batch(real, length))

    return Side(_step(network, *batch(2, 2)), ready, lambda: kept["step"]())


def predict_side(how: str, path: str, tiny: str, size: int, length: int) -> Side:
    """A file to the probabilities of ResNet18 and an LSTM."""
    import torch

    torch.manual_seed(0)
    network = _replaced_predictor() if how == "replaced" else _predictor(how, size)
    make = _jpg if how == "replaced" else _ours_uint8

    def predict(read: Callable[[], Any]) -> list[float]:
        frames = read()
        with torch.no_grad():
            return network(frames)

    first, whole = make(tiny, size, 16, STORED_OFFSET), make(path, size, length, STORED_OFFSET)
    return Side(lambda: predict(first), lambda: predict(whole), lambda: predict(whole))


def _replaced_predictor() -> Callable[[Any], list[float]]:
    from monai.networks.nets import resnet18

    network = resnet18(spatial_dims=2, n_input_channels=1, conv1_t_stride=2, num_classes=512)
    model = _replaced_network(network, 512).eval()
    return lambda frames: model(frames[:, :, None]).softmax(1)[0].tolist()


def _predictor(how: str, size: int) -> Callable[[Any], list[float]]:
    import torch

    from monai_chd.networks import CNNLSTM, make_encoder

    model = CNNLSTM(make_encoder("resnet18", _precision() if how == "torch" else "float32")).eval()
    if how == "OpenVINO":
        _use_openvino(model, size)

    def predict(frames: Any) -> list[float]:
        return model(frames[None], torch.tensor([frames.meta["num_frames"]])).softmax(1)[0].tolist()

    return predict


def _precision() -> str:
    """What `encoder_precision` can be at best on this processor."""
    import torch

    from monai_chd.networks.encoders import has_bfloat16

    return "bfloat16" if has_bfloat16(torch.device("cpu")) else "float32"


def _use_openvino(model: Any, size: int) -> None:
    absent = [name for name in ("openvino", "onnx") if importlib.util.find_spec(name) is None]
    if absent:
        raise MissingError(f"{' and '.join(absent)} not installed (pip install 'monai_chd[openvino]')")
    from monai_chd.workflow.export import CompiledEncoder, export_onnx

    _, path = export_onnx(model, os.environ["BENCH_WORK"], size)
    model.encoder.network = CompiledEncoder(path, model.encoder, size)


def embed_side(paths: Sequence[str], tiny: str, size: int, length: int) -> Side:
    """Scans to features on disk, with the frozen EfficientNet-Lite0."""
    from monai_chd.networks import make_encoder

    precision = _precision()
    encoder = make_encoder("efficientnet_lite0", precision)

    def fill(cases: Sequence[str]) -> str:
        folder = tempfile.mkdtemp(dir=os.environ["BENCH_WORK"])
        _feature_files(folder, size, length, encoder).fill([{"image": case} for case in cases])
        return precision

    return Side(lambda: fill([tiny]), lambda: None, lambda: fill(paths))


def _feature_files(folder: str, size: int, length: int, encoder: Any) -> Any:
    from monai.transforms import Compose

    from monai_chd.data.feature_cache import FeatureFiles
    from monai_chd.transforms import LoadFramesd

    return FeatureFiles(folder, Compose([LoadFramesd("image", size, length, window=WINDOW)]), encoder)


def head_side(paths: Sequence[str], size: int, length: int) -> Side:
    """Five folds of the LSTM head on features that are kept, with the fits of `monai-chd crossval`."""
    from monai_chd.crossval.config_keys import fit_settings
    from monai_chd.crossval.design import new_design
    from monai_chd.crossval.fit_processes import fit_processes, processes_for, run_fits
    from monai_chd.workflow.run import configured, quietly

    work = Path(os.environ["BENCH_WORK"])
    settings = fit_settings({"frame_size": size, "sequence_length": length}, work / "head")
    design = new_design(_cohort(paths, work), folds=5, repeats=1, settings=settings)
    times = iter(range(10**6))

    def fits() -> str:
        folder = work / f"fits_{next(times)}"
        with fit_processes(processes_for(design.mode)) as pool:  # their start counts, as in `crossval`
            list(run_fits(design, folder, range(1), pool))
        return f"{design.folds} folds of {len(paths)} patients, {settings['max_epochs']} epochs each"

    def ready() -> None:
        scans = [{**record, "image": str(design.image_path(record))} for record in design.records]
        with quietly(work / "features.log"):
            configured(["train"], {**design.overrides, "train#dataset#data": scans}, ["train#dataset"])

    return Side(lambda: None, ready, fits)


def _cohort(paths: Sequence[str], work: Path) -> Path:
    """A datalist of these scans, with classes dealt in turn."""
    from monai_chd import labels

    scans = work / "scans"
    scans.mkdir(exist_ok=True)
    records = []
    for index, path in enumerate(paths):
        name = f"ct_{1001 + index}_image.nii.gz"
        (scans / name).symlink_to(Path(path).resolve())
        record = {"image": name, "label": index % len(labels.CLASSES), "patient": str(1001 + index), "fold": index % 5}
        records.append({**record, "flags": []})
    content = {"root": "scans", "classes": list(labels.CLASSES), "training": records, "test": []}
    (work / "datalist.json").write_text(json.dumps(content))
    return work / "datalist.json"


def equality_side(volume: str, sizes: Sequence[int], length: int, *, rounded: bool) -> Side:
    """Differences between the ways, as a note; nothing is timed."""

    def call() -> list[dict[str, Any]]:
        found = []
        for name, path, offset in (("phantom", volume, STORED_OFFSET), ("real scan", str(REAL_SCAN), 0.0)):
            for size in sizes:
                found += _differences(name, path, size, length, offset)
        encoders = ("resnet18", "efficientnet_lite0") if rounded else ()
        return [*found, *(_rounded(volume, sizes[-1], encoder) for encoder in encoders)]

    return Side(lambda: None, lambda: None, call)


def _differences(name: str, path: str, size: int, length: int, offset: float) -> Iterator[dict[str, Any]]:
    def row(against: str, first: Any, second: Any, unit: str) -> dict[str, Any]:
        largest = float(
            (first.as_subclass(torch.Tensor).double() - second.as_subclass(torch.Tensor).double()).abs().max()
        )
        return {"scan": name, "size": size, "ours against": against, "largest": largest, "unit": unit}

    import torch

    single = _composed(path, size, length, quantize=True)()
    yield row("the single transforms, uint8", _ours_uint8(path, size, length, offset)(), single, "grey levels of 255")
    ours = _ours_float32(path, size, length, offset)()
    yield row("the single transforms, float32", ours, _composed(path, size, length, quantize=False)(), "of the window")
    yield row("MONAI stock, float32", ours, _monai_stock(path, size, length, offset)(), "of the window")
    with contextlib.suppress(MissingError):
        yield row("TorchIO made to give our frames", ours, _torchio_same(path, size, length, offset)(), "of the window")
        stock = _torchio_stock(path, size, length, offset)()
        yield row("TorchIO stock, which samples between slices", ours, stock, "of the window")
    if name == "phantom":  # what is not square, JPG stretches
        low, high = _stored_range(path)
        pictures = _jpg(path, size, length, offset)() * (high - low) + low + offset  # (1, L, X, Y), back to HU
        lower, upper = WINDOW
        windowed = ((pictures - lower) / (upper - lower)).clamp(0, 1).transpose(2, 3).flip(2, 3)
        first = _ours(path, size, length, offset, quantize=False, sampling="first")()
        real = int(first.meta["num_frames"])
        yield row("JPG, its frames brought to HU and windowed", first[:, :real], windowed[:, :real], "of the window")


def _rounded(path: str, size: int, encoder: str) -> dict[str, Any]:
    """What bfloat16 in the encoder changes, worked out slowly where the processor lacks it: the numbers are the same."""
    import torch

    from monai_chd.networks import CNNLSTM

    torch.manual_seed(0)
    model = CNNLSTM(encoder).eval()
    model.encoder.trainable = True  # a frozen encoder does not follow the autocast around it
    frames = _ours_uint8(path, size, ROUNDED_FRAMES, STORED_OFFSET)().as_tensor()[None]
    count = torch.tensor([ROUNDED_FRAMES])

    def probabilities(precision: torch.dtype) -> Any:
        with torch.no_grad():
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                features = model.encoder(frames, count).float()
            return model.classifier(model.pooling(model.lstm(features, count), count)).softmax(1)

    largest = float((probabilities(torch.bfloat16) - probabilities(torch.float32)).abs().max())
    way = f"{encoder} in bfloat16 ({ROUNDED_FRAMES} frames)"
    return {"scan": "phantom", "size": size, "ours against": way, "largest": largest, "unit": "of a probability"}


def _stored_range(path: str) -> tuple[float, float]:
    import nibabel as nib
    import numpy as np

    image: Any = nib.load(path)
    values = np.asanyarray(image.dataobj)
    return float(values.min()), float(values.max())


def volumes_side(folder: str, slices: int, wanted: Sequence[tuple[str, int, int]], small: int) -> Side:
    """Makes the volumes that are not there yet."""

    def call() -> None:
        _make_volumes(Path(folder), slices, wanted, small)

    return Side(lambda: None, lambda: None, call)


def _make_volumes(folder: Path, slices: int, wanted: Sequence[tuple[str, int, int]], small: int) -> None:
    import numpy as np

    from monai_chd.phantom.cohort import nifti, write_file
    from monai_chd.phantom.volume import make_volume

    def base(seed: int) -> Any:
        flags = (["VSD"], ["ToF"], [], ["ASD"])[seed % 4]
        return make_volume(flags, seed=(1, seed), size=512, slices=(slices, slices), difficulty="realistic")[0]

    missing = [(Path(folder, name), count, seed) for name, count, seed in wanted if not Path(folder, name).exists()]
    for seed in sorted({seed for _, _, seed in missing}):
        image = base(seed)
        for path, count, own in missing:
            if own == seed:  # a longer one repeats the slices
                write_file(path, nifti(image[:, :, np.arange(count) % slices]))
    tiny = folder / tiny_name()
    if not tiny.exists():
        size, count = TINY
        image, _, _ = make_volume([], seed=(1, 0), size=size, slices=(count, count))
        write_file(tiny, nifti(image))
    for index in range(small):  # as many slices as real scans have, and few voxels: for features of the right shape
        path = folder / small_name(index)
        if not path.exists():
            rng = np.random.default_rng(index)
            count = int(rng.integers(150, 251))
            noise = rng.normal(900, 300, (32, 32, count))
            write_file(path, nifti(np.clip(noise, 0, 4095).astype(np.int16)))


def tiny_name() -> str:
    return f"tiny_v{VOLUMES_VERSION}.nii.gz"


def small_name(index: int) -> str:
    return f"small_{index}_v{VOLUMES_VERSION}.nii.gz"


def volume_name(slices: int, seed: int = 0) -> str:
    return f"phantom_512x512x{slices}_{seed}_v{VOLUMES_VERSION}.nii.gz"


SIDES: dict[str, Callable[..., Side]] = {
    "read": read_side,
    "cache": cache_side,
    "workers": workers_side,
    "cohort": cohort_side,
    "train": train_side,
    "predict": predict_side,
    "embed": embed_side,
    "head": head_side,
    "equality": equality_side,
    "volumes": volumes_side,
}


def child(kind: str, given: Mapping[str, Any]) -> None:
    """Make a side ready, then time one call for every line of standard input; a line of JSON comes out for each."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between

    def say(**what: Any) -> None:
        channel.write(json.dumps(what) + "\n")
        channel.flush()

    try:
        side = SIDES[kind](**given)
        side.warm()
        gc.collect()
        interpreter = resident()
        side.ready()
    except MissingError as reason:
        say(missing=str(reason))
        return
    say(interpreter=interpreter)
    for _ in sys.stdin:
        gc.collect()
        cpu, started = cpu_seconds(), time.perf_counter()
        result = side.call()
        wall, cpu = time.perf_counter() - started, cpu_seconds() - cpu
        note = result if isinstance(result, (str, list)) else None
        del result
        say(wall=wall, cpu=cpu, peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, note=note)


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds() -> float:
    """User and system seconds of this process and of the ones that it has waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


# --- What is compared


class Row(NamedTuple):
    """One figure and its target.

    Attributes:
        what: in words.
        figure: "time" (`other`'s seconds over `ours`'), "times" (`ours`' seconds over `other`'s), "memory" (`other`'s peak over
            `ours`'), "flat" (largest peak over smallest, of `ours`), "peak" (largest peak of `ours`, MB) or "seconds"
            (of `ours`). Peaks are over the interpreter, but for "flat process", of the processes as they are.
        ours: side; for "flat", "flat process" and "peak" several.
        other: side it is compared with.
        target: None when it is only told.
    """

    what: str
    figure: str
    ours: str | tuple[str, ...]
    other: str = ""
    target: float | None = None


LARGER_IS_BETTER = {
    "time": True,
    "memory": True,
    "times": False,
    "flat": False,
    "flat process": False,
    "peak": False,
    "seconds": False,
}
UNITS = {"peak": " MB", "seconds": " s"}


class Bench(NamedTuple):
    """Sides that are measured in turn, and what is made of it.

    Attributes:
        name: to be named with --only.
        title: what is measured.
        sides: name to kind and arguments.
        rows: what is compared.
        quick: the sides that --quick measures; none: not a part of it.
        rounds: at most so many rounds (memory is the same in each).
        alone: the sides' processes run one after the other, not at the same time (they take much memory).
    """

    name: str
    title: str
    sides: dict[str, tuple[str, dict[str, Any]]]
    rows: tuple[Row, ...]
    quick: tuple[str, ...] = ()
    rounds: int | None = None
    alone: bool = False


def benches(scale: Scale, volumes: Path, *, full: bool = False) -> list[Bench]:
    """Everything that can be measured, in order."""
    tiny = str(volumes / tiny_name())
    several = [str(volumes / volume_name(scale.slices, seed)) for seed in range(scale.volumes)]
    found = [_reading(scale, several[0], tiny, size) for size in (512, 224)]
    found.append(_real_scan(scale, tiny))
    epoch = [several[index % len(several)] for index in range(FULL.volumes)]
    found += [_cached(scale, epoch, tiny, size) for size in (512, 224)]
    found.append(_growing(scale, volumes, tiny))
    found.append(_workers(scale, several, tiny))
    found.append(_many(scale, several, tiny))
    found += [_training(scale, real) for real in (150, 195)]
    found.append(_resnet(scale))
    found.append(_predicting(scale, str(volumes / volume_name(150)), tiny))
    found.append(_embedding(scale, several, tiny, volumes, full=full))
    found.append(_head(scale, volumes))
    return found


def _reading(scale: Scale, path: str, tiny: str, size: int) -> Bench:
    given = {"path": path, "tiny": tiny, "size": size, "length": scale.length}
    output = f"file to (1, {scale.length}, {size}, {size})"
    uint8, float32, monai, torchio, same, jpg, inflater = READERS
    return Bench(
        f"reading_{size}",
        f"{output}, from 512x512x{scale.slices}",
        {how: ("read", {"how": how, **given}) for how in READERS},
        (
            Row(f"{output} uint8, MONAI stock / ours", "time", uint8, monai, 9),
            Row(f"{output} uint8, TorchIO stock / ours", "time", uint8, torchio, 12),
            Row(f"{output} uint8, TorchIO made to give our frames / ours", "time", uint8, same),
            Row(f"{output} uint8, ours / the same inflater alone", "times", uint8, inflater, 1.3),
            Row(f"{output} float32, MONAI stock / ours", "time", float32, monai, 6),
            Row(f"{output} uint8, convert to JPG + read / ours", "time", uint8, jpg, 9),
            Row(
                f"peak memory of that (uint8), MONAI stock / ours, {size}",
                "memory",
                uint8,
                monai,
                {512: 5, 224: 6}[size],
            ),
        ),
        quick=(uint8, monai, jpg, inflater) if size == 512 else (uint8, float32, monai, inflater),
    )


def _real_scan(scale: Scale, tiny: str) -> Bench:
    given = {"path": str(REAL_SCAN), "tiny": tiny, "size": 224, "length": scale.length, "offset": 0.0}
    uint8, float32, monai, torchio, same, jpg, _ = READERS
    return Bench(
        "reading_real",
        f"a real cardiac CT ({REAL_SCAN.name}, 122x102x112) to (1, {scale.length}, 224, 224), enlarged",
        {how: ("read", {"how": how, **given}) for how in READERS},
        (
            Row("real scan uint8, MONAI stock / ours", "time", uint8, monai),
            Row("real scan uint8, TorchIO stock / ours", "time", uint8, torchio),
            Row("real scan uint8, TorchIO made to give our frames / ours", "time", uint8, same),
            Row("real scan uint8, convert to JPG + read / ours", "time", uint8, jpg),
            Row("real scan float32, MONAI stock / ours", "time", float32, monai),
        ),
    )


def _cached(scale: Scale, paths: list[str], tiny: str, size: int) -> Bench:
    given = {"paths": paths, "tiny": tiny, "size": size, "length": scale.length}
    sides = ("frames, float32", "frames, uint8 handed over", "frames, batch", "JPG cache")
    float32, uint8, batch, jpg = sides
    return Bench(
        f"cache_{size}",
        f"cached epoch of {len(paths)} cases at {size}",
        {how: ("cache", {"how": how, **given}) for how in sides},
        (
            Row(
                f"cached epoch at {size} as float32, JPG cache / frame cache",
                "time",
                float32,
                jpg,
                {512: 4, 224: 8}[size],
            ),
            Row(f"cached epoch at {size}, uint8 handed over, JPG cache / frame cache", "time", uint8, jpg, 40),
            Row(
                f"cached epoch at {size}, uint8 copied into a DataLoader's batch, JPG cache / frame cache",
                "time",
                batch,
                jpg,
            ),
        ),
        quick=(float32, uint8, jpg),
    )


def _growing(scale: Scale, volumes: Path, tiny: str) -> Bench:
    def given(slices: int) -> dict[str, Any]:
        path = str(volumes / volume_name(slices))
        return {"how": "ours, uint8", "path": path, "tiny": tiny, "size": 224, "length": scale.length}

    names = tuple(f"{slices} slices" for slices in scale.growing)
    words = ", ".join(map(str, scale.growing))
    return Bench(
        "slices",
        f"peak memory by slices, (1, {scale.length}, 224, 224) uint8",
        {f"{slices} slices": ("read", given(slices)) for slices in scale.growing},
        (
            Row(f"peak memory at {words} slices, largest / smallest", "flat", names, target=1.2),
            Row(f"peak memory at {words} slices, largest", "peak", names, target=150),
        ),
        quick=names,
    )


def _workers(scale: Scale, paths: list[str], tiny: str) -> Bench:
    many, few = ([paths[index % len(paths)] for index in range(count)] for count in (16, 4))
    reading, training = {"train": False, "size": 512}, {"train": True, "size": 224}
    kinds: dict[str, tuple[dict[str, Any], float | None]] = {
        "reading 4 cases without a cache at 512": ({**reading, "cache": "none", "paths": few}, 1.0),
        "reading 4 cases of the JPG cache at 512": ({**reading, "cache": "jpg", "paths": few}, 1.0),
        "training the small CNN-LSTM on 4 cases without a cache at 224": (
            {**training, "cache": "none", "paths": few},
            1.0,
        ),
        "reading 16 cases of the frame cache at 512 (the bundle starts none)": (
            {**reading, "cache": "frames", "paths": many},
            None,
        ),
        "training the small CNN-LSTM on 4 cases of the frame cache at 224 (the bundle starts none)": (
            {**training, "cache": "frames", "paths": few},
            None,
        ),
    }
    return Bench(
        "workers",
        "epochs through a DataLoader whose workers start anew each epoch, as the bundle's do; reading goes up to the float32 "
        "chunks that an encoder takes",
        {
            f"{kind}, {count} workers": ("workers", {"workers": count, "tiny": tiny, "length": scale.length, **given})
            for kind, (given, _) in kinds.items()
            for count in (0, 2)
        },
        tuple(
            Row(f"{kind}, no workers / two workers", "time", f"{kind}, 2 workers", f"{kind}, 0 workers", target)
            for kind, (_, target) in kinds.items()
        ),
    )


def _many(scale: Scale, paths: list[str], tiny: str) -> Bench:
    counts = (8, 32, PATIENTS)
    given = {"paths": paths, "tiny": tiny, "size": 224, "length": scale.length}
    return Bench(
        "cohort",
        "peak memory by patients, one epoch at 224, without a cache and with the frame cache",
        {
            f"{count} patients, cache {cache}": ("cohort", {"patients": count, "cache": cache, **given})
            for cache in ("none", "frames")
            for count in counts
        },
        tuple(
            Row(
                f"peak memory over {', '.join(map(str, counts))} patients, cache {cache}, {of}, largest / smallest",
                figure,
                tuple(f"{count} patients, cache {cache}" for count in counts),
                target=target,
            )
            for cache in ("none", "frames")
            for of, figure, target in (("the process", "flat process", 1.1), ("over the interpreter", "flat", None))
        ),
        rounds=1,
        alone=True,
    )


def _training(scale: Scale, real: int) -> Bench:
    given = {"encoder": "small_cnn", "size": 512, "length": 200, "real": real}
    what = f"training step, small CNN-LSTM at 512, fp32, {real} real of 200 frames, replaced / ours"
    return Bench(
        f"training_{real}",
        f"training step of the small CNN-LSTM at 512, fp32, {real} real of 200 frames",
        {how: ("train", {"how": how, **given}) for how in ("ours", "replaced")},
        (
            Row(f"{what}: peak memory", "memory", "ours", "replaced", 8),
            Row(f"{what}: time", "time", "ours", "replaced", 1.0),
        ),
    )


def _resnet(scale: Scale) -> Bench:
    given = {"encoder": "resnet18", "size": 224, "length": 200, "real": 150}
    return Bench(
        "resnet",
        "training step of ResNet18 + LSTM at 224, 150 real of 200 frames",
        {how: ("train", {"how": how, **given}) for how in ("bf16, channels_last", "fp32, channels_last", "fp32")},
        (
            Row(
                "training step, ResNet18 at 224, fp32 / bf16 + channels_last",
                "time",
                "bf16, channels_last",
                "fp32",
                1.7,
            ),
            Row(
                "training step, ResNet18 at 224, fp32 / fp32 + channels_last",
                "time",
                "fp32, channels_last",
                "fp32",
            ),
        ),
    )


def _predicting(scale: Scale, path: str, tiny: str) -> Bench:
    given = {"path": path, "tiny": tiny, "size": 224, "length": 200}
    return Bench(
        "prediction",
        "file of 150 slices to probabilities, ResNet18 + LSTM at 224",
        {how: ("predict", {"how": how, **given}) for how in ("torch", "torch, fp32", "OpenVINO", "replaced")},
        (
            Row("file to probabilities, replaced / ours with torch", "time", "torch", "replaced", 3.3),
            Row("file to probabilities, replaced / ours with OpenVINO", "time", "OpenVINO", "replaced", 4.5),
            Row("file to probabilities, replaced / ours with torch in fp32", "time", "torch, fp32", "replaced"),
        ),
    )


def _embedding(scale: Scale, paths: list[str], tiny: str, volumes: Path, *, full: bool) -> Bench:
    given = {"paths": paths[:1], "tiny": tiny, "size": 224, "length": scale.length}
    if not full:
        what = "embedding one patient at 224 with Lite0"
        rows = (Row(what, "seconds", "one patient"),)
        return Bench("embedding", f"{what}, from file to features", {"one patient": ("embed", given)}, rows)
    what = f"embedding {PATIENTS} patients at 224 with Lite0"
    given["paths"] = [str(volumes / "copies" / f"{index}.nii.gz") for index in range(PATIENTS)]
    rows = (Row(what, "seconds", f"{PATIENTS} patients"),)
    return Bench(
        "embedding", f"{what}, from file to features", {f"{PATIENTS} patients": ("embed", given)}, rows, rounds=1
    )


def _head(scale: Scale, volumes: Path) -> Bench:
    given = {"paths": [str(volumes / small_name(index)) for index in range(PATIENTS)], "size": 32, "length": 200}
    what = f"five-fold training of the LSTM head on cached embeddings, {PATIENTS} patients"
    return Bench(
        "head",
        f"{what} of 150 to 250 slices (embeddings of their shape, from small pictures, made before)",
        {"five folds": ("head", given)},
        (Row(what, "seconds", "five folds", target=60),),
    )


# --- Measuring


class Process:
    """A child, and what it has reported."""

    def __init__(self, kind: str, given: Mapping[str, Any], work: Path) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--child", kind, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "passive", "BENCH_WORK": str(work)},
        )
        self.interpreter = 0
        self.missing: str | None = None
        self.calls: list[dict[str, Any]] = []

    def wait_until_ready(self) -> None:
        answer = self._answer()
        self.missing = answer.get("missing")
        self.interpreter = answer.get("interpreter", 0)

    def measure(self) -> dict[str, Any]:
        """One timed call."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.calls.append(self._answer())
        return self.calls[-1]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(
                f"a side ended with exit code {self._process.returncode}:\n{self._errors.read()[-4000:]}"
            )
        return json.loads(line)

    def close(self) -> None:
        """End it; it has nothing left to lose."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def summary(self) -> dict[str, Any]:
        """What came of it, as the report has it."""
        if self.missing:
            return {"missing": self.missing}
        peak = max((call["peak"] for call in self.calls), default=0)
        return {
            "wall": [call["wall"] for call in self.calls],
            "cpu": [call["cpu"] for call in self.calls],
            "peak": peak,
            "over_interpreter": peak - self.interpreter,
            "note": self.calls[-1]["note"] if self.calls else None,
        }


def run_bench(bench: Bench, repeats: int, work: Path) -> dict[str, dict[str, Any]]:
    """Measure the sides of a bench in turn, A B A B."""
    rounds = min(repeats, bench.rounds or repeats)
    found = {}
    if bench.alone:
        for name, (kind, given) in bench.sides.items():
            found |= _in_turn({name: Process(kind, given, work)}, rounds)
        return found
    return _in_turn({name: Process(kind, given, work) for name, (kind, given) in bench.sides.items()}, rounds)


def _in_turn(processes: Mapping[str, Process], rounds: int) -> dict[str, dict[str, Any]]:
    try:
        for process in processes.values():
            process.wait_until_ready()
        for _ in range(rounds):
            for process in processes.values():
                if process.missing is None:
                    process.measure()
        return {name: process.summary() for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.close()


def judge(row: Row, sides: Mapping[str, Mapping[str, Any]], *, quick: bool = False) -> dict[str, Any]:
    """A row's figure, whether its target holds, and whether the run fails.

    Returns:
        `figures` (one a round, in the order of the rounds), `median`, `low`, `high`, `holds` (None: no target, or not measured),
        `fails` (a target missed by more than half, in a quick run), `missing` (why it was not measured).
    """
    missing = [sides[name]["missing"] for name in needed_sides(row) if "missing" in sides[name]]
    result: dict[str, Any] = {**row._asdict(), "unit": UNITS.get(row.figure, "x"), "holds": None, "fails": False}
    if missing:
        return {**result, "missing": missing[0]}
    figures = _figures(row, sides)
    median = statistics.median(figures)
    result |= {"figures": figures, "median": median, "low": min(figures), "high": max(figures)}
    if row.target is not None:
        better = LARGER_IS_BETTER[row.figure]
        result["holds"] = median >= row.target if better else median <= row.target
        result["fails"] = quick and (median < row.target / 2 if better else median > row.target * 2)
    return result


def _figures(row: Row, sides: Mapping[str, Mapping[str, Any]]) -> list[float]:
    names = needed_sides(row)
    peaks = [sides[name]["over_interpreter"] for name in names]
    if row.figure == "flat process":
        peaks = [sides[name]["peak"] for name in names]
    if row.figure in ("flat", "flat process"):
        return [max(peaks) / min(peaks)]
    if row.figure == "peak":
        return [max(peaks) / MB]
    if row.figure == "memory":
        return [peaks[1] / peaks[0]]
    ours = sides[names[0]]["wall"]
    if row.figure == "seconds":
        return list(ours)
    other = sides[row.other]["wall"]
    pairs = zip(other, ours, strict=True)
    return [a / b if row.figure == "time" else b / a for a, b in pairs]


# --- The report


def machine() -> dict[str, Any]:
    """What the figures depend on; nothing that names the machine or its folders."""
    model = re.search(r"model name\s*:\s*(.+)", _text("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", _text("/proc/meminfo"))
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "processor": model[1].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 2**20) if memory else None,
        "threads": os.environ.get("OMP_NUM_THREADS", "all cores"),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


HOW = """Each side runs in a process of its own. It first goes through a volume of {tiny} voxels, so that all is imported;
the memory it then has is "the interpreter". One call after that is not timed: it fills the page cache and what the side
keeps. (A training step is warmed with two frames, and for the head only the embeddings are made.) Then the sides take turns,
A B A B, one call each a round; only the call itself is timed. A ratio is that of the two calls of one round; the table has
the median of the rounds ({repeats}; memory by patients: 1) and, in brackets, the smallest and the largest. CPU
seconds are user and system, of the process and its workers. Peak memory is the process's highest resident size; a row's
memory is what that is above the interpreter, once a process. Threads wait without spinning (OMP_WAIT_POLICY=passive)."""


def markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = ["# Benchmark", ""]
    if report["quick"]:
        lines += [
            f"**A smoke test** on volumes of 512x512x{report['slices']} and sequences of {report['length']}: it finds what "
            "became much slower (a ratio below half of its target), and is no measurement.",
            "",
        ]
    about = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines += [
        f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, threads: {about['threads']}, load before: "
        f"{about['load_before']}; {about['system']}, Python {about['python']}; {versions}.",
        "",
        HOW.format(tiny="{0}x{0}x{1}".format(*TINY), repeats=report["repeats"]),
        "",
        "| measure | median [range] | target | holds |",
        "|---|---|---|---|",
    ]
    rows = [row for bench in report["benches"] for row in bench["rows"]]
    lines += [f"| {row['what']} | {_shown(row)} | {_target(row)} | {_holds(row)} |" for row in rows]
    lines += ["", "## What lost", ""]
    lost = [f"- {row['what']}: {_shown(row)}, target {_target(row)}" for row in rows if row["holds"] is False]
    lines += lost or ["Nothing that was measured and has a target."]
    absent = [f"- {row['what']}: {row['missing']}" for row in rows if "missing" in row]
    lines += ["", "## Not measured", "", *absent] if absent else []
    lines += ["", "## The same numbers", "", "| scan | size | ours against | largest difference |", "|---|---|---|---|"]
    for found in report["equality"]:
        lines.append(
            f"| {found['scan']} | {found['size']} | {found['ours against']} | {found['largest']:.3g} {found['unit']} |"
        )
    for bench in report["benches"]:
        lines += ["", f"## {bench['name']}: {bench['title']}", "", *_sides_table(bench["sides"]), *_notes(bench)]
    return "\n".join(lines) + "\n"


def _sides_table(sides: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| side | wall s, median [range] | CPU s | peak MB | over the interpreter |"
    yield "|---|---|---|---|---|"
    for name, side in sides.items():
        if "missing" in side:
            yield f"| {name} | not measured: {side['missing']} | | | |"
            continue
        wall = f"{statistics.median(side['wall']):.3f} [{min(side['wall']):.3f}, {max(side['wall']):.3f}]"
        cpu = f"{statistics.median(side['cpu']):.3f}"
        yield f"| {name} | {wall} | {cpu} | {side['peak'] / MB:.0f} | {side['over_interpreter'] / MB:.0f} |"


def _notes(bench: Mapping[str, Any]) -> list[str]:
    """What a bench says besides its figures."""
    sides = {name: side for name, side in bench["sides"].items() if side.get("note")}
    lines = [f"{name}: {side['note']}." for name, side in sides.items() if isinstance(side["note"], str)]
    plain = sides.get("torch, fp32")
    for name in ("torch", "OpenVINO"):
        if plain and name in sides:
            largest = max(abs(a - b) for a, b in zip(sides[name]["note"], plain["note"], strict=True))
            lines.append(f"Largest difference of a probability, {name} against torch in fp32: {largest:.2g}.")
    if "one patient" in sides:
        seconds = statistics.median(sides["one patient"]["wall"])
        lines.append(
            f"Extrapolated, not run: {PATIENTS} patients take {seconds * PATIENTS:.0f} s (`--full` runs them)."
        )
    return ["", *lines] if lines else []


def _shown(row: Mapping[str, Any]) -> str:
    if "missing" in row:
        return "not measured"
    median = f"{row['median']:.2f}{row['unit']}"
    return median if len(row["figures"]) == 1 else f"{median} [{row['low']:.2f}, {row['high']:.2f}]"


def _target(row: Mapping[str, Any]) -> str:
    if row["target"] is None:
        return "reported"
    return f"{'≥' if LARGER_IS_BETTER[row['figure']] else '≤'} {row['target']:g}{row['unit']}"


def _holds(row: Mapping[str, Any]) -> str:
    return {True: "yes", False: "**no**", None: ""}[row["holds"]]


def write(path: Path, text: str) -> None:
    """Under a passing name, then renamed: a reader finds all of it or what was there before."""
    passing = path.with_name(f".{os.getpid()}-{path.name}")
    passing.write_text(text, encoding="utf-8")
    os.replace(passing, path)


def wanted_volumes(scale: Scale, names: Sequence[str]) -> tuple[list[tuple[str, int, int]], int]:
    """Files that the benches named need: name, slices, seed; and how many small ones."""
    wanted = [(volume_name(scale.slices, seed), scale.slices, seed) for seed in range(scale.volumes)]
    if "slices" in names:
        wanted += [(volume_name(count), count, 0) for count in scale.growing]
    if "prediction" in names:
        wanted.append((volume_name(150), 150, 0))
    return list(dict.fromkeys(wanted)), PATIENTS if "head" in names else 0


def copies(volumes: Path, paths: Sequence[Path]) -> None:
    """110 files of different bytes and few different voxels: the time in gzip's header counts for the digest only."""
    folder = volumes / "copies"
    folder.mkdir(exist_ok=True)
    for index in range(PATIENTS):
        target = folder / f"{index}.nii.gz"
        if not target.exists():
            passing = folder / f".{index}.nii.gz"
            shutil.copyfile(paths[index % len(paths)], passing)
            with passing.open("r+b") as file:
                file.seek(4)
                file.write(index.to_bytes(4, "little"))
            os.replace(passing, target)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split("\n")[0])
    names = [bench.name for bench in benches(FULL, Path())]
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test of reading, memory and caches in smaller volumes"
    )
    parser.add_argument("--full", action="store_true", help=f"embed all {PATIENTS} patients; takes 10 GB of disk")
    parser.add_argument("--out", type=Path, default=ROOT / "bench_output", help="folder for results and volumes")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}")
    parser.add_argument("--repeats", type=int, help="rounds (default: 5; with --quick 3)")
    given = parser.parse_args(argv)
    given.repeats = given.repeats if given.repeats is not None else 3 if given.quick else 5
    if given.repeats < 1:
        parser.error(f"--repeats: expected 1 or more, got {given.repeats}")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    scale = QUICK if given.quick else FULL
    volumes = given.out / "volumes"
    volumes.mkdir(parents=True, exist_ok=True)
    chosen = [bench for bench in benches(scale, volumes, full=given.full) if _chosen(bench, given)]
    chosen = [in_brief(bench) for bench in chosen] if given.quick else chosen
    report: dict[str, Any] = {
        "quick": given.quick,
        "repeats": given.repeats,
        "slices": scale.slices,
        "length": scale.length,
        "machine": machine(),
        "benches": [],
    }
    started = time.perf_counter()

    def tell(text: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {text}", flush=True)

    wanted, small = wanted_volumes(scale, [bench.name for bench in chosen])
    tell(f"volumes: {volumes}")
    _once("volumes", {"folder": str(volumes), "slices": scale.slices, "wanted": wanted, "small": small}, given.out)
    if given.full:
        copies(volumes, [volumes / name for name, _, _ in wanted[: scale.volumes]])
    tell("ours against the single transforms and the other ways")
    first = str(volumes / wanted[0][0])
    sizes = [224] if given.quick else [512, 224]
    asked = {"volume": first, "sizes": sizes, "length": scale.length, "rounded": not given.quick}
    report["equality"] = _once("equality", asked, given.out)
    for found in report["equality"]:
        print(
            f"          {found['scan']}, {found['size']}, {found['ours against']}: {found['largest']:.3g} {found['unit']}"
        )
    for bench in chosen:
        tell(f"{bench.name}: {bench.title}")
        sides, rows = measured(bench, given)
        if any(row["fails"] for row in rows):
            tell(
                f"{bench.name}: a row misses half of its target; once more, in case the machine was busy with something else"
            )
            sides, rows = measured(bench, given)
        for row in rows:
            verdict = {True: "holds", False: "DOES NOT HOLD", None: ""}[row["holds"]]
            print(f"          {row['what']}: {_shown(row)}, target {_target(row)} {verdict}", flush=True)
        report["benches"].append({"name": bench.name, "title": bench.title, "sides": sides, "rows": rows})
        _save(report, given.out)
    _save(report, given.out)
    tell(f"results: {given.out / 'bench.md'}, {given.out / 'bench.json'}")
    return _exit_code(report)


def measured(bench: Bench, given: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """The sides of a bench and its rows."""
    with tempfile.TemporaryDirectory(dir=given.out) as work:
        sides = run_bench(bench, given.repeats, Path(work))
    return sides, [judge(row, sides, quick=given.quick) for row in bench.rows]


def _chosen(bench: Bench, given: argparse.Namespace) -> bool:
    return bench.name in given.only if given.only else bool(bench.quick) or not given.quick


def in_brief(bench: Bench) -> Bench:
    """The part of a bench that --quick measures; all of it where it has none, for who asks for it with --only."""
    if not bench.quick:
        return bench
    measured = {name: side for name, side in bench.sides.items() if name in bench.quick}
    rows = tuple(row for row in bench.rows if set(needed_sides(row)) <= set(measured))
    return bench._replace(sides=measured, rows=rows)


def needed_sides(row: Row) -> list[str]:
    """The sides that a row compares."""
    ours = [row.ours] if isinstance(row.ours, str) else list(row.ours)
    return [*ours, row.other] if row.other else ours


def _once(kind: str, given: Mapping[str, Any], out: Path) -> Any:
    """A child that does one thing; its note."""
    with tempfile.TemporaryDirectory(dir=out) as work:
        return _in_turn({kind: Process(kind, given, Path(work))}, 1)[kind]["note"]


def _save(report: Mapping[str, Any], out: Path) -> None:
    write(out / "bench.json", json.dumps(report, indent=1) + "\n")
    write(out / "bench.md", markdown(report))


def _exit_code(report: Mapping[str, Any]) -> int:
    wrong = [found for found in report["equality"] if "single transforms" in found["ours against"] and found["largest"]]
    for found in wrong:
        print(f"error: {found['scan']}, {found['size']}: not what {found['ours against']} give", file=sys.stderr)
    failed = [row for bench in report["benches"] for row in bench["rows"] if row["fails"]]
    for row in failed:
        print(f"error: {row['what']}: {_shown(row)} misses half of its target {_target(row)}", file=sys.stderr)
    return 1 if wrong or failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], json.loads(sys.argv[3]))
        sys.stdout.flush()
        os._exit(0)  # without the teardown of libraries, which may crash and has nothing to do
    sys.exit(main())
