"""From predictions to figures with intervals; nothing of a study's files."""

from monai_chd.metrics.comparison import Comparison, compare_paired
from monai_chd.metrics.estimates import ClassEstimates, Estimate, Evaluation, evaluate
from monai_chd.metrics.evaluation import Results, evaluate_out_of_fold
from monai_chd.metrics.predictions import read_predictions, scored_cases, write_predictions
from monai_chd.metrics.tables import metrics_table, write_metrics
from monai_chd.metrics.verdict import Verdict
from monai_chd.metrics.wording import format_estimate

__all__ = [
    "ClassEstimates",
    "Comparison",
    "Estimate",
    "Evaluation",
    "Results",
    "Verdict",
    "compare_paired",
    "evaluate",
    "evaluate_out_of_fold",
    "format_estimate",
    "metrics_table",
    "read_predictions",
    "scored_cases",
    "write_metrics",
    "write_predictions",
]
