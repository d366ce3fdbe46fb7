"""Which software made a file: the versions that its numbers depend on.

Owns the list of packages; who writes it where is the writers' part.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from monai_chd import __version__

DECISIVE = ("monai", "torch", "numpy", "scikit-learn")
"""Distributions besides this one whose version may change a number."""


def software_versions() -> dict[str, str]:
    """Versions of what decides the numbers, by distribution name; none of it is imported for this."""
    others = {name: _version(name) for name in DECISIVE}
    return {"monai_chd": __version__, **others, "python": platform.python_version()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # monai-weekly is monai under another name; no reason to lose an evaluation
        return "unknown"
