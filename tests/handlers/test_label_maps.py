"""Label maps come in the scan's own space, a table says how large each structure is, and what has none says why."""

import csv

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine

from monai_chd.handlers import LabelMaps
from monai_chd.labels import STRUCTURES
from monai_chd.transforms import LoadFramesd, LoadLabelFrames

TURNED = np.array([[0, 0, 2.0, 5], [0.5, 0, 0, 7], [0, 0.5, 0, -3], [0, 0, 0, 1]])


def numbers(seed: int = 0) -> np.ndarray:
    """Blocks of structures, so that shrinking and enlarging leave most of them."""
    small = np.random.default_rng(seed).integers(0, 8, (3, 3, 6))
    small[0, 0, 0] = 5  # its myocardium was drawn
    return np.kron(small, np.ones((8, 8, 1))).astype(np.uint8)


@pytest.fixture
def scans(tmp_path):
    """Two scans, one turned and in a folder of its own, and their label maps elsewhere."""
    for name, affine in (("ct_1_image", np.diag([1, 1, 2, 1])), ("b/ct_2_image", TURNED)):
        path = tmp_path / "scans" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(numbers().astype(np.int16) * 100, affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, path)
        nib.save(nib.Nifti1Image(numbers(), affine), tmp_path / f"{path.stem}.map.nii.gz")
    return tmp_path / "scans"


def segment(scans, out, *, size: int, length: int = 9, reason: str = ""):
    """Write the label maps of a network that sees what was drawn, at a size of its own."""
    load, labels = LoadFramesd("image", size, length, hu_offset=0), LoadLabelFrames(size, length)
    maps = LabelMaps(out, scans, load)

    def step(engine, path):
        drawn = labels(scans.parent / f"{path.stem}.map.nii.gz")[0].long()
        logits = torch.nn.functional.one_hot(drawn, 8).permute(3, 0, 1, 2).float() * 20
        engine.state.batch = [{**load({"image": str(path)}), "reason": reason if "ct_2" in path.name else ""}]
        return [{"pred": logits}]

    engine = Engine(step)
    maps.attach(engine)
    engine.run(sorted(scans.rglob("*.nii.gz")))
    return maps


def test_a_label_map_lies_on_its_scan_voxel_for_voxel(scans, tmp_path):
    segment(scans, tmp_path / "out", size=24)
    for name in ("ct_1_image", "b/ct_2_image"):
        scan, found = nib.load(scans / f"{name}.nii.gz"), nib.load(tmp_path / "out" / f"{name}_seg.nii.gz")
        assert np.array_equal(np.asarray(found.dataobj), numbers()) and found.get_data_dtype() == np.uint8
        assert np.array_equal(found.affine, scan.affine) and found.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(("size", "length"), [(12, 9), (40, 9), (24, 4)])
def test_at_another_resolution_most_of_it_is_kept(scans, tmp_path, size, length):
    segment(scans, tmp_path / "out", size=size, length=length)
    found = np.asarray(nib.load(tmp_path / "out" / "ct_1_image_seg.nii.gz").dataobj)
    assert found.shape == (24, 24, 6)
    kept = (found == numbers()).mean()
    assert kept > 0.9 if length == 9 else 0.6 < kept < 0.95


def test_the_table_counts_voxels(scans, tmp_path):
    segment(scans, tmp_path / "out", size=24).check()
    rows = list(csv.DictReader((tmp_path / "out" / "structures.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == ["b/ct_2_image.nii.gz", "ct_1_image.nii.gz"]
    assert rows[1]["label_map"] == "ct_1_image_seg.nii.gz" and rows[1]["reason"] == ""
    counts = [int(rows[1][f"{name}_voxels"]) for name in STRUCTURES]
    assert counts == [int((numbers() == number).sum()) for number in range(1, 8)]


def test_a_scan_that_cannot_be_read_has_its_reason_and_the_others_their_label_map(scans, tmp_path):
    maps = segment(scans, tmp_path / "out", size=24, reason="ct_2: cut off")
    rows = list(csv.DictReader((tmp_path / "out" / "structures.csv").read_text().splitlines()))
    assert [row["reason"] for row in rows] == ["ct_2: cut off", ""] and rows[0]["label_map"] == ""
    assert not (tmp_path / "out" / "b").exists() and (tmp_path / "out" / "ct_1_image_seg.nii.gz").is_file()
    with pytest.raises(ValueError, match=r"1 of 2 files have no label map, the others have theirs:\n  ct_2: cut off"):
        maps.check()
