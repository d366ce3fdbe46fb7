"""MONAI transforms from a NIfTI file to a padded sequence of frames: all in one pass, and the single steps."""

from monai_chd.transforms.frame_stacks import RandFrameStacksd
from monai_chd.transforms.heart_crop import HeartCropd
from monai_chd.transforms.intensity import QuantizeFrames, QuantizeFramesd, WindowHU, WindowHUd
from monai_chd.transforms.label_frames import LoadLabelFrames, LoadLabelFramesd
from monai_chd.transforms.load_frames import LoadFrames, LoadFramesd
from monai_chd.transforms.load_volume import LoadVolume, LoadVolumed
from monai_chd.transforms.padding import PadFrames, PadFramesd
from monai_chd.transforms.resizing import ResizeFrames, ResizeFramesd
from monai_chd.transforms.slicing import SliceToFrame, SliceToFramed

__all__ = [
    "HeartCropd",
    "LoadFrames",
    "LoadFramesd",
    "LoadLabelFrames",
    "LoadLabelFramesd",
    "LoadVolume",
    "LoadVolumed",
    "PadFrames",
    "PadFramesd",
    "QuantizeFrames",
    "QuantizeFramesd",
    "RandFrameStacksd",
    "ResizeFrames",
    "ResizeFramesd",
    "SliceToFrame",
    "SliceToFramed",
    "WindowHU",
    "WindowHUd",
]
