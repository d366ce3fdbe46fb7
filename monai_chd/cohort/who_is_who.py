"""Gives the patients of a table the made names of their DICOM series, so that nothing after it knows who they are.

How names are made, and where it stands who is who, is the part of `dicom.private`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from monai_chd.cohort.diagnoses import Diagnoses
from monai_chd.cohort.naming import mentioned
from monai_chd.cohort.tables import Diagnosis
from monai_chd.dicom.private import Pseudonyms
from monai_chd.dicom.series import Series
from monai_chd.identity import patient_key


def name_apart(found: Diagnoses, series: Mapping[Path, Series], folder: Path, private: Path) -> dict[Path, str]:
    """Replace the ids of the rows by made names, and say whose each series is.

    A series is its Patient ID's; where the table does not have that, the patient's whose id alone stands in the names of its
    folders; where a row names a folder instead of a patient, that row's.

    Args:
        found: its rows are replaced.
        series: by the files that describe them.
        folder: of the cohort.
        private: folder of the key.

    Returns:
        Made name of the patient of each series; that of nobody in the table where it is nobody's.
    """
    names = Pseudonyms(private)
    ids = {patient_key(row.patient): row.patient for row in found.rows if row.patient}
    owners = {path: _owner(path, one, ids, names, folder) for path, one in series.items()}
    found.rows[:] = [_renamed(row, series, owners, names, folder) for row in found.rows]
    return owners


def _owner(path: Path, series: Series, ids: Mapping[str, str], names: Pseudonyms, folder: Path) -> str:
    own = patient_key(series.slices[0].patient)
    if own in ids:
        return names.patient(own)
    parts = series.folder.relative_to(folder).parts if series.folder.is_relative_to(folder) else ()
    hits = {key for key, patient in ids.items() if any(mentioned(patient, part) for part in parts)}
    return names.patient(hits.pop()) if len(hits) == 1 else path.parent.name


def _renamed(
    row: Diagnosis, series: Mapping[Path, Series], owners: Mapping[Path, str], names: Pseudonyms, folder: Path
) -> Diagnosis:
    if row.patient:
        return replace(row, patient=names.patient(row.patient))
    if row.image:
        place = (folder / row.image).resolve()
        own = {owners[path] for path, one in series.items() if one.folder.resolve().is_relative_to(place)}
        if len(own) == 1:
            return replace(row, patient=own.pop(), image="")
    return row
