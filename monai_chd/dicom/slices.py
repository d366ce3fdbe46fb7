"""Reads the header of one DICOM file: each image in it, what it is, where it lies, where its pixels are stored.

Which images make a volume is the part of `geometry` and `series`. No pixel is read here.
"""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

from monai_chd.errors import UserError

EXTRA = 'DICOM is read with pydicom, which is not installed: pip install "monai_chd[dicom]"'

CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT Image Storage",
    "1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT Image Storage",
    "1.2.840.10008.5.1.4.1.1.2.2": "Legacy Converted Enhanced CT Image Storage",
}

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"

NOT_ORIGINAL = {
    "LOCALIZER": "localiser",
    "SCOUT": "localiser",
    "TOPOGRAM": "localiser",
    "REFORMATTED": "reformat",
    "MPR": "reformat",
    "CSA MPR": "reformat",
    "CURVED": "reformat",
    "PROJECTION IMAGE": "projection",
    "MAXIMUM": "projection",
    "MINIMUM": "projection",
    "MIP": "projection",
    "MINIP": "projection",
    "VOLUMERENDER": "rendering",
    "SCREEN SAVE": "screenshot",
    "DOSE_INFO": "dose sheet",
}
"""Values of Image Type that are no slice of the volume that was acquired, and what they are."""

NATIVE = {"1.2.840.10008.1.2": "<", "1.2.840.10008.1.2.1": "<", "1.2.840.10008.1.2.2": ">"}
"""Transfer syntaxes whose pixels lie in the file as they are, and their byte order."""

DEFLATED = "1.2.840.10008.1.2.1.99"

_TAGS = (
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "AcquisitionTime",
    "Modality",
    "PatientID",
    "TriggerTime",
    "NominalPercentageOfCardiacPhase",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "AcquisitionNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "TemporalPositionIdentifier",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ManufacturerModelName",
    "ContrastBolusAgent",
    "SpecificCharacterSet",
)

_PIXELS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
"""The tag (7FE0,0010) in both byte orders."""

_OPEN_LENGTH = 0xFFFFFFFF


class NoReaderError(UserError):
    """DICOM files, and no library to read them with."""


class Pixels(NamedTuple):
    """How the pixels of an image are stored.

    Attributes:
        dtype: of the stored numbers, byte order included (`<i2`).
        bits: that of each number belong to the pixel; what lies above them is not of the image.
        slope, intercept: HU = stored number * slope + intercept.
        offset: of the image's first byte in the file; -1 where it is compressed.
    """

    dtype: str
    bits: int
    slope: float
    intercept: float
    offset: int


class Slice(NamedTuple):
    """One image of a file.

    Attributes:
        path, frame: the file, and the number of the image in it, from 0.
        patient, study, series, instance: identifiers as the file has them; identifying, for the grouping only.
        frame_of_reference: UID of the space in which the position is.
        modality: `CT` or another; a class of images that is no CT's goes before it.
        left_out: what it is instead of a slice of an acquired CT volume (`localiser`); "" for a slice.
        rows, columns: H and W.
        position: of the centre of the first pixel, in mm, in DICOM's own space: towards left, posterior, head.
        axes: directions in which columns and rows count, (6,).
        spacing: mm between rows, and between columns.
        phases: what may tell the phases of a heart apart, by name.
        pixels: see `Pixels`; None where `fault` says why.
        scanner: model of the scanner.
        contrast: whether the header names an agent; None where it says nothing.
        fault: why the image cannot be used, for people and without a name or a path in it; "" when it can.
    """

    path: Path
    frame: int = 0
    patient: str = ""
    study: str = ""
    series: str = ""
    instance: str = ""
    frame_of_reference: str = ""
    modality: str = ""
    left_out: str = ""
    rows: int = 0
    columns: int = 0
    position: tuple[float, ...] = ()
    axes: tuple[float, ...] = ()
    spacing: tuple[float, ...] = ()
    phases: Mapping[str, str] = MappingProxyType({})
    pixels: Pixels | None = None
    scanner: str = ""
    contrast: bool | None = None
    fault: str = ""


def pydicom() -> Any:
    """The library, where it is installed, without its warnings and logs: they quote values of headers, names among them.

    Raises:
        NoReaderError: it is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise NoReaderError(EXTRA) from None
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    return pydicom


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM, or begins as files did before they said so; False where it cannot be opened."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or _begins_bare(head)


def _begins_bare(head: bytes) -> bool:
    """A data set without a preamble: its first element is of group 0002 or 0008, with a length that such elements have."""
    if len(head) < 132 or head[:2] not in (b"\x02\x00", b"\x08\x00") or head[3] != 0:
        return False
    explicit = head[4:6] in (b"UL", b"CS", b"UI", b"DA", b"TM", b"SH", b"LO")
    length = int.from_bytes(head[6:8], "little") if explicit else int.from_bytes(head[4:8], "little")
    return length <= 128


def read_slices(path: Path) -> list[Slice]:
    """The images that a DICOM file describes; one `Slice` with a `fault` or `left_out` where there is none to be used.

    Raises:
        UserError: pydicom is not installed.
    """
    library = pydicom()
    try:
        with path.open("rb") as file:
            header = library.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
            return _slices(path, header, file)
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        struct.error,
        NotImplementedError,
    ) as error:
        return [Slice(path, fault=f"cut or damaged within its header ({type(error).__name__})")]


def _slices(path: Path, header: Any, file: BinaryIO) -> list[Slice]:
    meta = header.file_meta if hasattr(header, "file_meta") else {}
    kind = str(header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
    modality = str(header.get("Modality") or "")
    known = Slice(
        path,
        patient=str(header.get("PatientID") or "").strip(),
        study=str(header.get("StudyInstanceUID") or ""),
        series=str(header.get("SeriesInstanceUID") or ""),
        instance=str(header.get("SOPInstanceUID") or ""),
        frame_of_reference=str(header.get("FrameOfReferenceUID") or ""),
        modality=modality,
        scanner=str(header.get("ManufacturerModelName") or "").strip(),
        contrast=True if str(header.get("ContrastBolusAgent") or "").strip() else None,
    )
    if kind == DICOMDIR_CLASS:
        return [known._replace(left_out="DICOMDIR")]
    if not kind and not modality and "Rows" not in header:
        return [known._replace(fault="cut or damaged within its header (no image in it)")]
    if modality != "CT" or (kind and kind not in CT_CLASSES):
        name = modality if modality and modality != "CT" else _class_name(kind)
        return [known._replace(left_out=f"no CT image ({name})")]
    if "Rows" not in header:
        return [known._replace(fault="no pixels in it")]
    frames = _frames(header)
    images = []
    for number, groups in enumerate(frames):
        image = known._replace(frame=number, **_place(header, groups))
        images.append(image._replace(fault=image.fault or _place_fault(image)))
    pixels, fault = _pixels(header, meta, file, len(frames))
    return [_with_pixels(image, pixels, fault, header, frames[image.frame]) for image in images]


def _class_name(uid: str) -> str:
    from pydicom.uid import UID

    return UID(uid).name if uid else "of no class"


def _frames(header: Any) -> list[list[Any]]:
    """The groups of elements that describe each image of the file, the image's own before what all share."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        return [[header] for _ in range(int(header.get("NumberOfFrames") or 1))]
    shared = list(header.get("SharedFunctionalGroupsSequence") or ())
    return [[own, *shared] for own in header.PerFrameFunctionalGroupsSequence]


def _element(groups: Sequence[Any], name: str, within: str) -> Any:
    """An element of an image, by itself or within its functional group; None where there is none."""
    for group in groups:
        if group.get(name) not in (None, ""):
            return group.get(name)
        for macro in group.get(within) or ():
            if macro.get(name) not in (None, ""):
                return macro.get(name)
    return None


def _numbers(value: Any) -> tuple[float, ...]:
    return () if value is None else tuple(float(number) for number in value)


def _place(header: Any, groups: Sequence[Any]) -> dict[str, Any]:
    """Size, kind, position and phase of an image, as fields of `Slice`."""
    words = [str(word).strip().upper() for word in header.get("ImageType") or ()]
    words += [str(word).upper() for word in _element(groups, "FrameType", "CTImageFrameTypeSequence") or ()]
    kinds = [NOT_ORIGINAL[word] for word in words if word in NOT_ORIGINAL]
    phases = {
        "NominalPercentageOfCardiacPhase": _element(
            groups, "NominalPercentageOfCardiacPhase", "CardiacSynchronizationSequence"
        ),
        "TriggerTime": header.get("TriggerTime"),
        "NominalCardiacTriggerDelayTime": _element(
            groups, "NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence"
        ),
        "TemporalPosition": header.get("TemporalPositionIdentifier")
        or _element(groups, "TemporalPositionIndex", "FrameContentSequence"),
        "AcquisitionNumber": header.get("AcquisitionNumber"),
        "AcquisitionTime": header.get("AcquisitionTime")
        or _element(groups, "FrameAcquisitionDateTime", "FrameContentSequence"),
    }
    return {
        "left_out": kinds[0] if kinds else "",
        "rows": int(header.Rows),
        "columns": int(header.get("Columns") or 0),
        "position": _numbers(_element(groups, "ImagePositionPatient", "PlanePositionSequence")),
        "axes": _numbers(_element(groups, "ImageOrientationPatient", "PlaneOrientationSequence")),
        "spacing": _numbers(_element(groups, "PixelSpacing", "PixelMeasuresSequence")),
        "phases": {name: _plain(value) for name, value in phases.items() if value not in (None, "")},
    }


def _plain(value: Any) -> str:
    """`75.0` and `75` are one phase."""
    try:
        return f"{float(value):g}"
    except (TypeError, ValueError):
        return str(value)


def _place_fault(image: Slice) -> str:
    if image.left_out:
        return ""
    if len(image.position) != 3 or len(image.axes) != 6:
        return "no Image Position or Image Orientation (Patient), so its place is unknown"
    if len(image.spacing) != 2 or min(image.spacing) <= 0:
        return "no Pixel Spacing, so its size is unknown"
    if image.columns < 1 or image.rows < 1:
        return f"an image of {image.columns} x {image.rows} pixels"
    return ""


def _pixels(header: Any, meta: Any, file: BinaryIO, frames: int) -> tuple[Pixels | None, str]:
    """How the pixels of the file's first image are stored, without its rescale; or why they cannot be used."""
    syntax = str(meta.get("TransferSyntaxUID") or "1.2.840.10008.1.2")
    bits, stored = int(header.get("BitsAllocated") or 0), int(header.get("BitsStored") or 0)
    if (
        int(header.get("SamplesPerPixel") or 1) != 1
        or header.get("PhotometricInterpretation", "MONOCHROME2") != "MONOCHROME2"
    ):
        return None, f"{header.get('PhotometricInterpretation')} where a CT has MONOCHROME2"
    if bits not in (8, 16, 32) or not 0 < stored <= bits or int(header.get("HighBit", stored - 1)) != stored - 1:
        return None, f"{stored} of {bits} bits a pixel, which no CT has"
    order = NATIVE.get(syntax, "<")
    dtype = f"{order}{'i' if header.get('PixelRepresentation') else 'u'}{bits // 8}"
    size = int(header.Rows) * int(header.get("Columns") or 0) * bits // 8 * frames
    if syntax == DEFLATED:  # the whole data set is: where its pixels are is known after inflating
        return Pixels(dtype, stored, 1.0, 0.0, -1), ""
    offset, length, fault = _pixel_element(file, implicit=syntax == "1.2.840.10008.1.2", order=order)
    if fault or syntax not in NATIVE:
        return Pixels(dtype, stored, 1.0, 0.0, -1), fault
    there = file.seek(0, 2) - offset
    if length < size or there < size:
        return None, f"cut: {max(0, min(there, length))} of {size} bytes of pixels"
    return Pixels(dtype, stored, 1.0, 0.0, offset), ""


def _pixel_element(file: BinaryIO, *, implicit: bool, order: str) -> tuple[int, int, str]:
    """Where the pixels begin at which the header ended, how many bytes they say to have, and what is wrong with them."""
    head = file.read(12)
    if head[:4] not in _PIXELS:
        return 0, 0, "no pixels in it"
    (length,) = struct.unpack(f"{order}L", head[4:8] if implicit else head[8:12])
    offset = file.tell() - (4 if implicit else 0)
    if length != _OPEN_LENGTH:
        return offset, length, "" if length else "no pixels in it"
    end = file.seek(0, 2)
    place = file.seek(offset)
    fragments = -1  # the first item is the table of offsets
    while place + 8 <= end:
        file.seek(place)
        group, element, size = struct.unpack("<HHL", file.read(8))
        if (group, element) == (0xFFFE, 0xE0DD):
            return offset, length, "" if fragments > 0 else "no pixels in it"
        if (group, element) != (0xFFFE, 0xE000):
            break
        fragments += 1
        place += 8 + size
    return offset, length, f"cut: its compressed pixels end after {max(0, fragments)} parts without their end mark"


def _with_pixels(image: Slice, pixels: Pixels | None, fault: str, header: Any, groups: Sequence[Any]) -> Slice:
    """The image with its own rescale, and with its own place among the pixels of the file."""
    if image.left_out or image.fault:
        return image
    if fault or pixels is None:
        return image._replace(fault=fault)
    slope, intercept, kind = (
        _element(groups, name, "PixelValueTransformationSequence")
        for name in ("RescaleSlope", "RescaleIntercept", "RescaleType")
    )
    if slope is None or intercept is None or float(slope) == 0:
        return image._replace(fault="no rescale slope and intercept, so its values are not known in HU")
    if kind is not None and str(kind).strip().upper() not in ("HU", ""):
        return image._replace(fault=f"rescale type {str(kind).strip()!r} where a CT has HU")
    each = image.rows * image.columns * int(pixels.dtype[2:])
    offset = pixels.offset if pixels.offset < 0 else pixels.offset + image.frame * each
    own = pixels._replace(slope=float(slope), intercept=float(intercept), offset=offset)
    return image._replace(pixels=own)
