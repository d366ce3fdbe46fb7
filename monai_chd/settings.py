"""What a model was trained with and on, kept beside its weights, so that it cannot be used with other settings or tested on its
own training patients by mistake."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_chd.files import replacing

MODEL = "model.pt"
LAST = "last.pt"
SETTINGS = "settings.json"
TRAINED_ON = "trained_on.json"


def find_checkpoint(output_dir: str | Path, bundle_root: str | Path) -> str:
    """The weights to use: those trained into `output_dir`, else those the bundle ships; the former if there are none."""
    own, shipped = Path(output_dir, "models", MODEL), Path(bundle_root, "models", MODEL)
    return str(shipped if shipped.is_file() and not own.is_file() else own)


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON holds them: tuples as lists, an object (an encoder built in a config) by the name of its class."""
    text = json.dumps(dict(settings), default=lambda value: {"class": type(value).__name__})
    return json.loads(text)  # type: ignore[no-any-return]


def write_settings(folder: str | Path, settings: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> None:
    """Write `settings.json` (a config that can follow another in `--config_file`) and `trained_on.json` beside the weights.

    Args:
        folder: the folder of the weights.
        settings: config keys and values that the network and its input depend on.
        cases: all cases that the training saw, those it was validated on included, since they chose the model.
    """
    with replacing(Path(folder, SETTINGS)) as temporary:
        temporary.write_text(json.dumps(plain(settings), indent=2) + "\n")
    with replacing(Path(folder, TRAINED_ON)) as temporary:
        temporary.write_text(json.dumps(_seen(cases), indent=2) + "\n")


def _seen(cases: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Patients and scans, as `trained_on.json` holds them."""
    return {key: sorted({str(case[key]) for case in cases if case.get(key)}) for key in ("patient", "sha256")}


def check_checkpoint(checkpoint: str | Path, settings: Mapping[str, Any]) -> None:
    """Refuse weights that are not there or were trained with other settings.

    Raises:
        FileNotFoundError: no weights.
        ValueError: settings differ from the `settings.json` beside the weights (weights without one are taken as they are).
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no trained model; train one with the same --output_dir first, or name its weights with --checkpoint FILE"
        )
    beside = path.with_name(SETTINGS)
    if not beside.is_file():
        return
    trained, asked = json.loads(beside.read_text()), plain(settings)
    differ = [
        f"{key} {trained[key]!r} (asked: {asked[key]!r})" for key in asked if trained.get(key, asked[key]) != asked[key]
    ]
    if differ:
        raise ValueError(
            f"{path} was trained with {', '.join(differ)}; put {beside} last in --config_file \"['…','{beside}']\", which sets "
            f"them, or use `monai-chd evaluate` or `predict`, which do so themselves"
        )


def check_counts(**counts: Any) -> None:
    """Refuse counts that are no whole numbers of 1 or more, by the name of their config key.

    Raises:
        ValueError: lists every such key.
    """
    wrong = [
        f"{key} {value!r}"
        for key, value in counts.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < 1
    ]
    if wrong:
        raise ValueError(f"expected a whole number of 1 or more for each of these, got {', '.join(wrong)}")


def check_resumable(checkpoint: str | Path, settings: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to go on with a training on other settings or cases: what is noted beside its weights would become untrue.

    Raises:
        FileNotFoundError, ValueError: see `check_checkpoint`.
        ValueError: the cases differ from the `trained_on.json` beside the weights.
    """
    check_checkpoint(checkpoint, settings)
    beside = Path(checkpoint).with_name(TRAINED_ON)
    if beside.is_file() and json.loads(beside.read_text()) != _seen(cases):
        raise ValueError(f"{checkpoint} was trained on other cases; resume with the datalist it was started with")


def check_unseen(checkpoint: str | Path, cases: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to evaluate a model on patients or scans that it was trained on.

    Raises:
        ValueError: no cases, or some that stand in the `trained_on.json` beside the weights.
    """
    if not cases:
        raise ValueError("the datalist has no test part; make one with `monai-chd prepare … --test-fraction 0.2`")
    beside = Path(checkpoint).with_name(TRAINED_ON)
    if not beside.is_file():
        return
    seen = {key: set(values) for key, values in json.loads(beside.read_text()).items()}
    leaked = sorted({str(case["patient"]) for case in cases for key in seen if case.get(key) in seen[key]})
    if leaked:
        raise ValueError(
            f"{len(leaked)} of the patients to evaluate on were seen in training ({', '.join(leaked[:8])}"
            f"{' …' if len(leaked) > 8 else ''}): the figure would mean nothing. Use the datalist that {checkpoint} was "
            f"trained with"
        )
