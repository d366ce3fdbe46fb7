"""The heart's box lies around the heart whatever else is in the frame, and what is read in it comes back to its place."""

import pytest
import torch

from monai_chd.networks import CNNLSTM, CroppedStructureNet, StructureEncoder, StructureNet
from monai_chd.networks.heart_crop import crop, crop_labels, extent, heart_boxes, put_back, whole_frames


class Bright(StructureNet):
    """Takes what is bright for the left ventricle."""

    def read(self, stacks: torch.Tensor) -> torch.Tensor:
        shown = 40 * (stacks[:, self.context] - 0.5)
        scores = torch.zeros(stacks.shape[0], 8, *shown.shape[1:])
        scores[:, 1] = shown
        scores[:, 2:] = -40
        return scores


def frames(*places: tuple[int, int, int, int], size: int = 128, count: int = 6) -> torch.Tensor:
    """A case each: a bright box from top to bottom, left to right, in its middle frames."""
    cases = torch.zeros(len(places), 1, count, size, size)
    for case, (top, bottom, left, right) in zip(cases, places, strict=True):
        case[0, 1:-1, top:bottom, left:right] = 1
    return cases


def looking(margin: float = 0.0, **options) -> CroppedStructureNet:
    return CroppedStructureNet(Bright(), Bright(), margin=margin, **options)


def test_the_box_is_square_around_the_heart_with_its_margin():
    cases = frames((20, 60, 32, 96), (64, 96, 64, 80))
    count = torch.tensor([6, 6])
    box = looking().boxes(cases, count)
    # x of the first from -0.5 to 0.5; y of the centre: 40 of 128; of the second: 72 and 80 of 128, half of 32
    torch.testing.assert_close(box[0], torch.tensor([0.0, -0.375, 0.5]), atol=0.04, rtol=0)
    torch.testing.assert_close(box[1], torch.tensor([0.125, 0.25, 0.25]), atol=0.04, rtol=0)
    assert looking(0.1).boxes(cases, count)[1, 2] == pytest.approx(0.25 * 1.2, abs=0.04)


def test_a_box_stays_within_the_frame_and_is_never_tiny():
    box = looking(0.3).boxes(frames((0, 60, 0, 60), (60, 70, 60, 70)), torch.tensor([6, 6]))
    assert (box[:, :2].abs() + box[:, 2:] <= 1 + 1e-6).all()
    assert box[1, 2] == pytest.approx(0.2)


def test_where_no_heart_is_found_the_box_is_the_whole_frame():
    box = looking().boxes(torch.cat([frames((0, 0, 0, 0)), frames((40, 80, 40, 80))]), torch.tensor([6, 6]))
    assert box[0].tolist() == [0, 0, 1] and box[1, 2] < 0.5


def test_a_stray_pixel_does_not_stretch_the_box():
    columns = torch.zeros(1, 100)
    columns[0, 30:60] = 100
    columns[0, 99] = 3
    assert extent(columns)[1].item() == pytest.approx(0.2, abs=0.021)
    rows = columns.clone()
    box = heart_boxes(columns, rows, torch.tensor([100.0]), torch.tensor(0.0))
    assert box[0, 2] == pytest.approx(0.3, abs=0.021)


def test_padding_and_the_batch_do_not_move_a_box():
    cases = frames((20, 60, 32, 96), (64, 96, 64, 80))
    expected = looking().boxes(cases[1:, :, :5], torch.tensor([5]))
    cases[1, :, 5:] = 1  # padding that looks like heart
    torch.testing.assert_close(looking().boxes(cases, torch.tensor([6, 5]))[1:], expected)


class Unsure(Bright):
    """Takes everything for a structure with a probability of some 0.05, and what is bright with nearly 1."""

    def read(self, stacks: torch.Tensor) -> torch.Tensor:
        scores = super().read(stacks)
        scores[:, 1] = scores[:, 1].clamp_min(-3.0)
        return scores


def test_what_is_a_little_probable_everywhere_does_not_stretch_the_box():
    """Sums of probabilities did: ten points of accuracy."""
    cases, count = frames((20, 60, 32, 96)), torch.tensor([6])
    expected = looking().boxes(cases, count)
    unsure = CroppedStructureNet(Bright(), Unsure(), margin=0.0)
    torch.testing.assert_close(unsure.boxes(cases, count), expected, atol=0.04, rtol=0)


def test_padding_is_not_read_and_comes_back_as_zeros():
    cases = frames((20, 60, 32, 96), (64, 96, 64, 80), count=6)
    network, count = looking(0.1), torch.tensor([4, 3])
    longer = torch.cat([cases, torch.ones(2, 1, 30, 128, 128)], 2)
    assert network.of_heart(longer, count).shape == (2, 1, 4, 96, 96)
    found = network(longer, count)
    assert found.shape[2] == 36 and not found[:, :, 4:].any() and not found[1, :, 3].any()
    torch.testing.assert_close(found[:, :, :4], network(cases, count)[:, :, :4])


def test_cutting_out_and_putting_back_keep_a_pixel_where_it_was():
    ramp = torch.linspace(0, 1, 64)[None, :].expand(64, 64)[None, None, None]
    box = torch.tensor([[0.25, -0.25, 0.5]])
    found = crop(ramp, box, 32)
    torch.testing.assert_close(found[0, 0, 0, 0], ramp[0, 0, 0, 0, 24:56], atol=1e-3, rtol=0)
    labels = torch.zeros(1, 1, 1, 64, 64, dtype=torch.uint8)
    labels[..., 10:20, 30:40] = 7
    cut = crop_labels(labels, box, 32)
    assert torch.equal(cut[0, 0, 0], labels[0, 0, 0, 8:40, 24:56])
    scores = torch.nn.functional.one_hot(cut.long()[:, 0], 8).permute(0, 4, 1, 2, 3).float() * 30
    again = put_back(scores, box, 64, 64).argmax(1)
    assert torch.equal(again[0, 0], labels[0, 0, 0].long())
    assert put_back(scores, box, 64, 64)[0, 0, 0, -1, 0] == 0


def test_much_larger_frames_leave_nothing_out():
    stripes = torch.zeros(1, 1, 1, 128, 128)
    stripes[..., ::2] = 1
    found = crop(stripes, whole_frames(stripes), 32)
    torch.testing.assert_close(found[..., 1:-1], torch.full((1, 1, 1, 32, 30), 0.5), atol=1e-3, rtol=0)


def test_what_it_names_lies_where_it_is_in_the_whole_frame():
    cases = frames((20, 60, 32, 96))
    named = looking(0.1)(cases, torch.tensor([5]))
    assert named.shape == (1, 8, 6, 128, 128) and not named[:, :, 5].any()
    assert (named[0, :, 2].argmax(0) == cases[0, 0, 2].long()).float().mean() > 0.99


def test_descriptors_do_not_hang_on_how_much_is_around_the_heart():
    """The same heart in a frame of twice the size."""
    torch.manual_seed(0)
    heart = frames((30, 90, 20, 100), size=128)
    scan = torch.zeros(1, 1, 6, 256, 256)
    scan[..., 90:218, 60:188] = heart
    encoder = StructureEncoder(looking())
    near, far = encoder(heart, torch.tensor([6])), encoder(scan, torch.tensor([6]))
    torch.testing.assert_close(near, far, atol=0.05, rtol=0.05)


def test_a_classifier_of_it_scripts_and_loads_its_margin():
    torch.manual_seed(0)
    network = CNNLSTM("cropped_structures", standardize=True).eval()
    cases, count = torch.rand(2, 1, 6, 40, 40), torch.tensor([6, 4])
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(cases, count), network(cases, count))
    state = network.state_dict()
    state["encoder.network.margin"].fill_(0.25)
    other = CNNLSTM("cropped_structures", standardize=True)
    other.load_state_dict(state)
    assert other.encoder.network.margin == 0.25


@pytest.mark.parametrize("wrong", [{"size": 8}, {"coarse_size": 4.5}, {"margin": -0.1}, {"margin": 2}])
def test_sizes_and_margins_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="expected sizes of 16 pixels or more and a margin of 0 to 1"):
        CroppedStructureNet(**wrong)
