"""Config keys: every one that is named here is a key of train.json, and the encoder decides how fits are trained."""

from __future__ import annotations

import pytest

from monai_chd.crossval.config_keys import (
    FIT_KEYS,
    FROZEN_ENCODER,
    FROZEN_SETTINGS,
    LOCAL_KEYS,
    REPORTED_KEYS,
    fit_settings,
    mode_of,
)
from monai_chd.workflow.run import config_content


@pytest.mark.parametrize("keys", [FIT_KEYS, LOCAL_KEYS, REPORTED_KEYS, tuple(FROZEN_SETTINGS)])
def test_every_key_is_one_of_the_bundles_training(keys):
    assert set(keys) <= set(config_content("train")) and len(set(keys)) == len(keys)


def test_no_key_is_of_two_kinds():
    """What a fit sets by itself is no choice, and what changes no result is not reported as one."""
    assert len({*FIT_KEYS, *LOCAL_KEYS, *REPORTED_KEYS}) == len(FIT_KEYS) + len(LOCAL_KEYS) + len(REPORTED_KEYS)
    assert set(FROZEN_SETTINGS) <= set(REPORTED_KEYS)


def test_without_an_encoder_it_is_the_frozen_one_with_its_own_settings(tmp_path):
    settings = fit_settings({}, tmp_path)
    assert mode_of(settings) == "frozen" and settings.items() >= FROZEN_SETTINGS.items()
    assert settings["cache_dir"] == str(tmp_path / "cache")


def test_the_processor_has_no_say_in_the_design(tmp_path, monkeypatch):
    """Or a cross-validation could not go on at another machine, and figures would hang on it."""
    found = []
    for able in (True, False):
        monkeypatch.setattr("monai_chd.networks.encoders.has_bfloat16", lambda device, able=able: able)
        found.append(fit_settings({}, tmp_path))
    assert found[0] == found[1] and "encoder_precision" not in found[0]
    assert config_content("train")["encoder_precision"] == "float32"


def test_what_is_given_goes_before_the_frozen_modes_settings(tmp_path):
    given = {"encoder": FROZEN_ENCODER, "pooling": "mean", "cache": "none", "cache_dir": "x"}
    settings = fit_settings(given, tmp_path)
    assert mode_of(settings) == "frozen" and settings.items() >= {**FROZEN_SETTINGS, **given}.items()


def test_another_encoder_is_trained_with_the_configs_own_settings(tmp_path):
    settings = fit_settings({"encoder": "small_cnn"}, tmp_path)
    assert settings == {"encoder": "small_cnn", "cache_dir": str(tmp_path / "cache")}
    assert mode_of(settings) == mode_of({}) == "end-to-end"


def test_kept_features_of_another_encoder_are_the_frozen_mode_too(tmp_path):
    given = {"encoder": {"_target_": "some.FrozenEncoder"}, "cache": "features"}
    settings = fit_settings(given, tmp_path)
    assert mode_of(settings) == "frozen" and settings == {**given, "cache_dir": str(tmp_path / "cache")}


def test_the_folder_of_caches_does_not_depend_on_where_the_command_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit_settings({}, "cv")["cache_dir"] == str(tmp_path / "cv" / "cache")
