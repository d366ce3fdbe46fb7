"""What each diagnosis flag does to the shape of the phantom's heart: one edit per populated flag of `labels.FLAGS`.

Edits move, widen, narrow, add or remove solids of `anatomy`; intensity is out of their reach. Numbers are mm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from monai_chd.errors import UserError
from monai_chd.labels import FLAGS
from monai_chd.phantom.anatomy import Anatomy, Point, Tube


@dataclass(frozen=True)
class Extent:
    """Draws how far a lesion goes.

    Attributes:
        rng: stream of this patient's lesions; nuisances have their own.
        least: share of the way from mild to severe that every lesion goes at least, 0 to 1.
    """

    rng: np.random.Generator
    least: float = 0.0

    def __call__(self, mild: float, severe: float) -> float:
        """A value between the two ends."""
        return float(mild + (severe - mild) * self.rng.uniform(self.least, 1.0))

    def coin(self) -> bool:
        """One of two variants."""
        return bool(self.rng.random() < 0.5)


def _asd(heart: Anatomy, extent: Extent) -> None:
    """A hole in the atrial septum; the right heart is a little larger."""
    radius = extent(4.0, 8.5)
    heart.openings["asd"] = Tube("LA", [(6, -10, 2), (22, -1, 0)], [radius, 0.8 * radius])
    for part in ("RA", "RV"):
        heart.scale(part, extent(1.02, 1.06))


def _vsd(heart: Anatomy, extent: Extent) -> None:
    """A hole in the ventricular septum near its base."""
    _open_septum(heart, extent(3.0, 6.5))


def _open_septum(heart: Anatomy, radius: float) -> None:
    """Join the ventricles by a tube of that radius in mm; a wider one that is there already stays."""
    if "vsd" in heart.openings:
        radius = max(radius, *heart.openings["vsd"].radii)
    heart.openings["vsd"] = Tube("LV", [(-22, 7, -11), (-8, 26, -8)], [radius, radius])


def _tof(heart: Anatomy, extent: Extent) -> None:
    """Fallot: a large VSD, a wide aorta riding over it, a narrow way to the lungs, a thick right ventricle."""
    _open_septum(heart, extent(5.5, 6.5))
    ascending = heart.tube("aorta_ascending")
    assert ascending is not None
    ascending.knots[:2] = [(-7, 14, 1), (-3, 12, 10)]
    heart.narrow("aorta_ascending", extent(1.15, 1.35), 0, 3)
    heart.openings["aortic_override"] = Tube("AO", [(-6, 15, 1), (-5, 25, -5)], [8, 6.5])
    narrowing = extent(0.6, 0.35)
    heart.narrow("rv_outflow", narrowing, 1)
    for name in ("pulmonary_valve", "pa_trunk"):
        heart.narrow(name, narrowing)
    for name in ("pa_left", "pa_right"):
        heart.narrow(name, narrowing**0.5)
    heart.rv_wall *= extent(1.6, 2.3)


def _tga(heart: Anatomy, extent: Extent) -> None:
    """The aorta rises from the right ventricle, in front; the pulmonary trunk from the left ventricle, behind."""
    forward = extent(0.0, 3.0)
    heart.shapes["rv_outflow"] = Tube("RV", [(-8, 30, -12), (-6, 29, -4), (-4, 28 + forward, 2)], [12, 11, 10])
    heart.shapes["aorta_ascending"] = Tube(
        "AO", [(-3, 27 + forward, 5), (-1, 24 + forward, 14), (3, 17, 26), (6, 10, 34)], [10, 9.5, 9, 8.5]
    )
    heart.openings["aortic_valve"] = Tube("AO", [(-3, 28 + forward, 5), (-6, 29, -5)], [8.5, 8.5])
    heart.shapes["pa_trunk"] = Tube("PA", [(-9, 5, 3), (-14, 7, 13), (-16, 7, 22), (-15, 6, 28)], [9, 8.6, 8.3, 8])
    heart.openings["pulmonary_valve"] = Tube("PA", [(-9, 6, 3), (-18, 5, -9)], [8, 8])
    heart.openings.pop("aortic_override", None)


def _dorv(heart: Anatomy, extent: Extent) -> None:
    """Both great arteries rise from the right ventricle, side by side; a VSD is the left ventricle's only way out."""
    aside = extent(0.0, 3.0)
    heart.shapes["aorta_ascending"] = Tube(
        "AO", [(3 + aside, 25, 2), (5, 22, 12), (7, 15, 24), (6, 10, 34)], [10, 9.5, 9, 8.5]
    )
    heart.openings["aortic_valve"] = Tube("AO", [(3 + aside, 26, 2), (-3, 28, -8)], [8.5, 8.5])
    heart.openings.pop("aortic_override", None)
    _open_septum(heart, extent(5.5, 6.5))


def _cat(heart: Anatomy, extent: Extent) -> None:
    """One wide trunk above a VSD gives the aorta and, from its side, the pulmonary arteries."""
    _open_septum(heart, extent(5.5, 6.5))
    ascending = heart.tube("aorta_ascending")
    assert ascending is not None
    ascending.knots[:3] = [(-8, 14, 1), (-5, 13, 10), (2, 11, 22)]
    heart.narrow("aorta_ascending", extent(1.2, 1.45), 0, 3)
    heart.openings["aortic_override"] = Tube("AO", [(-7, 15, 1), (-6, 26, -4)], [9, 8])
    heart.openings["aortic_valve"] = Tube("AO", [(-8, 12, 2), (-16, 6, -8)], [9, 8])
    heart.shapes["pa_trunk"] = Tube("PA", [(-9, 9, 20), (-13, 7, 25), (-15, 6, 28)], [6, 6.5, 7])
    heart.openings["pulmonary_valve"] = Tube("PA", [(-1, 11, 17), (-13, 7, 25)], [5.5, 5.5])
    heart.shapes["rv_outflow"] = Tube("RV", [(-9, 30, -10), (-12, 30, -4)], [12, 10])


def _ca(heart: Anatomy, extent: Extent) -> None:
    """Coarctation: a short narrowing where the arch turns into the descending aorta."""
    heart.narrow("aorta_arch", extent(0.5, 0.3), 4, 5)
    heart.narrow("aorta_arch", 0.8, 5)
    heart.lv_wall *= extent(1.05, 1.2)


def _aah(heart: Anatomy, extent: Extent) -> None:
    """Arch hypoplasia: the whole arch beyond its first branch is narrow."""
    heart.narrow("aorta_arch", extent(0.65, 0.45), 2, 5)


def _daa(heart: Anatomy, extent: Extent) -> None:
    """A second arch on the other side closes a ring around trachea and oesophagus."""
    arch = heart.tube("aorta_arch")
    assert arch is not None
    mirrored = arch.knots[-1][0] > 0
    knots: list[Point] = [
        (6, 10, 34),
        (14, 3, 42),
        (18, -10, 45),
        (16, -23, 42),
        (6, -31, 37),
        (-8, -34, 31),
        (-17, -34, 27),
    ]
    if mirrored:
        knots[1:] = [(8 - x, y, z) for x, y, z in knots[1:]]
    radius = extent(4.5, 6.0)
    heart.shapes["aorta_second_arch"] = Tube(
        "AO", knots, [radius + 1, radius, radius, radius, radius - 1, radius - 1, radius]
    )


def _iaa(heart: Anatomy, extent: Extent) -> None:
    """Interrupted arch: it ends behind the second branch; the third branch hangs on the descending aorta."""
    arch, branch = heart.tube("aorta_arch"), heart.tube("left_subclavian")
    assert arch is not None and branch is not None
    distal = Tube("AO", arch.knots[4:], arch.radii[4:])
    heart.shapes["aorta_isthmus"] = distal
    x, y, z = distal.knots[0]
    branch.knots[0] = (x, y + 3, z + 1)
    shorter = extent(0.0, 3.0)
    x, y, z = arch.knots[2]
    arch.knots, arch.radii = [*arch.knots[:2], (x, y + shorter, z)], [*arch.radii[:2], arch.radii[2] * 0.85]
    heart.shapes.pop("aorta_second_arch", None)


def _pa(heart: Anatomy, extent: Extent) -> None:
    """Pulmonary atresia: no way from a ventricle to the lungs, small branches, a thick right ventricle."""
    heart.openings.pop("pulmonary_valve", None)
    heart.shapes.pop("pa_trunk", None)
    heart.shapes["rv_outflow"] = Tube("RV", [(-9, 30, -10), (-12, 30, -4)], [11, 8])
    size = extent(0.75, 0.55)
    for name in ("pa_left", "pa_right"):
        heart.narrow(name, size)
    heart.rv_wall *= extent(1.3, 1.8)


def _apvc(heart: Anatomy, extent: Extent) -> None:
    """Pulmonary veins miss the left atrium: all of them end in the right atrium, or the right pair only."""
    for name in ("pv_right_upper", "pv_right_lower"):
        heart.shapes.pop(name, None)
    heart.shapes["anomalous_upper"] = Tube("APV", [(33, 1, 15), (40, -1, 16), (48, -4, 18)], [4.2, 4, 3])
    heart.openings["anomalous_upper"] = Tube("APV", [(23, 6, 13), (34, 1, 15)], [4.2, 4.2])
    heart.shapes["anomalous_lower"] = Tube("APV", [(30, -17, -4), (36, -22, -8), (48, -29, -12)], [4.2, 4.2, 3])
    heart.openings["anomalous_lower"] = Tube("APV", [(25, 4, -4), (31, -18, -4)], [4.2, 4.2])
    if extent.coin():
        _drain_left_veins_right(heart)


def _drain_left_veins_right(heart: Anatomy) -> None:
    """Lead the left pulmonary veins behind a small left atrium to the anomalous right ones."""
    for name in ("pv_left_upper", "pv_left_lower"):
        heart.shapes.pop(name, None)
    heart.scale("LA", 0.85)
    heart.shapes["confluence"] = Tube(
        "APV", [(30, -18, -4), (18, -29, -1), (0, -31, 1), (-9, -28, 1), (-26, -24, 2)], [4.5] * 5
    )
    heart.shapes["confluence_upper"] = Tube("APV", [(-26, -24, 2), (-34, -14, 12), (-46, -7, 17)], [4.2, 4, 3])
    heart.shapes["confluence_lower"] = Tube("APV", [(-26, -24, 2), (-34, -27, -6), (-46, -30, -11)], [4.2, 4, 3])


def _dsvc(heart: Anatomy, extent: Extent) -> None:
    """A left superior cava too: down left of the arch and through the groove behind the heart into the right atrium."""
    heart.shapes.pop("la_appendage", None)
    radius = extent(3.8, 5.2)
    knots: list[Point] = [(-27, 6, 95), (-29, 5, 50), (-32, 3, 34), (-32, 2, 20), (-30, -1, 9)]
    knots += [(-27, -11, -3), (-23, -17, -11), (-12, -20, -17), (4, -15, -21), (18, -2, -22), (23, 5, -20)]
    heart.shapes["left_svc"] = Tube("SVC", knots, [radius] * len(knots))


def _pda(heart: Anatomy, extent: Extent) -> None:
    """An open duct from the pulmonary bifurcation to the arch's end; the left heart is a little larger."""
    arch = heart.tube("aorta_isthmus") or heart.tube("aorta_arch")
    left, right = heart.tube("pa_left"), heart.tube("pa_right")
    assert arch is not None and right is not None
    aortic_end = arch.knots[-2]
    start: Point = right.knots[2] if aortic_end[0] > 0 else (-19, 1, 30) if left else right.knots[0]
    radius = extent(2.6, 4.5)
    heart.openings["pda"] = Tube("PA", [start, aortic_end], [radius + 0.6, radius])
    for part in ("LA", "LV"):
        heart.scale(part, extent(1.01, 1.04))


def _pas(heart: Anatomy, extent: Extent) -> None:
    """Sling: the left pulmonary artery leaves the right one and passes behind the trachea."""
    heart.shapes.pop("pa_left", None)
    radius = extent(5.2, 4.2)
    knots: list[Point] = [(13, -8, 30), (16, -19, 34), (9, -29, 37), (-3, -28, 36), (-16, -19, 33), (-31, -14, 30)]
    knots += [(-40, -20, 26), (-50, -27, 19)]
    heart.shapes["pa_sling"] = Tube("PA", knots, [radius + 0.5] + [radius] * 5 + [radius - 0.5, 3])


LESIONS: dict[str, Callable[[Anatomy, Extent], None]] = {
    "ASD": _asd,
    "VSD": _vsd,
    "ToF": _tof,
    "TGA": _tga,
    "DORV": _dorv,
    "CAT": _cat,
    "CA": _ca,
    "AAH": _aah,
    "DAA": _daa,
    "IAA": _iaa,
    "PA": _pa,
    "APVC": _apvc,
    "DSVC": _dsvc,
    "PDA": _pda,
    "PAS": _pas,
}
"""One edit of the anatomy per flag; AVSD, empty in ImageCHD, has none."""


def check_flags(flags: Iterable[str]) -> list[str]:
    """Return the flags in the order of `labels.FLAGS`.

    Raises:
        UserError: a name that is no flag, or AVSD, which has no geometry.
    """
    wanted = set(flags)
    bad = sorted(wanted - set(LESIONS))
    if bad:
        raise UserError(
            f"cannot draw {', '.join(bad)}: expected diagnosis flags out of {', '.join(LESIONS)}"
            + (
                "; AVSD has no patient in ImageCHD and no geometry here, combine ASD+VSD instead"
                if "AVSD" in bad
                else ""
            )
        )
    return [flag for flag in FLAGS if flag in wanted]


def apply_lesions(heart: Anatomy, flags: Iterable[str], extent: Extent) -> None:
    """Edit a heart in place, flag by flag in the order of `labels.FLAGS`.

    Args:
        heart: a fresh normal heart.
        flags: diagnosis flags, any set without AVSD.
        extent: draws how far each lesion goes.

    Raises:
        UserError: a flag without geometry.
    """
    for flag in check_flags(flags):
        LESIONS[flag](heart, extent)
