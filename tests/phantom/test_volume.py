import numpy as np
import pytest
from scipy import ndimage

from monai_chd.phantom.layers import Layer
from monai_chd.phantom.volume import DIFFICULTIES, draw_nuisances, grain, make_volume, paint

SMALL = {"size": 64, "slices": (30, 34)}


def test_same_seed_same_voxels_other_seed_others():
    first, second, other = (make_volume(["VSD"], seed=seed, **SMALL) for seed in (5, 5, 6))
    assert first[0].tobytes() == second[0].tobytes() and first[1].tobytes() == second[1].tobytes()
    assert first[2] == second[2] != other[2]
    assert first[0].shape != other[0].shape or (first[0] != other[0]).any()


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_nuisances_do_not_depend_on_the_lesion(difficulty):
    drawn = [make_volume(flags, seed=(7, 1), difficulty=difficulty, **SMALL) for flags in ([], ["ToF"], ["ASD", "PDA"])]
    assert drawn[0][2] == drawn[1][2] == drawn[2][2]
    assert drawn[0][0].shape == drawn[1][0].shape == drawn[2][0].shape


@pytest.mark.parametrize("diagnosis", ["ToF", "TGA", "CAT", "ASD", "PDA"])
def test_intensity_of_every_compartment_does_not_depend_on_the_lesion(diagnosis):
    drawn = [make_volume(flags, seed=2, size=96, slices=(48, 48)) for flags in ([], [diagnosis])]
    for number in range(1, 8):
        inner = [ndimage.binary_erosion(labels == number, iterations=2) for _, labels, _ in drawn]
        if number == 4:  # caval veins have levels of their own: compare the same places
            inner = [inner[0] & inner[1]] * 2
        if number == 7:
            inner = [ndimage.binary_erosion(labels == number) for _, labels, _ in drawn]
        means = [image[mask].mean() for (image, _, _), mask in zip(drawn, inner, strict=True)]
        assert means[0] == pytest.approx(means[1], abs=8), number


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_values_look_like_imagechd_on_disk(difficulty):
    for seed in range(3):
        image, labels, nuisances = make_volume([], seed=seed, difficulty=difficulty, **SMALL)
        assert image.dtype == np.int16 and labels.dtype == np.uint8
        assert image.shape == labels.shape == (64, 64, nuisances["num_slices"])
        assert 30 <= image.shape[2] <= 34 and image.min() >= 0 and image.max() <= 4095
        assert np.mean((image >= 900) & (image <= 1200)) > 0.2
        assert set(np.unique(labels)) == set(range(8))


def test_anatomy_lies_as_ras_axes_say():
    image, labels, nuisances = make_volume([], seed=3, size=96, slices=(48, 48))
    centre = {number: np.argwhere(labels == number).mean(0) for number in range(1, 8)}
    assert centre[1][0] < centre[4][0] - 15  # left ventricle to the left of the right atrium
    assert centre[2][1] > centre[3][1] + 10  # right ventricle in front of the left atrium
    assert centre[7][2] > centre[1][2] + 8  # pulmonary artery above the left ventricle
    bone = np.argwhere(image[:, :, 24] > 1300)
    bone = bone[bone[:, 1] < 24]
    assert abs(bone[:, 0].mean() - 48) < 12  # spine behind, in the middle
    descending = np.argwhere((labels == 6)[:, :36, 10]).mean(0)
    assert not nuisances["right_arch"] and descending[0] < bone[:, 0].mean() - 3
    lungs = (image[:, :, 24] < 300) & (labels[:, :, 24] == 0)
    assert lungs[15:25, 40:60].mean() > 0.3 and lungs[70:80, 40:60].mean() > 0.3


@pytest.mark.parametrize("name, most", [("rotate_z", 20), ("shift_x", 9), ("warp_0", 2.5)])
def test_plain_varies_less_than_realistic(name, most):
    spread = {
        difficulty: np.array([draw_nuisances(np.random.default_rng(i), (8, 9), difficulty)[name] for i in range(200)])
        for difficulty in DIFFICULTIES
    }
    assert np.abs(spread["plain"]).max() <= 0.31 * most < np.abs(spread["realistic"]).max() <= most


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_one_arch_in_eight_is_on_the_right(difficulty):
    right = [draw_nuisances(np.random.default_rng(i), (8, 9), difficulty)["right_arch"] for i in range(1000)]
    assert 0.09 < np.mean(right) < 0.15


def test_noise_has_the_drawn_deviation_and_grain():
    planes = grain((80, 90), {"noise_sigma": 20.0, "noise_colour": 0.4}, np.random.default_rng(0))
    noise = np.stack([next(planes) for _ in range(40)], axis=2)
    assert noise.shape == (80, 90, 40)
    assert noise.std() == pytest.approx(20, rel=0.02)
    assert np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1] == pytest.approx(0.8 / 1.32, abs=0.02)
    assert np.corrcoef(noise[..., :-1].ravel(), noise[..., 1:].ravel())[0, 1] == pytest.approx(0.3, abs=0.02)


def test_painting_on_a_finer_grid_keeps_the_shape():
    axis = np.linspace(-10, 10, 21, dtype=np.float32)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    ball = Layer(np.sqrt(x**2 + y**2 + z**2).astype(np.float32) - 6, 100.0, 3)
    for shape in ((21, 21, 21), (61, 61, 41)):
        hu, labels = (np.stack(planes, axis=2) for planes in zip(*paint([ball], shape, 0.5, -980.0), strict=True))
        voxel = np.prod([20 / (side - 1) for side in shape])
        assert np.sum(labels == 3) * voxel == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.03)
        assert np.sum((hu + 980) / 1080) * voxel == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.03)
        assert hu[0, 0, 0] == -980 and hu[tuple(side // 2 for side in shape)] == 100


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": 31}, "size: expected at least 32 voxels, came 31"),
        ({"slices": (12, 10)}, r"slices: expected .* came \(12, 10\)"),
        ({"slices": (7, 10)}, "8 <= fewest"),
        ({"difficulty": "hard"}, "difficulty: expected plain or realistic, came 'hard'"),
        ({"flags": ["AVSD"]}, "AVSD"),
    ],
)
def test_refuses_what_cannot_be_drawn(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_volume(**{"flags": [], "seed": 1, **SMALL, **arguments})


def test_smallest_volume_still_has_all_structures_and_soft_tissue():
    image, labels, _ = make_volume(["PA", "VSD"], seed=1, size=32, slices=(8, 8), difficulty="realistic")
    assert image.shape == (32, 32, 8) and set(np.unique(labels)) == set(range(8))


FROZEN = {
    # voxels of each structure, mean and spread of all voxels, noise: of patients 0 and 1 of seed 17
    "": [((1526, 2511, 1493, 1272, 2889, 1763, 919), 634.18, 505.18, 34.40),
         ((1191, 1568, 846, 1324, 2196, 1452, 969), 640.84, 485.08, 33.94)],
    "ToF": [((1530, 2370, 1532, 1273, 3962, 2091, 444), 633.89, 504.75, 34.40),
            ((1182, 1414, 856, 1321, 2858, 1920, 415), 640.68, 485.89, 33.94)],
    "VSD": [((1540, 2511, 1493, 1272, 2875, 1763, 919), 634.21, 505.23, 34.40),
            ((1199, 1568, 846, 1324, 2188, 1452, 969), 640.87, 485.11, 33.94)],
}  # fmt: skip


@pytest.mark.parametrize("lesion", FROZEN)
def test_realistic_stays_as_hard_as_it_was(lesion):
    """Figures in the documents are of this phantom: a method may get better, the phantom must not get easier."""
    for patient, (voxels, mean, spread, noise) in enumerate(FROZEN[lesion]):
        flags = [lesion] if lesion else []
        image, labels, nuisances = make_volume(
            flags, seed=(17, patient), size=64, slices=(30, 34), difficulty="realistic"
        )
        np.testing.assert_allclose(np.bincount(labels.ravel(), minlength=8)[1:], voxels, atol=3)
        assert (image.mean(), image.std()) == pytest.approx((mean, spread), abs=0.05)
        assert nuisances["noise_sigma"] == pytest.approx(noise, abs=0.01)
