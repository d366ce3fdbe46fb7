"""Datasets of frames, and what is kept of them in memory or on disk."""
