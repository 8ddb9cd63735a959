"""DSR's general discrete latent model, learned from images (Zavrtanik, Kristan & Skočaj, ECCV 2022; arXiv 2208.01521,
section 3.1; there on ImageNet). It reconstructs what it sees through two codebooks.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from andon.core import ProgressCallback, no_progress
from andon.data.transform import Transform
from andon.methods.dsr.codebook import CODES, DiscreteLatentModel
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

__all__ = ["CodebookRecipe", "pretrain_codebook"]

_UNIT = Transform(normalisation="unit")


class CodebookRecipe(Recipe):
    """Options; sizes, commitment weight and decay are those of the published model.

    Attributes:
        codes: of each codebook; DSR loads 4096.
        image_size: images are rendered at, or resized to, squares of this side.
        crop: side of the random crop of each that a step sees, a multiple of 8.
        commitment: weight of the commitment loss.
        decay: of the codebooks' running means.
        revive: running count below which an unused code is moved to where vectors are. The published code lacks it,
            and leaves codes that were far from everything in the beginning unused for good.
    """

    steps: int = Field(100_000, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    codes: int = Field(CODES, ge=2, le=65_536)
    image_size: int = Field(256, ge=32, le=4096)
    crop: int = Field(256, ge=32, le=4096)
    commitment: float = Field(0.25, ge=0)
    decay: float = Field(0.99, gt=0, lt=1)
    revive: float = Field(0.05, ge=0)

    @model_validator(mode="after")
    def _check(self) -> CodebookRecipe:
        if self.crop % 8 or self.crop > self.image_size:
            raise ValueError(f"crop {self.crop} must be a multiple of 8 and at most image_size {self.image_size}")
        return self


def pretrain_codebook(
    recipe: CodebookRecipe,
    output: Path,
    *,
    device: torch.device | str = "cpu",
    overwrite: bool = False,
    half: bool = False,
    checkpoint_seconds: float = 60.0,
    progress: ProgressCallback = no_progress,
) -> PretrainReport:
    """Trains the model and writes it to ``output`` (.safetensors); goes on where a killed run stopped.

    Figures, on held-out images (absent where none were held out): "PSNR" of the reconstruction in dB, "PSNR of the
    mean colour" as the floor, and how many codes of each level occurred.

    Cost: 29 GMAC an image of 256×256 forth and back, 9 of them the search in the codebooks.

    Raises:
        AndonError: output exists, images not found, training that goes wrong.
    """
    device = torch.device(device)
    with finished(output, overwrite=overwrite):
        stream = ImageStream(recipe)
        model = DiscreteLatentModel(
            recipe.codes, commitment=recipe.commitment, decay=recipe.decay, revive=recipe.revive
        )
        orthogonal_initialisation(model, recipe.seed)
        # Everything starts unused: the first batch fills the codebooks.
        model.to(device).train()

        def batches(step: int) -> torch.Tensor:
            rng = stream.random(step, "codebook")
            crops = []
            for image in stream.images(stream.indices(step), recipe.image_size):
                y, x = (int(v) for v in rng.integers(0, recipe.image_size - recipe.crop + 1, 2))
                crop = image[y : y + recipe.crop, x : x + recipe.crop]
                crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
            return _UNIT.normalise(np.stack(crops))

        def step(number: int, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            result = model(batch, step_generator(recipe.seed, "revive", number))
            return {
                "reconstruction": F.mse_loss(result.reconstruction, batch),
                "commitment top": result.top.commitment,
                "commitment bottom": result.bottom.commitment,
            }

        parameters = [p for p in model.parameters() if p.requires_grad]
        report = train(
            step,
            batches,
            steps=recipe.steps,
            modules={"model": model},
            optimiser=torch.optim.Adam(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay),
            schedule=recipe.rate,
            seed=recipe.seed,
            identity=recipe.identity,
            device=device,
            # Distances to 4096 codes are too close to each other for bfloat16.
            options=training_options(output, checkpoint_seconds, autocast=False),
            stage="codebook",
            progress=progress,
        )
        return store_weights(
            output,
            model.state_dict(),
            recipe,
            name="dsr-codebook",
            part="dsr_discrete_latent_model",
            source=stream.source,
            training=report,
            figures=_figures(stream, model.eval(), device),
            half=half,
        )


@torch.no_grad()
def _figures(stream: ImageStream, model: nn.Module, device: torch.device) -> dict[str, float]:
    if not stream.held_out:
        return {}
    size = stream.recipe.model_dump()["image_size"] // 8 * 8
    errors, floors = [], []
    used: tuple[set[int], set[int]] = set(), set()
    for image in stream.images(stream.held_out, size):
        batch = _UNIT.normalise(image[None]).to(device)
        result = model(batch)
        errors.append(float(F.mse_loss(result.reconstruction.clamp(0, 1), batch)))
        floors.append(float(batch.var((2, 3), correction=0).mean()))
        for seen, level in zip(used, (result.top, result.bottom), strict=True):
            seen.update(level.indices.unique().tolist())
    return {
        "PSNR": _psnr(errors),
        "PSNR of the mean colour": _psnr(floors),
        "codes used top": float(len(used[0])),
        "codes used bottom": float(len(used[1])),
    }


def _psnr(errors: list[float]) -> float:
    """Of the mean squared error over all images, in dB."""
    return -10 * math.log10(max(sum(errors) / len(errors), 1e-12))
