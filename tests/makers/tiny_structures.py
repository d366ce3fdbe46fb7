"""A small phantom cohort with label maps, and structure networks of seconds on it."""

from __future__ import annotations

from pathlib import Path

from monai_chd.cli import main
from monai_chd.cohort.datalist import Choices, prepare
from monai_chd.phantom.cohort import write_cohort

FRAMES = ["--frame_size", "24", "--sequence_length", "8"]
TRAINING = [*FRAMES, "--frames_per_epoch", "24", "--val_interval", "1", "--batch_size", "2"]

CROSSVAL = ["--quick", "--folds", "2", "--no-controls", "--encoder", "structures", "--structure_epochs", "1", *FRAMES]
CROSSVAL += [
    "--cache",
    "features",
    "--standardize",
    "true",
    "--hidden_size",
    "8",
    "--max_epochs",
    "2",
    "--pooling",
    "mean",
]
"""Options of a cross-validation of seconds."""


def write_phantom(folder: Path, patients: int = 18, test_fraction: float = 0.33) -> Path:
    """The datalist of a cohort of two folds."""
    write_cohort(folder / "cohort", patients=patients, size=32, slices=(8, 10), progress=False)
    prepare(folder / "cohort", folder / "work", Choices(folds=2, test_fraction=test_fraction))
    return folder / "work" / "datalist.json"


def train_structures(datalist: Path, out: Path, epochs: int, *more: str) -> int:
    """`monai-chd train-structures` with small frames."""
    return main(["train-structures", str(datalist), "--out", str(out), "--max_epochs", str(epochs), *TRAINING, *more])
