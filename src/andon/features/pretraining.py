"""A backbone learned without labels, in one of two ways.

"barlow-twins": two views of an image are to look alike, and no two features to say the same (Zbontar, Jing, Misra,
LeCun & Deny, ICML 2021; arXiv 2103.03230). "dense-contrast": places of an image are to look alike on another day, and
not alike when something has changed there (``andon.features.dense_contrast``).

On rendered images it is a form of pre-training on formulas (Kataoka et al. 2020, arXiv 2101.08515; for anomaly
detection Ugwu et al. 2024, arXiv 2405.06980). The result is a plain ResNet state dict: every method takes the file as
``weights``.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Unpack, cast

import cv2
import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import nn
from torch.nn import functional as F

from andon._tools.networks import unfilled
from andon._tools.seeds import step_generator
from andon.core import FloatArray, ImageArray
from andon.data import Transform
from andon.features.dense_contrast import dense_contrast_loss, three_views
from andon.features.resnet import ARCHITECTURES, ResNet
from andon.training import PretrainOptions, PretrainReport, Recipe, RecipeRun, RecipeStage, run_recipe
from andon.weights import orthogonal_initialisation

__all__ = ["BackboneRecipe", "barlow_twins_losses", "pretrain_backbone", "two_views"]

_NORMALISE = Transform(normalisation="imagenet")


class BackboneRecipe(Recipe):
    """Options; the loss's are those of the paper, the network and batch are small enough for a CPU.

    Attributes:
        objective: "barlow-twins" or "dense-contrast".
        architecture: "resnet18", "resnet34", "resnet50" or "wide_resnet50_2".
        last_stage: the network is trained, and stored, up to this stage (1..4).
        image_size: side of the rendered or resized images.
        crop: side of the views.
        projection: width of the projector: of its two hidden layers and its output, or (dense-contrast) of its hidden
            layer, the output having half of it.
        redundancy: weight λ of Barlow Twins' off-diagonal terms.
    """

    name: ClassVar[str] = "backbone"

    steps: int = Field(20_000, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-6, ge=0)
    schedule: str = Field("cosine", pattern="constant|cosine")
    objective: Literal["barlow-twins", "dense-contrast"] = "barlow-twins"
    architecture: str = "resnet18"
    last_stage: int = Field(4, ge=1, le=4)
    image_size: int = Field(192, ge=32, le=1024)
    crop: int = Field(96, ge=32, le=512)
    projection: int = Field(512, ge=2, le=8192)
    redundancy: float = Field(5e-3, ge=0)

    @property
    def part(self) -> str:
        return self.architecture

    @field_validator("architecture")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ARCHITECTURES:
            raise ValueError(f"must be one of {', '.join(ARCHITECTURES)}")
        return name

    @model_validator(mode="after")
    def _crops_fit(self) -> BackboneRecipe:
        if self.objective == "dense-contrast" and self.crop > self.image_size:
            raise ValueError(f"crop {self.crop} is larger than the images ({self.image_size})")
        return self


class _Projected(nn.Module):
    """Backbone, and a projector that is thrown away afterwards."""

    projector: nn.Module

    def __init__(self, recipe: BackboneRecipe) -> None:
        super().__init__()
        self.last_stage = recipe.last_stage
        architecture = ARCHITECTURES[recipe.architecture]
        self.backbone: ResNet = unfilled(lambda: ResNet(architecture, last_stage=recipe.last_stage))
        self.width = architecture.channels[recipe.last_stage - 1]

    def features(self, batch: torch.Tensor) -> torch.Tensor:
        """The backbone's last stage, ``[B, C, h, w]``."""
        (features,) = self.backbone.stages(batch, (self.last_stage,))
        return features


class _Twins(_Projected):
    """Mean over positions, projector."""

    def __init__(self, recipe: BackboneRecipe) -> None:
        super().__init__(recipe)
        hidden = recipe.projection
        layers: list[nn.Module] = []
        for before in (self.width, hidden):
            layers += [nn.Linear(before, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
        self.projector = nn.Sequential(*layers, nn.Linear(hidden, hidden, bias=False))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.projector(self.features(batch).mean((2, 3)))
        return projected


class _Places(_Projected):
    """Projector of every place, length 1."""

    def __init__(self, recipe: BackboneRecipe) -> None:
        super().__init__(recipe)
        hidden = recipe.projection
        self.projector = nn.Sequential(
            nn.Conv2d(self.width, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden // 2, 1),
        )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.projector(self.features(batch)).float(), dim=1)


def barlow_twins_losses(first: torch.Tensor, second: torch.Tensor, redundancy: float) -> dict[str, torch.Tensor]:
    """The two terms of the loss on embeddings ``[B, D]`` of two views (equation 1 of the paper).

    With C the cross-correlation over the batch: "invariance" Σ(1 − Cᵢᵢ)², "redundancy" λ·Σ_{i≠j} Cᵢⱼ²; both divided by
    D, so that their size does not depend on the projector.
    """
    count, width = first.shape

    def standardised(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(0)) / (x.std(0, correction=0) + 1e-5)

    correlation = standardised(first).T @ standardised(second) / count
    diagonal = correlation.diagonal()
    return {
        "invariance": (1 - diagonal).square().sum() / width,
        "redundancy": redundancy * (correlation.square().sum() - diagonal.square().sum()) / width,
    }


def two_views(image: ImageArray, side: int, rng: np.random.Generator) -> tuple[ImageArray, ImageArray]:
    """Two random views uint8 ``[side, side, 3]`` of an image.

    Crop of 20..100 % of the area, turned by quarters and mirrored, brightness, contrast and saturation scaled by
    0.6..1.4, grey with probability 0.2, blurred with probability 0.3. Hue stays: on a part its colour is no accident.
    """
    return _view(image, side, rng), _view(image, side, rng)


def _view(image: ImageArray, side: int, rng: np.random.Generator) -> ImageArray:
    height, width = image.shape[:2]
    area, aspect = rng.uniform(0.2, 1.0), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    h = int(np.clip(round(height * np.sqrt(area / aspect)), 8, height))
    w = int(np.clip(round(width * np.sqrt(area * aspect)), 8, width))
    y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    interpolation = cv2.INTER_AREA if min(h, w) > side else cv2.INTER_LINEAR
    view: FloatArray = cv2.resize(image[y : y + h, x : x + w], (side, side), interpolation=interpolation).astype(
        np.float32
    )
    view = np.rot90(view, int(rng.integers(4)))
    if rng.random() < 0.5:
        view = view[:, ::-1]
    brightness, contrast, saturation = rng.uniform(0.6, 1.4, 3).astype(np.float32)
    grey = view.mean(axis=2, keepdims=True)
    view = grey + (view - grey) * (np.float32(0) if rng.random() < 0.2 else saturation)
    mean = view.mean()
    view = (mean + (view - mean) * contrast) * brightness
    if rng.random() < 0.3:
        sigma = float(rng.uniform(0.3, 0.02 * side))
        view = cast(FloatArray, cv2.GaussianBlur(view, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE))
    return np.clip(view, 0, 255).astype(np.uint8)


class _Batch(NamedTuple):
    """Views float32 ``[B, 3, H, W]``; where places are contrasted, float32 ``[B, 1, H, W]``, 1 on made-up defects."""

    number: int
    views: tuple[torch.Tensor, ...]
    mask: torch.Tensor | None = None


class _BackboneStage(RecipeStage[BackboneRecipe, _Batch]):
    name = "backbone"
    network: _Projected

    def __init__(self, run: RecipeRun[BackboneRecipe]) -> None:
        with torch.random.fork_rng([]):
            torch.manual_seed(run.recipe.seed)
            network = self.new_network(run.recipe)
        orthogonal_initialisation(network.backbone, run.recipe.seed)
        super().__init__(run, network)

    @abstractmethod
    def new_network(self, recipe: BackboneRecipe) -> _Projected:
        """Backbone and projector, filled from torch's generator."""

    def optimiser(self) -> torch.optim.Optimizer:
        recipe = self.recipe
        return torch.optim.AdamW(self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def images(self, number: int) -> tuple[list[ImageArray], np.random.Generator]:
        """A step's images, and the generator of its views."""
        images = list(self.stream.images(self.stream.indices(number), self.recipe.image_size))
        return images, self.stream.random(number, "backbone")

    def result(self) -> tuple[nn.Module, dict[str, float]]:
        return self.network.backbone, {}


class _TwinStage(_BackboneStage):
    def new_network(self, recipe: BackboneRecipe) -> _Projected:
        return _Twins(recipe)

    def batch(self, number: int) -> _Batch:
        images, rng = self.images(number)
        views = [two_views(image, self.recipe.crop, rng) for image in images]
        return _Batch(number, tuple(_NORMALISE.normalise(np.stack(view)) for view in zip(*views, strict=True)))

    def losses(self, batch: _Batch) -> dict[str, torch.Tensor]:
        # Two passes, because batch norms must not mix the views (as in the paper).
        first, second = (self.network(view).float() for view in batch.views)
        return barlow_twins_losses(first, second, self.recipe.redundancy)


class _PlaceStage(_BackboneStage):
    def new_network(self, recipe: BackboneRecipe) -> _Projected:
        return _Places(recipe)

    def batch(self, number: int) -> _Batch:
        images, rng = self.images(number)
        views = [three_views(image, images[k - 1], self.recipe.crop, rng) for k, image in enumerate(images)]
        *stacks, masks = (np.stack(view) for view in zip(*views, strict=True))
        mask = torch.from_numpy(masks).float()[:, None]
        return _Batch(number, tuple(_NORMALISE.normalise(stack) for stack in stacks), mask)

    def losses(self, batch: _Batch) -> dict[str, torch.Tensor]:
        assert batch.mask is not None
        # One pass: the views' statistics must not tell them apart.
        anchor, positive, changed = self.network(torch.cat(batch.views)).chunk(3)
        generator = step_generator(self.recipe.seed, "places", batch.number)
        return {"contrast": dense_contrast_loss(anchor, positive, changed, batch.mask, generator)}


def pretrain_backbone(recipe: BackboneRecipe, output: Path, **options: Unpack[PretrainOptions]) -> PretrainReport:
    """Trains a ResNet without labels and writes it to ``output`` (.safetensors); see ``run_recipe``.

    Use it with ``create_extractor(recipe.architecture, …, weights=output)``.

    Raises:
        AndonError: output exists, images not found, training that goes wrong.
    """
    stage = _PlaceStage if recipe.objective == "dense-contrast" else _TwinStage
    return run_recipe(recipe, output, stage, **options)
