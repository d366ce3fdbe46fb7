"""Damaged headers and streams by the thousand: only our errors, each with the file's name, in little time and memory.

`MONAI_CHD_FUZZ_READS=100000 pytest tests/test_nifti_fuzz.py -m "not slow"` reads as many files as that.
"""

import gc
import gzip
import logging
import os
import struct
import time
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from monai_chd.errors import UserError
from monai_chd.nifti import check_file, read_volume
from monai_chd.streaming import StoredVolume

READS = int(os.environ.get("MONAI_CHD_FUZZ_READS", "2000"))
SECONDS = 1.0
"""Most processor time, of all threads together, that one read may take."""

MEMORY = 16 << 20
"""Most bytes that one read may take; no file here can hold more than 4 MB of voxels, which may become float64."""

EXTREMES = {
    "b": (0, 1, -1, 127, -128),
    "h": (0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 64, 256, 512, 1024, 1536, 2048, 2304, 32767, -32768),
    "i": (0, 1, -1, 8, 348, 540, 2**31 - 1, -(2**31), 2**31 - 16),
    "q": (0, 1, -1, 544, 2**31, 2**62, 2**63 - 1, -(2**63)),
    "f": (0, 1, -1, 88, 351, 352, 352.5, 368, 1e6, 1e30, -1e30, 1e-40, np.nan, np.inf, -np.inf),
    "d": (0, 1, -1, 1e300, -1e300, 1e-310, np.nan, np.inf, -np.inf),
}
FIELDS = {  # where numbers stand in a header, and of what kind they are
    348: {
        **dict.fromkeys((0, 140, 144, 352, 356), "i"),
        **dict.fromkeys((*range(40, 56, 2), 68, 70, 72, 74, 252, 254), "h"),
        **dict.fromkeys((*range(76, 120, 4), *range(256, 328, 4)), "f"),
        **dict.fromkeys((123, 344, 345, 346, 347, 348), "b"),
    },
    540: {
        **dict.fromkeys((0, 344, 348, 500, 544, 548), "i"),
        **dict.fromkeys((12, 14), "h"),
        **dict.fromkeys((*range(16, 80, 8), 168), "q"),
        **dict.fromkeys((*range(80, 136, 8), 136, 144, 176, 184, *range(352, 496, 8)), "d"),
        **dict.fromkeys((4, 5, 6, 7, 540), "b"),
    },
}


def seeds(folder):
    """Sound files, uncompressed, each of another kind."""
    rng = np.random.default_rng(5)
    voxels = rng.integers(-1000, 2000, (6, 7, 8)).astype(np.int16)
    images = [
        nib.Nifti1Image(voxels, np.eye(4)),
        nib.Nifti1Image(voxels.astype(np.float32), np.eye(4)),
        nib.Nifti1Image(np.stack([voxels, voxels + 1], -1).astype(np.uint8), np.eye(4)),
        nib.Nifti1Image(voxels.astype(">i2"), np.eye(4), nib.Nifti1Header(endianness=">")),
        nib.Nifti1Image(voxels[:, :, 0], np.eye(4)),
        nib.Nifti2Image(voxels.astype(np.float64), np.eye(4)),
    ]
    scaled, extended = nib.Nifti1Image(voxels, np.eye(4)), nib.Nifti1Image(voxels, np.eye(4))
    scaled.header.set_slope_inter(2.5, -1024)
    extended.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"what a scanner adds"))
    for number, image in enumerate([*images, scaled, extended]):
        image.to_filename(folder / f"{number}.nii")
        yield (folder / f"{number}.nii").read_bytes()


def damage_header(rng, content):
    """Write extremes, or any bytes at all, into one to four places of a header."""
    big = content[0] == 0
    fields = FIELDS[struct.unpack(">i" if big else "<i", content[:4])[0]]
    damaged = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        position = int(rng.choice(list(fields)))
        kind = fields[position]
        number = struct.pack(
            ("<", ">")[big ^ (rng.random() < 0.1)] + kind, EXTREMES[kind][rng.integers(len(EXTREMES[kind]))]
        )
        damaged[position : position + len(number)] = number if rng.random() < 0.8 else rng.bytes(len(number))
    return bytes(damaged)


def damage_bytes(rng, content):
    """Cut, flip, repeat, insert or take out bytes anywhere."""
    start, end = sorted(int(place) for place in rng.integers(0, len(content), 2))
    kind = rng.integers(5)
    if kind == 0:
        return content[:end]
    if kind == 1:
        flipped = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            flipped[place] ^= 1 << int(rng.integers(8))
        return bytes(flipped)
    if kind == 2:
        return content[:end] + content[start:]
    if kind == 3:
        return content[:start] + rng.bytes(int(rng.integers(1, 40))) + content[start:]
    return content[:start] + content[end:]


def packed(rng, content):
    """A gzip of one member or two, at any level, sometimes with zeros or rubbish behind it, or once more compressed."""
    level = int(rng.choice([0, 1, 9]))
    cut = int(rng.integers(0, len(content))) if rng.random() < 0.2 else 0
    parts = [content[:cut], content[cut:]] if cut else [content]
    stream = b"".join(gzip.compress(part, level) for part in parts)
    tail = rng.random()
    if tail < 0.05:
        return stream + bytes(100)
    if tail < 0.1:
        return stream + rng.bytes(20)
    return gzip.compress(stream) if tail < 0.12 else stream


def fuzzed(rng, sound):
    """One damaged file, as name and bytes; now and then a sound one."""
    content = sound[rng.integers(len(sound))]
    if rng.random() < 0.75:
        content = damage_header(rng, content)
    if rng.random() < 0.25:
        content = damage_bytes(rng, content)
    if rng.random() < 0.5:
        return "scan.nii", content
    content = packed(rng, content)
    return "scan.nii.gz", damage_bytes(rng, content) if rng.random() < 0.25 else content


def stream_whole(path):
    StoredVolume(path).read_whole()


def stream_slabs(path):
    stored = StoredVolume(path)
    for _, values in stored.slabs():
        stored.scaled(values)


def read_all(folder, seed, reads, readers):
    """Read damaged files one after the other; how many were refused, most seconds, most bytes and bytes left over."""
    rng = np.random.default_rng(seed)
    sound = list(seeds(folder))
    refused, slowest, most = 0, 0.0, 0
    tracemalloc.start()
    try:
        for number in range(reads):
            name, content = fuzzed(rng, sound)
            path = folder / name
            path.write_bytes(content)
            if number == reads // 10:
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            held, began = tracemalloc.get_traced_memory()[0], time.process_time()
            try:
                readers[number % len(readers)](path)
            except UserError as error:
                refused += 1
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error), (seed, number, str(error))
            except BaseException as error:
                error.add_note(f"file {number} of seed {seed}")
                raise
            slowest = max(slowest, time.process_time() - began)
            most = max(most, tracemalloc.get_traced_memory()[1] - held)
            path.unlink()
        gc.collect()
        return refused, slowest, most, tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def check(folder, seed, reads, *readers, kept=1 << 20):
    refused, slowest, most, left = read_all(folder, seed, reads, readers)
    assert 0.3 * reads < refused < 0.97 * reads, "damage is of every kind, and some does no harm"
    assert slowest < SECONDS
    assert most < MEMORY
    assert left < kept, "memory stays flat"


pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def read_with_itk(path):
    read_volume(path, "itk")


@pytest.fixture(autouse=True)
def no_log(monkeypatch):
    """pytest keeps what nibabel says of each header."""
    monkeypatch.setattr(logging.getLogger("nibabel.global"), "disabled", True)


def test_damaged_files_give_only_our_errors_quickly_and_in_little_memory(tmp_path):
    check(tmp_path, 12, READS, read_volume, stream_slabs, stream_whole, check_file)


@pytest.mark.slow
@pytest.mark.usefixtures("itk_loaded")
def test_more_damaged_files_and_itk_give_only_our_errors(tmp_path):
    reads = 3 * READS
    # 0.1 KB a file stay behind ITK, and up to 1 KB where coverage is measured
    kept = (1 << 20) + reads // 4 * 2048
    check(tmp_path, 13, reads, read_volume, read_with_itk, stream_slabs, stream_whole, kept=kept)
