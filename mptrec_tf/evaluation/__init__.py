"""How good a model is, and how it works: exact metrics, comparisons, a report."""

from mptrec_tf.evaluation.batches import read_columns
from mptrec_tf.evaluation.calibration import Reliability, reliability
from mptrec_tf.evaluation.grouped import GroupedAUC, grouped_auc
from mptrec_tf.evaluation.insight import WeightsInUse, weights_in_use
from mptrec_tf.evaluation.metrics import Scored, evaluate, score
from mptrec_tf.evaluation.report import write_report
from mptrec_tf.evaluation.slices import metrics_by_slice
from mptrec_tf.evaluation.tables import results_table
from mptrec_tf.evaluation.two_stage import two_stage_results

__all__ = [
    "GroupedAUC",
    "Reliability",
    "Scored",
    "WeightsInUse",
    "evaluate",
    "grouped_auc",
    "metrics_by_slice",
    "read_columns",
    "reliability",
    "results_table",
    "score",
    "two_stage_results",
    "weights_in_use",
    "write_report",
]
