"""A structure network for each outer fold, of its training patients only; done once, and by nobody else."""

import json
import re

import pytest
import torch
from tiny_structures import FRAMES, write_phantom

from monai_chd.cli import main
from monai_chd.crossval.design import new_design
from monai_chd.crossval.out_of_fold_table import read_out_of_fold_table
from monai_chd.crossval.structure_results import structure_results
from monai_chd.crossval.structures import needs_structures, structure_weights, train_structures
from monai_chd.labels import STRUCTURES

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config
WORDS = ["--quick", "--folds", "2", "--no-controls", "--encoder", "structures", "--structure_epochs", "1", *FRAMES]
WORDS += [
    "--cache",
    "features",
    "--standardize",
    "true",
    "--hidden_size",
    "8",
    "--max_epochs",
    "2",
    "--pooling",
    "mean",
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cv")
    datalist = write_phantom(folder, 12, 0)
    assert main(["crossval", str(datalist), "--out", str(folder / "cv"), *WORDS]) == 0
    return datalist, folder / "cv"


def read(path):
    return json.loads(path.read_text())


def test_no_structure_network_has_seen_a_patient_of_its_outer_fold(done):
    _, cv = done
    for fold in range(2):
        seen = set(read(cv / "structures" / f"r0f{fold}" / "models" / "trained_on.json")["patient"])
        tested = {record["patient"] for record in read(cv / "fits" / f"r0f{fold}" / "datalist.json")["test"]}
        assert len(seen) == len(tested) == 6 and not seen & tested


def test_each_fit_has_the_structures_of_its_own_fold(done):
    _, cv = done
    of_fit = []
    for fold in range(2):
        model = torch.load(cv / "fits" / f"r0f{fold}" / "models" / "model.pt", weights_only=True)
        own = torch.load(structure_weights(cv / "structures", 0, fold), weights_only=True)
        assert all(torch.equal(model[f"encoder.network.{name}"], own[name]) for name in own)
        of_fit.append(model["encoder.network.unet.model.0.conv.unit0.conv.weight"])
    assert not torch.equal(*of_fit)


def test_the_same_command_again_does_nothing_anew(done, capsys):
    datalist, cv = done
    before = {path: path.stat().st_mtime_ns for path in (cv / "structures").rglob("*") if path.is_file()}
    assert main(["crossval", str(datalist), "--out", str(cv), *WORDS]) == 0
    assert {path: path.stat().st_mtime_ns for path in (cv / "structures").rglob("*") if path.is_file()} == before
    assert "(structures, repeat 1, fold 2): done before" in capsys.readouterr().out


def test_what_was_finished_otherwise_is_refused(done):
    datalist, cv = done
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


def test_only_their_own_encoder_needs_them(done):
    datalist, _ = done
    assert not needs_structures(new_design(datalist, folds=2, repeats=1, settings={"encoder": "efficientnet_lite0"}))


def test_a_cohort_without_label_maps_is_told_before_any_fit(done, tmp_path, capsys):
    datalist, _ = done
    content = read(datalist)
    for record in content["training"]:
        record.pop("label_map")
    content["root"] = str((datalist.parent / content["root"]).resolve())
    bare = tmp_path / "datalist.json"
    bare.write_text(json.dumps(content))
    assert main(["crossval", str(bare), "--out", str(tmp_path / "cv"), *WORDS]) == 1
    error = capsys.readouterr().err
    assert re.search(r"structures r0f0: .*has a label map .*efficientnet_lite0 \(log: ", error)
    assert not (tmp_path / "cv" / "fits").exists()


def test_the_report_has_their_dice_on_patients_not_trained_on(done):
    _, cv = done
    found = read(cv / "report.json")["structures"]
    assert found["dice"].keys() == {*STRUCTURES, "mean"} and found["dice"]["LV"]["n"] == 12
    assert found["cases"] == 12 and 0 <= found["risk_coverage"]["aurc"]["value"] <= 1
    assert set(found["refused"]) <= {"no heart is found", "not found, which all hearts of the training have"}
    page = (cv / "report.html").read_text()
    assert "Dice on patients not trained on, first repeat" in page and "Risk-coverage curve by structures" in page


def test_the_report_says_what_label_maps_cannot_show(done):
    datalist, cv = done
    design = new_design(datalist, folds=2, repeats=1, settings={"encoder": "structures"})
    having = [flags for flags in design.flags.values() if "ASD" in flags]
    unseen = read(cv / "report.json")["structures"]["unseen"]
    expected = {"patients": len(having), "only": sum(flags == ["ASD"] for flags in having)}
    assert unseen == ({"ASD": expected} if having else {})


def test_a_table_of_structures_that_went_missing_is_named(done):
    datalist, cv = done
    path = cv / "fits" / "r0f1" / "evaluation" / "structures.csv"
    design = new_design(datalist, folds=2, repeats=1, settings={"encoder": "structures"})
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(ValueError, match=r"structures\.csv: no table .* though it was finished; remove its folder"):
        structure_results(design, cv, read_out_of_fold_table(cv))
    path.write_bytes(content)
