"""Image-level and localisation metrics and thresholds: arrays in, figures out.

>>> from andon.evaluation import auroc
>>> auroc([0.1, 0.4, 0.8, 0.9], [False, False, True, True])
1.0
"""

from andon.evaluation.accumulator import LocalisationAccumulator
from andon.evaluation.averaging import AveragedRoc, averaged_roc, stacked_curves
from andon.evaluation.category import category_result
from andon.evaluation.image import (
    TNR_TARGETS,
    auroc,
    average_precision,
    best_f1,
    check_scores,
    image_metrics,
    operating_points,
    rates_at_threshold,
    roc_curve,
    threshold_for_tnr,
    tpr_at_tnr,
)
from andon.evaluation.localization import auspro, auspro_by_definition, evaluate_localisation, spro_curve
from andon.evaluation.placing import Interpolation, place_map
from andon.evaluation.proportion import Interval, check_confidence, clopper_pearson
from andon.evaluation.readings import tpr_at_nearest_tnr, trapezoidal_ap
from andon.evaluation.result import (
    CategoryResult,
    DefectTypeMetrics,
    Evaluation,
    EvaluationArrays,
    ImageMetrics,
    LocalisationMetrics,
    OperatingPoint,
)
from andon.evaluation.spro import FPR_LIMITS, LocalisationResult

__all__ = [
    "FPR_LIMITS",
    "TNR_TARGETS",
    "AveragedRoc",
    "CategoryResult",
    "DefectTypeMetrics",
    "Evaluation",
    "EvaluationArrays",
    "ImageMetrics",
    "Interpolation",
    "Interval",
    "LocalisationAccumulator",
    "LocalisationMetrics",
    "LocalisationResult",
    "OperatingPoint",
    "auroc",
    "auspro",
    "auspro_by_definition",
    "average_precision",
    "averaged_roc",
    "best_f1",
    "category_result",
    "check_confidence",
    "check_scores",
    "clopper_pearson",
    "evaluate_localisation",
    "image_metrics",
    "operating_points",
    "place_map",
    "rates_at_threshold",
    "roc_curve",
    "spro_curve",
    "stacked_curves",
    "threshold_for_tnr",
    "tpr_at_nearest_tnr",
    "tpr_at_tnr",
    "trapezoidal_ap",
]
