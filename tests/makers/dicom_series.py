"""Writes DICOM series of CT with every trait that real ones have, good and bad."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from monai_chd.hu_offset import detect_hu_offset
from monai_chd.nifti import read_volume

CT = UID("1.2.840.10008.5.1.4.1.1.2")
ENHANCED_CT = UID("1.2.840.10008.5.1.4.1.1.2.1")
NAME, ID, BIRTH, ACCESSION = "Zebedee^Quentin", "MRN-778812", "20190403", "ACC-55121"
UIDS = "1.2.826.0.1.3680043"
IDENTIFYING = ("Zebedee", "Quentin", "778812", "20190403", "55121", "St. Example", "Dr. Foxglove", "20211231", UIDS)
"""What must stand in no output: values of the headers that these series have, and the root of all their identifiers."""

ENCODERS = {RLELossless: "", JPEG2000Lossless: "pylibjpeg", JPEG2000: "pylibjpeg", JPEGLSLossless: "pyjpegls"}

LOSSY = {JPEG2000: {"j2k_cr": [4]}}

Change = Callable[[Dataset, int], "Dataset | None"]
"""Changes the data set of a slice, given its number from the feet; None leaves the slice out."""


def hu_volume(shape: tuple[int, int, int] = (12, 40, 36), seed: int = 0) -> np.ndarray:
    """HU (Z, Y, X) with air, lung, soft tissue, contrast, and no symmetry."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    values = np.where((y - 20) ** 2 + (x - 15) ** 2 < 200, 40, -900) + rng.integers(-30, 30, shape)
    values[(z > 4) & (abs(y - 24) < 5) & (abs(x - 12) < 4)] += 300
    return values.astype(np.int16)


def header(patient: str = ID, study: str | None = None, series: str | None = None) -> Dataset:
    """What all slices of a series share, identifying fields among it."""
    ds = Dataset()
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = NAME, patient, BIRTH, "F"
    ds.AccessionNumber, ds.InstitutionName, ds.ReferringPhysicianName = ACCESSION, "St. Example", "Dr. Foxglove"
    ds.StudyDate, ds.SeriesDate, ds.StudyTime, ds.StudyID = "20211231", "20211231", "101112", "1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study or generate_uid(), series or generate_uid()
    ds.FrameOfReferenceUID = generate_uid()
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CT", "Maker", "Model 7"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesNumber, ds.KVP, ds.AcquisitionNumber = 3, 100, 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    return ds


def write_series(
    folder: Path,
    values: np.ndarray | None = None,
    *,
    shared: Dataset | None = None,
    spacing: tuple[float, float, float] = (0.8, 0.7, 1.5),
    origin: Sequence[float] = (-100.0, -80.0, -300.0),
    axes: Sequence[float] = (1, 0, 0, 0, 1, 0),
    shear: Sequence[float] = (0, 0, 0),
    change: Change | None = None,
    syntax: UID = ExplicitVRLittleEndian,
    names: Callable[[int], str] = lambda index: f"I{(index * 7919) % 1000:04d}",
) -> list[Path]:
    """Write one file a slice, in no order of its names; the paths in order from the feet.

    Args:
        folder: made if need be.
        values: HU (Z, Y, X).
        shared: see `header`.
        spacing: mm along Z, between rows, between columns.
        origin: position of the first pixel of the first slice.
        axes: Image Orientation (Patient).
        shear: mm added to the position for every slice, as a tilted gantry does.
        change: see `Change`.
        syntax: transfer syntax to store the pixels in.
        names: of the files.
    """
    values = hu_volume() if values is None else values
    shared = shared or header()
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(axes[:3], axes[3:])
    paths = []
    for index, frame in enumerate(values):
        ds = copy.deepcopy(shared)
        ds.SOPClassUID, ds.SOPInstanceUID, ds.InstanceNumber = CT, generate_uid(), 500 - index
        ds.Rows, ds.Columns = frame.shape
        ds.PixelSpacing, ds.SliceThickness = [spacing[1], spacing[2]], spacing[0]
        ds.ImagePositionPatient = [float(v) for v in np.array(origin) + index * (spacing[0] * normal + np.array(shear))]
        ds.ImageOrientationPatient = list(axes)
        ds.PixelData = (frame.astype(np.int32) + 1024).clip(0, 4095).astype("<u2").tobytes()
        ds["PixelData"].VR = "OW"
        changed = ds if change is None else change(ds, index)
        if changed is not None:
            paths.append(save(changed, folder / names(index), syntax))
    return paths


def save(ds: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> Path:
    """Write a data set as a file, its pixels compressed where the syntax asks for it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax.is_encapsulated else syntax
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        ds.file_meta = meta
        pydicom.dcmwrite(path, ds, enforce_file_format=True, implicit_vr=False, little_endian=False)
        return path
    file = FileDataset(str(path), ds, file_meta=meta, preamble=b"\0" * 128)
    if syntax == JPEGLosslessSV1:
        meta.TransferSyntaxUID = syntax
        pixels = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
        file.PixelData = encapsulate([jpeg_lossless(pixels)])
        file["PixelData"].VR, file["PixelData"].is_undefined_length = "OB", True
    elif syntax.is_encapsulated:
        file.compress(syntax, encoding_plugin=ENCODERS[syntax], **LOSSY.get(syntax, {}), generate_instance_uid=False)
    file.save_as(path, enforce_file_format=True)
    return path


def jpeg_lossless(frame: np.ndarray, bits: int = 12) -> bytes:
    """An image as JPEG Lossless, Process 14, Selection Value 1 (ITU-T T.81, annex H), with a code of 5 bits for each category."""
    values = frame.astype(np.int32)
    ahead = np.empty_like(values)
    ahead[:, 1:] = values[:, :-1]
    ahead[1:, 0] = values[:-1, 0]
    ahead[0, 0] = 1 << (bits - 1)
    text = []
    for difference in (values - ahead).ravel().tolist():
        size = abs(difference).bit_length()
        text.append(f"{size:05b}")
        if size:
            text.append(f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}")
    stream = "".join(text)
    stream += "1" * (-len(stream) % 8)
    packed = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\0")
    table = bytes([0, 0, 0, 0, 0, 17] + [0] * 11) + bytes(
        range(17)
    )  # class and number, codes of each length, categories
    rows, columns = frame.shape
    parts = (
        (0xC3, bytes([bits, *rows.to_bytes(2, "big"), *columns.to_bytes(2, "big"), 1, 1, 0x11, 0])),
        (0xC4, table),
        (0xDA, bytes([1, 1, 0, 1, 0, 0])),
    )
    marked = b"".join(bytes([0xFF, mark]) + (len(data) + 2).to_bytes(2, "big") + data for mark, data in parts)
    return b"\xff\xd8" + marked + packed + b"\xff\xd9"


def write_as_dicom(scan: Path, folder: Path, patient: str, **settings: object) -> list[Path]:
    """Write a NIfTI scan of 3 dimensions as a DICOM series of the same HU, axial, of a patient with this id."""
    volume = read_volume(scan)
    offset = detect_hu_offset(volume.values, scan)
    image = nib.as_closest_canonical(nib.Nifti1Image(volume.values.astype(np.int32), volume.affine))
    hu = np.asarray(image.dataobj)[::-1, ::-1].transpose(2, 1, 0) + int(offset)  # towards left, posterior, head
    x, y, z = map(float, image.header.get_zooms()[:3])
    shared = header(patient)
    shared.PixelRepresentation, shared.BitsStored, shared.HighBit, shared.RescaleIntercept = 1, 16, 15, 0
    corner = image.affine @ [hu.shape[2] - 1, hu.shape[1] - 1, 0, 1]
    origin = (-corner[0], -corner[1], corner[2])

    def signed(ds: Dataset, index: int) -> Dataset:
        ds.PixelData = hu[index].astype("<i2").tobytes()
        return ds

    return write_series(folder, hu, shared=shared, spacing=(z, y, x), origin=origin, change=signed, **settings)


def write_enhanced(
    path: Path,
    values: np.ndarray | None = None,
    *,
    order: Sequence[int] | None = None,
    shared: Dataset | None = None,
    syntax: UID = ExplicitVRLittleEndian,
) -> Path:
    """Write an Enhanced CT of one file with all slices, in any order within it."""
    values = hu_volume() if values is None else values
    order = list(range(len(values))) if order is None else list(order)
    ds = shared or header()
    for name in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        del ds[name]
    ds.SOPClassUID, ds.SOPInstanceUID, ds.InstanceNumber = ENHANCED_CT, generate_uid(), 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.Rows, ds.Columns = values.shape[1:]
    ds.NumberOfFrames = len(values)
    measures, orientation, rescale = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.8], 1.5
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024, "HU"
    shared_groups = Dataset()
    shared_groups.PixelMeasuresSequence = Items([measures])
    shared_groups.PlaneOrientationSequence = Items([orientation])
    shared_groups.PixelValueTransformationSequence = Items([rescale])
    ds.SharedFunctionalGroupsSequence = Items([shared_groups])
    frames = []
    for index in order:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [-100.0, -80.0, -300.0 + 1.5 * index]
        group.PlanePositionSequence = Items([position])
        frames.append(group)
    ds.PerFrameFunctionalGroupsSequence = Items(frames)
    ds.PixelData = (values[order].astype(np.int32) + 1024).clip(0, 4095).astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(ds, path, syntax)


def affine_of(
    spacing: tuple[float, float, float] = (0.8, 0.7, 1.5), origin: Sequence[float] = (-100.0, -80.0, -300.0)
) -> np.ndarray:
    """Voxel index (X, Y, Z) to RAS of what `write_series` writes by default."""
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    affine[:3, 3] = [-origin[0], -origin[1], origin[2]]
    return affine
