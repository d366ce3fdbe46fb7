"""Hiding frames changes a probability as a hand count says, and the picture shows the frames that were hidden."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from monai_chd.crossval.occlusion import FILLS, case_sheet, occlude, sheet_name, windows_of
from monai_chd.networks import CNNLSTM
from monai_chd.report.contact_sheet import TILE, TITLE_WIDTH


class Weighted(nn.Module):
    """Logit of class 1 is the weighted sum of the first feature of the real frames; the other logits are 0."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.tensor(weights, dtype=torch.float32)
        self.seen = []

    def forward(self, case, num_frames):
        self.seen.append((case.clone(), self.training))
        values = case[0, :, 0] if case.ndim == 3 else case[0, 0].float().mean((1, 2))
        total = (values * self.weights[: len(values)])[: int(num_frames)].sum()
        return torch.stack([torch.zeros(()), total, torch.zeros(())])[None]


def probability(logit):
    return float(np.exp(logit) / (np.exp(logit) + 2))


@pytest.mark.parametrize(("frames", "count"), [(1, 8), (7, 8), (8, 8), (9, 8), (195, 8), (200, 1), (50, 7)])
def test_windows_cover_every_frame_once_and_are_equally_long(frames, count):
    windows = windows_of(frames, count)
    assert [frame for first, after in windows for frame in range(first, after)] == list(range(frames))
    lengths = {after - first for first, after in windows}
    assert len(windows) == min(frames, count) and max(lengths) - min(lengths) <= 1 and min(lengths) >= 1


@pytest.mark.parametrize(("frames", "count"), [(0, 8), (5, 0)])
def test_no_frame_and_no_window_are_refused(frames, count):
    with pytest.raises(ValueError, match=f"at least one frame and one window, came {frames} and {count}"):
        windows_of(frames, count)


def test_blank_features_take_their_own_part_of_the_logit_away():
    features = torch.tensor([[[1.0], [2.0], [3.0], [4.0], [9.0]]])  # the last is padding
    found = occlude(Weighted([1, -1, 0, 0.5, 7]), features, torch.tensor([4]), 1, windows=2, fill="blank")
    whole = 1 - 2 + 0 + 2
    assert [window["frames"] for window in found] == [[1, 2], [3, 4]]
    expected = [probability(whole - (1 - 2)) - probability(whole), probability(whole - 2) - probability(whole)]
    np.testing.assert_allclose([window["change"] for window in found], expected, rtol=1e-6)


def test_the_mean_is_that_of_the_real_frames_only():
    features = torch.tensor([[[1.0], [2.0], [6.0], [100.0]]])
    found = occlude(Weighted([1, 0, 0, 0]), features, torch.tensor([3]), 1, windows=3)
    expected = [probability(3) - probability(1), 0, 0]
    np.testing.assert_allclose([window["change"] for window in found], expected, atol=1e-9)


@pytest.mark.parametrize("fill", FILLS)
def test_frames_of_uint8_are_hidden_as_frames_and_stay_uint8(fill):
    frames = torch.arange(6, dtype=torch.uint8).mul(10)[None, None, :, None, None].expand(1, 1, 6, 4, 4)
    network = Weighted([0.01] * 6)
    found = occlude(network, frames, torch.tensor([6]), 1, windows=3, fill=fill)
    whole = 0.01 * 150
    hidden = {"blank": [0, 0, 0], "mean": [50, 50, 50]}[fill]  # twice the mean frame, 25
    expected = [
        probability(whole + 0.01 * (new - old)) - probability(whole)
        for old, new in zip([10, 50, 90], hidden, strict=True)
    ]
    np.testing.assert_allclose([window["change"] for window in found], expected, rtol=1e-5)
    assert {case.dtype for case, _ in network.seen} == {torch.uint8}


def test_temperature_divides_the_logits():
    features = torch.tensor([[[3.0], [1.0]]])
    found = occlude(Weighted([1, 1]), features, torch.tensor([2]), 1, windows=2, fill="blank", temperature=2.0)
    np.testing.assert_allclose(found[0]["change"], probability(1 / 2) - probability(4 / 2), rtol=1e-6)


def test_a_frame_that_the_network_ignores_changes_nothing_and_the_changes_of_all_classes_cancel():
    torch.manual_seed(0)
    network = CNNLSTM("small_cnn", hidden_size=8, pooling="mean")
    frames, count = torch.randint(0, 256, (1, 1, 7, 16, 16), dtype=torch.uint8), torch.tensor([5])
    changes = np.array([[w["change"] for w in occlude(network, frames, count, k, windows=5)] for k in range(3)])
    assert np.abs(changes).max() > 1e-6
    np.testing.assert_allclose(changes.sum(0), 0, atol=1e-12)
    ignoring = occlude(Weighted([0, 0, 5]), torch.rand(1, 3, 2), torch.tensor([3]), 1, windows=3)
    assert [window["change"] for window in ignoring[:2]] == [0, 0] and ignoring[2]["change"] != 0


def test_the_network_and_the_case_are_left_as_they_were_and_no_gradient_is_kept():
    network = CNNLSTM("small_cnn", hidden_size=8)
    network.train()
    network.encoder.eval()
    modes = [module.training for module in network.modules()]
    frames = torch.randint(0, 256, (1, 1, 4, 16, 16), dtype=torch.uint8)
    before = frames.clone()
    first = occlude(network, frames, torch.tensor([4]), 0)
    assert occlude(network, frames, torch.tensor([4]), 0) == first
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(frames, before)
    spy = Weighted([1.0] * 4)
    occlude(spy, torch.rand(1, 4, 2), torch.tensor([4]), 1)
    assert spy.training and not any(training for _, training in spy.seen)


def test_any_callable_will_do():
    assert len(occlude(lambda case, count: case.sum(1)[:, :3], torch.rand(1, 4, 3), torch.tensor([4]), 2)) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"case": torch.rand(2, 4, 3)}, r"expected one case.*came \(2, 4, 3\) and \(1,\)"),
        ({"case": torch.rand(1, 1, 4, 3)}, r"came \(1, 1, 4, 3\)"),
        ({"num_frames": torch.tensor(4)}, r"came \(1, 4, 3\) and \(\)"),
        ({"num_frames": torch.tensor([5])}, r"num_frames of 1..4, came 5"),
        ({"num_frames": torch.tensor([0])}, r"num_frames of 1..4, came 0"),
        ({"fill": "noise"}, "unknown fill 'noise': expected one of mean, blank"),
        ({"target": 3}, "expected a class 0..2, came 3"),
        ({"target": -1}, "expected a class 0..2, came -1"),
        ({"temperature": 0.0}, "temperature above 0, came 0.0"),
        ({"temperature": float("nan")}, "temperature above 0, came nan"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {"case": torch.rand(1, 4, 3), "num_frames": torch.tensor([4]), "target": 1, **change}
    case, count, target = given.pop("case"), given.pop("num_frames"), given.pop("target")
    with pytest.raises(ValueError, match=message):
        occlude(Weighted([1.0] * 4), case, count, target, **given)


def test_the_sheet_shows_the_middle_frame_of_each_window_anterior_up_and_the_patients_right_on_the_left(tmp_path):
    frames = torch.zeros(1, 1, 12, 10, 10, dtype=torch.uint8)
    frames[0, 0, :9] = torch.arange(9, dtype=torch.uint8)[:, None, None] * 20
    frames[0, 0, :, :3, :3] = 255  # anterior, patient's right
    path = case_sheet(frames, 9, tmp_path / "cases" / "sheet.png", title="patient 7", windows=3)
    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L"))
    assert grey.shape == (TILE, TITLE_WIDTH + 3 * TILE)
    tiles = [grey[:, TITLE_WIDTH + k * TILE : TITLE_WIDTH + (k + 1) * TILE] for k in range(3)]
    assert [int(tile[100, 100]) for tile in tiles] == [20, 80, 140]
    assert all(tile[10, 10] == 255 and tile[10, -10] < 200 and tile[-10, 10] < 200 for tile in tiles)
    assert grey[:, :TITLE_WIDTH].max() == 255


def test_floats_and_bytes_give_the_same_sheet(tmp_path):
    frames = torch.randint(0, 256, (1, 5, 8, 8), dtype=torch.uint8)
    one = case_sheet(frames, 5, tmp_path / "a.png", title="")
    two = case_sheet(frames[None].float() / 255, 5, tmp_path / "b.png", title="")
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("shape", "count", "message"),
    [
        ((2, 1, 4, 8, 8), 4, "frames of one case"),
        ((4, 8, 8), 4, "frames of one case"),
        ((1, 4, 8, 8), 5, "1..4, came 5"),
        ((1, 4, 8, 8), 0, "came 0"),
    ],
)
def test_frames_that_cannot_be_drawn_are_refused(tmp_path, shape, count, message):
    with pytest.raises(ValueError, match=message):
        case_sheet(torch.zeros(shape), count, tmp_path / "sheet.png", title="")


def test_names_of_sheets_are_safe_and_differ_where_patients_do():
    assert sheet_name("ct_1001") == "cases/ct_1001.png" and sheet_name(1001) == "cases/1001.png"
    odd = ["../../etc/x", "a/b", "a_b", "a b", "", ".", "..", "é", "x" * 300]
    names = [sheet_name(patient) for patient in odd]
    assert len(set(names)) == len(odd)
    assert all(name.count("/") == 1 and ".." not in name and len(name) < 100 for name in names)
