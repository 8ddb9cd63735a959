"""Several extractors as one: each image is read and resized once, and their stages come out one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import nn

from andon.core import ProgressCallback, no_progress
from andon.data import Images, Transform
from andon.features.base import Extractor
from andon.weights import WeightsRecord

__all__ = ["JoinedExtractor"]


class JoinedExtractor(Extractor):
    """Extractors side by side, on the same batch.

    Args:
        parts: at least one; their stages follow each other in this order.
    """

    def __init__(self, parts: Sequence[Extractor]) -> None:
        super().__init__()
        if not parts:
            raise ValueError("there are no extractors to join")
        self.parts = nn.ModuleList(parts)
        self.channels = tuple(channels for part in parts for channels in part.channels)
        self.strides = tuple(stride for part in parts for stride in part.strides)
        self.weights = parts[0].weights

    @property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        for part in self._parts():
            digest.update(part.fingerprint.encode() + b"\n")
        return digest.hexdigest()

    @property
    def records(self) -> tuple[WeightsRecord, ...]:
        return tuple(record for part in self._parts() for record in part.records)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(stage for part in self.parts for stage in part(batch))

    def adapt(
        self,
        images: Images,
        transform: Transform,
        *,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> JoinedExtractor:
        """Each part adapted to the good images, where it can be."""
        return JoinedExtractor(
            [part.adapt(images, transform, device=device, progress=progress) for part in self._parts()]
        )

    def describe(self) -> str:
        return "; ".join(filter(None, (part.describe() for part in self._parts())))

    def _parts(self) -> list[Extractor]:
        return [part for part in self.parts if isinstance(part, Extractor)]
