"""A made scan, and the folder that a side of the benchmark works in."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture
def scan(tmp_path) -> Path:
    """Made CT stored as HU + 1024 in RAS, 40 x 40 x 12: air on one side, soft tissue on the other."""
    values = np.random.default_rng(0).integers(900, 1300, (40, 40, 12)).astype(np.int16)
    values[:8] = 20
    path = tmp_path / "scan.nii.gz"
    nib.Nifti1Image(values, np.eye(4)).to_filename(path)
    return path


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch) -> Path:
    """What a process of the benchmark is given to write in."""
    monkeypatch.setenv("BENCH_WORK", str(tmp_path))
    return tmp_path
