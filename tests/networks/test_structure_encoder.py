"""Descriptors of structures say what they are named for, in the heart's own units, whatever the chunks, padding and batch."""

import math

import numpy as np
import pytest
import torch

from monai_chd.labels import STRUCTURES
from monai_chd.networks import StructureEncoder, StructureNet
from monai_chd.networks.structure_encoder import PER_CASE, PER_FRAME

NAMES = (*PER_FRAME, *PER_CASE)
LV, RV, LA, RA, MYO, AO, PA = range(1, 8)


class Drawn(StructureNet):
    """Sees in a frame the structures that its grey values are the numbers of."""

    def read(self, stacks: torch.Tensor) -> torch.Tensor:
        numbers = (stacks[:, self.context] * 255).round().long()
        return 60.0 * torch.nn.functional.one_hot(numbers, 8).permute(0, 3, 1, 2)


def described(labels: np.ndarray | torch.Tensor, **options) -> dict[str, torch.Tensor]:
    """Descriptors by name, (T,), of the numbers of structures (T, H, W)."""
    frames = torch.as_tensor(labels)[None, None].to(torch.uint8)
    encoder = StructureEncoder(Drawn(), **options)
    return dict(zip(NAMES, encoder(frames, torch.tensor([frames.shape[2]]))[0].T, strict=False))


def disc(size: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return np.hypot(y - centre[0], x - centre[1]) <= radius


def heart(scale: int = 1, shift: int = 0) -> np.ndarray:
    """Five frames of 64 pixels: ventricles side by side, aorta a disc left of the pulmonary artery, a ring of myocardium."""
    size = 64 * scale
    labels = np.zeros((5, size, size), np.uint8)
    s = scale
    labels[0:3, 20 * s : 40 * s, 10 * s + shift : 30 * s + shift] = RV
    labels[1:4, 20 * s : 40 * s, 30 * s + shift : 50 * s + shift] = LV
    labels[4][disc(size, (30 * s, 40 * s + shift), 6 * s)] = AO
    labels[4][disc(size, (22 * s, 20 * s + shift), 4 * s)] = PA
    ring = disc(size, (52 * s, 30 * s + shift), 8 * s) & ~disc(size, (52 * s, 30 * s + shift), 4 * s)
    labels[2][ring] = MYO
    return labels


@pytest.fixture(scope="module")
def found():
    return described(heart())


def test_the_names_are_those_of_the_features():
    assert StructureEncoder().feature_size == len(NAMES) == len(set(NAMES))
    assert StructureEncoder(volume=False).feature_size == len(PER_FRAME)


def test_what_is_not_there_has_no_area_no_place_and_no_contact(found):
    assert found["area LA"].max() < 1e-3 and found["left LA"].abs().max() < 1e-3
    assert found["touch LA-RA"].abs().max() < 1e-6 and found["volume LA"].max() < math.log(2e-3)
    assert found["area AO".replace("AO", "Ao")][:4].max() < 1e-3 and found["area Ao"][4] > 0.2


def test_structures_touch_where_they_lie_side_by_side_and_go_on_to_the_next_frame(found):
    assert (found["touch LV-RV"] > 0.1).tolist() == [False, True, True, False, False]
    # RV of frame 0 does not lie under LV of frame 1, since they stand side by side; LV of 3 under the aorta of 4 does
    assert found["touch next LV-RV"].abs().max() < 1e-3
    assert (found["touch next LV-Ao"] > 0.1).tolist() == [False, False, False, True, False]
    assert found["touch next LV-Ao"][-1] == 0 and found["goes on Ao"][-1] == 0, "the last frame has no next one"
    assert (found["goes on RV"] > 0.9).tolist() == [True, True, False, False, False]


def test_a_ring_has_a_hole_and_a_disc_is_round(found):
    assert abs(found["Euler Myo"][2]) < 0.05 and found["Euler LV"][1] > 0.3 and found["Euler Ao"][4] > 0.3
    two = np.zeros((1, 64, 64), np.uint8)
    two[0][disc(64, (20, 20), 6) | disc(64, (40, 40), 6)] = AO
    assert described(two)["Euler Ao"][0] == pytest.approx(math.tanh(2 / 3), abs=0.02)
    assert found["radius Ao"][4] / found["radius PA"][4] == pytest.approx(1.5, rel=0.1)


def test_the_aorta_lies_beside_the_pulmonary_artery(found):
    assert found["Ao left of PA"][4] > 0.3 and found["Ao behind PA"][4] > 0.1  # x grows to the left, y to the back
    assert found["Ao left of PA"][:4].abs().max() < 1e-3
    mirrored = described(heart()[:, :, ::-1].copy())
    assert mirrored["Ao left of PA"][4] == pytest.approx(-float(found["Ao left of PA"][4]), rel=0.05)


def test_neither_the_size_of_a_pixel_nor_the_place_in_the_frame_matters(found):
    larger, moved = described(heart(scale=2)), described(heart(shift=9))
    for name in NAMES:
        if name.startswith(("Euler", "intensity")):
            continue
        torch.testing.assert_close(moved[name], found[name], atol=2e-3, rtol=1e-2, msg=name)
        torch.testing.assert_close(larger[name], found[name], atol=0.12, rtol=0.1, msg=name)


def test_a_narrow_place_of_the_descending_aorta_shows():
    def aorta(narrow: int | None) -> dict[str, torch.Tensor]:
        labels = np.zeros((12, 64, 64), np.uint8)
        labels[:8, 10:30, 20:44] = LV
        for frame in range(12):
            labels[frame][disc(64, (48, 32), 3 if frame == narrow else 6)] = AO
        labels[9:, 12:24, 26:38] = AO  # what rises before the heart is no part of it
        return described(labels)

    even, low, high = aorta(None), aorta(2), aorta(10)
    narrowest, on_top = "Ao behind, narrowest", "Ao behind, narrowest on top"
    assert abs(even[narrowest][0]) < 0.05 and abs(even[on_top][0]) < 0.05 and even["Ao in front"][10] > 0.3
    assert low[narrowest][0] < -1 and abs(low[on_top][0]) < 0.2
    assert high[narrowest][0] < -1 and high[on_top][0] < -1


def test_the_frame_knows_its_place_along_the_heart(found):
    place = found["place"]
    assert (place.diff() > 0).all() and place[0] < 0 < place[-1]


def test_the_whole_case_stands_in_every_frame(found):
    for name in PER_CASE:
        assert torch.equal(found[name], found[name][:1].expand(5)), name
    whole = heart()
    counts = {name: (whole == number).sum() for number, name in enumerate(STRUCTURES, 1)}
    ratio = (found["volume LV"][0] - found["volume Myo"][0]).exp()
    assert float(ratio) == pytest.approx(counts["LV"] / counts["Myo"], rel=0.05)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return StructureEncoder(StructureNet((4, 8, 8))).eval()


@pytest.fixture(scope="module")
def frames():
    return torch.randint(0, 256, (2, 1, 9, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 100])
def test_neither_chunks_nor_padding_nor_the_batch_change_a_descriptor(encoder, frames, chunk_size):
    with torch.no_grad():
        expected = encoder(frames, torch.tensor([9, 5]))
        encoder.network.chunk_size, before = chunk_size, encoder.network.chunk_size
        alone = [encoder(frames[case : case + 1, :, :count], torch.tensor([count])) for case, count in ((0, 9), (1, 5))]
        encoder.network.chunk_size = before
    torch.testing.assert_close(alone[0][0], expected[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone[1][0], expected[1, :5], atol=1e-4, rtol=1e-4)
    assert not expected[1, 5:].any()


def test_a_frame_without_any_heart_gives_finite_descriptors_and_gradients():
    network = StructureNet((4, 8, 8))
    with torch.no_grad():
        list(network.parameters())[-1][0] = 40.0  # the bias of the last layer: all is background
    encoder = StructureEncoder(network, trainable=True)
    found = encoder(torch.zeros(1, 1, 3, 16, 16), torch.tensor([3]))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert all(torch.isfinite(weight.grad).all() for weight in encoder.parameters())


def test_it_is_fine_tuned_or_frozen(frames):
    for trainable in (True, False):
        encoder = StructureEncoder(StructureNet((4, 8, 8)), trainable=trainable)
        assert all(weight.requires_grad is trainable for weight in encoder.parameters())
    assert torch.jit.script(encoder)(frames, torch.tensor([9, 5])).shape == (2, 9, len(NAMES))


def test_frames_of_several_channels_are_refused(encoder):
    with pytest.raises(ValueError, match="expected frames of 1 channels, came 3"):
        encoder(torch.zeros(1, 3, 2, 16, 16), torch.tensor([2]))
