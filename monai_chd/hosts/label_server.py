"""Starts MONAI Label with this package's app, on this machine only unless told otherwise."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_chd.errors import UserError, UserFileError
from monai_chd.files import write_text
from monai_chd.workflow.settings import MODEL

LOOPBACK = "127.0.0.1"

MAIN = '''"""MONAI Label looks for its app here."""

from monai_chd.hosts.label_app import App as Base


class App(Base):
    """See monai_chd.hosts.label_app."""
'''


def server_command(scans: str | Path, out: str | Path, host: str, port: int) -> list[str]:
    """The command line that serves the model in `out` over a folder of scans; writes `out/label_app`.

    Raises:
        UserError: MONAI Label is not installed.
        UserFileError: no such folder, or no model.
    """
    if importlib.util.find_spec("monailabel") is None:
        raise UserError("MONAI Label is not installed here; docs/monai_label.md says how, in an environment of its own")
    scans, out = Path(scans).resolve(), Path(out).resolve()
    if not scans.is_dir():
        raise UserFileError(f"{scans}: no such folder of scans")
    if not (out / "models" / MODEL).is_file():
        raise UserFileError(f"{out / 'models' / MODEL}: no trained model; train one into this folder first")
    app = out / "label_app"
    write_text(app / "main.py", MAIN)
    return [
        *(sys.executable, "-m", "monailabel.main", "start_server"),
        *("--app", str(app), "--studies", str(scans), "--conf", "out", str(out)),
        *("--host", host, "--port", str(port)),
    ]


def serve(scans: str | Path, out: str | Path, host: str, port: int) -> None:
    """Become the server; returns only with an error."""
    command: Sequence[str] = server_command(scans, out, host, port)
    os.environ.setdefault("MONAI_LABEL_DATASTORE_FILE_EXT", '["*.nii.gz", "*.nii", "*.json"]')
    print(f"MONAI Label with the model in {out}: http://{host}:{port}\nresearch software, not a medical device")
    if host != LOOPBACK:
        print(f"anybody who reaches {host}:{port} can read every file that this user can: there is no password")
    sys.stdout.flush()
    os.execv(command[0], list(command))
