"""The mistakes that a cross-validation was most sure of: who, what was said, and a look at the frames.

Pictures and the hiding of frames are `occlusion`'s part.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from monai_chd.crossval.design import Design
from monai_chd.crossval.fits import fit_folder, model_path
from monai_chd.crossval.occlusion import case_sheet, occlude, sheet_path
from monai_chd.files import escaped
from monai_chd.labels import CLASSES
from monai_chd.metrics.calibration import read_calibration
from monai_chd.networks.encoders import is_frozen
from monai_chd.workflow.run import configured
from monai_chd.workflow.weights import load_weights

logger = logging.getLogger(__name__)

REPORTED = 5
"""Patients of the report."""


def most_confident_mistakes(table: pd.DataFrame, count: int = REPORTED) -> pd.DataFrame:
    """Of each patient the wrong answer given with most confidence, the most confident patients first.

    Args:
        table: out-of-fold predictions.
        count: patients at most.
    """
    wrong = table[(table["prediction"] != table["label"]) & table[CLASSES[0]].notna()].copy()
    wrong["confidence"] = wrong[list(CLASSES)].max(axis=1)
    # ties are broken by what stands in the table, so that the same table gives the same patients
    wrong = wrong.sort_values(["confidence", "patient", "repeat", "image"], ascending=[False, True, True, True])
    return wrong.drop_duplicates("patient").head(count)


def worst_cases(
    design: Design, table: pd.DataFrame, fits: Path, folder: Path, *, count: int = REPORTED
) -> list[dict[str, Any]]:
    """The worst mistakes as the report takes them, with a sheet of frames each in `folder`/cases.

    Args:
        design: the cross-validation.
        table: its out-of-fold predictions.
        fits: folder of its fits.
        folder: of the report.
        count: patients at most.
    """
    records = {escaped(record["image"]): record for record in design.records}
    found = []
    for row in most_confident_mistakes(table, count).to_dict("records"):
        logger.info(f"a look at a mistake: patient {row['patient']}")
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
        }
        fit = fit_folder(fits, case["repeat"], case["fold"])
        found.append(case | _sheet_and_occlusion(design, record, case, fit, folder))
    return found


def _sheet_and_occlusion(
    design: Design, record: Mapping[str, Any], case: Mapping[str, Any], fit: Path, folder: Path
) -> dict[str, Any]:
    """A picture of one case, and what hiding its frames changes, by the model that had not seen the patient."""
    network, preprocessing = configured(["train"], design.overrides, ("network_def", "train#preprocessing"))
    load_weights(network, model_path(fit))
    network.eval()
    loaded = preprocessing({**record, "image": str(design.image_path(record))})
    frames, num_frames = loaded["image"].as_tensor()[None], torch.as_tensor([int(loaded["num_frames"])])
    hidden_in, fill = _hidden_in(network, frames, num_frames)
    changes = occlude(
        network,
        hidden_in,
        num_frames,
        CLASSES.index(case["prediction"]),
        fill=fill,
        temperature=read_calibration(model_path(fit)).temperature,
    )
    sheet = sheet_path(case["patient"])
    title = f"{case['patient']}\n{case['label']}\ncalled {case['prediction']}"
    case_sheet(frames, int(num_frames), folder / sheet, title=title)
    return {"sheet": sheet, "occlusion": changes}


def _hidden_in(network: nn.Module, frames: Tensor, num_frames: Tensor) -> tuple[Tensor, str]:
    """What frames are hidden in, and by what: the features of a frozen encoder, which are quick, else the frames."""
    encoder: Any = getattr(network, "encoder", None)
    if encoder is None or not is_frozen(encoder):
        return frames, "blank"
    with torch.no_grad():
        return encoder(frames, num_frames), "mean"
