"""Classification of congenital heart disease from cardiac CT read as sequences of frames, on MONAI."""

import sys

if sys.platform == "win32":
    raise ImportError("monai_chd runs on Linux and macOS; on Windows, run it in WSL 2 (Windows Subsystem for Linux)")

from monai_chd.environment import prepare_bundle_program

__version__ = "0.1.0"

prepare_bundle_program()
