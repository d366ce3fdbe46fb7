"""What the phantom is made of: heart and chest as layers of one material each, in the order in which they are painted.

Owns labels, priorities where solids meet, and the chest. Shapes of the heart are
`anatomy`'s, voxels `volume`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from monai_chd.labels import MYOCARDIUM
from monai_chd.phantom.anatomy import Anatomy, Floats, Tube, solid_field

LABELS = {"LV": 1, "RV": 2, "LA": 3, "PV": 3, "APV": 3, "RA": 4, "SVC": 4, "IVC": 4, "AO": 6, "PA": 7}
"""Numbers of `labels.STRUCTURES` for the parts of a heart."""

GROUPS = (("AO",), ("PA",), ("LV",), ("LA", "PV"), ("APV",), ("RV",), ("RA", "SVC", "IVC"))
"""Parts that share a lumen, in the order in which one keeps its shape where two would overlap."""


@dataclass(frozen=True)
class Layer:
    """A solid of one material, painted over what lies below it.

    Attributes:
        field: signed distance in mm on the coarse grid, negative inside, shape (X, Y, Z).
        hu: HU of the material.
        label: number in the label map, None where the map keeps what is below.
    """

    field: Floats
    hu: float
    label: int | None = 0


def heart_layers(heart: Anatomy, points: Floats, levels: Mapping[str, float], wall: float) -> list[Layer]:
    """Pericardium, myocardium, openings, blood pools, in the order of painting.

    Args:
        heart: the anatomy.
        points: mm, shape (3, X, Y, Z).
        levels: nuisances with the `hu_…` keys.
        wall: least distance in mm between the lumens of two groups.
    """
    parts = list(LABELS)
    pools = {part: solid_field([s for s in heart.shapes.values() if s.part == part], points) for part in parts}
    earlier: dict[str, Floats] = {}
    for group in GROUPS:
        for part in group:
            for other, lumen in earlier.items():
                septum = heart.lv_wall if {part, other} == {"LV", "RV"} else wall
                np.maximum(pools[part], septum - lumen, out=pools[part])
        earlier |= {part: pools[part] for part in group}
    ventricle = np.maximum(pools["LV"] - np.float32(heart.lv_wall), _beyond_base(points))
    myocardium = np.minimum(ventricle, pools["RV"] - np.float32(heart.rv_wall))
    open_parts = {
        part: solid_field([t for t in heart.openings.values() if t.part == part], points)
        for part in parts
        if any(tube.part == part for tube in heart.openings.values())
    }
    hull = np.minimum.reduce([myocardium, *pools.values(), *open_parts.values()])
    layers = [Layer(hull - np.float32(1.8), levels["hu_soft"]), Layer(myocardium, levels["hu_myocardium"], MYOCARDIUM)]
    layers += [Layer(field, levels[f"hu_{part}"], LABELS[part]) for part, field in open_parts.items()]
    return layers + [Layer(pools[part], levels[f"hu_{part}"], LABELS[part]) for part in reversed(parts)]


def _beyond_base(points: Floats) -> Floats:
    """Distance in mm past the plane of the mitral ring, where the ventricle's wall ends."""
    x, y, z = points
    return np.asarray(0.74 * (x + 13) - 0.5 * (y + 2) + 0.45 * (z + 9), np.float32)


def chest_layers(points: Floats, hull: Floats, levels: Mapping[str, float], rng: np.random.Generator) -> list[Layer]:
    """Skin to spine without the heart, in the order of painting.

    Args:
        points: mm, shape (3, X, Y, Z).
        hull: signed distance to the heart and its vessels; lungs leave room for it.
        levels: nuisances with the `hu_…` keys.
        rng: stream of the lung's small vessels.
    """
    x, y, z = points
    body = (_barrel(x + 3, y + 3, 81, 69, 2.3) - 1) * 69
    dome = np.sqrt(np.maximum(0, 1 - ((np.maximum(z, -20) + 20) / 118) ** 4)) + np.float32(1e-3)
    cavity = (_barrel((x + 3) / dome, y / dome, 68, 53, 2.4) - 1) * 53
    spine = np.minimum(np.hypot(x / 15, (y + 48) / 11) - 1, np.hypot(x / 6, (y + 62) / 9) - 1) * 10
    abdomen = (np.sqrt(((x - 20) / 84) ** 2 + ((y + 2) / 62) ** 2 + ((z + 110) / 76) ** 4) - 1) * 50
    mediastinum = np.abs(x) - (10 - 0.08 * y)
    lung = np.maximum.reduce([cavity, -mediastinum, 3.5 - hull, -abdomen, 4 - spine])
    ribs = np.hypot(cavity - 4, _every(z + 0.5 * y, 19)) - np.float32(2.8)
    ribs = np.maximum(ribs, np.float32(9) - np.abs(x))
    sternum = (np.sqrt((x / 13) ** 2 + ((y - 56) / 4.5) ** 2) - 1) * 4.5
    airway = _airway(points)
    vessels = np.maximum(_threads(points, rng) - np.float32(1.1), lung + 2)
    soft, fat, bone = levels["hu_soft"], levels["hu_fat"], levels["hu_bone"]
    return [
        Layer(body, fat),
        Layer(np.maximum(body + 7, -(cavity - 1)), soft),
        Layer(cavity - 1, soft),
        Layer(cavity, fat),
        Layer(lung, levels["hu_lung"]),
        Layer(vessels, 60.0),
        Layer(np.maximum(abdomen, cavity), levels["hu_liver"]),
        Layer(np.minimum.reduce([spine, ribs, np.maximum(sternum, -30 - z)]), bone),
        Layer(np.maximum(np.hypot(x, y + 48) - 9, -_every(z, 21) + 3), bone - 200),
        Layer(np.hypot(x, y + 62) - 5.5, soft),
        Layer(airway - np.float32(1.6), soft),
        Layer(airway, levels["hu_air"]),
    ]


def _barrel(x: Floats, y: Floats, a: float, b: float, power: float) -> Floats:
    """1 on the outline of a rounded box of half axes a and b, less inside."""
    squared = np.abs(x / np.float32(a)) ** np.float32(power) + np.abs(y / np.float32(b)) ** np.float32(power)
    return np.asarray(squared ** np.float32(1 / power), np.float32)


def _every(z: Floats, pitch: float) -> Floats:
    """Distance in mm to the nearest of planes that repeat with a pitch."""
    return np.asarray(np.abs((z + pitch / 2) % pitch - pitch / 2), np.float32)


def _airway(points: Floats) -> Floats:
    """Signed distance in mm to the lumen of trachea and main bronchi."""
    trachea = Tube("AIR", [(4, -20, 95), (4, -20, 32)], [4.6, 4.6])
    right = Tube("AIR", [(4, -20, 32), (22, -24, 22), (36, -27, 12)], [4.2, 3.6, 2.6])
    left = Tube("AIR", [(4, -20, 32), (-14, -22, 24), (-32, -23, 15)], [4, 3.4, 2.6])
    return solid_field([trachea, right, left], points)


def _threads(points: Floats, rng: np.random.Generator) -> Floats:
    """Distance in mm to a tangle of lines: where two smooth random fields are both zero."""
    squared = np.zeros(points.shape[1:], np.float32)
    rate = np.float32(2 * np.pi / 30)
    for _ in range(2):
        waves = np.zeros_like(squared)
        for _ in range(5):
            direction = rng.standard_normal(3)
            direction *= rate / np.linalg.norm(direction)
            phase = np.float32(rng.uniform(0, 2 * np.pi))
            waves += np.sin(sum((np.float32(direction[i]) * points[i] for i in range(3)), phase))
        squared += waves**2
    return np.asarray(np.sqrt(squared / 2.5) / rate, np.float32)
