"""Volumes of which it is known how they are stored: phantoms as HU or HU + 1024, padded, cut, resampled; and what is no CT."""

from __future__ import annotations

import functools

import numpy as np
from phantom_scans import phantom_volumes
from scipy import ndimage

HU, RAW = 0.0, -1024.0


@functools.cache
def stored_volumes() -> dict[str, tuple[np.ndarray, float | None]]:
    """Values (X, Y, Z) and HU offset by name; None where it cannot be told. Not to be changed."""
    raw, other = (volume.astype(np.int16) for volume in phantom_volumes()[:2])
    hu = raw - np.int16(1024)
    made: dict[str, tuple[np.ndarray, float | None]] = {
        "raw": (raw, RAW),
        "raw, unsigned": (raw.astype(np.uint16), RAW),
        "raw with rounding errors": (raw + np.float32(1e-4), RAW),
        "raw without noise": (np.select([raw > 900, raw > 500], [1060, 750], 20).astype(np.int16), RAW),
        "raw, resampled, padding -1024": (shifted(padded(raw, -1024)), RAW),
        "raw, resampled, padding -32768": (shifted(padded(raw, -32768)), RAW),
        "raw, first slices only padding": (empty_first(raw, -1024, 20), RAW),
        "raw, 24 voxels of air": (with_voxels(raw, -900, -877), RAW),
        "HU": (hu, HU),
        "HU, other phantom": (other.astype(np.float32) - 1024, HU),
        "HU without noise": (np.select([raw > 900, raw > 500], [36, -850], -1000).astype(np.int16), HU),
        "HU, resampled, padding -2000": (shifted(padded(hu, -2000)), HU),
        "HU, first slices without air": (bodies_first(hu, 20), HU),
        "HU, only the last slices have air": (bodies_first(hu, hu.shape[2] - 2), HU),
        "HU, first slices only padding": (empty_first(hu, -3024, 20), HU),
        "HU, heart with little lung": (little_lung(hu), HU),
        "HU, a tenth metal": (with_share(hu, 1000, 0.1), HU),
        "half HU, half raw": (np.concatenate([hu, raw], 2), None),
        "half raw, half HU": (np.concatenate([raw, hu], 2), None),
        "first slices raw, most HU": (np.concatenate([raw[..., :18], *[hu] * 9], 2), None),
        "first slices HU, most raw": (np.concatenate([hu[..., :18], *[raw] * 400], 2)[::4, ::4], None),
        "a third metal": (with_share(hu, 1000, 0.35), None),
        "uniform": (np.random.default_rng(0).integers(0, 2048, hu.shape), None),
        "label map": ((raw > 1000).astype(np.uint8), None),
        "two slices": (hu[..., 20:22], HU),
        "one slice": (raw[..., 20:21], RAW),
    }
    made |= {f"constant {value}": (np.full((9, 9, 9), value, np.int16), None) for value in (-1024, -500, 0, 36)}
    for value in (-1000, -1024, -2000, -3024, -32768):
        made[f"raw, padding {value}"] = padded(raw, value), RAW
        made[f"HU, padding {value}"] = padded(hu, value), HU
    return made


def padded(values: np.ndarray, padding: int) -> np.ndarray:
    """Padding outside the round field of view."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in values.shape[:2]), indexing="ij")
    return np.where((np.hypot(x, y) > 1)[..., None], np.int16(padding), values)


def shifted(values: np.ndarray) -> np.ndarray:
    """Resampled half a voxel away, lines between neighbours: padding and body are mixed along every edge."""
    return np.rint(ndimage.shift(values.astype(np.float32), 0.5, order=1, mode="nearest")).astype(np.int16)


def empty_first(values: np.ndarray, padding: int, slices: int) -> np.ndarray:
    """Slices of padding before the others, and one between that is half of both."""
    empty = np.full((*values.shape[:2], slices), padding, np.int16)
    return np.concatenate([empty, (values[..., :1] + np.int16(padding)) // 2, values], 2)


def bodies_first(values: np.ndarray, slices: int) -> np.ndarray:
    """No air in the first slices."""
    return np.where((np.arange(values.shape[2]) < slices) & (values < -150), np.int16(40), values)


def little_lung(values: np.ndarray) -> np.ndarray:
    """Air in 0.5 % of the voxels, as many values as it has."""
    rng = np.random.default_rng(0)
    return np.where((values < -150) & (rng.random(values.shape) > 0.01), np.int16(40), values)


def with_voxels(values: np.ndarray, first: int, last: int) -> np.ndarray:
    """One voxel each of the values from first to last, in the middle."""
    changed = values.copy()
    changed.reshape(-1)[values.size // 2 :][: last - first + 1] = np.arange(first, last + 1)
    return changed


def with_share(values: np.ndarray, value: int, share: float) -> np.ndarray:
    """One value in a share of the voxels."""
    return np.where(np.random.default_rng(0).random(values.shape) < share, np.int16(value), values)
