"""A backbone learned without labels, in one of two ways.

"barlow-twins": two views of an image are to look alike, and no two features to say the same (Zbontar, Jing, Misra,
LeCun & Deny, ICML 2021; arXiv 2103.03230). "dense-contrast": places of an image are to look alike on another day, and
not alike when something has changed there (``andon.features.dense_contrast``).

On rendered images it is a form of pre-training on formulas (Kataoka et al. 2020, arXiv 2101.08515; for anomaly
detection Ugwu et al. 2024, arXiv 2405.06980). The result is a plain ResNet state dict: every method takes the file as
``weights``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import cv2
import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import nn
from torch.nn import functional as F

from andon.core import FloatArray, ImageArray, ProgressCallback, no_progress
from andon.data.transform import Transform
from andon.features.dense_contrast import dense_contrast_loss, three_views
from andon.features.resnet import ARCHITECTURES, ResNet, blank_resnet
from andon.training.loop import step_generator, train
from andon.training.recipe import (
    ImageStream,
    PretrainReport,
    Recipe,
    finished,
    store_weights,
    training_options,
)
from andon.weights.initialisation import orthogonal_initialisation

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


class _Twins(nn.Module):
    """Backbone, mean over positions, projector."""

    def __init__(self, recipe: BackboneRecipe) -> None:
        super().__init__()
        architecture = ARCHITECTURES[recipe.architecture]
        self.last_stage = recipe.last_stage
        self.backbone: ResNet = blank_resnet(architecture, last_stage=recipe.last_stage)
        width, hidden = architecture.channels[recipe.last_stage - 1], recipe.projection
        layers: list[nn.Module] = []
        for before in (width, hidden):
            layers += [nn.Linear(before, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
        self.projector = nn.Sequential(*layers, nn.Linear(hidden, hidden, bias=False))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        (features,) = self.backbone.stages(batch, (self.last_stage,))
        projected: torch.Tensor = self.projector(features.mean((2, 3)))
        return projected


class _Places(nn.Module):
    """Backbone, projector of every place, length 1."""

    def __init__(self, recipe: BackboneRecipe) -> None:
        super().__init__()
        architecture = ARCHITECTURES[recipe.architecture]
        self.last_stage = recipe.last_stage
        self.backbone: ResNet = blank_resnet(architecture, last_stage=recipe.last_stage)
        width, hidden = architecture.channels[recipe.last_stage - 1], recipe.projection
        self.projector = nn.Sequential(
            nn.Conv2d(width, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden // 2, 1),
        )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        (features,) = self.backbone.stages(batch, (self.last_stage,))
        return F.normalize(self.projector(features).float(), dim=1)


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


def pretrain_backbone(
    recipe: BackboneRecipe,
    output: Path,
    *,
    device: torch.device | str = "cpu",
    overwrite: bool = False,
    half: bool = False,
    checkpoint_seconds: float = 60.0,
    progress: ProgressCallback = no_progress,
) -> PretrainReport:
    """Trains a ResNet without labels and writes it to ``output`` (.safetensors); goes on where a killed run stopped.

    Use it with ``create_extractor(recipe.architecture, …, weights=output)``.

    Raises:
        AndonError: output exists, images not found, training that goes wrong.
    """
    device = torch.device(device)
    with finished(output, overwrite=overwrite):
        stream = ImageStream(recipe)
        with torch.random.fork_rng([]):
            torch.manual_seed(recipe.seed)
            network = _Twins(recipe) if recipe.objective == "barlow-twins" else _Places(recipe)
        orthogonal_initialisation(network.backbone, recipe.seed)
        network.to(device).train()

        def twins(step: int) -> tuple[torch.Tensor, ...]:
            rng = stream.random(step, "backbone")
            images = stream.images(stream.indices(step), recipe.image_size)
            views = [two_views(image, recipe.crop, rng) for image in images]
            return tuple(_NORMALISE.normalise(np.stack([view[k] for view in views])) for k in range(2))

        def twin_losses(number: int, batch: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
            # Two passes, because batch norms must not mix the views (as in the paper).
            return barlow_twins_losses(network(batch[0]).float(), network(batch[1]).float(), recipe.redundancy)

        def places(step: int) -> tuple[torch.Tensor, ...]:
            rng = stream.random(step, "backbone")
            images = list(stream.images(stream.indices(step), recipe.image_size))
            views = [three_views(p, images[k - 1], recipe.crop, rng) for k, p in enumerate(images)]
            masks = torch.from_numpy(np.stack([view[3] for view in views])).float()[:, None]
            return (*(_NORMALISE.normalise(np.stack([view[k] for view in views])) for k in range(3)), masks)

        def place_losses(number: int, batch: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
            # One pass: the views' statistics must not tell them apart.
            anchor, positive, changed = network(torch.cat(batch[:3])).chunk(3)
            generator = step_generator(recipe.seed, "places", number)
            return {"contrast": dense_contrast_loss(anchor, positive, changed, batch[3], generator)}

        dense = recipe.objective == "dense-contrast"
        report = train(
            place_losses if dense else twin_losses,
            places if dense else twins,
            steps=recipe.steps,
            modules={"network": network},
            optimiser=torch.optim.AdamW(
                network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
            ),
            schedule=recipe.rate,
            seed=recipe.seed,
            identity=recipe.identity,
            device=device,
            options=training_options(output, checkpoint_seconds),
            stage="backbone",
            progress=progress,
        )
        return store_weights(
            output,
            network.backbone.state_dict(),
            recipe,
            name="backbone",
            part=recipe.architecture,
            source=stream.source,
            training=report,
            figures={},
            half=half,
        )
