"""Gets from what a researcher downloaded (a split ZIP, outer ZIPs around its volumes, one ZIP or RAR) to a folder of scans.

Owns which of the files at hand is meant. How a ZIP or RAR is read is `split_zip`'s and `rar`'s part, what of it is written
`members`'; which scan belongs to which patient is `cohort`'s.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

from rarfile import is_rarfile
from tqdm import tqdm

from monai_chd.archives.members import STATE, Archive, choose_target, common_folder, load_state, unpack_members
from monai_chd.archives.rar import is_later_part, open_rar
from monai_chd.archives.split_zip import open_zip
from monai_chd.archives.zip_volumes import (
    ZipVolume,
    check_last,
    complete_set,
    is_one_of_many,
    is_volume_name,
    volumes_in,
)
from monai_chd.dicom.slices import is_dicom
from monai_chd.errors import UserError, UserFileError
from monai_chd.folders import contents
from monai_chd.nifti import is_nifti
from monai_chd.wording import some_of

logger = logging.getLogger(__name__)


def unpack(source: str | Path, extract_to: str | Path | None = None, *, progress: bool = True) -> Path:
    """Find the folder of scans in a download, unpacking it first where it is an archive.

    Logs where the scans are. Unpacking again goes on where it stopped.

    Args:
        source: a folder with NIfTI files in it or below it (returned as it is; archives beside them are left alone); a folder
            with the volumes of a split ZIP (`NAME.z01` … and `NAME.zip` or `NAME.change2zip`), each as it is or in an outer ZIP;
            a ZIP of these volumes or of NIfTI files; one volume of a set; a `.rar`.
        extract_to: folder to unpack to, made if need be; not inside `source`.
        progress: show a bar, in bytes.

    Returns:
        The folder with the scans: `source`, or the folder below `extract_to` in which all unpacked files lie.

    Raises:
        UserFileError: no scan and no archive; a volume is missing; no tool for a `.rar`.
        UserError: archive and no `extract_to`; a volume of the wrong size; unsafe, encrypted, repeated or damaged members;
            too little disk; other files under names of the archive; scans of an unpacking that was interrupted.
    """
    folder, source = Path(source), Path(source).resolve()
    if not source.exists():
        raise UserFileError(f"{folder}: no such file or folder; name the downloaded archive or the folder of scans")
    files = _files(source)
    if source.is_dir() and any(is_nifti(path) for path in files):
        _refuse_half(source)
        aside = [path.name for path in files if _looks_packed(path)]
        also = f" (archives beside them are left alone: {some_of(aside)})" if aside else ""
        logger.info("scans: %s%s", folder, also)
        return folder
    if source.is_dir() and any(is_dicom(path) for path in files):
        return folder
    with ExitStack() as stack:
        archive = _open(source, files, stack)
        target = choose_target(source, extract_to, archive)
        skipped = unpack_members(archive, target, progress)
    total = tqdm.format_sizeof(sum(member.size for member in archive.members), "B")
    found = len(archive.members)
    logger.info(
        "scans: %s (%d files, %s; %d were there already)", target / common_folder(archive), found, total, skipped
    )
    return target / common_folder(archive)


def _files(source: Path) -> list[Path]:
    """The files and dead links below a folder; a file and, after it, what lies beside it."""
    if source.is_dir():
        below = contents(source)
        return sorted([*below.files, *below.dead])
    return [source, *sorted(path for path in source.parent.iterdir() if path.is_file() and path != source)]


def _looks_packed(path: Path) -> bool:
    return is_volume_name(path.name) or (path.suffix.lower() == ".rar" and not path.name.startswith("._"))


def _refuse_half(source: Path) -> None:
    """Refuse scans that an unpacking left unfinished, whether its folder, one above or one below is named."""
    for parent in (source, *source.parents):
        state = load_state(parent)
        inside = parent / str(state.get("folder", "."))
        if state and not state.get("complete") and (source.is_relative_to(inside) or inside.is_relative_to(source)):
            raise UserError(
                f"{source}: unpacking {state['archive']} did not end, so scans are missing here; run it again with the "
                f"archive and --extract-to {parent} (what is done is not done again), or remove {parent / STATE} to take "
                f"what is there"
            )


def _open(source: Path, files: list[Path], stack: ExitStack) -> Archive:
    """Find the one archive meant, and prove that it is whole and safe."""
    packed = [path for path in files if _looks_packed(path) or path == source]
    if source.is_file() and (is_rarfile(source) or not is_one_of_many(source)):
        packed = [source]
    rars = [path for path in packed if is_rarfile(path)]
    volumes = [volume for path in packed if path not in rars for volume in volumes_in(path)]
    sets: dict[str, dict[int, ZipVolume]] = {}
    # a volume may be there twice, as it is and in an outer ZIP: the plain file is taken
    for volume in sorted(volumes, key=lambda volume: volume.member is not None):
        sets.setdefault(volume.key[0], {}).setdefault(volume.key[1], volume)
    rars = [path for path in rars if not is_later_part(path)] or rars
    if source.is_file() and source not in rars:
        rars, sets = [], {name: found for name, found in sets.items() if name == volumes_in(source)[0].key[0]}
    if not rars and not sets:
        raise UserFileError(
            f"{source}: no scan (.nii.gz, .nii) and no archive of scans found; expected the volumes NAME.z01 … and "
            f"NAME.change2zip or NAME.zip, a .zip or a .rar; found {some_of([path.name for path in files]) or 'nothing'}"
        )
    if len(rars) + len(sets) > 1:
        for found in sets.values():
            check_last(found)  # an outer ZIP cut short passes for another archive
        names = [path.name for path in rars] + [f"{name}.*" for name in sets]
        raise UserError(f"{source}: {len(names)} archives ({some_of(names)}); name the file of the one to unpack")
    if rars:
        return open_rar(rars[0])
    name, found = sets.popitem()
    return open_zip(complete_set(source, name, found), stack)
