"""EfficientAD: what is learned, and how (the paper is cited in the package's docstring)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from andon._tools.networks import blank
from andon.core import DetectorError, ProgressCallback, TrainingError
from andon.data import Images
from andon.features import Extractor, create_extractor
from andon.methods._batches import one_by_one
from andon.methods._maps import upsample
from andon.methods._teachers import DescribedImages, ExtractorTeacher, Split, blank_teacher_extractor
from andon.methods.base import Detector, Fitting, Method, MethodConfig
from andon.methods.efficientad.augmentation import PenaltyImages
from andon.methods.efficientad.config import EfficientAdConfig
from andon.methods.efficientad.networks import Networks, Teacher, extractor_teacher
from andon.methods.efficientad.pdn import PDN, load_teacher
from andon.methods.efficientad.training import EfficientAdStage
from andon.weights import WeightsRecord

__all__ = ["EfficientAd", "EfficientAdDetector"]

_PAD = 4
"""Vectors that a map without padding lacks at each side (section 3.3)."""
_STUDY: Mapping[str, Any] = {"size": "medium", "epochs": 250, "validation_share": 0.05}
_QUICK: Mapping[str, Any] = {
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


class EfficientAdDetector(Detector):
    """Teacher, student and autoencoder, and how their maps are brought to one scale.

    Submodules: ``teacher``, its outputs normalised; ``student``, whose first half of channels is compared with the
    teacher's and whose second half with the ``autoencoder``'s. Buffer ``quantiles``, float64 ``[2, 2]``: those of the
    student–teacher map, of the student–autoencoder map.
    """

    config: EfficientAdConfig
    quantiles: torch.Tensor

    def __init__(
        self, config: EfficientAdConfig, teacher: Teacher, networks: Networks, quantiles: torch.Tensor
    ) -> None:
        super().__init__(config)
        self.teacher = teacher
        self.student, self.autoencoder = networks.student, networks.autoencoder
        self.register_buffer("quantiles", quantiles)

    def check(self) -> None:
        ascending = bool((self.quantiles[:, 0] < self.quantiles[:, 1]).all())
        if not ascending or (isinstance(self.teacher, ExtractorTeacher) and not bool((self.teacher.std > 0).all())):
            raise DetectorError(
                f"{self.name}: tensors teacher.std and quantiles of the saved state must be positive and ascending"
            )

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both = self.coarse_maps(batch)
        low, high = self.quantiles.to(both).unbind(1)
        scaled = 0.1 * (both - low[:, None, None]) / (high - low)[:, None, None]
        mode = "constant" if self.config.map_padding == "zeros" else "replicate"
        coarse = F.pad(scaled.mean(1, keepdim=True), (_PAD,) * 4, mode=mode)[:, 0]
        maps = upsample(coarse, self.transform.output_size)
        return maps.amax((1, 2)), maps

    def coarse_maps(self, batch: torch.Tensor) -> torch.Tensor:
        """Student–teacher and student–autoencoder map, not normalised: float32 ``[B, 2, h, w]``."""
        return one_by_one(self._coarse_maps, batch)

    def _coarse_maps(self, batch: torch.Tensor) -> torch.Tensor:
        said, channels = self.student(batch), self.teacher.channels
        local = (self.teacher(batch) - said[:, :channels]).square_().mean(1)
        structural = (self.autoencoder(batch) - said[:, channels:]).square_().mean(1)
        return torch.stack([local, structural], dim=1)


class EfficientAd(Method[EfficientAdConfig]):
    """EfficientAD (Batzner, Heckler & König 2024), S and M.

    Cost, whatever the number of training images: at 256×256 a step of EfficientAD-M takes about 600 billion
    multiplications an image, a prediction 115 (S: 190 and 35); both grow with the area of the images.
    """

    name = "efficientad"
    title = "EfficientAD"
    paper = (
        "Batzner, Heckler & König, EfficientAD: accurate visual anomaly detection at millisecond-level latencies, "
        "WACV 2024, arXiv:2303.14535"
    )
    trained = True
    Config: ClassVar[type[MethodConfig]] = EfficientAdConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "study": _STUDY,
        # The small network; a schedule that is stepped once an epoch, after int(0.95 · 250) of them. (The code also
        # trains on all images, and normalises maps on good test images, enlarged first: no option here does.)
        "released-code": {**_STUDY, "size": "small", "decay_at": 237 / 250},
        "default": _QUICK,
        "designed": _QUICK,
    }

    @cached_property
    def extractor(self) -> Extractor:
        """The frozen extractor in the place of the teacher, not adapted; shared by all that is fitted."""
        return create_extractor(self.config.teacher, self.config.layers, self.config.weights)

    def learn(self, fitting: Fitting) -> EfficientAdDetector:
        config, device = self.config, fitting.device
        penalty = None if config.penalty == "none" else PenaltyImages(config)
        split = Split.of(
            fitting.images, config.validation_share, fitting.seed, validate_on_all=config.extra_normalisation
        )
        teacher, record = self._teacher(fitting, split.train)
        with fitting.clock("teacher"):
            described = DescribedImages(
                teacher, split.train, config.transform, config.memory_limit, device, fitting.progress
            )
        networks = Networks.initialised(config, teacher.channels, fitting.seed).to(device)
        fitting.train(
            EfficientAdStage(config, networks, described, split.train, penalty, seed=fitting.seed, device=device)
        )
        detector = EfficientAdDetector(config, teacher, networks, torch.zeros((2, 2), dtype=torch.float64))
        detector.requires_grad_(False).eval().to(device)
        with fitting.clock("normalisation"):
            detector.quantiles.copy_(_map_quantiles(detector, split.validation, fitting.progress))
        fitting.note(
            f"teacher: {record.part}, {record.name} ({record.source})",
            f"penalty images: {penalty.name if penalty else 'none'}",
            split.note(),
        )
        return detector

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> EfficientAdDetector:
        teacher = self._blank_teacher(shapes, weights)
        networks = Networks.blank(self.config, teacher.channels)
        return EfficientAdDetector(self.config, teacher, networks, torch.zeros((2, 2), dtype=torch.float64))

    def _blank_teacher(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> Teacher:
        config = self.config
        if config.teacher == "pdn":
            return blank(lambda: PDN(config.size))
        extractor = blank_teacher_extractor(self.name, config.teacher, config.layers, shapes, weights)
        return extractor_teacher(extractor, config.transform.output_size)

    def _teacher(self, fitting: Fitting, images: Images) -> tuple[Teacher, WeightsRecord]:
        """The frozen teacher on the device, not normalised; an extractor is adapted to the images trained on."""
        config = self.config
        if config.teacher != "pdn":
            extractor = fitting.adapted(self.extractor, images=images)
            teacher = extractor_teacher(extractor, config.transform.output_size)
            return teacher.to(fitting.device), extractor.weights
        with fitting.clock("teacher"):
            network, record = load_teacher(config.size, config.weights)
        fitting.uses(record)
        return network.to(fitting.device), record


@torch.inference_mode()
def _map_quantiles(detector: EfficientAdDetector, images: Images, progress: ProgressCallback) -> torch.Tensor:
    """Quantiles of either map over good images, float64 ``[2, 2]``."""
    config = detector.config
    parts = []
    for indices, batch in images.batches(config.transform, config.batch_size):
        parts.append(detector.coarse_maps(batch.to(detector.device)).cpu().numpy())
        progress("normalisation", indices.stop, len(images))
    maps = np.concatenate(parts).swapaxes(0, 1).reshape(2, -1).astype(np.float64)
    quantiles = np.quantile(maps, config.quantiles, axis=1).T
    if not np.isfinite(quantiles).all() or (quantiles[:, 0] >= quantiles[:, 1]).any():
        raise TrainingError(
            f"{EfficientAd.name}: the maps of good images are the same everywhere, so they cannot be normalised; "
            "are the images without any content?"
        )
    return torch.from_numpy(np.ascontiguousarray(quantiles))
