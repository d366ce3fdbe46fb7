"""Makes the datalist (which scan, which class, which fold) from scans and a table, once, and reads it back.

The split is drawn here and nowhere else; everything downstream takes it from the file.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from sklearn.utils.class_weight import compute_class_weight
from tqdm import tqdm

from monai_chd.files import replacing, writable_folder
from monai_chd.labels import CLASSES, NORMAL
from monai_chd.reading import detect_hu_offset, is_nifti, read_volume, stem
from monai_chd.tables import Diagnosis, find_table, read_table

LABEL_MAP_WORDS = ("label", "labels", "seg", "mask", "gt")
EXCLUDED_COLUMNS = ("patient", "image", "flags", "reason")
PARTS = ("training", "test")


@dataclass
class Case:
    """One scan of a patient with its diagnosis, before it has a fold."""

    patient: str
    image: Path
    diagnosis: Diagnosis
    sha256: str = ""
    hu_offset: float | None = None


@dataclass
class Cohort:
    """Usable cases, what was left out and why, and what is wrong."""

    cases: list[Case] = field(default_factory=list)
    excluded: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def exclude(self, diagnosis: Diagnosis, patient: str, image: str, reason: str) -> None:
        """Note a row or scan that is left out."""
        row = {"patient": patient, "image": image, "flags": "+".join(diagnosis.flags), "reason": reason}
        self.excluded.append(row)

    def problem(self, text: str, diagnosis: Diagnosis | None = None, patient: str = "", image: str = "") -> None:
        """Note a fault that stops the run, or with `skip_bad` leaves the row or scan out."""
        self.problems.append(text)
        self.exclude(diagnosis or Diagnosis(0), patient, image, text)


def find_scans(folder: Path) -> list[Path]:
    """NIfTI files below a folder that are scans: no label maps (`…_label`, `…_seg`, `…_mask`), no `._` shadows.

    Raises:
        FileNotFoundError: no such folder, or no scan in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of scans")
    scans = [
        path
        for path in sorted(folder.rglob("*"))
        if is_nifti(path)
        and path.is_file()
        and stem(path).lower().replace("-", "_").split("_")[-1] not in LABEL_MAP_WORDS
    ]
    if not scans:
        raise FileNotFoundError(f"{folder}: no scan found; expected .nii.gz or .nii files in it or below it")
    return scans


def find_inputs(source: str | Path) -> list[dict[str, str]]:
    """Cases for inference out of one file or a folder, no labels needed.

    Returns:
        [{"image": path}, …].
    """
    source = Path(source).resolve()
    paths = find_scans(source) if source.is_dir() else [source]
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder; name a NIfTI file or a folder of them")
    return [{"image": str(path)} for path in paths]


def _same_id(left: str, right: str) -> bool:
    """Ids equal as text, or as numbers (07 and 7)."""
    return left == right or (left.isdigit() and right.isdigit() and int(left) == int(right))


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[-_. ]+", name) if word]


def _named_by(patient: str, scan: Path) -> bool:
    """Whether a file name carries an id: as its whole stem or as words of it in a row (sub-01 in sub-01_ct)."""
    name, own = _words(stem(scan)), _words(patient)
    starts = range(len(name) - len(own) + 1) if own else ()
    return stem(scan) == patient or any(all(map(_same_id, own, name[start : start + len(own)])) for start in starts)


def _scans_of(row: Diagnosis, folder: Path, scans: list[Path]) -> list[Path]:
    """The scans a row names, by path (as written, or through links) or by id."""
    if not row.image:
        return [scan for scan in scans if row.patient and _named_by(row.patient, scan)]
    path = next((p for p in (folder / row.image, Path(row.image)) if p.is_file()), None)
    if path is None:
        return []
    path = Path(os.path.abspath(path))
    same = [scan for scan in scans if scan == path] or [scan for scan in scans if scan.samefile(path)]
    return same[:1] or [path]


def _join(folder: Path, scans: list[Path], rows: list[Diagnosis]) -> Cohort:
    """Give every row its scans; a row or scan left alone, or a scan claimed twice, is a problem."""
    cohort = Cohort()
    seen = Counter(row.patient for row in rows if row.patient)
    claims: dict[Path, list[Diagnosis]] = {}
    found = [_scans_of(row, folder, scans) for row in rows]
    for row, own in zip(rows, found, strict=True):
        for scan in own:
            claims.setdefault(scan, []).append(row)
    for row, own in zip(rows, found, strict=True):
        name = row.patient or row.image or "empty"
        if row.patient and not row.image and seen[row.patient] > 1:
            cohort.problem(f"row {row.row}: id {name} stands in {seen[row.patient]} rows", row, row.patient)
        elif row.problem:
            cohort.problem(f"row {row.row} (id {name}): {row.problem}", row, row.patient)
        elif not own:
            cohort.problem(f"row {row.row}: no scan found for {name}", row, row.patient, row.image)
        elif row.label is None:
            for scan in own:
                cohort.exclude(row, row.patient, _name(scan, folder), row.reason)
        else:
            cohort.cases += [Case(row.patient or stem(scan), scan, row) for scan in own if len(claims[scan]) == 1]
    for scan, owners in claims.items():
        if len(owners) > 1 and any(row.image or row.patient != owners[0].patient for row in owners):
            listed = " and ".join(f"row {row.row} ({row.patient or row.image})" for row in owners)
            cohort.problem(f"{_name(scan, folder)}: belongs to {listed}", image=_name(scan, folder))
    for scan in scans:
        if scan not in claims:
            name = _name(scan, folder)
            cohort.problem(f"{name}: the table has no row for this scan", image=name)
    _leave_out_mixed(cohort, folder)
    return cohort


def _name(image: Path, folder: Path) -> str:
    """Path of a scan relative to the cohort's folder, in full when it lies elsewhere."""
    return image.relative_to(folder).as_posix() if image.is_relative_to(folder) else str(image)


def _leave_out_mixed(cohort: Cohort, folder: Path) -> None:
    """A patient whose scans have different classes is a problem, and none of these scans is a case."""
    classes: dict[str, set[str]] = {}
    for case in cohort.cases:
        classes.setdefault(case.patient, set()).add(str(case.diagnosis.label))
    texts = {
        patient: f"patient {patient}: has several classes ({', '.join(sorted(names))}); give each patient one class"
        for patient, names in classes.items()
        if len(names) > 1
    }
    cohort.problems += texts.values()
    for case in cohort.cases:
        if case.patient in texts:
            cohort.exclude(case.diagnosis, case.patient, _name(case.image, folder), texts[case.patient])
    cohort.cases = [case for case in cohort.cases if case.patient not in texts]


def _check_scans(cohort: Cohort, folder: Path, offset: float | None, progress: bool) -> None:
    """Read every usable scan to its last byte: damage, intensity rule, hash."""
    kept = []
    for case in tqdm(cohort.cases, desc="checking scans", unit="scan", disable=not progress):
        name = _name(case.image, folder)
        try:
            values = read_volume(case.image).values
            if offset is not None:
                case.hu_offset = offset
            elif values.ndim == 3:
                case.hu_offset = detect_hu_offset(values, case.image)
            with case.image.open("rb") as file:
                case.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except (ValueError, OSError) as error:
            cohort.problem(str(error), case.diagnosis, case.patient, name)
            continue
        kept.append(case)
    cohort.cases = kept


def _check_choices(folds: int, test_fraction: float, seed: int) -> None:
    if folds < 2:
        raise ValueError(f"folds: expected 2 or more, got {folds}")
    if not 0 <= test_fraction < 1:
        raise ValueError(f"test fraction: expected 0 or more and below 1, got {test_fraction}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed: expected 0 to {2**32 - 1}, got {seed}")


def _test_part(classes: np.ndarray, test_fraction: float, seed: int) -> np.ndarray:
    """Indices of the patients held out, stratified by class; none when scikit-learn finds too few of a class."""
    none = np.array([], dtype=np.int64)
    if test_fraction == 0:
        return none
    try:
        _, chosen = train_test_split(
            np.arange(len(classes)), test_size=test_fraction, stratify=classes, random_state=seed
        )
    except ValueError:
        return none
    return np.asarray(chosen)


def _split(labels: dict[str, str], folds: int, test_fraction: float, seed: int) -> dict[str, int]:
    """Fold of every patient; -1 is the held-out test part. Stratified by class, a patient never in two.

    Raises:
        ValueError: a class that is not in every fold and in the test part.
    """
    patients, classes = np.array(list(labels)), np.array(list(labels.values()))
    test = _test_part(classes, test_fraction, seed)
    rest = np.setdiff1d(np.arange(len(patients)), test)
    training, held_out = Counter(classes[rest].tolist()), Counter(classes[test].tolist())
    short = [
        f"{name} has {training[name] + held_out[name]} patients, {training[name]} of them for training"
        for name in CLASSES
        if training[name] < folds or (test_fraction > 0 and not held_out[name])
    ]
    if short:
        raise ValueError(
            f"too few patients for {folds} folds and a test part of {test_fraction:.0%}: {'; '.join(short)}. Every class "
            f"needs at least one patient in each fold and in the test part: choose fewer --folds or another --test-fraction"
        )
    assigned = dict.fromkeys(labels, -1)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fold, (_, chosen) in enumerate(splitter.split(rest, classes[rest], groups=patients[rest])):
        assigned.update({str(patients[rest[i]]): fold for i in chosen})
    return assigned


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    table: str | Path | None = None,
    folds: int = 5,
    test_fraction: float = 0.2,
    seed: int = 42,
    hu_offset: float | None = None,
    skip_bad: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Turn a folder of scans and a table into `out/datalist.json` and `out/excluded.csv`.

    Args:
        source: folder with the scans, searched to the bottom.
        out: folder to write to.
        table: workbook of flags or table of classes; None: found in `source` by `tables.find_table`.
        folds: number of cross-validation folds of the training part.
        test_fraction: share of patients held out as the test part, 0 for none.
        seed: of the split.
        hu_offset: HU = value + this, for every scan; None: found for each file.
        skip_bad: leave bad rows and scans out, listed in `excluded.csv`, instead of stopping.
        progress: show a bar while the scans are checked.

    Returns:
        The datalist, as written.

    Raises:
        FileNotFoundError: no folder, scans or table.
        ValueError: bad rows or scans (all listed at once), too few patients for the folds, or `out` already holds another
            split.
    """
    _check_choices(folds, test_fraction, seed)
    folder, out = Path(source).resolve(), Path(out).resolve()
    scans = find_scans(folder)
    table = Path(table).resolve() if table else find_table(folder)
    writable_folder(out)
    cohort = _join(folder, scans, read_table(table))
    _check_scans(cohort, folder, hu_offset, progress)
    if cohort.problems and not skip_bad:
        listed = "\n  ".join(cohort.problems)
        raise ValueError(
            f"{len(cohort.problems)} bad rows or scans in {folder} with {table.name}:\n  {listed}\n"
            f"Mend them, or leave them out with --skip-bad (they are then listed in excluded.csv)"
        )
    labels = {case.patient: str(case.diagnosis.label) for case in sorted(cohort.cases, key=lambda c: c.patient)}
    assigned = _split(labels, folds, test_fraction, seed)
    records: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    for case in sorted(cohort.cases, key=lambda c: (c.patient, str(c.image))):
        records["test" if assigned[case.patient] < 0 else "training"].append(
            _record(case, folder, assigned[case.patient])
        )
    datalist = {"root": Path(os.path.relpath(folder, out)).as_posix(), "classes": list(CLASSES), **records}
    _write(datalist, cohort.excluded, out)
    return datalist


def _record(case: Case, folder: Path, fold: int) -> dict[str, Any]:
    record: dict[str, Any] = {
        "image": Path(os.path.relpath(case.image, folder)).as_posix(),
        "label": CLASSES.index(str(case.diagnosis.label)),
        "patient": case.patient,
        "fold": fold,
        "flags": list(case.diagnosis.flags),
        "sha256": case.sha256,
    }
    if case.hu_offset is not None:
        record["hu_offset"] = case.hu_offset
    if fold < 0:
        del record["fold"]
    return record


def _write(datalist: dict[str, Any], excluded: list[dict[str, str]], out: Path) -> None:
    path = out / "datalist.json"
    text = json.dumps(datalist, indent=2) + "\n"
    if path.exists() and path.read_text() != text:
        # a split drawn again after a training is how a test set leaks; so a split is never replaced
        raise ValueError(
            f"{path}: holds another split (other scans, table, seed, folds or test part); choose another --out, or remove "
            f"it yourself if no model was trained on it"
        )
    with replacing(out / "excluded.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, EXCLUDED_COLUMNS)
        writer.writeheader()
        writer.writerows(excluded)
    with replacing(path) as temporary:
        temporary.write_text(text)


def summary(datalist: dict[str, Any]) -> str:
    """Class by fold counts (cases) as aligned text."""
    folds = sorted({record["fold"] for record in datalist["training"]})
    header = ["class", *(f"fold {fold}" for fold in folds), "training", "test", "all"]
    rows = []
    for index, name in enumerate(datalist["classes"]):
        training = [record["fold"] for record in datalist["training"] if record["label"] == index]
        test = sum(record["label"] == index for record in datalist["test"])
        rows.append([name, *(training.count(fold) for fold in folds), len(training), test, len(training) + test])
    rows.append(["all", *(sum(int(row[i]) for row in rows) for i in range(1, len(header)))])
    width = max(len(name) for name in (*datalist["classes"], "class"))
    return "\n".join(f"{row[0]!s:<{width}}" + "".join(f"{cell!s:>10}" for cell in row[1:]) for row in [header, *rows])


def report(datalist: dict[str, Any], out: Path) -> str:
    """What `prepare` tells: the counts, what was left out and why, how intensities were read, and where the files are."""
    with (out / "excluded.csv").open(newline="") as file:
        excluded = list(csv.DictReader(file))
    reasons = Counter(re.sub(r"^undetermined: .*", "undetermined", row["reason"]) for row in excluded)
    lines = [summary(datalist), ""]
    lines.append(f"left out: {len(excluded)}" + (f" (why: {out / 'excluded.csv'})" if excluded else ""))
    lines += [f"  {count} {reason}" for reason, count in reasons.most_common()]
    offsets = Counter(record.get("hu_offset") for part in PARTS for record in datalist[part])
    for offset, count in offsets.items():
        how = (
            "cine in arbitrary units, scaled by its 1st and 99th percentile"
            if offset is None
            else f"HU = value {offset:+g}"
        )
        lines.append(f"intensity: {count} scans, {how}")
    if any(record["label"] == CLASSES.index(NORMAL) and "flags" in record for record in datalist["training"]):
        lines.append("note: Normal means that the table lists no diagnosis, which is not the same as a normal heart")
    lines.append(f"datalist: {out / 'datalist.json'}")
    return "\n".join(lines)


def read_datalist(path: str | Path) -> dict[str, Any]:
    """Read and check a datalist file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, keys or classes not as expected, a record without its keys, a patient in two parts or folds.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such datalist; make one with `monai-chd prepare COHORT --out WORK`")
    try:
        datalist = json.loads(path.read_text())
        classes, records = datalist["classes"], [(part, record) for part in PARTS for record in datalist[part]]
        root = datalist["root"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not a datalist ({type(error).__name__}: {error}); expected root, classes, training, test"
        ) from error
    if classes != list(CLASSES):
        raise ValueError(f"{path}: expected classes {list(CLASSES)}, got {classes}")
    if not isinstance(root, str):
        raise ValueError(f"{path}: expected root to be the folder that images are relative to, got {root!r}")
    for part, record in records:
        _check_record(path, part, record)
    repeated = [image for image, count in Counter(record["image"] for _, record in records).items() if count > 1]
    if repeated:
        raise ValueError(f"{path}: images that stand in it more than once: {', '.join(repeated)}")
    places: dict[str, set[str]] = {}
    for part, record in records:
        place = "the test part" if part == "test" else f"fold {record['fold']}"
        places.setdefault(str(record["patient"]), set()).add(place)
    twice = [f"{patient} ({' and '.join(sorted(where))})" for patient, where in places.items() if len(where) > 1]
    if twice:
        raise ValueError(
            f"{path}: patients in more than one place: {', '.join(twice)}; a patient belongs to one fold or part"
        )
    return datalist  # type: ignore[no-any-return]


def _check_record(path: Path, part: str, record: Any) -> None:
    """Refuse a record that lacks a key, or has a label or fold that is none."""
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected {part} records with image, label and patient, got {record!r}")
    keys = {"image", "label", "patient"} | ({"fold"} if part == "training" else set())
    if missing := keys - record.keys():
        raise ValueError(f"{path}: {part} record {record.get('image', record)} lacks {', '.join(sorted(missing))}")
    if not isinstance(record["image"], str):
        raise ValueError(f"{path}: expected the path of an image, got {record['image']!r}")
    if type(record["label"]) is not int or record["label"] not in range(len(CLASSES)):
        raise ValueError(f"{path}: {record['image']}: label {record['label']!r}; expected 0 to {len(CLASSES) - 1}")
    if part == "training" and (type(record["fold"]) is not int or record["fold"] < 0):
        raise ValueError(f"{path}: {record['image']}: fold {record['fold']!r}; expected a whole number from 0")


def dataset_dir(datalist: str | Path) -> str:
    """Folder that image paths are relative to: the datalist's `root`, itself relative to the file."""
    path = Path(datalist).resolve()
    return str((path.parent / read_datalist(path)["root"]).resolve())


def load_cases(datalist: str | Path, dataset_dir: str | Path, fold: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Cases of one fold's training and validation and of the test part, with absolute image paths.

    Args:
        datalist: file made by `prepare`.
        dataset_dir: folder that image paths are relative to.
        fold: the training fold that validates.

    Returns:
        {"train": […], "validate": […], "test": […]}; `label` is an index into `labels.CLASSES`, `patient` text.

    Raises:
        FileNotFoundError: no datalist, or images that are not there (all listed).
        ValueError: no such fold, or see `read_datalist`.
    """
    content = read_datalist(datalist)
    folds = sorted({record["fold"] for record in content["training"]})
    if fold not in folds:
        raise ValueError(f"fold: expected one of {folds} of {datalist}, got {fold!r}")
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "validate": [], "test": []}
    missing = []
    for part in PARTS:
        for record in content[part]:
            image = Path(dataset_dir, record["image"])
            if not image.is_file():
                missing.append(record["image"])
            case = {**record, "image": str(image), "patient": str(record["patient"])}
            # the sheet's flags have a length of their own in each case, which no batch can hold
            case["flags"] = "+".join(record.get("flags", ()))
            name = "test" if part == "test" else "validate" if record["fold"] == fold else "train"
            parts[name].append(case)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} scans of {datalist} are not in {dataset_dir}: {', '.join(missing[:5])}"
            f"{' …' if len(missing) > 5 else ''}; give their folder with --dataset_dir"
        )
    return parts


def class_weights(cases: Sequence[dict[str, Any]]) -> torch.Tensor:
    """Weights of the classes, inverse to their counts ("balanced" of scikit-learn), shape (K,), order of `labels.CLASSES`.

    Raises:
        ValueError: a class without a case.
    """
    labels = [case["label"] for case in cases]
    absent = [name for index, name in enumerate(CLASSES) if index not in labels]
    if absent:
        raise ValueError(f"the training part of this fold has no case of {', '.join(absent)}")
    weights = compute_class_weight("balanced", classes=np.arange(len(CLASSES)), y=np.array(labels))
    return torch.as_tensor(weights, dtype=torch.float32)
