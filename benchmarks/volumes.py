"""The scans that are measured: how large a run is, which files it needs, and how they are made.

What is done with them is the measures' part.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.child import Side

ROOT = Path(__file__).resolve().parent.parent
REAL_SCAN = ROOT / "tests" / "data" / "ts_cardiac_ct_b.nii.gz"
STORED_OFFSET = -1024.0
"""HU = stored value + this, in the phantom as in ImageCHD. Ours finds it; the others are told."""

PATIENTS = 110
"""As many as ImageCHD has."""

TINY = (64, 12)
"""In-plane size and slices of the volume that only warms imports."""

VERSION = 1
"""In the names of the files: to be raised when they are made in another way."""


class Scale(NamedTuple):
    """How large the volumes of a run are.

    Attributes:
        slices, length: slices of a volume, and frames of the sequence made of it, in the proportion of ImageCHD.
        growing: slices of the volumes whose memory is compared.
        volumes: how many different volumes an epoch of the caches reads.
        pixels: in-plane size of a volume.
        embedded: patients whose scans are embedded: one, or with --full all.
    """

    slices: int
    length: int
    growing: tuple[int, int, int]
    volumes: int
    pixels: int = 512
    embedded: int = 1

    def grid(self, slices: int) -> str:
        """Voxels of a volume, in words."""
        return f"{self.pixels}x{self.pixels}x{slices}"


FULL = Scale(250, 200, (150, 350, 700), 4)
QUICK = Scale(120, 96, (72, 168, 336), 1)


class Volumes(NamedTuple):
    """The files of a run, by their paths; `make` makes them."""

    folder: Path
    scale: Scale

    @property
    def tiny(self) -> str:
        """What a side goes through first, so that all is imported."""
        return str(self.folder / f"tiny_v{VERSION}.nii.gz")

    @property
    def several(self) -> list[str]:
        """Volumes that differ; every run makes them."""
        return [self.phantom(self.scale.slices, seed) for seed in range(self.scale.volumes)]

    def phantom(self, slices: int, seed: int = 0) -> str:
        """A volume of so many slices."""
        return str(self.folder / f"phantom_{self.scale.grid(slices)}_{seed}_v{VERSION}.nii.gz")

    def small(self, number: int) -> list[str]:
        """Scans of as many slices as real ones have, and few voxels: for features of the right shape."""
        return [str(self.folder / f"small_{index}_v{VERSION}.nii.gz") for index in range(number)]

    @property
    def copies(self) -> list[str]:
        """One file for each patient that is embedded, of different bytes and few different voxels."""
        return [str(self.folder / "copies" / f"{index}.nii.gz") for index in range(self.scale.embedded)]


def side(folder: str, scale: Sequence[Any], phantoms: Sequence[tuple[int, int]], small: int) -> Side:
    """Makes the volumes that are not there yet; nothing is timed.

    Args:
        folder, scale: see `Volumes`.
        phantoms, small: see `comparison.Bench`.
    """
    made = Volumes(Path(folder), Scale(*scale))
    return Side(lambda: None, lambda: None, lambda: make(made, phantoms, small))


def make(made: Volumes, phantoms: Iterable[tuple[int, int]], small: int) -> None:
    """Make the volumes that every run needs and the ones named, where they are not there yet."""
    own = [(made.scale.slices, seed) for seed in range(made.scale.volumes)]
    _make_phantoms(made, dict.fromkeys([*own, *((slices, seed) for slices, seed in phantoms)]))
    _make_tiny(made)
    for index, path in enumerate(made.small(small)):
        if not Path(path).exists():
            make_small(path, index)
    if made.scale.embedded > 1:
        make_copies(made)


def _make_phantoms(made: Volumes, wanted: Iterable[tuple[int, int]]) -> None:
    import numpy as np

    from monai_chd.phantom.cohort import nifti, write_file
    from monai_chd.phantom.volume import make_volume

    scale = made.scale
    missing = [(slices, seed) for slices, seed in wanted if not Path(made.phantom(slices, seed)).exists()]
    for seed in sorted({seed for _, seed in missing}):
        flags = (["VSD"], ["ToF"], [], ["ASD"])[seed % 4]
        both = (scale.slices, scale.slices)
        image, _, _ = make_volume(flags, seed=(1, seed), size=scale.pixels, slices=both, difficulty="realistic")
        for slices, own in missing:
            if own == seed:  # a longer one repeats the slices
                write_file(Path(made.phantom(slices, seed)), nifti(image[:, :, np.arange(slices) % scale.slices]))


def _make_tiny(made: Volumes) -> None:
    from monai_chd.phantom.cohort import nifti, write_file
    from monai_chd.phantom.volume import make_volume

    if not Path(made.tiny).exists():
        size, slices = TINY
        image, _, _ = make_volume([], seed=(1, 0), size=size, slices=(slices, slices))
        write_file(Path(made.tiny), nifti(image))


def make_small(path: str, index: int) -> None:
    """A scan of noise, 32 x 32 x 150 to 250."""
    import numpy as np

    from monai_chd.phantom.cohort import nifti, write_file

    rng = np.random.default_rng(index)
    slices = int(rng.integers(150, 251))
    noise = rng.normal(900, 300, (32, 32, slices))
    write_file(Path(path), nifti(np.clip(noise, 0, 4095).astype(np.int16)))


def make_copies(made: Volumes) -> None:
    """Copies of the several volumes, one by one: the time in gzip's header, which counts for the digest only, differs."""
    several = made.several
    for index, path in enumerate(map(Path, made.copies)):
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            passing = path.with_name(f".{path.name}")
            shutil.copyfile(several[index % len(several)], passing)
            with passing.open("r+b") as file:
                file.seek(4)
                file.write(index.to_bytes(4, "little"))
            os.replace(passing, path)
