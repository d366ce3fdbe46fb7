"""What a model was trained with and on, kept beside its weights, so that it cannot be used with other settings or tested on its
own training patients by mistake."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_chd.cohort.identity import patient_key
from monai_chd.errors import UserError, UserFileError
from monai_chd.files import replacing, writable_folder
from monai_chd.metrics.calibration import read_calibration, read_target

MODEL = "model.pt"
LAST = "last.pt"
SETTINGS = "settings.json"
TRAINED_ON = "trained_on.json"

BUILT = "_built_in_config"
COUNTS = ("max_epochs", "batch_size", "val_interval", "early_stop_patience", "projection", "hidden_size", "num_layers")
OPTIONAL = ("projection",)
RATES = ("learning_rate", "lr_decay")
SWITCHES = ("bidirectional", "resume", "amp")


def find_checkpoint(output_dir: str | Path, bundle_root: str | Path) -> str:
    """The weights to use: those trained into `output_dir`, else those the bundle ships; the former if there are none."""
    own, shipped = Path(output_dir, "models", MODEL), Path(bundle_root, "models", MODEL)
    return str(shipped if shipped.is_file() and not own.is_file() else own)


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON holds them: tuples as lists, an object (an encoder built in a config) by the name of its class."""
    text = json.dumps(dict(settings), default=lambda value: {"class": type(value).__name__})
    return json.loads(text)  # type: ignore[no-any-return]


def _noted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as noted beside weights: an object goes under a key of its own, which no config takes for a value."""
    return {key + BUILT if isinstance(value, dict) else key: value for key, value in plain(settings).items()}


def _other(key: str) -> str:
    """The key under which the same setting is noted when it is the other kind of value."""
    return key.removesuffix(BUILT) if key.endswith(BUILT) else key + BUILT


def write_settings(folder: str | Path, settings: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> None:
    """Write `settings.json` (a config that can follow another in `--config_file`) and `trained_on.json` beside the weights.

    Args:
        folder: the folder of the weights.
        settings: config keys and values that the network and its input depend on.
        cases: all cases that the training saw, those it was validated on included, since they chose the model.
    """
    with replacing(Path(folder, SETTINGS)) as temporary:
        temporary.write_text(json.dumps(_noted(settings), indent=2) + "\n")
    with replacing(Path(folder, TRAINED_ON)) as temporary:
        temporary.write_text(json.dumps(_seen(cases), indent=2) + "\n")


def _seen(cases: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Patients and scans, as `trained_on.json` holds them."""
    return {key: sorted({str(case[key]) for case in cases if case.get(key)}) for key in ("patient", "sha256")}


def check_checkpoint(checkpoint: str | Path, settings: Mapping[str, Any]) -> None:
    """Refuse weights that are not there or were trained with other settings.

    Raises:
        UserFileError: no weights.
        UserError: settings differ from the `settings.json` beside the weights (weights without one are taken as they are).
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise UserFileError(
            f"{path}: no trained model; train one into the same output folder first, or name its weights with --checkpoint FILE"
        )
    beside = path.with_name(SETTINGS)
    if not beside.is_file():
        return
    noted, asked = json.loads(beside.read_text()), _noted(settings)
    trained = {key: noted.get(key, noted.get(_other(key), value)) for key, value in asked.items()}
    differ = [f"{key} {trained[key]!r} (asked: {value!r})" for key, value in asked.items() if trained[key] != value]
    if differ:
        raise UserError(
            f"{path} was trained with {', '.join(differ)}. Ask for the same: `monai-chd` takes the training's settings by "
            f"itself when you leave these out; with `python -m monai.bundle run` put {beside} last in --config_file"
        )


def check_values(settings: Mapping[str, Any]) -> None:
    """Refuse values that would be taken for something else, by the name of their config key.

    Raises:
        UserError: lists every count that is no whole number of 1 or more, rate that is not above 0, and switch that is
            neither true nor false, and a wished coverage or risk that is none.
    """
    wrong = []
    for key, value in settings.items():
        if value is None and key in OPTIONAL:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if key in COUNTS and not (isinstance(value, int) and number and value >= 1):
            wrong.append(f"{key}: expected a whole number of 1 or more, got {value!r}")
        elif key in RATES and not (number and 0 < value < float("inf")):
            wrong.append(f"{key}: expected a number above 0, got {value!r}")
        elif key in SWITCHES and not isinstance(value, bool):
            wrong.append(f"{key}: expected true or false, got {value!r}")
    try:
        read_target(settings.get("coverage"), settings.get("risk"))
    except ValueError as error:
        wrong.append(str(error))
    if wrong:
        raise UserError("; ".join(wrong))


def check_wish(checkpoint: str | Path, coverage: float | None, risk: float | None) -> None:
    """Before a model is used: refuse a wished coverage or risk that is none, or that it has no calibration for.

    Raises:
        UserError: see `calibration.Calibration.with_target`; or the file beside the weights is none.
    """
    read_calibration(checkpoint).with_target(coverage, risk)


def new_output(output_dir: str | Path, resume: bool = False) -> None:
    """Refuse an output folder that cannot be written to or already holds a model, unless training goes on from it.

    Raises:
        UserError: not writable, or a model is there and `resume` is off.
        UserFileError: `resume` is on and there is nothing to go on from.
    """
    folder = writable_folder(output_dir) / "models"
    if resume and not (folder / LAST).is_file():
        raise UserFileError(f"{folder / LAST}: nothing to resume from; train without --resume first")
    if not resume and any((folder / name).is_file() for name in (MODEL, LAST)):
        raise UserError(
            f"{folder} already holds a model; choose another output folder, or go on with it with --resume true"
        )


def check_resumable(checkpoint: str | Path, settings: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to go on with a training on other settings or cases: what is noted beside its weights would become untrue.

    Raises:
        UserFileError, UserError: see `check_checkpoint`.
        UserError: the cases differ from the `trained_on.json` beside the weights.
    """
    check_checkpoint(checkpoint, settings)
    beside = Path(checkpoint).with_name(TRAINED_ON)
    if beside.is_file() and json.loads(beside.read_text()) != _seen(cases):
        raise UserError(f"{checkpoint} was trained on other cases; resume with the datalist it was started with")


def check_resume(
    resume: bool,
    output_dir: str | Path,
    max_epochs: int,
    settings: Mapping[str, Any],
    cases: Sequence[Mapping[str, Any]],
) -> None:
    """Before a training is resumed: refuse other settings or cases, and one that is done already.

    Raises:
        UserFileError, UserError: see `check_resumable`; or `max_epochs` are trained already.
    """
    if not resume:
        return
    import torch  # the other checks are quick

    last = Path(output_dir, "models", LAST)
    check_resumable(last, settings, cases)
    done = torch.load(last, map_location="cpu", weights_only=True)["epoch"]
    if done >= max_epochs:
        raise UserError(f"{last}: already trained for {done} epochs; ask for more with --max_epochs N")


def check_unseen(checkpoint: str | Path, cases: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to evaluate a model on patients or scans that it was trained on.

    Raises:
        UserError: no cases, or some that stand in the `trained_on.json` beside the weights.
    """
    if not cases:
        raise UserError("the datalist has no test part; make one with `monai-chd prepare … --test-fraction 0.2`")
    beside = Path(checkpoint).with_name(TRAINED_ON)
    if not beside.is_file():
        return
    seen = json.loads(beside.read_text())
    patients, scans = set(map(patient_key, seen["patient"])), set(seen["sha256"])
    leaked = sorted(
        {str(c["patient"]) for c in cases if patient_key(c["patient"]) in patients or c.get("sha256") in scans}
    )
    if leaked:
        raise UserError(
            f"{len(leaked)} of the patients to evaluate on were seen in training ({', '.join(leaked[:8])}"
            f"{' …' if len(leaked) > 8 else ''}): the figure would mean nothing. Use the datalist that {checkpoint} was "
            f"trained with"
        )
