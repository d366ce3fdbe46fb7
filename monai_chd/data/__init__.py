"""Datasets of frames, and what is kept of them in memory or on disk."""

from monai_chd.data.dataset import FrameDataset, loader_workers

__all__ = ["FrameDataset", "loader_workers"]
