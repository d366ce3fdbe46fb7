"""Reads a datalist for its audit, as far as it can be read: what `datalist.read_datalist` refuses is what an audit is for.

Owns the records and the places they stand in. What is wrong between two records is `leakage`'s part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_chd.cohort.datalist import PARTS
from monai_chd.errors import UserError, UserFileError
from monai_chd.labels import CLASSES
from monai_chd.schemas import read_json

TEST_PART = "the test part"
"""Where a record of a datalist's `test` stands."""


@dataclass(frozen=True)
class Record:
    """One record of a datalist, as far as it can be read; `cohort` is the name of the second datalist, "" for the first."""

    cohort: str
    image: str
    path: Path
    patient: str
    place: str
    label: int | None
    sha256: str
    hu_offset: float | None
    confounders: Mapping[str, Any]

    @property
    def where(self) -> str:
        """The place, with the second datalist's name before it."""
        return f"{self.cohort}: {self.place}" if self.cohort else self.place


def read_records(
    path: Path, dataset_dir: str | Path | None = None, cohort: str = ""
) -> tuple[list[Record], list[str], list[dict[str, Any]]]:
    """Records of a datalist, its classes, and what is wrong with single records.

    Args:
        path: of the datalist.
        dataset_dir: folder the images are in; None: the datalist's own `root`.
        cohort: what to call it, "" for the one that is audited.

    Raises:
        UserFileError: no such datalist.
        UserError: not a datalist at all, or an empty one.
    """
    if not path.is_file():
        raise UserFileError(f"{path}: no such datalist; make one with `monai-chd prepare COHORT --out WORK`")
    content = read_json(path, "a datalist", f"; expected JSON with {' and '.join(PARTS)}")
    try:
        parts = {part: list(content.get(part, [])) for part in PARTS}
        root = path.parent / str(content.get("root", "")) if dataset_dir is None else Path(dataset_dir)
    except (AttributeError, TypeError) as error:
        raise UserError(f"{path}: not a datalist ({error}); expected JSON with {' and '.join(PARTS)}") from error
    if not any(parts.values()):
        raise UserError(f"{path}: no case in it; expected lists named {' and '.join(PARTS)}")
    records, problems = [], []
    for part, entries in parts.items():
        for number, entry in enumerate(entries):
            image = entry.get("image") if isinstance(entry, dict) else None
            if not isinstance(image, str) or "\0" in image:
                name = f"{part} record {number}"
                problems.append(problem(name, part, f"{name} of {path} names no image", compared=False))
                continue
            records.append(_record(entry, part, root, cohort))
            if not records[-1].patient:
                text = f"{image}: no patient id, so overlap of patients cannot be seen for it"
                problems.append(problem(image, records[-1].where, text, compared=False))
    classes = content.get("classes")
    return records, [str(name) for name in classes] if isinstance(classes, list) else list(CLASSES), problems


def problem(image: str, place: str, text: str, *, compared: bool) -> dict[str, Any]:
    """What is wrong with one record; `compared` is false where its scan or patient was not compared with the others."""
    return {"image": image, "place": place, "problem": text, "compared": compared}


def _record(entry: Mapping[str, Any], part: str, root: Path, cohort: str) -> Record:
    fold, label, offset = entry.get("fold"), entry.get("label"), entry.get("hu_offset")
    place = TEST_PART if part == "test" else "training, no fold" if fold is None else f"fold {fold}"
    patient, confounders = entry.get("patient"), entry.get("confounders")
    return Record(
        cohort=cohort,
        image=entry["image"],
        path=(root / entry["image"]).resolve(),
        patient="" if patient is None else str(patient).strip(),
        place=place,
        label=label if isinstance(label, int) else None,
        sha256=str(entry.get("sha256") or ""),
        hu_offset=float(offset) if isinstance(offset, (int, float)) else None,
        confounders=confounders if isinstance(confounders, dict) else {},
    )
