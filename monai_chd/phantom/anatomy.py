"""The heart and great vessels of the phantom as solids in mm, without lesion.

Owns the solids, their distance fields and the normal heart. Knows nothing of diagnoses, voxels or intensities.

Frame: millimetres in the patient, +x to the right, +y anterior, +z to the head; x = 0 is the midline, the aortic
valve lies near the origin. Sizes are those of a child. A *part* is a blood pool of one name; an *opening* is a tube
that stays open through the wall between two parts (valve, defect, duct) and belongs to the part it is named with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Point = tuple[float, float, float]
FAR = 40.0
"""Distance in mm that stands for 'nowhere near': solids are evaluated only where they can matter."""
MARGIN = 8.0
"""Distance in mm around a solid within which its field is exact; walls and the blurred edge need no more."""


@dataclass
class Ellipsoid:
    """An ellipsoid of one part.

    Attributes:
        part: blood pool it belongs to.
        centre: mm.
        radii: half axes in mm; the first lies along `axis`.
        axis: direction of the first half axis, any length.
    """

    part: str
    centre: Point
    radii: Point
    axis: Point = (1.0, 0.0, 0.0)

    def frame(self) -> Floats:
        """Rows are the directions of the half axes, shape (3, 3); the third stays as near to +z as it can."""
        first = np.asarray(self.axis) / np.linalg.norm(self.axis)
        second = np.cross((0.0, 0.0, 1.0), first)
        second /= np.linalg.norm(second)
        return np.stack([first, second, np.cross(first, second)]).astype(np.float32)

    def bounds(self) -> tuple[Floats, Floats]:
        """Corners in mm of a box that holds the ellipsoid."""
        centre, reach = np.asarray(self.centre, np.float32), np.float32(max(self.radii))
        return centre - reach, centre + reach

    def distance(self, points: Floats) -> Floats:
        """Signed distance in mm at points of shape (3, n), negative inside; exact only at the surface."""
        local = self.frame() @ (points - np.asarray(self.centre, np.float32)[:, None])
        scaled = local / np.asarray(self.radii, np.float32)[:, None]
        steepness = np.sqrt(np.square(scaled / np.asarray(self.radii, np.float32)[:, None]).sum(0)) + np.float32(1e-6)
        level = np.sqrt(np.square(scaled).sum(0))
        distance: Floats = np.maximum(level * (level - 1) / steepness, -np.float32(min(self.radii)))
        return distance


@dataclass
class Tube:
    """A smooth tube of one part through given knots.

    Attributes:
        part: blood pool it belongs to.
        knots: two or more points in mm.
        radii: radius in mm at each knot.
    """

    part: str
    knots: list[Point]
    radii: list[float]

    def bounds(self) -> tuple[Floats, Floats]:
        """Corners in mm of a box that holds the tube."""
        knots, reach = np.asarray(self.knots, np.float32), np.float32(1.2 * max(self.radii))
        return knots.min(0) - reach, knots.max(0) + reach

    def centreline(self) -> tuple[Floats, Floats]:
        """Catmull-Rom line through the knots: points (m, 3) and radii (m,), three steps between two knots."""
        line = np.column_stack([np.asarray(self.knots), np.asarray(self.radii)])
        if len(line) > 2:
            padded = np.vstack([2 * line[0] - line[1], line, 2 * line[-1] - line[-2]])
            before, start, end, after = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]
            t = np.arange(3)[None, :, None] / 3
            bends = 2 * start + (end - before) * t + (2 * before - 5 * start + 4 * end - after) * t**2
            bends = (bends + (3 * start - before - 3 * end + after) * t**3) / 2
            line = np.vstack([bends.reshape(-1, 4), line[-1:]])
        return line[:, :3].astype(np.float32), line[:, 3].astype(np.float32)

    def distance(self, points: Floats) -> Floats:
        """Signed distance in mm at points of shape (3, n), negative inside; the ends are round."""
        line, radii = self.centreline()
        nearest = np.full(points.shape[1], FAR, np.float32)
        for a, b, ra, rb in zip(line[:-1], line[1:], radii[:-1], radii[1:], strict=True):
            along = b - a
            offset = points - a[:, None]
            share = np.clip((along @ offset) / max(float(along @ along), 1e-6), 0, 1).astype(np.float32)
            gap = np.sqrt(np.square(offset - along[:, None] * share).sum(0)) - (ra + (rb - ra) * share)
            np.minimum(nearest, gap, out=nearest)
        return nearest


Shape = Ellipsoid | Tube


def solid_field(shapes: Iterable[Shape], points: Floats) -> Floats:
    """Signed distance to a union of solids, shape (X, Y, Z) for points of shape (3, X, Y, Z); `FAR` well outside."""
    flat = points.reshape(3, -1)
    nearest = np.full(flat.shape[1], FAR, np.float32)
    for shape in shapes:
        low, high = shape.bounds()
        near = np.ones(flat.shape[1], bool)
        for axis in range(3):
            near &= (flat[axis] > low[axis] - MARGIN) & (flat[axis] < high[axis] + MARGIN)
        inside = np.flatnonzero(near)
        if inside.size:
            nearest[inside] = np.minimum(nearest[inside], shape.distance(flat[:, inside]))
    return nearest.reshape(points.shape[1:])


@dataclass
class Anatomy:
    """One heart that lesions may edit.

    Attributes:
        shapes: solids by name; parts are unions of them.
        openings: tubes by name that stay open through walls.
        lv_wall: thickness in mm of the left ventricle's wall and of the septum.
        rv_wall: thickness in mm of the right ventricle's free wall.
    """

    shapes: dict[str, Shape]
    openings: dict[str, Tube]
    lv_wall: float = 6.5
    rv_wall: float = 2.6

    def tube(self, name: str) -> Tube | None:
        """The tube of that name, None when a lesion has removed it."""
        shape = self.shapes.get(name)
        return shape if isinstance(shape, Tube) else None

    def scale(self, part: str, factor: float) -> None:
        """Multiply all radii of a part by a factor; positions stay."""
        for shape in self.shapes.values():
            if shape.part == part and isinstance(shape, Ellipsoid):
                a, b, c = shape.radii
                shape.radii = (a * factor, b * factor, c * factor)
            elif shape.part == part and isinstance(shape, Tube):
                shape.radii = [radius * factor for radius in shape.radii]

    def narrow(self, name: str, factor: float, first: int = 0, last: int | None = None) -> None:
        """Multiply the radii of knots first..last (exclusive) of a tube by a factor, where the tube exists."""
        tube = self.shapes.get(name) or self.openings.get(name)
        if isinstance(tube, Tube):
            tube.radii[first:last] = [radius * factor for radius in tube.radii[first:last]]


def normal_heart(*, right_arch: bool = False) -> Anatomy:
    """A heart without lesion.

    Args:
        right_arch: the aortic arch runs to the right of the trachea; a variant, no lesion.
    """
    shapes: dict[str, Shape] = {
        "lv": Ellipsoid("LV", (-30, 10, -20), (30, 15, 15), (-0.74, 0.5, -0.45)),
        "rv": Ellipsoid("RV", (-8, 27, -18), (32, 18, 20), (-0.85, 0.42, -0.3)),
        "rv_outflow": Tube("RV", [(-9, 30, -10), (-14, 30, 0), (-17, 26, 8)], [12, 10, 9]),
        "la": Ellipsoid("LA", (-2, -13, -1), (21, 11.5, 16)),
        "la_appendage": Tube("LA", [(-18, -8, 7), (-27, 0, 9), (-30, 6, 9)], [7, 6, 4]),
        "ra": Ellipsoid("RA", (24, 8, -12), (15, 17, 22)),
        "aorta_ascending": Tube("AO", [(-6, 8, 2), (-2, 9, 10), (4, 10, 22), (6, 10, 34)], [10.5, 9.5, 9, 8.5]),
        "aorta_arch": Tube(
            "AO",
            [(6, 10, 34), (4, 5, 43), (-2, -6, 49), (-10, -20, 47), (-15.5, -30, 39), (-17, -34, 28)],
            [8.5, 8, 7.5, 7, 6.8, 6.8],
        ),
        "aorta_descending": Tube(
            "AO", [(-17, -34, 28), (-17, -35, 0), (-14, -36, -40), (-10, -37, -95)], [6.8, 6.6, 6.2, 6]
        ),
        "brachiocephalic": Tube("AO", [(3, 3, 47), (7, 1, 60), (10, 0, 90)], [4.5, 4.2, 4]),
        "left_carotid": Tube("AO", [(-3, -8, 50), (-6, -9, 62), (-8, -9, 90)], [3.2, 3, 3]),
        "left_subclavian": Tube("AO", [(-8, -17, 49), (-13, -19, 62), (-17, -19, 90)], [3.4, 3.2, 3.2]),
        "pa_trunk": Tube("PA", [(-17, 25, 10), (-18, 17, 20), (-15, 6, 28)], [8.8, 8.6, 8]),
        "pa_left": Tube(
            "PA", [(-15, 6, 28), (-22, -2, 31), (-31, -12, 30), (-40, -20, 26), (-50, -27, 19)], [7, 6, 5.5, 4.5, 3]
        ),
        "pa_right": Tube(
            "PA",
            [(-15, 6, 28), (-6, -3, 30), (6, -7, 30), (20, -9, 29), (34, -12, 27), (48, -17, 23)],
            [7, 6.5, 6, 6, 5, 3],
        ),
        "pv_left_upper": Tube("PV", [(-14, -13, 7), (-28, -11, 11), (-46, -7, 17)], [5, 4.2, 3]),
        "pv_left_lower": Tube("PV", [(-12, -16, -2), (-26, -23, -6), (-46, -30, -11)], [5, 4.2, 3]),
        "pv_right_upper": Tube("PV", [(12, -13, 7), (30, -9, 13), (48, -4, 18)], [5, 4.2, 3]),
        "pv_right_lower": Tube("PV", [(12, -16, -2), (30, -22, -7), (48, -29, -12)], [5, 4.2, 3]),
        "svc": Tube("SVC", [(23, 7, 95), (24, 6, 40), (24, 6, 2)], [6, 6, 7]),
        "ivc": Tube("IVC", [(22, 4, -26), (20, -4, -48), (18, -10, -95)], [8, 8, 8.5]),
    }
    openings = {
        "mitral": Tube("LV", [(-20, 4, -13), (-9, -6, -5)], [10, 10]),
        "tricuspid": Tube("RV", [(8, 20, -17), (22, 11, -15)], [11, 11]),
        "aortic_valve": Tube("AO", [(-6, 8, 3), (-17, 5, -9)], [9, 8.5]),
        "pulmonary_valve": Tube("PA", [(-17, 25, 11), (-15, 29, 2)], [8, 8]),
    }
    heart = Anatomy(shapes, openings)
    if right_arch:
        _mirror_arch(heart)
    return heart


def _mirror_arch(heart: Anatomy) -> None:
    """Lay arch, descending aorta and arch branches on the other side of the trachea; the ascending aorta stays."""
    for name in ("aorta_arch", "aorta_descending", "brachiocephalic", "left_carotid", "left_subclavian"):
        tube = heart.tube(name)
        assert tube is not None
        kept = 1 if name == "aorta_arch" else 0
        tube.knots[kept:] = [(8 - x, y, z) for x, y, z in tube.knots[kept:]]
