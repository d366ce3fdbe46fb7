"""The files beside a model's weights: what it was trained with (`settings.json`) and on (`trained_on.json`).

They are read as data, never as a config, which could run code. Which run is refused for what they say is `begin`'s.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_chd.errors import UserError, UserFileError, bare_mistakes
from monai_chd.files import write_text
from monai_chd.schemas import CONFIG_MARKS, read_checked, read_json
from monai_chd.workflow.run import config_content

MODEL = "model.pt"
LAST = "last.pt"
SETTINGS = "settings.json"
STRUCTURES_FOLDER = "structures"
"""Below an output folder: what the structure network's training leaves."""

TRAINED_ON = "trained_on.json"

TRAINED_ON_SCHEMA = Path(__file__).with_name("trained_on.schema.json")

MEND = "train the model again, or take its file from where it was trained"
"""Of what lies beside weights."""

SCAN_KEYS = ("sha256", "voxels")
"""What a case says its scan is: digests of the file, and of the voxels, which stay when it is renamed or compressed again."""

MODEL_KEYS = (
    "frame_size",
    "sequence_length",
    "sampling",
    "window",
    "encoder",
    "encoder_precision",
    "standardize",
    "projection",
    "hidden_size",
    "num_layers",
    "bidirectional",
    "pooling",
    "heads",
    "summary",
    "flag_weight",
)
"""Config keys of the network and its frames: with another value of one, weights are of no use, or worse, give other numbers."""

STRUCTURE_KEYS = ("frame_size", "window", "channels", "context")
"""The same of the structure network."""

NOTED_BY = ("train", "train_structures")
"""Configs whose `settings` are noted beside weights."""

BUILT = "_built_in_config"
"""What the key of an object is noted with: it stands for the object's class, and no config takes it for a value."""


def find_checkpoint(output_dir: str | Path, bundle_root: str | Path) -> str:
    """The weights to use: those trained into `output_dir`, else those the bundle ships; the former if there are none."""
    own, shipped = Path(output_dir, "models", MODEL), Path(bundle_root, "models", MODEL)
    return str(shipped if shipped.is_file() and not own.is_file() else own)


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON holds them: tuples as lists, an object (an encoder built in a config) by the name of its class."""
    text = json.dumps(dict(settings), default=lambda value: {"class": type(value).__name__})
    return json.loads(text)  # type: ignore[no-any-return]


def _noted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as noted beside weights."""
    return {key + BUILT if isinstance(value, dict) else key: value for key, value in plain(settings).items()}


def _other(key: str) -> str:
    """The key under which the same setting is noted when it is the other kind of value."""
    return key.removesuffix(BUILT) if key.endswith(BUILT) else key + BUILT


def write_settings(folder: str | Path, settings: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> None:
    """Write `settings.json` and `trained_on.json` beside the weights.

    Args:
        folder: the folder of the weights.
        settings: config keys and values that decide the model.
        cases: all cases that the training saw, those it was validated on included, since they chose the model.
    """
    write_text(Path(folder, SETTINGS), json.dumps(_noted(settings), indent=2) + "\n")
    write_text(Path(folder, TRAINED_ON), json.dumps(seen(cases), indent=2) + "\n")


def seen(cases: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Patients and scans, as `trained_on.json` holds them."""
    return {key: sorted({str(case[key]) for case in cases if case.get(key)}) for key in ("patient", *SCAN_KEYS)}


def read_settings(checkpoint: str | Path) -> dict[str, Any]:
    """The settings noted beside weights, checked to be plain data; empty when none are noted.

    Raises:
        UserError: not an object of keys that one of `NOTED_BY` notes, each with a plain value; names file and key.
    """
    path = Path(checkpoint).with_name(SETTINGS)
    if not path.is_file():
        return {}
    mend = f"; {MEND}"
    content = read_json(path, "the settings of a model", mend)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object of settings, got {type(content).__name__}{mend}")
    known = {key: None for name in NOTED_BY for key in config_content(name)["settings"]}
    for key, value in content.items():
        if fault := _fault(key, value, known):
            raise UserError(f"{path}: {key}: {fault}{mend}")
    return content


def _fault(key: str, value: Any, known: Collection[str]) -> str:
    """What is wrong with one noted setting; empty when nothing is."""
    if key.removesuffix(BUILT) not in known:
        return f"no setting of a model; known: {', '.join(known)}"
    if key.endswith(BUILT):
        if not isinstance(value, dict) or list(value) != ["class"] or not isinstance(value["class"], str):
            return f'expected {{"class": name}}, got {value!r}'
        value = value["class"]
    if isinstance(value, str):
        return f"text that a config would run or look up, {value!r}" if value.startswith(CONFIG_MARKS) else ""
    numbers = value if isinstance(value, list) else [value]
    if value is None or all(isinstance(number, (int, float)) for number in numbers):
        return ""
    return f"expected text, a number, true, false, null or a list of numbers, got {value!r}"


def read_trained_on(checkpoint: str | Path) -> dict[str, list[str]] | None:
    """Patients and scans noted beside weights, as `seen` gives them; None when none are noted.

    Raises:
        UserError: the note is none; names file and key.
    """
    path = Path(checkpoint).with_name(TRAINED_ON)
    if not path.is_file():
        return None
    return read_checked(path, TRAINED_ON_SCHEMA, "the patients of a training", f"; {MEND}")  # type: ignore[no-any-return]


def model_settings(checkpoint: str | Path) -> dict[str, Any]:
    """Those of `MODEL_KEYS` that are noted beside weights.

    Raises:
        UserError: see `read_settings`.
    """
    return {key: value for key, value in read_settings(checkpoint).items() if key in MODEL_KEYS}


def resume_settings(checkpoint: str | Path) -> dict[str, Any]:
    """The noted settings to go on with where none are asked for.

    Without the patience of early stopping where it is `train.json`'s, all epochs, since more of them may be asked for.

    Raises:
        UserError: see `read_settings`.
    """
    noted = {key: value for key, value in read_settings(checkpoint).items() if not key.endswith(BUILT)}
    if noted.get("early_stop_patience") == noted.get("max_epochs"):
        noted.pop("early_stop_patience", None)
    return noted


def default_of_training(key: str) -> Any:
    """The value of a key of `train.json`: a classifier and its structure network see the same frames."""
    return config_content("train")[key]


@bare_mistakes()
def structure_settings(checkpoint: str | Path) -> dict[str, Any]:
    """The settings that a structure network was trained with.

    Raises:
        UserFileError: none are noted beside the weights.
        UserError: see `read_settings`; or they are those of another network.
    """
    path, found = Path(checkpoint), read_settings(checkpoint)
    if not path.is_file() or not found:
        raise UserFileError(
            f"{path}: no structure network with its {SETTINGS}; train one with `monai-chd train-structures`, or name its weights"
        )
    if missing := [key for key in (*STRUCTURE_KEYS, "sequence_length", "sampling") if key not in found]:
        raise UserError(f"{path}: no structure network: {SETTINGS} beside it lacks {', '.join(missing)}; {MEND}")
    return {"crop_size": None, "crop_margin": None, **found}  # older ones know of no crop


@bare_mistakes()
def trained_with(checkpoint: str | Path) -> dict[str, Any]:
    """The values of `MODEL_KEYS` that a model was trained with, the defaults of training where none are noted.

    Raises:
        UserError: see `read_settings`.
    """
    defaults = config_content("train")
    return {key: defaults[key] for key in MODEL_KEYS} | model_settings(checkpoint)


def check_checkpoint(checkpoint: str | Path, settings: Mapping[str, Any], keys: Collection[str] = MODEL_KEYS) -> None:
    """Refuse weights that are not there, or that were trained with other settings.

    Args:
        checkpoint: the weights.
        settings: config keys that are asked for.
        keys: those that must be as noted, where anything is noted; unless told otherwise, those of the network and its frames.

    Raises:
        UserFileError: no weights.
        UserError: other settings, all named; or see `read_settings`.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise UserFileError(
            f"{path}: no trained model; train one into the same output folder first, or name its weights with --checkpoint FILE"
        )
    noted = read_settings(path)
    asked = _noted({key: value for key, value in settings.items() if key in keys})
    trained = {key: noted.get(key, noted.get(_other(key), value)) for key, value in asked.items()}
    differ = [f"{key} {trained[key]!r} (asked: {value!r})" for key, value in asked.items() if trained[key] != value]
    if differ:
        raise UserError(
            f"{path} was trained with {', '.join(differ)}. Leave these out, or ask for the same as {path.with_name(SETTINGS)} "
            f"says"
        )
