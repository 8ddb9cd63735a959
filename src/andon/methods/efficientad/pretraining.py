"""EfficientAD's teacher: a patch description network that imitates a deep extractor (Batzner, Heckler & König, WACV
2024; arXiv 2303.14535, section 3.1 and the algorithm of its appendix A.3).

The extractor sees images at 512×512 and gives 64×64 vectors; the network sees them at 256×256 and gives one vector
each 4 pixels. Targets are normalised channel by channel. The paper distils a Wide-ResNet-101-2 on ImageNet; here any
extractor and any images do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from andon._tools.files import written_atomically
from andon.core import AndonError, ImageArray, ProgressCallback, no_progress
from andon.data.transform import Transform
from andon.features.base import FeatureExtractor
from andon.features.extractor import create_extractor
from andon.methods.efficientad.pdn import PDN, RECEPTIVE_FIELD, TEACHER_CHANNELS
from andon.training.loop import train
from andon.training.recipe import (
    ImageStream,
    PretrainReport,
    Recipe,
    checkpoint_of,
    finished,
    store_weights,
    training_options,
)
from andon.weights.initialisation import orthogonal_initialisation

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
_Batch = tuple[torch.Tensor, torch.Tensor, list[tuple[int, int]]]
"""Images at 512×512, windows of them at half the size, and the windows' places on the grid of vectors."""


class TeacherRecipe(Recipe):
    """Defaults: the paper's, but for images and extractor, which have to be at hand.

    Attributes:
        size: of the network.
        extractor, layers, weights: what is imitated (see ``create_extractor``); None takes the extractor's defaults.
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

    def create_targets(self, device: torch.device) -> tuple[FeatureExtractor, Callable[[torch.Tensor], torch.Tensor]]:
        """The extractor, and the function from images to targets (``extractor_targets``)."""
        own = self.extractor == "andon-features"
        layers = self.layers or (("cells",) if own else ("layer2", "layer3"))
        extractor = create_extractor(self.extractor, layers, self.weights).to(device)
        neighbourhood = self.neighbourhood or (1 if own else 3)
        return extractor, lambda batch: extractor_targets(extractor, batch, neighbourhood=neighbourhood)


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
    extractor: FeatureExtractor, batch: torch.Tensor, channels: int = TEACHER_CHANNELS, neighbourhood: int = 3
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


def _statistics(
    recipe: TeacherRecipe,
    stream: ImageStream,
    fingerprint: str,
    embed: Callable[[torch.Tensor], torch.Tensor],
    output: Path,
    device: torch.device,
    progress: ProgressCallback,
) -> ChannelStatistics:
    """Two sums a channel over the images, in float64; kept beside the checkpoint for a resumption."""
    path = checkpoint_of(output).with_suffix(".statistics")
    identity = json.dumps([recipe.identity, fingerprint])
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("identity") == identity:
                return ChannelStatistics(file.get_tensor("mean"), file.get_tensor("std")).to(device)
    except (OSError, SafetensorError):
        pass  # not there, or not whole: it is computed
    count = recipe.statistics_images
    total = torch.zeros(TEACHER_CHANNELS, dtype=torch.float64, device=device)
    squares, seen = torch.zeros_like(total), 0
    numbers = range(count) if stream.source.count is None else [i % stream.source.count for i in range(count)]
    images = stream.images(list(numbers), _IMAGE)
    for start in range(0, count, _STATISTICS_BATCH):
        chosen = [next(images) for _ in range(min(_STATISTICS_BATCH, count - start))]
        targets = embed(_NORMALISE.normalise(np.stack(chosen)).to(device)).double()
        total += targets.sum((0, 2, 3))
        squares += targets.square().sum((0, 2, 3))
        seen += len(chosen) * _GRID * _GRID
        progress("channel statistics", start + len(chosen), count)
    mean = total / seen
    deviation = (squares / seen - mean.square()).clamp_min(0).sqrt()
    # A channel that never changes says nothing: it stays 0 rather than becoming rounding noise.
    deviation = torch.where(deviation > 1e-6 * mean.abs() + 1e-12, deviation, torch.inf)
    statistics = ChannelStatistics(mean.float(), deviation.float())
    with written_atomically(path) as aside:
        aside.write_bytes(save({"mean": statistics.mean.cpu(), "std": statistics.std.cpu()}, {"identity": identity}))
    return statistics


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


def pretrain_teacher(
    recipe: TeacherRecipe,
    output: Path,
    *,
    device: torch.device | str = "cpu",
    overwrite: bool = False,
    half: bool = False,
    checkpoint_seconds: float = 60.0,
    progress: ProgressCallback = no_progress,
) -> PretrainReport:
    """Distils an extractor into a PDN and writes it to ``output`` (.safetensors); goes on where a killed run stopped.

    Figures: "explained variance", 1 − mean squared error on held-out images (targets have variance 1), absent where
    none were held out.

    Cost: at 512 pixels an extraction an image, and training a network of 8 (small) or 25 (medium) GMAC on it.

    Raises:
        AndonError: output exists, images or extractor not found, training that goes wrong.
    """
    device = torch.device(device)
    with finished(output, overwrite=overwrite):
        stream = ImageStream(recipe)
        extractor, embed = recipe.create_targets(device)
        statistics = _statistics(recipe, stream, extractor.fingerprint, embed, output, device, progress)
        with torch.random.fork_rng([]):  # what torch fills it with is overwritten; its generator is not ours to move
            network = PDN(recipe.size)
        orthogonal_initialisation(network, recipe.seed)
        network.to(device).train()

        side = _STRIDE * (recipe.window - 1) + RECEPTIVE_FIELD

        def batches(step: int) -> _Batch:
            rng = stream.random(step, "teacher")
            large, small, places = [], [], []
            for image in stream.images(stream.indices(step), _IMAGE):
                if rng.random() < recipe.grey:
                    image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
                row, column = (int(v) for v in rng.integers(0, _WHOLE - recipe.window + 1, 2))
                y, x = _STRIDE * row, _STRIDE * column
                large.append(image)
                small.append(_halved(image)[y : y + side, x : x + side])
                places.append((row, column))
            return _NORMALISE.normalise(np.stack(large)), _NORMALISE.normalise(np.stack(small)), places

        def wanted(batch: _Batch) -> torch.Tensor:
            large, _, places = batch
            with torch.autocast(device.type, enabled=False):
                targets = statistics(embed(large))
            return torch.stack(
                [
                    target[:, r + _OFFSET : r + _OFFSET + recipe.window, c + _OFFSET : c + _OFFSET + recipe.window]
                    for target, (r, c) in zip(targets, places, strict=True)
                ]
            )

        def step(number: int, batch: _Batch) -> dict[str, torch.Tensor]:
            return {"distillation": F.mse_loss(network(batch[1]).float(), wanted(batch))}

        def solve() -> None:
            count = -(-recipe.closed_form // recipe.batch_size)

            def pairs() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
                for number in range(count):
                    large, small, places = batches(recipe.steps + number)  # none that a step sees
                    yield small.to(device), wanted((large.to(device), small, places))
                    progress("last layer", number + 1, count)

            solve_last_layer(network, pairs())

        report = train(
            step,
            batches,
            steps=recipe.steps,
            modules={"network": network},
            optimiser=torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay),
            schedule=recipe.rate,
            seed=recipe.seed,
            identity=json.dumps([recipe.identity, extractor.fingerprint]),
            device=device,
            options=training_options(output, checkpoint_seconds),
            stage="distillation",
            progress=progress,
        )
        if recipe.closed_form:
            solve()
        figures = _figures(stream, embed, statistics, network.eval(), device)
        result = store_weights(
            output,
            network.state_dict(),
            recipe,
            name="efficientad-teacher",
            part=f"efficientad_teacher_{recipe.size}",
            source=stream.source,
            training=report,
            figures=figures,
            used=(extractor.weights,),
            half=half,
        )
        checkpoint_of(output).with_suffix(".statistics").unlink(missing_ok=True)
    return result


@torch.no_grad()
def _figures(
    stream: ImageStream,
    embed: Callable[[torch.Tensor], torch.Tensor],
    statistics: ChannelStatistics,
    network: PDN,
    device: torch.device,
) -> dict[str, float]:
    if not stream.held_out:
        return {}
    error = torch.zeros((), dtype=torch.float64, device=device)
    power = torch.zeros_like(error)
    whole = slice(_OFFSET, _OFFSET + _WHOLE)
    for image in stream.images(stream.held_out, _IMAGE):
        large = _NORMALISE.normalise(image[None]).to(device)
        small = _NORMALISE.normalise(_halved(image)[None]).to(device)
        wanted = statistics(embed(large))[..., whole, whole]
        error += (network(small) - wanted).square().double().mean()
        power += wanted.square().double().mean()
    if not float(power):
        raise AndonError(f"{stream.source.name}: the extractor says the same of every image; choose other images")
    return {"explained variance": 1 - float(error / power)}
