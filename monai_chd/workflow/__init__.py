"""Runs the MONAI bundle in this process, and keeps what a model was trained with beside its weights."""

from monai_chd.workflow.begin import (
    begin_evaluation,
    begin_inference,
    begin_structures,
    begin_training,
    end_training,
    set_seed,
)
from monai_chd.workflow.flags import class_by_flags, flag_weights, note_learned_flags
from monai_chd.workflow.settings import default_of_training, find_checkpoint, structure_settings, trained_with
from monai_chd.workflow.structures import find_structures, standardize, trained_structures, with_structures

__all__ = [
    "begin_evaluation",
    "begin_inference",
    "begin_structures",
    "begin_training",
    "class_by_flags",
    "default_of_training",
    "end_training",
    "find_checkpoint",
    "find_structures",
    "flag_weights",
    "note_learned_flags",
    "set_seed",
    "standardize",
    "structure_settings",
    "trained_structures",
    "trained_with",
    "with_structures",
]
