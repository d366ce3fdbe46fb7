"""Laws of the networks: padding, chunks, scripting and the frozen parts change no number."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.networks.nets import DenseNet121, resnet18
from torch import Tensor, nn

from monai_chd.labels import CLASSES
from monai_chd.networks import cnn_lstm
from monai_chd.networks.cnn_lstm import CNNLSTM, ENCODERS, POOLINGS, FrameEncoder, SequenceLSTM, SmallCNN, VolumeNetwork
from monai_chd.networks.efficientnet import EfficientNetLite0

SCRIPT_DEPRECATED = r"ignore:`torch\.jit\.script` is deprecated:DeprecationWarning"
EXPORT_OF_LSTM = r"ignore:The tensor attributes self\.lstm.*were assigned during export:UserWarning"

COUNTS = [7, 2, 4]
LENGTH, SIZE = 7, 32


def monai_densenet121() -> nn.Module:
    return FrameEncoder(DenseNet121(spatial_dims=2, in_channels=1, out_channels=16))


ENCODER_FACTORIES: dict[str, Callable[[], nn.Module]] = {
    **ENCODERS,
    "densenet121": monai_densenet121,
}
HEADS = list(product(POOLINGS, [False, True], [1, 2]))


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


@pytest.fixture(scope="module", params=HEADS, ids=lambda head: f"{head[0]}-{'bi' if head[1] else 'uni'}-{head[2]}")
def head_model(request: pytest.FixtureRequest) -> CNNLSTM:
    """A network for each head, on the small CNN."""
    torch.manual_seed(0)
    pooling, bidirectional, num_layers = request.param
    return CNNLSTM(hidden_size=8, num_layers=num_layers, bidirectional=bidirectional, pooling=pooling).eval()


def with_padding(frames: Tensor, num_frames: Tensor, value: float) -> Tensor:
    """Two frames longer, and `value` in all padding. NaN would show in any result that it reaches."""
    longer = torch.cat([frames, torch.zeros_like(frames[:, :, :2])], dim=2)
    for case, count in enumerate(num_frames.tolist()):
        longer[case, :, count:] = value
    return longer


def assert_laws_hold(model: nn.Module, frames: Tensor, num_frames: Tensor) -> None:
    """Padding, its content, batching, dtype and a missing count change no logit."""
    with torch.no_grad():
        logits = model(frames, num_frames)
        one_by_one = torch.cat([model(frames[i : i + 1, :, :n], torch.tensor([n])) for i, n in enumerate(num_frames)])
        as_bytes = (frames * 255).round().to(torch.uint8)

        assert logits.shape == (len(num_frames), len(CLASSES))
        assert logits.std(0).min() > 0, "cases must differ, or the laws hold for nothing"
        assert_equal(model(with_padding(frames, num_frames, 0.0), num_frames), logits)
        assert_equal(model(with_padding(frames, num_frames, float("nan")), num_frames), logits)
        assert_equal(one_by_one, logits)
        assert_equal(model(frames), logits)
        assert_equal(model(as_bytes, num_frames), model(as_bytes / 255, num_frames))


def assert_equal(actual: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


# Padding, batches, dtypes


def test_padding_changes_no_logit_for_any_encoder(encoder_model: CNNLSTM, frames: Tensor, num_frames: Tensor) -> None:
    assert_laws_hold(encoder_model, frames, num_frames)


def test_padding_changes_no_logit_for_any_head(head_model: CNNLSTM, frames: Tensor, num_frames: Tensor) -> None:
    assert_laws_hold(head_model, frames, num_frames)


@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_padding_changes_no_logit_of_a_volume_network(frames: Tensor, num_frames: Tensor, norm: str) -> None:
    network = resnet18(spatial_dims=3, n_input_channels=1, num_classes=len(CLASSES), conv1_t_stride=2)

    assert_laws_hold(VolumeNetwork(network, norm=norm).eval(), frames, num_frames)


def test_padding_changes_no_gradient(frames: Tensor, num_frames: Tensor) -> None:
    model = CNNLSTM(hidden_size=8, num_layers=2, bidirectional=True, pooling="max")
    padded = with_padding(frames, num_frames, float("nan"))

    assert_gradients_equal(gradients(model, padded, num_frames), gradients(model, frames, num_frames))


def test_only_trailing_zero_frames_are_padding(frames: Tensor) -> None:
    model = CNNLSTM(hidden_size=8).eval()
    frames[0, :, 2] = 0
    frames[1] = 0

    with torch.no_grad():
        assert_equal(model(frames), model(frames, torch.tensor([7, 1, 4])))


def test_features_of_padding_are_zero(encoder_model: CNNLSTM, frames: Tensor, num_frames: Tensor) -> None:
    encoder = encoder_model.encoder

    with torch.no_grad():
        features = encoder(with_padding(frames, num_frames, 1.0), num_frames)

    assert features.shape == (3, LENGTH + 2, encoder.feature_size)
    for row, count in zip(features, COUNTS, strict=True):
        assert row[:count].abs().sum(1).min() > 0
        assert row[count:].abs().max() == 0


def test_meta_tensors_are_read_as_tensors(frames: Tensor, num_frames: Tensor) -> None:
    model = CNNLSTM(hidden_size=8).eval()

    with torch.no_grad():
        logits = model(MetaTensor(frames), MetaTensor(num_frames))
        expected = model(frames, num_frames)

    assert type(logits) is Tensor
    assert_equal(logits, expected, atol=0)


# Truth: torch's own LSTM on one unpadded case


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_logits_match_torchs_lstm(
    frames: Tensor, num_frames: Tensor, pooling: str, num_layers: int, bidirectional: bool
) -> None:
    model = CNNLSTM(hidden_size=8, num_layers=num_layers, bidirectional=bidirectional, pooling=pooling).eval()
    lstm = nn.LSTM(1024, 8, num_layers=num_layers, bidirectional=bidirectional, batch_first=True)
    copy_weights(model.lstm, lstm)

    with torch.no_grad():
        logits = model(frames, num_frames)
        for case, count in enumerate(COUNTS):
            features = model.encoder.network(frames[case, :, :count].transpose(0, 1))  # (T, 1024)
            states, (last, _) = lstm(features[None])
            vector = pooled_by_hand(model, states[0], last)
            assert_equal(logits[case], model.classifier(vector))


def copy_weights(ours: SequenceLSTM, theirs: nn.LSTM) -> None:
    for index, layer in enumerate(ours.layers):
        for suffix, direction in (("", layer.ahead), ("_reverse", layer.back)):
            for name, weight in direction.named_parameters() if direction is not None else ():
                getattr(theirs, f"{name.removesuffix('_l0')}_l{index}{suffix}").data.copy_(weight)


def pooled_by_hand(model: CNNLSTM, states: Tensor, last: Tensor) -> Tensor:
    """States (T, S) of one case; torch's last state of each layer and direction, (layers * directions, 1, hidden)."""
    if model.pooling.kind == "last":
        directions = states.shape[1] // last.shape[2]
        return last[-directions:, 0].flatten()
    if model.pooling.kind == "mean":
        return torch.stack(list(states)).mean(0)
    if model.pooling.kind == "max":
        return states.max(0).values
    scores = torch.exp(model.pooling.score(states)[:, 0])
    return sum(score / scores.sum() * state for score, state in zip(scores, states, strict=True))


def test_dropout_acts_between_layers_in_training_only(frames: Tensor) -> None:
    model = CNNLSTM(hidden_size=8, num_layers=2, dropout=0.5)

    inputs: list[Tensor] = []
    for layer in model.lstm.layers:
        layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))

    first, second = model(frames), model(frames)

    assert not torch.equal(first, second)
    assert torch.equal(inputs[0], inputs[2])
    assert 0 < (inputs[1] == 0).float().mean() < 1
    model.eval()
    assert torch.equal(model(frames), model(frames))


# Chunks and checkpointing


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


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_gradients_equal_those_without_chunks(frames: Tensor, num_frames: Tensor, name: str, chunk_size: int) -> None:
    encoder = ENCODER_FACTORIES[name]()
    encoder.chunk_size = chunk_size
    model = CNNLSTM(encoder, hidden_size=8, bidirectional=True, pooling="mean").double().train()
    plain = copy.deepcopy(model)
    plain.encoder = PlainEncoder(plain.encoder)
    frames = frames.double()

    assert_equal(model(frames, num_frames), plain(frames, num_frames), atol=1e-10)
    chunked = gradients(model, frames, num_frames)
    assert_gradients_equal(chunked, gradients(plain, frames, num_frames), atol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_chunk_size_changes_no_logit(
    encoder_model: CNNLSTM, frames: Tensor, num_frames: Tensor, chunk_size: int
) -> None:
    other = copy.deepcopy(encoder_model)
    other.encoder.chunk_size = chunk_size

    with torch.no_grad():
        assert_equal(other(frames, num_frames), encoder_model(frames, num_frames))


def test_a_chunk_is_read_again_only_when_training(frames: Tensor, num_frames: Tensor) -> None:
    encoder = FrameEncoder(SmallCNN(), chunk_size=4)
    sizes: list[int] = []
    encoder.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))

    encoder.train()(frames, num_frames).sum().backward()
    assert sorted(sizes) == [1, 1, 4, 4, 4, 4, 4, 4]
    sizes.clear()
    encoder.eval()(frames, num_frames).sum().backward()
    assert sizes == [4, 4, 4, 1]


def test_fewer_frames_are_encoded_at_once_on_the_cpu_where_a_layer_gives_much() -> None:
    encoder = FrameEncoder(SmallCNN(), chunk_size=8)  # its first layer gives 8 numbers a pixel
    sizes: list[int] = []
    encoder.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))

    with torch.no_grad():
        encoder(torch.zeros(1, 1, 5, 512, 512, dtype=torch.uint8), torch.tensor([5]))

    assert encoder.map_size == 8
    assert sizes == [2, 2, 1]
    assert 2 * 8 * 512 * 512 * 4 <= cnn_lstm.MAP_LIMIT < 3 * 8 * 512 * 512 * 4
    assert encoder.frames_at_once(224, 224) == 8
    assert encoder.frames_at_once(512, 512, on_cpu=False) == 8
    assert encoder.frames_at_once(10_000, 10_000) == 1


FULL_CASE = """
import json, torch
from pathlib import Path
from monai_chd.networks.cnn_lstm import CNNLSTM

def peak_kib():
    # Not getrusage: its ru_maxrss outlives exec, and so starts at the size of the process that runs the tests.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

torch.set_num_threads(1)
frames = torch.zeros(1, 1, 200, 512, 512, dtype=torch.uint8)
frames[:, :, :195] = torch.randint(1, 256, (512, 512))
model = CNNLSTM()
before = peak_kib()
torch.nn.functional.cross_entropy(model(frames, torch.tensor([195])), torch.tensor([0])).backward()
assert model.encoder.network.conv1.weight.grad.abs().max() > 0
print(json.dumps([before, peak_kib()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_a_full_case_trains_in_two_gigabytes() -> None:
    run = subprocess.run([sys.executable, "-c", FULL_CASE], capture_output=True, text=True, check=True)
    before, peak = json.loads(run.stdout)

    assert peak - before > 50 * 1024, "the step itself must show in the figure"
    assert peak < 2 * 1024**2  # KiB


# Scripting, tracing, export


@pytest.mark.filterwarnings(SCRIPT_DEPRECATED)
def test_scripted_encoder_equals_eager(encoder_model: CNNLSTM, frames: Tensor, num_frames: Tensor) -> None:
    assert_scripted_equals_eager(encoder_model, frames, num_frames)


@pytest.mark.filterwarnings(SCRIPT_DEPRECATED)
def test_scripted_head_equals_eager(head_model: CNNLSTM, frames: Tensor, num_frames: Tensor) -> None:
    assert_scripted_equals_eager(head_model, frames, num_frames)


@pytest.mark.filterwarnings(SCRIPT_DEPRECATED)
def test_scripted_volume_network_equals_eager(frames: Tensor, num_frames: Tensor) -> None:
    network = resnet18(spatial_dims=3, n_input_channels=1, num_classes=len(CLASSES), conv1_t_stride=2)

    assert_scripted_equals_eager(VolumeNetwork(network).eval(), frames, num_frames)


def assert_scripted_equals_eager(model: nn.Module, frames: Tensor, num_frames: Tensor) -> None:
    scripted = torch.jit.script(model)

    with torch.no_grad():
        logits = model(frames, num_frames)
        assert_equal(scripted(frames, num_frames), logits, atol=1e-6)
        assert_equal(scripted(frames), logits, atol=1e-6)
        assert_equal(scripted(MetaTensor(frames), MetaTensor(num_frames)).as_subclass(Tensor), logits, atol=1e-6)
        as_bytes = (frames * 255).to(torch.uint8)
        assert_equal(scripted(as_bytes, num_frames), model(as_bytes, num_frames), atol=1e-6)


@pytest.mark.filterwarnings(SCRIPT_DEPRECATED)
def test_scripted_network_checks_its_input(frames: Tensor) -> None:
    scripted = torch.jit.script(CNNLSTM(hidden_size=8))

    with pytest.raises(torch.jit.Error, match=r"expected num_frames in 1\.\.7"):
        scripted(frames, torch.tensor([8, 1, 1]))


@pytest.mark.filterwarnings(EXPORT_OF_LSTM)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_exported_graph_serves_every_length(encoder: str, frames: Tensor, num_frames: Tensor) -> None:
    model = CNNLSTM(encoder, hidden_size=8, num_layers=2, bidirectional=True).eval()

    exported = torch.export.export(model, (frames, torch.tensor([3, 3, 3]))).module()

    with torch.no_grad():
        assert_equal(exported(frames, num_frames), model(frames, num_frames))


def test_exported_encoder_zeroes_padding(frames: Tensor, num_frames: Tensor) -> None:
    encoder = FrameEncoder(SmallCNN()).eval()

    exported = torch.export.export(encoder, (frames, torch.tensor([3, 3, 3]))).module()

    with torch.no_grad():
        padded = frames.masked_fill(frames == 0, float("nan"))
        assert_equal(exported(padded, num_frames), encoder(frames, num_frames))


# Normalisation and frozen parts


def test_group_norm_takes_over_the_affine_weights() -> None:
    network = nn.Sequential(nn.Conv2d(1, 24, 3), nn.BatchNorm2d(24, eps=1e-3), nn.BatchNorm2d(24, affine=False))
    weight, bias = network[1].weight, network[1].bias
    with torch.no_grad():
        weight.uniform_()

    replaced = FrameEncoder(network).network

    assert isinstance(replaced[1], nn.GroupNorm)
    assert replaced[1].weight is weight
    assert replaced[1].bias is bias
    assert (replaced[1].num_groups, replaced[1].eps) == (8, 1e-3)
    assert isinstance(replaced[2], nn.GroupNorm)
    assert replaced[2].weight is None


@pytest.mark.parametrize(("channels", "groups"), [(96, 32), (48, 16), (40, 8), (12, 4), (6, 2), (7, 1)])
def test_groups_are_the_largest_power_of_two_that_divides_the_channels(channels: int, groups: int) -> None:
    assert FrameEncoder(nn.BatchNorm2d(channels), in_channels=channels).network.num_groups == groups


def test_mixed_precision_gives_nearly_the_same(frames: Tensor, num_frames: Tensor) -> None:
    model = CNNLSTM(hidden_size=8, num_layers=2, bidirectional=True, pooling="attention")

    with torch.autocast("cpu", torch.bfloat16):
        logits = model(frames, num_frames)
    logits.float().sum().backward()

    assert_equal(logits.float(), model(frames, num_frames), atol=0.05)
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_a_network_that_is_a_batch_norm_is_replaced_too() -> None:
    assert isinstance(FrameEncoder(nn.BatchNorm2d(64), in_channels=64).network, nn.GroupNorm)


@pytest.mark.parametrize("trainable", [False, True])
def test_frozen_batch_norm_keeps_its_statistics(frames: Tensor, num_frames: Tensor, trainable: bool) -> None:
    network = EfficientNetLite0(pretrained=False)
    model = CNNLSTM(FrameEncoder(network, norm="frozen", trainable=trainable), hidden_size=8).train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}

    logits = model(frames, num_frames)
    found = gradients(model, frames, num_frames)

    assert len(before) > 100
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name]), name
    assert any(name.startswith("encoder.") for name in found) is trainable
    with torch.no_grad():
        assert_equal(model.eval()(frames, num_frames), logits)


def test_frozen_batch_norm_of_a_volume_network_keeps_its_statistics(frames: Tensor, num_frames: Tensor) -> None:
    network = resnet18(spatial_dims=3, n_input_channels=1, num_classes=len(CLASSES), conv1_t_stride=2)
    model = VolumeNetwork(network, norm="frozen").train()
    before = copy.deepcopy(dict(network.named_buffers()))

    assert gradients(model, frames, num_frames)

    assert before
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_frozen_encoder_has_no_graph_and_stays_in_evaluation(frames: Tensor, num_frames: Tensor) -> None:
    model = CNNLSTM("efficientnet_lite0", hidden_size=8)

    for mode in (True, False, True):
        model.train(mode)
        assert not any(module.training for module in model.encoder.network.modules())
    next(model.encoder.network.children()).train()
    model.train()
    assert not any(module.training for module in model.encoder.network.modules())
    assert not any(weight.requires_grad for weight in model.encoder.parameters())
    assert not model.encoder(frames, num_frames).requires_grad
    assert all(not name.startswith("encoder.") for name in gradients(model, frames, num_frames))
    assert model.lstm.training


def test_frozen_encoder_still_explains_its_frames(frames: Tensor, num_frames: Tensor) -> None:
    model = CNNLSTM("efficientnet_lite0", hidden_size=8).eval()

    model(frames.requires_grad_(), num_frames).sum().backward()

    saliency = frames.grad.abs().amax((1, 3, 4))  # (B, T)
    for row, count in zip(saliency, COUNTS, strict=True):
        assert row[:count].min() > 0
        assert not row[count:].any()


def test_checkpoint_of_a_frozen_encoder_loads_without_its_weights_file(frames: Tensor, num_frames: Tensor) -> None:
    trained = CNNLSTM("efficientnet_lite0", hidden_size=8).eval()
    encoder = FrameEncoder(EfficientNetLite0(pretrained=False), norm="frozen", trainable=False)
    loaded = CNNLSTM(encoder, hidden_size=8).eval()

    loaded.load_state_dict(trained.state_dict())

    with torch.no_grad():
        assert_equal(loaded(frames, num_frames), trained(frames, num_frames), atol=0)


def test_fine_tuning_is_wired_by_config(frames: Tensor, num_frames: Tensor) -> None:
    network = {"_target_": "monai_chd.networks.efficientnet.EfficientNetLite0", "pretrained": True}
    encoder = {
        "_target_": "monai_chd.networks.cnn_lstm.FrameEncoder",
        "network": network,
        "norm": "frozen",
        "trainable": True,
    }
    config = {"network": {"_target_": "monai_chd.networks.cnn_lstm.CNNLSTM", "encoder": encoder, "hidden_size": 8}}

    model = ConfigParser(config).get_parsed_content("network")

    assert set(gradients(model.train(), frames, num_frames)) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (17, 40)])
def test_small_cnn_takes_any_size(size: tuple[int, int]) -> None:
    assert SmallCNN()(torch.rand(2, 1, *size)).shape == (2, 1024)


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"encoder": "vgg"},
            "unknown encoder 'vgg': expected one of small_cnn, resnet18, resnet34, efficientnet_lite0",
        ),
        ({"encoder_precision": "half"}, "unknown encoder precision 'half': expected one of float32, bfloat16"),
        ({"encoder": SmallCNN()}, "came SmallCNN: wrap a 2D network in FrameEncoder"),
        ({"pooling": "first"}, "unknown pooling 'first': expected one of last, mean, max, attention"),
        ({"num_layers": 0}, "num_layers of at least 1, came 0"),
        ({"dropout": 0.5}, "came num_layers 1 and dropout 0.5"),
    ],
)
def test_wrong_construction_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CNNLSTM(**arguments)


def test_wrong_frame_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown norm 'batch': expected one of group, frozen"):
        FrameEncoder(SmallCNN(), norm="batch")
    with pytest.raises(ValueError, match="chunk_size of at least 1 frame, came 0"):
        FrameEncoder(SmallCNN(), chunk_size=0)
    with pytest.raises(ValueError, match="unknown encoder precision 'float16': expected one of float32, bfloat16"):
        FrameEncoder(SmallCNN(), precision="float16")
    with pytest.raises(ValueError, match=r"Flatten: shape \(1, 1, 4096\)"):
        FrameEncoder(nn.Flatten(2))
    with pytest.raises(ValueError, match="AdaptiveMaxPool2d: tuple"):
        FrameEncoder(nn.AdaptiveMaxPool2d(2, return_indices=True))


@pytest.mark.parametrize("model", [CNNLSTM(hidden_size=8), VolumeNetwork(nn.Flatten())], ids=["cnn_lstm", "volume"])
@pytest.mark.parametrize(
    ("num_frames", "message"),
    [
        (torch.tensor([7, 8, 1]), r"expected num_frames in 1\.\.7 for 7 frames a case, came \[7, 8, 1\]"),
        (torch.tensor([7, 0, 1]), r"came \[7, 0, 1\]"),
        (torch.tensor([7, 1]), r"expected num_frames as integers of shape \(3,\), came torch.int64"),
        (torch.tensor([[7], [1], [1]]), r"came torch.int64 torch.Size\(\[3, 1\]\)"),
        (torch.tensor([7.0, 1.0, 1.0]), "came torch.float32"),
    ],
)
def test_wrong_counts_are_refused(frames: Tensor, model: nn.Module, num_frames: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(frames, num_frames)


def test_wrong_frames_are_refused(frames: Tensor) -> None:
    model = CNNLSTM(hidden_size=8)

    with pytest.raises(
        ValueError, match=r"expected frames of shape \(B, C, T, H, W\), came torch.Size\(\[3, 1, 32, 32\]"
    ):
        model(frames[:, :, 0])
    with pytest.raises(ValueError, match=r"expected frames of shape \(B, C, T, H, W\), came torch.Size\(\[1, 32\]"):
        model(frames[:1, 0, 0, 0])
    with pytest.raises(ValueError, match=r"came torch\.int16"):
        model(frames.to(torch.int16))
    with pytest.raises(ValueError, match="expected frames of 1 channels, came 2"):
        model(frames.repeat(1, 2, 1, 1, 1))


class CountingCNN(nn.Module):
    """A 2D network that counts the frames it has read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.read = 0

    def forward(self, images: Tensor) -> Tensor:
        self.read += len(images)
        features: Tensor = self.conv(images)
        return features


def remembering_encoder() -> tuple[FrameEncoder, CountingCNN]:
    network = CountingCNN()
    encoder = FrameEncoder(network, trainable=False)
    network.read = 0
    return encoder, network


def test_frozen_encoder_reads_a_case_once_in_training_and_its_validation(frames: Tensor, num_frames: Tensor) -> None:
    encoder, network = remembering_encoder()
    pixels = frames.mul(255).to(torch.uint8)
    expected = encoder.eval()(pixels, num_frames)
    network.read = 0
    first = encoder.train()(pixels, num_frames)
    assert network.read == int(num_frames.sum())
    again = encoder.eval()(pixels, num_frames)
    one = encoder(pixels[1:2, :, : num_frames[1]], num_frames[1:2])
    assert network.read == int(num_frames.sum())
    assert torch.equal(first, expected) and torch.equal(again, expected)
    assert torch.equal(one[0], expected[1, : num_frames[1]])


def test_frozen_encoder_remembers_nothing_when_only_predicting(frames: Tensor, num_frames: Tensor) -> None:
    encoder, network = remembering_encoder()
    encoder.eval()
    for _ in range(2):
        encoder(frames.mul(255).to(torch.uint8), num_frames)
    assert network.read == 2 * int(num_frames.sum()) and not encoder._memory


def test_other_frames_or_weights_are_not_taken_from_memory(frames: Tensor, num_frames: Tensor) -> None:
    encoder, network = remembering_encoder()
    pixels = frames.mul(255).to(torch.uint8)
    encoder.train()(pixels, num_frames)
    other = pixels.clone()
    other[0, 0, 0, 0, 0] += 1
    assert not torch.equal(encoder(other, num_frames)[0], encoder(pixels, num_frames)[0])
    state = {name: value * 2 for name, value in encoder.state_dict().items()}
    encoder.load_state_dict(state)
    fresh = FrameEncoder(copy.deepcopy(network), trainable=False).eval()
    assert torch.equal(encoder(pixels, num_frames), fresh(pixels, num_frames))


def test_memory_of_features_is_bounded(frames: Tensor, num_frames: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_chd.networks.cnn_lstm.MEMORY_LIMIT", 0)
    encoder, network = remembering_encoder()
    for _ in range(2):
        encoder.train()(frames.mul(255).to(torch.uint8), num_frames)
    assert network.read == 2 * int(num_frames.sum()) and not encoder._memory


# Features in place of frames


def frozen_model(**settings: object) -> CNNLSTM:
    return CNNLSTM(FrameEncoder(SmallCNN(), trainable=False), hidden_size=8, **settings)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_features_give_the_logits_of_their_frames(frames: Tensor, num_frames: Tensor, pooling: str) -> None:
    model = frozen_model(num_layers=2, bidirectional=True, pooling=pooling).eval()
    features = model.encoder(frames, num_frames)
    longer = torch.cat([features, torch.full_like(features[:, :2], float("nan"))], dim=1)

    with torch.no_grad():
        expected = model(frames, num_frames)
        assert_equal(model(features, num_frames), expected)
        assert_equal(model(longer, num_frames), expected)
        assert_equal(model(features), expected)
        assert_equal(model(MetaTensor(features), MetaTensor(num_frames)), expected)


def test_features_train_the_head_as_their_frames_do(frames: Tensor, num_frames: Tensor) -> None:
    model = frozen_model(bidirectional=True, pooling="attention").double().train()
    features = model.encoder(frames.double(), num_frames)

    of_frames = gradients(model, frames.double(), num_frames)
    of_features = gradients(model, features, num_frames)

    assert set(of_features) == {name for name, _ in model.named_parameters() if not name.startswith("encoder")}
    assert_gradients_equal(of_features, of_frames, atol=1e-12)


def test_features_do_not_reach_the_encoder(frames: Tensor, num_frames: Tensor) -> None:
    model = frozen_model()
    features = model.encoder(frames, num_frames)
    model.encoder.network.register_forward_pre_hook(lambda *_: pytest.fail("the encoder was run"))
    model(features, num_frames)


@pytest.mark.filterwarnings(SCRIPT_DEPRECATED)
def test_scripted_network_takes_features_too(frames: Tensor, num_frames: Tensor) -> None:
    model = frozen_model(bidirectional=True).eval()
    scripted = torch.jit.script(model)

    with torch.no_grad():
        features = model.encoder(frames, num_frames)
        assert_equal(scripted(features, num_frames), model(frames, num_frames))


def test_wrong_features_are_refused(num_frames: Tensor) -> None:
    features = torch.rand(3, LENGTH, 1024)
    with pytest.raises(ValueError, match="this network's encoder is trained, so it needs the frames"):
        CNNLSTM(hidden_size=8)(features, num_frames)
    model = frozen_model()
    with pytest.raises(ValueError, match=r"shape \(B, T, 1024\).*came torch.float32 torch.Size\(\[3, 7, 1023\]\)"):
        model(features[..., 1:], num_frames)
    with pytest.raises(ValueError, match=r"expected features as float.*came torch.uint8"):
        model(features.to(torch.uint8), num_frames)
    with pytest.raises(ValueError, match=r"expected num_frames in 1\.\.7 for 7 frames a case, came \[8, 1, 1\]"):
        model(features, torch.tensor([8, 1, 1]))


# Precision and layout


@pytest.fixture
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the processor multiplied in bfloat16; where it does not, torch works it out slowly."""
    monkeypatch.setattr("monai_chd.networks.cnn_lstm.has_bfloat16", lambda device: True)


@pytest.mark.usefixtures("with_bfloat16")
@pytest.mark.parametrize("encoder", ["small_cnn", "resnet18", "efficientnet_lite0"])
def test_bfloat16_changes_probabilities_little(encoder: str, frames: Tensor, num_frames: Tensor) -> None:
    model = CNNLSTM(encoder, hidden_size=8).eval()
    exact = model(frames, num_frames).softmax(1)
    rounded = CNNLSTM(encoder, encoder_precision="bfloat16", hidden_size=8).eval()
    rounded.load_state_dict(model.state_dict())
    inner: set[torch.dtype] = set()
    rounded.encoder.network.register_forward_hook(lambda _, __, output: inner.add(output.dtype))

    logits = rounded(frames, num_frames)

    assert inner == {torch.bfloat16} and logits.dtype == torch.float32
    difference = float((logits.softmax(1) - exact).detach().abs().max())
    print(f"{encoder}: bfloat16 changes probabilities by at most {difference:.1e}")
    assert 0 < difference < 0.01


@pytest.mark.usefixtures("with_bfloat16")
def test_training_in_bfloat16_keeps_weights_in_float32_and_learns(frames: Tensor, num_frames: Tensor) -> None:
    model = CNNLSTM(encoder_precision="bfloat16", hidden_size=8).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(frames, num_frames), torch.tensor([0, 1, 2]))
        loss.backward()
        assert all(weight.grad.dtype == torch.float32 for weight in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))

    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in model.parameters())
    assert losses[-1] < losses[0] < float("inf")


@pytest.mark.usefixtures("with_bfloat16")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_features_of_a_frozen_encoder_do_not_depend_on_the_autocast_around(
    frames: Tensor, num_frames: Tensor, precision: str
) -> None:
    encoder = FrameEncoder(SmallCNN(), trainable=False, precision=precision).eval()
    alone = encoder(frames, num_frames)
    with torch.autocast("cpu", torch.bfloat16):
        around = encoder(frames, num_frames)
    assert around.dtype == torch.float32 and torch.equal(around, alone)


def test_a_processor_without_bfloat16_works_in_float32_and_says_so_once(
    frames: Tensor, num_frames: Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("monai_chd.networks.cnn_lstm.has_bfloat16", lambda device: False)
    cnn_lstm._say_float32.cache_clear()
    exact = FrameEncoder(SmallCNN())
    asked = copy.deepcopy(exact)
    asked.precision = "bfloat16"
    for _ in range(2):
        assert torch.equal(asked(frames, num_frames), exact(frames, num_frames))
    assert caplog.messages == ["this cpu does not multiply in bfloat16: the encoder works in float32"]


def test_the_asked_precision_goes_before_the_encoders_own_and_needs_one() -> None:
    assert CNNLSTM(FrameEncoder(SmallCNN()), encoder_precision="bfloat16").encoder.precision == "bfloat16"
    assert CNNLSTM(FrameEncoder(SmallCNN(), precision="bfloat16")).encoder.precision == "bfloat16"
    plain = PlainEncoder(FrameEncoder(SmallCNN()))
    CNNLSTM(plain, encoder_precision="float32")
    with pytest.raises(ValueError, match="PlainEncoder has none to set; wrap a 2D network in FrameEncoder"):
        CNNLSTM(plain, encoder_precision="bfloat16")


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_resnets_have_torchvisions_strides_and_group_norm(name: str) -> None:
    encoder = CNNLSTM(name).encoder
    network = encoder.network
    sizes = []
    for layer in (network.conv1, network.maxpool, network.layer1, network.layer4):
        layer.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[1:])))
    network(torch.zeros(1, 1, 224, 224))
    # He et al. 2016, table 1
    assert sizes == [(64, 112, 112), (64, 56, 56), (64, 56, 56), (512, 7, 7)]
    assert [len(network.get_submodule(f"layer{i}")) for i in range(1, 5)] == {
        "resnet18": [2, 2, 2, 2],
        "resnet34": [3, 4, 6, 3],
    }[name]
    kinds = {type(module) for module in network.modules()}
    assert nn.GroupNorm in kinds and not any("BatchNorm" in kind.__name__ for kind in kinds)
    assert encoder.trainable and encoder.feature_size == 512


def test_convolutions_keep_channels_side_by_side_through_a_checkpoint() -> None:
    model = CNNLSTM()
    model.load_state_dict({name: weight.contiguous() for name, weight in CNNLSTM().state_dict().items()})
    weight = model.encoder.network.conv2.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def test_projection_narrows_what_the_lstm_reads_and_keeps_padding_out():
    torch.manual_seed(0)
    network = CNNLSTM("small_cnn", projection=5, hidden_size=4, bidirectional=True, pooling="max").eval()
    assert network.lstm.layers[0].ahead.input_size == 5 and network.feature_size == 1024
    frames = torch.rand(1, 1, 6, 16, 16)
    alone = network(frames[:, :, :4], torch.tensor([4]))
    assert torch.allclose(network(frames, torch.tensor([4])), alone, atol=1e-6)
    assert CNNLSTM("small_cnn").state_dict().keys() == CNNLSTM("small_cnn", projection=None).state_dict().keys()
    with pytest.raises(ValueError, match="projection to at least 1 feature, or none, came 0"):
        CNNLSTM("small_cnn", projection=0)
