"""One phantom CT volume: what varies from patient to patient, and painting the layers onto a grid of voxels.

Owns everything that must not depend on the class: pose, size, warp, contrast, noise, field of view. What is painted is
`layers`'s; files and cohorts are `cohort`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from monai_chd.errors import UserError
from monai_chd.phantom.anatomy import Floats, normal_heart
from monai_chd.phantom.layers import LABELS, Layer, chest_layers, heart_layers
from monai_chd.phantom.lesions import Extent, apply_lesions, check_flags

Nuisances = dict[str, float]

DIFFICULTIES = ("plain", "realistic")
COARSE_IN_PLANE = 128
COARSE_SLICES = 96
"""Fields are evaluated on a grid of at most this size and interpolated: they are smooth, voxels are not."""

FIELD_OF_VIEW = 156.0
COVERAGE = 118.0
LOWEST = -54.0
"""Nominal in-plane field of view, length of the scan and its lowest slice, mm of the phantom's frame."""


def draw_nuisances(rng: np.random.Generator, slices: tuple[int, int], difficulty: str) -> Nuisances:
    """Draw everything about a volume that says nothing about its class.

    Args:
        rng: stream of the patient's nuisances.
        slices: fewest and most slices.
        difficulty: one of `DIFFICULTIES`.

    Returns:
        Values by name: degrees, mm, HU, factors.
    """
    spread = 0.3 if difficulty == "plain" else 1.0
    drawn: Nuisances = {
        "num_slices": int(rng.integers(slices[0], slices[1] + 1)),
        "right_arch": int(rng.random() < 0.12),
    }
    for name, sigma in (("rotate_z", 10), ("rotate_x", 7), ("rotate_y", 7)):
        drawn[name] = spread * sigma * float(np.clip(rng.standard_normal(), -2, 2))
    for name in ("shift_x", "shift_y", "shift_z"):
        drawn[name] = spread * 6 * float(np.clip(rng.standard_normal(), -1.5, 1.5))
    for name in ("size", "field_of_view", "coverage"):
        drawn[name] = 1 + 0.1 * spread * float(rng.uniform(-1, 1))
    for part in ("LV", "RV", "LA", "RA", "AO", "PA", "PV", "SVC", "IVC"):
        drawn[f"scale_{part}"] = float(np.exp(0.06 * spread * np.clip(rng.standard_normal(), -2, 2)))
    for wave in range(3):
        drawn[f"warp_{wave}"] = spread * float(rng.uniform(0.5, 2.5))
        drawn[f"warp_length_{wave}"] = float(rng.uniform(80, 140))
        drawn[f"warp_phase_{wave}"] = float(rng.uniform(0, 2 * np.pi))
    sigma_low, sigma_high = (8, 14) if difficulty == "plain" else (12, 38)
    drawn["noise_sigma"] = float(rng.uniform(sigma_low, sigma_high))
    drawn["noise_colour"] = float(rng.uniform(0.1, 0.5))
    drawn["blur"] = float(rng.uniform(0.5, 0.6))
    return drawn | _draw_levels(rng, 0.5 if difficulty == "plain" else 1.0)


def _draw_levels(rng: np.random.Generator, spread: float) -> Nuisances:
    """HU of every material, keys `hu_…`; blood stays above what a muscle can reach."""

    def level(mean: float, sigma: float) -> float:
        return float(mean + spread * sigma * np.clip(rng.standard_normal(), -2, 2))

    left, right = level(370, 55), level(350, 85)
    atrium = right + level(0, 45)
    blood = {"LV": left, "AO": left, "RV": right, "PA": right, "RA": atrium, "LA": left + level(0, 20)}
    blood |= {"SVC": atrium + level(60, 90), "IVC": level(190, 45)}
    blood |= {"PV": blood["LA"], "APV": blood["LA"]}
    tissue = {"myocardium": level(115, 14), "soft": level(45, 8), "fat": level(-85, 12), "lung": level(-840, 30)}
    tissue |= {"bone": level(420, 60), "liver": level(95, 12), "air": -980.0}
    return {f"hu_{k}": max(v, 170.0) for k, v in blood.items()} | {f"hu_{k}": v for k, v in tissue.items()}


def coordinates(nuisances: Nuisances, size: int) -> tuple[Floats, float]:
    """Where each voxel of the coarse grid lies in the phantom's frame.

    Returns:
        Points in mm of shape (3, X, Y, Z), X and Y at most `COARSE_IN_PLANE`; and the in-plane spacing in mm of the
        full grid.
    """
    n = int(nuisances["num_slices"])
    spacing = FIELD_OF_VIEW * nuisances["field_of_view"] / size
    in_plane = (np.linspace(0, size - 1, min(size, COARSE_IN_PLANE)) - (size - 1) / 2) * spacing
    middle = LOWEST + COVERAGE / 2
    axial = (np.linspace(0, 1, min(n, COARSE_SLICES)) - 0.5) * COVERAGE * nuisances["coverage"]
    x, y, z = (a.astype(np.float32) for a in np.meshgrid(in_plane, in_plane, axial, indexing="ij", sparse=True))
    about_z, about_x, about_y = (np.deg2rad(nuisances[f"rotate_{axis}"]) for axis in "zxy")
    turn = _rotation(2, about_z) @ _rotation(0, about_x) @ _rotation(1, about_y) / nuisances["size"]
    moved = [x - nuisances["shift_x"], y - nuisances["shift_y"], z - nuisances["shift_z"]]
    points = np.stack([sum((np.float32(turn[i, j]) * moved[j] for j in range(3)), np.float32(0)) for i in range(3)])
    for wave in range(3):
        rate = np.float32(2 * np.pi / nuisances[f"warp_length_{wave}"])
        bend = np.sin(points[(wave + 1) % 3] * rate + np.float32(nuisances[f"warp_phase_{wave}"]))
        points[wave] += np.float32(nuisances[f"warp_{wave}"]) * bend
    points[2] += np.float32(middle)
    return points, spacing


def _rotation(axis: int, angle: float) -> NDArray[np.float64]:
    """Turn by an angle in radians about one axis, shape (3, 3)."""
    a, b = (i for i in range(3) if i != axis)
    turn = np.eye(3)
    turn[a, a] = turn[b, b] = np.cos(angle)
    turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
    return turn


def _fine_index(coarse: int, fine: int) -> tuple[NDArray[np.int64], Floats]:
    """Left neighbour on the coarse grid and weight of the right one, for each index of the fine grid."""
    position = np.linspace(0, coarse - 1, fine)
    left = np.minimum(position.astype(np.int64), coarse - 2)
    return left, (position - left).astype(np.float32)


def _enlarge(
    plane: Floats, rows: tuple[NDArray[np.int64], Floats], columns: tuple[NDArray[np.int64], Floats]
) -> Floats:
    """Bilinear interpolation of a coarse plane at the given rows and columns."""
    left, weight = rows
    tall = plane[left] + (plane[left + 1] - plane[left]) * weight[:, None]
    left, weight = columns
    wide = tall.T[left]
    return np.asarray((wide + (tall.T[left + 1] - wide) * weight[:, None]).T, np.float32)


def paint(
    layers: Sequence[Layer], shape: tuple[int, int, int], blur: float, air: float
) -> Iterator[tuple[Floats, NDArray[np.uint8]]]:
    """Paint layers one over the other, each with a blurred edge, slice by slice.

    Args:
        layers: bottom first; fields on a common coarse grid.
        shape: voxels of the volume, (X, Y, Z).
        blur: half width in mm of the edge.
        air: HU where nothing is painted.

    Yields:
        HU, float32, and label map of a slice, both (X, Y), feet to head.
    """
    rows, columns, depths = (_fine_index(layers[0].field.shape[axis], shape[axis]) for axis in range(3))
    for lower, weight in zip(*depths, strict=True):
        hu = np.full(shape[:2], air, np.float32, order="F")
        labels = np.zeros(shape[:2], np.uint8, order="F")
        for layer in layers:
            plane = layer.field[:, :, lower] * (1 - weight) + layer.field[:, :, lower + 1] * weight
            touched = plane < blur
            if not touched.any():
                continue
            i, part_rows = _within(rows, touched.any(1))
            j, part_columns = _within(columns, touched.any(0))
            field = _enlarge(plane, part_rows, part_columns)
            view = hu[i, j]
            view += np.clip(0.5 - field / (2 * blur), 0, 1) * (layer.hu - view)
            if layer.label is not None:
                np.copyto(labels[i, j], layer.label, where=field < 0)
        yield hu, labels


def _within(
    index: tuple[NDArray[np.int64], Floats], touched: NDArray[np.bool_]
) -> tuple[slice, tuple[NDArray[np.int64], Floats]]:
    """The run of fine indices between whose coarse neighbours something is touched, and their interpolation."""
    left, weight = index
    hits = np.flatnonzero(touched)
    run = slice(*np.searchsorted(left, (hits[0] - 1, hits[-1] + 1)))
    return run, (left[run], weight[run])


def grain(shape: tuple[int, int], nuisances: Nuisances, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield noise in HU, slice after slice: neighbours in a slice and in the next one are alike.

    Args:
        shape: voxels of a slice, (X, Y).
        nuisances: `noise_sigma`, the standard deviation, and `noise_colour`, the weight of each neighbour.
        rng: stream of the patient's noise.
    """
    colour = np.float32(nuisances["noise_colour"])
    gain = np.float32(nuisances["noise_sigma"] / (1 + 2 * colour**2))
    previous: Floats | None = None
    while True:
        white = rng.standard_normal((shape[1] + 2, shape[0] + 2), dtype=np.float32)
        white = white[1:-1] + colour * (white[:-2] + white[2:])
        fresh = gain * (white[:, 1:-1] + colour * (white[:, :-2] + white[:, 2:])).T
        previous = fresh if previous is None else np.float32(0.3) * previous + np.float32(0.91**0.5) * fresh
        yield previous


def without_contrast(nuisances: Nuisances) -> Nuisances:
    """The same patient scanned without contrast medium: blood, muscle and liver look almost alike."""
    plain = {"hu_myocardium": 50.0, "hu_liver": 58.0}
    return nuisances | {f"hu_{part}": 45.0 for part in LABELS} | plain


def make_volume(
    flags: Iterable[str],
    *,
    seed: int | Sequence[int],
    size: int,
    slices: tuple[int, int],
    difficulty: str = "plain",
    contrast: bool = True,
) -> tuple[NDArray[np.int16], NDArray[np.uint8], Nuisances]:
    """Make one volume.

    Args:
        flags: diagnosis flags, any set without AVSD; none for a heart without lesion.
        seed: nuisances and noise depend on it alone, lesions on it and the flags.
        size: voxels along X and Y.
        slices: fewest and most slices; the seed picks the number.
        difficulty: "plain": small nuisances, severe lesions; "realistic": the full ranges of both.
        contrast: whether contrast medium was given, as for CT angiography.

    Returns:
        Image as HU + 1024 in 0..4095, int16, and label map (1 LV, 2 RV, 3 LA, 4 RA, 5 myocardium, 6 aorta, 7 pulmonary
        artery), uint8, both (X, Y, Z) with X to the patient's right, Y anterior and Z to the head; and the nuisances.

    Raises:
        UserError: a flag without geometry, a size under 32, slices out of order or under 8, an unknown difficulty.
    """
    wanted = check_flags(flags)
    check_volume(size, slices, difficulty)
    streams = [np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(4)]
    nuisances = draw_nuisances(streams[0], slices, difficulty)
    if not contrast:
        nuisances = without_contrast(nuisances)
    heart = normal_heart(right_arch=bool(nuisances["right_arch"]))
    for part in ("LV", "RV", "LA", "RA", "AO", "PA", "PV", "SVC", "IVC"):
        heart.scale(part, nuisances[f"scale_{part}"])
    apply_lesions(heart, wanted, Extent(streams[1], 0.7 if difficulty == "plain" else 0.0))
    points, spacing = coordinates(nuisances, size)
    nuisances["spacing"] = spacing
    step = COVERAGE * nuisances["coverage"] / nuisances["num_slices"]
    inner = heart_layers(heart, points, nuisances, wall=max(2.2, 1.3 * max(spacing, step) / nuisances["size"]))
    layers = chest_layers(points, inner[0].field, nuisances, streams[2]) + inner
    shape = (size, size, int(nuisances["num_slices"]))
    image = np.empty(shape, np.int16, order="F")
    labels = np.empty(shape, np.uint8, order="F")
    painted = paint(layers, shape, nuisances["blur"] * spacing / nuisances["size"], nuisances["hu_air"])
    for k, ((hu, numbers), noise) in enumerate(zip(painted, grain(shape[:2], nuisances, streams[3]), strict=False)):
        image[:, :, k] = np.clip(np.rint(hu + noise) + 1024, 0, 4095)
        labels[:, :, k] = numbers
    share = float(np.mean((image >= 900) & (image <= 1200)))
    assert share >= 0.05, f"only {share:.1%} of the voxels look like soft tissue: readers could not tell HU + 1024"
    return image, labels, nuisances


def check_volume(size: int, slices: tuple[int, int], difficulty: str) -> None:
    """Refuse what cannot become a volume.

    Raises:
        UserError: what was expected, what came.
    """
    if size < 32:
        raise UserError(f"size: expected at least 32 voxels, came {size}; smaller hearts lose their walls")
    low, high = slices
    if low < 8 or low > high:
        raise UserError(f"slices: expected (fewest, most) with 8 <= fewest <= most, came {slices}")
    if difficulty not in DIFFICULTIES:
        raise UserError(f"difficulty: expected {' or '.join(DIFFICULTIES)}, came {difficulty!r}")
