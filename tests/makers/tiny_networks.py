"""Three short cases, what padding must not change, and comparisons of gradients, for the tests of the networks."""

import torch
from torch import Tensor, nn

SCRIPT_DEPRECATED = r"ignore:`torch\.jit\.script` is deprecated:DeprecationWarning"

COUNTS = [7, 2, 4]
LENGTH, SIZE = 7, 32


def with_padding(frames: Tensor, num_frames: Tensor, value: float) -> Tensor:
    """Two frames longer, and `value` in all padding. NaN would show in any result that it reaches."""
    longer = torch.cat([frames, torch.zeros_like(frames[:, :, :2])], dim=2)
    for case, count in enumerate(num_frames.tolist()):
        longer[case, :, count:] = value
    return longer


def assert_equal(actual: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def gradients(model: nn.Module, frames: Tensor, num_frames: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    nn.functional.cross_entropy(model(frames, num_frames), torch.tensor([0, 1, 2])).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_gradients_equal(actual: dict[str, Tensor], expected: dict[str, Tensor], atol: float = 1e-6) -> None:
    assert list(actual) == list(expected)
    assert max(gradient.abs().max() for gradient in expected.values()) > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(
            actual[name], gradient, atol=atol, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


class PlainEncoder(nn.Module):
    """Every frame at once, in one graph."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.network = encoder.network
        self.feature_size = encoder.feature_size

    def forward(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        features = self.network(frames.transpose(1, 2).flatten(0, 1)).reshape(*frames.shape[:1], frames.shape[2], -1)
        return features * (torch.arange(frames.shape[2]) < num_frames[:, None])[..., None]
