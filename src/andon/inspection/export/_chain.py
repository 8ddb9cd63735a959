"""The whole way from a camera's image to score and map as one module, the thing that is exported."""

from __future__ import annotations

import torch
from torch import nn

from andon.core import ConfigError
from andon.data import IMAGENET_MEAN, IMAGENET_STD
from andon.inspection.export._resampling import Resize
from andon.inspection.export.sources import Source
from andon.inspection.regions import Regions
from andon.methods import Detector

__all__ = ["MAP", "SCORE", "Chain"]

SCORE, MAP = "score", "map"
"""Names of a graph's outputs."""

_LEAST, _MOST = 8, 16_384


class Chain(nn.Module):
    """Resize, crop, normalisation, detector, and the rule for images of one colour, for images of one size.

    Args:
        source: what is exported.
        size: (height, width) of the images, 8 to 16,384 each.

    Raises:
        ConfigError: another size, or regions that leave nothing.
    """

    one_colour: torch.Tensor

    def __init__(self, source: Source, size: tuple[int, int]) -> None:
        super().__init__()
        if not all(_LEAST <= side <= _MOST for side in size):
            raise ConfigError(f"size {size[0]}x{size[1]}: each side of the images must be {_LEAST} to {_MOST:,} pixels")
        detector, regions = source.detector, source.regions
        transform = detector.transform
        self.detector = detector
        self.resize = Resize(transform, size)
        height, width = transform.output_size
        top, left = (transform.size[0] - height) // 2, (transform.size[1] - width) // 2
        self.rows, self.columns = slice(top, top + height), slice(left, left + width)
        imagenet = transform.normalisation == "imagenet"
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN if imagenet else (0.0,) * 3).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD if imagenet else (1.0,) * 3).view(3, 1, 1))
        least = source.one_colour_score()
        self.has_least = least > float("-inf")
        self.register_buffer("one_colour", torch.tensor([least], dtype=torch.float32))
        self.has_regions = regions is not None and regions.mask is not None
        if regions is not None and regions.mask is not None:
            self.register_buffer("counted", _counted(detector, regions))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """RGB uint8 ``[H, W, 3]`` to the score, float32 ``[1]``, and the anomaly map, float32 ``[h, w]``, if any."""
        grey = self.resize(image.permute(2, 0, 1).to(torch.float32))[:, self.rows, self.columns]
        batch = (grey / 255 - self.get_buffer("mean")) / self.get_buffer("std")
        scores, maps = self.detector(batch[None])
        if self.has_regions:
            maps = torch.where(self.get_buffer("counted"), maps, maps.amin((1, 2), keepdim=True))
            scores = maps.amax((1, 2))
        if self.has_least:
            constant = (grey.amax((1, 2)) - grey.amin((1, 2))).sum() == 0
            scores = torch.where(constant, torch.maximum(scores, self.one_colour), scores)
        return (scores,) if maps is None else (scores, maps[0])


def _counted(detector: Detector, regions: Regions) -> torch.Tensor:
    """Which pixels of the detector's map count, bool ``[h, w]``; ConfigError where it gives none."""
    height, width = detector.transform.output_size
    with torch.no_grad():
        maps = detector(torch.zeros(1, 3, height, width))[1]
    if maps is None:
        raise ConfigError("roi, ignore: the method gives image scores only, of which no part can be left out")
    counted = regions.on_map((int(maps.shape[1]), int(maps.shape[2])), detector.transform.region)
    assert counted is not None
    return torch.from_numpy(counted)
