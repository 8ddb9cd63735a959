"""A method that fits in no time and has a convolution, with ways of going wrong when it is exported."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import nn

from andon.core import ImageArray
from andon.data import Transform
from andon.inspection import Source
from andon.methods import Detector, Fitting, Method, MethodConfig

SIZE = (40, 52)
TRANSFORM = Transform(size=(32, 36), crop=(28, 32))


class TinyConfig(MethodConfig):
    transform: Transform = TRANSFORM
    fault: Literal["", "small", "large", "operator"] = ""
    maps: bool = True


class TinyDetector(Detector):
    config: TinyConfig

    def __init__(self, config: TinyConfig, mean: torch.Tensor) -> None:
        super().__init__(config)
        self.blur = nn.Conv2d(3, 4, 5, padding=2, bias=False)
        values = torch.linspace(0.5, 1.5, self.blur.weight.numel())
        self.blur.weight = nn.Parameter(values.view_as(self.blur.weight) / 75)
        self.register_buffer("mean", mean)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        maps = self.blur(batch - self.get_buffer("mean")).abs().sum(1)
        if self.config.fault == "operator":
            maps = torch.special.bessel_j0(maps)
        if self.config.fault in ("small", "large") and torch.compiler.is_exporting():
            maps = maps * (1.0005 if self.config.fault == "small" else 1.01)
        return maps.amax((1, 2)), maps if self.config.maps else None


class Tiny(Method[TinyConfig]):
    name = "tiny"
    title = "Tiny"
    Config = TinyConfig

    def learn(self, fitting: Fitting) -> Detector:
        batches = [batch for _, batch in fitting.images.batches(self.config.transform, 8)]
        return TinyDetector(self.config, torch.cat(batches).mean(0))


def images(n: int = 6, size: tuple[int, int] = SIZE) -> list[ImageArray]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(n)]


def tiny_source(config: TinyConfig | None = None, thresholds: dict[str, float] | None = None) -> Source:
    detector = Tiny(config or TinyConfig()).fit(images())
    return Source.of(detector, "tiny.safetensors", thresholds)
