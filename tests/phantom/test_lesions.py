"""Every diagnosis flag changes the label map in the way its name says, against the same heart without it."""

from functools import cache
from itertools import combinations

import numpy as np
import pytest
from scipy import ndimage

from monai_chd.labels import FLAGS
from monai_chd.phantom.anatomy import normal_heart
from monai_chd.phantom.layers import LABELS
from monai_chd.phantom.lesions import LESIONS, Extent, apply_lesions, check_flags
from monai_chd.phantom.volume import make_volume

LV, RV, LA, RA, MYOCARDIUM, AO, PA = range(1, 8)
NORMAL_CONTACTS = {(LV, LA), (LV, AO), (RV, RA), (RV, PA)}
SEED = 3


@cache
def volume(diagnosis="", seed=SEED):
    flags = diagnosis.split("+") if diagnosis else []
    return make_volume(flags, seed=seed, size=96, slices=(56, 56))


def labels(diagnosis="", seed=SEED):
    return volume(diagnosis, seed)[1]


def contact(numbers, a, b):
    """Voxel faces between two structures."""
    faces = 0
    for axis in range(3):
        n = np.moveaxis(numbers, axis, 0)
        faces += np.sum((n[:-1] == a) & (n[1:] == b)) + np.sum((n[:-1] == b) & (n[1:] == a))
    return int(faces)


def contacts(numbers, least=8):
    """Pairs of lumens that share more than a stray face."""
    return {pair for pair in combinations((LV, RV, LA, RA, AO, PA), 2) if contact(numbers, *pair) >= least}


def pieces(mask, least=20):
    """Connected pieces of at least so many voxels."""
    found, _ = ndimage.label(mask)
    return int(np.sum(np.bincount(found.ravel())[1:] >= least))


def euler_number(mask):
    """Pieces minus tunnels plus cavities of the union of closed voxel cubes: vertices - edges + faces - cubes."""
    padded = np.pad(mask, 1)
    number = 0
    for axes in range(8):
        cells = padded
        for axis in range(3):
            if not axes >> axis & 1:  # the cell has no length along this axis: it lies between two cubes
                cells = np.moveaxis(cells, axis, 0)
                cells = np.moveaxis(cells[:-1] | cells[1:], 0, axis)
        number += (-1) ** bin(axes).count("1") * int(cells.sum())
    return number


def narrowest(aorta):
    """Largest radius in voxels of a ball that passes from the widest place to the descending aorta below."""
    depth = ndimage.distance_transform_edt(np.pad(aorta, 1))[1:-1, 1:-1, 1:-1]
    start = np.unravel_index(depth.argmax(), depth.shape)
    end = np.unravel_index(depth[:, :, 4].argmax(), depth.shape[:2])
    found = {radius: ndimage.label(depth > radius)[0] for radius in np.arange(0, 6, 0.25)}
    return max((r for r, pieces in found.items() if pieces[start] and pieces[start] == pieces[(*end, 4)]), default=0.0)


def test_normal_heart_has_only_normal_contacts_and_whole_structures():
    for seed in (0, 1, SEED, 20):
        numbers = labels(seed=seed)
        assert contacts(numbers, least=1) == NORMAL_CONTACTS
        assert [pieces(numbers == number) for number in range(1, 8)] == [1] * 7
        assert euler_number(numbers == AO) == 1


def test_euler_number_of_a_ball_and_a_ring():
    ring = np.ones((5, 5, 3), bool)
    assert euler_number(ring) == 1
    ring[2, 2] = False
    assert euler_number(ring) == 0


def test_every_populated_flag_has_an_edit_and_avsd_has_none():
    assert set(FLAGS) - set(LESIONS) == {"AVSD"}
    assert check_flags(["PDA", "ASD"]) == ["ASD", "PDA"]
    with pytest.raises(ValueError, match=r"AVSD.*ASD\+VSD"):
        check_flags(["AVSD"])
    with pytest.raises(ValueError, match="cannot draw TOF: expected diagnosis flags out of ASD"):
        check_flags(["TOF"])


def test_asd_opens_the_atrial_septum():
    assert contacts(labels("ASD")) == NORMAL_CONTACTS | {(LA, RA)}


def test_vsd_opens_the_ventricular_septum():
    assert contacts(labels("VSD")) == NORMAL_CONTACTS | {(LV, RV)}


def test_tof_has_vsd_overriding_aorta_narrow_outflow_and_thick_right_ventricle():
    normal, tof = labels(), labels("ToF")
    assert {(LV, RV), (LV, AO), (RV, AO)} <= contacts(tof)
    assert 0 < contact(tof, RV, PA) < 0.5 * contact(normal, RV, PA)
    assert np.sum(tof == PA) < 0.6 * np.sum(normal == PA)
    assert np.sum(tof == AO) > 1.1 * np.sum(normal == AO)
    assert np.sum(tof == MYOCARDIUM) > 1.15 * np.sum(normal == MYOCARDIUM)


def test_tga_exchanges_the_roots():
    assert contacts(labels("TGA")) == {(LV, LA), (LV, PA), (RV, RA), (RV, AO)}


def test_dorv_has_both_arteries_on_the_right_ventricle_and_a_vsd():
    assert contacts(labels("DORV")) == {(LV, LA), (LV, RV), (RV, RA), (RV, AO), (RV, PA)}


def test_cat_has_one_wide_trunk_that_gives_the_pulmonary_arteries():
    assert contacts(labels("CAT")) == {(LV, LA), (LV, RV), (LV, AO), (RV, RA), (RV, AO), (AO, PA)}
    assert np.sum(labels("CAT") == AO) > 1.1 * np.sum(labels() == AO)


@pytest.mark.parametrize("seed", [SEED, 20])
def test_coarctation_is_a_short_narrowing_and_hypoplasia_a_long_one(seed):
    normal, short, long = (labels(name, seed) == AO for name in ("", "CA", "AAH"))
    assert narrowest(short) < 0.6 * narrowest(normal)
    assert narrowest(long) < 0.8 * narrowest(normal)
    assert pieces(short) == pieces(long) == 1
    assert 0 < np.sum(normal & ~short) < 0.6 * np.sum(normal & ~long)


@pytest.mark.parametrize("seed", [SEED, 20])
def test_double_arch_closes_a_ring(seed):
    assert volume(seed=20)[2]["right_arch"] and not volume()[2]["right_arch"]
    for diagnosis, number in (("", 1), ("DAA", 0)):
        aorta = np.pad(labels(diagnosis, seed) == AO, 3)
        assert (
            euler_number(ndimage.binary_closing(aorta)) == number
        )  # closing: voxels may touch at a corner in the fork


@pytest.mark.parametrize("seed", [SEED, 20])
def test_interrupted_arch_leaves_two_aortas(seed):
    assert pieces(labels("IAA", seed) == AO) == 2


def test_pulmonary_atresia_has_small_arteries_on_no_ventricle():
    assert contacts(labels("PA"), least=1) == NORMAL_CONTACTS - {(RV, PA)}
    assert np.sum(labels("PA") == PA) < 0.6 * np.sum(labels() == PA)


def test_anomalous_veins_leave_the_left_atrium_for_the_right_in_both_variants():
    without_veins = set()
    for seed in (0, 1):
        numbers = labels("APVC", seed)
        assert (LA, RA) in contacts(numbers)
        found = ndimage.label(numbers == LA)[0]
        assert pieces(numbers == LA) >= 2
        atrium = found == found[ndimage.binary_dilation(numbers == LV) & (found > 0)][0]
        without_veins.add(bool(atrium.sum() < 0.6 * np.sum(labels(seed=seed) == LA)))
    assert without_veins == {True, False}  # total and partial


def test_double_superior_cava_has_one_on_each_side_of_the_aorta():
    for diagnosis, sides in (("", [True]), ("DSVC", [False, True])):
        frame = labels(diagnosis)[:, :, 48]
        found, count = ndimage.label(frame == RA)
        aorta = np.mean(np.nonzero(frame == AO)[0])
        places = [np.mean(np.nonzero(found == piece)[0]) for piece in range(1, count + 1)]
        assert [bool(place > aorta) for place in sorted(places)] == sides
    assert pieces(labels("DSVC") == RA) == 1


@pytest.mark.parametrize("seed", [SEED, 20])
def test_open_duct_joins_aorta_and_pulmonary_artery(seed):
    assert contacts(labels("PDA", seed)) == NORMAL_CONTACTS | {(AO, PA)}


@pytest.mark.parametrize("seed", [SEED, 20])
def test_sling_passes_behind_the_trachea(seed):
    def behind(diagnosis):
        image, numbers, _ = volume(diagnosis, seed)
        airway, _ = ndimage.label(image < 110)
        outside = np.union1d(airway[[0, -1]], airway[:, [0, -1]])
        airway = (airway > 0) & ~np.isin(airway, outside)
        fork = max(k for k in range(56) if ndimage.label(airway[:, :, k])[1] > 1)
        voxels = 0
        for k in range(fork + 1, 52):
            columns, rows = np.nonzero(airway[:, :, k])
            voxels += np.sum(numbers[columns.min() : columns.max() + 1, : rows.min(), k] == PA)
        return voxels

    assert behind("") == 0 and behind("PAS") > 20
    assert pieces(labels("PAS", seed) == PA) == 1


@pytest.mark.parametrize(
    "diagnosis",
    ["ASD+VSD+PA+DSVC+PDA", "VSD+CAT+IAA+PDA", "ASD+ToF+DAA+PDA", "VSD+DORV+CA+AAH+PDA", "ASD+VSD+TGA+PDA", "ASD+PAS"],
)
def test_combinations_of_the_workbook_can_be_drawn(diagnosis):
    numbers = labels(diagnosis)
    assert set(np.unique(numbers)) == set(range(8))
    assert ("ASD" not in diagnosis) or (LA, RA) in contacts(numbers)
    assert ("PDA" not in diagnosis) or (AO, PA) in contacts(numbers)
    assert (LV, LA) in contacts(numbers) and (RV, RA) in contacts(numbers)


def test_any_set_of_flags_can_be_applied():
    rng = np.random.default_rng(0)
    for _ in range(200):
        heart = normal_heart(right_arch=bool(rng.integers(2)))
        apply_lesions(heart, rng.permutation(list(LESIONS))[: rng.integers(1, 15)].tolist(), Extent(rng))
        assert all(shape.part in LABELS for shape in [*heart.shapes.values(), *heart.openings.values()])
        assert all(np.isfinite(shape.bounds()).all() for shape in heart.shapes.values())


def test_extent_stays_between_its_ends_and_severe_when_told():
    rng = np.random.default_rng(0)
    drawn = [Extent(rng)(3.0, 6.5) for _ in range(200)]
    severe = [Extent(rng, 0.7)(0.6, 0.35) for _ in range(200)]
    assert 3.0 <= min(drawn) < 3.3 and 6.2 < max(drawn) <= 6.5
    assert min(severe) >= 0.35 and max(severe) <= 0.425
