"""The design of a cross-validation: patients, files, folds and settings, kept in `folds.json` and checked whenever it goes on.

How folds are drawn is `folds`' part, what is trained on them `fits`'.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_chd.cohort.datalist import PARTS, dataset_dir, read_datalist
from monai_chd.cohort.splits import check_choices
from monai_chd.crossval.config_keys import LOCAL_KEYS, Mode, mode_of
from monai_chd.crossval.folds import INNER_SHARE, draw_folds, inner_part
from monai_chd.errors import UserError, UserFileError
from monai_chd.files import sha256_of, writable_folder, write_text
from monai_chd.labels import CLASSES
from monai_chd.schemas import read_checked
from monai_chd.versions import software_versions
from monai_chd.wording import some_of
from monai_chd.workflow.run import config_content

FOLDS_FILE = "folds.json"
SCHEMA = Path(__file__).with_name("folds.schema.json")


@dataclass(frozen=True)
class Design:
    """A cross-validation: its patients, their folds and the settings of its fits.

    Attributes:
        datalist: the file the patients come from.
        root: folder that image paths are relative to.
        records: of all scans of training and test part, sorted by patient and image; without `fold`.
        sha256: of each image.
        seed, folds, repeats: of the folds; repeat r is drawn with `seed` + r.
        assignment: outer fold of each patient in each repeat.
        settings: config keys and values of the fits that are not the config's defaults.
        local: those of `LOCAL_KEYS`, which change no result; a cross-validation may go on with others.
    """

    datalist: Path
    root: Path
    records: tuple[Mapping[str, Any], ...]
    sha256: Mapping[str, str]
    seed: int
    folds: int
    repeats: int
    assignment: Mapping[str, Sequence[int]]
    settings: Mapping[str, Any]
    local: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, int]:
        """Class index of each patient, in the order of their ids."""
        return {record["patient"]: int(record["label"]) for record in self.records}

    @property
    def flags(self) -> dict[str, list[str]]:
        """Diagnosis flags of each patient, those of all scans together."""
        found: dict[str, dict[str, None]] = {}
        for record in self.records:
            found.setdefault(record["patient"], {}).update(dict.fromkeys(record.get("flags", ())))
        return {patient: list(flags) for patient, flags in found.items()}

    @property
    def mode(self) -> Mode:
        """How its fits are trained."""
        return mode_of(self.settings)

    @property
    def overrides(self) -> dict[str, Any]:
        """All config keys and values that the bundle is run with."""
        return {**self.local, **self.settings}

    @property
    def config(self) -> dict[str, Any]:
        """The bundle's train.json with the settings in it; local keys are the config's own."""
        return {**config_content("train"), **self.settings}

    def image_path(self, record: Mapping[str, Any]) -> Path:
        """Where the image of one of its records lies."""
        return Path(self.root, record["image"])

    def fit_seed(self, repeat: int, fold: int) -> int:
        """Seed of one fit: no two fits of a cross-validation share it."""
        return self.seed + repeat * self.folds + fold

    def as_json(self) -> dict[str, Any]:
        """What defines it, as `folds.json` holds it: everything but where the files are."""
        return {
            "seed": self.seed,
            "folds": self.folds,
            "repeats": self.repeats,
            "inner_share": INNER_SHARE,
            "settings": dict(self.settings),
            "labels": {patient: CLASSES[label] for patient, label in self.labels.items()},
            "assignment": {patient: list(folds) for patient, folds in self.assignment.items()},
            "sha256": dict(self.sha256),
        }

    def class_by_fold(self) -> dict[str, list[list[int]]]:
        """Patients of each class in each fold of each repeat."""
        labels = self.labels
        counts = Counter((r, f, labels[p]) for p, folds in self.assignment.items() for r, f in enumerate(folds))
        return {
            name: [[counts[r, f, k] for f in range(self.folds)] for r in range(self.repeats)]
            for k, name in enumerate(CLASSES)
        }


def new_design(
    datalist: str | Path, *, folds: int = 5, repeats: int = 5, seed: int = 42, settings: Mapping[str, Any] | None = None
) -> Design:
    """Draw the folds of all patients of a datalist, those of its held-out part among them.

    Args:
        datalist: file made by `prepare`.
        folds: outer folds of a repeat.
        repeats: how often they are drawn.
        seed: of the first repeat; the next has the next number.
        settings: config keys and values of the fits, see `config_keys.fit_settings`; None: the config's defaults.

    Raises:
        UserFileError: no datalist, or images that are not there.
        UserError: a choice out of range, no datalist, a patient of two classes, a class without patients or with too few,
            or files that changed since the datalist was made.
    """
    check_choices(folds, 0, seed)
    if repeats < 1:
        raise UserError(f"repeats: expected 1 or more, got {repeats}")
    path = Path(datalist).resolve()
    given = dict(settings or {})
    local = {key: given.pop(key) for key in LOCAL_KEYS if key in given}
    records = _records(path)
    root = Path(local.get("dataset_dir") or dataset_dir(path)).resolve()
    assignment = draw_folds({record["patient"]: record["label"] for record in records}, folds, repeats, seed)
    return Design(
        datalist=path,
        root=root,
        records=tuple(records),
        sha256=_hashes(path, root, records),
        seed=seed,
        folds=folds,
        repeats=repeats,
        assignment=assignment,
        settings=given,
        local=local,
    )


def _records(path: Path) -> list[dict[str, Any]]:
    """Records of both parts of a datalist, sorted by patient and image, without the fold that they had there."""
    content = read_datalist(path)
    records = [{k: v for k, v in record.items() if k != "fold"} for part in PARTS for record in content[part]]
    return sorted(records, key=lambda record: (record["patient"], record["image"]))


def fit_datalist(
    design: Design, repeat: int, fold: int, folder: Path, labels: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """The datalist of one fit: the outer fold is its test part, fold 0 of the training is the inner split, fold 1 the rest.

    Args:
        design: the cross-validation.
        repeat, fold: which.
        folder: where it will lie; its root is relative to it.
        labels: other labels than the patients' own, for a control.
    """
    labels = design.labels if labels is None else labels
    rest = {patient: labels[patient] for patient, folds in design.assignment.items() if folds[repeat] != fold}
    inner = inner_part(rest, design.fit_seed(repeat, fold))
    parts: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    for record in design.records:
        patient = record["patient"]
        own = {**record, "label": labels[patient], "sha256": design.sha256[record["image"]]}
        if patient in rest:
            parts["training"].append({**own, "fold": 0 if patient in inner else 1})
        else:
            parts["test"].append(own)
    return {"root": Path(os.path.relpath(design.root, folder)).as_posix(), "classes": list(CLASSES), **parts}


def _hashes(path: Path, root: Path, records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """sha256 of every image; refuses missing ones and those that are not what the datalist was made from."""
    missing = [record["image"] for record in records if not Path(root, record["image"]).is_file()]
    if missing:
        raise UserFileError(
            f"{len(missing)} scans of {path} are not in {root}: {some_of(missing)}; give their folder with --dataset_dir"
        )
    hashes: dict[str, str] = {}
    for record in records:
        hashes[record["image"]] = sha256_of(Path(root, record["image"]))
    changed = [r["image"] for r in records if r.get("sha256") not in (None, hashes[r["image"]])]
    if changed:
        raise UserError(
            f"{path}: {len(changed)} files have changed since the datalist was made: {some_of(changed)}; prepare again"
        )
    return hashes


def save_or_check(design: Design, folder: str | Path) -> None:
    """Write `folds.json`, or hold the design against the one that is there: a cross-validation goes on only as it began.

    Raises:
        UserError: the folder belongs to another cross-validation, or files changed since its folds were made.
    """
    path = writable_folder(folder) / FOLDS_FILE
    if path.is_file():
        _check_same(path, read_folds(path), design.as_json())
        return
    content = {
        "datalist": Path(os.path.relpath(design.datalist, path.parent.resolve())).as_posix(),
        **design.as_json(),
        "versions": software_versions(),
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_folds(path: str | Path) -> dict[str, Any]:
    """Read a `folds.json`.

    Raises:
        UserFileError: no such file.
        UserError: not one.
    """
    path = Path(path)
    if not path.is_file():
        raise UserFileError(f"{path}: no cross-validation there; make one with `monai-chd crossval`")
    return read_checked(path, SCHEMA, "the folds of a cross-validation", "; choose another --out")  # type: ignore[no-any-return]


def _check_same(path: Path, saved: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse another cross-validation than the one that was begun; `asked` is what `Design.as_json` gives."""
    asked = json.loads(json.dumps(asked))  # tuples become lists, as in the file
    begun = f"{path} was made"
    if set(saved["sha256"]) != set(asked["sha256"]) or set(saved["labels"]) != set(asked["labels"]):
        raise UserError(f"{begun} for another datalist (other scans or patients); choose another --out")
    changed = [image for image, digest in saved["sha256"].items() if asked["sha256"][image] != digest]
    if changed:
        raise UserError(
            f"{len(changed)} files have changed since the folds in {path} were made: {some_of(changed)}; put the old files "
            f"back, or start again with another --out"
        )
    relabelled = [patient for patient, label in saved["labels"].items() if asked["labels"][patient] != label]
    if relabelled:
        raise UserError(f"{begun} with other classes of {some_of(relabelled)}; choose another --out")
    differ = [
        f"{key} {saved.get(key)!r} (asked: {asked[key]!r})"
        for key in ("seed", "folds", "repeats", "inner_share")
        if saved.get(key) != asked[key]
    ]
    keys = sorted({*saved["settings"], *asked["settings"]})
    differ += [
        f"{key} {_setting(saved, key)} (asked: {_setting(asked, key)})"
        for key in keys
        if _setting(saved, key) != _setting(asked, key)
    ]
    if differ:
        raise UserError(f"{begun} with {', '.join(differ)}; ask for the same to go on, or choose another --out")
    if saved["assignment"] != asked["assignment"]:
        raise UserError(f"{begun} with folds that this version draws otherwise; choose another --out")


def _setting(content: Mapping[str, Any], key: str) -> str:
    return repr(content["settings"][key]) if key in content["settings"] else "as in the config"


def check_comparable(design: Design, other: str | Path) -> None:
    """Refuse to compare two cross-validations that are not of the same patients in the same folds.

    Raises:
        UserFileError, UserError: see `read_folds`; or patients, files, classes or folds differ.
    """
    path = Path(other) / FOLDS_FILE
    saved, own = read_folds(path), design.as_json()
    for key, what in (
        ("labels", "patients or classes"),
        ("sha256", "files"),
        ("folds", "number of folds"),
        ("repeats", "number of repeats"),
        ("assignment", "folds (another --seed?)"),
    ):
        if saved[key] != own[key]:
            raise UserError(
                f"{path} has other {what}, so its predictions cannot be paired with these; run `monai-chd crossval` there "
                f"on the same datalist with the same --folds, --repeats and --seed"
            )
