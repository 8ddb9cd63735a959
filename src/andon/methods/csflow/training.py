"""CS-Flow's training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from andon._tools.memory import BoundedStore, capacity
from andon.features import Extractor, iterate_features
from andon.methods._flows import whitening
from andon.methods.base import Fitting, budgeted
from andon.methods.csflow.config import CsflowConfig
from andon.methods.csflow.flow import CrossScaleFlow
from andon.training import SampleOrder, Stage, steps_of_epochs

__all__ = ["CsflowStage", "FeatureMaps", "negative_log_likelihood"]


def negative_log_likelihood(z: Sequence[torch.Tensor], log_det: torch.Tensor) -> torch.Tensor:
    """``(½‖z‖² − log|det|)`` a dimension of z, mean over the batch, without the constant ½·log 2π; a scalar."""
    power = sum(maps.square().sum(dim=(1, 2, 3)) for maps in z)
    return (0.5 * power - log_det).mean() / sum(maps[0].numel() for maps in z)


class FeatureMaps:
    """Feature maps of the training images: kept as far as memory allows, else brought again."""

    def __init__(self, fitting: Fitting, config: CsflowConfig, extractor: Extractor) -> None:
        self.fitting, self.config, self.extractor = fitting, config, extractor
        self.kept = BoundedStore[tuple[torch.Tensor, ...]](0)
        for indices, maps in fitting.features(extractor):
            if indices.start == 0:
                bytes_each = 4 * sum(level[0].numel() for level in maps)
                self.kept = BoundedStore(capacity(config.memory_limit, bytes_each))
            for row, index in enumerate(indices):
                self.kept.put(index, tuple(level[row].cpu().clone() for level in maps))
        if len(self.kept) < len(fitting.images):
            where = "computed again" if fitting.images.cache is None else "read from the cache"
            fitting.note(f"features exceed memory_limit: {where} at every step")

    def __call__(self, indices: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """float32 ``[len(indices), C, h, w]`` a scale."""
        found = {index: kept for index in indices if (kept := self.kept.get(index)) is not None}
        missing = sorted(set(indices) - set(found))
        chosen = iterate_features(
            self.extractor,
            self.fitting.images.subset(missing),
            self.config.transform,
            batch_size=self.config.batch_size,
            device=self.fitting.device,
        )
        for places, maps in chosen if missing else ():
            found |= {missing[place]: tuple(level[row].cpu() for level in maps) for row, place in enumerate(places)}
        return tuple(torch.stack(level) for level in zip(*(found[index] for index in indices), strict=True))

    def vectors(self, scale: int) -> Iterator[torch.Tensor]:
        """Vectors at all positions of a scale, ``[N·h·w, C]``, a batch of images at a time."""
        count, size = len(self.fitting.images), self.config.train_batch_size
        for start in range(0, count, size):
            yield self(range(start, min(start + size, count)))[scale].permute(0, 2, 3, 1).flatten(0, 2)


class CsflowStage(Stage[tuple[torch.Tensor, ...]]):
    """The training of the flow on all scales together."""

    name = "training"

    def __init__(self, fitting: Fitting, config: CsflowConfig, extractor: Extractor) -> None:
        self.config, self.clip_norm = config, config.clip_norm
        self.features = FeatureMaps(fitting, config, extractor)
        count = len(fitting.images)
        batch = min(config.train_batch_size, count)
        self.full_steps = steps_of_epochs(config.epochs, fitting.images.n_sources, batch)
        self.steps = budgeted(self.full_steps, config.budget)
        self.order = SampleOrder(count, batch, fitting.seed)
        self.flow = CrossScaleFlow.initialised(config, extractor.channels[0], fitting.seed)
        if config.standardise == "whiten":
            with fitting.clock("whitening"):
                for scale in range(config.scales):
                    self.flow.set_input(scale, *whitening(self.features.vectors(scale), extractor.channels[0]))
        self.flow.to(fitting.device)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"flow": self.flow}

    def optimiser(self) -> Optimizer:
        config = self.config
        return torch.optim.Adam(
            self.flow.parameters(), lr=config.learning_rate, eps=config.epsilon, weight_decay=config.weight_decay
        )

    def batch(self, number: int) -> tuple[torch.Tensor, ...]:
        return self.features(self.order(number))

    def losses(self, batch: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        return {"nll": negative_log_likelihood(*self.flow(batch))}

    def close(self) -> None:
        self.features.kept = BoundedStore(0)
