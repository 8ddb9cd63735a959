"""What an evaluation says of one method on one category: numbers, and the curves behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from andon._tools.models import FrozenModel

__all__ = [
    "ByLimit",
    "CategoryResult",
    "DefectTypeMetrics",
    "Evaluation",
    "EvaluationArrays",
    "ImageMetrics",
    "LocalisationMetrics",
    "OperatingPoint",
]


def _numbers(values: Any) -> Any:
    """JSON's keys, which are texts, as numbers."""
    if not isinstance(values, Mapping):
        return values
    try:
        return {float(limit): value for limit, value in values.items()}
    except (TypeError, ValueError):
        raise ValueError(f"FPR limits must be numbers, not {', '.join(map(repr, values))}") from None


ByLimit = Annotated[
    dict[Annotated[float, Field(gt=0, le=1)], float],
    BeforeValidator(_numbers),
    PlainSerializer(lambda values: {repr(limit): value for limit, value in values.items()}, when_used="json"),
]
"""Figures by FPR limit, a number in (0, 1]; in JSON the shortest decimal that reads back as it ("0.05")."""

_OLD_DIGITS = ".12g"  # what limits were once kept with


def _restored(values: dict[float, float], limits: Iterable[float]) -> dict[float, float]:
    whole = {float(f"{limit:{_OLD_DIGITS}}"): limit for limit in limits}
    return {limit if limit in whole.values() else whole.get(limit, limit): v for limit, v in values.items()}


class ImageMetrics(FrozenModel):
    """Image-level figures, all fractions in 0..1; None where they are undefined (no defective or no good images)."""

    n_good: int
    n_defective: int
    auroc: float | None = None
    ap: float | None = None
    """Step-wise average precision (scikit-learn's definition)."""
    tpr_at_tnr: dict[str, float] = Field(default_factory=dict)
    """TPR at TNR by percentage: {"99": …, "95": …, "90": …}."""
    best_f1: float | None = None
    best_f1_threshold: float | None = None


class OperatingPoint(FrozenModel):
    """A threshold (an image alarms when its score is above it), how it was set, and what it does on the test set."""

    source: Literal["test good", "train good", "best F1"]
    target_tnr: float | None
    """The TNR that it was set for; None for the best F1."""
    threshold: float
    fpr: float | None
    fnr: float | None


class LocalisationMetrics(FrozenModel):
    """Pixel-level figures, fractions in 0..1; None where undefined."""

    n_channels: int
    """Ground-truth channels evaluated."""
    auspro: ByLimit = Field(default_factory=dict)
    """AUsPRO by pixel-FPR limit: {0.01: …, 0.05: …, 0.1: …, 0.3: …, 1.0: …}."""
    aupro: ByLimit = Field(default_factory=dict)
    """Area under the per-region-overlap curve by the same limits: regions are 8-connected components of the union of
    the channels, without saturation."""
    pixel_auroc: float | None = None
    pixel_ap: float | None = None


class DefectTypeMetrics(FrozenModel):
    """The same for the images of one defect type against all good ones."""

    n: int
    auroc: float | None = None
    auspro: ByLimit = Field(default_factory=dict)


class Evaluation(FrozenModel):
    """All figures of one method on one category."""

    image: ImageMetrics
    operating_points: tuple[OperatingPoint, ...] = ()
    localisation: LocalisationMetrics | None = None
    defect_types: dict[str, DefectTypeMetrics] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What was left out and why ("4 defective images have an empty mask: left out of localisation")."""

    def with_limits(self, limits: Iterable[float]) -> Evaluation:
        """Itself with the limits as they were asked for: records used to keep 12 digits of them.

        Args:
            limits: the FPR limits that it was made with, whole.
        """
        limits = tuple(limits)
        local = self.localisation
        used = {limit for m in (local, *self.defect_types.values()) if m is not None for limit in m.auspro}
        if used <= set(limits):
            return self
        if local is not None:
            update = {"auspro": _restored(local.auspro, limits), "aupro": _restored(local.aupro, limits)}
            local = local.model_copy(update=update)
        types = {
            name: metrics.model_copy(update={"auspro": _restored(metrics.auspro, limits)})
            for name, metrics in self.defect_types.items()
        }
        return self.model_copy(update={"localisation": local, "defect_types": types})


class EvaluationArrays(BaseModel):
    """Arrays behind an evaluation; kept beside the record as one npz."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    sample_ids: tuple[str, ...]
    """Of the test samples, in order."""
    defect_types: tuple[str, ...]
    """Of each test sample ("good" for good ones)."""
    image_scores: npt.NDArray[np.float32]
    """``[N]``."""
    calibration_scores: npt.NDArray[np.float32] | None = None
    """Image scores of training images by models that did not see them, ``[M]``."""
    calibration_map_moments: npt.NDArray[np.float64] | None = None
    """Mean and standard deviation of all values of the maps of those images, ``[2]``."""
    spro_fpr: npt.NDArray[np.float64] | None = None
    """FPR of the FPR–sPRO curve up to the largest limit asked for (thinned for plotting), ``[K]``, ascending."""
    spro: npt.NDArray[np.float64] | None = None
    """Mean sPRO there, ``[K]``."""

    def labels(self) -> npt.NDArray[np.bool_]:
        """True for defective, ``[N]``."""
        return np.asarray([t != "good" for t in self.defect_types], dtype=bool)

    def to_npz(self) -> dict[str, npt.NDArray[Any]]:
        """As plain arrays (no pickles)."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "sample_ids": np.asarray(self.sample_ids, dtype=np.str_),
            "defect_types": np.asarray(self.defect_types, dtype=np.str_),
            "image_scores": self.image_scores,
        }
        for name in ("calibration_scores", "calibration_map_moments", "spro_fpr", "spro"):
            value = getattr(self, name)
            if value is not None:
                arrays[name] = value
        return arrays

    @classmethod
    def from_npz(cls, arrays: dict[str, npt.NDArray[Any]]) -> EvaluationArrays:
        """The inverse of ``to_npz``."""
        return cls(
            sample_ids=tuple(str(x) for x in arrays["sample_ids"]),
            defect_types=tuple(str(x) for x in arrays["defect_types"]),
            image_scores=arrays["image_scores"],
            calibration_scores=arrays.get("calibration_scores"),
            calibration_map_moments=arrays.get("calibration_map_moments"),
            spro_fpr=arrays.get("spro_fpr"),
            spro=arrays.get("spro"),
        )


@dataclass(frozen=True)
class CategoryResult:
    """What an evaluation of one category gives.

    Attributes:
        evaluation: the figures.
        arrays: scores and curves behind them, in the order of the test samples.
        predict_seconds: wall seconds of the detector's prediction alone, decoding included; 0 for maps from files.
    """

    evaluation: Evaluation
    arrays: EvaluationArrays
    predict_seconds: float = 0.0
