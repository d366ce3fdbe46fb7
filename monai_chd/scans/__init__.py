"""What of a folder is a scan, and how one is opened, whether a NIfTI file or a DICOM series."""

from monai_chd.scans.finding import find_inputs
from monai_chd.scans.opening import open_scan, read_scan

__all__ = ["find_inputs", "open_scan", "read_scan"]
