"""The ways from a file to frames that are compared: ours, MONAI's, TorchIO's, JPGs, and the inflater that none can pass.

A way is made of (path, size, length, offset): the scan, pixels of a frame, frames of the sequence, and what turns stored values
into HU. Calling it gives frames (1, length, size, size). What is measured of it is the measures' part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.child import MissingError
from benchmarks.replaced import jpg_frames

WINDOW = (-200.0, 900.0)
LPS = {"axcodes": "LPS", "labels": (("L", "R"), ("P", "A"), ("I", "S"))}


def load_frames(size: int, length: int, **settings: Any) -> Any:
    """The bundle's transform from path to frames."""
    from monai_chd.transforms import LoadFramesd

    return LoadFramesd("image", size, length, window=WINDOW, **settings)


def ours_uint8(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
    """As the bundle reads."""
    step = load_frames(size, length)
    return lambda: step({"image": path})["image"]


def ours_float32(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
    """Without 8 bits, in [0, 1]."""
    step = load_frames(size, length, quantize=False)
    return lambda: step({"image": path})["image"]


def single_transforms(path: str, size: int, length: int, *, quantize: bool) -> Callable[[], Any]:
    """The single transforms of `monai_chd`, which ours is compared with."""
    from monai.transforms import Compose, Orientationd

    from monai_chd import transforms as t

    steps = [
        t.LoadVolumed("image"),
        Orientationd("image", **LPS),
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


def monai_stock(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
    """With MONAI's own transforms."""
    from monai import transforms as m

    place = _geometry(path, size, length)
    lower, upper = (edge - offset for edge in WINDOW)
    steps = [
        m.LoadImaged("image"),
        m.EnsureChannelFirstd("image"),
        m.Orientationd("image", **LPS),
        m.ScaleIntensityRanged("image", lower, upper, 0.0, 1.0, clip=True),
        m.Resized("image", (place.width, place.height, -1), mode=place.mode),
        m.Transposed("image", (0, 3, 2, 1)),
        *([m.Lambdad("image", lambda frames: frames[:, place.kept])] if place.kept is not None else []),
        m.SpatialPadd("image", (-1, size, size)),
        m.SpatialPadd("image", (length, size, size), method="end"),
    ]
    chain = m.Compose(steps)
    return lambda: chain({"image": path})["image"]


def _torchio(offset: float) -> tuple[Any, list[Any]]:
    """TorchIO, and its steps that both chains begin with: orientation and window."""
    try:
        import torchio as tio
    except ImportError as error:
        raise MissingError("TorchIO is not installed (pip install 'monai_chd[bench]')") from error
    lower, upper = (edge - offset for edge in WINDOW)
    return tio, [
        tio.ToOrientation("LPS"),
        tio.Clamp(lower, upper),
        tio.RescaleIntensity((0, 1), in_min_max=(lower, upper)),
    ]


def torchio_stock(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
    """With TorchIO's own transforms: its Resize takes single points, between slices too, instead of the even slices."""
    tio, steps = _torchio(offset)
    chain = tio.Compose([*steps, tio.Resize((size, size, length))])
    return lambda: chain(tio.Subject(image=tio.ScalarImage(path)))["image"].data.permute(0, 3, 2, 1).contiguous()


def torchio_same(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
    """With TorchIO, and PyTorch where its own transforms would not give the same frames as ours."""
    tio, steps = _torchio(offset)
    import torch.nn.functional as F

    place = _geometry(path, size, length)
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

    chain = tio.Compose([*steps, tio.Lambda(resize)])
    return lambda: sequence(chain(tio.Subject(image=tio.ScalarImage(path)))["image"].data)


def inflater_alone(path: str, size: int, length: int, offset: float) -> Callable[[], Any]:
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


WAYS: dict[str, Callable[[str, int, int, float], Callable[[], Any]]] = {
    "ours, uint8": ours_uint8,
    "ours, float32": ours_float32,
    "MONAI stock": monai_stock,
    "TorchIO stock": torchio_stock,
    "TorchIO, our frames": torchio_same,
    "JPG, written and read": jpg_frames,
    "inflater alone": inflater_alone,
}
