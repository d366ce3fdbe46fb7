"""Runs the MONAI bundle in this process, and keeps what a model was trained with beside its weights."""
