"""Writes what was found of a series back as DICOM, to be filed in its study: a structured report, and a segmentation.

Of the patient it has what filing needs and nothing else. Codes of our own are of the scheme `99MONAICHD`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_chd import __version__
from monai_chd.dicom.private import read_description
from monai_chd.dicom.slices import pydicom
from monai_chd.errors import UserError
from monai_chd.files import replacing
from monai_chd.labels import CLASSES, STRUCTURES

EXTRA = 'DICOM is written with highdicom, which is not installed: pip install "monai_chd[dicom]"'

SCHEME = "99MONAICHD"
SERIES_NUMBERS = {"SR": 9601, "SEG": 9602}
WARNING = "NOT FOR DIAGNOSIS: research software, not a medical device"

DESCRIPTION = "monai_chd: research, not for diagnosis"

CODES = {
    "LV": ("87878005", "Left ventricle"),
    "RV": ("53085002", "Right ventricle"),
    "LA": ("82471001", "Left atrium"),
    "RA": ("73829009", "Right atrium"),
    "Myo": ("74281007", "Myocardium"),
    "Ao": ("15825003", "Aorta"),
    "PA": ("81040000", "Pulmonary artery"),
}
"""SNOMED CT codes of `labels.STRUCTURES`."""

FILED_BY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "SpecificCharacterSet",
)
"""What an archive files an object by; patients with other names or birth dates than before are set apart there."""

SOURCE = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "NumberOfFrames")
PLACE = (
    "Rows",
    "Columns",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
)


def _highdicom() -> Any:
    try:
        import highdicom
    except ImportError:
        raise UserError(EXTRA) from None
    logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)  # it logs what it copies of the patient
    return highdicom


def answers_can_be_written() -> None:
    """Refuse at once what would fail after hours.

    Raises:
        UserError: highdicom is not installed.
    """
    _highdicom()


def source_headers(path: Path) -> list[Any]:
    """Of each file of a series, in its order, what refers to it and what files it.

    Args:
        path: file that describes the series.

    Raises:
        UserError: see `private.read_description`; or its files lack an identifier that a reference needs.
    """
    library = pydicom()
    headers: dict[str, Any] = {}
    for one in read_description(path)["slices"]:
        if one["file"] in headers:
            continue
        header = library.dcmread(one["file"], stop_before_pixels=True, force=True)
        kept = library.Dataset()
        for name in (*FILED_BY, *SOURCE, *PLACE):
            if name in header:
                kept[name] = header[name]
        for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
            if not kept.get(name):
                raise UserError(
                    f"{path.parent.name}/{path.name}: its files have no {name}, so that nothing can refer to them; no DICOM is "
                    f"written of it"
                )
        for name in FILED_BY[:-1]:  # elements that may be empty but not absent
            if name not in kept:
                setattr(kept, name, "")
        kept.ReferringPhysicianName = ""
        headers[one["file"]] = kept
    return list(headers.values())


def _uid(*parts: str) -> str:
    """The same object has the same identifier, so that one that is sent twice is filed once; of its own root, 2.25."""
    number = int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:16], "big")
    return f"2.25.{number}"


def _concept(value: str, meaning: str) -> Any:
    return _highdicom().sr.CodedConcept(value, SCHEME, meaning)


def structured_report(
    path: Path, out: Path, *, probabilities: Sequence[float], reason: str, weights: str, settings: Mapping[str, str]
) -> Path:
    """Write a measurement report (TID 1500) that says of a series the class, the probabilities, and whether they are stood by.

    Args:
        path: file that describes the series.
        out: file to write.
        probabilities: calibrated, in the order of `labels.CLASSES`.
        reason: why the model abstains, "" when it answers.
        weights: sha256 of the model's weights.
        settings: what else decides the answer, to be told with the algorithm.

    Raises:
        UserError: highdicom is not installed; see `source_headers`; the file cannot be written.
    """
    highdicom = _highdicom()
    from pydicom.sr.codedict import codes

    sr = highdicom.sr
    headers = source_headers(path)
    parameters = [WARNING, f"weights sha256 {weights}", *(f"{name} {value}" for name, value in settings.items())]
    algorithm = sr.AlgorithmIdentification("monai_chd", __version__, parameters)
    measured = [
        sr.Measurement(
            name=_concept(f"P-{name.upper()}"[:16], f"Probability of {name}"),
            value=round(float(value), 6),
            unit=codes.UCUM.NoUnits,
        )
        for name, value in zip(CLASSES, probabilities, strict=True)
    ]
    best = CLASSES[int(np.argmax(probabilities))]
    evaluations = [
        sr.QualitativeEvaluation(
            _concept("CLASS", "Class of congenital heart disease"), _concept(best.upper()[:16], best)
        ),
        sr.QualitativeEvaluation(_concept("ABSTAINED", "Model abstains"), codes.SCT.Yes if reason else codes.SCT.No),
    ]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(_uid(headers[0].SeriesInstanceUID, "tracking"), "whole series"),
        finding_type=codes.SCT.Heart,
        algorithm_id=algorithm,
        measurements=measured,
        qualitative_evaluations=evaluations,
    )
    comment = f"{WARNING}. " + (f"The model abstains: {reason}" if reason else "The model answers.")
    text = sr.TextContentItem(codes.DCM.Comment, comment, sr.RelationshipTypeValues.CONTAINS)
    group[0].ContentSequence.append(text)
    device = sr.DeviceObserverIdentifyingAttributes(uid=_uid("device", __version__, weights), name="monai_chd")
    context = sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))
    report = sr.MeasurementReport(
        context, codes.LN.CTUnspecifiedBodyRegion, [group], title=codes.DCM.ImagingMeasurementReport
    )
    own = _uid(headers[0].SeriesInstanceUID, "SR", weights, reason, *map(str, probabilities))
    document = sr.ComprehensiveSR(
        evidence=headers,
        content=report[0],
        series_instance_uid=_uid(headers[0].SeriesInstanceUID, "SR series", weights),
        series_number=SERIES_NUMBERS["SR"],
        sop_instance_uid=own,
        instance_number=1,
        manufacturer="monai_chd",
        is_complete=True,
        is_verified=False,
    )
    document.SeriesDescription = DESCRIPTION
    return _saved(document, out)


def segmentation(path: Path, labels: NDArray[np.uint8], out: Path, *, weights: str) -> Path:
    """Write a label map as a DICOM segmentation that refers to the slices it was made of.

    Args:
        path: file that describes the series.
        labels: 0 to 7 (`labels.STRUCTURES`), shape (columns, rows, slices), as `dicom.volume` orders them.
        out: file to write.
        weights: sha256 of the structure network's weights.

    Raises:
        UserError: see `structured_report`; or the series was resampled, so that its label map lies on no slice of it.
    """
    highdicom = _highdicom()
    from pydicom.sr.codedict import codes

    description = read_description(path)
    if description["shifts"] is not None:
        raise UserError(
            f"{path.parent.name}/{path.name}: resampled for its tilt, so that its label map lies on none of its slices; take the "
            f"NIfTI label map"
        )
    headers = source_headers(path)
    if len(headers) > 1 and any(int(one.get("NumberOfFrames") or 1) > 1 for one in headers):
        raise UserError(
            f"{path.parent.name}/{path.name}: several files of many frames each, which one segmentation cannot refer to; "
            f"take the NIfTI label map"
        )
    family = codes.DCM.ArtificialIntelligence
    algorithm = highdicom.AlgorithmIdentificationSequence(
        "monai_chd", family, __version__, parameters={"weights": weights}
    )
    segments = [
        highdicom.seg.SegmentDescription(
            number,
            CODES[name][1],
            codes.SCT.AnatomicalStructure,
            highdicom.sr.CodedConcept(CODES[name][0], "SCT", CODES[name][1]),
            highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm,
            tracking_uid=_uid(headers[0].SeriesInstanceUID, "segment", name),
            tracking_id=name,
        )
        for number, name in enumerate(STRUCTURES, 1)
    ]
    planes = labels.transpose(2, 1, 0)
    order = [one["frame"] for one in description["slices"]]
    if len(headers) == 1:  # an enhanced file: its frames are in another order than the slices
        planes = planes[np.argsort(order)]
    result = highdicom.seg.Segmentation(
        source_images=headers,
        pixel_array=np.ascontiguousarray(planes),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=_uid(headers[0].SeriesInstanceUID, "SEG series", weights),
        series_number=SERIES_NUMBERS["SEG"],
        sop_instance_uid=_uid(headers[0].SeriesInstanceUID, "SEG", weights),
        instance_number=1,
        manufacturer="monai_chd",
        manufacturer_model_name="monai_chd",
        software_versions=__version__,
        device_serial_number=weights[:16],
        series_description=DESCRIPTION,
        content_label="HEART",
    )
    return _saved(result, out)


def _saved(document: Any, out: Path) -> Path:
    document.ReferringPhysicianName = ""
    with replacing(out) as temporary:
        document.save_as(temporary)
    return out
