"""The structure network inside a classifier: where its weights are, that they fit, and that they know none of its test patients.

What a training of it does is its config's part (`train_structures.json`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from monai_chd.cohort.datalist import PARTS, read_datalist
from monai_chd.errors import UserError, UserFileError, bare_mistakes
from monai_chd.identity import patient_key
from monai_chd.networks import CroppedStructureNet, StructureEncoder, StructureNet
from monai_chd.networks.heart_crop import COARSE_SIZE, CROP_SIZE
from monai_chd.networks.sequences import Standardization
from monai_chd.wording import some_of
from monai_chd.workflow.run import config_content, run_bundle
from monai_chd.workflow.settings import (
    LAST,
    MODEL,
    STRUCTURES_FOLDER,
    find_checkpoint,
    read_settings,
    read_trained_on,
    structure_settings,
)
from monai_chd.workflow.weights import load_weights, read_checkpoint

logger = logging.getLogger(__name__)

ENCODERS_OF_STRUCTURES = ("structures", "cropped_structures")
"""The encoders that need structure networks: one for whole frames, or one that finds the heart and one that reads its box."""

COARSE_FOLDER = "coarse"
"""Below the folder of a structure network that reads the heart's box: the one that finds the heart."""

COARSE_SHARE = 3
"""The one that finds the heart is trained for one of so many epochs: a box needs no fine borders."""

SHARED_KEYS = ("frame_size", "sequence_length", "sampling", "window", "reader", "hu_offset", "cine_slice")
"""Settings of a classifier that its structure network has too: both see the same frames."""

MACHINE_KEYS = ("dataset_dir", "gpu", "amp", "reader")
"""Keys of a training that its evaluation on the same machine has too."""

SAME_FRAMES = ("frame_size", "window")
"""Settings that the frames of a classifier share with those that its structure network was trained on."""


def find_structures(output_dir: str | Path, bundle_root: str | Path) -> str:
    """Weights of the structure network: those trained below `output_dir`, else those the bundle ships; the former if none are."""
    return find_checkpoint(Path(output_dir, STRUCTURES_FOLDER), Path(bundle_root, STRUCTURES_FOLDER))


def train_networks(overrides: Mapping[str, Any]) -> None:
    """Train a structure network; with a `crop_margin` first the one that finds the heart, then the one that reads its box.

    Args:
        overrides: keys of `train_structures.json`, `datalist` and `output_dir` among them.

    Raises:
        UserFileError, UserError: see `label_maps.load_structure_cases` and `begin.begin_training`.
    """
    if overrides.get("crop_margin") is not None:
        epochs = overrides.get("max_epochs", config_content("train_structures")["max_epochs"])
        folder = Path(overrides["output_dir"], COARSE_FOLDER)
        coarse = {
            **overrides,
            "output_dir": str(folder),
            "crop_size": COARSE_SIZE,
            "crop_margin": None,
            "max_epochs": max(1, epochs // COARSE_SHARE),
        }
        if not (overrides.get("resume") and _is_done(folder, coarse["max_epochs"])):
            run_bundle(["train_structures"], **coarse)
        overrides = {"crop_size": CROP_SIZE, **overrides}
        if overrides.get("resume") and not Path(overrides["output_dir"], "models", LAST).is_file():
            overrides["resume"] = False  # the first was stopped before this one began
    run_bundle(["train_structures"], **overrides)


def _is_done(folder: Path, epochs: int) -> bool:
    """Whether the network that finds the heart was trained to its end before the other was stopped."""
    last = Path(folder, "models", LAST)
    return last.is_file() and read_checkpoint(last).get("epoch", 0) >= epochs


def train_structures(datalist: str | Path, output_dir: str | Path, overrides: Mapping[str, Any]) -> None:
    """Train a structure network, and measure its Dice on the patients of the test part who have a label map.

    Args:
        datalist: file made by `prepare`.
        output_dir: where it goes.
        overrides: keys of `train_structures.json`, see `train_networks`.

    Raises:
        UserFileError, UserError: see `train_networks`.
    """
    places = {"datalist": str(Path(datalist).resolve()), "output_dir": str(Path(output_dir).resolve())}
    train_networks({**places, **overrides})
    if any(record.get("label_map") for record in read_datalist(datalist)["test"]):
        machine = {key: overrides[key] for key in MACHINE_KEYS if key in overrides}
        run_bundle(["train_structures", "evaluate_structures"], **places, **machine)


def structure_keys(encoder: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of `train_structures.json` for the structure network of a classifier.

    Args:
        encoder: one of `ENCODERS_OF_STRUCTURES`.
        config: all keys of the classifier's config.
    """
    margin = config["crop_margin"] if encoder == "cropped_structures" else None
    return {key: config[key] for key in SHARED_KEYS} | {"max_epochs": config["structure_epochs"], "crop_margin": margin}


def prepare_structures(datalist: str | Path, output_dir: str | Path, overrides: Mapping[str, Any]) -> None:
    """Before a training: train the structure network that it needs and is not there, or say what label maps are good for.

    One whose training was stopped in the middle has weights, too: it is gone on with, not used as it is.

    Args:
        datalist: file made by `prepare`.
        output_dir: of the training.
        overrides: keys of `train.json`.
    """
    if not Path(datalist).is_file():
        return  # the training says so
    with_map = sum(bool(record.get("label_map")) for part in PARTS for record in read_datalist(datalist)[part])
    encoder = overrides.get("encoder")
    if encoder not in ENCODERS_OF_STRUCTURES:
        if with_map and not overrides.get("resume"):
            logger.info(
                f"{with_map} scans have a label map, which this training does not use: --preset best learns from them"
            )
        return
    folder = Path(output_dir, STRUCTURES_FOLDER)
    stopped = _was_stopped(folder)
    given = "structures" in overrides or overrides.get("resume")
    # not those that a bundle ships: with label maps of one's own, structures are learned from them
    if given or not with_map or (not stopped and (folder / "models" / MODEL).is_file()):
        return
    settings = structure_keys(encoder, {**config_content("train"), **overrides})
    settings |= {key: overrides[key] for key in ("dataset_dir", "fold", "seed", "gpu", "amp") if key in overrides}
    if stopped:
        logger.info(f"the structure network in {folder} was stopped in the middle of its training, which goes on")
        settings["resume"] = True
    train_structures(datalist, folder, settings)


def _was_stopped(folder: Path) -> bool:
    """Whether the training of a structure network, or of the pair that reads the heart's box, was begun and not ended."""
    if not (folder / "models" / MODEL).is_file() and (folder / COARSE_FOLDER / "models" / LAST).is_file():
        return True  # between the two
    for last in (folder / "models" / LAST, folder / COARSE_FOLDER / "models" / LAST):
        noted = read_settings(last) if last.is_file() else {}
        epochs = noted.get("max_epochs")
        if epochs and noted.get("early_stop_patience") == epochs and read_checkpoint(last).get("epoch", 0) < epochs:
            return True
    return False


@bare_mistakes()
def with_structures(
    network: nn.Module,
    structures: str | Path | None,
    settings: Mapping[str, Any],
    cases: Mapping[str, Sequence[Mapping[str, Any]]],
) -> nn.Module:
    """The network, its structure encoder with the weights of a structure network; any other network as it is.

    Args:
        network: a classifier.
        structures: the weights; None: it gets its own later.
        settings: of the classifier.
        cases: of `train`, `validate` and `test`.

    Raises:
        UserFileError: no weights, or no settings beside them.
        UserError: trained on other frames, or on patients of the test part; or weights of another network.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, StructureEncoder) or structures is None:
        return network
    path = Path(structures)
    if not path.is_file():
        raise UserFileError(
            f"{path}: no structure network, which this encoder needs; train one with `monai-chd train-structures` and the same "
            f"--out (and a --crop_margin for cropped_structures), name one with --structures FILE, or take another encoder where "
            f"there are no label maps"
        )
    trained = structure_settings(path)
    if differ := [
        f"{key} {trained[key]!r} (here: {settings[key]!r})" for key in SAME_FRAMES if trained[key] != settings[key]
    ]:
        raise UserError(f"{path} was trained on other frames: {', '.join(differ)}; ask for the same")
    cropped = isinstance(encoder.network, CroppedStructureNet)
    if cropped != (trained["crop_margin"] is not None):
        kind, name = ("the heart's box", "cropped_structures") if not cropped else ("whole frames", "structures")
        raise UserError(f"{path} was trained on {kind}; take it with --encoder {name}, or train another")
    for weights in (path, coarse_weights(path)) if cropped else (path,):
        _check_unseen(weights, cases["test"])
    _fill(encoder.network, path, trained)
    return network


def coarse_weights(path: Path) -> Path:
    """Weights of the network that finds the heart for one that reads its box."""
    return path.parents[1] / COARSE_FOLDER / "models" / MODEL


def _fill(network: StructureNet | CroppedStructureNet, path: Path, trained: Mapping[str, Any]) -> None:
    """Load the weights of a structure network, and of the one that finds the heart for it."""
    if isinstance(network, CroppedStructureNet):
        if not coarse_weights(path).is_file():
            raise UserFileError(
                f"{coarse_weights(path)}: no network that finds the heart, which {path} needs beside it; take both from where "
                f"they were trained"
            )
        load_weights(network.coarse, coarse_weights(path))
        load_weights(network.fine, path)
        network.margin.fill_(trained["crop_margin"])
    else:
        load_weights(network, path)


@bare_mistakes()
def trained_structures(checkpoint: str | Path) -> StructureNet | CroppedStructureNet:
    """A structure network with its weights; one that was trained on the heart's box finds that first.

    Raises:
        UserFileError, UserError: see `settings.structure_settings`; weights of another network, or none that find the heart.
    """
    path = Path(checkpoint)
    trained = structure_settings(path)
    reader, finder = (StructureNet(trained["channels"], context=trained["context"]) for _ in range(2))
    size = trained["crop_size"]
    made = reader if trained["crop_margin"] is None else CroppedStructureNet(reader, finder, size=size)
    _fill(made, path, trained)
    return made


def _check_unseen(path: Path, cases: Sequence[Mapping[str, Any]]) -> None:
    """Refuse structures of patients that the classifier is to be tested on: it would see them clearer than new ones."""
    known = read_trained_on(path) or {"patient": []}
    seen = set(map(patient_key, known["patient"]))
    if leaked := sorted({str(case["patient"]) for case in cases if patient_key(case["patient"]) in seen}):
        raise UserError(
            f"{path}: {len(leaked)} patients of the test part were seen when the structures were trained ({some_of(leaked)}): "
            f"the evaluation would mean nothing. Train both with the same datalist"
        )


@bare_mistakes()
def standardize(network: nn.Module, dataset: Dataset[dict[str, Any]], resume: bool = False) -> None:
    """Give a network's `Standardization` the features of the training's real frames; without one nothing is done.

    Args:
        network: with an encoder.
        dataset: of the training; `image` is frames (C, L, S, S) or the encoder's features (L, F).
        resume: the training goes on with the weights of another, which hold it already.
    """
    step = getattr(network, "standardization", None)
    if resume or not isinstance(step, Standardization):
        return
    device = step.mean.device
    found: list[torch.Tensor] = []
    training = network.training
    network.eval()
    with torch.no_grad():
        for place in tqdm(range(len(dataset)), desc="features to standardize", unit="case"):  # type: ignore[arg-type]
            case = dataset[place]
            image, count = torch.as_tensor(case["image"]).as_subclass(torch.Tensor), int(case["num_frames"])
            if image.dim() == 4:
                number = torch.tensor([count], device=device)
                encoder: Any = network.encoder
                image = encoder(image[None, :, :count].to(device), number)[0]
            found.append(image[:count].float().cpu())
    network.train(training)
    step.fit(torch.cat(found).to(device))
