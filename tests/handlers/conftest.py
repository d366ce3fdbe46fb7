"""What the handlers tell, and trainings that draw nothing."""

import logging

import pytest

from monai_chd.handlers import learning_curves


@pytest.fixture
def told(caplog, monkeypatch):
    """What the handlers tell, whatever a run of the bundle before did to the package's logger."""
    monkeypatch.setattr(logging.getLogger("monai_chd"), "propagate", True)
    caplog.set_level(logging.INFO, "monai_chd")
    return caplog


@pytest.fixture
def no_picture(monkeypatch):
    """Drawing takes most of the time of an epoch."""
    monkeypatch.setattr(learning_curves, "learning_curves_figure", lambda history, path: None)
