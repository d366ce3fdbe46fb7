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
from numpy.typing import NDArray

from monai_chd.dicom.answers import answers_can_be_written, segmentation
from monai_chd.dicom.private import is_series_file
from monai_chd.errors import UserError, bare_mistakes
from monai_chd.files import replacing, sha256_of, writable_folder, write_csv
from monai_chd.labels import STRUCTURES
from monai_chd.scans.opening import is_series, open_scan, scan_name, scan_stem
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
        dicom_out: folder for the label maps of DICOM series as DICOM segmentations, `PATIENT/SERIES.seg.dcm`; None: none.
        checkpoint: weights of the structure network, named in these.
    """

    def __init__(
        self,
        folder: str | Path,
        dataset_dir: str | Path,
        load_frames: LoadFramesd,
        *,
        dicom_out: str | Path | None = None,
        checkpoint: str | Path | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.dataset_dir = Path(dataset_dir)
        self.load = load_frames.step
        self.dicom_out = None if dicom_out is None else Path(dicom_out)
        self.checkpoint, self.weights = checkpoint, ""
        self.rows: list[list[object]] = []
        self.unread: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self) -> None:
        writable_folder(self.folder)
        if self.dicom_out is not None:
            answers_can_be_written()
            self.weights = sha256_of(self.checkpoint) if self.checkpoint else "unknown"
        self.rows.clear()
        self.unread.clear()

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        for case, output in zip(state.batch, state.output, strict=True):
            path, reason = Path(str(case["image"].meta["filename_or_obj"])), str(case.get("reason", ""))
            place = Path(scan_name(path, self.dataset_dir))
            if not reason and case["image"].meta.get("intensity") == "arbitrary":
                reason = f"{path}: a 4D cine has no HU and no label map"
            if reason:
                self.unread.append(reason)
                self.rows.append([place.as_posix(), "", *[""] * len(STRUCTURES), reason])
                continue
            labels = to_label_map(self.load, case["image"], output["pred"].cpu())
            target = self.folder / place.with_name(f"{scan_stem(path)}_seg.nii.gz")
            scan = open_scan(path)
            with replacing(target) as temporary:
                image: Any = nib.Nifti1Image(labels.reshape(scan.shape), scan.affine)  # type: ignore[no-untyped-call]
                units = ("mm", "unknown") if is_series(path) else nib.load(path).header.get_xyzt_units()  # type: ignore[attr-defined]
                image.header.set_xyzt_units(*units)
                nib.save(image, temporary)
            fault = self._segmentation(path, place, labels.reshape(scan.shape))
            counts = np.bincount(labels.ravel(), minlength=len(STRUCTURES) + 1)[1:]
            self.rows.append([place.as_posix(), target.relative_to(self.folder).as_posix(), *counts.tolist(), fault])

    def _segmentation(self, path: Path, place: Path, labels: NDArray[np.uint8]) -> str:
        """Write a DICOM segmentation where one is wanted of a series; why it could not be."""
        if self.dicom_out is None or not is_series_file(path):
            return ""
        try:
            segmentation(
                path, labels, self.dicom_out / place.with_name(f"{scan_stem(path)}.seg.dcm"), weights=self.weights
            )
        except UserError as error:
            self.unread.append(str(error))
            return str(error)
        return ""

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
