"""What a model was trained with is noted beside its weights, read back as plain data only, and asked for again."""

import json

import pytest
from torch import nn

from monai_chd.workflow.run import config_content
from monai_chd.workflow.settings import (
    MODEL_KEYS,
    check_checkpoint,
    find_checkpoint,
    model_settings,
    plain,
    read_settings,
    trained_with,
    write_settings,
)

SETTINGS = {"frame_size": 224, "window": [-200, 900], "encoder": "small_cnn", "bidirectional": False, "risk": None}
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


# notes


def test_settings_are_noted_and_read_back(checkpoint):
    assert json.loads(checkpoint.with_name("settings.json").read_text()) == read_settings(checkpoint) == SETTINGS
    assert read_settings(checkpoint.parent / "elsewhere" / "model.pt") == {}


def test_patients_and_scans_of_the_training_are_noted_once_each_and_sorted(checkpoint):
    noted = json.loads(checkpoint.with_name("trained_on.json").read_text())
    assert noted == {"patient": ["1001", "1002"], "sha256": ["aa", "bb", "cc"], "voxels": []}


def test_an_encoder_built_in_a_config_is_noted_by_its_class(tmp_path):
    encoder = nn.Conv2d(1, 1, 1)
    assert plain({"encoder": encoder, "window": (0, 1)}) == {"encoder": {"class": "Conv2d"}, "window": [0, 1]}
    write_settings(tmp_path, {"encoder": encoder}, [])
    (tmp_path / "model.pt").touch()
    assert read_settings(tmp_path / "model.pt") == {"encoder_built_in_config": {"class": "Conv2d"}}
    check_checkpoint(tmp_path / "model.pt", {"encoder": nn.Conv2d(1, 2, 3)})
    for other in (nn.Conv3d(1, 1, 1), "small_cnn"):
        with pytest.raises(ValueError, match="Conv2d"):
            check_checkpoint(tmp_path / "model.pt", {"encoder": other})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"encoder": "$__import__(\'os\').abort()"}', "encoder: text that a config would run or look up"),
        ('{"pooling": "@device"}', "pooling: text that a config would run or look up, '@device'"),
        ('{"sampling": "%other.json#key"}', "sampling: text that a config would run or look up"),
        ('{"encoder": {"_target_": "os.abort"}}', "encoder: expected text, a number, true, false, null or a list"),
        ('{"window": [0, "$1"]}', "window: expected text, a number"),
        ('{"window": [[0], 1]}', "window: expected text, a number"),
        ('{"encoder_built_in_config": "x"}', "encoder_built_in_config: expected {\"class\": name}, got 'x'"),
        ('{"encoder_built_in_config": {"class": "A", "_target_": "B"}}', "encoder_built_in_config: expected"),
        ('{"encoder_built_in_config": {"class": "$x"}}', "encoder_built_in_config: text that a config would run"),
        ('{"initialize": []}', "initialize: no setting of a model; known: frame_size,"),
        ('{"encoder#network": 1}', "encoder#network: no setting of a model"),
        ("[]", "expected an object of settings, got list"),
        ('{"frame_size": 2', "not the settings of a model, since it is not JSON ("),
    ],
)
def test_a_note_that_is_no_plain_data_is_refused_with_file_and_key(tmp_path, text, message):
    (tmp_path / "settings.json").write_text(text)
    (tmp_path / "model.pt").touch()
    for read in (read_settings, trained_with, lambda path: check_checkpoint(path, SETTINGS)):
        with pytest.raises(ValueError) as caught:
            read(tmp_path / "model.pt")
        assert f"{tmp_path / 'settings.json'}: {message}" in str(caught.value)


# the same again


def test_a_model_is_used_with_what_is_noted_and_the_defaults_of_training_elsewhere(checkpoint, tmp_path):
    defaults = {key: config_content("train")[key] for key in MODEL_KEYS}
    noted = {key: SETTINGS[key] for key in ("frame_size", "window", "encoder", "bidirectional")}
    assert model_settings(checkpoint) == noted
    assert trained_with(checkpoint) == {**defaults, **noted} != defaults
    assert trained_with(tmp_path / "nowhere" / "model.pt") == defaults
    assert all(not str(value).startswith(("$", "@", "%")) for value in defaults.values())


def test_the_same_settings_pass_whether_list_or_tuple(checkpoint):
    check_checkpoint(str(checkpoint), {**SETTINGS, "window": (-200, 900)})


@pytest.mark.parametrize(
    ("key", "value"), [("frame_size", 512), ("window", [-100, 900]), ("encoder", "resnet18"), ("bidirectional", True)]
)
def test_a_single_other_setting_is_refused_with_both_values(checkpoint, key, value):
    with pytest.raises(ValueError) as caught:
        check_checkpoint(checkpoint, {**SETTINGS, key: value})
    assert f"was trained with {key} {SETTINGS[key]!r} (asked: {value!r})" in str(caught.value)
    assert str(checkpoint.with_name("settings.json")) in str(caught.value)


def test_all_differing_settings_are_named_at_once(checkpoint):
    with pytest.raises(ValueError, match=r"frame_size 224 \(asked: 16\), encoder 'small_cnn' \(asked: 'x'\)"):
        check_checkpoint(checkpoint, {**SETTINGS, "frame_size": 16, "encoder": "x"})


def test_what_is_not_of_the_network_or_its_frames_may_be_another(checkpoint):
    check_checkpoint(checkpoint, {**SETTINGS, "risk": 0.1, "learning_rate": 1})


def test_a_setting_of_a_later_version_does_not_stand_in_the_way(checkpoint):
    check_checkpoint(checkpoint, {**SETTINGS, "pooling": "last"})


def test_weights_from_elsewhere_without_a_note_are_taken(tmp_path):
    (tmp_path / "model.pt").touch()
    check_checkpoint(tmp_path / "model.pt", SETTINGS)
