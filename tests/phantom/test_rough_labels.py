import numpy as np
import pytest
from scipy import ndimage

from monai_chd.errors import UserError
from monai_chd.labels import STRUCTURES
from monai_chd.nifti import read_volume
from monai_chd.phantom.cohort import write_cohort
from monai_chd.phantom.rough_labels import roughen
from monai_chd.phantom.volume import make_volume

LV, RV, LA, RA, MYO, AO, PA = range(1, 8)
SIZE = {"size": 96, "slices": (40, 44), "difficulty": "realistic"}


def contact(labels, one, other):
    faces = 0
    for axis in range(3):
        ahead = np.moveaxis(labels, axis, 0)
        pair = {(one, other), (other, one)}
        faces += sum(int(((ahead[:-1] == a) & (ahead[1:] == b)).sum()) for a, b in pair)
    return faces


@pytest.fixture(scope="module")
def normals():
    """Clean and rough maps of hearts without lesion."""
    clean = [make_volume([], seed=(5, k), **SIZE)[1] for k in range(8)]
    return clean, [roughen(labels, np.random.default_rng([5, k, 4])) for k, labels in enumerate(clean)]


def test_rough_maps_have_no_atrial_septum(normals):
    clean, rough = normals
    assert [contact(labels, LA, RA) for labels in clean] == [0] * len(clean)
    assert min(contact(labels, LA, RA) for labels in rough) > 50


def test_rough_ventricles_touch_in_some_normal_hearts(normals):
    clean, rough = normals
    assert [contact(labels, LV, RV) for labels in clean] == [0] * len(clean)
    assert 1 <= sum(contact(labels, LV, RV) > 0 for labels in rough) < len(rough)


def test_rough_myocardium_is_worn_and_in_more_pieces(normals):
    pieces = [np.median([ndimage.label(labels == MYO)[1] for labels in kind]) for kind in normals]
    assert pieces[1] > pieces[0]
    for clean, rough in zip(*normals, strict=True):
        assert 0.35 < (rough == MYO).sum() / (clean == MYO).sum() < 0.95


def test_rough_vessels_end_early_and_still_leave_their_ventricles(normals):
    for clean, rough in zip(*normals, strict=True):
        for vessel, ventricle in ((AO, LV), (PA, RV)):
            assert (rough == vessel).sum() < (clean == vessel).sum()
            assert contact(rough, vessel, ventricle) > 0.5 * contact(clean, vessel, ventricle) > 0


def test_chambers_stay_where_they_are(normals):
    for clean, rough in zip(*normals, strict=True):
        for chamber in (LV, RV, LA, RA):
            overlap = 2 * ((clean == chamber) & (rough == chamber)).sum()
            assert overlap / ((clean == chamber).sum() + (rough == chamber).sum()) > 0.85, STRUCTURES[chamber - 1]


def test_rough_cohort_has_the_images_of_the_clean_one(tmp_path):
    arguments = {"patients": 6, "size": 48, "slices": (20, 24), "seed": 9, "progress": False}
    folders = {kind: write_cohort(tmp_path / kind, labels=kind, **arguments).parent for kind in ("clean", "rough")}
    again = write_cohort(tmp_path / "again", labels="rough", **arguments).parent
    for path in sorted(folders["clean"].glob("*.nii.gz")):
        same = path.read_bytes() == (folders["rough"] / path.name).read_bytes()
        assert same == path.name.endswith("_image.nii.gz"), path.name
        assert (folders["rough"] / path.name).read_bytes() == (again / path.name).read_bytes()
    with pytest.raises(UserError, match="labels: expected clean or rough, came 'rouhg'"):
        write_cohort(tmp_path / "other", labels="rouhg", **arguments)


def test_some_rough_maps_lack_myocardium_and_some_have_stray_values(tmp_path):
    folder = write_cohort(tmp_path, patients=24, size=32, slices=(8, 8), seed=2, labels="rough", progress=False).parent
    held = [set(np.unique(read_volume(path).values)) for path in sorted(folder.glob("*_label.nii.gz"))]
    assert 1 <= sum(MYO not in values for values in held) <= 10
    assert 1 <= sum(max(values) > PA for values in held) <= 10
    assert all(max(values) <= 15 for values in held)
