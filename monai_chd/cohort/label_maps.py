"""Cases of a datalist that have a label map, for what learns from structures and not from classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_chd.cohort.datalist import load_cases, read_datalist
from monai_chd.errors import UserError, UserFileError, bare_mistakes
from monai_chd.wording import some_of


@bare_mistakes()
def load_structure_cases(
    datalist: str | Path, dataset_dir: str | Path, fold: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Cases of `datalist.load_cases` that have a label map, with its absolute path as `label` in place of the class.

    Raises:
        UserFileError: no datalist, or images or label maps that are not there.
        UserError: see `datalist.load_cases`; no case of the training or of the validation has a label map.
    """
    content = read_datalist(datalist)
    maps = {
        str(Path(dataset_dir, record["image"])): Path(dataset_dir, record["label_map"])
        for part in ("training", "test")
        for record in content[part]
        if record.get("label_map")
    }
    if missing := sorted(str(path) for path in maps.values() if not path.is_file()):
        raise UserFileError(
            f"{len(missing)} label maps of {datalist} are not in {dataset_dir}: {some_of(missing, 5)}; give their folder with "
            f"--dataset_dir, or prepare again"
        )
    cases = load_cases(datalist, dataset_dir, fold)
    kept = {
        part: [{**case, "label": str(maps[case["image"]])} for case in of_part if case["image"] in maps]
        for part, of_part in cases.items()
    }
    if empty := [part for part in ("train", "validate") if not kept[part]]:
        raise UserError(
            f"{datalist}: no case to {' or '.join(empty)} has a label map (ct_1001_label.nii.gz beside ct_1001_image.nii.gz), so "
            f"there is nothing to learn structures from; train without them, such as with --encoder efficientnet_lite0"
        )
    return kept
