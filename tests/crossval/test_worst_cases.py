"""The worst mistakes are wrong answers, most confident first, looked at with the model that had not seen the patient."""

from __future__ import annotations

import dataclasses
import itertools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_design import made_up_predictions, write_datalist

from monai_chd.crossval import worst_cases as module
from monai_chd.crossval.design import new_design
from monai_chd.crossval.fits import fit_folder, model_path, run_fit
from monai_chd.crossval.out_of_fold_table import out_of_fold_table
from monai_chd.crossval.worst_cases import most_confident_mistakes, worst_cases
from monai_chd.labels import CLASSES

TINY = {"encoder": "small_cnn", "frame_size": 16, "sequence_length": 8, "hidden_size": 4, "max_epochs": 1}
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config


@pytest.fixture
def table(tmp_path):
    return made_up_predictions(new_design(write_datalist(tmp_path), folds=3, repeats=3), 0.5)


def test_rows_are_each_patients_most_confident_mistake_in_order(table):
    rows = most_confident_mistakes(table, 4)
    wrong = [
        (-max(row[name] for name in CLASSES), row["patient"])
        for row in table.to_dict("records")
        if row["prediction"] != row["label"]
    ]
    best: dict[str, float] = {}
    for confidence, patient in wrong:
        best[patient] = min(confidence, best.get(patient, 0))
    assert rows["patient"].tolist() == sorted(best, key=lambda patient: best[patient])[:4]
    assert (rows["prediction"] != rows["label"]).all()


def test_without_a_mistake_there_is_no_case(table):
    table["prediction"] = table["label"]
    assert most_confident_mistakes(table).empty


def test_cases_without_probabilities_are_no_mistakes(table):
    table.loc[:, list(CLASSES)] = np.nan
    table["prediction"] = ""
    assert most_confident_mistakes(table).empty


def test_equal_confidence_gives_the_same_patients_whatever_the_order(table):
    table[list(CLASSES)] = [0.2, 0.5, 0.3]
    table["prediction"] = CLASSES[1]
    shuffled = table.sample(frac=1, random_state=1)
    assert most_confident_mistakes(table)["patient"].tolist() == most_confident_mistakes(shuffled)["patient"].tolist()


def test_a_mistake_is_looked_at_with_the_model_of_its_own_fold(datalist, tmp_path):
    design = new_design(datalist, folds=2, repeats=1, settings=TINY)
    for fold in range(2):
        run_fit(design, fit_folder(tmp_path / "fits", 0, fold), 0, fold)
    predictions = out_of_fold_table(design, tmp_path / "fits", range(1))
    found = worst_cases(design, predictions, tmp_path / "fits", tmp_path, count=2)
    assert len(found) == 2
    for case in found:
        assert design.assignment[case["patient"]][0] == case["fold"] and case["label"] != case["prediction"]
        assert sum(case["probabilities"].values()) == pytest.approx(1)
        with Image.open(tmp_path / case["sheet"]) as picture:
            assert picture.format == "PNG"
        frames = [part["frames"] for part in case["occlusion"]]
        assert frames[0][0] == 1 and all(b[0] == a[1] + 1 for a, b in itertools.pairwise(frames))
        assert any(part["change"] for part in case["occlusion"])
    # the model of the other fold has seen the patient: its weights give other changes
    fold = found[0]["fold"]
    own, other = (model_path(fit_folder(tmp_path / "fits", 0, f)) for f in (fold, 1 - fold))
    assert not torch.equal(*(torch.load(p, weights_only=True)["classifier.weight"] for p in (own, other)))
    shutil.copy(other, own)
    again = worst_cases(design, predictions, tmp_path / "fits", tmp_path, count=1)
    assert again[0]["occlusion"] != found[0]["occlusion"]


def test_a_frozen_encoder_is_asked_once_and_its_features_are_hidden():
    class Frozen(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.Bilinear(1, 1, 3).requires_grad_(False)

    frames, count = torch.ones(4, 1), torch.ones(4, 1)
    hidden_in, fill = module._hidden_in(Frozen(), frames, count)
    assert hidden_in.shape == (4, 3) and fill == "mean"
    hidden_in, fill = module._hidden_in(torch.nn.Linear(1, 1), frames, count)
    assert hidden_in is frames and fill == "blank"


def test_what_a_scan_asks_for_itself_goes_with_it(tmp_path, monkeypatch):
    class SeenError(Exception):
        pass

    def preprocessing(case):
        raise SeenError(case["image"], case["hu_offset"], case["cine_slice"])

    design = new_design(write_datalist(tmp_path), folds=3, repeats=1)
    own = {"hu_offset": -1024, "cine_slice": 3}
    design = dataclasses.replace(design, records=tuple({**record, **own} for record in design.records))
    monkeypatch.setattr(module, "configured", lambda *_: (torch.nn.Module(), preprocessing))
    monkeypatch.setattr(module, "load_weights", lambda *_: None)
    table = made_up_predictions(design, 0)
    image = most_confident_mistakes(table, 1)["image"].item()
    with pytest.raises(SeenError) as seen:
        worst_cases(design, table, tmp_path, tmp_path)
    assert seen.value.args == (str(tmp_path / "scans" / image), -1024, 3)
