"""EfficientAD's teacher: a patch description network that imitates a deep extractor (Batzner, Heckler & König, WACV
2024; arXiv 2303.14535, section 3.1 and the algorithm of its appendix A.3).

The extractor sees images at 512×512 and gives 64×64 vectors; the network sees them at 256×256 and gives one vector
each 4 pixels. Targets are normalised channel by channel. The paper distils a Wide-ResNet-101-2 on ImageNet; here any
extractor and any images do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Unpack

import cv2
import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from andon._tools.files import written_atomically
from andon._tools.networks import blank
from andon.core import ImageArray, TrainingError
from andon.data import Transform
from andon.features import Extractor, create_extractor
from andon.methods.efficientad.pdn import PDN, RECEPTIVE_FIELD, TEACHER_CHANNELS
from andon.training import PretrainOptions, PretrainReport, Recipe, RecipeRun, RecipeStage, run_recipe
from andon.weights import orthogonal_initialisation

__all__ = ["ChannelStatistics", "TeacherRecipe", "extractor_targets", "pretrain_teacher", "solve_last_layer"]

_IMAGE = 512
_GRID = 64
_STRIDE = 4
_WHOLE = (_IMAGE // 2 - RECEPTIVE_FIELD) // _STRIDE + 1
"""Vectors along one side of a whole image of 256×256 without padding: 56."""
_OFFSET = (_GRID - _WHOLE) // 2
"""An output without padding is the one with padding 4 rows and columns further on; those are the 64×64 of the paper."""
_NORMALISE = Transform(normalisation="imagenet")
_STATISTICS_BATCH = 4


class TeacherRecipe(Recipe):
    """Defaults: the paper's, but for images and extractor, which have to be at hand.

    Attributes:
        size: of the network.
        extractor, layers, weights: what is imitated (see ``create_extractor``); without layers andon-features' cells,
            rows 3 and 5 of an EfficientNet-Lite, layers 2 and 3 of a ResNet; without weights the extractor's default.
        neighbourhood: side of the neighbourhood over which features are averaged; None: 3 as in Patchcore, but 1 for
            andon-features, which averages by itself.
        statistics_images: images over which channels' means and deviations are taken.
        grey: probability with which an image loses its colours.
        window: vectors along a side of the window of each image that is learned from at a step; 56 is the whole
            image. Smaller windows see more different images in the same time. (The paper learns from whole
            images with padding; within them, outputs are the same.)
        closed_form: images from which the last layer, which is linear, is solved by ridge regression after training.
            0, the paper's way, leaves it to the optimiser; after a short run the solved layer is better. (Solved before
            training as well, it was lost within a step of Adam.)
    """

    name: ClassVar[str] = "efficientad-teacher"

    size: Literal["small", "medium"] = "small"
    extractor: str = "andon-features"
    layers: tuple[str, ...] | None = None
    weights: str | None = None
    neighbourhood: Literal[1, 3] | None = None
    weight_decay: float = Field(1e-5, ge=0)
    statistics_images: int = Field(10_000, ge=1)
    grey: float = Field(0.1, ge=0, le=1)
    window: int = Field(_WHOLE, ge=1, le=_WHOLE)
    closed_form: int = Field(0, ge=0)

    @property
    def part(self) -> str:
        return f"efficientad_teacher_{self.size}"

    def create_extractor(self) -> Extractor:
        """What is imitated."""
        return create_extractor(self.extractor, self.layers or self._usual_layers, self.weights)

    @property
    def _usual_layers(self) -> tuple[str, ...]:
        """The stages at strides 8 and 16, as in the paper: the first of them has the targets' 64×64 vectors."""
        if self._designed:
            return ("cells",)
        return ("row3", "row5") if self.extractor.startswith("efficientnet_lite") else ("layer2", "layer3")

    def targets(self, extractor: Extractor, batch: torch.Tensor) -> torch.Tensor:
        """``extractor_targets`` with this recipe's neighbourhood."""
        return extractor_targets(extractor, batch, neighbourhood=self.neighbourhood or (1 if self._designed else 3))

    @property
    def _designed(self) -> bool:
        return self.extractor == "andon-features"


class ChannelStatistics(nn.Module):
    """Mean and standard deviation of every target channel; normalises ``[B, C, h, w]``."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, targets: torch.Tensor) -> torch.Tensor:
        return (targets - self.mean[:, None, None]) / self.std[:, None, None]


@torch.no_grad()
def extractor_targets(
    extractor: Extractor, batch: torch.Tensor, channels: int = TEACHER_CHANNELS, neighbourhood: int = 3
) -> torch.Tensor:
    """What the network is to say: ``[B, 3, 512, 512]`` (ImageNet-normalised) to ``[B, channels, 64, 64]``.

    As in Patchcore's aggregation, which the paper takes over: stages are brought to one grid, each is pooled over
    neighbouring channels to an equal share of ``channels``. ``neighbourhood`` is the side of the square over which each
    stage is averaged (Patchcore's 3×3, as a mean).
    """
    stages = extractor(batch)
    shares = [channels // len(stages) + (number < channels % len(stages)) for number in range(len(stages))]
    pooled = []
    for stage, share in zip(stages, shares, strict=True):
        features = F.avg_pool2d(stage, neighbourhood, 1, neighbourhood // 2, count_include_pad=False)
        if features.shape[-2:] != (_GRID, _GRID):
            features = F.interpolate(features, size=(_GRID, _GRID), mode="bilinear", align_corners=False)
        # As a product with the pooling's matrix, which is many times faster than pooling each position's channels.
        matrix = F.adaptive_avg_pool1d(torch.eye(features.shape[1], device=features.device), share).T
        pooled.append(F.conv2d(features, matrix[:, :, None, None]))
    return torch.cat(pooled, 1)


def _halved(image: ImageArray) -> ImageArray:
    return np.asarray(cv2.resize(image, (_IMAGE // 2, _IMAGE // 2), interpolation=cv2.INTER_AREA))


@torch.no_grad()
def solve_last_layer(network: PDN, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], ridge: float = 0.01) -> None:
    """Sets the last convolution to the ridge regression of targets on what it sees, in place.

    Args:
        pairs: images ``[B, 3, H, W]`` and targets ``[B, C, h, w]`` of the network's output size; used one by one.
        ridge: added to the diagonal of the normal equations, as a part of its mean. The bias is not shrunk.

    Memory: the square of the layer's inputs, (4·4·256 + 1)² numbers for the small network.
    """
    layer = network.last_layer
    inputs = layer.weight[0].numel() + 1
    gram = torch.zeros((inputs, inputs), device=layer.weight.device)
    moments = torch.zeros((inputs, layer.out_channels), device=layer.weight.device)
    for images, targets in pairs:
        patches = F.unfold(network.before_last_layer(images), layer.kernel_size)
        rows = patches.transpose(1, 2).flatten(0, 1)
        rows = torch.cat([rows, rows.new_ones((len(rows), 1))], 1)
        gram.addmm_(rows.T, rows)
        moments.addmm_(rows.T, targets.permute(0, 2, 3, 1).flatten(0, 2))
    matrix = gram.double()
    diagonal = matrix.diagonal()
    diagonal[:-1] += ridge * diagonal[:-1].mean()
    solution = torch.linalg.solve(matrix, moments.double()).float()
    layer.weight.copy_(solution[:-1].T.reshape(layer.weight.shape))
    layer.bias.copy_(solution[-1])  # type: ignore[union-attr]


class _Batch(NamedTuple):
    """Images float32 ``[B, 3, 512, 512]``, windows of them at half the size, the windows' places on the grid."""

    large: torch.Tensor
    small: torch.Tensor
    places: list[tuple[int, int]]


class _TeacherStage(RecipeStage[TeacherRecipe, _Batch]):
    name = "distillation"
    network: PDN

    def __init__(self, run: RecipeRun[TeacherRecipe]) -> None:
        self.extractor = run.recipe.create_extractor().to(run.device)
        self.used = (self.extractor.weights,)
        network = blank(lambda: PDN(run.recipe.size))
        orthogonal_initialisation(network, run.recipe.seed)
        super().__init__(run, network)
        self.statistics = self._statistics()

    @property
    def identity(self) -> str:
        return json.dumps([self.recipe.identity, self.extractor.fingerprint])

    def _statistics(self) -> ChannelStatistics:
        """Of the targets' channels; kept beside the checkpoint for a resumption."""
        path = self.run.beside("statistics")
        try:
            with safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get("identity") == self.identity:
                    return ChannelStatistics(file.get_tensor("mean"), file.get_tensor("std")).to(self.device)
        except (OSError, SafetensorError):
            pass  # not there, or not whole: it is computed
        statistics = self._computed_statistics()
        state = {name: tensor.cpu() for name, tensor in statistics.state_dict().items()}
        with written_atomically(path) as aside:
            aside.write_bytes(save(state, {"identity": self.identity}))
        return statistics

    def _computed_statistics(self) -> ChannelStatistics:
        """Two sums a channel over the images, in float64."""
        count, source = self.recipe.statistics_images, self.stream.source
        total = torch.zeros(TEACHER_CHANNELS, dtype=torch.float64, device=self.device)
        squares, seen = torch.zeros_like(total), 0
        images = self.stream.images([i if source.count is None else i % source.count for i in range(count)], _IMAGE)
        for start in range(0, count, _STATISTICS_BATCH):
            chosen = [next(images) for _ in range(min(_STATISTICS_BATCH, count - start))]
            batch = _NORMALISE.normalise(np.stack(chosen)).to(self.device)
            targets = self.recipe.targets(self.extractor, batch).double()
            total += targets.sum((0, 2, 3))
            squares += targets.square().sum((0, 2, 3))
            seen += len(chosen) * _GRID * _GRID
            self.run.progress("channel statistics", start + len(chosen), count)
        mean = total / seen
        deviation = (squares / seen - mean.square()).clamp_min(0).sqrt()
        # A channel that never changes says nothing: it stays 0 rather than becoming rounding noise.
        deviation = torch.where(deviation > 1e-6 * mean.abs() + 1e-12, deviation, torch.inf)
        return ChannelStatistics(mean.float(), deviation.float())

    def batch(self, number: int) -> _Batch:
        recipe, rng = self.recipe, self.stream.random(number, "teacher")
        side = _STRIDE * (recipe.window - 1) + RECEPTIVE_FIELD
        large, small, places = [], [], []
        for image in self.stream.images(self.stream.indices(number), _IMAGE):
            if rng.random() < recipe.grey:
                image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
            row, column = (int(v) for v in rng.integers(0, _WHOLE - recipe.window + 1, 2))
            y, x = _STRIDE * row, _STRIDE * column
            large.append(image)
            small.append(_halved(image)[y : y + side, x : x + side])
            places.append((row, column))
        return _Batch(_NORMALISE.normalise(np.stack(large)), _NORMALISE.normalise(np.stack(small)), places)

    def targets(self, large: torch.Tensor) -> torch.Tensor:
        """Normalised targets ``[B, C, 64, 64]``."""
        with torch.autocast(self.device.type, enabled=False):
            targets: torch.Tensor = self.statistics(self.recipe.targets(self.extractor, large))
        return targets

    def wanted(self, batch: _Batch) -> torch.Tensor:
        """What the network shall say of the windows."""
        window = self.recipe.window
        return torch.stack(
            [
                target[:, r + _OFFSET : r + _OFFSET + window, c + _OFFSET : c + _OFFSET + window]
                for target, (r, c) in zip(self.targets(batch.large), batch.places, strict=True)
            ]
        )

    def losses(self, batch: _Batch) -> dict[str, torch.Tensor]:
        return {"distillation": F.mse_loss(self.network(batch.small).float(), self.wanted(batch))}

    def result(self) -> tuple[nn.Module, dict[str, float]]:
        if self.recipe.closed_form:
            solve_last_layer(self.network, self._pairs(-(-self.recipe.closed_form // self.recipe.batch_size)))
        self.network.eval()
        return self.network, self._figures() if self.stream.held_out else {}

    def _pairs(self, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Windows and targets of ``count`` batches that no step has seen."""
        for number in range(count):
            large, small, places = self.batch(self.recipe.steps + number)
            on_device = _Batch(large.to(self.device), small.to(self.device), places)
            yield on_device.small, self.wanted(on_device)
            self.run.progress("last layer", number + 1, count)

    @torch.no_grad()
    def _figures(self) -> dict[str, float]:
        error = torch.zeros((), dtype=torch.float64, device=self.device)
        power = torch.zeros_like(error)
        whole = slice(_OFFSET, _OFFSET + _WHOLE)
        for image in self.stream.images(self.stream.held_out, _IMAGE):
            large = _NORMALISE.normalise(image[None]).to(self.device)
            small = _NORMALISE.normalise(_halved(image)[None]).to(self.device)
            wanted = self.targets(large)[..., whole, whole]
            error += (self.network(small) - wanted).square().double().mean()
            power += wanted.square().double().mean()
        if not float(power):
            name = self.stream.source.name
            raise TrainingError(f"{name}: the extractor says the same of every image; choose other images")
        return {"explained variance": 1 - float(error / power)}


def pretrain_teacher(recipe: TeacherRecipe, output: Path, **options: Unpack[PretrainOptions]) -> PretrainReport:
    """Distils an extractor into a PDN and writes it to ``output`` (.safetensors); see ``run_recipe``.

    Figures: "explained variance", 1 − mean squared error on held-out images (targets have variance 1), absent where
    none were held out.

    Cost: at 512 pixels an extraction an image, and training a network of 8 (small) or 25 (medium) GMAC on it.

    Raises:
        AndonError: output exists, images or extractor not found, training that goes wrong.
    """
    return run_recipe(recipe, output, _TeacherStage, **options)
