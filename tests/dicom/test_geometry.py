"""Where slices lie: their order, the affine, and every set of slices that is no regular volume."""

import math

import numpy as np
import pytest

from monai_chd.dicom.geometry import IrregularError, arrange, split_by_phase
from monai_chd.dicom.slices import Slice

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def slices(positions, axes=AXIAL, **fields):
    """Slices at these positions, given as z or as a whole."""
    places = [(0.0, 0.0, float(place)) if np.isscalar(place) else tuple(map(float, place)) for place in positions]
    known = {"rows": 10, "columns": 12, "spacing": (0.5, 0.7), "axes": axes}
    return [Slice("file", position=place, **(known | fields)) for place in places]


def test_slices_are_ordered_by_where_they_are():
    found = arrange(slices([3, 1, 0, 2]))
    assert found.order == [2, 1, 3, 0]
    assert found.shifts is None


def test_the_affine_leads_to_ras():
    """By hand: column 1, row 2, slice 3 lies at 0.7 left, 1.0 posterior, 6 head of the first pixel, which is (4, 5, 6) LPS."""
    found = arrange(slices([(4, 5, 6 + 2 * z) for z in range(4)]))
    np.testing.assert_allclose(found.affine @ [1, 2, 3, 1], [-(4 + 0.7), -(5 + 1.0), 6 + 6, 1])


def test_oblique_slices_keep_their_directions():
    """Turned by 30 degrees about the axis towards the left: normal is (0, -sin, cos)."""
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
    places = [np.array([0, -s, c]) * 1.5 * index for index in range(5)]
    found = arrange(slices(places[::-1], axes=(1, 0, 0, 0, c, s)))
    assert found.order == [4, 3, 2, 1, 0]
    np.testing.assert_allclose(found.affine[:3, 2], [0, s * 1.5, c * 1.5], atol=1e-12)
    assert found.tilt == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("positions", "said"),
    [
        ([0, 1, 2, 4, 5], "a slice is missing: 2.00 mm between slices 3 and 4 of 5 (at 2.00 mm and 4.00 mm"),
        ([0, 2, 3, 4, 5], "a slice is missing: 2.00 mm between slices 1 and 2 of 5"),
        ([0, 1, 3], "a slice is missing: 2.00 mm between slices 2 and 3 of 3"),
        ([0, 1, 1, 2], "two slices at one place, 1.00 mm along their normal (1 such pairs of 4)"),
        ([0, 1, 2, 3, 4.2, 5.4, 6.6], "the distance of its slices changes, from 1.00 to 1.20 mm"),
        ([0], "one slice is no volume"),
        ([(0, 0, 0), (0, 0, 1), (3, 0, 2), (0, 0, 3)], "slice 3 of 4 along the normal lies 3.00 mm beside"),
        ([(0, 0, math.nan), (0, 0, 1), (0, 0, 2)], "is no number"),
    ],
)
def test_irregular_places_are_refused_with_the_place(positions, said):
    with pytest.raises(IrregularError) as error:
        arrange(slices(positions))
    assert said in str(error.value)


def test_positions_rounded_by_the_scanner_are_regular():
    """0.625 mm written with one digit after the point is still one volume of 0.625 mm."""
    found = arrange(slices([round(0.625 * index, 1) for index in range(161)]))
    assert found.affine[2, 2] == pytest.approx(0.625)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rows": 11}, "slices of several sizes: 12 x 10, 12 x 11"),
        ({"spacing": (0.5, 0.71)}, "slices of several pixel spacings: 0.7 x 0.5 mm, 0.71 x 0.5 mm"),
        ({"axes": (1, 0, 0, 0, 0.999, 0.0447)}, "slices of several directions: 1.000 0.000"),
    ],
)
def test_mixed_slices_are_refused_with_what_is_mixed(fields, said):
    with pytest.raises(IrregularError) as error:
        arrange([*slices([0, 1, 2]), *slices([3], **fields)])
    assert said in str(error.value)


@pytest.mark.parametrize("axes", [(1, 0, 0, 1, 0, 0), (2, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 0)])
def test_directions_that_are_none_are_refused(axes):
    with pytest.raises(IrregularError, match="no pair of perpendicular unit vectors"):
        arrange(slices([0, 1, 2], axes=axes))


@pytest.mark.parametrize(("degrees", "refused"), [(0.05, False), (0.09, False), (0.11, True), (2.5, True), (20, True)])
def test_a_tilt_of_more_than_a_tenth_of_a_degree_is_refused(degrees, refused):
    lean = math.tan(math.radians(degrees))
    tilted = slices([(0, lean * index, index) for index in range(8)])
    if not refused:
        assert arrange(tilted).shifts is None
        return
    with pytest.raises(IrregularError, match=rf"tilted by {degrees:.1f} degrees.*--tilt resample"):
        arrange(tilted)


def test_made_upright_each_slice_knows_how_far_it_lies_aside():
    found = arrange(slices([(0.7 * index, -0.25 * index, index) for index in range(4)]), upright=True)
    np.testing.assert_allclose(found.shifts, [[-0.5 * index, index] for index in range(4)])
    np.testing.assert_allclose(found.affine[:3, 2], [0, 0, 1])


def phased(*values, name="TriggerTime"):
    return [one for value in values for one in slices([0, 1, 2], phases={"AcquisitionNumber": "1", name: value})]


@pytest.mark.parametrize(
    ("name", "values", "labels"),
    [
        ("TriggerTime", ("430", "90"), ["TriggerTime=90", "TriggerTime=430"]),
        ("NominalPercentageOfCardiacPhase", ("75", "40"), [f"NominalPercentageOfCardiacPhase={p}" for p in (40, 75)]),
        ("AcquisitionTime", ("101112.5", "101110"), ["AcquisitionTime=1", "AcquisitionTime=2"]),
    ],
)
def test_phases_are_told_apart_by_what_the_headers_have_and_never_by_a_time_of_the_day(name, values, labels):
    found = split_by_phase(phased(*values, name=name))
    assert list(found) == labels
    assert all(len(group) == 3 for group in found.values())


def test_what_tells_nothing_apart_leaves_one_group():
    assert list(split_by_phase(slices([0, 1, 1], phases={"AcquisitionNumber": "1"}))) == [""]
    uneven = [*phased("90"), *slices([0, 0], phases={"AcquisitionNumber": "1", "TriggerTime": "430"})]
    assert list(split_by_phase(uneven)) == [""]


def test_several_acquisitions_one_after_the_other_are_one_volume():
    parts = [*slices([0, 1], phases={"AcquisitionNumber": "1"}), *slices([2, 3], phases={"AcquisitionNumber": "2"})]
    assert list(split_by_phase(parts)) == [""]
