"""Makes the datalist (which scan, which class, which fold) from scans and a table, once, and reads it back.

The split is drawn here and nowhere else; everything downstream takes it from the file.
"""

from __future__ import annotations

import csv
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight

from monai_chd.cohort.diagnoses import Diagnoses, read_diagnoses
from monai_chd.cohort.imagechd import NORMALS
from monai_chd.cohort.imagechd_image_info import ImageSheet, find_image_info, read_image_info
from monai_chd.cohort.inspection import add_confounders, inspect_scans
from monai_chd.cohort.joining import JoinedCohort, LabelledScan, find_scans_by, join
from monai_chd.cohort.layouts import Layout, load_layout
from monai_chd.cohort.splits import check_choices, draw_split
from monai_chd.cohort.who_is_who import name_apart
from monai_chd.dicom.private import private_folder
from monai_chd.dicom.series import TILTS, Wanted
from monai_chd.errors import UserError, UserFileError, bare_mistakes
from monai_chd.files import TEXT, replacing, writable_folder
from monai_chd.folders import dead_link
from monai_chd.identity import first_spellings, patient_key
from monai_chd.labels import CLASSES
from monai_chd.scans.finding import count_dicom, find_dicom, find_nifti, find_scans, relative_name
from monai_chd.schemas import CONFIG_MARKS, Fault, read_json, schema_faults, schema_of
from monai_chd.wording import join_faults, some_of, synthetic_note

logger = logging.getLogger(__name__)

EXCLUDED_COLUMNS = ("patient", "image", "flags", "reason")
PARTS = ("training", "test")
SCHEMA = Path(__file__).with_name("datalist.schema.json")
"""The form of a datalist."""

DESCRIPTIVE = ("confounders", "label_map", "notes", "rule", "normal", "synthetic")
"""Keys that describe and do not define the split: the same split may be written again with others."""


@dataclass(frozen=True)
class Choices:
    """What a user chooses of a datalist.

    Attributes:
        table: workbook of flags or table of classes; None: found beside the scans by `tables.find_table`.
        layout: a file, or the name of an example, for a layout that is not ImageCHD's (`layouts`).
        rule: name or file of the rule that turns flags into a class (`rules`); None: the layout's, else strict.
        normal: what a patient without a flag needs to count as normal, one of `imagechd.NORMALS`.
        folds: number of cross-validation folds of the training part.
        test_fraction: share of patients held out as the test part, 0 for none.
        seed: of the split.
        hu_offset: HU = value + this, for every scan; None: the layout's, else found for each file.
        confounders: also record the age at the scan, where ImageCHD's image-info sheet is present.
        skip_bad: leave bad rows and scans out, listed in `excluded.csv`, instead of stopping.
        phase, tilt: of DICOM series; see `dicom.series.Wanted`.

    Raises:
        UserError: folds, test fraction or seed out of range.
    """

    table: str | Path | None = None
    layout: str | Path | None = None
    rule: str | Path | None = None
    normal: str = NORMALS[0]
    folds: int = 5
    test_fraction: float = 0.2
    seed: int = 42
    hu_offset: float | None = None
    confounders: bool = False
    skip_bad: bool = False
    phase: str | None = None
    tilt: str = TILTS[0]

    def __post_init__(self) -> None:
        check_choices(self.folds, self.test_fraction, self.seed)


DEFAULTS = Choices()


def prepare(
    source: str | Path, out: str | Path, choices: Choices = DEFAULTS, *, progress: bool = False
) -> dict[str, Any]:
    """Turn a folder of scans and a table into `out/datalist.json` and `out/excluded.csv`.

    Args:
        source: folder with the scans, searched to the bottom.
        out: folder to write to.
        choices: table, layout, rule, split and what to do about faults.
        progress: show a bar while the scans are checked.

    Returns:
        The datalist, as written. Of DICOM files its patients and images have made names; who is who stands in
        `out.private`, beside `out`.

    Raises:
        UserFileError: no folder, scans, table, rule or layout.
        UserError: bad rows or scans (all listed at once), a rule or layout that is none, too few patients for the
            folds, or `out` already holds another split.
    """
    folder, out = Path(source).resolve(), Path(out).resolve()
    layout = load_layout(choices.layout) if choices.layout else None
    files = find_nifti(folder)
    series = {} if files.scans else find_dicom(folder, out, Wanted(choices.phase, choices.tilt))
    if files.scans and (others := count_dicom(folder)):
        logger.info("left out: %d DICOM files beside NIfTI scans; prepare them from a folder of their own", others)
    owners = find_scans_by(layout.id_pattern, files) if layout and layout.id_pattern and not series else {}
    scans = list(owners) or list(series) or find_scans(files)
    if files.hidden:
        logger.info("%s", files.skipped())
    table = Path(choices.table).resolve() if choices.table else None
    found = read_diagnoses(folder, table, layout=layout, rule=choices.rule, normal=choices.normal)
    if series:
        owners = name_apart(found, series, folder, private_folder(out))
        folder = private_folder(out)
    sheet = _image_sheet(folder, choices.confounders)
    writable_folder(out)
    joined = join(folder, scans, found.rows, owners)
    for path in files.dead:
        joined.problem(dead_link(path), image=relative_name(path, folder))
    _set_marked_apart(joined, folder)
    given = choices.hu_offset
    inspect_scans(joined, folder, layout.hu_offset if layout and given is None else given, progress)
    if not choices.skip_bad:
        _refuse_problems(joined, folder, found.name)
    add_confounders(joined, sheet.scans, found.is_imagechd)
    datalist = {
        "root": Path(os.path.relpath(folder, out)).as_posix(),
        "classes": list(CLASSES),
        "rule": found.rule,
        "normal": found.normal,
        "notes": _notes(found, sheet, joined, layout),
        **_parts(joined, folder, choices, layout.absent_classes if layout else ()),
    }
    _write(datalist, joined.excluded, out)
    return datalist


def _set_marked_apart(joined: JoinedCohort, folder: Path) -> None:
    """Find fault with cases that no datalist takes, for how their id or path begins."""
    for case in joined.cases[:]:
        image = relative_name(case.image, folder)
        for what, text in (("patient", case.patient), ("path", image)):
            if text.startswith(CONFIG_MARKS):
                fault = f"{image}: {what} {text!r} begins with {text[0]}, which a MONAI config would run or look up; rename it"
                joined.problem(fault, case.diagnosis, case.patient, image)
                joined.cases.remove(case)
                break


def _refuse_problems(joined: JoinedCohort, folder: Path, table: str) -> None:
    """Stop at bad rows or scans, all listed at once."""
    if joined.problems:
        listed = "\n  ".join(joined.problems)
        raise UserError(
            f"{len(joined.problems)} bad rows or scans in {folder} with {table}:\n  {listed}\n"
            f"Mend them, or leave them out with --skip-bad (they are then listed in excluded.csv)"
        )


def _parts(
    joined: JoinedCohort, folder: Path, choices: Choices, absent: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Records of the training and test part, by patient and path."""
    labels = {case.patient: str(case.diagnosis.label) for case in sorted(joined.cases, key=lambda c: c.patient)}
    assigned = draw_split(labels, choices.folds, choices.test_fraction, choices.seed, absent)
    records: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    for case in sorted(joined.cases, key=lambda c: (c.patient, str(c.image))):
        fold = assigned[case.patient]
        records["test" if fold < 0 else "training"].append(_record(case, folder, fold, choices.confounders))
    return records


def _image_sheet(folder: Path, ages: bool) -> ImageSheet:
    """ImageCHD's sheet of images, empty where there is none."""
    path = find_image_info(folder)
    if path is not None:
        return read_image_info(path, ages=ages)
    if ages:
        raise UserFileError(
            f"{folder}: --confounders records ages, but there is no imagechd_dataset_image_info.xlsx to take them from"
        )
    return ImageSheet()


def _notes(found: Diagnoses, sheet: ImageSheet, joined: JoinedCohort, layout: Layout | None) -> list[str]:
    """What is odd about the cohort as a whole."""
    notes = [*found.notes, *sheet.notes]
    if layout and layout.absent_classes:
        notes.append(
            f"cohort {layout.name}: nobody can be {', '.join(layout.absent_classes)}; it cannot train a model alone"
        )
    if sheet.scans and (
        absent := [case.patient for case in joined.cases if patient_key(case.patient) not in sheet.scans]
    ):
        notes.append(f"the sheet of images has no row for {', '.join(absent)}")
    if note := synthetic_note(sum(case.synthetic for case in joined.cases), len(joined.cases)):
        notes.insert(0, note)
    with_map = sum(case.label_map is not None for case in joined.cases)
    if 0 < with_map < len(joined.cases):
        without = [case.patient for case in joined.cases if case.label_map is None]
        notes.append(f"no label map beside {len(without)} of {len(joined.cases)} scans: {', '.join(without)}")
    return notes


def _record(case: LabelledScan, folder: Path, fold: int, ages: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "image": Path(os.path.relpath(case.image, folder)).as_posix(),
        "label": CLASSES.index(str(case.diagnosis.label)),
        "patient": case.patient,
        "fold": fold,
        "flags": list(case.diagnosis.flags),
        "sha256": case.sha256,
        "voxels": case.voxels,
    }
    if case.hu_offset is not None:
        record["hu_offset"] = case.hu_offset
    if fold < 0:
        del record["fold"]
    record["confounders"] = {
        "slices": case.shape[2],
        "spacing_mm": None if case.spacing_mm is None else list(case.spacing_mm),
        "scanner": case.scanner or None,
        "contrast": case.contrast,
    }
    if ages:
        record["confounders"]["age_years"] = case.age_years
    if case.label_map is not None:
        record["label_map"] = Path(os.path.relpath(case.label_map, folder)).as_posix()
    if case.synthetic:
        record["synthetic"] = True
    if case.notes:
        record["notes"] = case.notes
    return record


def _split_of(datalist: Any) -> Any:
    """A datalist without what only describes it."""
    if isinstance(datalist, list):
        return [_split_of(record) for record in datalist]
    if isinstance(datalist, dict):
        return {key: _split_of(value) for key, value in datalist.items() if key not in DESCRIPTIVE}
    return datalist


def _holds_another_split(path: Path, datalist: dict[str, Any]) -> bool:
    try:
        return bool(_split_of(json.loads(path.read_text())) != _split_of(datalist))
    except ValueError:  # something else by that name
        return True


def _write(datalist: dict[str, Any], excluded: list[dict[str, str]], out: Path) -> None:
    path = out / "datalist.json"
    if path.exists() and _holds_another_split(path, datalist):
        # a split drawn again after a training is how a test set leaks; so a split is never replaced
        raise UserError(
            f"{path}: holds another split (other scans, table, rule, seed, folds or test part); choose another --out, or "
            f"remove it yourself if no model was trained on it"
        )
    with replacing(path) as temporary, replacing(out / "excluded.csv") as beside:
        temporary.write_text(json.dumps(datalist, indent=2) + "\n")
        with beside.open("w", newline="", **TEXT) as file:
            writer = csv.DictWriter(file, EXCLUDED_COLUMNS)
            writer.writeheader()
            writer.writerows(excluded)


def read_excluded(path: Path) -> list[dict[str, str]]:
    """Rows of an `excluded.csv`, by `EXCLUDED_COLUMNS`.

    Raises:
        UserError: something else by that name.
    """
    with path.open(encoding="utf-8", newline="") as file:
        try:
            reader = csv.DictReader(file)
            rows = list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not what `monai-chd prepare` writes ({error}); prepare again") from None
    if tuple(reader.fieldnames or ()) != EXCLUDED_COLUMNS or any(None in (*row, *row.values()) for row in rows):
        raise UserError(f"{path}: expected the columns {', '.join(EXCLUDED_COLUMNS)} in every row; prepare again")
    return rows


def read_datalist(path: str | Path) -> dict[str, Any]:
    """Read and check a datalist file.

    Returns:
        Its content; every patient as text, in the first of its spellings.

    Raises:
        UserFileError: no such file.
        UserError: not JSON, not as `SCHEMA` has it, other classes, an image twice, a patient in two parts or folds or with
            two labels.
    """
    path = Path(path)
    if not path.is_file():
        raise UserFileError(f"{path}: no such datalist; make one with `monai-chd prepare COHORT --out WORK`")
    mend = "; make it again with `monai-chd prepare COHORT --out WORK`"
    datalist = read_json(path, "a datalist", mend)
    if faults := schema_faults(datalist, schema_of(SCHEMA)):
        raise UserError(
            f"{path}: not a datalist: {join_faults([_fault_text(datalist, fault) for fault in faults])}{mend}"
        )
    if datalist["classes"] != list(CLASSES):
        raise UserError(f"{path}: expected classes {list(CLASSES)}, got {datalist['classes']}{mend}")
    records = [(part, record) for part in PARTS for record in datalist[part]]
    repeated = [image for image, count in Counter(record["image"] for _, record in records).items() if count > 1]
    if repeated:
        raise UserError(f"{path}: images that stand in it more than once: {', '.join(repeated)}")
    _check_patients(path, records)
    spelled = first_spellings(record["patient"] for _, record in records)
    for _, record in records:
        record["patient"] = spelled[patient_key(record["patient"])]
    return datalist  # type: ignore[no-any-return]


def _check_patients(path: Path, records: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Refuse a patient in two folds or parts, or with two labels."""
    spellings: dict[str, dict[str, None]] = defaultdict(dict)
    places: dict[str, set[str]] = defaultdict(set)
    labels: dict[str, set[str]] = defaultdict(set)
    for part, record in records:
        key = patient_key(record["patient"])
        spellings[key][str(record["patient"]).strip()] = None
        places[key].add("the test part" if part == "test" else f"fold {record['fold']}")
        labels[key].add(CLASSES[record["label"]])
    for texts, fault, mend in (
        (places, "in more than one place", "a patient belongs to one fold or part"),
        (labels, "whose scans have different classes", "give each patient one class"),
    ):
        twice = [
            f"{' = '.join(spellings[key])} ({' and '.join(sorted(found))})"
            for key, found in texts.items()
            if len(found) > 1
        ]
        if twice:
            raise UserError(f"{path}: patients {fault}: {', '.join(twice)}; {mend}")


def _fault_text(datalist: Any, fault: Fault) -> str:
    """A fault with the image of its record, by which people find it, where there is one."""
    if len(fault.place) > 1 and fault.place[0] in PARTS:
        record = datalist[fault.place[0]][fault.place[1]]
        if isinstance(record, dict) and isinstance(image := record.get("image"), str) and fault.place[2:] != ("image",):
            return f"{fault.place[0]} record {image}, {Fault(fault.place[2:], fault.fault).text}"
    return fault.text


@bare_mistakes()
def dataset_dir(datalist: str | Path) -> str:
    """Folder that image paths are relative to: the datalist's `root`, itself relative to the file."""
    path = Path(datalist).resolve()
    return str((path.parent / read_datalist(path)["root"]).resolve())


@bare_mistakes()
def load_cases(datalist: str | Path, dataset_dir: str | Path, fold: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Cases of one fold's training and validation and of the test part, with absolute image paths.

    Args:
        datalist: file made by `prepare`.
        dataset_dir: folder that image paths are relative to.
        fold: the training fold that validates.

    Returns:
        {"train": […], "validate": […], "test": […]}; `label` is an index into `labels.CLASSES`, `patient` text.

    Raises:
        UserFileError: no datalist, or images that are not there (all listed).
        UserError: no such fold, or see `read_datalist`.
    """
    content = read_datalist(datalist)
    folds = sorted({record["fold"] for record in content["training"]})
    if fold not in folds:
        raise UserError(f"fold: expected one of {folds} of {datalist}, got {fold!r}")
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "validate": [], "test": []}
    missing = []
    for part in PARTS:
        for record in content[part]:
            image = Path(dataset_dir, record["image"])
            if not image.is_file():
                missing.append(record["image"])
            case = {**record, "image": str(image)}
            # the sheet's flags have a length of their own in each case, which no batch can hold; nor what may be unknown
            case["flags"] = "+".join(record.get("flags", ()))
            for key in DESCRIPTIVE:
                case.pop(key, None)
            name = "test" if part == "test" else "validate" if record["fold"] == fold else "train"
            parts[name].append(case)
    if missing:
        raise UserFileError(
            f"{len(missing)} scans of {datalist} are not in {dataset_dir}: {some_of(missing, 5)}; give their folder with "
            f"--dataset_dir"
        )
    return parts


@bare_mistakes()
def class_weights(cases: Sequence[dict[str, Any]]) -> torch.Tensor:
    """Weights of the classes, inverse to their counts ("balanced" of scikit-learn), shape (K,), order of `labels.CLASSES`.

    Raises:
        UserError: a class without a case.
    """
    labels = [case["label"] for case in cases]
    absent = [name for index, name in enumerate(CLASSES) if index not in labels]
    if absent:
        raise UserError(f"the training part of this fold has no case of {', '.join(absent)}")
    weights = compute_class_weight("balanced", classes=np.arange(len(CLASSES)), y=np.array(labels))
    return torch.as_tensor(weights, dtype=torch.float32)
