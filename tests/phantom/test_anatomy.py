import numpy as np
import pytest

from monai_chd.phantom.anatomy import FAR, Ellipsoid, Tube, normal_heart, solid_field


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform(-12, 12, (3, 500)).astype(np.float32)


def test_ellipsoid_of_equal_radii_is_a_sphere(points):
    sphere = Ellipsoid("LV", (1, 2, 3), (5, 5, 5), (0.3, -1, 0.5))
    truth = np.linalg.norm(points - np.array([[1], [2], [3]]), axis=0) - 5
    np.testing.assert_allclose(sphere.distance(points), truth, atol=1e-4)


def test_ellipsoid_is_long_along_its_axis():
    ellipsoid = Ellipsoid("LV", (0, 0, 0), (10, 4, 4), (1, 1, 0))
    tip, flank = np.array([7.0, 7.0, 0.0]), np.array([4.2, -4.2, 0.0])
    assert ellipsoid.distance(np.stack([tip, flank], 1).astype(np.float32)).tolist() == [
        pytest.approx(7 * 2**0.5 - 10, abs=0.05),
        pytest.approx(4.2 * 2**0.5 - 4, abs=0.7),
    ]


def test_straight_tube_is_a_capsule(points):
    tube = Tube("AO", [(0, 0, -6), (0, 0, 6)], [3, 3])
    x, y, z = points
    truth = np.sqrt(x**2 + y**2 + np.maximum(np.abs(z) - 6, 0) ** 2) - 3
    np.testing.assert_allclose(tube.distance(points), truth, atol=1e-4)


def test_tube_goes_through_its_knots_at_their_radii():
    tube = Tube("AO", [(0, 0, 0), (10, 5, 0), (12, 15, 4), (0, 20, 10)], [3, 2, 4, 3])
    knots = np.array(tube.knots, np.float32).T
    np.testing.assert_allclose(tube.distance(knots), [-3, -2, -4, -3], atol=0.35)


def test_union_is_the_nearest_solid_and_far_where_none_is(points):
    shapes = [Ellipsoid("LV", (-4, 0, 0), (3, 3, 3)), Tube("LV", [(4, 0, 0), (8, 0, 0)], [2, 2])]
    union = solid_field(shapes, points.reshape(3, 20, 25))
    truth = np.minimum(shapes[0].distance(points), shapes[1].distance(points)).reshape(20, 25)
    near = truth < 2
    np.testing.assert_array_equal(union[near], truth[near])
    assert solid_field([], points.reshape(3, 20, 25)).min() == FAR


def test_scale_and_narrow_change_radii_and_leave_places():
    heart, twin = normal_heart(), normal_heart()
    heart.scale("AO", 2)
    heart.narrow("pa_trunk", 0.5, 1)
    heart.narrow("no such tube", 0.5)
    assert heart.shapes["aorta_arch"].radii == [2 * radius for radius in twin.shapes["aorta_arch"].radii]
    assert heart.shapes["pa_trunk"].radii == [8.8, 4.3, 4.0]
    assert all(heart.shapes[name].bounds()[0].shape == (3,) for name in heart.shapes)
    assert heart.shapes["aorta_arch"].knots == twin.shapes["aorta_arch"].knots


def test_right_arch_crosses_to_the_right_and_changes_nothing_else():
    left, right = normal_heart(), normal_heart(right_arch=True)
    changed = {name for name in left.shapes if left.shapes[name] != right.shapes[name]}
    assert changed == {"aorta_arch", "aorta_descending", "brachiocephalic", "left_carotid", "left_subclavian"}
    assert left.shapes["aorta_arch"].knots[-1][0] < 0 < right.shapes["aorta_arch"].knots[-1][0]
    assert right.shapes["aorta_arch"].knots[0] == left.shapes["aorta_ascending"].knots[-1]
