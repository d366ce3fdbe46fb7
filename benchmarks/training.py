"""A training step of one case: ours against the replaced network, and what bfloat16 and channels_last give.

Training the head alone is the part of `head`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.child import MissingError, Side
from benchmarks.comparison import Bench, Row
from benchmarks.replaced import replaced_network
from benchmarks.volumes import Volumes


def side(how: str, encoder: str, size: int, length: int, real: int) -> Side:
    """One training step of one case of `real` frames, padded to `length`: forward, backward, Adam."""
    import torch

    torch.manual_seed(0)
    network = _network(how, encoder).train()

    def batch(frames: int, padded: int) -> tuple[Any, ...]:
        values = torch.randint(0, 256, (1, 1, padded, size, size), dtype=torch.uint8)
        values[:, :, frames:] = 0
        if how == "replaced":
            return ((values[:, 0, :, None] / 255),)
        return values, torch.tensor([frames])

    kept: dict[str, Callable[[], None]] = {}

    def ready() -> None:
        kept["step"] = _step(network, *batch(real, length))

    return Side(_step(network, *batch(2, 2)), ready, lambda: kept["step"]())


def _network(how: str, encoder: str) -> Any:
    import torch

    from monai_chd.networks import CNNLSTM, SmallCNN, make_encoder
    from monai_chd.networks.encoders import has_bfloat16

    if how == "replaced":
        return replaced_network(SmallCNN(), 1024)
    if how == "bf16, channels_last":
        if not has_bfloat16(torch.device("cpu")):
            raise MissingError("this processor does not multiply in bfloat16")
        return CNNLSTM(make_encoder(encoder, "bfloat16"))
    network = CNNLSTM(encoder)
    if how == "fp32":
        network.encoder.network.to(memory_format=torch.contiguous_format)
    return network


def _step(network: Any, *batch: Any) -> Callable[[], None]:
    import torch

    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    label = torch.tensor([1])

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(*batch), label).backward()
        optimizer.step()

    return step


def benches(made: Volumes) -> list[Bench]:
    """The small CNN with little and much padding, and ResNet18."""
    return [_small_cnn(150), _small_cnn(195), _resnet()]


def _small_cnn(real: int) -> Bench:
    given = {"encoder": "small_cnn", "size": 512, "length": 200, "real": real}
    what = f"training step, small CNN-LSTM at 512, fp32, {real} real of 200 frames, replaced / ours"
    return Bench(
        f"training_{real}",
        f"training step of the small CNN-LSTM at 512, fp32, {real} real of 200 frames",
        {how: ("training", {"how": how, **given}) for how in ("ours", "replaced")},
        (
            Row(f"{what}: peak memory", "memory", "ours", "replaced", 8),
            Row(f"{what}: time", "time", "ours", "replaced", 1.0),
        ),
    )


def _resnet() -> Bench:
    given = {"encoder": "resnet18", "size": 224, "length": 200, "real": 150}
    bf16, channels_last, fp32 = ways = ("bf16, channels_last", "fp32, channels_last", "fp32")
    what = "training step, ResNet18 at 224, fp32"
    return Bench(
        "resnet",
        "training step of ResNet18 + LSTM at 224, 150 real of 200 frames",
        {how: ("training", {"how": how, **given}) for how in ways},
        (
            Row(f"{what} / bf16 + channels_last", "time", bf16, fp32, 1.7),
            Row(f"{what} / fp32 + channels_last", "time", channels_last, fp32),
        ),
    )
