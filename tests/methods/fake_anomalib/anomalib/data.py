from dataclasses import dataclass
from typing import NamedTuple

import torch


class InferenceBatch(NamedTuple):
    pred_score: torch.Tensor | None = None
    pred_label: torch.Tensor | None = None
    anomaly_map: torch.Tensor | None = None
    pred_mask: torch.Tensor | None = None


@dataclass
class ImageBatch:
    image: torch.Tensor
    gt_label: torch.Tensor | None = None
    gt_mask: torch.Tensor | None = None

    def __post_init__(self):
        # The checks of anomalib.data.validators.ImageBatchValidator.
        if self.image.ndim != 4 or self.image.shape[1] != 3 or self.image.dtype != torch.float32:
            raise ValueError(f"image {self.image.shape}")
        if self.gt_label is not None and (self.gt_label.ndim != 1 or torch.is_floating_point(self.gt_label)):
            raise ValueError("gt_label")
        if self.gt_mask is not None and self.gt_mask.shape != (len(self.image), *self.image.shape[-2:]):
            raise ValueError("gt_mask")
