"""The table of bad inputs: what is wrong, how it is made, which command meets it, and the words that the command must say.

`test_every_kind.py` runs every row; `scripts/errors_page.py` writes docs/errors.md from them. Scans are apart (`SCANS`): each
of them goes through `prepare` and `predict`.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from dicom_series import header, hu_volume, write_series
from openpyxl import Workbook
from tiny_cohort import voxels, write_cohort, write_rows, write_scan

from monai_chd.labels import CLASSES, FLAGS


@dataclass
class Kitchen:
    """Where a bad input is made: a folder of its own, and a sound datalist and model to spoil copies of."""

    folder: Path
    datalist: Path
    trained: Path

    def cohort(self, patients: int = 9) -> Path:
        """A sound cohort of 3 patients a class."""
        return write_cohort(self.folder / "cohort", patients)

    def table(self, *rows: Sequence[object], header: Sequence[str] = ("patient", "class")) -> Path:
        """A sound cohort whose table is another one."""
        write_rows(self.cohort() / "cases.csv", header, rows)
        return self.folder / "cohort"

    def workbook(self, fill: Callable[[Any], None]) -> Path:
        """A sound cohort with a workbook of flags for its table, after something was done to its sheet."""
        cohort = self.cohort()
        (cohort / "cases.csv").unlink()
        book = Workbook()
        sheet = book.active
        sheet.append(["index", *FLAGS])
        for number in range(1001, 1010):
            sheet.append([number, *[1 if number % 3 == 0 and flag == "ToF" else None for flag in FLAGS]])
        fill(sheet)
        book.save(cohort / "flags.xlsx")
        return cohort

    def edited(self, change: Callable[[dict[str, Any]], None]) -> Path:
        """A copy of the sound datalist, changed."""
        content = json.loads(self.datalist.read_text())
        content["root"] = str((self.datalist.parent / content["root"]).resolve())
        change(content)
        path = self.folder / "datalist.json"
        path.write_text(json.dumps(content))
        return path

    def model(self, change: Callable[[Path], object] | None = None) -> Path:
        """A copy of the sound model's output folder, its `models` changed."""
        out = self.folder / "out"
        shutil.copytree(self.trained / "models", out / "models")
        if change:
            change(out / "models")
        return out

    def scans(self) -> Path:
        """A folder of one sound scan."""
        return write_scan(self.folder / "scans" / "one.nii.gz").parent

    def json(self, path: Path, **changes: Any) -> None:
        """Change keys of a JSON file."""
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@dataclass(frozen=True)
class Kind:
    """A row of the table.

    Attributes:
        wrong: what is wrong, for people.
        command: what meets it.
        words: of its command line, by a kitchen; without the command itself.
        says: what the message must hold, in this order.
        code: exit code.
    """

    wrong: str
    command: str
    words: Callable[[Kitchen], Sequence[object]]
    says: tuple[str, ...]
    code: int = 1


@dataclass(frozen=True)
class Scan:
    """A scan that is refused by `prepare` and `predict`: what is wrong, its name, how it is written, and what is said of it."""

    wrong: str
    name: str
    write: Callable[[Path], object]
    says: tuple[str, ...]


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _nifti(change: Callable[[bytearray], object] = bytes, values: np.ndarray | None = None) -> bytes:
    image = nib.Nifti1Image(voxels(1) if values is None else values, np.eye(4))
    content = bytearray(image.to_bytes())
    change(content)
    return bytes(content)


def _packed(content: bytes) -> Callable[[Path], object]:
    return _bytes(gzip.compress(content, 1))


def _dims(*sizes: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[40:56] = struct.pack("<8h", len(sizes), *sizes, *([1] * (7 - len(sizes))))

    return change


def _offset(content: bytearray) -> None:
    content[108:112] = struct.pack("<f", 100.0)


def _pair(content: bytearray) -> None:
    content[344:348] = b"ni1\0"


def _twins(path: Path) -> None:
    write_scan(path)
    path.with_name(path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))


def _not_finite() -> np.ndarray:
    values = voxels(2).astype(np.float32)
    values[3, 3, 3] = np.nan
    return values


RGB = np.zeros((12, 12, 8), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])

SCANS = (
    Scan("a git-LFS pointer", "a.nii.gz", _bytes(b"version https://git-lfs.github.com/spec/v1\n"), ("git lfs pull",)),
    Scan("a web page", "b.nii.gz", _bytes(b"<!DOCTYPE html><html>"), ("web page", "download the scan again")),
    Scan("a zip archive", "c.nii.gz", _bytes(b"PK\x03\x04" + bytes(60)), ("a zip archive; unpack it",)),
    Scan("a DICOM file", "d.nii", _bytes(bytes(128) + b"DICM" + bytes(200)), ("DICOM", "name its folder")),
    Scan("not compressed, but named .nii.gz", "e.nii.gz", _bytes(_nifti()), ("not gzip-compressed", "rename it")),
    Scan("compressed, but named .nii", "f.nii", _packed(_nifti()), ("compressed with gzip but named .nii", "rename")),
    Scan("compressed twice", "g.nii.gz", _packed(gzip.compress(_nifti())), ("compressed twice", "decompress it once")),
    Scan(
        "cut off",
        "h.nii.gz",
        _bytes(gzip.compress(_nifti())[:900]),
        ("truncated or corrupt NIfTI", "copy or download the file again"),
    ),
    Scan("empty", "i.nii.gz", _bytes(b""), ("the file is empty; copy it again",)),
    Scan(
        "a header that promises more than the file holds",
        "j.nii",
        _bytes(_nifti(_dims(900, 900, 900))),
        ("the header promises", "can hold at most"),
    ),
    Scan(
        "a small file that claims a huge volume",
        "k.nii.gz",
        _packed(_nifti(_dims(32767, 32767, 99))),
        ("the header promises", "can hold at most"),
    ),
    Scan(
        "voxels said to begin within the header", "l.nii", _bytes(_nifti(_offset)), ("begin at byte 100", "vox_offset")
    ),
    Scan("the header of a pair", "m.nii", _bytes(_nifti(_pair)), ("the header of a pair", "convert the pair")),
    Scan("not NIfTI at all", "n.nii", _bytes(bytes(range(256)) * 8), ("does not begin with a NIfTI header",)),
    Scan("colours", "p.nii", _bytes(_nifti(values=RGB)), ("expected one real number a voxel", "convert colour")),
    Scan(
        "voxels that are no numbers",
        "q.nii.gz",
        _packed(_nifti(values=_not_finite())),
        ("1 of 1152 voxels are NaN or infinite; replace them",),
    ),
    Scan(
        "complex numbers",
        "r.nii",
        _bytes(_nifti(values=voxels(4).astype(np.complex64))),
        ("expected one real number a voxel", "complex64"),
    ),
    Scan(
        "a dead link",
        "s.nii.gz",
        lambda path: path.symlink_to("nowhere.nii.gz"),
        ("a dead link (to nowhere.nii.gz)", "remove it"),
    ),
    Scan("the same name packed and unpacked", "t.nii.gz", _twins, ("lies beside it", "remove one of the two")),
    Scan(
        "values of no CT",
        "u.nii.gz",
        _packed(_nifti(values=np.arange(12 * 12 * 8).reshape(12, 12, 8).astype(np.uint8))),
        ("cannot tell Hounsfield units from the values", "--hu-offset N"),
    ),
)


def _set(place: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the first record of a part of a datalist."""
    return lambda content: content[place][0].update(values)


def _one_class(content: dict[str, Any]) -> None:
    content["training"] = [record for record in content["training"] if record["label"] != 1 or record["fold"] == 0]


def _twice(content: dict[str, Any]) -> None:
    first, second = content["training"][:2]
    second["patient"], second["fold"], second["label"] = first["patient"], 1 - first["fold"], first["label"]


def _train(change: Callable[[dict[str, Any]], None], *more: object) -> Callable[[Kitchen], Sequence[object]]:
    return lambda k: [k.edited(change), "--out", k.folder / "out", *more]


def _option(*more: object) -> Callable[[Kitchen], Sequence[object]]:
    return lambda k: [k.datalist, "--out", k.folder / "out", *more]


def _prepare(rows: Sequence[Sequence[object]], *more: object, **options: Any) -> Callable[[Kitchen], Sequence[object]]:
    return lambda k: [k.table(*rows, **options), "--out", k.folder / "work", *more]


def _choice(*more: object) -> Callable[[Kitchen], Sequence[object]]:
    return lambda k: [k.cohort(), "--out", k.folder / "work", "--folds", "2", "--test-fraction", "0.33", *more]


def _predict(change: Callable[[Path], object] | None, *more: object) -> Callable[[Kitchen], Sequence[object]]:
    return lambda k: [k.scans(), "--out", k.model(change), *more]


def _dicom(more: Sequence[object] = (), **settings: Any) -> Callable[[Kitchen], Sequence[object]]:
    def words(k: Kitchen) -> Sequence[object]:
        write_series(k.folder / "dicom", hu_volume((6, 8, 6)), **settings)
        return [k.folder / "dicom", "--out", k.model(), *more]

    return words


def _values(slice_number: int = 4, **values: Any) -> Callable[[Any, int], Any]:
    """Other values in the header of one slice, or of all (-1)."""

    def change(ds: Any, index: int) -> Any:
        for name, value in values.items() if slice_number in (index, -1) else ():
            setattr(ds, name, value)
        return ds

    return change


def _left_out(ds: Any, index: int) -> Any:
    return None if index == 3 else ds


def _same_place(ds: Any, index: int) -> Any:
    if index == 1:
        ds.ImagePositionPatient = [-100.0, -80.0, -300.0]
    return ds


def _wider(ds: Any, index: int) -> Any:
    if index == 2:
        ds.Rows, ds.Columns = 12, 4
    return ds


def _no_rescale(ds: Any, index: int) -> Any:
    del ds.RescaleIntercept
    return ds


def _cut_dicom(k: Kitchen) -> Sequence[object]:
    path = write_series(k.folder / "dicom", hu_volume((6, 8, 6)))[2]
    path.write_bytes(path.read_bytes()[:-10])
    return [k.folder / "dicom", "--out", k.model()]


def _one_dicom(k: Kitchen) -> Sequence[object]:
    return [write_series(k.folder / "dicom", hu_volume((6, 8, 6)))[0], "--out", k.model()]


def _phases(*more: object) -> Callable[[Kitchen], Sequence[object]]:
    def words(k: Kitchen) -> Sequence[object]:
        shared = header()
        for time in ("90", "430"):
            change, names = _values(-1, TriggerTime=time), f"{time}_{{}}".format
            write_series(k.folder / "dicom", hu_volume((6, 8, 6)), shared=shared, change=change, names=names)
        return [k.folder / "dicom", "--out", k.model(), *more]

    return words


def _spoilt_model(content: bytes) -> Callable[[Path], object]:
    return lambda models: (models / "model.pt").write_bytes(content)


def _cut_model(models: Path) -> None:
    path = models / "model.pt"
    path.write_bytes(path.read_bytes()[:2000])


def _diverged(models: Path) -> None:
    weights = torch.load(models / "model.pt", weights_only=True)
    next(iter(weights.values()))[:] = float("nan")
    torch.save(weights, models / "model.pt")


def _keys(name: str, **changes: Any) -> Callable[[Path], object]:
    return lambda models: (models / name).write_text(json.dumps(json.loads((models / name).read_text()) | changes))


def _file(k: Kitchen, name: str, content: str | bytes) -> Path:
    path = k.folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _encoded(encoding: str) -> Callable[[Kitchen], Sequence[object]]:
    def words(k: Kitchen) -> Sequence[object]:
        text = "patient;class\n" + "".join(f"{1001 + i};{CLASSES[i % 3]}\n" for i in range(9)) + "Müller;Normal\n"
        (k.cohort() / "cases.csv").write_bytes(text.encode(encoding))
        return [k.folder / "cohort", "--out", k.folder / "work"]

    return words


def _cell(address: str, value: object) -> Callable[[Kitchen], Sequence[object]]:
    def fill(sheet: Any) -> None:
        sheet[address] = value

    return lambda k: [k.workbook(fill), "--out", k.folder / "work"]


def _merged(k: Kitchen) -> Sequence[object]:
    def fill(sheet: Any) -> None:
        sheet["B2"] = 1
        sheet.merge_cells("B2:B4")

    return [k.workbook(fill), "--out", k.folder / "work"]


def _no_workbook(k: Kitchen) -> Sequence[object]:
    (k.cohort() / "cases.csv").unlink()
    with zipfile.ZipFile(k.folder / "cohort" / "cases.xlsx", "w") as archive:
        archive.writestr("a.txt", "no sheet")
    return [k.folder / "cohort", "--out", k.folder / "work"]


def _renamed(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Callable[[Kitchen], Sequence[object]]:
    def words(k: Kitchen) -> Sequence[object]:
        folder = k.folder / "cohort"
        for number, name in enumerate(names):
            write_scan(folder / name, number)
        write_rows(folder / "cases.csv", ["patient", "class"], rows)
        return [folder, "--out", k.folder / "work"]

    return words


def _copies(other: str) -> Callable[[Kitchen], Sequence[object]]:
    def words(k: Kitchen) -> Sequence[object]:
        shutil.copy(k.cohort() / "ct_1001_image.nii.gz", k.folder / "cohort" / other)
        return [k.folder / "cohort", "--out", k.folder / "work"]

    return words


def _under_another_patient(k: Kitchen) -> Sequence[object]:
    cohort = k.table(*NINE, [1010, "Normal"])
    shutil.copy(cohort / "ct_1001_image.nii.gz", cohort / "ct_1010_image.nii.gz")
    return [cohort, "--out", k.folder / "work"]


def _other_split(k: Kitchen) -> Sequence[object]:
    shutil.copytree(k.datalist.parent, k.folder / "work")
    return [k.cohort(), "--out", k.folder / "work", "--folds", "2", "--test-fraction", "0.33"]


def _rule(text: str) -> Callable[[Kitchen], Sequence[object]]:
    return lambda k: [*_cell("A1", "index")(k), "--rule", _file(k, "rule.json", text)]


def _bare(content: dict[str, Any]) -> None:
    """A datalist without label maps."""
    for record in (*content["training"], *content["test"]):
        record.pop("label_map", None)


def _label_maps(kind: str) -> Callable[[Kitchen], Sequence[object]]:
    """Training of structures on label maps that are "gone", of an "other shape" or "empty" of structures."""

    def words(k: Kitchen) -> Sequence[object]:
        def spoil(content: dict[str, Any]) -> None:
            for record in content["training"]:
                path = k.folder / f"{record['patient']}_map.nii.gz"
                record["label_map"] = str(path)
                shape = nib.load(Path(content["root"], record["image"])).shape
                if kind != "gone":
                    write_scan(path, np.full((12, 12, 7) if kind == "other shape" else shape, 9, np.uint8))

        return [k.edited(spoil), "--out", k.folder / "out"]

    return words


NINE = [[1001 + i, CLASSES[i % 3]] for i in range(9)]

KINDS = (
    # tables
    Kind(
        "no table",
        "prepare",
        lambda k: [k.scans(), "--out", k.folder / "work"],
        ("no table of diagnoses found", "--table FILE"),
    ),
    Kind(
        "two tables",
        "prepare",
        lambda k: [write_rows(k.cohort() / "more.csv", ["patient", "class"], NINE).parent, "--out", k.folder / "w"],
        ("cases.csv", "more.csv", "--table"),
    ),
    Kind("no column of classes", "prepare", _prepare(NINE, header=("patient", "remark")), ("cases.csv", "class")),
    Kind("no column of ids", "prepare", _prepare(NINE, header=("colour", "class")), ("cases.csv", "patient")),
    Kind("an unknown class", "prepare", _prepare([*NINE[:8], [1009, "Blue"]]), ("row 10", "Blue", "Normal")),
    Kind("a table without rows", "prepare", _prepare([]), ("cases.csv",)),
    Kind("one patient with two classes", "prepare", _prepare([*NINE, [1001, "Normal"]]), ("1001",)),
    Kind("07 and 7 with two classes", "prepare", _prepare([*NINE, ["01001", "Normal"]]), ("1001",)),
    Kind(
        "a row without a scan", "prepare", _prepare([*NINE, [2001, "Normal"]]), ("no scan found for 2001", "--skip-bad")
    ),
    Kind("a scan without a row", "prepare", _prepare(NINE[:8]), ("ct_1009_image.nii.gz", "no row")),
    Kind("a table in UTF-16", "prepare", _encoded("utf-16"), ("cases.csv", "UTF-16", "UTF-8")),
    Kind("a table in Windows-1252", "prepare", _encoded("cp1252"), ("cases.csv", "UTF-8")),
    Kind("#N/A in a cell", "prepare", _cell("C3", "#N/A"), ("C3", "#N/A")),
    Kind("#REF! in a cell", "prepare", _cell("B4", "#REF!"), ("B4", "#REF!")),
    Kind("a formula that was never computed", "prepare", _cell("B2", "=1+1"), ("B2",)),
    Kind("merged cells", "prepare", _merged, ("B3", "merged")),
    Kind(
        "a flag that is no 0 or 1",
        "prepare",
        _cell("B2", "perhaps"),
        ("row 2", "ASD is 'perhaps'; expected 1, 0 or blank"),
    ),
    Kind("a workbook that is none", "prepare", _no_workbook, ("cases.xlsx",)),
    # who is who
    Kind(
        "an id at two places of the names",
        "prepare",
        _renamed(("1_2.nii.gz", "2_1.nii.gz"), [[1, "Normal"], [2, "Normal"]]),
        ("1_2.nii.gz",),
    ),
    Kind(
        "an id that begins with $",
        "prepare",
        _renamed(("$a.nii.gz",), [["$a", "Normal"]]),
        ("begins with $", "rename it"),
    ),
    Kind(
        "a copy by its name",
        "prepare",
        _copies("ct_1001_image (1).nii.gz"),
        ("a copy of ct_1001_image.nii.gz by its name", "remove or rename"),
    ),
    Kind(
        "a copy under another name", "prepare", _copies("ct_1001_old.nii.gz"), ("the same voxels", "keep one of them")
    ),
    Kind(
        "one scan under two patients",
        "prepare",
        _under_another_patient,
        ("the same scan under several patients", "keep it under the right one"),
    ),
    # choices
    Kind("one fold", "prepare", _choice("--folds", "1"), ("folds", "got 1")),
    Kind("a test part of everybody", "prepare", _choice("--test-fraction", "1"), ("test",)),
    Kind("more folds than patients of a class", "prepare", _choice("--folds", "8"), ("Normal",)),
    Kind("an unknown rule", "prepare", _choice("--rule", "stricter"), ("stricter",)),
    Kind("a rule for a table of classes", "prepare", _choice("--rule", "strict"), ("holds classes", "leave them out")),
    Kind("a rule that is not JSON", "prepare", _rule("{"), ("rule.json", "not JSON")),
    Kind("a rule with an unknown key", "prepare", _rule('{"name": "x", "steps": [], "$y": 1}'), ("rule.json", "$y")),
    Kind("no such folder", "prepare", lambda k: [k.folder / "none", "--out", k.folder / "work"], ("none", "no such")),
    Kind(
        "an output folder that is a file",
        "prepare",
        lambda k: [k.cohort(), "--out", _file(k, "work", "x")],
        ("work", "cannot write there"),
    ),
    Kind(
        "another split where one is already",
        "prepare",
        _other_split,
        ("datalist.json", "holds another split", "choose another --out"),
    ),
    Kind("no such command", "prepair", lambda k: [], ("invalid choice", "prepair"), 2),
    Kind("an option that does not exist", "prepare", _choice("--fold", "2"), ("--fold",), 2),
    # datalists
    Kind(
        "no datalist",
        "train",
        lambda k: [k.folder / "none.json", "--out", k.folder / "out"],
        ("none.json: no such datalist", "prepare"),
    ),
    Kind(
        "a datalist that is not JSON",
        "train",
        lambda k: [_file(k, "d.json", "{"), "--out", k.folder / "out"],
        ("d.json", "not JSON", "prepare"),
    ),
    Kind("a datalist with an unknown key", "train", _train(lambda d: d.update(more=1)), ("more", "known")),
    Kind("a label out of range", "train", _train(_set("training", label=3)), ("label", "3")),
    Kind("a record without a patient", "train", _train(lambda d: d["training"][0].pop("patient")), ("patient",)),
    Kind("a patient that a config would run", "train", _train(_set("training", patient="$print(1)")), ("patient", "$")),
    Kind("an image that a config would run", "train", _train(_set("training", image="$print(1)")), ("image", "$")),
    Kind("a patient in two folds", "train", _train(_twice), ("in more than one place", "fold 0", "fold 1")),
    Kind(
        "scans that are not there", "train", _train(lambda d: d.update(root="/nowhere")), ("/nowhere", "--dataset_dir")
    ),
    Kind("no such fold", "train", _option("--fold", "7"), ("fold: expected one of [0, 1]", "got 7")),
    Kind("a class without a case to train on", "train", _train(_one_class), ("no case of Non-Cyanotic",)),
    # settings
    Kind(
        "a misspelt key",
        "train",
        _option("--learning_rat", "0.1"),
        ("unknown config key learning_rat", "did you mean learning_rate?"),
    ),
    Kind(
        "a word for a number", "train", _option("--max_epochs", "ten"), ("max_epochs: expected a whole number", "'ten'")
    ),
    Kind("no epoch", "train", _option("--max_epochs", "0"), ("max_epochs", "got 0")),
    Kind(
        "a word for a seed", "train", _option("--seed", "abc"), ("seed: expected a whole number of 0 or more", "'abc'")
    ),
    Kind(
        "fewer than no workers",
        "train",
        _option("--num_workers", "-1"),
        ("num_workers: expected a whole number of 0 or more",),
    ),
    Kind("a word for an offset", "train", _option("--hu_offset", "some"), ("hu_offset: expected a number", "'some'")),
    Kind("a word for a switch", "train", _option("--gpu", "maybe"), ("gpu: expected true or false", "'maybe'")),
    Kind(
        "a word for a limit",
        "cache",
        lambda k: [k.datalist, "--format", "frames", "--out", k.folder / "c", "--cache_limit", "big"],
        ("cache_limit: expected a number above 0", "'big'"),
    ),
    Kind(
        "a negative learning rate",
        "train",
        _option("--learning_rate", "-1"),
        ("learning_rate: expected a number above 0",),
    ),
    Kind("no validation", "train", _option("--max_epochs", "1", "--val_interval", "2"), ("val_interval", "max_epochs")),
    Kind("an unknown encoder", "train", _option("--encoder", "resnet99"), ("resnet99", "small_cnn")),
    Kind("an unknown pooling", "train", _option("--pooling", "median"), ("median", "attention")),
    Kind("an unknown cache", "train", _option("--cache", "disk"), ("cache: expected one of", "'disk'")),
    Kind("a window upside down", "train", _option("--window", "[900, -200]"), ("window",)),
    Kind("frames of four pixels", "train", _option("--frame_size", "4"), ("frame_size", "4")),
    Kind("a value that a config would run", "train", _option("--encoder", "$print(1)"), ("$print(1)", "small_cnn")),
    Kind("a key of the command itself", "train", _option("--output_dir", "x"), ("output_dir", "leave it out")),
    Kind("a key without a value", "train", _option("--max_epochs"), ("--max_epochs", "--key value")),
    Kind(
        "two targets of abstention",
        "train",
        _option("--coverage", "0.8", "--risk", "0.1"),
        ("coverage", "risk", "leave one out"),
    ),
    Kind(
        "a folder that holds a model",
        "train",
        lambda k: [k.datalist, "--out", k.model()],
        ("already holds a model", "--resume true"),
    ),
    Kind("nothing to resume", "train", _option("--resume", "true"), ("last.pt", "nothing to resume from")),
    Kind(
        "another rate when resuming",
        "train",
        lambda k: [k.datalist, "--out", k.model(), "--resume", "true", "--max_epochs", "9", "--learning_rate", "0.5"],
        ("learning_rate", "(asked: 0.5)"),
    ),
    Kind(
        "a training that is done",
        "train",
        lambda k: [k.datalist, "--out", k.model(), "--resume", "true"],
        ("already trained for 2 epochs",),
    ),
    # models
    Kind("no model", "predict", lambda k: [k.scans(), "--out", k.folder / "out"], ("model.pt", "no trained model")),
    Kind(
        "weights that are a git-LFS pointer",
        "predict",
        _predict(_spoilt_model(b"version https://git-lfs.github.com/spec/v1\n")),
        ("model.pt", "git lfs pull"),
    ),
    Kind("weights that are cut off", "predict", _predict(_cut_model), ("model.pt",)),
    Kind(
        "weights of a training that diverged",
        "predict",
        _predict(_diverged),
        ("model.pt: weights that are not finite", "smaller learning_rate"),
    ),
    Kind("weights of another network", "predict", _predict(_keys("settings.json", hidden_size=64)), ("model.pt",)),
    Kind(
        "settings that a config would run",
        "predict",
        _predict(_keys("settings.json", pooling="$print(1)")),
        ("settings.json", "pooling", "$print(1)"),
    ),
    Kind(
        "settings with an unknown key", "predict", _predict(_keys("settings.json", more=1)), ("settings.json", "more")
    ),
    Kind(
        "settings that are not JSON",
        "predict",
        _predict(lambda m: (m / "settings.json").write_text("{")),
        ("settings.json", "not JSON"),
    ),
    Kind(
        "a calibration out of range",
        "predict",
        _predict(_keys("calibration.json", temperature=-1)),
        ("calibration.json", "temperature"),
    ),
    Kind(
        "other frames than the model was trained with",
        "predict",
        _predict(None, "--frame_size", "99"),
        ("frame_size 24 (asked: 99)",),
    ),
    Kind("an impossible coverage", "predict", _predict(None, "--coverage", "2"), ("coverage: expected a share",)),
    Kind("nothing to predict", "predict", lambda k: [k.folder, "--out", k.model()], ("no",)),
    *(
        Kind(f"DICOM: {wrong}", "predict", _dicom(**settings), says)
        for wrong, settings, says in (
            ("a missing slice", {"change": _left_out}, ("a slice is missing: 1.60 mm between slices 3 and 4 of 5",)),
            ("a tilted gantry", {"shear": (0, 0.1, 0)}, ("tilted by 7.1 degrees", "--tilt resample")),
            ("two slices at one place", {"change": _same_place}, ("two slices at one place, -300.00 mm along",)),
            ("slices of several sizes", {"change": _wider}, ("slices of several sizes: 6 x 8, 4 x 12",)),
            (
                "slices of several spacings",
                {"change": _values(PixelSpacing=[1, 1])},
                ("slices of several pixel spacings",),
            ),
            (
                "slices of several directions",
                {"change": _values(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])},
                ("slices of several directions: 1.000 0.000",),
            ),
            (
                "no rescale",
                {"change": _no_rescale},
                ("no rescale slope and intercept, so its values are not known in HU",),
            ),
            ("no position", {"change": _values(ImagePositionPatient=None)}, ("its place is unknown",)),
            ("no pixels", {"change": _values(PixelData=b"")}, ("1 of 6 images: no pixels in it", "copy or send")),
            ("no CT", {"change": _values(-1, Modality="MR")}, ("no CT series in it", "6 no CT image (MR)")),
            (
                "localisers only",
                {"change": _values(-1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])},
                ("6 localiser",),
            ),
        )
    ),
    Kind("DICOM: a file that is cut", "predict", _cut_dicom, ("1 of 6 images: cut", "copy or send the series again")),
    Kind(
        "DICOM: a phase that no series has",
        "predict",
        _phases("--phase", "75"),
        ("--phase 75: no series has it", "=90"),
    ),
    Kind("DICOM: one file of a series", "predict", _one_dicom, ("one file of a DICOM series; name the folder",)),
    Kind("DICOM: an HU offset", "predict", _dicom(more=["--hu_offset", "-1024"]), ("DICOM says itself", "leave out")),
    Kind(
        "no such scans",
        "predict",
        lambda k: [k.folder / "none", "--out", k.model()],
        ("none", "no such file or folder"),
    ),
    Kind("an engine that is not there", "predict", _predict(None, "--engine", "tensorrt"), ("tensorrt",)),
    Kind(
        "patients of the training",
        "evaluate",
        lambda k: [
            k.edited(
                lambda d: d.update(
                    test=[{key: v for key, v in r.items() if key != "fold"} for r in d["training"]],
                    training=d["test"] and [{**r, "fold": i % 2} for i, r in enumerate(d["test"])],
                )
            ),
            "--out",
            k.model(),
        ],
        ("were seen in training", "would mean nothing"),
    ),
    Kind(
        "no test part",
        "evaluate",
        lambda k: [k.edited(lambda d: d.update(test=[])), "--out", k.model()],
        ("no test part", "--test-fraction"),
    ),
    Kind("nothing to export", "export", lambda k: [k.folder / "out", "--scans", k.scans()], ("no trained model",)),
    # many fits
    Kind("too many folds", "crossval", _option("--folds", "20"), ("too few patients for 20 folds",)),
    Kind("no repeat", "crossval", _option("--repeats", "0"), ("repeats",)),
    Kind("nothing to compare with", "crossval", _option("--against", "nowhere"), ("nowhere",)),
    Kind("a key that every fit sets", "crossval", _option("--resume", "true"), ("resume",)),
    Kind("an unknown format", "cache", lambda k: [k.datalist, "--format", "png", "--out", k.folder / "c"], ("png",), 2),
    Kind(
        "features of an encoder that is trained",
        "cache",
        lambda k: [k.datalist, "--format", "features", "--out", k.folder / "c", "--encoder", "small_cnn"],
        ("features",),
    ),
    Kind("an audit of nothing", "audit", lambda k: [k.folder / "none.json"], ("none.json: no such datalist",), 2),
    # phantoms
    Kind(
        "a folder in use",
        "phantom",
        lambda k: [k.scans(), "--patients", "3"],
        ("expected a new or empty folder", "name another one"),
    ),
    Kind(
        "two patients",
        "phantom",
        lambda k: [k.folder / "p", "--patients", "2"],
        ("patients: expected at least 3", "came 2"),
    ),
    Kind(
        "hearts of 16 pixels",
        "phantom",
        lambda k: [k.folder / "p", "--size", "16"],
        ("size: expected at least 32", "came 16"),
    ),
    Kind("an unknown lesion", "phantom", lambda k: [k.folder / "p", "--lesions", "XYZ"], ("XYZ",)),
    Kind("slices upside down", "phantom", lambda k: [k.folder / "p", "--slices", "20", "10"], ("slices",)),
    Kind(
        "an archive of another cohort",
        "phantom",
        lambda k: [k.folder / "p", "--archive"],
        ("--archive", "--like-imagechd"),
    ),
    # structures
    Kind(
        "structures of a cohort without label maps",
        "train-structures",
        lambda k: [k.edited(_bare), "--out", k.folder / "out"],
        ("no case to train or validate has a label map", "efficientnet_lite0"),
    ),
    Kind(
        "label maps that are gone",
        "train-structures",
        _label_maps("gone"),
        ("label maps of", "map.nii.gz", "prepare again"),
    ),
    Kind(
        "a label map of another shape",
        "train-structures",
        _label_maps("other shape"),
        ("map.nii.gz", "shape (12, 12, 7)", "image.nii.gz", "mend one of the two"),
    ),
    Kind(
        "a label map without a structure",
        "train-structures",
        _label_maps("empty"),
        ("map.nii.gz", "without any of the structures 1 to 7"),
    ),
    Kind(
        "channels of one level",
        "train-structures",
        lambda k: [k.datalist, "--out", k.folder / "out", "--channels", "8"],
        ("channels: expected whole numbers for two levels or more", "came 8"),
    ),
    Kind(
        "an encoder that needs structures, without them",
        "train",
        lambda k: [k.edited(_bare), "--out", k.folder / "out", "--encoder", "structures"],
        ("no structure network", "train-structures", "take another encoder"),
    ),
    Kind(
        "a classifier in place of a structure network",
        "train",
        lambda k: [
            *(k.datalist, "--out", k.folder / "new", "--encoder", "structures"),
            *("--structures", k.model() / "models" / "model.pt"),
        ],
        ("model.pt", "no structure network", "lacks channels, context"),
    ),
    Kind(
        "a segmentation without a network",
        "segment",
        lambda k: [k.scans(), "--out", k.folder / "out"],
        ("no structure network", "train-structures"),
    ),
)
