"""Ignite handlers for what MONAI's do not do."""

from monai_chd.handlers.calibrator import Calibrator
from monai_chd.handlers.checkpoints import Checkpoints
from monai_chd.handlers.cost_estimate import CostEstimate
from monai_chd.handlers.dicom_reports import DicomReports
from monai_chd.handlers.epoch_seed import EpochSeed
from monai_chd.handlers.flag_opinions import FlagOpinions
from monai_chd.handlers.flag_targets import PrepareBatchWithFlags
from monai_chd.handlers.head_threads import HeadThreads
from monai_chd.handlers.label_maps import LabelMaps
from monai_chd.handlers.learning_curves import LearningCurves, probability_loss
from monai_chd.handlers.mistakes import BareMistakes
from monai_chd.handlers.predictions import Predictions
from monai_chd.handlers.stopped_by import StoppedBy
from monai_chd.handlers.structure_dice import DiceTable, StructureDice
from monai_chd.handlers.structure_doubts import StructureDoubts
from monai_chd.handlers.tracking import Tracked
from monai_chd.handlers.weights import Weights

__all__ = [
    "BareMistakes",
    "Calibrator",
    "Checkpoints",
    "CostEstimate",
    "DiceTable",
    "DicomReports",
    "EpochSeed",
    "FlagOpinions",
    "HeadThreads",
    "LabelMaps",
    "LearningCurves",
    "Predictions",
    "PrepareBatchWithFlags",
    "StoppedBy",
    "StructureDice",
    "StructureDoubts",
    "Tracked",
    "Weights",
    "probability_loss",
]
