"""EfficientAD: accurate visual anomaly detection at millisecond-level latencies.

Batzner, Heckler & König, WACV 2024; arXiv 2303.14535, algorithms 1 and 2 of appendix A. A student learns what a frozen
teacher says of patches of good images, and fails on patches that it has never seen. A second half of the student's
channels learns what an autoencoder, which sees the whole image through a bottleneck, makes of the teacher's output:
where both disagree, parts are in the wrong place or number. Both maps are brought to one scale by quantiles of good
images that were not trained on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import nn
from torch.nn import functional as F

from andon.core import AndonError, ImageArray, Prediction, ProgressCallback, no_progress
from andon.data.images import ImageLike, Images, as_images
from andon.data.rendered import ImageSource, image_source
from andon.data.transform import Transform
from andon.features.base import AdaptableExtractor, FeatureExtractor, FittedExtractor
from andon.features.extractor import create_extractor
from andon.methods._maps import upsample
from andon.methods._state import checked_state, types_of
from andon.methods._training import TrainedConfig, budget_notes, budgeted, stage_options, training_identity
from andon.methods.base import FitReport, Method
from andon.methods.efficientad.pdn import PDN, PDNSize, load_teacher, output_centres, output_size
from andon.methods.registry import register
from andon.training.loop import (
    SampleOrder,
    TrainingReport,
    numpy_step_generator,
    step_decay,
    step_generator,
    steps_of_epochs,
    train,
)
from andon.weights import WeightsRecord

__all__ = ["Autoencoder", "EfficientAd", "EfficientAdConfig", "colour_jitter", "hard_feature_loss"]

_GIB = 2**30
_PAD = 4
"""Vectors that a map without padding lacks at each side (section 3.3)."""
_SMALLEST = 64
_EXTRACTOR = "extractor."
_STATISTICS_BATCH = 4

_STUDY: Mapping[str, Any] = {"size": "medium", "epochs": 250, "validation_share": 0.05}
_EMBEDDED: Mapping[str, Any] = {
    "teacher": "andon-features",
    "layers": ("cells",),
    "weights": "embedded",
    "transform": {"size": (128, 128)},
    "student_width": 0.25,
    "autoencoder_width": 32,
    "steps": 3000,
    "learning_rate": 1e-3,
    "train_batch_size": 2,
    "penalty": "none",
    "map_padding": "edge",
}


class EfficientAdConfig(TrainedConfig):
    """Hyperparameters of EfficientAD; the defaults are the paper's.

    Attributes:
        size: of the patch description networks: "small" (EfficientAD-S) or "medium" (EfficientAD-M).
        teacher: "pdn" (the paper's), or the name of a frozen extractor (``create_extractor``), whose
            features the student then predicts, interpolated to its own grid.
        layers: stages of an extractor as teacher; empty for "pdn".
        weights: of the teacher: for "pdn" see ``pdn.load_teacher``, for an extractor ``create_extractor``.
        student_width: factor on the channels of the student's layers before its last; 1 in the paper.
        latent: channels of the autoencoder's bottleneck.
        autoencoder_width: channels of the autoencoder's layers (half as many in its first two).
        dropout: in the autoencoder's decoder, in training.
        steps: of the training.
        epochs: length of the training in passes over the training images, in place of ``steps``.
        train_batch_size: images a step.
        learning_rate, weight_decay: of Adam.
        decay_at, decay: part of the training after which the learning rate is multiplied by ``decay``.
        hard_quantile: p_hard: the student–teacher loss is of the squared differences at or above this quantile.
        penalty: images on which the student shall say nothing: a folder, "rendered" or "rendered:SEED" (formulas
            instead of the paper's ImageNet), or "none".
        penalty_images: number of different penalty images; None for all, endlessly many where rendered.
        penalty_grey: probability with which a penalty image loses its colours.
        jitter: largest change of brightness, contrast or saturation, for the autoencoder's image.
        validation_share: part of the training images on which maps are normalised, and which are not trained on.
        extra_normalisation: normalise maps on all training images (the study's section 6.4).
        quantiles: of the maps that become 0 and 0.1.
        map_padding: what the border is that the network without padding does not describe: "zeros" as in the paper, or
            the nearest value ("edge").
        memory_limit: GiB that teacher outputs of training images may use; beyond it they are computed at every step.
    """

    transform: Transform = Transform(size=(256, 256))
    size: PDNSize = "small"
    teacher: str = "pdn"
    layers: tuple[str, ...] = ()
    weights: str = "imagenet"
    student_width: float = Field(1.0, gt=0)
    latent: int = Field(64, ge=1)
    autoencoder_width: int = Field(64, ge=2)
    dropout: float = Field(0.2, ge=0, lt=1)
    steps: int = Field(70_000, ge=1)
    epochs: float | None = Field(None, gt=0)
    train_batch_size: int = Field(1, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    decay_at: float = Field(0.95, ge=0, le=1)
    decay: float = Field(0.1, gt=0, le=1)
    hard_quantile: float = Field(0.999, ge=0, lt=1)
    penalty: str = "rendered"
    penalty_images: int | None = Field(None, ge=1)
    penalty_grey: float = Field(0.3, ge=0, le=1)
    jitter: float = Field(0.2, ge=0, le=1)
    validation_share: float = Field(0.1, gt=0, lt=1)
    extra_normalisation: bool = False
    quantiles: tuple[float, float] = (0.9, 0.995)
    map_padding: Literal["zeros", "edge"] = "zeros"
    memory_limit: float = Field(1.0, ge=0)

    @field_validator("transform")
    @classmethod
    def _fits(cls, value: Transform) -> Transform:
        if value.normalisation != "imagenet":
            raise ValueError("normalisation must be 'imagenet': the teacher knows images like that")
        if min(value.output_size) < _SMALLEST:
            raise ValueError(f"sides must be at least {_SMALLEST}, not {value.output_size}")
        return value

    @field_validator("quantiles")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 1:
            raise ValueError(f"must be two numbers in 0..1, the smaller first, not {value}")
        return value

    @model_validator(mode="after")
    def _layers_belong_to_an_extractor(self) -> EfficientAdConfig:
        if (self.teacher == "pdn") == bool(self.layers):
            raise ValueError("layers must name the stages of an extractor as teacher, and be empty for teacher 'pdn'")
        return self


# The parts


class Autoencoder(nn.Module):
    """Section 3.3 and appendix A.1: images float32 ``[B, 3, H, W]`` to ``[B, channels, h, w]``.

    The encoder's last convolution spans all that reaches it, so the bottleneck is one vector for every size of image;
    at 256×256 its kernel is 8×8 and the decoder's sizes are 3, 8, 15, 32, 63 and 127, as in the paper.

    Args:
        image: (H, W).
        grid: (h, w) of the student's output.
        channels: of the teacher.
    """

    def __init__(
        self,
        image: tuple[int, int],
        grid: tuple[int, int],
        channels: int,
        *,
        latent: int = 64,
        width: int = 64,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        encoder: list[nn.Module] = []
        before = 3
        for after in (width // 2, width // 2, width, width, width):
            encoder += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
            before = after
        height, breadth = image
        self.encoder = nn.Sequential(*encoder, nn.Conv2d(width, latent, (height // 32, breadth // 32)))
        decoder: list[nn.Module] = []
        before = latent
        for divisor, less in ((64, 1), (32, 0), (16, 1), (8, 0), (4, 1), (2, 1)):
            size = (max(1, height // divisor - less), max(1, breadth // divisor - less))
            decoder += [
                nn.Upsample(size, mode="bilinear"),
                nn.Conv2d(before, width, 4, padding=2),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
            ]
            before = width
        self.decoder = nn.Sequential(
            *decoder,
            nn.Upsample(grid, mode="bilinear"),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = self.decoder(self.encoder(batch))
        return decoded


class _Networks(nn.Module):
    """All that is trained; ``channels`` are the teacher's."""

    def __init__(self, config: EfficientAdConfig, channels: int) -> None:
        super().__init__()
        size = config.transform.output_size
        self.student = PDN(config.size, 2 * channels, width=config.student_width)
        self.autoencoder = Autoencoder(
            size,
            output_size(*size),
            channels,
            latent=config.latent,
            width=config.autoencoder_width,
            dropout=config.dropout,
        )

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """PyTorch's default weights, from the seed."""
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d):
                generator = step_generator(seed, "weights", name)
                fan_in, _ = nn.init._calculate_fan_in_and_fan_out(layer.weight)
                nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
                assert layer.bias is not None
                nn.init.uniform_(layer.bias, -(fan_in**-0.5), fan_in**-0.5, generator=generator)


class _Teacher:
    """What the student is to say: images ``[B, 3, H, W]`` to ``[B, channels, h, w]`` on the student's grid."""

    def __init__(self, source: PDN | FeatureExtractor, grid: tuple[int, int], weights: WeightsRecord) -> None:
        self.source, self.grid, self.weights = source, grid, weights
        self.channels = source.channels if isinstance(source, PDN) else sum(source.channels)
        self._statistics: tuple[torch.Tensor, torch.Tensor] | None = None

    def normalise(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """From now on outputs are ``(output − mean) / std``, both float32 ``[channels]``; once."""
        if isinstance(self.source, PDN):
            self.source.merge_normalisation(mean, std)
        else:
            self._statistics = mean[:, None, None], std[:, None, None]

    @torch.no_grad()
    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        if isinstance(self.source, PDN):
            return self.source(batch)  # type: ignore[no-any-return]
        height, width = batch.shape[2:]
        parts = [on_grid(stage, (height, width), self.grid) for stage in self.source(batch)]
        output = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        if self._statistics is not None:
            mean, std = (tensor.to(output.device) for tensor in self._statistics)
            output = output.sub_(mean).div_(std)
        return output

    def to(self, device: torch.device) -> None:
        self.source.to(device)


def on_grid(features: torch.Tensor, image: tuple[int, int], grid: tuple[int, int]) -> torch.Tensor:
    """Features ``[B, C, h, w]`` that cover an image evenly, bilinear at the centres of a PDN's patches."""
    rows, columns = (
        ((output_centres(count) + 0.5) / side * 2 - 1).to(features.device)
        for count, side in zip(grid, image, strict=True)
    )
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    places = places.expand(len(features), -1, -1, -1)
    return F.grid_sample(features, places, mode="bilinear", padding_mode="border", align_corners=False)


# Losses and augmentation


def hard_feature_loss(distance: torch.Tensor, quantile: float = 0.999) -> torch.Tensor:
    """Mean of the elements at or above their own quantile (section 3.2); a scalar.

    The quantile is interpolated linearly between order statistics, as numpy does. Only the largest elements are sorted.
    """
    flat = distance.flatten()
    position = quantile * (flat.numel() - 1)
    below = math.floor(position)
    with torch.no_grad():
        largest = flat.topk(flat.numel() - below).values
        lower, upper = largest[-1], largest[max(0, len(largest) - 2)]
        threshold = lower + (position - below) * (upper - lower)
    return flat[flat >= threshold].mean()


def colour_jitter(image: torch.Tensor, kind: int, factor: float) -> torch.Tensor:
    """Brightness (kind 0), contrast (1) or saturation (2) of ``[3, H, W]`` in 0..1, changed by a factor, clipped.

    Brightness is blended with black, contrast with the mean grey, saturation with the image's grey values
    (0.299 R + 0.587 G + 0.114 B).
    """
    if kind == 0:
        return (image * factor).clamp(0, 1)
    grey = _grey(image)
    other = grey.mean() if kind == 1 else grey
    return (factor * image + (1 - factor) * other).clamp(0, 1)


def _grey(image: torch.Tensor) -> torch.Tensor:
    return (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)


# The method


@register
class EfficientAd(Method[EfficientAdConfig]):
    """EfficientAD (Batzner, Heckler & König 2024), S and M.

    Cost, whatever the number of training images: at 256×256 a step of EfficientAD-M takes about 600 billion
    multiplications an image, a prediction 115 (S: 190 and 35); both grow with the area of the images.
    """

    name: ClassVar[str] = "efficientad"
    title: ClassVar[str] = "EfficientAD"
    paper: ClassVar[str] = (
        "Batzner, Heckler & König, EfficientAD: accurate visual anomaly detection at millisecond-level latencies, "
        "WACV 2024, arXiv:2303.14535"
    )
    trained: ClassVar[bool] = True
    Config = EfficientAdConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "study": _STUDY,
        # The small network; a schedule counted in steps but stepped once an epoch never decays. (It normalises maps on
        # good test images, which no option here does.)
        "released-code": {**_STUDY, "size": "small", "decay": 1.0},
        "embedded": _EMBEDDED,
    }

    def __init__(self, config: EfficientAdConfig) -> None:
        super().__init__(config)
        self._grid = output_size(*config.transform.output_size)
        self._teacher: _Teacher | None = None
        self._networks: _Networks | None = None
        self._statistics: tuple[torch.Tensor, torch.Tensor] = (torch.empty(0), torch.empty(0))
        self._quantiles = torch.empty(0)
        """float64 ``[2, 2]``: the quantiles of the student–teacher map, of the student–autoencoder map."""

    # Teacher

    def _new_teacher(self) -> _Teacher:
        config = self.config
        source: PDN | FeatureExtractor
        if config.teacher == "pdn":
            source, record = load_teacher(config.size, config.weights)
        else:
            source = create_extractor(config.teacher, config.layers, config.weights)
            record = source.weights
        teacher = _Teacher(source, self._grid, record)
        teacher.to(self.device)
        return teacher

    def _new_networks(self, channels: int) -> _Networks:
        with torch.random.fork_rng([]):  # what torch fills them with is overwritten; its generator is not ours to move
            return _Networks(self.config, channels)

    def _learned(self) -> tuple[_Teacher, _Networks]:
        if self._teacher is None or self._networks is None:
            raise AndonError("efficientad has learned nothing yet: call fit or load_state_dict first")
        return self._teacher, self._networks

    # Fit

    def fit(
        self,
        train: Images | Iterable[ImageLike],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> FitReport:
        """Trains student and autoencoder, then normalises the maps.

        Raises:
            AndonError: no images, no teacher, no penalty images, or a training that goes wrong.
        """
        images = as_images(train)
        if len(images) == 0:
            raise AndonError("efficientad: there are no images to learn from")
        self.to(device)
        self._teacher = self._networks = None
        teacher = self._new_teacher()
        return _Training(self, teacher, images, seed, progress).run()

    # Predict

    def predict_batch(self, batch: torch.Tensor) -> Prediction:
        self._learned()
        with torch.inference_mode():
            both = self._coarse_maps(batch)
            low, high = self._quantiles.to(both).unbind(1)
            scaled = 0.1 * (both - low[:, None, None]) / (high - low)[:, None, None]
            mode = "constant" if self.config.map_padding == "zeros" else "replicate"
            coarse = F.pad(scaled.mean(1, keepdim=True), (_PAD,) * 4, mode=mode)[:, 0]
            maps = upsample(coarse, self.transform.output_size)
            scores = maps.amax((1, 2))
        return Prediction(scores.cpu().numpy(), maps.cpu().numpy(), self.transform.region)

    @torch.inference_mode()
    def _coarse_maps(self, batch: torch.Tensor) -> torch.Tensor:
        """Student–teacher and student–autoencoder map, not normalised: float32 ``[B, 2, h, w]``."""
        teacher, networks = self._learned()
        if self.device.type == "cpu" and len(batch) > 1:  # no slower there, and memory is that of one image
            return torch.cat([self._coarse_maps(image[None]) for image in batch])
        said = networks.student(batch)
        local = (teacher(batch) - said[:, : teacher.channels]).square_().mean(1)
        structural = (networks.autoencoder(batch) - said[:, teacher.channels :]).square_().mean(1)
        return torch.stack([local, structural], dim=1)

    # State

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Student and autoencoder; mean and deviation of the teacher's channels; quantiles of the maps; ``teacher``:
        uint8 ``[32]``, the SHA-256 of its weights; what was adapted of an extractor."""
        teacher, networks = self._learned()
        mean, std = self._statistics
        state = {name: tensor.detach() for name, tensor in networks.state_dict().items()}
        state |= {"mean": mean, "std": std, "quantiles": self._quantiles, "teacher": _fingerprint(teacher)}
        if self._adaptable(teacher):
            fitted = cast(FittedExtractor, teacher.source).state()
            state |= {_EXTRACTOR + name: tensor for name, tensor in fitted.items()}
        return state

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        teacher = self._new_teacher()
        adapted = {n.removeprefix(_EXTRACTOR): t for n, t in state.items() if n.startswith(_EXTRACTOR)}
        if isinstance(teacher.source, AdaptableExtractor):
            try:
                restored = teacher.source.restore(adapted)
            except AndonError as error:
                raise AndonError(f"{self.name}: {error}") from error
            teacher = _Teacher(restored, self._grid, teacher.weights)
            teacher.to(self.device)
            state = {n: t for n, t in state.items() if not n.startswith(_EXTRACTOR)}
        networks = self._new_networks(teacher.channels)
        expected = types_of(networks.state_dict())
        per_channel = (torch.float32, (teacher.channels,))
        tensors = checked_state(
            self.name,
            state,
            {
                **expected,
                "mean": per_channel,
                "std": per_channel,
                "quantiles": (torch.float64, (2, 2)),
                "teacher": (torch.uint8, (32,)),
            },
        )
        if not torch.equal(tensors.pop("teacher").cpu(), _fingerprint(teacher)):
            raise AndonError(
                f"efficientad: tensor teacher of the saved state is of other weights than {self.config.weights!r}; "
                "name the weights that it was trained with"
            )
        mean, std, quantiles = (tensors.pop(name).cpu() for name in ("mean", "std", "quantiles"))
        if not bool((std > 0).all()) or not bool((quantiles[:, 0] < quantiles[:, 1]).all()):
            raise AndonError("efficientad: tensors std and quantiles of the saved state must be positive and ascending")
        networks.load_state_dict(tensors)
        self._take(teacher, networks, (mean, std))
        teacher.normalise(mean, std)
        self._quantiles = quantiles

    def _take(self, teacher: _Teacher, networks: _Networks, statistics: tuple[torch.Tensor, torch.Tensor]) -> None:
        self._teacher, self._statistics = teacher, statistics
        self._networks = networks.requires_grad_(False).eval().to(self.device)

    @staticmethod
    def _adaptable(teacher: _Teacher) -> bool:
        return isinstance(getattr(teacher.source, "base", None), AdaptableExtractor)

    def to(self, device: torch.device | str) -> Method[EfficientAdConfig]:
        super().to(device)
        if self._teacher is not None:
            self._teacher.to(self.device)
        if self._networks is not None:
            self._networks.to(self.device)
        return self


def _fingerprint(teacher: _Teacher) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(teacher.weights.sha256)), dtype=torch.uint8)


# Training


class _Batch(NamedTuple):
    """A step's images, made from the step's number alone: float32 ``[B, 3, H, W]`` each, indices int64 ``[B]``."""

    indices: torch.Tensor
    images: torch.Tensor
    augmented: torch.Tensor
    penalty: torch.Tensor | None


class _Training:
    """One run of ``fit``."""

    def __init__(
        self, method: EfficientAd, teacher: _Teacher, images: Images, seed: int, progress: ProgressCallback
    ) -> None:
        self.method, self.teacher, self.images, self.seed, self.progress = method, teacher, images, seed, progress
        self.config, self.device, self.transform = method.config, method.device, method.config.transform
        self.penalty = None if self.config.penalty == "none" else _PenaltyImages(self.config, seed)
        held_out = round(self.config.validation_share * len(images))
        held_out = min(max(1, held_out), len(images) - 1)
        order = numpy_step_generator(seed, "validation").permutation(len(images))
        self.validation = images.subset(sorted(int(i) for i in order[:held_out]))
        self.train_images = images.subset(sorted(int(i) for i in order[held_out:]))
        if self.config.extra_normalisation or held_out == 0:
            self.validation = images
        self.held_out = held_out
        self.order = SampleOrder(len(self.train_images), self.config.train_batch_size, seed)

    def run(self) -> FitReport:
        config, begin = self.config, time.perf_counter()
        notes: list[str] = []
        if isinstance(self.teacher.source, AdaptableExtractor):
            adapted = self.teacher.source.adapt(
                self.train_images, self.transform, device=self.device, progress=self.progress
            )
            notes.append(adapted.describe())
            self.teacher = _Teacher(adapted, self.teacher.grid, self.teacher.weights)
        mean, std = self._teacher_statistics()
        described = time.perf_counter()
        networks = self.method._new_networks(self.teacher.channels)
        networks.initialise(self.seed)
        networks.to(self.device)
        report, full = self._train(networks)
        self.method._take(self.teacher, networks, (mean, std))
        self.known = torch.empty(0)
        trained = time.perf_counter()
        self.method._quantiles = self._map_quantiles()
        normalised = time.perf_counter()
        record = self.teacher.weights
        notes += [
            f"teacher: {record.part}, {record.name} ({record.source})",
            f"penalty images: {self.penalty.name if self.penalty else 'none'}",
            f"maps normalised on {len(self.validation):,} "
            + ("images, those trained on among them" if self._normalised_on_trained else "held-out images"),
            *budget_notes(config, report.steps, full),
        ]
        return FitReport(
            n_train=len(self.images),
            seconds={"teacher": described - begin, "training": report.seconds, "normalisation": normalised - trained},
            weights=(record,),
            notes=tuple(notes),
            curves=report.curves,
        )

    @property
    def _normalised_on_trained(self) -> bool:
        return self.config.extra_normalisation or self.held_out == 0

    # Teacher's side

    @torch.no_grad()
    def _teacher_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the teacher's channels over the training images, float32 ``[C]``.

        Outputs are kept, as many as the memory limit allows: unaugmented images are described once.
        """
        images, channels = self.train_images, self.teacher.channels
        per_image = 4 * channels * self.teacher.grid[0] * self.teacher.grid[1]
        capacity = min(len(images), int(self.config.memory_limit * _GIB / per_image))
        self.known = torch.empty((capacity, channels, *self.teacher.grid), device=self.device)
        sums = squares = origin = torch.zeros(channels, dtype=torch.float64)
        for indices, images_ in images.batches(self.transform, _STATISTICS_BATCH):
            output = self.teacher(images_.to(self.device))
            kept = self.known[indices.start : indices.stop]
            kept.copy_(output[: len(kept)])
            if indices.start == 0:  # sums of squares about a typical value do not cancel
                origin = output.mean((0, 2, 3)).double().cpu()
            shifted = output.transpose(0, 1).flatten(1).double().cpu() - origin[:, None]
            sums = sums + shifted.sum(1)
            squares = squares + shifted.square().sum(1)
            self.progress("teacher", indices.stop, len(images))
        count = len(images) * self.teacher.grid[0] * self.teacher.grid[1]
        variance = (squares / count - (sums / count).square()).clamp_min(0)
        # A channel that never varies says nothing; it must not become a division by nothing.
        std = torch.where(variance > 0, variance, 1.0).sqrt()
        mean = (origin + sums / count).float()
        std = std.float()
        self.known.sub_(mean.to(self.device)[:, None, None]).div_(std.to(self.device)[:, None, None])
        self.teacher.normalise(mean, std)
        return mean, std

    def _described(self, indices: torch.Tensor, images_: torch.Tensor) -> torch.Tensor:
        """The teacher's output for training images, from memory where it is there."""
        rows = [
            self.known[int(i)] if int(i) < len(self.known) else self.teacher(images_[row : row + 1])[0]
            for row, i in enumerate(indices)
        ]
        return torch.stack(rows)

    # Training

    def _train(self, networks: _Networks) -> tuple[TrainingReport, int]:
        config = self.config
        full = config.steps
        if config.epochs is not None:
            full = steps_of_epochs(config.epochs, len(self.train_images), config.train_batch_size)
        steps = budgeted(full, config.budget)
        report = train(
            lambda _, batch: self.losses(networks, batch),
            self.batch,
            steps=steps,
            modules={"networks": networks},
            optimiser=torch.optim.Adam(
                networks.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
            ),
            schedule=step_decay(steps, config.decay_at, config.decay),
            seed=self.seed,
            identity=training_identity(self.method, self.images, self.seed),
            device=self.device,
            options=stage_options(self.method, "training", channels_last=self.device.type == "cuda"),
            stage="training",
            progress=self.progress,
        )
        return report, full

    def batch(self, number: int) -> _Batch:
        """Images, their colour-jittered copies, and penalty images (algorithm 1, lines 9 to 21)."""
        config, rng = self.config, numpy_step_generator(self.seed, "batch", number)
        indices = self.order(number)
        stack = np.stack([self.train_images.resized(i, self.transform) for i in indices])
        images_ = self.transform.normalise(stack)
        plain = self.transform.denormalise(images_)
        jittered = [
            colour_jitter(image, int(rng.integers(3)), float(rng.uniform(1 - config.jitter, 1 + config.jitter)))
            for image in plain
        ]
        penalty = None
        if self.penalty is not None:
            chosen = [self.penalty.image(number * len(indices) + i, rng) for i in range(len(indices))]
            penalty = self.transform.normalise(np.stack(chosen))
        return _Batch(torch.tensor(indices), images_, _normalised(self.transform, torch.stack(jittered)), penalty)

    def losses(self, networks: _Networks, batch: _Batch) -> dict[str, torch.Tensor]:
        """The four losses of a step; the student sees all images in one pass, and of its last layer only that half is
        computed which an image's loss is about."""
        student, channels, count = networks.student, self.teacher.channels, len(batch.images)
        target = self._described(batch.indices, batch.images)
        jittered_target = self.teacher(batch.augmented)
        together = [batch.augmented, batch.images, *([] if batch.penalty is None else [batch.penalty])]
        hidden = student.before_last_layer(torch.cat(together))
        structural = student.last_layer_part(hidden[:count], channels, 2 * channels)
        local = student.last_layer_part(hidden[count:], 0, channels)
        decoded = networks.autoencoder(batch.augmented)
        losses = {"hard features": hard_feature_loss((target - local[:count]).square(), self.config.hard_quantile)}
        if batch.penalty is not None:
            losses["penalty"] = local[count:].square().mean()
        losses["autoencoder"] = F.mse_loss(decoded, jittered_target)
        losses["student-autoencoder"] = F.mse_loss(structural, decoded)
        return losses

    # Normalisation of maps

    def _map_quantiles(self) -> torch.Tensor:
        """Quantiles of either map over the validation images, float64 ``[2, 2]``."""
        parts = []
        for indices, images_ in self.validation.batches(self.transform, self.config.batch_size):
            parts.append(self.method._coarse_maps(images_.to(self.device)).cpu().numpy())
            self.progress("normalisation", indices.stop, len(self.validation))
        maps = np.concatenate(parts).swapaxes(0, 1).reshape(2, -1).astype(np.float64)
        quantiles = np.quantile(maps, self.config.quantiles, axis=1).T
        if not np.isfinite(quantiles).all() or (quantiles[:, 0] >= quantiles[:, 1]).any():
            raise AndonError(
                "efficientad: the maps of good images are the same everywhere, so they cannot be normalised; "
                "are the images without any content?"
            )
        return torch.from_numpy(np.ascontiguousarray(quantiles))


def _normalised(transform: Transform, images_: torch.Tensor) -> torch.Tensor:
    """``transform.normalise`` of float ``[B, 3, H, W]`` in 0..1."""
    zero_one = transform.normalise(np.array([[[[0, 0, 0], [255, 255, 255]]]], np.uint8))[0]
    offset, top = zero_one[:, 0, :1, None], zero_one[:, 0, 1:, None]
    return images_ * (top - offset) + offset


class _PenaltyImages:
    """Images of other things (appendix A.2): twice the size, at times grey, and their centre."""

    def __init__(self, config: EfficientAdConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.source: ImageSource = image_source(config.penalty)
        counts = [count for count in (self.source.count, config.penalty_images) if count is not None]
        self.count = min(counts) if counts else None
        self.name = self.source.name + (f", {self.count:,} of them" if config.penalty_images else "")
        self._kept: dict[int, ImageArray] = {}
        height, width = config.transform.output_size
        self._capacity = int(config.memory_limit * _GIB / 4 / (3 * height * width))
        """A quarter of the limit for crops of images that come again."""

    def image(self, number: int, rng: np.random.Generator) -> ImageArray:
        """uint8 ``[H, W, 3]``, the number-th of the training's; ``rng`` decides on grey, and which one of a count."""
        index = number if self.count is None else int(rng.integers(self.count))
        crop = self._kept.get(index)
        if crop is None:
            crop = self._crop(index)
            if self.count is not None and len(self._kept) < self._capacity:
                self._kept[index] = crop
        if rng.random() < self.config.penalty_grey:
            grey = np.rint(crop @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return crop

    def _crop(self, index: int) -> ImageArray:
        height, width = self.config.transform.output_size
        side = 2 * max(height, width)
        image = self.source.image(index, side)
        top, left = (side - height) // 2, (side - width) // 2
        return image[top : top + height, left : left + width].copy()
