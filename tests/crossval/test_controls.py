"""Controls: frames in another order and nothing else, labels dealt out within folds, classifiers as scikit-learn's own."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.preprocessing import StandardScaler
from tiny_design import edit_json, made_up_predictions, write_datalist

from monai_chd.crossval import controls
from monai_chd.crossval.controls import (
    SHUFFLED_FRAMES,
    TITLES,
    ShuffledFrames,
    classifier_predictions,
    control_not_done,
    control_result,
    shuffled_labels,
    simple_controls,
)
from monai_chd.crossval.design import new_design
from monai_chd.labels import CLASSES
from monai_chd.workflow.run import config_content


@pytest.fixture
def design(tmp_path):
    return new_design(write_datalist(tmp_path / "work", (12, 11, 10)), folds=3, repeats=2)


def cases(shape, counts):
    """Cases whose every frame holds its own number from 1, padding 0."""
    found = []
    for index, count in enumerate(counts):
        axis = 0 if len(shape) == 2 else 1
        image = torch.zeros(shape)
        for frame in range(count):
            image.select(axis, frame).fill_(frame + 1)
        meta = {"filename_or_obj": f"/somewhere/scan{index}.nii.gz"}
        found.append({"image": MetaTensor(image, meta=meta), "num_frames": torch.tensor(count), "label": index})
    return found


@pytest.mark.parametrize("shape", [(1, 12, 4, 4), (12, 5)], ids=["frames", "features"])
def test_frames_are_shuffled_and_padding_stays_at_the_end(shape):
    source = cases(shape, (12, 7, 1))
    shuffled = ShuffledFrames(source, seed=3)
    assert len(shuffled) == 3
    for index, before in enumerate(source):
        count, axis = int(before["num_frames"]), 0 if len(shape) == 2 else 1
        after = shuffled[index]
        found = [set(frame.flatten().tolist()) for frame in after["image"].as_tensor().unbind(axis)]
        order = [value.pop() for value in found if len(value) == 1]
        assert sorted(order[:count]) == list(range(1, count + 1)) and order[count:] == [0] * (12 - count)
        assert count == 1 or order[:count] != sorted(order[:count])
        assert after["image"].meta == before["image"].meta and after["label"] == index
        assert torch.equal(after["image"], shuffled[index]["image"])  # the same order whenever it is asked for


def test_the_cases_handed_in_are_left_as_they_are():
    source = cases((1, 6, 2, 2), (6,))
    before = source[0]["image"].clone()
    ShuffledFrames(source)[0]
    assert torch.equal(source[0]["image"], before)


def test_each_scan_and_each_seed_has_its_own_order():
    source = cases((40, 1), (40, 40))
    first, other = ShuffledFrames(source, 1), ShuffledFrames(source, 2)
    orders = [tuple(d[i]["image"].flatten().tolist()) for d in (first, other) for i in (0, 1)]
    assert len(set(orders)) == 4


def test_the_order_does_not_follow_from_where_the_folder_is():
    source, moved = cases((40, 1), (40,)), cases((40, 1), (40,))
    moved[0]["image"].meta["filename_or_obj"] = "/elsewhere/scan0.nii.gz"
    assert torch.equal(ShuffledFrames(source)[0]["image"], ShuffledFrames(moved)[0]["image"])


def test_a_scan_whose_name_is_of_other_bytes_is_shuffled_like_any_other():
    source = cases((12, 1), (12,))
    source[0]["image"].meta["filename_or_obj"] = os.fsdecode(b"/somewhere/ct_\xe9.nii.gz")
    assert sorted(ShuffledFrames(source)[0]["image"].flatten().tolist()) == list(range(1, 13))


def test_shuffling_hooks_into_the_datasets_of_the_bundle():
    train = config_content("train")
    for part in ("train", "validate"):
        assert train[part]["dataloader"]["dataset"] == f"@{part}#dataset"
        assert SHUFFLED_FRAMES[f"{part}#dataloader#dataset"]["dataset"] == f"@{part}#dataset"


def test_labels_are_dealt_out_within_each_fold(design):
    shuffled = shuffled_labels(design)
    assert shuffled != design.labels and shuffled_labels(design) == shuffled
    for fold in range(3):
        own = [p for p, folds in design.assignment.items() if folds[0] == fold]
        assert Counter(shuffled[p] for p in own) == Counter(design.labels[p] for p in own)


def test_a_classifier_of_numbers_is_scikit_learns_on_the_outer_folds(design):
    rng = np.random.default_rng(0)
    features = {r["image"]: rng.normal(size=4) + r["label"] for r in design.records}
    table = classifier_predictions(design, features)
    assert len(table) == 2 * len(design.records)
    for repeat in range(2):
        for fold in range(3):
            train = [r for r in design.records if design.assignment[r["patient"]][repeat] != fold]
            scaler = StandardScaler().fit([features[r["image"]] for r in train])
            model = LogisticRegression(max_iter=5000)
            model.fit(scaler.transform([features[r["image"]] for r in train]), [r["label"] for r in train])
            rows = table[(table["repeat"] == repeat) & (table["fold"] == fold)]
            expected = model.predict_proba(scaler.transform([features[image] for image in rows["image"]]))
            np.testing.assert_allclose(rows[list(CLASSES)].to_numpy(), expected, rtol=1e-9)
            assert {design.assignment[p][repeat] for p in rows["patient"]} == {fold}


def test_the_figures_of_a_control_are_scikit_learns_means_over_repeats(design):
    model, other = made_up_predictions(design, 0.7), made_up_predictions(design, 0.4, seed=1)
    control = control_result("frame_order", model, other)
    for name, score in (("accuracy", accuracy_score), ("balanced_accuracy", balanced_accuracy_score)):
        each = [score(part["label"], part["prediction"]) for _, part in other.groupby("repeat")]
        assert control[name]["value"] == pytest.approx(np.mean(each))
        assert control[name]["low"] < control[name]["value"] < control[name]["high"]
    right = [(t["label"] == t["prediction"]).groupby(t["repeat"]).mean().mean() for t in (model, other)]
    assert control["details"]["difference"]["value"] == pytest.approx(right[0] - right[1])
    assert control["n"] == control["accuracy"]["n"] == len(design.labels)
    assert "Frame order carries information" in control["reading"]


def test_a_control_of_the_first_repeat_is_compared_with_the_models_first_repeat(design):
    model = made_up_predictions(design, 0.7)
    first = model[model["repeat"] == 0]
    control = control_result("frame_order", model, first.copy())
    assert control["details"]["difference"]["value"] == 0
    assert "no measurable information" in control["reading"]


def test_shuffled_labels_have_nothing_to_be_paired_with(design):
    labels = shuffled_labels(design)
    table = made_up_predictions(design, 1 / 3, labels=labels)
    control = control_result("shuffled_labels", made_up_predictions(design, 0.9), table[table["repeat"] == 0])
    assert control["details"]["difference"] is None
    assert control["accuracy"]["low"] < 1 / 3 < control["accuracy"]["high"]


def write_scans(design, *, maps: bool, bright: bool = False) -> None:
    """Tiny scans of noise, brighter by class if asked for, and label maps in which the class is the size of structure 1."""
    rng = np.random.default_rng(5)
    for record in design.records:
        voxels = rng.normal(100, 80, (8, 8, 8)) + (250 * record["label"] if bright else 0)
        path = Path(design.root, record["image"])
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.eye(4)), path)
        if maps:
            labels = np.zeros((8, 8, 8), np.uint8)
            labels[1:3, 1:3, 1:3] = 2
            labels[3 : 4 + 2 * record["label"], 2:6, 2:6] = 1
            nib.save(nib.Nifti1Image(labels, np.eye(4)), path.with_name(path.name.replace("image", "label")))


@pytest.fixture
def with_scans(tmp_path):
    def make(maps, without=slice(0), **options):
        """A design over scans; `without` are the patients, by their place, that have no label map in the datalist."""
        datalist = write_datalist(tmp_path / "work", (12, 11, 10))
        first = new_design(datalist, folds=3, repeats=2, settings={"hu_offset": 0})
        write_scans(first, maps=maps, **options)
        bare = sorted(first.labels)[without]

        def edit(content):
            for record in (*content["training"], *content["test"]):
                del record["sha256"]
                if maps and record["patient"] not in bare:
                    record["label_map"] = record["image"].replace("image", "label")

        edit_json(datalist, edit)
        return new_design(datalist, folds=3, repeats=2, settings={"hu_offset": 0})

    return make


def test_brightness_structures_and_confounders_tell_what_they_hold(with_scans, tmp_path):
    design = with_scans(maps=True, bright=True)
    found = {c["name"]: c for c in simple_controls(design, made_up_predictions(design, 0.4), tmp_path / "controls")}
    assert list(found) == ["intensity", "confounders", "structures"]
    for control in found.values():  # in this cohort each of the three gives the class away
        assert control["accuracy"]["value"] > 0.9, control["name"]
        assert "better than chance" in control["reading"] and control["details"]["difference"]["high"] < 0
    assert found["confounders"]["details"]["confounders"] == ["slice count", "scanner"]  # contrast is the same in all
    assert found["structures"]["details"]["without_label_map"] == 0


def test_noise_tells_nothing_and_missing_label_maps_are_said(with_scans, tmp_path):
    design = with_scans(maps=False)
    found = {c["name"]: c for c in simple_controls(design, made_up_predictions(design, 0.4), tmp_path / "controls")}
    assert found["intensity"]["balanced_accuracy"]["low"] < 1 / 3
    assert found["structures"]["reading"] == "Not done: there are no label maps beside the scans."
    assert found["structures"]["accuracy"]["value"] is None and found["structures"]["n"] == 0


def test_label_maps_of_some_patients_are_compared_on_these(with_scans, tmp_path):
    design = with_scans(maps=True, without=slice(None, None, 4))
    without = sorted(design.labels)[::4]
    control = simple_controls(design, made_up_predictions(design, 0.4), tmp_path / "controls")[2]
    assert control["n"] == control["details"]["difference"]["n"] == len(design.labels) - len(without)
    assert control["details"]["without_label_map"] == len(without)


def test_too_few_label_maps_are_said(with_scans, tmp_path):
    design = with_scans(maps=True, without=slice(5, None))
    control = simple_controls(design, made_up_predictions(design, 0.4), tmp_path / "controls")[2]
    assert "Not done: label maps of 5 patients are too few" in control["reading"]


def test_a_datalist_without_confounders_says_so(with_scans, tmp_path):
    design = with_scans(maps=False)
    edit_json(design.datalist, lambda content: [r.pop("confounders") for p in ("training", "test") for r in content[p]])
    control = simple_controls(design, made_up_predictions(design, 0.4), tmp_path / "controls")[1]
    assert "Not done: the datalist records no confounder that varies" in control["reading"]


def test_numbers_that_took_long_are_kept_until_a_file_changes(with_scans, tmp_path, monkeypatch):
    design = with_scans(maps=True)
    model, folder = made_up_predictions(design, 0.4), tmp_path / "controls"
    first = simple_controls(design, model, folder)
    monkeypatch.setattr(controls, "intensity_histogram", refuse)
    monkeypatch.setattr(controls, "structure_features", refuse)
    assert json.dumps(simple_controls(design, model, folder)) == json.dumps(first)
    changed = design.records[0]["image"].replace("image", "label")
    nib.save(nib.Nifti1Image(np.ones((8, 8, 9), np.uint8), np.eye(4)), Path(design.root, changed))
    with pytest.raises(AssertionError, match="worked out anew"):
        simple_controls(design, model, folder)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("worked out anew")


@pytest.mark.parametrize("name", TITLES)
def test_a_control_that_was_not_done_says_why(name):
    control = control_not_done(name, "a reason")
    assert control["title"] and "?" in control["question"]
    assert control["reading"] == "Not done: a reason."
