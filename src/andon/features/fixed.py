"""An extractor that was adapted once, and stays as it is."""

from __future__ import annotations

import torch

from andon.features.base import Extractor
from andon.weights import WeightsRecord

__all__ = ["FixedExtractor"]


class FixedExtractor(Extractor):
    """An extractor that stays as it is, whatever images it is to be adapted to."""

    def __init__(self, inner: Extractor) -> None:
        super().__init__()
        self.inner = inner
        self.channels, self.strides, self.weights = inner.channels, inner.strides, inner.weights

    @property
    def fingerprint(self) -> str:
        return self.inner.fingerprint

    @property
    def records(self) -> tuple[WeightsRecord, ...]:
        return self.inner.records

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = self.inner(batch)
        return found
