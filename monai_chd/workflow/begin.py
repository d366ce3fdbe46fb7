"""What a run of the bundle is refused for before it begins, each kind of run by one call of its config.

What a part of the config cannot take (an encoder that is not known) is that part's; the files beside the weights are `settings`'.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_chd.errors import UserError, UserFileError, bare_mistakes
from monai_chd.files import writable_folder
from monai_chd.identity import patient_key
from monai_chd.metrics.calibration import read_calibration, read_target
from monai_chd.nifti import voxel_digest
from monai_chd.scans.opening import read_scan
from monai_chd.wording import some_of
from monai_chd.workflow.run import config_content
from monai_chd.workflow.settings import (
    LAST,
    MODEL,
    SCAN_KEYS,
    STRUCTURE_KEYS,
    check_checkpoint,
    read_settings,
    read_trained_on,
    seen,
)
from monai_chd.workflow.weights import read_checkpoint

logger = logging.getLogger(__name__)

COUNTS = (
    "max_epochs",
    "batch_size",
    "num_samples",
    "frames_per_epoch",
    "val_interval",
    "early_stop_patience",
    "projection",
    "hidden_size",
    "num_layers",
    "heads",
    "crop_size",
)
FROM_ZERO = ("context", "fold", "seed", "num_workers", "cine_slice")
NUMBERS = ("hu_offset", "crop_margin", "flag_weight")
OPTIONAL = ("projection", "cine_slice", "hu_offset", "cache_limit", "crop_size", "crop_margin")
RATES = ("learning_rate", "lr_decay", "cache_limit")
SWITCHES = ("standardize", "bidirectional", "summary", "disagreement", "resume", "amp", "gpu")
GROWING = ("max_epochs", "early_stop_patience")
"""Settings that a training may go on with more of: it is then the training that had them from the beginning."""


@bare_mistakes()
def begin_training(
    settings: Mapping[str, Any],
    cases: Mapping[str, Sequence[Mapping[str, Any]]],
    output_dir: str | Path,
    resume: bool = False,
) -> None:
    """Before a training: refuse wrong values, a folder that is not to be trained into, and to go on with something else.

    Args:
        settings: config keys that decide the model.
        cases: of `train` and `validate`.
        output_dir: where the model goes.
        resume: go on with the model there.

    Raises:
        UserError: see `check_values`; no epoch would be validated; the folder is not writable or holds a model that is not
            resumed; other settings or cases than those of the training to go on with, or one that is done already.
        UserFileError: nothing to go on with.
    """
    check_values({**settings, "resume": resume})
    if (interval := settings.get("val_interval", 1)) > settings["max_epochs"]:
        raise UserError(
            f"val_interval: expected no more than max_epochs, {settings['max_epochs']}, got {interval}: without a validation no "
            f"model is chosen"
        )
    _check_output(output_dir, resume)
    if resume:
        _check_resume(Path(output_dir, "models", LAST), settings, [*cases["train"], *cases["validate"]])


@bare_mistakes()
def begin_evaluation(checkpoint: str | Path, settings: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> None:
    """Before an evaluation: refuse what `begin_inference` does, and cases that the model was trained on.

    Args:
        checkpoint: the weights.
        settings: config keys that decide the predictions.
        cases: those to evaluate on.

    Raises:
        UserFileError, UserError: see `begin_inference`.
        UserError: no cases, or some that stand in the `trained_on.json` beside the weights.
    """
    begin_inference(checkpoint, settings)
    check_unseen(checkpoint, cases)


@bare_mistakes()
def begin_inference(checkpoint: str | Path, settings: Mapping[str, Any]) -> None:
    """Before a model is used: refuse wrong values, weights of another model, and a target that it has no calibration for.

    Args:
        checkpoint: the weights.
        settings: config keys that decide the predictions, `coverage` and `risk` among them.

    Raises:
        UserFileError, UserError: see `check_values`, `settings.check_checkpoint` and `calibration.Calibration.with_target`.
    """
    check_values(settings)
    check_checkpoint(checkpoint, settings)
    read_calibration(checkpoint).with_target(settings["coverage"], settings["risk"])


@bare_mistakes()
def begin_structures(
    checkpoint: str | Path, settings: Mapping[str, Any], cases: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """Before a structure network is used: as `begin_inference`, or `begin_evaluation` on `cases`, which are a classifier's.

    Raises:
        UserFileError, UserError: see there.
    """
    check_values(settings)
    check_checkpoint(checkpoint, settings, STRUCTURE_KEYS)
    if cases is not None:
        check_unseen(checkpoint, cases)


@bare_mistakes()
def set_seed(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, and have PyTorch take the same ways every time.

    Raises:
        UserError: no whole number of 0 or more.
    """
    from monai.utils import set_determinism

    check_values({"seed": seed})
    set_determinism(seed=seed)  # type: ignore[no-untyped-call]


@bare_mistakes()
def end_training(output_dir: str | Path) -> None:
    """Say where the model is, and what its figures are not.

    Raises:
        UserError: there is none, since no validation gave a figure to choose one by.
    """
    model = Path(output_dir, "models", MODEL)
    if not model.is_file():
        raise UserError(
            f"{model}: no model was kept, since no validation gave a finite figure to choose one by; look at "
            f"{Path(output_dir, 'learning_curves.csv')}, and try a smaller learning_rate"
        )
    logger.info(f"model and learning curves: {output_dir} (val_… figures chose the model; they are not test results)")


def check_values(settings: Mapping[str, Any]) -> None:
    """Refuse values that would be taken for something else, by the name of their config key.

    Raises:
        UserError: lists every count that is no whole number of 1 or more (or of 0 or more), rate that is not above 0, number
            that is none, switch that is neither true nor false, a wished coverage or risk that is none, and mixed precision
            without a GPU, which torch would leave off in silence.
    """
    wrong: dict[str, str] = {}
    for key, value in settings.items():
        if value is None and key in OPTIONAL:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if key in COUNTS and not (isinstance(value, int) and number and value >= 1):
            wrong[key] = f"expected a whole number of 1 or more, got {value!r}"
        elif key in FROM_ZERO and not (isinstance(value, int) and number and value >= 0):
            wrong[key] = f"expected a whole number of 0 or more, got {value!r}"
        elif key in NUMBERS and not (number and math.isfinite(value)):
            wrong[key] = f"expected a number, got {value!r}"
        elif key in RATES and not (number and 0 < value < float("inf")):
            wrong[key] = f"expected a number above 0, got {value!r}"
        elif key in SWITCHES and not isinstance(value, bool):
            wrong[key] = f"expected true or false, got {value!r}"
    defaults = config_content("train") if wrong else {}
    # a key that is another one's value unless told otherwise is not to blame for it
    faults = [
        f"{key}: {fault}"
        for key, fault in wrong.items()
        if (other := str(defaults.get(key)).removeprefix("@")) not in wrong or settings[other] != settings[key]
    ]
    if settings.get("amp") is True and settings.get("gpu") is False:
        faults.append(
            "amp: mixed precision is a GPU's, and none is used here, so the numbers would be others; leave it out"
        )
    try:
        read_target(settings.get("coverage"), settings.get("risk"))
    except UserError as error:
        faults.append(str(error))
    if faults:
        raise UserError("; ".join(faults))


def _check_output(output_dir: str | Path, resume: bool) -> None:
    folder = writable_folder(output_dir) / "models"
    if resume and not (folder / LAST).is_file():
        raise UserFileError(f"{folder / LAST}: nothing to resume from; train without --resume first")
    if not resume and any((folder / name).is_file() for name in (MODEL, LAST)):
        raise UserError(
            f"{folder} already holds a model; choose another output folder, or go on with it with --resume true"
        )


def _check_resume(last: Path, settings: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> None:
    """A training goes on only where it comes to the model of one that was never stopped."""
    check_checkpoint(last, settings, settings.keys() - set(GROWING))
    if read_trained_on(last) not in (None, seen(cases)):
        raise UserError(f"{last} was trained on other cases; resume with the datalist it was started with")
    saved = read_checkpoint(last)
    if "epoch" not in saved:
        raise UserError(f"{last}: not what a training is resumed from; take it again from where the model was trained")
    if missing := {"early_stop", "made_of"} - saved.keys():
        raise UserError(f"{last}: of an older version, without {' and '.join(sorted(missing))}; train again")
    done, stopping, patience = saved["epoch"], saved["early_stop"], settings["early_stop_patience"]
    if done >= settings["max_epochs"]:
        raise UserError(f"{last}: already trained for {done} epochs; ask for more with --max_epochs N")
    if stopping and stopping["counter"] >= patience:
        raise UserError(
            f"{last}: stopped early after {done} epochs, the last {stopping['counter']} validations without a better one; ask "
            f"for more with --early_stop_patience N"
        )
    before = read_settings(last).get("early_stop_patience", patience)
    if patience < before and patience <= done:  # it may have been used up meanwhile
        raise UserError(
            f"{last} was trained with early_stop_patience {before} (asked: {patience}); ask for no less to go on"
        )


def check_unseen(checkpoint: str | Path, cases: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to evaluate a model on patients or scans that it was trained on.

    Raises:
        UserError: no cases, or some that stand in the `trained_on.json` beside the weights.
    """
    if not cases:
        raise UserError("the datalist has no test part; make one with `monai-chd prepare … --test-fraction 0.2`")
    known = read_trained_on(checkpoint)
    if known is None:
        return
    patients = set(map(patient_key, known["patient"]))
    scans = {key: set(known.get(key, ())) for key in SCAN_KEYS}
    leaked = sorted(
        {str(case["patient"]) for case in cases if patient_key(case["patient"]) in patients or _seen(case, scans)}
    )
    if leaked:
        raise UserError(
            f"{len(leaked)} of the patients to evaluate on were seen in training ({some_of(leaked)}): the figure would mean "
            f"nothing. Use the datalist that {checkpoint} was trained with"
        )


def _seen(case: Mapping[str, Any], scans: Mapping[str, set[str]]) -> bool:
    """Whether a case's scan is among those of `SCAN_KEYS`; what a datalist made by hand does not say is looked up in the file."""
    if any(case.get(key) in scans[key] for key in SCAN_KEYS):
        return True
    look = scans["voxels"] and not case.get("voxels") and case.get("image")
    return bool(look) and voxel_digest(read_scan(case["image"])) in scans["voxels"]
