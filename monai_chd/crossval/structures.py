"""The structure networks of a cross-validation: one for each outer fold, which has seen that fold's training patients only.

What is learned from their descriptors is `fits`' part; how one is trained is that of its config, `train_structures.json`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path

from monai_chd.crossval.design import Design, fit_datalist
from monai_chd.errors import UserError, user_error
from monai_chd.files import writable_folder, write_text
from monai_chd.schemas import read_checked
from monai_chd.versions import software_versions
from monai_chd.workflow.run import quietly, run_bundle
from monai_chd.workflow.settings import LAST, MODEL
from monai_chd.workflow.structures import ENCODERS_OF_STRUCTURES, coarse_weights, structure_keys, train_networks

SCHEMA = Path(__file__).with_name("structures_done.schema.json")
MEND = "; remove its folder and run the same command again"


def needs_structures(design: Design) -> bool:
    """Whether the fits of a cross-validation describe frames by their structures."""
    return design.config["encoder"] in ENCODERS_OF_STRUCTURES


def structure_folder(structures: Path, repeat: int, fold: int) -> Path:
    """Where the structure network of one outer fold is, below the folder of all."""
    return structures / f"r{repeat}f{fold}"


def structure_weights(structures: Path, repeat: int, fold: int) -> Path:
    """Its weights."""
    return structure_folder(structures, repeat, fold) / "models" / MODEL


def train_structures(design: Design, structures: Path, repeat: int, fold: int) -> float | None:
    """Train the structure network of one outer fold on the others' label maps, unless that is done already.

    The inner part of the fit's training, which chooses the classifier, chooses here too: both are of the outer fold's training.

    Returns:
        Seconds that it took; None when it was done before.

    Raises:
        UserError: the user's mistake that the bundle found, with the log named; or one done before whose files are not those
            that it finished with.
    """
    folder = structure_folder(structures, repeat, fold)
    datalist = json.dumps(fit_datalist(design, repeat, fold, folder), indent=1) + "\n"
    if (folder / "done.json").is_file():
        _check_done(folder, datalist)
        return None
    started = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    path = write_text(writable_folder(folder) / "datalist.json", datalist)
    log = folder / "log.txt"
    try:
        with quietly(log):
            train_networks(
                {
                    **structure_keys(design.config["encoder"], design.config),
                    "datalist": str(path.resolve()),
                    "dataset_dir": str(design.root),
                    "output_dir": str(folder.resolve()),
                    "fold": 0,
                    "seed": design.fit_seed(repeat, fold),
                }
            )
            if any(record.get("label_map") for record in json.loads(datalist)["test"]):
                places = {
                    "datalist": str(path.resolve()),
                    "dataset_dir": str(design.root),
                    "output_dir": str(folder.resolve()),
                }
                run_bundle(["train_structures", "evaluate_structures"], **places)
    except Exception as error:
        if (mistake := user_error(error)) is None:
            raise
        raise UserError(f"structures {folder.name}: {mistake} (log: {log})") from None
    weights = structure_weights(structures, repeat, fold)
    for trained in (weights, coarse_weights(weights)):
        trained.with_name(LAST).unlink(missing_ok=True)  # a finished one is never resumed
    seconds = time.perf_counter() - started
    done = {
        "repeat": repeat,
        "fold": fold,
        "seed": design.fit_seed(repeat, fold),
        "datalist_sha256": _digest(datalist.encode()),
        "weights_sha256": _digest(weights.read_bytes()),
        "seconds": round(seconds, 1),
        "versions": software_versions(),
    }
    write_text(folder / "done.json", json.dumps(done, indent=1) + "\n")
    return seconds


def _check_done(folder: Path, datalist: str) -> None:
    """Refuse a finished structure network of other patients, or whose weights are not those it finished with."""
    done = read_checked(folder / "done.json", SCHEMA, "the note of a finished structure network", MEND)
    weights = folder / "models" / MODEL
    if done["datalist_sha256"] != _digest(datalist.encode()):
        raise UserError(f"{folder}: the structure network of another cross-validation{MEND}")
    if not weights.is_file() or done["weights_sha256"] != _digest(weights.read_bytes()):
        raise UserError(f"{weights}: missing or changed since it was finished{MEND}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
