"""CFLOW-AD: real-time unsupervised anomaly detection with localization via conditional normalizing flows.

Gudovskiy, Ishizaka & Kozuka, WACV 2022; arXiv 2107.12571. A frozen network gives features at several scales; at each
scale a normalising flow learns how likely a feature vector is at its place in the image. What the paper leaves open
is as in the authors' repository (gudovskiy/cflow-ad).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import nn

from andon.core import AndonError, Prediction, ProgressCallback, no_progress
from andon.data.images import ImageLike, Images, as_images
from andon.features import FeatureExtractor, create_extractor
from andon.methods._maps import gaussian_smooth, upsample
from andon.methods._state import checked_state, types_of
from andon.methods._training import TrainedConfig, budget_notes, budgeted, stage_options, training_identity
from andon.methods.base import EMBEDDED_FEATURES, FeatureMethod, FitReport, MethodConfig
from andon.methods.cflow.flows import ConditionalFlow, GridFlow, positional_encoding
from andon.methods.registry import register
from andon.training.loop import (
    SampleOrder,
    Schedule,
    TrainingReport,
    cosine_schedule,
    step_generator,
)
from andon.training.loop import train as train_networks

__all__ = ["Cflow", "CflowConfig"]

_GIB = 2**30


class CflowConfig(TrainedConfig):
    """Configuration; defaults as in the authors' repository.

    Attributes:
        backbone: see ``andon.features.create_extractor``.
        weights: see ``andon.features.create_extractor``.
        layers: stages that have a flow each.
        condition: dimensions of the positional encoding; a multiple of 4.
        coupling_blocks: of each flow.
        clamp: α, the largest log scale of a block.
        clamping: form of the soft clamp: "tanh" (what the authors' code computes) or "arctan".
        permutation: between blocks: "soft" (random rotations) or "hard" (random permutations).
        meta_epochs: parts of the training with a learning rate each.
        sub_epochs: passes over the training images in each; the authors' default of 25·8 is 200 passes.
        train_batch_size: images whose vectors ("fibres") are shuffled together.
        fibres: vectors a step.
        learning_rate: of Adam.
        schedule: "cosine" (half a cosine down to a thousandth, by meta epochs) or "constant".
        warm_up: first meta epochs, in which the learning rate rises linearly with every step from a tenth to the
            cosine's value at their end; 0 for none, and none with "constant".
        loss: "log-sigmoid": −log σ(log p / C), what the authors' code computes, which hardly looks at vectors that are
            likely already; or "nll": −log p / C, the paper's objective.
        standardise: fixed affine map of a scale's features before its flow: "none"; "whiten": to mean 0 and unit
            covariance over the training images, so that the flow begins as a Gaussian fit. The map's determinant is
            counted: likelihoods are of the features as they are.
        anomaly: what is summed over scales, after upsampling: "likelihood": 1 − exp(log p / C − r), r the scale's
            largest log p / C of training images; "log-likelihood": r − log p / C, which tells apart what is so
            unlikely that its likelihood is nil.
        sigma: Gaussian smoothing of the map, in pixels of the method's input; 0 for none.
        image_top_k: the image score is the mean of this many largest pixels; 1 for the maximum.
        memory_limit: GiB of RAM for features of the training images. Where they exceed it they are read from the
            cache at every pass, or computed where there is no cache.
    """

    backbone: str = "wide_resnet50_2"
    weights: str = "imagenet"
    layers: tuple[str, ...] = Field(("layer2", "layer3", "layer4"), min_length=1)
    condition: int = Field(128, ge=4, multiple_of=4)
    coupling_blocks: int = Field(8, ge=1)
    clamp: float = Field(1.9, gt=0)
    clamping: Literal["tanh", "arctan"] = "tanh"
    permutation: Literal["soft", "hard"] = "soft"
    meta_epochs: int = Field(25, ge=1)
    sub_epochs: int = Field(8, ge=1)
    train_batch_size: int = Field(32, ge=1)
    fibres: int = Field(256, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warm_up: float = Field(2, ge=0)
    loss: Literal["log-sigmoid", "nll"] = "log-sigmoid"
    standardise: Literal["none", "whiten"] = "none"
    anomaly: Literal["likelihood", "log-likelihood"] = "likelihood"
    sigma: float = Field(0.0, ge=0)
    image_top_k: int = Field(1, ge=1)
    memory_limit: float = Field(4.0, ge=0)

    @field_validator("layers")
    @classmethod
    def _different(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"must be different, not {list(value)}")
        return value


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


class _Fibres(NamedTuple):
    """Vectors ``[F, C]`` of a step, and their positions: int64 ``[F]``."""

    vectors: torch.Tensor
    positions: torch.Tensor


@register
class Cflow(FeatureMethod[CflowConfig]):
    """A conditional normalising flow at each scale of a frozen network's features; anomaly = unlikeliness.

    A flow of C channels, condition P and K blocks has about ``K·(C/2 + P)·(3·C + 2·P)`` weights (and ``K·C²`` fixed
    ones with soft permutations), as many multiplications a vector at prediction and three times as many in training.
    Memory of ``fit``: all features, ``4·N·Σ S·C`` bytes with S positions a scale, up to ``memory_limit``.
    """

    name = "cflow"
    title = "CFlow"
    paper = "Gudovskiy et al., CFLOW-AD, WACV 2022, arXiv 2107.12571"
    trained = True
    Config: ClassVar[type[MethodConfig]] = CflowConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "study": {"learning_rate": 1e-4, "fibres": 64, "meta_epochs": 100, "sub_epochs": 1},
        "released-code": {
            "learning_rate": 1e-4,
            "fibres": 64,
            "meta_epochs": 100,
            "sub_epochs": 1,
            "schedule": "constant",
            "permutation": "hard",
        },
        "embedded": {
            **EMBEDDED_FEATURES,
            "condition": 64,
            "coupling_blocks": 4,
            "meta_epochs": 16,
            "sub_epochs": 1,
            "fibres": 1024,
            "learning_rate": 1e-2,
            "loss": "nll",
            "standardise": "whiten",
            "anomaly": "log-likelihood",
            "sigma": 4.0,
        },
    }

    def __init__(self, config: CflowConfig) -> None:
        super().__init__(config)
        self._extractor: FeatureExtractor | None = None
        self._flows: nn.ModuleList | None = None
        self._grids: list[tuple[int, int]] = []
        self._references = torch.empty(0)
        """float32 ``[scales]``: largest log-likelihood a dimension among training images."""
        self._on_grid: list[GridFlow] = []
        """The flows at all positions of their grids; made of ``_flows`` when they are first used."""

    @property
    def extractor(self) -> FeatureExtractor:
        if self._extractor is None:
            config = self.config
            self._extractor = create_extractor(config.backbone, config.layers, config.weights).to(self.device)
        return self._extractor

    def flows(self) -> list[ConditionalFlow]:
        """The trained flows, one a scale; AndonError before ``fit``."""
        if self._flows is None:
            raise AndonError(f"{self.name}: nothing is learned yet: fit first")
        return [flow for flow in self._flows if isinstance(flow, ConditionalFlow)]

    def _new_flow(self, scale: int, seed: int) -> ConditionalFlow:
        config = self.config
        return ConditionalFlow(
            self.extractor.channels[scale],
            config.condition,
            config.coupling_blocks,
            limit=config.clamp,
            clamping=config.clamping,
            permutation=config.permutation,
            affine_input=config.standardise != "none",
            generator=step_generator(seed, "flow", scale),
        )

    # Training

    def fit(
        self,
        train: Images | Iterable[ImageLike],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> FitReport:
        """Trains one flow after the other: they share no weight, and no step of one touches another.

        Raises:
            AndonError: no images, features that are not finite, or a training that goes wrong.
        """
        images = as_images(train)
        if len(images) == 0:
            raise AndonError(f"{self.name}: there are no images to learn from")
        self.to(device)
        self._forget()
        identity = training_identity(self, images, seed)
        started = time.monotonic()
        notes = list(self.adapt_extractor(images, progress))
        features = _TrainingFeatures(self, images, progress)
        seconds = {"features": time.monotonic() - started}
        notes += features.notes
        flows: list[ConditionalFlow] = []
        curves: dict[str, list[tuple[int, float]]] = {}
        done, full = 0, 0
        for scale, layer in enumerate(self.config.layers):
            training = _Training(self, features, scale, seed)
            report = training.run(identity, progress)
            flows.append(training.flow.requires_grad_(False).eval())
            seconds[layer] = report.seconds
            curves |= {f"{layer}/{name}": points for name, points in report.curves.items()}
            done, full = done + report.steps, full + training.full_steps
        started = time.monotonic()
        self._learned(flows, features.grids)
        self._references = features.largest_likelihoods(self._grid_flows(), progress)
        seconds["references"] = time.monotonic() - started
        return FitReport(
            n_train=len(images),
            seconds=seconds,
            weights=(self.extractor.weights,),
            notes=(*notes, *budget_notes(self.config, done, full)),
            curves=curves,
        )

    def _forget(self) -> None:
        self._flows, self._grids, self._on_grid, self._references = None, [], [], torch.empty(0)

    def _learned(self, flows: Sequence[ConditionalFlow], grids: Sequence[tuple[int, int]]) -> None:
        self._flows, self._grids, self._on_grid = nn.ModuleList(flows), list(grids), []

    # Prediction

    def _encoding(self, grid: tuple[int, int]) -> torch.Tensor:
        return positional_encoding(self.config.condition, *grid).to(self.device)

    def _grid_flows(self) -> list[GridFlow]:
        flows = self.flows()
        if not self._on_grid:
            self._on_grid = [
                GridFlow(flow, self._encoding(grid)) for flow, grid in zip(flows, self._grids, strict=True)
            ]
        return self._on_grid

    def log_likelihoods(self, features: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        """Log-likelihood a dimension, ``log p / C`` in nats, at every position: ``[B, h, w]`` a scale."""
        flows = self._grid_flows()
        found = [(maps.shape[2], maps.shape[3]) for maps in features]
        if found != self._grids:
            raise AndonError(
                f"{self.name}: the images give grids of {found}, it has learned {self._grids}: another input size"
            )
        return [flow.log_likelihood(maps) / maps.shape[1] for flow, maps in zip(flows, features, strict=True)]

    def predict_features(self, features: tuple[torch.Tensor, ...]) -> Prediction:
        """Likelihoods are compared with those of training images, so a score depends on its own image alone; the
        authors' code divides by the largest likelihood among all images that it is given."""
        size = self.transform.output_size
        total = torch.zeros((len(features[0]), *size), device=self.device)
        for likelihood, reference in zip(self.log_likelihoods(features), self._references, strict=True):
            relative = likelihood - reference
            if self.config.anomaly == "likelihood":
                total += 1 - upsample(relative.exp(), size)
            else:
                total -= upsample(relative, size)
        maps = gaussian_smooth(total, self.config.sigma) if self.config.sigma > 0 else total
        pixels = maps.flatten(1)
        scores = pixels.topk(min(self.config.image_top_k, pixels.shape[1]), dim=1).values.mean(dim=1)
        return Prediction(scores.cpu().numpy(), maps.cpu().numpy(), self.transform.region)

    # State

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Weights of all flows ("flows.0.blocks.…"), grids ``[scales, 2]`` and references ``[scales]``."""
        state = {
            f"flows.{scale}.{name}": tensor
            for scale, flow in enumerate(self.flows())
            for name, tensor in flow.state_dict().items()
        }
        return state | {"grids": torch.tensor(self._grids), "references": self._references} | self.extractor_state()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        state = self.restore_extractor(state)
        scales = len(self.config.layers)
        flows = [self._new_flow(scale, 0) for scale in range(scales)]
        expected = types_of(
            {
                f"flows.{scale}.{name}": tensor
                for scale, flow in enumerate(flows)
                for name, tensor in flow.state_dict().items()
            }
        )
        expected |= {"grids": (torch.int64, (scales, 2)), "references": (torch.float32, (scales,))}
        tensors = checked_state(self.name, state, expected)
        grids = [(int(height), int(width)) for height, width in tensors["grids"]]
        if min(min(grid) for grid in grids) < 1:
            raise AndonError(f"{self.name}: tensor grids of the saved state has sides below 1: {grids}")
        for scale, flow in enumerate(flows):
            for number, block in enumerate(flow.coupling_blocks()):
                name = f"flows.{scale}.blocks.{number}.mixing"
                order = tensors[name]
                if block.permutation == "hard" and not torch.equal(order.cpu().sort().values, torch.arange(len(order))):
                    raise AndonError(f"{self.name}: tensor {name} of the saved state is not a permutation")
            prefix = f"flows.{scale}."
            flow.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
            flow.requires_grad_(False).eval().to(self.device)
        self._learned(flows, grids)
        self._references = tensors["references"].to(self.device)

    def to(self, device: torch.device | str) -> Cflow:
        super().to(device)
        self._on_grid = []
        self._references = self._references.to(self.device)
        if self._flows is not None:
            self._flows.to(self.device)
        if self._extractor is not None:
            self._extractor = self._extractor.to(self.device)
        return self


class _TrainingFeatures:
    """Features of the training images: in memory where they fit, else brought again whenever they are asked for."""

    def __init__(self, method: Cflow, images: Images, progress: ProgressCallback) -> None:
        self.method, self.images = method, images
        self.grids: list[tuple[int, int]] = []
        self.notes: tuple[str, ...] = ()
        self._levels: list[torch.Tensor] | None = None
        """float32 ``[N, S, C]`` a scale."""
        limit = method.config.memory_limit * _GIB
        for indices, features in method.iterate_features(images, progress=progress):
            if not all(bool(maps.isfinite().all()) for maps in features):
                raise AndonError(f"{method.name}: features of training images {indices} are not finite")
            if not self.grids:
                self.grids = [(maps.shape[2], maps.shape[3]) for maps in features]
                if sum(4 * len(images) * maps[0].numel() for maps in features) <= limit:
                    self._levels = [
                        torch.empty((len(images), maps.shape[2] * maps.shape[3], maps.shape[1])) for maps in features
                    ]
                else:
                    where = "computed again" if images.cache is None else "read from the cache"
                    self.notes = (f"features exceed memory_limit: {where} at every pass",)
                    # The first pass goes on all the same: it fills the cache and finds features that are not finite.
            if self._levels is not None:
                for level, maps in zip(self._levels, features, strict=True):
                    level[indices.start : indices.stop] = maps.flatten(2).transpose(1, 2).cpu()

    def vectors(self, scale: int, images_: Sequence[int]) -> torch.Tensor:
        """float32 ``[len(images), S, C]``."""
        if self._levels is not None:
            return self._levels[scale][torch.tensor(images_)]
        chosen = self.images.subset(images_)
        parts = [features[scale] for _, features in self.method.iterate_features(chosen)]
        return torch.cat([part.flatten(2).transpose(1, 2).cpu() for part in parts])

    def _batches(self, scale: int) -> Iterator[torch.Tensor]:
        size = self.method.config.train_batch_size
        for start in range(0, len(self.images), size):
            yield self.vectors(scale, range(start, min(start + size, len(self.images))))

    def whitening(self, scale: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean ``[C]`` and matrix ``[C, C]`` with which ``(x − mean) @ matrix`` has unit covariance.

        Directions in which the features hardly vary are not blown up without limit: a ten-thousandth of the mean
        variance is added to all.
        """
        channels = self.method.extractor.channels[scale]
        count, total = 0, torch.zeros(channels, dtype=torch.float64)
        scatter = torch.zeros((channels, channels), dtype=torch.float64)
        for batch in self._batches(scale):
            rows = batch.flatten(0, 1).double()
            count, total, scatter = count + len(rows), total + rows.sum(dim=0), scatter + rows.T @ rows
        mean = total / count
        covariance = scatter / count - mean[:, None] * mean
        floor = 1e-4 * covariance.diagonal().mean().clamp(min=1e-12)
        values, directions = torch.linalg.eigh(covariance)
        return mean.float(), (directions * (values.clamp(min=0) + floor).rsqrt()).float()

    def largest_likelihoods(self, flows: Sequence[GridFlow], progress: ProgressCallback) -> torch.Tensor:
        """Of every scale the largest log-likelihood a dimension at any position of any training image."""
        largest = []
        for scale, (flow, (height, width)) in enumerate(zip(flows, self.grids, strict=True)):
            best = -math.inf
            for batch in self._batches(scale):
                maps = batch.transpose(1, 2).reshape(len(batch), -1, height, width).to(self.method.device)
                best = max(best, float(flow.log_likelihood(maps).max()) / batch.shape[2])
            largest.append(best)
            progress("references", scale + 1, len(flows))
        return torch.tensor(largest, device=self.method.device)


class _Training:
    """The training of one scale's flow."""

    def __init__(self, method: Cflow, features: _TrainingFeatures, scale: int, seed: int) -> None:
        config, images_ = method.config, len(features.images)
        self.method, self.features, self.scale, self.seed = method, features, scale, seed
        self.stage = config.layers[scale]
        height, width = features.grids[scale]
        self.positions = height * width
        self.encoding = method._encoding((height, width))
        batch = min(config.train_batch_size, images_)
        self.order = SampleOrder(images_, batch, seed)
        self.fibres = min(config.fibres, batch * self.positions)
        self.steps_a_batch = batch * self.positions // self.fibres
        batches = math.ceil(config.meta_epochs * config.sub_epochs * images_ / batch)
        self.full_steps = batches * self.steps_a_batch
        self.steps = budgeted(self.full_steps, config.budget)
        self._shuffled: tuple[int, torch.Tensor, torch.Tensor] | None = None
        self.flow = method._new_flow(scale, seed)
        if config.standardise == "whiten":
            self.flow.set_input(*features.whitening(scale))
        self.flow.to(method.device)

    def run(self, identity: str, progress: ProgressCallback) -> TrainingReport:
        method = self.method
        try:
            return train_networks(
                lambda _, batch: self.losses(batch),
                self.batch,
                steps=self.steps,
                modules={"flow": self.flow},
                optimiser=torch.optim.Adam(self.flow.parameters(), lr=method.config.learning_rate),
                schedule=learning_rate_schedule(method.config, self.steps),
                seed=self.seed,
                identity=f"{identity}\n{self.stage}",
                device=method.device,
                options=stage_options(method, self.stage),
                stage=self.stage,
                progress=progress,
            )
        finally:
            self._shuffled = None

    def batch(self, number: int) -> _Fibres:
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
        return _Fibres(vectors[rows], rows % self.positions)

    def losses(self, batch: _Fibres) -> dict[str, torch.Tensor]:
        """Mean loss of the step's vectors, and the mean negative log-likelihood a dimension, which is recorded."""
        likelihood = self.flow.log_likelihood(batch.vectors, self.encoding[batch.positions]) / batch.vectors.shape[1]
        nll = -likelihood.mean()
        if self.method.config.loss == "nll":
            return {"nll": nll}
        return {"log-sigmoid": -F.logsigmoid(likelihood).mean(), "nll": nll.detach()}
