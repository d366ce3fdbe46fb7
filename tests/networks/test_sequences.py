"""Laws of sequences: torch's own LSTM on one unpadded case is the truth, and counts that cannot be are refused."""

import pytest
import torch
from tiny_networks import COUNTS, assert_equal
from torch import Tensor, nn

from monai_chd.networks import CNNLSTM, VolumeNetwork
from monai_chd.networks.sequences import POOLINGS, SequenceLSTM, count_frames, frame_mask, last_states, turned_round


def test_sequences_are_turned_round_within_their_real_frames() -> None:
    sequences = torch.arange(1, 6.0).expand(2, 5)[..., None]
    counts = torch.tensor([5, 2])

    turned = turned_round(sequences, counts)

    assert turned[..., 0].tolist() == [[5, 4, 3, 2, 1], [2, 1, 3, 4, 5]]
    assert torch.equal(turned_round(turned, counts), sequences)


def test_frames_are_counted_up_to_the_last_that_is_not_black_and_at_least_one(frames: Tensor) -> None:
    assert count_frames(frames).tolist() == COUNTS
    assert count_frames(torch.zeros_like(frames)).tolist() == [1, 1, 1]
    assert frame_mask(torch.tensor([1, 3]), 3).tolist() == [[True, False, False], [True, True, True]]


def test_the_last_state_is_that_of_the_last_real_frame_and_of_the_first_on_the_way_back() -> None:
    ahead, back = torch.arange(6.0).reshape(2, 3, 1), torch.arange(6.0).reshape(2, 3, 1) + 10

    last = last_states(torch.cat([ahead, back], 2), torch.tensor([3, 1]), 1)

    assert last.tolist() == [[2, 10], [3, 13]]


def test_only_trailing_zero_frames_are_padding(frames: Tensor) -> None:
    model = CNNLSTM(hidden_size=8).eval()
    frames[0, :, 2] = 0
    frames[1] = 0

    with torch.no_grad():
        assert_equal(model(frames), model(frames, torch.tensor([7, 1, 4])))


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
