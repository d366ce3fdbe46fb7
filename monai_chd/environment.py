"""What a program of this package needs of the process it runs in: threads, pictures, and streams that take any character.

A program is `monai-chd` or `python -m monai.bundle`; where the package is a library, nothing of the process is touched.
"""

from __future__ import annotations

import io
import logging
import os
import sys

from monai_chd.errors import is_bundle_program

UNLESS_TOLD = {"OMP_WAIT_POLICY": "passive", "THP_MEM_ALLOC_ENABLE": "1"}
"""What torch and its OpenMP are told before they load, unless the user's environment says otherwise: threads that wait without
spinning, many times faster on a busy machine; large pages for large tensors, half of the time to make float32 of a case."""

SILENT = {"MLFLOW_DISABLE_TELEMETRY": "true"}
"""The same for what would tell others of a run: MLflow does where it is installed, and MONAI loads it unasked."""

ALWAYS = {"MPLBACKEND": "agg"}
"""Pictures go to files only. A notebook hands its own backend down to all it starts, other environments included, and Matplotlib
refuses to load with one that is not installed."""


def prepare_process() -> None:
    """Set the variables above, and let an output stream escape what its encoding lacks instead of failing.

    What cannot be logged, since whoever read it has gone (`| head`), ends no training and prints no traceback.

    What is heavy has to be imported after it.
    """
    for name, value in (UNLESS_TOLD | SILENT).items():
        os.environ.setdefault(name, value)
    os.environ.update(ALWAYS)
    logging.raiseExceptions = False
    _let_streams_escape()


def prepare_bundle_program() -> None:
    """Let streams escape in `python -m monai.bundle` too, which has nobody else to do it, and say once how to set the variables.

    MONAI has loaded torch and Matplotlib already.
    """
    if is_bundle_program():
        _let_streams_escape()
        if missing := [f"{name}={value}" for name, value in UNLESS_TOLD.items() if name not in os.environ]:
            print(
                f"much faster on most machines: {' '.join(missing)} in the environment of this command", file=sys.stderr
            )


def _let_streams_escape() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
