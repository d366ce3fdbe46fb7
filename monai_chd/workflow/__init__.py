"""Runs the MONAI bundle in this process, and keeps what a model was trained with beside its weights."""

from monai_chd.workflow.begin import begin_evaluation, begin_inference, begin_training, end_training
from monai_chd.workflow.settings import find_checkpoint, trained_with

__all__ = [
    "begin_evaluation",
    "begin_inference",
    "begin_training",
    "end_training",
    "find_checkpoint",
    "trained_with",
]
