"""The trivial floor: nearest neighbour among the good images' thumbnails.

No network, no training: what this finds already shows in the pixels. A benchmark on which it does well is an easy one,
and a method that does not beat it has shown nothing. Every table should have its row.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch

from andon.core import AndonError, Prediction, ProgressCallback, no_progress
from andon.data.images import ImageLike, Images, as_images
from andon.data.transform import Transform
from andon.methods._state import checked_state
from andon.methods.base import FitReport, Method, MethodConfig
from andon.methods.registry import register

__all__ = ["ThumbnailConfig", "ThumbnailNearestNeighbour"]

_BANK_ROWS = 2048
"""Thumbnails that are compared at a time: bounds memory (113 MB in float64 at 48 × 48)."""


class ThumbnailConfig(MethodConfig):
    """Configuration.

    Attributes:
        transform: size of the thumbnail, 48 × 48.
        standardise: brightness and contrast are taken out of every thumbnail (mean 0, standard deviation 1 over its
            pixels and channels), so that a change of exposure is no defect; False compares pixels in 0..1 as they are.
            On magnetic tiles the image AUROC is 0.93 with and 0.58 without.
    """

    transform: Transform = Transform(size=(48, 48), normalisation="unit")
    standardise: bool = True


@register
class ThumbnailNearestNeighbour(Method[ThumbnailConfig]):
    """Score = Euclidean distance to the nearest good thumbnail; map = the same, a pixel at a time.

    ``map[y, x]`` is the Euclidean norm over the three channels of the difference to the nearest thumbnail, so the score
    is the norm of the map. All in float64, from 8-bit thumbnails; the distance to the nearest one is taken from the
    difference itself, so that an image seen in training scores exactly 0.

    Cost: O(n·H·W) an image and 6.9 kB a training image at 48 × 48.
    """

    name = "thumbnail-nn"
    title = "Thumbnail NN"
    paper = ""
    seeded = False
    Config: ClassVar[type[MethodConfig]] = ThumbnailConfig

    def __init__(self, config: ThumbnailConfig) -> None:
        super().__init__(config)
        self._bank: torch.Tensor | None = None
        """uint8 ``[n, h·w·3]``."""

    def fit(
        self,
        train: Images | Iterable[ImageLike],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> FitReport:
        images = as_images(train)
        if len(images) == 0:
            raise AndonError(f"{self.name}: no images to learn from")
        start = time.perf_counter()
        height, width = self.transform.output_size
        bank = torch.empty((len(images), height, width, 3), dtype=torch.uint8)
        for index in range(len(images)):
            bank[index] = torch.tensor(images.resized(index, self.transform))
            progress("thumbnails", index + 1, len(images))
        self._bank = bank.flatten(1)
        self.to(device)
        return FitReport(n_train=len(images), seconds={"thumbnails": time.perf_counter() - start})

    def _vectors(self, thumbnails: torch.Tensor) -> torch.Tensor:
        """8-bit values ``[n, h·w·3]`` of any type to the float64 vectors that are compared."""
        pixels = thumbnails.double()
        if not self.config.standardise:
            return pixels.div_(255)
        pixels -= pixels.mean(1, keepdim=True)
        deviation = pixels.square().mean(1, keepdim=True).sqrt_()
        return pixels.div_(torch.where(deviation > 0, deviation, 1.0))

    def predict_batch(self, batch: torch.Tensor) -> Prediction:
        if self._bank is None:
            raise AndonError(f"{self.name}: predict before fit")
        height, width = self.transform.output_size
        # Back to the 8-bit values that the image had before it was normalised.
        pixels = self.transform.denormalise(batch).mul(255).round().permute(0, 2, 3, 1)
        query = self._vectors(pixels.reshape(len(batch), -1))
        best = torch.full((len(query),), torch.inf, dtype=torch.float64, device=query.device)
        nearest = torch.zeros(len(query), dtype=torch.long, device=query.device)
        for start in range(0, len(self._bank), _BANK_ROWS):
            rows = self._vectors(self._bank[start : start + _BANK_ROWS])
            # ‖q − r‖² − ‖q‖²
            distance, index = torch.addmm(rows.square().sum(1), query, rows.T, alpha=-2).min(1)
            closer = distance < best
            best = torch.where(closer, distance, best)
            nearest = torch.where(closer, index + start, nearest)
        difference = (query - self._vectors(self._bank[nearest])).reshape(-1, height, width, 3)
        squares = difference.square().sum(3)
        return Prediction(
            squares.sum((1, 2)).sqrt().float().cpu().numpy(),
            squares.sqrt().float().cpu().numpy(),
            self.transform.region,
        )

    def state_dict(self) -> dict[str, torch.Tensor]:
        if self._bank is None:
            raise AndonError(f"{self.name}: nothing is learned yet: fit first")
        return {"thumbnails": self._bank}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        height, width = self.transform.output_size
        shape = ("n", height * width * 3)
        self._bank = checked_state(self.name, state, {"thumbnails": (torch.uint8, shape)})["thumbnails"].to(self.device)

    def to(self, device: torch.device | str) -> ThumbnailNearestNeighbour:
        super().to(device)
        if self._bank is not None:
            self._bank = self._bank.to(self.device)
        return self
