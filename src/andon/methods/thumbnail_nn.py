"""The trivial floor: nearest neighbour among the good images' thumbnails.

No network, no training: what this finds already shows in the pixels. A benchmark on which it does well is an easy one,
and a method that does not beat it has shown nothing. Every table should have its row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from andon.data import Images, Transform
from andon.methods._leaving_out import Recall
from andon.methods.base import Detector, Fitting, Method, MethodConfig
from andon.weights import WeightsRecord

__all__ = ["ThumbnailConfig", "ThumbnailDetector", "ThumbnailNearestNeighbour"]

_BANK_ROWS = 2048
"""Thumbnails that are compared at a time: bounds memory (113 MB in float64 at 48 × 48)."""


class ThumbnailConfig(MethodConfig):
    """Configuration.

    Attributes:
        transform: size of the thumbnail, 48 × 48.
        standardise: brightness and contrast are taken out of every thumbnail (mean 0, standard deviation 1 over its
            pixels and channels), so that a change of exposure is no defect; False compares pixels in 0..1 as they are.
            On magnetic tiles the image AUROC is 0.93 with and 0.58 without. An image of one colour has no contrast to
            take out: see ``ThumbnailNearestNeighbour``.
    """

    transform: Transform = Transform(size=(48, 48), normalisation="unit")
    standardise: bool = True


class ThumbnailDetector(Detector):
    """The good thumbnails: the buffer ``thumbnails``, uint8 ``[n, h·w·3]``."""

    config: ThumbnailConfig
    thumbnails: torch.Tensor
    origins: torch.Tensor | None

    def __init__(self, config: ThumbnailConfig, thumbnails: torch.Tensor) -> None:
        super().__init__(config)
        self.register_buffer("thumbnails", thumbnails)
        height, width = self.transform.output_size
        self.register_buffer("origins", torch.arange(len(thumbnails)) * (height * width), persistent=False)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = self.transform.output_size
        pixels = self._pixels(batch)
        query = self._vectors(pixels.reshape(len(batch), -1))
        nearest, shades = self._nearest(pixels, query)
        difference = (query - self._vectors(self.thumbnails[nearest])).reshape(-1, height, width, 3)
        squares = difference.square().sum(3)
        if self.config.standardise:
            constant = (pixels == pixels[:, :1, :1]).flatten(1).all(1)
            even = (shades / (height * width))[:, None, None].expand_as(squares)
            squares = torch.where(constant[:, None, None], even, squares)
        return squares.sum((1, 2)).sqrt().float(), squares.sqrt().float()

    def recall(self, batch: torch.Tensor) -> Recall:
        """The nearest thumbnail of every image, at each of its pixels."""
        pixels = self._pixels(batch)
        nearest, _ = self._nearest(pixels, self._vectors(pixels.reshape(len(batch), -1)))
        maps = self(batch)[1]
        return Recall(maps, nearest[:, None, None].expand_as(maps))

    def without(self, images: Images, left_out: Sequence[int]) -> ThumbnailDetector:
        """The detector without some training images (``detector_without``)."""
        kept = torch.ones(len(self.thumbnails), dtype=torch.bool, device=self.thumbnails.device)
        kept[list(left_out)] = False
        return ThumbnailDetector(self.config, self.thumbnails[kept])

    def grown(self, fitting: Fitting) -> ThumbnailDetector:
        """The detector with more good images (``detector_with``)."""
        more = thumbnails_of(fitting, self.transform).to(self.thumbnails.device)
        return ThumbnailDetector(self.config, torch.cat([self.thumbnails, more]))

    def _pixels(self, batch: torch.Tensor) -> torch.Tensor:
        """The 8-bit values that images had before they were normalised, float32 ``[B, h, w, 3]``."""
        return self.transform.denormalise(batch).mul(255).round().permute(0, 2, 3, 1)

    def _nearest(self, pixels: torch.Tensor, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest thumbnail of each image, and the least squared distance to one of one colour (``_shades``)."""
        best = torch.full((len(query),), torch.inf, dtype=torch.float64, device=query.device)
        nearest = torch.zeros(len(query), dtype=torch.long, device=query.device)
        shades = torch.full_like(best, 4.0 * query.shape[1])
        for start in range(0, len(self.thumbnails), _BANK_ROWS):
            rows = self._vectors(self.thumbnails[start : start + _BANK_ROWS])
            # ‖q − r‖² − ‖q‖²
            distance, index = torch.addmm(rows.square().sum(1), query, rows.T, alpha=-2).min(1)
            closer = distance < best
            best = torch.where(closer, distance, best)
            nearest = torch.where(closer, index + start, nearest)
            shades = torch.minimum(shades, self._shades(pixels, self.thumbnails[start : start + _BANK_ROWS]))
        return nearest, shades

    def constant_score(self) -> float:
        # The farthest that two thumbnails can be from each other.
        return (2.0 if self.config.standardise else 1.0) * math.sqrt(self.thumbnails.shape[1])

    def _shades(self, pixels: torch.Tensor, thumbnails: torch.Tensor) -> torch.Tensor:
        """Of images as if of one colour, 8-bit ``[B, h, w, 3]``, the least squared distance to those that are."""
        rows = thumbnails.view(len(thumbnails), -1, 3)
        constant = (rows == rows[:, :1]).flatten(1).all(1)
        apart = (pixels[:, 0, 0].double().div(255)[:, None] - rows[:, 0].double().div(255)).square().sum(2)
        farthest = 4.0 * thumbnails.shape[1]
        return torch.where(constant, 4.0 * rows.shape[1] * apart, farthest).min(1).values

    def _vectors(self, thumbnails: torch.Tensor) -> torch.Tensor:
        """8-bit values ``[n, h·w·3]`` of any type to the float64 vectors that are compared."""
        pixels = thumbnails.double()
        if not self.config.standardise:
            return pixels.div_(255)
        pixels = pixels - pixels.mean(1, keepdim=True)
        deviation = pixels.square().mean(1, keepdim=True).sqrt()
        return pixels.div_(torch.where(deviation > 0, deviation, 1.0))


class ThumbnailNearestNeighbour(Method[ThumbnailConfig]):
    """Score = Euclidean distance to the nearest good thumbnail; map = the same, a pixel at a time.

    ``map[y, x]`` is the Euclidean norm over the three channels of the difference to the nearest thumbnail, so the score
    is the norm of the map. All in float64, from 8-bit thumbnails; the distance to the nearest one is taken from the
    difference itself, so that an image seen in training scores exactly 0.

    An image of one colour has no standardised form. It is as far as two thumbnails can be, 2·√(3·H·W), from every
    thumbnail that is not of one colour, and at twice the distance of the pixels in 0..1 from one that is: black is no
    white part in bad light.

    Cost: O(n·H·W) an image and 6.9 kB a training image at 48 × 48.
    """

    name = "thumbnail-nn"
    title = "Thumbnail NN"
    paper = ""
    seeded = False
    Config: ClassVar[type[MethodConfig]] = ThumbnailConfig

    def learn(self, fitting: Fitting) -> ThumbnailDetector:
        return ThumbnailDetector(self.config, thumbnails_of(fitting, self.config.transform))

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> ThumbnailDetector:
        height, width = self.config.transform.output_size
        n = shapes.get("thumbnails", (1,))[0]
        return ThumbnailDetector(self.config, torch.zeros((n, height * width * 3), dtype=torch.uint8))


def thumbnails_of(fitting: Fitting, transform: Transform) -> torch.Tensor:
    """8-bit values of the images, uint8 ``[n, h·w·3]``."""
    images = fitting.images
    bank = torch.empty((len(images), *transform.output_size, 3), dtype=torch.uint8)
    with fitting.clock("thumbnails"):
        for index in range(len(images)):
            bank[index] = torch.tensor(images.resized(index, transform))
            fitting.progress("thumbnails", index + 1, len(images))
    return bank.flatten(1)
