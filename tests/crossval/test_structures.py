"""A structure network for each outer fold, of its training patients only; done once, and by nobody else."""

import json
import re

import pytest
import torch
from tiny_structures import CROSSVAL

from monai_chd.cli import main
from monai_chd.crossval.design import new_design
from monai_chd.crossval.structures import needs_structures, structure_weights, train_structures

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config


def read(path):
    return json.loads(path.read_text())


def test_no_structure_network_has_seen_a_patient_of_its_outer_fold(structures_done):
    _, cv = structures_done
    for fold in range(2):
        seen = set(read(cv / "structures" / f"r0f{fold}" / "models" / "trained_on.json")["patient"])
        tested = {record["patient"] for record in read(cv / "fits" / f"r0f{fold}" / "datalist.json")["test"]}
        assert len(seen) == len(tested) == 6 and not seen & tested


def test_each_fit_has_the_structures_of_its_own_fold(structures_done):
    _, cv = structures_done
    of_fit = []
    for fold in range(2):
        model = torch.load(cv / "fits" / f"r0f{fold}" / "models" / "model.pt", weights_only=True)
        own = torch.load(structure_weights(cv / "structures", 0, fold), weights_only=True)
        assert all(torch.equal(model[f"encoder.network.{name}"], own[name]) for name in own)
        of_fit.append(model["encoder.network.unet.model.0.conv.unit0.conv.weight"])
    assert not torch.equal(*of_fit)


def test_the_same_command_again_does_nothing_anew(structures_done, capsys):
    datalist, cv = structures_done
    before = {path: path.stat().st_mtime_ns for path in (cv / "structures").rglob("*") if path.is_file()}
    assert main(["crossval", str(datalist), "--out", str(cv), *CROSSVAL]) == 0
    assert {path: path.stat().st_mtime_ns for path in (cv / "structures").rglob("*") if path.is_file()} == before
    assert "(structures, repeat 1, fold 2): done before" in capsys.readouterr().out


def test_what_was_finished_otherwise_is_refused(structures_done):
    datalist, cv = structures_done
    settings = {"encoder": "structures", "frame_size": 24, "sequence_length": 8}
    other = new_design(datalist, folds=2, repeats=1, seed=7, settings=settings)
    with pytest.raises(ValueError, match=r"r0f0: the structure network of another cross-validation; remove its folder"):
        train_structures(other, cv / "structures", 0, 0)
    weights = structure_weights(cv / "structures", 0, 1)
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    same = new_design(datalist, folds=2, repeats=1, settings=settings)
    with pytest.raises(ValueError, match=r"model\.pt: missing or changed since it was finished"):
        train_structures(same, cv / "structures", 0, 1)
    weights.write_bytes(content)
    assert train_structures(same, cv / "structures", 0, 1) is None


def test_only_their_own_encoder_needs_them(structures_done):
    datalist, _ = structures_done
    assert not needs_structures(new_design(datalist, folds=2, repeats=1, settings={"encoder": "efficientnet_lite0"}))


def test_a_cohort_without_label_maps_is_told_before_any_fit(structures_done, tmp_path, capsys):
    datalist, _ = structures_done
    content = read(datalist)
    for record in content["training"]:
        record.pop("label_map")
    content["root"] = str((datalist.parent / content["root"]).resolve())
    bare = tmp_path / "datalist.json"
    bare.write_text(json.dumps(content))
    assert main(["crossval", str(bare), "--out", str(tmp_path / "cv"), *CROSSVAL]) == 1
    error = capsys.readouterr().err
    assert re.search(r"structures r0f0: .*has a label map .*efficientnet_lite0 \(log: ", error)
    assert not (tmp_path / "cv" / "fits").exists()
