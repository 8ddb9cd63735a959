"""The patch teachers of Uninformed Students and GCAD: a small network that learns to describe patches (Bergmann et al.,
CVPR 2020; arXiv 1911.02357, section 3.1 and the experiments' setup).

Patches are crops of images zoomed to any size between 4 and 16 patches. Three losses, of which the paper's experiments
on images of products use the first and the third: knowledge distillation from a deep extractor, whose descriptor of a
patch is the mean over positions of its features; metric learning with triplets; and compactness, which keeps the
descriptor's dimensions uncorrelated. The paper distils a ResNet-18 on ImageNet; here any extractor and any images do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, NamedTuple, Unpack

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from andon._tools.networks import blank, default_weights
from andon.core import FloatArray, TrainingError
from andon.data import Transform
from andon.features import create_extractor
from andon.methods._patch_networks import DESCRIPTOR, PatchNetwork, ReceptiveField
from andon.training import PretrainOptions, PretrainReport, Recipe, RecipeRun, RecipeStage, run_recipe

__all__ = ["PatchTeacherRecipe", "compactness", "pretrain_patch_teacher", "triplet_loss"]

_NORMALISE = Transform(normalisation="imagenet")
_SMALLEST, _LARGEST = 4, 16
"""Sides to which images are zoomed, in patches."""


class PatchTeacherRecipe(Recipe):
    """Defaults: the paper's, but for images and extractor, which have to be at hand.

    Attributes:
        receptive_field: side of the patches in pixels.
        extractor, layers, weights: what is distilled (see ``create_extractor``): one stage.
        enlarge: factor by which patches are enlarged for the extractor.
        distillation, metric, compact: weights of the three losses.
        margin: δ of the triplets.
        noise: standard deviation of the Gaussian noise on a triplet's positive patch, of pixels in 0..1.
        grey: probability with which a triplet loses its colours.
    """

    name: ClassVar[str] = "uninformed-students-teacher"

    steps: int = Field(50_000, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(2e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    receptive_field: ReceptiveField = 33
    extractor: str = "efficientnet_lite0"
    layers: tuple[str, ...] = ("row6",)
    weights: str | None = None
    enlarge: int = Field(1, ge=1, le=16)
    distillation: float = Field(1.0, ge=0)
    metric: float = Field(0.0, ge=0)
    compact: float = Field(1.0, ge=0)
    margin: float = Field(1.0, gt=0)
    noise: float = Field(0.1, ge=0)
    grey: float = Field(0.1, ge=0, le=1)

    @property
    def part(self) -> str:
        return f"uninformed_students_teacher_{self.receptive_field}"


def triplet_loss(anchor: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, margin: float) -> torch.Tensor:
    """``max(0, δ + ‖a − p‖² − min(‖a − n‖², ‖p − n‖²))``, mean over the batch (equations 2 to 4): ``[B, C]`` each."""
    near = (anchor - positive).square().sum(1)
    far = torch.minimum((anchor - negative).square().sum(1), (positive - negative).square().sum(1))
    return F.relu(margin + near - far).mean()


def compactness(descriptors: torch.Tensor) -> torch.Tensor:
    """Sum of the squared correlations of different dimensions over a batch ``[B, C]``; 0 where none goes with another.

    The paper adds up the correlations themselves, which could fall below 0 without being any less redundant; squares
    are what the work takes that it follows (Tian, Fan & Wu, L2-Net, CVPR 2017).
    """
    centred = descriptors - descriptors.mean(0)
    scaled = centred / (centred.square().sum(0) + 1e-12).sqrt()
    correlation = scaled.T @ scaled
    return correlation.square().sum() - correlation.diagonal().square().sum()


class _Triplets(NamedTuple):
    """float32 ``[B, 3, p, p]`` each, ImageNet-normalised."""

    anchor: torch.Tensor
    positive: torch.Tensor
    negative: torch.Tensor


class _Networks(nn.Module):
    """The teacher, and the linear map from its descriptors to the extractor's, which is dropped afterwards."""

    def __init__(self, field: ReceptiveField, targets: int) -> None:
        super().__init__()
        self.teacher = PatchNetwork(field)
        self.decoder = nn.Conv2d(DESCRIPTOR, targets, 1)


class _PatchTeacherStage(RecipeStage[PatchTeacherRecipe, _Triplets]):
    name = "distillation"
    channels_last = False
    network: _Networks

    def __init__(self, run: RecipeRun[PatchTeacherRecipe]) -> None:
        recipe = run.recipe
        self.extractor = create_extractor(recipe.extractor, recipe.layers, recipe.weights).to(run.device)
        self.used = (self.extractor.weights,)
        network = blank(lambda: _Networks(recipe.receptive_field, sum(self.extractor.channels)))
        default_weights(network, recipe.seed, bias_first=False)
        super().__init__(run, network)

    @property
    def identity(self) -> str:
        return json.dumps([self.recipe.identity, self.extractor.fingerprint])

    def batch(self, number: int) -> _Triplets:
        """A triplet of every image of the step; the negative patch is of the next image."""
        recipe, field = self.recipe, self.recipe.receptive_field
        rng = self.stream.random(number, "patches")
        side = int(rng.integers(_SMALLEST * field, _LARGEST * field + 1))
        indices = self.stream.indices(number)
        images = list(self.stream.images(indices, side))
        triplets = []
        for image, other in zip(images, [*images[1:], images[0]], strict=True):
            y, x, b, a = (int(v) for v in rng.integers(0, side - field + 1, 4))
            dy, dx = (int(v) for v in rng.integers(-((field - 1) // 4), (field - 1) // 4 + 1, 2))
            near = (int(np.clip(v, 0, side - field)) for v in (y + dy, x + dx))
            patches = [
                picked[row : row + field, column : column + field]
                for picked, (row, column) in ((image, (y, x)), (image, tuple(near)), (other, (b, a)))
            ]
            if rng.random() < recipe.grey:
                patches = [np.repeat(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) for p in patches]
            triplets.append(patches)
        anchor, positive, negative = (np.stack(column) for column in zip(*triplets, strict=True))
        noise: FloatArray = rng.normal(0, 255 * recipe.noise, positive.shape).astype(np.float32)
        noisy = np.clip(np.rint(positive + noise), 0, 255).astype(np.uint8)
        return _Triplets(*(_NORMALISE.normalise(part) for part in (anchor, noisy, negative)))

    @torch.no_grad()
    def targets(self, patches: torch.Tensor) -> torch.Tensor:
        """The extractor's descriptors ``[B, T]``."""
        if self.recipe.enlarge > 1:
            patches = F.interpolate(patches, scale_factor=self.recipe.enlarge, mode="bilinear", align_corners=False)
        return torch.cat([stage.mean((2, 3)) for stage in self.extractor(patches)], dim=1)

    def decoded(self, descriptors: torch.Tensor) -> torch.Tensor:
        """What the teacher's descriptors say the extractor's are, ``[B, T]``."""
        said: torch.Tensor = self.network.decoder(descriptors[:, :, None, None])[:, :, 0, 0]
        return said

    def losses(self, batch: _Triplets) -> dict[str, torch.Tensor]:
        recipe, describe = self.recipe, self.network.teacher.describe
        anchor = describe(batch.anchor)
        losses: dict[str, torch.Tensor] = {}
        if recipe.distillation:
            distance = (self.decoded(anchor) - self.targets(batch.anchor)).square().sum(1).mean()
            losses["distillation"] = recipe.distillation * distance
        if recipe.metric:
            positive, negative = describe(batch.positive), describe(batch.negative)
            losses["metric"] = recipe.metric * triplet_loss(anchor, positive, negative, recipe.margin)
        if recipe.compact:
            losses["compactness"] = recipe.compact * compactness(anchor)
        return losses

    def result(self) -> tuple[nn.Module, dict[str, float]]:
        self.network.eval()
        return self.network.teacher, self._figures() if self.stream.held_out and self.recipe.distillation else {}

    @torch.no_grad()
    def _figures(self) -> dict[str, float]:
        """On the patch in the middle of every held-out image, at 8 patches a side."""
        field = self.recipe.receptive_field
        first = (8 * field - field) // 2
        shown = [
            i[first : first + field, first : first + field] for i in self.stream.images(self.stream.held_out, 8 * field)
        ]
        patches = _NORMALISE.normalise(np.stack(shown)).to(self.device)
        wanted = self.targets(patches)
        power = (wanted - wanted.mean(0)).square().sum()
        if not float(power):
            name = self.stream.source.name
            raise TrainingError(f"{name}: the extractor says the same of every patch; choose other images")
        error = (self.decoded(self.network.teacher.describe(patches)) - wanted).square().sum()
        return {"explained variance": 1 - float(error / power)}


def pretrain_patch_teacher(
    recipe: PatchTeacherRecipe, output: Path, **options: Unpack[PretrainOptions]
) -> PretrainReport:
    """Distils an extractor into a patch network and writes it to ``output`` (.safetensors); see ``run_recipe``.

    Figures: "explained variance" of the extractor's descriptors of held-out patches, absent where none were held out.

    Raises:
        AndonError: output exists, images or extractor not found, training that goes wrong.
    """
    return run_recipe(recipe, output, _PatchTeacherStage, **options)
