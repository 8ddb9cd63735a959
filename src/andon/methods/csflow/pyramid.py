"""A frozen extractor at several sizes of the image."""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from torch.nn import functional as F

from andon.core import ProgressCallback, canonical_json, no_progress
from andon.data import Images, Transform
from andon.features import Extractor

__all__ = ["Downscaling", "PyramidExtractor"]

Downscaling = Literal["nearest", "area"]


class PyramidExtractor(Extractor):
    """The features of an image, then those of the image halved, then quartered …: one map a scale, the finest first.

    Args:
        base: an extractor of one stage.
        scales: sizes of the image.
        downscaling: "nearest" takes every second pixel, "area" the mean of 2×2.
    """

    def __init__(self, base: Extractor, scales: int, downscaling: Downscaling) -> None:
        super().__init__()
        self.base, self.scales, self.downscaling = base, scales, downscaling
        self.channels = base.channels * scales
        self.strides = tuple(base.strides[0] * 2**scale for scale in range(scales))
        self.weights = base.weights

    @property
    def fingerprint(self) -> str:
        what = canonical_json([self.base.fingerprint, self.scales, self.downscaling])
        return hashlib.blake2b(what.encode(), digest_size=8).hexdigest()

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = list(self.base(batch))
        for _ in range(self.scales - 1):
            batch = F.avg_pool2d(batch, 2) if self.downscaling == "area" else batch[:, :, ::2, ::2]
            maps += self.base(batch)
        return tuple(maps)

    def adapt(
        self,
        images: Images,
        transform: Transform,
        *,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> Extractor:
        base = self.base.adapt(images, transform, device=device, progress=progress)
        return self if base is self.base else PyramidExtractor(base, self.scales, self.downscaling)

    def describe(self) -> str:
        return self.base.describe()
