"""Writes what a structure network sees as label maps in the scans' own space, and a table of how large each structure is.

How scores become a label map is `transforms.label_frames`' part.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from ignite.engine import Engine, Events

from monai_chd.errors import UserError, bare_mistakes
from monai_chd.files import name_below, replacing, writable_folder, write_csv
from monai_chd.labels import STRUCTURES
from monai_chd.nifti import open_header, stem
from monai_chd.transforms import LoadFramesd
from monai_chd.transforms.label_frames import to_label_map

logger = logging.getLogger(__name__)

TABLE = "structures.csv"


class LabelMaps:
    """Writes a label map for each scan, `…_seg.nii.gz`, and `structures.csv`: a row a scan, voxels of each structure or a reason.

    Numbers are ImageCHD's (1 to 7, `labels.STRUCTURES`), grid and affine are the scan's.

    Args:
        folder: for label maps and table; folders below `dataset_dir` are kept.
        dataset_dir: folder that the scans are named from.
        load_frames: what makes the frames.
    """

    def __init__(self, folder: str | Path, dataset_dir: str | Path, load_frames: LoadFramesd) -> None:
        self.folder = Path(folder)
        self.dataset_dir = Path(dataset_dir)
        self.load = load_frames.step
        self.rows: list[list[object]] = []
        self.unread: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self) -> None:
        writable_folder(self.folder)
        self.rows.clear()
        self.unread.clear()

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        for case, output in zip(state.batch, state.output, strict=True):
            path, reason = Path(str(case["image"].meta["filename_or_obj"])), str(case.get("reason", ""))
            place = Path(name_below(path, self.dataset_dir))
            if not reason and case["image"].meta.get("intensity") == "arbitrary":
                reason = f"{path}: a 4D cine has no HU and no label map"
            if reason:
                self.unread.append(reason)
                self.rows.append([place.as_posix(), "", *[""] * len(STRUCTURES), reason])
                continue
            labels = to_label_map(self.load, case["image"], output["pred"].cpu())
            target = self.folder / place.with_name(f"{stem(path)}_seg.nii.gz")
            stored, affine = open_header(path)
            with replacing(target) as temporary:
                image: Any = nib.Nifti1Image(labels.reshape(stored.shape[:3]), affine)  # type: ignore[no-untyped-call]
                image.header.set_xyzt_units(*nib.load(path).header.get_xyzt_units())  # type: ignore[attr-defined]
                nib.save(image, temporary)
            counts = np.bincount(labels.ravel(), minlength=len(STRUCTURES) + 1)[1:]
            self.rows.append([place.as_posix(), target.relative_to(self.folder).as_posix(), *counts.tolist(), ""])

    def _write(self) -> None:
        header = ["image", "label_map", *(f"{name}_voxels" for name in STRUCTURES), "reason"]
        path = write_csv(self.folder / TABLE, header, self.rows)
        logger.info(
            f"label maps: {self.folder} ({len(self.rows) - len(self.unread)} of {len(self.rows)} scans)\ntable: {path}"
        )

    @bare_mistakes()
    def check(self) -> None:
        """Fail when a file has no label map, after all others have theirs.

        Raises:
            UserError: names the files and what is wrong with each.
        """
        if self.unread:
            listed = "\n  ".join(self.unread)
            raise UserError(
                f"{len(self.unread)} of {len(self.rows)} files have no label map, the others have theirs:\n  {listed}"
            )
