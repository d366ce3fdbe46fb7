from itertools import combinations

import numpy as np
import pytest

from monai_chd.phantom.anatomy import normal_heart
from monai_chd.phantom.layers import GROUPS, LABELS, MYOCARDIUM, chest_layers, heart_layers
from monai_chd.phantom.volume import coordinates, draw_nuisances


@pytest.fixture(scope="module")
def scene():
    nuisances = draw_nuisances(np.random.default_rng(1), (40, 40), "plain")
    points, _ = coordinates(nuisances, 64)
    return points, nuisances


def test_every_part_is_in_one_group_and_has_a_number_of_imagechd():
    assert sorted(part for group in GROUPS for part in group) == sorted(LABELS)
    assert sorted({*LABELS.values(), MYOCARDIUM}) == [1, 2, 3, 4, 5, 6, 7]


def test_lumens_of_different_groups_keep_their_wall(scene):
    points, nuisances = scene
    layers = heart_layers(normal_heart(), points, nuisances, wall=3.0)
    pools = {part: layer.field for part, layer in zip(reversed(list(LABELS)), layers[-len(LABELS) :], strict=True)}
    for one, other in combinations(GROUPS, 2):
        a, b = (np.minimum.reduce([pools[part] for part in group]) for group in (one, other))
        assert (a + b).min() >= 2.999, (one, other)  # where one is d inside, the other is at least wall + d away


def test_openings_lie_below_the_pools_and_above_the_myocardium(scene):
    points, nuisances = scene
    layers = heart_layers(normal_heart(), points, nuisances, wall=3.0)
    assert [layer.label for layer in layers[:2]] == [0, MYOCARDIUM]
    assert {layer.label for layer in layers[2 : -len(LABELS)]} == {1, 2, 6, 7}  # mitral, tricuspid, aortic, pulmonary


def test_levels_do_not_depend_on_the_shape(scene):
    points, nuisances = scene
    layers = heart_layers(normal_heart(), points, nuisances, wall=3.0)
    for part, layer in zip(reversed(list(LABELS)), layers[-len(LABELS) :], strict=True):
        assert (layer.hu, layer.label) == (nuisances[f"hu_{part}"], LABELS[part])


def test_lungs_lie_on_both_sides_and_leave_room_for_the_heart(scene):
    points, nuisances = scene
    hull = heart_layers(normal_heart(), points, nuisances, wall=3.0)[0].field
    layers = chest_layers(points, hull, nuisances, np.random.default_rng(0))
    lung = next(layer.field for layer in layers if layer.hu == nuisances["hu_lung"]) < 0
    x = points[0][lung]
    assert 0.3 < np.mean(x > 0) < 0.7 and hull[lung].min() > 3
    assert all(layer.field.shape == points.shape[1:] and layer.field.dtype == np.float32 for layer in layers)
