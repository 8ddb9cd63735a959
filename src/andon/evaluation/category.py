"""All figures of one category, from its image scores and its accumulated maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core import GOOD
from andon.evaluation.accumulator import LocalisationAccumulator
from andon.evaluation.image import auroc, check_scores, image_metrics, operating_points
from andon.evaluation.result import (
    CategoryResult,
    DefectTypeMetrics,
    Evaluation,
    EvaluationArrays,
    ImageMetrics,
    LocalisationMetrics,
)

__all__ = ["category_result"]

_CURVE_POINTS = 256


def category_result(
    scores: npt.NDArray[Any],
    defect_types: Sequence[str],
    localisation: LocalisationAccumulator,
    *,
    sample_ids: Sequence[str],
    names: Sequence[str] | None = None,
    calibration_scores: npt.ArrayLike | None = None,
    notes: Sequence[str] = (),
    predict_seconds: float = 0.0,
) -> CategoryResult:
    """Puts the figures together.

    Args:
        scores: image scores ``[n]`` of the test images, higher = more anomalous.
        defect_types: of each, ``GOOD`` for good ones.
        localisation: has their maps, those that there are.
        sample_ids: of each.
        names: what to call each image in a message.
        calibration_scores: ``[m]`` of good images by models that did not see them; None for no such thresholds.
        notes: to go with those that follow from the figures.
        predict_seconds: see ``CategoryResult``.

    Raises:
        DataError: a score is NaN or infinite.
    """
    types, remarks = tuple(defect_types), [*localisation.notes(), *notes]
    defective = np.asarray([t != GOOD for t in types], dtype=bool)
    calibration = None if calibration_scores is None else check_scores(calibration_scores)
    image = image_metrics(scores, defective, names=names)
    metrics, curve_fpr, curve_spro = _localisation(localisation)
    remarks += _missing(image, metrics is not None, curve_fpr is not None)
    return CategoryResult(
        Evaluation(
            image=image,
            operating_points=operating_points(scores, defective, calibration_scores=calibration),
            localisation=metrics,
            defect_types=_by_type(scores, types, None if metrics is None else localisation),
            notes=tuple(remarks),
        ),
        EvaluationArrays(
            sample_ids=tuple(sample_ids),
            defect_types=types,
            image_scores=scores.astype(np.float32),
            calibration_scores=None if calibration is None else calibration.astype(np.float32),
            spro_fpr=curve_fpr,
            spro=curve_spro,
        ),
        predict_seconds,
    )


def _missing(image: ImageMetrics, has_maps: bool, has_curve: bool) -> Iterator[str]:
    """Why figures cannot exist, or are not comparable."""
    if image.n_defective == 0:
        yield "no defective test images: no figure that compares with good ones"
    if image.n_good == 0:
        yield "no good test images: no figure that compares with defective ones"
    if image.n_good == 0 and has_curve:
        yield (
            "no good image is in the pixel-FPR of AUsPRO, AUPRO and pixel AUROC: it is that of the defective images' "
            "unmarked pixels alone, and not comparable with others"
        )
    if has_maps and not has_curve:
        yield "the masks cover every pixel of every image: no pixel-FPR, hence no localisation figures"


def _localisation(
    localisation: LocalisationAccumulator,
) -> tuple[LocalisationMetrics | None, npt.NDArray[np.float64] | None, npt.NDArray[np.float64] | None]:
    """Figures and curve; None where there is no channel, and no curve where there is no negative pixel."""
    if not localisation.n_channels:
        return None, None, None
    result = localisation.compute()
    metrics = LocalisationMetrics(
        n_channels=result.n_channels,
        auspro=result.auspro,
        aupro=result.aupro,
        pixel_auroc=result.pixel_auroc,
        pixel_ap=result.pixel_ap,
    )
    if not result.auspro:
        return metrics, None, None
    return metrics, *result.curve(max(localisation.limits), _CURVE_POINTS)


def _by_type(
    scores: npt.NDArray[Any], types: tuple[str, ...], localisation: LocalisationAccumulator | None
) -> dict[str, DefectTypeMetrics]:
    """Each defect type's images against all good ones."""
    found, out = np.asarray(types), {}
    for name in sorted(set(types) - {GOOD}):
        own = found == name
        chosen = own | (found == GOOD)
        out[name] = DefectTypeMetrics(
            n=int(own.sum()),
            auroc=auroc(scores[chosen], own[chosen]),
            auspro={} if localisation is None else localisation.compute(name).auspro,
        )
    return out
