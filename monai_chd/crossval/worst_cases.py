"""The mistakes that a cross-validation was most sure of: who, what was said, and a look at the frames.

Pictures and the hiding of frames are `occlusion`'s part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from monai_chd.crossval.design import Design
from monai_chd.crossval.fits import fit_folder
from monai_chd.crossval.occlusion import case_sheet, occlude, sheet_name
from monai_chd.labels import CLASSES
from monai_chd.metrics.calibration import read_calibration
from monai_chd.workflow.run import configured
from monai_chd.workflow.settings import MODEL

SHOWN = 5
"""Patients of the report."""


def worst_rows(table: pd.DataFrame, count: int = SHOWN) -> pd.DataFrame:
    """Of each patient the wrong answer given with most confidence, the most confident patients first.

    Args:
        table: pooled predictions.
        count: patients wished for.
    """
    wrong = table[(table["prediction"] != table["label"]) & table[CLASSES[0]].notna()].copy()
    wrong["confidence"] = wrong[list(CLASSES)].max(axis=1)
    # ties are broken by what stands in the table, so that the same table gives the same patients
    wrong = wrong.sort_values(["confidence", "patient", "repeat", "image"], ascending=[False, True, True, True])
    return wrong.drop_duplicates("patient").head(count)


def worst_cases(
    design: Design,
    table: pd.DataFrame,
    fits: Path,
    folder: Path,
    *,
    count: int = SHOWN,
    progress: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """The worst mistakes as the report takes them, with a sheet of frames each in `folder`/cases.

    Args:
        design: the cross-validation.
        table: its pooled predictions.
        fits: folder of its fits.
        folder: of the report.
        count: patients wished for.
        progress: told what is being done.
    """
    records = {record["image"]: record for record in design.records}
    found = []
    for row in worst_rows(table, count).to_dict("records"):
        progress(f"a look at a mistake: patient {row['patient']}")
        record = records[row["image"]]
        case: dict[str, Any] = {
            "patient": row["patient"],
            "image": row["image"],
            "label": row["label"],
            "prediction": row["prediction"],
            "probabilities": {name: row[name] for name in CLASSES},
            "flags": list(record.get("flags", ())),
            "repeat": int(row["repeat"]),
            "fold": int(row["fold"]),
            "sheet": None,
            "occlusion": [],
        }
        found.append(case | _look(design, record, case, fit_folder(fits, case["repeat"], case["fold"]), folder))
    return found


def _look(
    design: Design, record: Mapping[str, Any], case: Mapping[str, Any], fit: Path, folder: Path
) -> dict[str, Any]:
    """Sheet and occlusion of one case, by the model that had not seen the patient."""
    parts = configured(["train"], {**design.local, **design.settings}, ("network_def", "train#preprocessing"))
    network, preprocessing = parts
    network.load_state_dict(torch.load(fit / "models" / MODEL, map_location="cpu", weights_only=True))
    network.eval()
    own = {key: record[key] for key in ("hu_offset",) if record.get(key) is not None}
    loaded = preprocessing({"image": str(Path(design.root, record["image"])), **own})
    frames, count = loaded["image"].as_tensor()[None], torch.as_tensor([int(loaded["num_frames"])])
    seen, fill = _seen(network, frames, count)
    changes = occlude(
        network,
        seen,
        count,
        CLASSES.index(case["prediction"]),
        fill=fill,
        temperature=read_calibration(fit / "models" / MODEL).temperature,
    )
    sheet = sheet_name(case["patient"])
    title = f"{case['patient']}\n{case['label']}\ncalled {case['prediction']}"
    case_sheet(frames, int(count), folder / sheet, title=title)
    return {"sheet": sheet, "occlusion": changes}


def _seen(network: Any, frames: Tensor, count: Tensor) -> tuple[Tensor, str]:
    """What the frames are hidden in, and by what: the features of a frozen encoder, which are quick, else the frames."""
    encoder = getattr(network, "encoder", None)
    if encoder is None or any(weight.requires_grad for weight in encoder.parameters()):
        return frames, "blank"
    with torch.no_grad():
        return encoder(frames, count), "mean"


def flags_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Diagnosis flags of each patient, those of all scans together."""
    found: dict[str, list[str]] = {}
    for record in records:
        own = found.setdefault(record["patient"], [])
        own += [flag for flag in record.get("flags", ()) if flag not in own]
    return found
