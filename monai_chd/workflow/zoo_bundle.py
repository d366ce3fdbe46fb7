"""Packs a trained model as a bundle for MONAI's model zoo: configs, weights, documentation, and the package itself beside them.

How it is trained is the bundle's own part; that what was packed runs elsewhere is what `scripts/verify_bundle` shows.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_chd.errors import UserError, UserFileError
from monai_chd.files import replacing, sha256_of, writable_folder, write_text
from monai_chd.labels import CLASSES
from monai_chd.metrics.calibration import CALIBRATION
from monai_chd.metrics.wording import MAIN_FIGURES, format_estimate, main_figures
from monai_chd.schemas import read_json
from monai_chd.workflow.export import MODEL_TS, model_facts, without_source_paths
from monai_chd.workflow.run import bundle_folder, config_content, configured
from monai_chd.workflow.settings import (
    MODEL,
    MODEL_KEYS,
    SETTINGS,
    STRUCTURES_FOLDER,
    TRAINED_ON,
    read_settings,
    read_trained_on,
)
from monai_chd.workflow.structures import COARSE_FOLDER
from monai_chd.workflow.weights import load_weights

logger = logging.getLogger(__name__)

NAME = "chd_ct_cnn_lstm_classification"
"""Of the bundle's folder: organ, modality, method and task, as the zoo's names are made."""

LARGEST = 25 * 2**20
"""Bytes of the largest file that the zoo takes; a larger one is fetched from an address in `large_files.yml`."""

BESIDE = (SETTINGS, CALIBRATION)
"""What goes with weights besides themselves and what they were trained on."""


def pack(
    output_dir: str | Path,
    folder: str | Path,
    *,
    huggingface_url: str | None = None,
    large_files_url: str | None = None,
) -> Path:
    """Write the bundle of a trained model to `folder`/`NAME`, its archive beside it.

    The archive is the same bytes whenever the same model is packed. Names of patients stay behind: of what the model was trained
    on, only the digests of scans go along, by which it still knows them.

    Args:
        output_dir: of the training, evaluated.
        folder: where the bundle goes; one of the same name there is replaced.
        huggingface_url: where the bundle is to be on Hugging Face; for the metadata, and a card at the top.
        large_files_url: where files over 25 MB are to be fetched from; they are put into `folder`/large_files.

    Returns:
        The bundle's folder.

    Raises:
        UserFileError: no model, or no evaluation of it.
        UserError: a model without settings, or of a network that was built in a config of one's own; a large file and no address.
    """
    out = Path(output_dir)
    if not (out / "models" / MODEL).is_file():
        raise UserFileError(f"{out / 'models' / MODEL}: no trained model to pack; train one with `monai-chd train`")
    if not read_settings(out / "models" / MODEL):
        raise UserError(f"{out / 'models' / SETTINGS}: missing, so nobody knows what the weights are of; train again")
    # MONAI exports and loads what fits, and is silent about the rest
    (network,) = configured(["inference"], {"checkpoint": str(out / "models" / MODEL)}, ["network_def"])
    load_weights(network, out / "models" / MODEL)
    metrics = _metrics(out)
    root = writable_folder(folder) / NAME
    building = root.with_name(f".{NAME}.building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        _build(building, out, metrics, huggingface_url, large_files_url)
        shutil.rmtree(root, ignore_errors=True)
        building.rename(root)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    archive = write_archive(root, root.with_name(f"{NAME}_v{config_content('metadata')['version']}.zip"))
    logger.info(f"bundle: {root}\narchive: {archive} (sha256 {sha256_of(archive)})")
    return root


def _build(
    building: Path, out: Path, metrics: Mapping[str, Any], huggingface_url: str | None, large_files_url: str | None
) -> None:
    """All files of the bundle, in a folder that takes its name when they are there."""
    shutil.copytree(bundle_folder() / "configs", building / "configs")
    shutil.copy(bundle_folder() / "LICENSE", building / "LICENSE")
    _copy_package(building)
    _copy_weights(out, building)
    _write_config(building)
    _write_metadata(building, metrics, huggingface_url)
    _write_readme(building, metrics, huggingface_url)
    shutil.copy(bundle_folder() / "docs" / "data_license.txt", building / "docs")
    _script(building)
    _set_large_files_apart(building, large_files_url)


def _metrics(out: Path) -> Mapping[str, Any]:
    """The evaluation of the model on its held-out part, which metadata and README tell of."""
    path = out / "evaluation" / "metrics.json"
    if not path.is_file():
        raise UserFileError(
            f"{path}: no evaluation, and a bundle says how good its model is; run `monai-chd evaluate` first"
        )
    mend = "; run `monai-chd evaluate` again"
    metrics: dict[str, Any] = read_json(path, "the figures of an evaluation", mend)
    if metrics["context"].get("weights_sha256") != sha256_of(out / "models" / MODEL):
        raise UserError(f"{path}: the figures of other weights than {out / 'models' / MODEL}{mend}")
    return metrics


def _copy_package(building: Path) -> None:
    package = Path(__file__).resolve().parents[1]
    inside = (
        bundle_folder() if bundle_folder().parent == package else None
    )  # an installed package has the bundle inside

    def left_out(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if name == "__pycache__" or Path(directory, name) == inside]

    shutil.copytree(package, building / package.name, ignore=left_out)


def _copy_weights(out: Path, building: Path) -> None:
    """The model, and the structure networks that a training from the bundle's configs begins with."""
    structures = out / STRUCTURES_FOLDER
    for source, target in {
        out: building,
        structures: building / STRUCTURES_FOLDER,
        structures / COARSE_FOLDER: building / STRUCTURES_FOLDER / COARSE_FOLDER,
    }.items():
        model = source / "models" / MODEL
        if not model.is_file():
            continue
        models = writable_folder(target / "models")
        shutil.copyfile(model, models / MODEL)
        for name in BESIDE:
            if model.with_name(name).is_file():
                shutil.copyfile(model.with_name(name), models / name)
        known = read_trained_on(model)
        if known is not None:
            write_text(models / TRAINED_ON, json.dumps({**known, "patient": []}, indent=2) + "\n")


def _write_config(building: Path) -> None:
    """The configs of a training, with the network of the shipped weights in place of the default one.

    `monai.bundle.load` builds the network of `train.json` and fills in of the weights what fits, without a word of the rest.
    """
    path = building / "configs" / "train.json"
    config = json.loads(path.read_text("utf-8"))
    trained = read_settings(building / "models" / MODEL)
    defaults = {key: trained[key] for key in MODEL_KEYS if key in trained}
    for name in sorted(building.glob("configs/preset_*.json")):
        preset = json.loads(name.read_text("utf-8"))
        if all(trained.get(key, config[key]) == value for key, value in preset.items() if "#" not in key):
            defaults |= preset
    for key, value in defaults.items():
        *above, last = key.split("#")
        functools.reduce(dict.__getitem__, above, config)[last] = value
    write_text(path, json.dumps(config, indent=4, ensure_ascii=False) + "\n")


def _write_metadata(building: Path, metrics: Mapping[str, Any], huggingface_url: str | None) -> None:
    """metadata.json of this model: shape of its input, figures with intervals, what other programs have to know."""
    path = building / "configs" / "metadata.json"
    metadata = json.loads(path.read_text("utf-8"))
    facts = model_facts(building / "models" / MODEL)
    size, length = facts["frame_size"], facts["sequence_length"]
    metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = [length, size, size]
    told = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    if list(told.values()) != list(CLASSES):
        raise UserError(
            f"{path}: the classes are {', '.join(told.values())}, of the network {', '.join(CLASSES)}; mend it"
        )
    figures: dict[str, Any] = {"data": _data_of(metrics), "cases": metrics["result"]["overall"]["accuracy"]["n"]}
    for name, one in main_figures(metrics["result"]["overall"]).items():
        figures |= {name: one["value"], f"{name}_95_interval": [one["low"], one["high"]]}
    metadata |= {"eval_metrics": figures, "model": facts}
    if huggingface_url:
        metadata["huggingface_url"] = huggingface_url
    write_text(path, json.dumps(metadata, indent=4, ensure_ascii=False) + "\n")


def _data_of(metrics: Mapping[str, Any]) -> str:
    synthetic = metrics["context"].get("synthetic")
    return f"held-out part. {synthetic}" if synthetic else "held-out part: patients that it was not trained on"


def _write_readme(building: Path, metrics: Mapping[str, Any], huggingface_url: str | None) -> None:
    """docs/README.md: the bundle's, with what the weights are, and their figures in place of the note that there are none."""
    text = (bundle_folder() / "docs" / "README.md").read_text("utf-8")
    synthetic = metrics["context"].get("synthetic")
    overall = metrics["result"]["overall"]
    weights = (
        f"**What the weights are:** trained on synthetic hearts alone (`monai-chd phantom`, {overall['accuracy']['n']} others "
        "held out), so that the bundle loads and runs. **What they are not:** a model of patients. Train your own before you "
        "look at an answer."
        if synthetic
        else "**What the weights are:** trained on a cohort of its owner's; the figures are of the part of it that was held out."
    )
    rows = [f"| {name.replace('_', ' ')} | {format_estimate(overall[name])} |" for name in MAIN_FIGURES]
    rows += [
        f"| recall of {name} | {format_estimate(of['recall'])} |" for name, of in metrics["result"]["per_class"].items()
    ]
    baseline = metrics["result"]["majority_baseline"]
    performance = "\n".join(
        [
            f"Of the {_data_of(metrics)}",
            "",
            "| held-out part | value [95 % interval] |",
            "|---|---|",
            *rows,
            "",
            f"Always answering {baseline['label']}, the most frequent class, would be right in "
            f"{format_estimate(baseline['accuracy'])}. Probabilities are calibrated on validation cases, which also chose the "
            "model.",
        ]
    )
    text = _replaced(_replaced(text, "weights", weights), "performance", performance)
    write_text(writable_folder(building / "docs") / "README.md", text)
    if huggingface_url:
        card = "\n".join(
            [
                "---",
                "license: apache-2.0",
                "library_name: monai",
                "pipeline_tag: image-classification",
                "tags: [monai, medical, ct, congenital-heart-disease, classification]",
                "---",
                "",
            ]
        )
        write_text(building / "README.md", card + text)
        shutil.copyfile(
            building / "configs" / "metadata.json", building / "metadata.json"
        )  # the zoo looks for it there


def _replaced(text: str, name: str, by: str) -> str:
    """A text with what stands between the marks `<!-- name -->` and `<!-- /name -->` replaced, marks and all."""
    found, times = re.subn(f"<!-- {name} -->.*?<!-- /{name} -->", lambda _: by, text, flags=re.DOTALL)
    if times != 1:
        raise UserError(
            f"{bundle_folder() / 'docs' / 'README.md'}: expected the marks <!-- {name} --> once, found {times}"
        )
    return found


def _script(building: Path) -> None:
    """models/model.ts by the zoo's own way, `ckpt_export`; configs and metadata, with classes and window, are inside."""
    from monai.bundle import ckpt_export

    target, talk = building / "models" / MODEL_TS, logging.getLogger("monai.bundle.scripts")
    level = talk.level
    talk.setLevel(logging.WARNING)
    ckpt_export(  # type: ignore[no-untyped-call]
        net_id="network_def",
        filepath=str(target),
        ckpt_file=str(building / "models" / MODEL),
        meta_file=str(building / "configs" / "metadata.json"),
        config_file=str(building / "configs" / "inference.json"),
        bundle_root=str(building),
    )
    talk.setLevel(level)
    without_source_paths(target)


def _set_large_files_apart(building: Path, url: str | None) -> None:
    """Move files over `LARGEST` beside the bundle and name them in large_files.yml."""
    large = sorted(path for path in building.rglob("*") if path.is_file() and path.stat().st_size > LARGEST)
    if large and not url:
        names = ", ".join(path.relative_to(building).as_posix() for path in large)
        raise UserError(
            f"{names}: over 25 MB, which the zoo does not take; say where it can be fetched, --large-files-url URL"
        )
    named = []
    for path in large:
        name = path.relative_to(building).as_posix()
        apart = writable_folder(building.parent / "large_files" / Path(name).parent) / path.name
        shutil.move(path, apart)
        named.append({"path": name, "url": f"{url}/{name}", "hash_val": sha256_of(apart), "hash_type": "sha256"})
    if named:  # JSON, which YAML takes
        write_text(building / "large_files.yml", json.dumps({"large_files": named}, indent=4) + "\n")


def write_archive(root: Path, path: Path) -> Path:
    """A zip of a bundle's folder: same files, same bytes, whenever and wherever it is written."""
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for file in sorted(file for file in root.rglob("*") if file.is_file() and "__pycache__" not in file.parts):
            member = zipfile.ZipInfo(f"{root.name}/{file.relative_to(root).as_posix()}")  # of 1980, and readable by all
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(member, file.read_bytes())
    return path
