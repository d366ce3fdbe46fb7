"""The structure network reads a frame with its neighbours, and neither chunks, padding nor the rest of a batch change a logit."""

import pytest
import torch

from monai_chd.networks import StructureNet


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return StructureNet((4, 8, 8)).eval()


@pytest.fixture(scope="module")
def frames():
    return torch.randint(0, 256, (2, 1, 9, 20, 27), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_logits_of_every_pixel_of_real_frames_and_zeros_for_padding(network, frames):
    with torch.no_grad():
        logits = network(frames, torch.tensor([9, 5]))
    assert logits.shape == (2, 8, 9, 20, 27)
    assert logits[0].abs().amax((0, 2, 3)).min() > 0 and not logits[1, :, 5:].any()


@pytest.mark.parametrize("chunk_size", [1, 2, 100])
def test_neither_chunks_nor_padding_nor_the_batch_change_a_logit(network, frames, chunk_size):
    with torch.no_grad():
        expected = network(frames, torch.tensor([9, 5]))
        network.chunk_size, before = chunk_size, network.chunk_size
        alone = network(frames[1:, :, :5].float() / 255, torch.tensor([5]))
        network.chunk_size = before
    torch.testing.assert_close(alone[0], expected[1, :, :5], atol=1e-5, rtol=1e-5)


def test_a_frame_hangs_on_its_neighbours_and_no_further(network, frames):
    count = torch.tensor([9, 9])
    with torch.no_grad():
        expected = network(frames, count)
        changed = frames.clone()
        changed[0, :, 6] = 0
        got = network(changed, count)
    differs = (got - expected)[0].abs().amax((0, 2, 3)) > 0
    assert differs.tolist() == [False] * 4 + [True] * 5  # frames 4 to 8: two on each side


def test_the_first_and_the_last_real_frame_stand_for_what_is_beyond(network, frames):
    stacks = network.stacks(frames, torch.tensor([9, 5]), torch.tensor([[0, 0], [1, 4], [0, 4]]))
    shown = frames[:, 0].float() / 255
    assert torch.equal(stacks[0], shown[0, [0, 0, 0, 1, 2]])
    assert torch.equal(stacks[1], shown[1, [2, 3, 4, 4, 4]])
    assert torch.equal(stacks[2], shown[0, [2, 3, 4, 5, 6]])


def test_stacks_give_what_the_sequence_gives(network, frames):
    with torch.no_grad():
        expected = network(frames[:1], torch.tensor([9]))[0, :, 3]
        got = network(network.stacks(frames, torch.tensor([9, 9]), torch.tensor([[0, 3]])))[0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_scripted_copy_gives_the_same(network, frames):
    count = torch.tensor([9, 5])
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(frames, count), network(frames, count))


@pytest.mark.parametrize("channels", [[8], 8, [8, "a"], [8, 0], "88", None])
def test_channels_that_make_no_network_are_refused(channels):
    with pytest.raises(ValueError, match="channels: expected whole numbers for two levels or more"):
        StructureNet(channels)


def test_no_frame_at_once_and_less_than_no_context_are_refused():
    for arguments in ({"context": -1}, {"context": 1.5}, {"chunk_size": 0}):
        with pytest.raises(ValueError, match="expected a context of 0 or more"):
            StructureNet(**arguments)
