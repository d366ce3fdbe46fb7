"""Laws of the CNN-LSTM and of its stand-in: padding, batches, scripting and kept features change no number."""

import copy
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import resnet18
from tiny_networks import LENGTH, SCRIPT_DEPRECATED, assert_equal, assert_gradients_equal, gradients, with_padding
from torch import Tensor, nn

from monai_chd.labels import CLASSES, FLAGS
from monai_chd.networks import CNNLSTM, ENCODERS, CrossEntropyOfHeads, FrameEncoder, SmallCNN, VolumeNetwork
from monai_chd.networks.sequences import POOLINGS

EXPORT_OF_LSTM = r"ignore:The tensor attributes self\.lstm.*were assigned during export:UserWarning"
HEADS = list(product(POOLINGS, [False, True], [1, 2]))


@pytest.fixture(scope="module", params=HEADS, ids=lambda head: f"{head[0]}-{'bi' if head[1] else 'uni'}-{head[2]}")
def head_model(request: pytest.FixtureRequest) -> CNNLSTM:
    """A network for each head, on the small CNN."""
    torch.manual_seed(0)
    pooling, bidirectional, num_layers = request.param
    return CNNLSTM(hidden_size=8, num_layers=num_layers, bidirectional=bidirectional, pooling=pooling).eval()


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


def test_meta_tensors_are_read_as_tensors(frames: Tensor, num_frames: Tensor) -> None:
    model = CNNLSTM(hidden_size=8).eval()

    with torch.no_grad():
        logits = model(MetaTensor(frames), MetaTensor(num_frames))
        expected = model(frames, num_frames)

    assert type(logits) is Tensor
    assert_equal(logits, expected, atol=0)


FULL_CASE = """
import json, torch
from pathlib import Path
from monai_chd.networks import CNNLSTM

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


def test_mixed_precision_gives_nearly_the_same(frames: Tensor, num_frames: Tensor) -> None:
    model = CNNLSTM(hidden_size=8, num_layers=2, bidirectional=True, pooling="attention")

    with torch.autocast("cpu", torch.bfloat16):
        logits = model(frames, num_frames)
    logits.float().sum().backward()

    assert_equal(logits.float(), model(frames, num_frames), atol=0.05)
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_frozen_batch_norm_of_a_volume_network_keeps_its_statistics(frames: Tensor, num_frames: Tensor) -> None:
    network = resnet18(spatial_dims=3, n_input_channels=1, num_classes=len(CLASSES), conv1_t_stride=2)
    model = VolumeNetwork(network, norm="frozen").train()
    before = copy.deepcopy(dict(network.named_buffers()))

    assert gradients(model, frames, num_frames)

    assert before
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name]), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"encoder": "vgg"},
            "unknown encoder 'vgg': expected one of small_cnn, resnet18, resnet34, efficientnet_lite0",
        ),
        ({"encoder": SmallCNN()}, "came SmallCNN: wrap a 2D network in FrameEncoder"),
        ({"pooling": "first"}, "unknown pooling 'first': expected one of last, mean, max, attention"),
        ({"num_layers": 0}, "num_layers of at least 1, came 0"),
        ({"dropout": 0.5}, "came num_layers 1 and dropout 0.5"),
    ],
)
def test_wrong_construction_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CNNLSTM(**arguments)


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


def several(heads: int = 3, **options) -> CNNLSTM:
    torch.manual_seed(0)
    return CNNLSTM("small_cnn", hidden_size=6, pooling="mean", heads=heads, projection=5, standardize=True, **options)


def test_several_heads_answer_with_the_mean_of_their_probabilities():
    network = several()
    frames, count = torch.rand(2, 1, 5, 32, 32), torch.tensor([5, 3])
    each = network.train()(frames, count)
    assert each.shape == (2, 3, 3) and (each[:, 0] - each[:, 1]).abs().min() > 0
    with torch.no_grad():
        answer = network.eval()(frames, count)
    torch.testing.assert_close(answer.softmax(1), each.softmax(2).mean(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.jit.script(network)(frames, count), answer, atol=1e-6, rtol=1e-5)


def test_one_head_is_the_network_it_was():
    one = several(1)
    assert not [name for name in one.state_dict() if "more_heads" in name]
    assert one.train()(torch.rand(2, 1, 4, 32, 32)).shape == (2, 3)


def test_each_head_learns_as_if_it_were_alone():
    logits, labels = torch.randn(4, 3, 3, requires_grad=True), torch.tensor([0, 2, 1, 0])
    weight = torch.tensor([1.0, 2.0, 0.5])
    loss, alone = CrossEntropyOfHeads(weight), torch.nn.CrossEntropyLoss(weight)
    loss(logits, labels).backward()
    gradient = logits.grad.clone()
    for head in range(3):
        own = logits.detach()[:, head].requires_grad_()
        alone(own, labels).backward()
        torch.testing.assert_close(gradient[:, head] * 3, own.grad)
    assert loss(logits[:, 0], labels) == alone(logits[:, 0], labels)


@pytest.mark.parametrize("heads", [0, 1.5, True])
def test_no_head_is_refused(heads):
    with pytest.raises(ValueError, match="expected heads as a whole number of 1 or more, came"):
        several(heads)


def test_the_summary_counts_as_much_as_all_other_heads_together():
    network = several(2, summary=True)
    frames, count = torch.rand(2, 1, 5, 32, 32), torch.tensor([5, 3])
    each = network.train()(frames, count).softmax(2)
    assert each.shape == (2, 3, 3)
    with torch.no_grad():
        answer = network.eval()(frames, count)
    torch.testing.assert_close(answer.exp(), each[:, :2].mean(1) / 2 + each[:, 2] / 2, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.jit.script(network)(frames, count), answer, atol=1e-6, rtol=1e-5)
    alone = network(frames[1:, :, :3], count[1:])
    torch.testing.assert_close(alone, answer[1:], atol=1e-5, rtol=1e-4)  # neither padding nor the batch
    with torch.no_grad():
        turned = network.summary(torch.rand(1, 4, network.feature_size).flip(1), torch.tensor([4]))
    assert turned.shape == (1, 3)
    assert several(1, summary=True).train()(frames, count).shape == (2, 2, 3)


def test_flags_are_scored_beside_the_classes_and_told_to_who_listens():
    network = several(2, summary=True, flags=True)
    frames, count, heard = torch.rand(2, 1, 5, 32, 32), torch.tensor([5, 3]), []
    scripted = torch.jit.script(network.eval())
    network.flag_probabilities.register_forward_hook(lambda _, given, told: heard.append(told))
    each = network.train()(frames, count)
    assert each.shape == (2, 3, 3 + len(FLAGS)) and not heard
    with torch.no_grad():
        answer = network.eval()(frames, count)
    assert answer.shape == (2, 3)
    expected = each[:, :2, 3:].sigmoid().mean(1) / 2 + each[:, 2, 3:].sigmoid() / 2
    torch.testing.assert_close(heard[0], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scripted(frames, count), answer, atol=1e-6, rtol=1e-5)
    assert several(1, flags=True).train()(frames, count).shape == (2, 3 + len(FLAGS))


def test_the_loss_of_flags_counts_those_that_are_learned():
    logits = torch.randn(4, 2, 3 + len(FLAGS))
    labels, flags = torch.tensor([0, 2, 1, 0]), torch.randint(0, 2, (4, len(FLAGS))).float()
    weights = torch.zeros(len(FLAGS))
    weights[[1, 4]] = torch.tensor([0.5, 0.25])
    target = torch.cat([labels[:, None].float(), flags], 1)
    found = CrossEntropyOfHeads(flag_weights=weights)(logits, target)
    binary = torch.nn.functional.binary_cross_entropy_with_logits
    expected = torch.stack([
        torch.nn.functional.cross_entropy(own[:, :3], labels)
        + 0.5 * binary(own[:, 4], flags[:, 1]) + 0.25 * binary(own[:, 7], flags[:, 4])
        for own in logits.unbind(1)
    ]).mean()  # fmt: skip
    torch.testing.assert_close(found, expected)
    logits[:, :, 3:4] = 100.0  # a flag that is not learned
    torch.testing.assert_close(CrossEntropyOfHeads(flag_weights=weights)(logits, target), expected)
