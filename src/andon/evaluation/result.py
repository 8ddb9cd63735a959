"""What an evaluation says of one method on one category: numbers, and the curves behind them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

__all__ = [
    "DefectTypeMetrics",
    "Evaluation",
    "EvaluationArrays",
    "ImageMetrics",
    "LocalisationMetrics",
    "OperatingPoint",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageMetrics(_Frozen):
    """Image-level figures, all fractions in 0..1; None where they are undefined (no defective or no good images)."""

    n_good: int
    n_defective: int
    auroc: float | None = None
    ap: float | None = None
    """Step-wise average precision (scikit-learn's definition)."""
    tpr_at_tnr: dict[str, float] = {}
    """TPR at TNR by percentage: {"99": …, "95": …, "90": …}."""
    best_f1: float | None = None
    best_f1_threshold: float | None = None


class OperatingPoint(_Frozen):
    """A threshold (an image alarms when its score is above it), how it was set, and what it does on the test set."""

    source: Literal["test good", "train good", "best F1"]
    target_tnr: float | None
    """The TNR that it was set for; None for the best F1."""
    threshold: float
    fpr: float | None
    fnr: float | None


class LocalisationMetrics(_Frozen):
    """Pixel-level figures, fractions in 0..1; None where undefined."""

    n_channels: int
    """Ground-truth channels evaluated."""
    auspro: dict[str, float] = {}
    """AUsPRO by pixel-FPR limit: {"0.01": …, "0.05": …, "0.1": …, "0.3": …, "1": …}."""
    aupro: dict[str, float] = {}
    """Area under the per-region-overlap curve by the same limits: regions are 8-connected components of the union of
    the channels, without saturation."""
    pixel_auroc: float | None = None
    pixel_ap: float | None = None


class DefectTypeMetrics(_Frozen):
    """The same for the images of one defect type against all good ones."""

    n: int
    auroc: float | None = None
    auspro: dict[str, float] = {}


class Evaluation(_Frozen):
    """All figures of one method on one category."""

    image: ImageMetrics
    operating_points: tuple[OperatingPoint, ...] = ()
    localisation: LocalisationMetrics | None = None
    defect_types: dict[str, DefectTypeMetrics] = {}
    notes: tuple[str, ...] = ()
    """What was left out and why ("4 defective images have an empty mask: left out of localisation")."""


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
        for name in ("calibration_scores", "spro_fpr", "spro"):
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
            spro_fpr=arrays.get("spro_fpr"),
            spro=arrays.get("spro"),
        )
