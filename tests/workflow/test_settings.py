"""Weights are used only with the settings they were trained with, and never judged on what they were trained on."""

import json
import re

import pytest
from torch import nn

from monai_chd.workflow.settings import (
    check_checkpoint,
    check_resumable,
    check_unseen,
    check_values,
    check_wish,
    find_checkpoint,
    new_output,
    plain,
    write_settings,
)

SETTINGS = {"frame_size": 224, "window": [-200, 900], "encoder": "small_cnn", "bidirectional": False}
CASES = [
    {"patient": "1001", "sha256": "aa", "image": "a.nii.gz"},
    {"patient": "1002", "sha256": "bb", "image": "b.nii.gz"},
    {"patient": "1002", "sha256": "cc", "image": "c.nii.gz"},
]


@pytest.fixture
def checkpoint(tmp_path):
    """Weights with both notes beside them."""
    write_settings(tmp_path, SETTINGS, CASES)
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    return path


# which weights


def test_own_weights_go_before_those_of_the_bundle_and_none_are_still_named(tmp_path):
    out, bundle = tmp_path / "out", tmp_path / "bundle"
    own, shipped = out / "models" / "model.pt", bundle / "models" / "model.pt"
    assert find_checkpoint(out, bundle) == str(own)
    for path in (shipped, own):
        path.parent.mkdir(parents=True)
        path.touch()
        assert find_checkpoint(out, bundle) == str(path)


def test_weights_that_are_not_there_are_refused_with_the_way_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.pt: no trained model; train one .* --checkpoint FILE"):
        check_checkpoint(tmp_path / "model.pt", SETTINGS)


# settings


def test_the_same_settings_pass_and_tuples_are_lists(checkpoint):
    check_checkpoint(checkpoint, SETTINGS)
    check_checkpoint(str(checkpoint), {**SETTINGS, "window": (-200, 900)})


@pytest.mark.parametrize(
    ("key", "value"),
    [("frame_size", 512), ("window", [-100, 900]), ("encoder", "resnet18"), ("bidirectional", True)],
)
def test_a_single_other_setting_is_refused_with_both_values(checkpoint, key, value):
    with pytest.raises(ValueError) as caught:
        check_checkpoint(checkpoint, {**SETTINGS, key: value})
    assert f"was trained with {key} {SETTINGS[key]!r} (asked: {value!r})" in str(caught.value)
    assert str(checkpoint.with_name("settings.json")) in str(caught.value)


def test_all_differing_settings_are_named_at_once(checkpoint):
    with pytest.raises(ValueError, match=r"frame_size 224 \(asked: 16\), encoder 'small_cnn' \(asked: 'x'\)"):
        check_checkpoint(checkpoint, {**SETTINGS, "frame_size": 16, "encoder": "x"})


def test_a_setting_of_a_later_version_does_not_stand_in_the_way(checkpoint):
    check_checkpoint(checkpoint, {**SETTINGS, "new_key": 1})


def test_weights_from_elsewhere_without_a_note_are_taken(tmp_path):
    path = tmp_path / "model.pt"
    path.touch()
    check_checkpoint(path, SETTINGS)
    check_unseen(path, CASES)
    check_resumable(path, SETTINGS, CASES)


def test_settings_are_written_as_a_config_that_json_reads_back(checkpoint):
    assert json.loads(checkpoint.with_name("settings.json").read_text()) == SETTINGS


def test_an_encoder_built_in_a_config_is_noted_by_its_class(tmp_path):
    encoder = nn.Conv2d(1, 1, 1)
    assert plain({"encoder": encoder, "window": (0, 1)}) == {"encoder": {"class": "Conv2d"}, "window": [0, 1]}
    write_settings(tmp_path, {"encoder": encoder}, [])
    (tmp_path / "model.pt").touch()
    check_checkpoint(tmp_path / "model.pt", {"encoder": nn.Conv2d(1, 2, 3)})
    with pytest.raises(ValueError, match="Conv2d"):
        check_checkpoint(tmp_path / "model.pt", {"encoder": nn.Conv3d(1, 1, 1)})


# cases


def test_patients_and_scans_of_the_training_are_noted_once_each_and_sorted(checkpoint):
    noted = json.loads(checkpoint.with_name("trained_on.json").read_text())
    assert noted == {"patient": ["1001", "1002"], "sha256": ["aa", "bb", "cc"]}


def test_unseen_cases_pass(checkpoint):
    check_unseen(checkpoint, [{"patient": "1003", "sha256": "dd"}, {"patient": "1004"}])


@pytest.mark.parametrize(
    "case", [{"patient": "1001", "sha256": "new scan"}, {"patient": "renamed", "sha256": "cc"}, {"patient": "1002"}]
)
def test_a_seen_patient_or_scan_is_refused_whatever_its_other_name(checkpoint, case):
    with pytest.raises(ValueError, match=f"1 of the patients .* seen in training \\({case['patient']}\\)"):
        check_unseen(checkpoint, [{"patient": "1003", "sha256": "dd"}, case])


def test_many_seen_patients_are_counted_and_the_first_named(tmp_path):
    cases = [{"patient": f"p{i:02}", "sha256": str(i)} for i in range(12)]
    write_settings(tmp_path, {}, cases)
    with pytest.raises(ValueError, match=re.escape("12 of the patients") + r".*p00, p01, .*p07 …\)"):
        check_unseen(tmp_path / "model.pt", cases)


def test_an_empty_test_part_is_refused(checkpoint):
    with pytest.raises(ValueError, match="the datalist has no test part"):
        check_unseen(checkpoint, [])


# going on


def test_a_training_goes_on_with_the_same_settings_and_cases_only(checkpoint):
    check_resumable(checkpoint, SETTINGS, list(reversed(CASES)))
    with pytest.raises(ValueError, match=r"frame_size 224 \(asked: 16\)"):
        check_resumable(checkpoint, {**SETTINGS, "frame_size": 16}, CASES)
    for cases in (CASES[:2], [*CASES, {"patient": "1003", "sha256": "dd"}]):
        with pytest.raises(
            ValueError, match="was trained on other cases; resume with the datalist it was started with"
        ):
            check_resumable(checkpoint, SETTINGS, cases)


def test_values_that_mean_nothing_are_refused_together():
    check_values({"max_epochs": 1, "batch_size": 20, "learning_rate": 1e-4, "bidirectional": False, "pooling": "last"})
    with pytest.raises(
        ValueError, match=r"max_epochs.*got 0; batch_size.*got 1.5; learning_rate.*got -1; bidirectional.*'no'"
    ):
        check_values({"max_epochs": 0, "batch_size": 1.5, "learning_rate": -1, "bidirectional": "no", "lr_decay": 0.9})


def test_wishes_are_checked_with_the_other_values_and_before_a_model_is_used(tmp_path):
    check_values({"coverage": 1.0, "risk": None})
    check_values({"coverage": 1.0, "risk": 0.1})
    with pytest.raises(ValueError, match=r"max_epochs.*got 0; coverage: expected a share above 0 up to 1, came 1.5"):
        check_values({"max_epochs": 0, "coverage": 1.5, "risk": None})
    check_wish(tmp_path / "model.pt", None, None)
    with pytest.raises(ValueError, match=r"risk: the model has no calibration\.json"):
        check_wish(tmp_path / "model.pt", None, 0.1)


def test_an_output_folder_is_refused_when_it_holds_either_file_or_none_to_resume(tmp_path):
    new_output(tmp_path / "new" / "deep")
    with pytest.raises(FileNotFoundError, match=r"last\.pt: nothing to resume from; train without --resume first"):
        new_output(tmp_path, resume=True)
    (tmp_path / "models").mkdir()
    for name in ("model.pt", "last.pt"):
        (tmp_path / "models" / name).touch()
        with pytest.raises(ValueError, match="already holds a model"):
            new_output(tmp_path)
        (tmp_path / "models" / name).unlink()
    new_output(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file: cannot write there"):
        new_output(tmp_path / "file")
