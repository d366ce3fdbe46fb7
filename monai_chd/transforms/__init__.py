"""MONAI transforms from a NIfTI file to a padded sequence of frames: all in one pass, and the single steps."""

from monai_chd.transforms.load import LoadFrames, LoadFramesd
from monai_chd.transforms.steps import (
    LoadVolume,
    LoadVolumed,
    PadFrames,
    PadFramesd,
    QuantizeFrames,
    QuantizeFramesd,
    ResizeFrames,
    ResizeFramesd,
    SliceToFrame,
    SliceToFramed,
    WindowHU,
    WindowHUd,
)

__all__ = [
    "LoadFrames",
    "LoadFramesd",
    "LoadVolume",
    "LoadVolumed",
    "PadFrames",
    "PadFramesd",
    "QuantizeFrames",
    "QuantizeFramesd",
    "ResizeFrames",
    "ResizeFramesd",
    "SliceToFrame",
    "SliceToFramed",
    "WindowHU",
    "WindowHUd",
]
