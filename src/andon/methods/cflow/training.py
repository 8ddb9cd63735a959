"""CFlow's training: the features it learns from, and one stage a scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer

from andon._tools.seeds import step_generator
from andon.features import Extractor, iterate_features
from andon.methods._flows import whitening
from andon.methods.base import Fitting, budgeted
from andon.methods.cflow.config import CflowConfig
from andon.methods.cflow.flows import ConditionalFlow, positional_encoding
from andon.methods.cflow.grid import GridFlow
from andon.training import SampleOrder, Schedule, Stage, cosine_schedule

__all__ = ["Fibres", "FlowStage", "TrainingFeatures", "learning_rate_schedule", "new_flow"]

_GIB = 2**30


def new_flow(config: CflowConfig, channels: int, generator: torch.Generator | None) -> ConditionalFlow:
    """A scale's flow, to be trained; without a generator one that a saved state is loaded into."""
    return ConditionalFlow(
        channels,
        config.condition,
        config.coupling_blocks,
        limit=config.clamp,
        clamping=config.clamping,
        permutation=config.permutation,
        affine_input=config.standardise != "none",
        generator=generator,
    )


def learning_rate_schedule(config: CflowConfig, steps: int) -> Schedule | None:
    """The authors' schedule over ``steps`` steps: a cosine by meta epochs, after a warm-up by steps.

    None for a constant learning rate.
    """
    if config.schedule == "constant":
        return None
    total, warm = config.meta_epochs, min(config.warm_up, config.meta_epochs)
    cosine = cosine_schedule(total + 1, final=1e-3)  # meta epoch ``total`` is never reached
    warm_steps = steps * warm / total
    reached = 1e-3 + (1 - 1e-3) * 0.5 * (1 + math.cos(math.pi * warm / total))

    def factor(step: int) -> float:
        if step < warm_steps:
            return 0.1 + (reached - 0.1) * step / warm_steps
        return cosine(step * total // steps)

    return factor


class TrainingFeatures:
    """Features of the training images: in memory where they fit, else brought again whenever they are asked for.

    Attributes:
        grids: (height, width) a scale.
    """

    def __init__(self, fitting: Fitting, config: CflowConfig, extractor: Extractor) -> None:
        self.fitting, self.config, self.extractor = fitting, config, extractor
        self.images = fitting.images
        self.grids: list[tuple[int, int]] = []
        self._levels: list[torch.Tensor] | None = None
        """float32 ``[N, S, C]`` a scale."""
        for indices, features in fitting.features(extractor):
            if not self.grids:
                self.grids = [(maps.shape[2], maps.shape[3]) for maps in features]
                self._levels = self._room(features)
            # Where they do not fit the pass goes on all the same: it fills the cache and finds what is not finite.
            if self._levels is not None:
                for level, maps in zip(self._levels, features, strict=True):
                    level[indices.start : indices.stop] = maps.flatten(2).transpose(1, 2).cpu()

    def _room(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor] | None:
        """For the features of all images, where they fit."""
        n = len(self.images)
        if sum(4 * n * maps[0].numel() for maps in features) <= self.config.memory_limit * _GIB:
            return [torch.empty((n, maps.shape[2] * maps.shape[3], maps.shape[1])) for maps in features]
        where = "computed again" if self.images.cache is None else "read from the cache"
        self.fitting.note(f"features exceed memory_limit: {where} at every pass")
        return None

    def vectors(self, scale: int, indices: Sequence[int]) -> torch.Tensor:
        """float32 ``[len(indices), S, C]``."""
        if self._levels is not None:
            return self._levels[scale][torch.tensor(indices)]
        chosen = iterate_features(
            self.extractor,
            self.images.subset(indices),
            self.config.transform,
            batch_size=self.config.batch_size,
            device=self.fitting.device,
        )
        return torch.cat([features[scale].flatten(2).transpose(1, 2).cpu() for _, features in chosen])

    def batches(self, scale: int) -> Iterator[torch.Tensor]:
        """``vectors`` of all images in order, a training batch at a time."""
        size = self.config.train_batch_size
        for start in range(0, len(self.images), size):
            yield self.vectors(scale, range(start, min(start + size, len(self.images))))

    def whitening(self, scale: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean ``[C]`` and matrix ``[C, C]`` that whiten the features of a scale."""
        return whitening((batch.flatten(0, 1) for batch in self.batches(scale)), self.extractor.channels[scale])

    def largest_likelihoods(self, flows: Sequence[GridFlow]) -> torch.Tensor:
        """Of every scale the largest log-likelihood a dimension at any position of any training image."""
        device, largest = self.fitting.device, []
        for scale, (flow, (height, width)) in enumerate(zip(flows, self.grids, strict=True)):
            best = -math.inf
            for batch in self.batches(scale):
                maps = batch.transpose(1, 2).reshape(len(batch), -1, height, width).to(device)
                best = max(best, float(flow(maps).max()) / batch.shape[2])
            largest.append(best)
            self.fitting.progress("references", scale + 1, len(flows))
        return torch.tensor(largest, device=device)


class Fibres(NamedTuple):
    """Vectors ``[F, C]`` of a step, and their positions: int64 ``[F]``."""

    vectors: torch.Tensor
    positions: torch.Tensor


class FlowStage(Stage[Fibres]):
    """The training of one scale's flow, named after the scale's layer.

    Attributes:
        flow: what is trained.
        positions: of the scale's grid.
        steps_a_batch: steps on the vectors of one batch of images.
    """

    def __init__(self, features: TrainingFeatures, scale: int) -> None:
        fitting, config, n = features.fitting, features.config, len(features.images)
        self.name = config.layers[scale]
        self.config, self.features, self.scale, self.seed = config, features, scale, fitting.seed
        height, width = features.grids[scale]
        self.positions = height * width
        self.encoding = positional_encoding(config.condition, height, width).to(fitting.device)
        batch = min(config.train_batch_size, n)
        self.order = SampleOrder(n, batch, fitting.seed)
        self.fibres = min(config.fibres, batch * self.positions)
        self.steps_a_batch = batch * self.positions // self.fibres
        passes = config.meta_epochs * config.sub_epochs
        self.full_steps = math.ceil(passes * features.images.n_sources / batch) * self.steps_a_batch
        self.steps = budgeted(self.full_steps, config.budget)
        self._shuffled: tuple[int, torch.Tensor, torch.Tensor] | None = None
        generator = step_generator(fitting.seed, "flow", scale)
        self.flow = new_flow(config, features.extractor.channels[scale], generator)
        if config.standardise == "whiten":
            with fitting.clock("whitening"):
                self.flow.set_input(*features.whitening(scale))
        self.flow.to(fitting.device)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"flow": self.flow}

    def optimiser(self) -> Optimizer:
        return torch.optim.Adam(self.flow.parameters(), lr=self.config.learning_rate)

    def schedule(self) -> Schedule | None:
        return learning_rate_schedule(self.config, self.steps)

    def batch(self, number: int) -> Fibres:
        """Vectors of step ``number``: of all images of a batch, shuffled, the next so many; a remainder is left."""
        batch, place = divmod(number, self.steps_a_batch)
        known = self._shuffled
        if known is None or known[0] != batch:
            vectors = self.features.vectors(self.scale, self.order(batch)).flatten(0, 1)
            generator = step_generator(self.seed, "fibres", self.scale, batch)
            known = batch, vectors, torch.randperm(len(vectors), generator=generator)
            self._shuffled = known
        _, vectors, order = known
        rows = order[place * self.fibres : (place + 1) * self.fibres]
        return Fibres(vectors[rows], rows % self.positions)

    def losses(self, batch: Fibres) -> dict[str, torch.Tensor]:
        """Mean loss of the step's vectors, and the mean negative log-likelihood a dimension, which is recorded."""
        likelihood = self.flow.log_likelihood(batch.vectors, self.encoding[batch.positions]) / batch.vectors.shape[1]
        nll = -likelihood.mean()
        if self.config.loss == "nll":
            return {"nll": nll}
        return {"log-sigmoid": -F.logsigmoid(likelihood).mean(), "nll": nll.detach()}

    def close(self) -> None:
        self._shuffled = None
