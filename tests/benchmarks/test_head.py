"""Five folds of the head are the fits of a cross-validation, on features made before."""

from __future__ import annotations

import os

import pytest

from benchmarks import head
from benchmarks.volumes import make_small
from monai_chd.crossval.config_keys import FROZEN_SETTINGS

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so of every config


@pytest.mark.slow
def test_five_folds_of_the_head_are_trained_on_features_that_are_there(work, monkeypatch):
    monkeypatch.setitem(FROZEN_SETTINGS, "max_epochs", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # one after the other, in this process
    paths = [str(work / f"{index}.nii.gz") for index in range(15)]
    for index, path in enumerate(paths):
        make_small(path, index)
    made = head.side(paths, 32, 4)
    made.warm()
    made.ready()
    kept = sorted((work / "head" / "cache").rglob("*.features"))
    assert len(kept) == 15
    assert made.call() == "5 folds of 15 patients, 1 epochs each"
    assert len(list(work.glob("fits_0/*"))) == 5
    assert sorted((work / "head" / "cache").rglob("*.features")) == kept  # none was made while the clock ran
