"""A run is refused before it begins: wrong values, other settings or cases than the model's, and patients it was trained on."""

import logging
import re

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_chd.errors import UserError
from monai_chd.nifti import read_volume, voxel_digest
from monai_chd.workflow.begin import (
    begin_evaluation,
    begin_inference,
    begin_training,
    check_unseen,
    check_values,
    end_training,
)
from monai_chd.workflow.settings import write_settings

SETTINGS = {"frame_size": 224, "window": [-200, 900], "encoder": "small_cnn", "bidirectional": False}
SETTINGS |= {"max_epochs": 4, "early_stop_patience": 4, "learning_rate": 0.1, "coverage": 1.0, "risk": None}
CASES = [
    {"patient": "1001", "sha256": "aa", "image": "a.nii.gz"},
    {"patient": "1002", "sha256": "bb", "image": "b.nii.gz"},
    {"patient": "1002", "sha256": "cc", "voxels": "v3", "image": "c.nii.gz"},
]
PARTS = {"train": CASES[:1], "validate": CASES[1:], "test": [{"patient": "1003"}]}


def save_last(folder, **more):
    torch.save({"epoch": 2, "early_stop": {"counter": 1}, "made_of": {}, **more}, folder / "models" / "last.pt")


@pytest.fixture
def out(tmp_path):
    """Output folder of a training of two epochs that was stopped."""
    write_settings(tmp_path / "models", SETTINGS, CASES)
    save_last(tmp_path)
    return tmp_path


@pytest.fixture
def checkpoint(out):
    """Weights with both notes beside them."""
    path = out / "models" / "model.pt"
    path.write_bytes(b"weights")
    return path


# values


def test_values_that_mean_nothing_are_refused_together():
    check_values({"max_epochs": 1, "batch_size": 20, "learning_rate": 1e-4, "bidirectional": False, "pooling": "last"})
    with pytest.raises(
        ValueError, match=r"max_epochs.*got 0; batch_size.*got 1.5; learning_rate.*got -1; bidirectional.*'no'"
    ):
        check_values({"max_epochs": 0, "batch_size": 1.5, "learning_rate": -1, "bidirectional": "no", "lr_decay": 0.9})


def test_wishes_are_checked_with_the_other_values():
    check_values({"coverage": 1.0, "risk": None})
    check_values({"coverage": 1.0, "risk": 0.1})
    with pytest.raises(ValueError, match=r"max_epochs.*got 0; coverage: expected a share above 0 up to 1, came 1.5"):
        check_values({"max_epochs": 0, "coverage": 1.5, "risk": None})


# training


def test_an_output_folder_is_refused_when_it_holds_either_file_or_none_to_resume(tmp_path):
    begin_training(SETTINGS, PARTS, tmp_path / "new" / "deep")
    with pytest.raises(FileNotFoundError, match=r"last\.pt: nothing to resume from; train without --resume first"):
        begin_training(SETTINGS, PARTS, tmp_path, resume=True)
    (tmp_path / "models").mkdir()
    for name in ("model.pt", "last.pt"):
        (tmp_path / "models" / name).touch()
        with pytest.raises(ValueError, match="already holds a model"):
            begin_training(SETTINGS, PARTS, tmp_path)
        (tmp_path / "models" / name).unlink()
    begin_training(SETTINGS, PARTS, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file: cannot write there"):
        begin_training(SETTINGS, PARTS, tmp_path / "file")


def test_wrong_values_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match=r"max_epochs: expected .* got 0; resume: expected true or false, got 'yes'"):
        begin_training({**SETTINGS, "max_epochs": 0}, PARTS, tmp_path / "out", "yes")
    assert not (tmp_path / "out").exists()


def test_a_training_goes_on_with_the_same_settings_and_cases_only(out):
    begin_training(SETTINGS, {"train": CASES[1:], "validate": CASES[:1]}, out, resume=True)
    with pytest.raises(ValueError, match=r"frame_size 224 \(asked: 16\)"):
        begin_training({**SETTINGS, "frame_size": 16}, PARTS, out, resume=True)
    for more, fewer in ([{"patient": "1004", "sha256": "dd"}], CASES[1:]), ([], CASES[2:]):
        with pytest.raises(ValueError, match="was trained on other cases; resume with the datalist it was started"):
            begin_training(SETTINGS, {"train": more, "validate": fewer}, out, resume=True)


def test_a_training_that_is_done_is_not_resumed(out):
    with pytest.raises(ValueError, match="already trained for 2 epochs; ask for more with --max_epochs N"):
        begin_training({**SETTINGS, "max_epochs": 2}, PARTS, out, resume=True)


def test_a_key_that_follows_another_is_not_blamed_for_its_value():
    with pytest.raises(ValueError) as refused:
        check_values({"max_epochs": "ten", "early_stop_patience": "ten"})
    assert str(refused.value) == "max_epochs: expected a whole number of 1 or more, got 'ten'"
    with pytest.raises(ValueError, match=r"max_epochs: .*'ten'; early_stop_patience: .* got 0$"):
        check_values({"max_epochs": "ten", "early_stop_patience": 0})
    with pytest.raises(ValueError, match=r"^early_stop_patience: .* got 0$"):
        check_values({"max_epochs": 5, "early_stop_patience": 0})


def test_what_a_training_is_resumed_from_holds_an_epoch(out):
    torch.save({"weight": torch.zeros(2)}, out / "models" / "last.pt")
    with pytest.raises(UserError, match=r"last\.pt: not what a training is resumed from"):
        begin_training({**SETTINGS, "max_epochs": 5}, PARTS, out, resume=True)


@pytest.mark.parametrize(
    ("key", "value"), [("learning_rate", 0.2), ("bidirectional", True), ("coverage", 0.5), ("encoder", "resnet18")]
)
def test_any_other_setting_that_decides_the_model_is_refused_with_both_values(out, key, value):
    with pytest.raises(ValueError, match=re.escape(f"{key} {SETTINGS[key]!r} (asked: {value!r})")):
        begin_training({**SETTINGS, key: value}, PARTS, out, resume=True)


@pytest.mark.parametrize(
    "more", [{"max_epochs": 9}, {"max_epochs": 3}, {"early_stop_patience": 9}, {"early_stop_patience": 3}]
)
def test_more_epochs_and_patience_may_be_asked_for_and_less_that_were_not_used_up(out, more):
    begin_training({**SETTINGS, **more}, PARTS, out, resume=True)


def test_patience_that_may_have_been_used_up_is_refused(out):
    with pytest.raises(ValueError, match=r"early_stop_patience 4 \(asked: 2\); ask for no less"):
        begin_training({**SETTINGS, "early_stop_patience": 2}, PARTS, out, resume=True)


def test_a_training_that_stopped_early_is_not_resumed_without_more_patience(out):
    save_last(out, early_stop={"counter": 4})
    with pytest.raises(
        ValueError, match="stopped early after 2 epochs, the last 4 validations without a better one; ask"
    ):
        begin_training(SETTINGS, PARTS, out, resume=True)
    begin_training({**SETTINGS, "early_stop_patience": 5}, PARTS, out, resume=True)


def test_a_last_checkpoint_of_an_older_version_is_refused(out):
    torch.save({"epoch": 2}, out / "models" / "last.pt")
    with pytest.raises(ValueError, match="of an older version, without early_stop and made_of; train again"):
        begin_training(SETTINGS, PARTS, out, resume=True)


def test_a_training_that_kept_no_model_is_no_success(tmp_path):
    with pytest.raises(ValueError, match=r"model\.pt: no model was kept, since no validation gave a finite figure"):
        end_training(tmp_path)


def test_the_end_of_a_training_says_where_the_model_is(caplog, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").touch()
    with caplog.at_level(logging.INFO, "monai_chd"):
        end_training(tmp_path)
    assert caplog.messages == [
        f"model and learning curves: {tmp_path} (val_… figures chose the model; they are not test results)"
    ]


# use


def test_a_model_is_used_with_its_own_settings_and_a_wish_that_it_can_grant(checkpoint):
    begin_inference(checkpoint, {**SETTINGS, "coverage": None})
    with pytest.raises(ValueError, match=r"frame_size 224 \(asked: 16\)"):
        begin_inference(checkpoint, {**SETTINGS, "frame_size": 16})
    with pytest.raises(ValueError, match="bidirectional: expected true or false"):
        begin_inference(checkpoint, {**SETTINGS, "bidirectional": 1})
    with pytest.raises(ValueError, match=r"risk: the model has no calibration\.json"):
        begin_inference(checkpoint, {**SETTINGS, "risk": 0.1})
    with pytest.raises(FileNotFoundError, match="no trained model"):
        begin_inference(checkpoint.with_name("other.pt"), SETTINGS)


def test_an_evaluation_is_refused_for_the_same_and_on_patients_of_the_training(checkpoint):
    begin_evaluation(checkpoint, SETTINGS, PARTS["test"])
    with pytest.raises(ValueError, match="frame_size"):
        begin_evaluation(checkpoint, {**SETTINGS, "frame_size": 16}, PARTS["test"])
    with pytest.raises(ValueError, match="seen in training"):
        begin_evaluation(checkpoint, SETTINGS, CASES)


def test_mixed_precision_is_not_left_off_in_silence():
    """Of a training on a GPU that is resumed on a machine without one, too."""
    check_values({"amp": True, "gpu": True})
    check_values({"amp": False, "gpu": False})
    with pytest.raises(ValueError, match="amp: mixed precision is a GPU's, and none is used here"):
        check_values({"amp": True, "gpu": False})


# cases


def test_unseen_cases_pass(checkpoint):
    check_unseen(checkpoint, [{"patient": "1003", "sha256": "dd"}, {"patient": "1004"}])


@pytest.mark.parametrize(
    "case",
    [
        {"patient": "1001", "sha256": "new scan"},
        {"patient": "renamed", "sha256": "cc"},
        {"patient": "compressed again", "sha256": "ee", "voxels": "v3"},
        {"patient": "1002"},
    ],
)
def test_a_seen_patient_or_scan_is_refused_whatever_its_other_name(checkpoint, case):
    with pytest.raises(ValueError, match=f"1 of the patients .* seen in training \\({case['patient']}\\)"):
        check_unseen(checkpoint, [{"patient": "1003", "sha256": "dd"}, case])


def test_a_seen_scan_is_refused_where_the_datalist_does_not_say_what_it_holds(tmp_path):
    """As one made by hand, or of an older version: same voxels under another name, patient and orientation."""
    image = nib.Nifti1Image(np.random.default_rng(0).integers(-1000, 900, (5, 6, 7)).astype(np.int16), np.eye(4))
    nib.save(image, tmp_path / "a.nii.gz")
    nib.save(image.as_reoriented(np.array([[0, -1], [1, -1], [2, 1]])), tmp_path / "b.nii")
    write_settings(tmp_path, {}, [{"patient": "1", "voxels": voxel_digest(read_volume(tmp_path / "a.nii.gz"))}])
    with pytest.raises(ValueError, match=r"seen in training \(another\)"):
        check_unseen(tmp_path / "model.pt", [{"patient": "another", "image": str(tmp_path / "b.nii")}])


def test_many_seen_patients_are_counted_and_the_first_named(tmp_path):
    cases = [{"patient": f"p{i:02}", "sha256": str(i)} for i in range(12)]
    write_settings(tmp_path, {}, cases)
    with pytest.raises(ValueError, match=re.escape("12 of the patients") + r".*p00, p01, .*p09 and 2 more\)"):
        check_unseen(tmp_path / "model.pt", cases)


def test_an_empty_test_part_is_refused(checkpoint):
    with pytest.raises(ValueError, match="the datalist has no test part"):
        check_unseen(checkpoint, [])


def test_weights_from_elsewhere_without_a_note_are_taken(tmp_path):
    path = tmp_path / "model.pt"
    path.touch()
    begin_evaluation(path, SETTINGS, CASES)
