"""The report of a cross-validation says how good its structures are, what they cannot show and what doubting them is worth."""

import json

import pytest

from monai_chd.crossval.design import new_design
from monai_chd.crossval.out_of_fold_table import read_out_of_fold_table
from monai_chd.crossval.structure_results import structure_results
from monai_chd.labels import STRUCTURES

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config


def read(path):
    return json.loads(path.read_text())


def test_the_report_has_their_dice_on_patients_not_trained_on(structures_done):
    _, cv = structures_done
    found = read(cv / "report.json")["structures"]
    assert found["dice"].keys() == {*STRUCTURES, "mean"} and found["dice"]["LV"]["n"] == 12
    assert found["cases"] == 12 and 0 <= found["risk_coverage"]["aurc"]["value"] <= 1
    assert set(found["refused"]) <= {"no heart is found", "not found, which all hearts of the training have"}
    page = (cv / "report.html").read_text()
    assert "Dice on patients not trained on, first repeat" in page and "Risk-coverage curve by structures" in page


def test_the_report_says_what_label_maps_cannot_show(structures_done):
    datalist, cv = structures_done
    design = new_design(datalist, folds=2, repeats=1, settings={"encoder": "structures"})
    having = [flags for flags in design.flags.values() if "ASD" in flags]
    unseen = read(cv / "report.json")["structures"]["unseen"]
    expected = {"patients": len(having), "only": sum(flags == ["ASD"] for flags in having)}
    assert unseen == ({"ASD": expected} if having else {})


def test_a_table_of_structures_that_went_missing_is_named(structures_done):
    datalist, cv = structures_done
    path = cv / "fits" / "r0f1" / "evaluation" / "structures.csv"
    design = new_design(datalist, folds=2, repeats=1, settings={"encoder": "structures"})
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(ValueError, match=r"structures\.csv: no table .* though it was finished; remove its folder"):
        structure_results(design, cv, read_out_of_fold_table(cv))
    path.write_bytes(content)
