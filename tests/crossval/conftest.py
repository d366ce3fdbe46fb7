"""Fits of a small design, made once, and what the room says while it works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_design import TINY_SETTINGS
from tiny_structures import CROSSVAL, write_phantom

from monai_chd.cli import main
from monai_chd.crossval import controls, run, worst_cases
from monai_chd.crossval.design import new_design
from monai_chd.crossval.fits import fit_folder, run_fit


@pytest.fixture(scope="session")
def tiny_design(datalist):
    """24 patients in two folds, drawn once."""
    return new_design(datalist, folds=2, repeats=1, settings=TINY_SETTINGS)


@pytest.fixture(scope="session")
def done_fits(tiny_design, tmp_path_factory) -> Path:
    """A folder with both fits of the design; not to be written to."""
    fits = tmp_path_factory.mktemp("cv") / "fits"
    for fold in range(2):
        seconds = run_fit(tiny_design, fit_folder(fits, 0, fold), 0, fold)
        assert seconds is not None and seconds > 0
    return fits


@pytest.fixture
def fits_copy(done_fits, tmp_path) -> Path:
    """The same, to be spoilt."""
    return Path(shutil.copytree(done_fits, tmp_path / "fits"))


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """Lines that the room tells who runs it, in order; whether they are printed is the command line's part."""
    lines: list[str] = []
    for module in (controls, run, worst_cases):
        # no handler: a run of the bundle sets up all logging anew
        monkeypatch.setattr(module.logger, "info", lines.append)
    return lines


@pytest.fixture(scope="session")
def structures_done(tmp_path_factory):
    """The datalist and the folder of a cross-validation of seconds whose classifier reads structures."""
    folder = tmp_path_factory.mktemp("cv")
    datalist = write_phantom(folder, 12, 0)
    assert main(["crossval", str(datalist), "--out", str(folder / "cv"), *CROSSVAL]) == 0
    return datalist, folder / "cv"
