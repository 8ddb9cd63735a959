"""What the methods share whose students learn what a teacher says of patches (Uninformed Students, GCAD): the choice of
the teacher, a step's images, and maps that good images held out from training bring to one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import nn

from andon._tools.networks import blank, default_weights
from andon.core import DetectorError, ProgressCallback, WeightsError
from andon.data import Images, Transform
from andon.features import Extractor, create_extractor
from andon.methods._batches import one_by_one
from andon.methods._maps import upsample_and_smooth
from andon.methods._patch_networks import Padding, PatchNetwork, ReceptiveField, grid_size
from andon.methods._teachers import (
    DescribedImages,
    ExtractorTeacher,
    NormalisedTeacher,
    Sampling,
    Split,
    blank_teacher_extractor,
)
from andon.methods.base import Detector, Fitting, Method, TrainedConfig, budgeted
from andon.training import SampleOrder, Stage, steps_of_epochs
from andon.weights import WeightsRecord, check_weights, find_part, load_into, random_seed, random_weights

__all__ = [
    "DESIGNED_TEACHER",
    "PatchBatch",
    "PatchDetector",
    "PatchMethod",
    "PatchStage",
    "PatchTeacher",
    "PatchTeacherConfig",
    "check_patch_teacher",
    "load_patch_teacher",
]

DESIGNED_TEACHER: Mapping[str, Any] = {
    "receptive_fields": (33,),
    "teacher": "andon-features",
    "layers": ("cells",),
    "weights": "embedded",
}
"""Options with which a method learns from the designed features, for who may not use weights learned from ImageNet."""


class PatchTeacherConfig(TrainedConfig):
    """Base of their Configs; what is common to the papers is the default.

    Attributes:
        receptive_fields: sides of the patches in pixels; each has its teacher and its students.
        teacher: "patch" (the papers': a network of the receptive field, distilled from a pretrained one), or the name
            of a frozen extractor (``andon.features.create_extractor``), whose features the students then predict.
        layers: stages of an extractor as teacher, one for each receptive field; empty for "patch".
        weights: of the teacher: for "patch" a file, in whose name "{field}" stands for the receptive field, or
            "random" (the authors publish none); for an extractor see ``create_extractor``.
        stride: pixels from one descriptor to the next; 1 in the papers.
        padding: what is beyond the image's edges: "zeros", or the nearest pixel ("edge").
        epochs: passes over the training images.
        train_batch_size: images a step.
        learning_rate, weight_decay: of Adam.
        validation_share: part of the training images on which maps are normalised, and which are not trained on.
        sigma: Gaussian smoothing of the map, in pixels of the method's input; 0 for none.
        memory_limit: GiB that teacher outputs of training images may use; beyond it they are computed at every step.
    """

    transform: Transform = Transform(size=(256, 256))
    receptive_fields: tuple[ReceptiveField, ...] = Field((17, 33, 65), min_length=1)
    teacher: str = "patch"
    layers: tuple[str, ...] = ()
    weights: str = "imagenet"
    stride: int = Field(1, ge=1, le=16)
    padding: Padding = "zeros"
    epochs: float = Field(100, gt=0)
    train_batch_size: int = Field(1, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    validation_share: float = Field(0.1, gt=0, lt=1)
    sigma: float = Field(0.0, ge=0)
    memory_limit: float = Field(1.0, ge=0)

    @field_validator("transform")
    @classmethod
    def _fits(cls, value: Transform) -> Transform:
        if value.normalisation != "imagenet":
            raise ValueError("normalisation must be 'imagenet': the teacher knows images like that")
        return value

    @field_validator("receptive_fields")
    @classmethod
    def _different(cls, value: tuple[ReceptiveField, ...]) -> tuple[ReceptiveField, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"must be different, not {list(value)}")
        return value

    @model_validator(mode="after")
    def _a_stage_a_field(self) -> PatchTeacherConfig:
        if len(self.layers) != (0 if self.teacher == "patch" else len(self.receptive_fields)):
            raise ValueError(
                "layers must be empty for teacher 'patch', and name one stage of an extractor for each of the "
                f"{len(self.receptive_fields)} receptive fields; they are {list(self.layers)}"
            )
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the descriptors."""
        return grid_size(self.transform.output_size, self.stride)


ConfigT = TypeVar("ConfigT", bound=PatchTeacherConfig)


# The teacher


def _part(field: ReceptiveField, weights: str | Path) -> tuple[str, str]:
    """Name of a receptive field's teacher, and its weights; WeightsError where published ones are asked for."""
    part = f"uninformed_students_teacher_{field}"
    if str(weights) == "imagenet":
        raise WeightsError(
            f"weights for {part}: the authors publish no teacher; make one "
            "(andon pretrain uninformed-students-teacher) and name the file, or name an extractor as the teacher"
        )
    return part, str(weights).replace("{field}", str(field))


def check_patch_teacher(field: ReceptiveField, weights: str | Path) -> None:
    """Makes sure that a teacher's file is there, without loading it; WeightsError where it is not."""
    check_weights(*_part(field, weights))


def load_patch_teacher(
    field: ReceptiveField, weights: str | Path, *, stride: int, padding: Padding
) -> tuple[PatchNetwork, WeightsRecord]:
    """A frozen teacher and where its weights are from.

    Args:
        field: its receptive field.
        weights: a file (``andon pretrain uninformed-students-teacher`` writes one), in whose name "{field}" stands for
            the receptive field; or "random" or "random:SEED" (the record says so).
        stride, padding: of its dense output.

    Raises:
        WeightsError: not found, damaged, or of another network; the authors publish none.
    """
    part, named = _part(field, weights)
    network = blank(lambda: PatchNetwork(field, stride=stride, padding=padding))
    seed = random_seed(named)
    if seed is not None:
        record = random_weights(network, part, seed)
    else:
        state, path, record = find_part(part, named, dict)
        load_into(network, state, path)
    return network.requires_grad_(False).eval(), record


class PatchTeacher(NormalisedTeacher):
    """Patch teachers side by side, as one: ``[B, 3, H, W]`` to ``[B, Σ channels, h, w]``."""

    def __init__(self, networks: Sequence[PatchNetwork]) -> None:
        super().__init__(sum(network.channels for network in networks))
        self.networks = nn.ModuleList(networks)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.normalised(torch.cat([network(batch) for network in self.networks], dim=1))

    def patch_networks(self) -> list[PatchNetwork]:
        """One a receptive field."""
        return [network for network in self.networks if isinstance(network, PatchNetwork)]


# Training


class PatchBatch(NamedTuple):
    """A step's images float32 ``[B, 3, H, W]`` and which they are, int64 ``[B]``."""

    indices: torch.Tensor
    images: torch.Tensor


class PatchStage(Stage[PatchBatch]):
    """A training of networks, one module a receptive field, on images and on what the teacher says of them.

    Args:
        shares: the teacher's channels, receptive field by receptive field.
    """

    name = "training"

    def __init__(
        self,
        config: PatchTeacherConfig,
        networks: nn.ModuleList,
        described: DescribedImages,
        images: Images,
        shares: Sequence[int],
        seed: int,
    ) -> None:
        self.config, self.networks, self.described, self.images = config, networks, described, images
        self.shares = list(shares)
        self.full_steps = steps_of_epochs(config.epochs, images.n_sources, config.train_batch_size)
        self.steps = budgeted(self.full_steps, config.budget)
        self.order = SampleOrder(len(images), config.train_batch_size, seed)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"networks": self.networks}

    def optimiser(self) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.Adam(self.networks.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)

    def batch(self, number: int) -> PatchBatch:
        indices, transform = self.order(number), self.config.transform
        images = transform.normalise(np.stack([self.images.resized(i, transform) for i in indices]))
        return PatchBatch(torch.tensor(indices), images)

    def targets(self, batch: PatchBatch) -> tuple[torch.Tensor, ...]:
        """What the teacher says, ``[B, C, h, w]`` a receptive field."""
        return torch.split(self.described(batch.indices, batch.images), self.shares, dim=1)

    def close(self) -> None:
        self.described.forget()


# What was learned


class PatchDetector(Detector):
    """A detector whose maps, two a receptive field, are brought to one scale and added up.

    Buffer ``moments``, float64 ``[maps, 2]``: mean and standard deviation of each over held-out good images.

    Args:
        shares: the teacher's channels, receptive field by receptive field.
        networks: what was trained, one module a receptive field.
    """

    config: PatchTeacherConfig
    networks_name: ClassVar[str]
    """Under which the networks are saved."""
    moments: torch.Tensor

    def __init__(
        self,
        config: PatchTeacherConfig,
        teacher: PatchTeacher | ExtractorTeacher,
        shares: Sequence[int],
        networks: nn.ModuleList,
    ) -> None:
        super().__init__(config)
        self.teacher, self.shares = teacher, tuple(shares)
        self.add_module(self.networks_name, networks)
        self.register_buffer("moments", torch.tensor([[0.0, 1.0]], dtype=torch.float64).repeat(2 * len(networks), 1))

    def check(self) -> None:
        if not bool((self.moments[:, 1] > 0).all()) or not bool((self.teacher.std > 0).all()):
            raise DetectorError(f"{self.name}: tensors moments and teacher.std of the saved state must be positive")

    def field_maps(self, network: nn.Module, batch: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Both maps of a receptive field, float32 ``[B, 2, h, w]``, of what its network and the teacher say."""
        raise NotImplementedError

    def raw_maps(self, batch: torch.Tensor) -> torch.Tensor:
        """float32 ``[B, maps, h, w]``, not normalised: those of each receptive field in turn."""
        targets = self.teacher(batch).split(self.shares, dim=1)
        networks = self.get_submodule(self.networks_name).children()
        fields = zip(networks, targets, strict=True)
        return torch.cat([self.field_maps(network, batch, target) for network, target in fields], dim=1)

    def normalised_maps(self, batch: torch.Tensor) -> torch.Tensor:
        """``raw_maps`` with mean 0 and standard deviation 1 over held-out good images."""
        raw = one_by_one(self.raw_maps, batch)
        mean, std = self.moments.to(raw).unbind(1)
        return (raw - mean[:, None, None]) / std[:, None, None]

    def enlarged(self, coarse: torch.Tensor) -> torch.Tensor:
        """Maps ``[B, h, w]`` at the size of the method's input, smoothed."""
        return upsample_and_smooth(coarse, self.transform.output_size, self.config.sigma)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.enlarged(self.normalised_maps(batch).sum(1) / len(self.config.receptive_fields))
        return maps.amax((1, 2)), maps

    @torch.inference_mode()
    def set_moments(self, images: Images, progress: ProgressCallback) -> None:
        """Takes the moments of ``raw_maps`` over good images; a map that never varies is left as it is."""
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        origin: torch.Tensor | None = None  # sums of squares about a typical value do not cancel
        for indices, batch in images.batches(self.transform, self.config.batch_size):
            raw = one_by_one(self.raw_maps, batch.to(self.device)).double().transpose(0, 1).flatten(1)
            origin = raw.mean(1, keepdim=True) if origin is None else origin
            total, squares = total + (raw - origin).sum(1), squares + (raw - origin).square().sum(1)
            count += raw.shape[1]
            progress("normalisation", indices.stop, len(images))
        assert origin is not None
        variance = squares / count - (total / count).square()
        std = torch.where(variance > 0, variance, 1.0).sqrt()
        self.moments.copy_(torch.stack([origin[:, 0] + total / count, std], dim=1))


# The recipe


class PatchMethod(Method[ConfigT]):
    """A method whose students learn from patch teachers, or from an extractor in their place.

    A subclass sets ``detector`` and ``stage`` and implements ``networks``.
    """

    trained = True
    detector: ClassVar[type[PatchDetector]]
    stage: ClassVar[type[PatchStage]]

    def networks(self, shares: Sequence[int]) -> nn.ModuleList:
        """What is trained, one module a receptive field, for a teacher of so many channels each."""
        raise NotImplementedError

    def learn(self, fitting: Fitting) -> PatchDetector:
        split, teacher, described = self.described(fitting)
        shares = self.shares(teacher)
        networks = blank(lambda: self.networks(shares))
        default_weights(networks, fitting.seed, bias_first=False)
        networks.to(fitting.device)
        fitting.train(self.stage(self.config, networks, described, split.train, shares, fitting.seed))
        detector = self.detector(self.config, teacher, shares, networks)
        detector.requires_grad_(False).eval().to(fitting.device)
        with fitting.clock("normalisation"):
            detector.set_moments(split.validation, fitting.progress)
        fitting.note(split.note())
        return detector

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> PatchDetector:
        teacher = self._blank_teacher(shapes, weights)
        shares = self.shares(teacher)
        return self.detector(self.config, teacher, shares, blank(lambda: self.networks(shares)))

    @cached_property
    def extractor(self) -> Extractor:
        """The frozen extractor in the place of the teachers, not adapted; shared by all that is fitted."""
        return create_extractor(self.config.teacher, self.config.layers, self.config.weights)

    def _teacher(self, fitting: Fitting, images: Images) -> PatchTeacher | ExtractorTeacher:
        """The frozen teacher on the device, not normalised; an extractor is adapted to the images trained on."""
        config = self.config
        if config.teacher != "patch":
            extractor = fitting.adapted(self.extractor, images=images)
            record = extractor.weights
            fitting.note(f"teacher: features of {record.part}, {record.name} ({record.source})")
            return self._of_extractor(extractor).to(fitting.device)
        networks = []
        with fitting.clock("teacher"):
            for field in config.receptive_fields:
                network, record = load_patch_teacher(
                    field, config.weights, stride=config.stride, padding=config.padding
                )
                fitting.uses(record)
                networks.append(network)
        return PatchTeacher(networks).to(fitting.device)

    def described(self, fitting: Fitting) -> tuple[Split, PatchTeacher | ExtractorTeacher, DescribedImages]:
        """Who is held out, the teacher, and what it says of the images trained on, which makes it normalised."""
        config = self.config
        split = Split.of(fitting.images, config.validation_share, fitting.seed)
        teacher = self._teacher(fitting, split.train)
        with fitting.clock("teacher"):
            described = DescribedImages(
                teacher, split.train, config.transform, config.memory_limit, fitting.device, fitting.progress
            )
        return split, teacher, described

    def _blank_teacher(
        self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]
    ) -> PatchTeacher | ExtractorTeacher:
        """A teacher with room for the saved tensors whose names begin with "teacher."."""
        config = self.config
        if config.teacher == "patch":
            fields, stride, padding = config.receptive_fields, config.stride, config.padding
            return blank(lambda: PatchTeacher([PatchNetwork(f, stride=stride, padding=padding) for f in fields]))
        return self._of_extractor(blank_teacher_extractor(self.name, config.teacher, config.layers, shapes, weights))

    def _of_extractor(self, extractor: Extractor) -> ExtractorTeacher:
        stride = self.config.stride
        return ExtractorTeacher(extractor, self.config.grid, Sampling((stride - 1) / 2, stride))

    @staticmethod
    def shares(teacher: PatchTeacher | ExtractorTeacher) -> tuple[int, ...]:
        """The teacher's channels, receptive field by receptive field."""
        if isinstance(teacher, ExtractorTeacher):
            return tuple(teacher.extractor.channels)
        return tuple(network.channels for network in teacher.patch_networks())
