"""Keeps what identifies patients apart from every output: a key, names made with it, and the list of who is who.

They lie in a folder of their own beside the output, for its owner's eyes only; outputs have the made names.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import hmac
import io
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_chd.dicom.series import Series, described
from monai_chd.dicom.volume import SeriesVolume
from monai_chd.errors import UserError, UserFileError
from monai_chd.files import TEXT, locked, replacing, sha256_of
from monai_chd.identity import patient_key

KEY = "key"
NAMES = "names.csv"
README = "README.txt"
SUFFIX = ".series.json"
"""End of the names of files that describe a series: its files, their places, and its geometry."""

FORMAT = "monai_chd DICOM series 1"
PATIENCE = 60.0
"""Seconds that a job waits for another that writes here: each writes for moments only."""

COLUMNS = ("name", "patient", "study", "series", "phase", "folder", "slices", "reason", "notes", "files_at_fault")

_README_TEXT = """What identifies patients, for monai_chd. Keep this folder; do not share it with outputs.

key          makes the names of patients and series in outputs; with another key they have other names
names.csv    who is who: the name in outputs, and the identifiers and folder of the DICOM files
*/*.series.json   where the files of each series lie, and their geometry
"""


def private_folder(out: str | Path) -> Path:
    """Where what identifies the patients of an output lies: beside it, never in it."""
    out = Path(os.path.abspath(out))
    return out.with_name(f"{out.name}.private")


def is_series_file(path: str | Path) -> bool:
    """Whether a path is that of a file that describes a series."""
    return str(path).endswith(SUFFIX)


class Pseudonyms:
    """Names for patients and series, the same for the same key: HMAC-SHA256, cut to 12 digits.

    Args:
        folder: with the key; made, with a new key, if need be, and readable by its owner only.

    Raises:
        UserError: the folder cannot be written to, or its key is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = _key_of(folder)

    def patient(self, identifier: str, study: str = "", place: str = "") -> str:
        """A patient's name; one without an identifier is named by the study, or the folder."""
        for kind, value in (("patient", patient_key(identifier)), ("study", study), ("folder", place)):
            if value:
                return f"{kind}-{self._digest(kind, value)}"
        raise ValueError("nothing to name a patient by")

    def series(self, *parts: str) -> str:
        """A series' name, by all that tells it from others."""
        return f"series-{self._digest('series', *parts)}"

    def _digest(self, *parts: str) -> str:
        text = "\0".join(parts).encode("utf-8", "surrogateescape")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:12]


def _key_of(folder: Path) -> bytes:
    path = folder / KEY
    _make_private(folder)
    with locked(folder, "making a key", PATIENCE):
        if not path.exists():
            with replacing(path) as temporary:
                _write_private(temporary, secrets.token_hex(32) + "\n")
            with replacing(folder / README) as temporary:
                _write_private(temporary, _README_TEXT)
    text = path.read_text("ascii", errors="replace").strip()
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise UserError(
            f"{path}: expected 64 hexadecimal digits; bring the key back, or remove it to have a new one made"
        )
    return bytes.fromhex(text)


def _make_private(folder: Path) -> None:
    """The folder, made for its owner only."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(
            f"{folder}: what identifies patients cannot be kept there ({error.strerror}); choose another --out"
        ) from None


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", newline="", **TEXT) as file:
        file.write(text)


def describe_series(found: Sequence[Series], names: Pseudonyms) -> dict[Path, Series]:
    """Write a file for each series, readable or refused, and the list of who is who.

    Returns:
        Series by the file that describes it; the file's place below the folder, `PATIENT/SERIES.series.json`, is its name.

    Raises:
        UserError: the folder cannot be written to.
    """
    written: dict[Path, Series] = {}
    rows: dict[str, Sequence[object]] = {}
    for series in found:
        first = series.slices[0]
        patient = names.patient(first.patient, first.study, str(series.folder))
        where = "" if first.series else str(series.folder)
        name = names.series(first.patient, first.study, first.series, where, series.phase)
        path = names.folder / patient / f"{name}{SUFFIX}"
        content: dict[str, Any] = {
            "format": FORMAT,
            "scanner": first.scanner,
            "contrast": first.contrast,
            "notes": series.notes,
        }
        content |= {"refused": series.refused} if series.refused else described(series)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with replacing(path, sync=False) as temporary:
            _write_private(temporary, json.dumps(content, indent=1) + "\n")
        written[path] = series
        own = path.relative_to(names.folder).as_posix()
        faulty = "; ".join(f"{file}: {fault}" for file, fault in series.faulty.items())
        row = (first.patient, first.study, first.series, series.phase, series.folder, len(series.slices))
        rows[own] = (own, *row, series.refused, "; ".join(series.notes), faulty)
    _add_names(names.folder, rows)
    return written


def _add_names(folder: Path, added: Mapping[str, Sequence[object]]) -> None:
    """Put rows into the list of who is who, beside or in place of those of earlier runs; several jobs may."""
    with locked(folder, "writing who is who", PATIENCE):
        rows: dict[str, Sequence[object]] = {row[0]: row for row in _known_rows(folder)} | dict(added)
        text = io.StringIO(newline="")
        csv.writer(text).writerows([COLUMNS, *(rows[name] for name in sorted(rows))])
        with replacing(folder / NAMES) as temporary:
            _write_private(temporary, text.getvalue())


def _known_rows(folder: Path) -> list[list[str]]:
    """Rows of the list as it is, of earlier runs."""
    path = folder / NAMES
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return [row for row in rows[1:] if len(row) == len(COLUMNS)]


def read_description(path: Path) -> Mapping[str, Any]:
    """What a series file says.

    Raises:
        UserFileError: no such file.
        UserError: none that this version wrote, or of a series that is refused: the reason.
    """
    if not path.is_file():
        raise UserFileError(f"{path}: no such file; run the command on the folder of DICOM files again")
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise KeyError(FORMAT)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a description of a DICOM series ({error}); run the command on the folder of DICOM files again"
        ) from None
    if refused := content.get("refused"):
        raise UserError(f"{path.parent.name}/{path.name}: {refused}")
    return content  # type: ignore[no-any-return]


def open_series_file(path: Path) -> SeriesVolume:
    """The volume that a series file describes.

    Raises:
        UserFileError, UserError: see `read_description` and `SeriesVolume`.
    """
    return SeriesVolume(Path(path.parent.name, path.name), read_description(path))


def series_digest(path: Path) -> str:
    """sha256 of a series' files in their order; the same wherever they lie.

    Raises:
        UserFileError, UserError: see `open_series_file`.
    """
    digest = hashlib.sha256()
    of_file = functools.cache(sha256_of)  # a file may hold many of the slices
    for one in open_series_file(path).slices:
        digest.update(f"{of_file(one['file'])} {one['frame']}\n".encode())
    return digest.hexdigest()
