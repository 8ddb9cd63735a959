"""The contract of every method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

import torch
from pydantic import BaseModel, ConfigDict

from andon.core import AndonError, Prediction, ProgressCallback, no_progress
from andon.data.images import ImageLike, Images, as_images
from andon.data.transform import Transform
from andon.features.base import AdaptableExtractor, FeatureExtractor, FittedExtractor, iterate_features
from andon.weights import WeightsRecord

__all__ = ["EMBEDDED_FEATURES", "ConfigT", "FeatureMethod", "FitReport", "Method", "MethodConfig"]


class MethodConfig(BaseModel):
    """Base of every method's Config: frozen, unknown options refused, every hyperparameter with the paper's default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    transform: Transform = Transform()
    batch_size: int = 32
    """Images a batch at prediction; changes speed and memory, never scores."""


EMBEDDED_FEATURES: Mapping[str, Any] = {
    "backbone": "andon-features",
    "layers": ("cells",),
    "weights": "embedded",
    "transform": {"size": (224, 224)},
}
"""Options with which a method stands on the extractor that comes with the package (docs/features.md)."""
_EXTRACTOR = "extractor."
ConfigT = TypeVar("ConfigT", bound=MethodConfig)


@dataclass(frozen=True)
class FitReport:
    """What happened in ``fit``; kept in the experiment's record.

    Attributes:
        n_train: training images.
        seconds: seconds by stage ("features", "coreset").
        weights: learned parts that were used.
        notes: what a reader of the result has to know ("coreset 4,704 of 47,040 patches").
        curves: loss curves by name, ``[(step, value), …]``.
    """

    n_train: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    weights: tuple[WeightsRecord, ...] = ()
    notes: tuple[str, ...] = ()
    curves: Mapping[str, list[tuple[int, float]]] = field(default_factory=dict)


class Method(ABC, Generic[ConfigT]):
    """One way to learn what good images look like.

    A subclass sets ``name``, ``title``, ``paper`` and ``Config`` and implements ``fit``, ``predict_batch``,
    ``state_dict`` and ``load_state_dict``; ``@register`` makes it known (see ``andon.methods.registry``).
    The same seed on the same machine gives the same result; the scores of one image never depend on the other
    images in its batch.
    """

    name: ClassVar[str]
    """Name on the command line and in plans ("patchcore")."""
    title: ClassVar[str]
    """Name in tables ("Patchcore")."""
    paper: ClassVar[str] = ""
    """Citation with arXiv id or DOI."""
    trained: ClassVar[bool] = False
    """Whether ``fit`` is gradient training (slow), rather than one pass over features."""
    seeded: ClassVar[bool] = True
    """Whether the seed changes the result."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Named configurations, as options that differ from the defaults: "study" (the AutoVI study's settings),
    "released-code" (the deviations of the study's code), "embedded" (needs nothing from outside the package)."""
    Config: ClassVar[type[MethodConfig]]
    checkpoints: Path | None = None
    """Folder where a trained method keeps the state of its training, to go on from there; None keeps none. Whoever sets
    it gives each run its own, and removes it when the result is stored."""
    checkpoint_seconds: float = 60.0
    """Least time between two checkpoints."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config
        self.device = torch.device("cpu")

    @property
    def transform(self) -> Transform:
        return self.config.transform

    @abstractmethod
    def fit(
        self,
        train: Images | Iterable[ImageLike],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> FitReport:
        """Learns from good images (at least one; AndonError otherwise)."""

    @abstractmethod
    def predict_batch(self, batch: torch.Tensor) -> Prediction:
        """Scores float32 ``[B, 3, H, W]`` as ``transform`` gives it. AndonError before ``fit``."""

    def iterate_predictions(
        self, images: Images | Iterable[ImageLike], *, progress: ProgressCallback = no_progress
    ) -> Iterator[Prediction]:
        """Predictions batch by batch, in order: bounded memory whatever the number of images."""
        images = as_images(images)
        for indices, batch in images.batches(self.transform, self.config.batch_size):
            yield self.predict_batch(batch.to(self.device))
            progress("predict", indices.stop, len(images))

    def predict(self, images: Images | Iterable[ImageLike]) -> Prediction:
        """Image scores ``[N]`` and anomaly maps ``[N, h, w]`` of samples, paths or RGB uint8 arrays."""
        parts = list(self.iterate_predictions(images))
        if not parts:
            raise AndonError(f"{self.name}: no images to predict")
        return Prediction.concatenate(parts)

    @abstractmethod
    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that ``fit`` learned, as tensors (it is stored as safetensors)."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restores ``state_dict``; AndonError that names the tensor for a missing, extra or misshapen one."""

    def to(self, device: torch.device | str) -> Method[ConfigT]:
        """Moves what ``fit`` learned to a device; returns self."""
        self.device = torch.device(device)
        return self

    def describe(self) -> dict[str, Any]:
        """Name and configuration as JSON-able values: what identifies this method in an experiment."""
        return {"method": self.name, "config": self.config.model_dump(mode="json")}


class FeatureMethod(Method[ConfigT]):
    """A method on a frozen extractor: its features are cached and shared by seeds, subsets and methods.

    An extractor that adapts to good images (andon-features) is fitted first: ``fit`` calls ``adapt_extractor``,
    ``state_dict`` adds ``extractor_state()``, and ``load_state_dict`` passes its state through ``restore_extractor``.
    """

    _extractor: FeatureExtractor | None = None

    @property
    @abstractmethod
    def extractor(self) -> FeatureExtractor:
        """The frozen extractor, made on first use."""

    def adapt_extractor(self, images: Images, progress: ProgressCallback = no_progress) -> tuple[str, ...]:
        """Fits the extractor to good images where it can be; returns notes for the report (none otherwise)."""
        base = self._unadapted()
        if not isinstance(base, AdaptableExtractor):
            return ()
        fitted = base.adapt(images, self.transform, device=self.device, progress=progress)
        self._extractor = fitted
        return (fitted.describe(),)

    def extractor_state(self) -> dict[str, torch.Tensor]:
        """What was fitted of the extractor, names beginning with "extractor."; empty for a frozen one."""
        if not isinstance(self._unadapted(), AdaptableExtractor):
            return {}
        return {_EXTRACTOR + name: tensor for name, tensor in cast(FittedExtractor, self.extractor).state().items()}

    def restore_extractor(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Takes what ``extractor_state`` gave out of a state dict; returns the rest."""
        base = self._unadapted()
        if not isinstance(base, AdaptableExtractor):
            return dict(state)
        own = {n.removeprefix(_EXTRACTOR): t for n, t in state.items() if n.startswith(_EXTRACTOR)}
        try:
            self._extractor = base.restore(own).to(self.device)
        except AndonError as error:
            raise AndonError(f"{self.name}: {error}") from error
        return {n: t for n, t in state.items() if not n.startswith(_EXTRACTOR)}

    def _unadapted(self) -> FeatureExtractor:
        base: FeatureExtractor = getattr(self.extractor, "base", self.extractor)
        return base

    @abstractmethod
    def predict_features(self, features: tuple[torch.Tensor, ...]) -> Prediction:
        """Scores one ``[B, C, h, w]`` a stage."""

    def predict_batch(self, batch: torch.Tensor) -> Prediction:
        return self.predict_features(self.extractor(batch))

    def iterate_features(
        self, images: Images, *, progress: ProgressCallback = no_progress, stage: str = "features"
    ) -> Iterator[tuple[range, tuple[torch.Tensor, ...]]]:
        return iterate_features(
            self.extractor.to(self.device),
            images,
            self.transform,
            batch_size=self.config.batch_size,
            device=self.device,
            progress=progress,
            stage=stage,
        )

    def iterate_predictions(
        self, images: Images | Iterable[ImageLike], *, progress: ProgressCallback = no_progress
    ) -> Iterator[Prediction]:
        for _, features in self.iterate_features(as_images(images), progress=progress, stage="predict"):
            yield self.predict_features(features)
