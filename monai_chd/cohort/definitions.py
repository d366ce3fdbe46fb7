"""Finds and checks the JSON files that define what a cohort means: rules (flags to classes) and layouts (where things stand).

The form of each kind is its schema, beside the files that come with the package, and stands nowhere else. What a file means is
`rules`' and `layouts`' part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from monai_chd.errors import UserError, UserFileError
from monai_chd.schemas import read_json, schema_faults, schema_of


@dataclass(frozen=True)
class Definitions:
    """A kind of definition.

    Attributes:
        kind: what to call one: "rule".
        folder: those that come with the package, usable by name, and `KIND.schema.json`.
    """

    kind: str
    folder: Path

    @property
    def names(self) -> list[str]:
        """Those that come with the package."""
        return sorted(path.stem for path in self.folder.glob("*.json") if path != self.schema_file)

    @property
    def schema_file(self) -> Path:
        """The form of a file."""
        return self.folder / f"{self.kind}.schema.json"

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The form of a file, as JSON schema (draft 7)."""
        return schema_of(self.schema_file)

    def find(self, name: str | Path) -> Path:
        """The file of one that comes with the package, or a user's own.

        Raises:
            UserFileError: neither.
        """
        path = self.folder / f"{name}.json" if str(name) in self.names else Path(name)
        if not path.is_file():
            raise UserFileError(
                f"{name}: no such {self.kind}; expected one of {', '.join(self.names)}, or a file like those in {self.folder}"
            )
        return path

    def read(self, path: Path, beyond: Callable[[dict[str, Any]], list[str]]) -> dict[str, Any]:
        """The content of a file.

        Args:
            path: of the file.
            beyond: finds what a schema cannot say, in the top-level keys that the schema finds right.

        Raises:
            UserError: not JSON, or wrong; all that is wrong is said at once.
        """
        mend = f". Its form: {self.schema_file}"
        content = read_json(path, f"a {self.kind}", mend)
        found = schema_faults(content, self.schema)
        faults = [fault.text for fault in found]
        if isinstance(content, dict):
            wrong = {fault.place[0] for fault in found if fault.place}
            faults += beyond({key: value for key, value in content.items() if key not in wrong})
        if faults:
            listed = "; ".join(dict.fromkeys(faults))
            raise UserError(f"{path}: not a {self.kind}: {listed}{mend}")
        return content  # type: ignore[no-any-return]
