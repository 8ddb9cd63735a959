"""What GANomaly and f-AnoGAN share: square patches in −1..1, of which images are made and put together again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from andon._tools.seeds import numpy_step_generator
from andon.methods._maps import gaussian_smooth
from andon.methods._reconstruction import UnitImagesConfig
from andon.methods.base import Detector, Fitting
from andon.training import SampleOrder, Stage

__all__ = ["PatchConfig", "PatchDetector", "PatchStage", "frozen", "patches_of", "put_together"]

BatchT = TypeVar("BatchT")
PatchConfigT = TypeVar("PatchConfigT", bound="PatchConfig")


class PatchConfig(UnitImagesConfig):
    """Config of a method whose networks see square patches of an image.

    An image of a patch's size is one patch. Of a larger one a patch is drawn from anywhere for each step of the
    training, and at prediction it is divided into patches side by side: the largest of their scores is the image's.

    Attributes:
        patch: side of a patch in pixels: a power of 2; the sides of the images are multiples of it.
        latent: numbers that describe a patch.
        width: channels of the networks at a patch's full or half size.
        flip_probability: of a patch to be mirrored left to right in the training.
        sigma: Gaussian smoothing of the map, in pixels; 0 for none.
    """

    unit_reason: ClassVar[str] = "the generator's images end at black and white"
    sides: ClassVar[int] = 16
    least_side: ClassVar[int] = 16
    train_batch_size: int = Field(64, ge=2)
    patch: int = Field(64, ge=16)
    latent: int = Field(100, ge=1)
    width: int = Field(64, ge=1)
    flip_probability: float = Field(0.0, ge=0, le=1)
    sigma: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _whole_patches(self) -> PatchConfig:
        if self.patch & (self.patch - 1):
            raise ValueError(f"patch must be a power of 2, not {self.patch}")
        if any(side % self.patch for side in self.transform.output_size):
            raise ValueError(
                f"transform: sides must be multiples of patch ({self.patch}), not {self.transform.output_size}"
            )
        return self


def patches_of(batch: torch.Tensor, side: int) -> torch.Tensor:
    """Images ``[B, C, H, W]`` as patches side by side, ``[B·n, C, side, side]``, image by image, row by row."""
    count, channels, height, width = batch.shape
    grid = batch.view(count, channels, height // side, side, width // side, side).permute(0, 2, 4, 1, 3, 5)
    return grid.reshape(-1, channels, side, side)


def put_together(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps of patches, ``[B·n, side, side]`` in the order of ``patches_of``, as maps of images ``[B, *size]``."""
    side = maps.shape[-1]
    rows, columns = size[0] // side, size[1] // side
    return maps.view(-1, rows, columns, side, side).transpose(2, 3).reshape(-1, *size)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """What a network computes in the block gives its input a gradient, and its parameters none."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


class PatchStage(Stage[BatchT]):
    """One training on patches of the good images."""

    config: PatchConfig

    def __init__(self, fitting: Fitting) -> None:
        config = self.config = fitting.method.config
        self.images, self.seed, self.transform = fitting.images, fitting.seed, config.transform
        self.order = SampleOrder(len(self.images), config.train_batch_size, self.seed)

    def patches(self, number: int) -> torch.Tensor:
        """The patches of step ``number``, float32 ``[B, 3, side, side]``, −1..1."""
        config, chosen = self.config, []
        rng = numpy_step_generator(self.seed, "patches", self.name, number)
        for index in self.order(number):
            image = self.images.resized(index, self.transform)
            top, left = (int(rng.integers(length - config.patch + 1)) for length in image.shape[:2])
            patch = image[top : top + config.patch, left : left + config.patch]
            chosen.append(patch[:, ::-1] if rng.random() < config.flip_probability else patch)
        unit: torch.Tensor = self.transform.normalise(np.stack(chosen))
        return unit.mul(2).sub(1)


class PatchDetector(Detector):
    """Scores patches one by one; the image score is the largest, the map is put together of theirs."""

    config: PatchConfig

    def judge(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores ``[P]`` and maps ``[P, side, side]`` of patches ``[P, 3, side, side]``, −1..1."""
        raise NotImplementedError

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores, maps = self.judge(patches_of(2 * batch - 1, self.config.patch))
        result = put_together(maps, self.config.transform.output_size)
        if self.config.sigma:
            result = gaussian_smooth(result, self.config.sigma)
        return scores.view(len(batch), -1).amax(dim=1), result
