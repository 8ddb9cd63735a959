"""DSR's general discrete latent model, learned from images (Zavrtanik, Kristan & Skočaj, ECCV 2022; arXiv 2208.01521,
section 3.1; there on ImageNet). It reconstructs what it sees through two codebooks.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, NamedTuple, Unpack

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from andon._tools.networks import blank
from andon._tools.seeds import step_generator
from andon.data import Transform
from andon.methods.dsr.codebook import CODES, PART, DiscreteLatentModel
from andon.training import PretrainOptions, PretrainReport, Recipe, RecipeRun, RecipeStage, run_recipe
from andon.weights import orthogonal_initialisation

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

    name: ClassVar[str] = "dsr-codebook"

    steps: int = Field(100_000, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    codes: int = Field(CODES, ge=2, le=65_536)
    image_size: int = Field(256, ge=32, le=4096)
    crop: int = Field(256, ge=32, le=4096)
    commitment: float = Field(0.25, ge=0)
    decay: float = Field(0.99, gt=0, lt=1)
    revive: float = Field(0.05, ge=0)

    @property
    def part(self) -> str:
        return PART

    @model_validator(mode="after")
    def _check(self) -> CodebookRecipe:
        if self.crop % 8 or self.crop > self.image_size:
            raise ValueError(f"crop {self.crop} must be a multiple of 8 and at most image_size {self.image_size}")
        return self


class _Batch(NamedTuple):
    """Crops float32 ``[B, 3, H, W]`` in 0..1."""

    number: int
    crops: torch.Tensor


class _CodebookStage(RecipeStage[CodebookRecipe, _Batch]):
    name = "codebook"
    # Distances to 4096 codes are too close to each other for bfloat16.
    autocast = False

    def __init__(self, run: RecipeRun[CodebookRecipe]) -> None:
        recipe = run.recipe
        model = blank(
            lambda: DiscreteLatentModel(
                recipe.codes, commitment=recipe.commitment, decay=recipe.decay, revive=recipe.revive
            )
        )
        # Everything starts unused: the first batch fills the codebooks.
        orthogonal_initialisation(model, recipe.seed)
        super().__init__(run, model)

    def batch(self, number: int) -> _Batch:
        recipe, rng = self.recipe, self.stream.random(number, "codebook")
        crops = []
        for image in self.stream.images(self.stream.indices(number), recipe.image_size):
            y, x = (int(v) for v in rng.integers(0, recipe.image_size - recipe.crop + 1, 2))
            crop = image[y : y + recipe.crop, x : x + recipe.crop]
            crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
        return _Batch(number, _UNIT.normalise(np.stack(crops)))

    def losses(self, batch: _Batch) -> dict[str, torch.Tensor]:
        result = self.network(batch.crops, step_generator(self.recipe.seed, "revive", batch.number))
        return {
            "reconstruction": F.mse_loss(result.reconstruction, batch.crops),
            "commitment top": result.top.commitment,
            "commitment bottom": result.bottom.commitment,
        }

    @torch.no_grad()
    def result(self) -> tuple[nn.Module, dict[str, float]]:
        model, stream = self.network.eval(), self.stream
        if not stream.held_out:
            return model, {}
        errors, floors = [], []
        used: tuple[set[int], set[int]] = set(), set()
        for image in stream.images(stream.held_out, self.recipe.image_size // 8 * 8):
            batch = _UNIT.normalise(image[None]).to(self.device)
            result = model(batch)
            errors.append(float(F.mse_loss(result.reconstruction.clamp(0, 1), batch)))
            floors.append(float(batch.var((2, 3), correction=0).mean()))
            for seen, level in zip(used, (result.top, result.bottom), strict=True):
                seen.update(level.indices.unique().tolist())
        return model, {
            "PSNR": _psnr(errors),
            "PSNR of the mean colour": _psnr(floors),
            "codes used top": float(len(used[0])),
            "codes used bottom": float(len(used[1])),
        }


def _psnr(errors: list[float]) -> float:
    """Of the mean squared error over all images, in dB."""
    return -10 * math.log10(max(sum(errors) / len(errors), 1e-12))


def pretrain_codebook(recipe: CodebookRecipe, output: Path, **options: Unpack[PretrainOptions]) -> PretrainReport:
    """Trains the model and writes it to ``output`` (.safetensors); see ``run_recipe``.

    Figures, on held-out images (absent where none were held out): "PSNR" of the reconstruction in dB, "PSNR of the
    mean colour" as the floor, and how many codes of each level occurred.

    Cost: 29 GMAC an image of 256×256 forth and back, 9 of them the search in the codebooks.

    Raises:
        AndonError: output exists, images not found, training that goes wrong.
    """
    return run_recipe(recipe, output, _CodebookStage, **options)
