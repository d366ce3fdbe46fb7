"""Three cases of unlike length, and a network for each encoder."""

from collections.abc import Callable, Iterator

import pytest
import torch
from monai.networks.nets import DenseNet121
from tiny_networks import COUNTS, LENGTH, SIZE
from torch import Tensor, nn

from monai_chd.networks import CNNLSTM, ENCODERS, FrameEncoder


def monai_densenet121() -> nn.Module:
    return FrameEncoder(DenseNet121(spatial_dims=2, in_channels=1, out_channels=16))


ENCODER_FACTORIES: dict[str, Callable[[], nn.Module]] = {**ENCODERS, "densenet121": monai_densenet121}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small layers crawl when threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def frames() -> Tensor:
    """Three cases of unlike length, (3, 1, 7, 32, 32), zero in the padding and nowhere else."""
    frames = torch.rand(len(COUNTS), 1, LENGTH, SIZE, SIZE) * 0.9 + 0.1
    for case, count in enumerate(COUNTS):
        frames[case, :, count:] = 0
    return frames


@pytest.fixture
def num_frames() -> Tensor:
    return torch.tensor(COUNTS)


@pytest.fixture(scope="module", params=ENCODER_FACTORIES)
def encoder_model(request: pytest.FixtureRequest) -> CNNLSTM:
    """A network for each encoder, with the head in which padding has most ways in."""
    torch.manual_seed(0)
    encoder = ENCODER_FACTORIES[request.param]()
    return CNNLSTM(encoder, hidden_size=8, num_layers=2, bidirectional=True, pooling="attention").eval()
