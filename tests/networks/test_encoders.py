"""Laws of the frame encoders: chunks, padding, precision and what is frozen change no feature."""

import copy

import pytest
import torch
from monai.bundle import ConfigParser
from tiny_networks import COUNTS, LENGTH, PlainEncoder, assert_equal, assert_gradients_equal, gradients, with_padding
from torch import Tensor, nn

from monai_chd.networks import CNNLSTM, ENCODERS, EfficientNetLite0, FrameEncoder, SmallCNN, encoders, make_encoder
from monai_chd.workflow.run import configured


def test_features_of_padding_are_zero(encoder_model: CNNLSTM, frames: Tensor, num_frames: Tensor) -> None:
    encoder = encoder_model.encoder

    with torch.no_grad():
        features = encoder(with_padding(frames, num_frames, 1.0), num_frames)

    assert features.shape == (3, LENGTH + 2, encoder.feature_size)
    for row, count in zip(features, COUNTS, strict=True):
        assert row[:count].abs().sum(1).min() > 0
        assert row[count:].abs().max() == 0


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_gradients_equal_those_without_chunks(frames: Tensor, num_frames: Tensor, name: str, chunk_size: int) -> None:
    encoder = make_encoder(name)
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
    assert 2 * 8 * 512 * 512 * 4 <= encoders.MAP_LIMIT < 3 * 8 * 512 * 512 * 4
    assert encoder.frames_at_once(224, 224) == 8
    assert encoder.frames_at_once(512, 512, on_cpu=False) == 8
    assert encoder.frames_at_once(10_000, 10_000) == 1


def test_exported_encoder_zeroes_padding(frames: Tensor, num_frames: Tensor) -> None:
    encoder = FrameEncoder(SmallCNN()).eval()

    exported = torch.export.export(encoder, (frames, torch.tensor([3, 3, 3]))).module()

    with torch.no_grad():
        padded = frames.masked_fill(frames == 0, float("nan"))
        assert_equal(exported(padded, num_frames), encoder(frames, num_frames))


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
    network = {"_target_": "monai_chd.networks.EfficientNetLite0", "pretrained": True}
    encoder = {"_target_": "monai_chd.networks.FrameEncoder", "network": network, "norm": "frozen", "trainable": True}
    config = {"network": {"_target_": "monai_chd.networks.CNNLSTM", "encoder": encoder, "hidden_size": 8}}

    model = ConfigParser(config).get_parsed_content("network")

    assert set(gradients(model.train(), frames, num_frames)) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (17, 40)])
def test_small_cnn_takes_any_size(size: tuple[int, int]) -> None:
    assert SmallCNN()(torch.rand(2, 1, *size)).shape == (2, 1024)


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


@pytest.fixture
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the processor multiplied in bfloat16; where it does not, torch works it out slowly."""
    monkeypatch.setattr("monai_chd.networks.encoders.has_bfloat16", lambda device: True)


@pytest.mark.usefixtures("with_bfloat16")
@pytest.mark.parametrize("encoder", ["small_cnn", "resnet18", "efficientnet_lite0"])
def test_bfloat16_changes_probabilities_little(encoder: str, frames: Tensor, num_frames: Tensor) -> None:
    model = CNNLSTM(encoder, hidden_size=8).eval()
    exact = model(frames, num_frames).softmax(1)
    rounded = CNNLSTM(make_encoder(encoder, "bfloat16"), hidden_size=8).eval()
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
    model = CNNLSTM(make_encoder("small_cnn", "bfloat16"), hidden_size=8).train()
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
    monkeypatch.setattr("monai_chd.networks.encoders.has_bfloat16", lambda device: False)
    encoders._say_float32.cache_clear()
    exact = FrameEncoder(SmallCNN())
    asked = copy.deepcopy(exact)
    asked.precision = "bfloat16"
    for _ in range(2):
        assert torch.equal(asked(frames, num_frames), exact(frames, num_frames))
    assert caplog.messages == ["this cpu does not multiply in bfloat16: the encoder works in float32"]


def test_the_asked_precision_goes_before_the_encoders_own_and_needs_one() -> None:
    exact, rounded = (FrameEncoder(SmallCNN(), precision=precision) for precision in ("float32", "bfloat16"))
    assert make_encoder(exact, "bfloat16") is exact and exact.precision == "bfloat16"
    assert make_encoder(rounded).precision == "float32"
    assert make_encoder("small_cnn", "bfloat16").precision == "bfloat16"
    plain = PlainEncoder(FrameEncoder(SmallCNN()))
    assert make_encoder(plain, "float32") is plain
    with pytest.raises(ValueError, match="PlainEncoder has none to set; wrap a 2D network in FrameEncoder"):
        make_encoder(plain, "bfloat16")


def test_the_precision_of_a_config_is_that_of_its_encoder() -> None:
    for asked in ("float32", "bfloat16"):
        [network] = configured(["inference"], {"encoder_precision": asked}, ["network_def"])
        assert network.encoder.precision == asked


def test_an_unknown_name_or_precision_is_refused() -> None:
    names = ", ".join(ENCODERS)
    with pytest.raises(ValueError, match=f"unknown encoder 'vgg': expected one of {names}, or a module"):
        make_encoder("vgg")
    with pytest.raises(ValueError, match="unknown encoder precision 'half': expected one of float32, bfloat16"):
        make_encoder("small_cnn", "half")
