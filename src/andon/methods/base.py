"""The contract of every method: a recipe that never changes, and what it learns.

A ``Method`` is a name and a frozen Config. ``fit`` gives a ``Detector``: an ``nn.Module`` that holds what was learned
and scores images. Whoever holds a detector need not know which method made it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np
import torch
from torch import nn

from andon.core import (
    AndonError,
    Category,
    DataError,
    DetectorError,
    Prediction,
    ProgressCallback,
    TrainingError,
    canonical_json,
    no_progress,
)
from andon.data import ImageLike, Images, Transform, as_images
from andon.features import Extractor, blank_extractor, create_extractor, iterate_features
from andon.methods._checks import (
    WatchedImages,
    check_batch,
    check_detector,
    check_prediction,
    constant_rows,
    extreme_images,
    prediction_of,
)
from andon.methods._config import FeatureConfig, MethodConfig, TrainedConfig, budgeted
from andon.methods._fitting import FitReport, FitRun, StageClock
from andon.methods._state import checked_state, shapes_under, types_of
from andon.training import Stage, TrainingOptions, TrainingReport, train_stage
from andon.weights import WeightsRecord

__all__ = [
    "ConfigT",
    "Detector",
    "FeatureConfig",
    "FeatureDetector",
    "FeatureMethod",
    "FitReport",
    "FitRun",
    "Fitting",
    "Method",
    "MethodConfig",
    "TrainedConfig",
    "budgeted",
]


ConfigT = TypeVar("ConfigT", bound=MethodConfig)
FeatureConfigT = TypeVar("FeatureConfigT", bound=FeatureConfig)


# What was learned


class Detector(nn.Module):
    """What a method has learned, as buffers and submodules; scores images.

    A subclass implements ``forward``, free of state that is not in the module, so that it can be exported. The scores
    of one image never depend on the others of its batch.

    Attributes:
        method: the recipe that it was learned by.
        report: what happened in ``fit``.
    """

    method: Method[Any]
    report: FitReport

    def __init__(self, config: MethodConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scores images.

        Args:
            batch: float32 ``[B, 3, H, W]`` as ``transform`` gives it.

        Returns:
            Image scores float32 ``[B]`` and anomaly maps float32 ``[B, h, w]``, both raw, higher = more anomalous; None
            for a detector that gives image scores only.
        """
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The method's name ("patchcore")."""
        return self.method.name

    @property
    def title(self) -> str:
        """The method's name in tables ("Patchcore")."""
        return self.method.title

    @property
    def transform(self) -> Transform:
        """How images are resized, cropped and normalised before ``forward``."""
        return self.config.transform

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        tensor = next((t for t in (*self.parameters(), *self.buffers())), None)
        return torch.device("cpu") if tensor is None else tensor.device

    @torch.inference_mode()
    def predict_batch(self, batch: torch.Tensor) -> Prediction:
        """``forward`` of float32 ``[B, 3, H, W]`` as ``transform`` gives it, as arrays.

        Raises:
            DataError: a batch of another type or shape, or with pixels that are not finite.
            DetectorError: ``forward`` breaks its contract.
        """
        check_batch(self.name, batch, self.transform.output_size)
        return self._prediction(self(batch.to(self.device)), len(batch), constant_rows(batch))

    def iterate_predictions(
        self, images: Images | Iterable[ImageLike], *, progress: ProgressCallback = no_progress
    ) -> Iterator[Prediction]:
        """Predictions batch by batch, in order: bounded memory whatever the number of images."""
        images = as_images(images)
        for indices, batch in images.batches(self.transform, self.config.batch_size):
            yield self.predict_batch(batch)
            progress("predict", indices.stop, len(images))

    def predict(self, images: Images | Iterable[ImageLike] | ImageLike) -> Prediction:
        """Image scores ``[N]`` and anomaly maps ``[N, h, w]`` of samples, paths, PIL images or RGB uint8 arrays."""
        parts = list(self.iterate_predictions(as_images(images)))
        if not parts:
            raise DataError(f"{self.name}: there are no images to predict")
        return Prediction.concatenate(parts)

    def save(self, path: str | Path) -> None:
        """Writes all that is needed to run to one file (safetensors, no pickle); ``andon.load`` reads it."""
        from andon.methods._file import save_detector

        save_detector(self, Path(path))

    def to_bytes(self) -> bytes:
        """The content of the file that ``save`` writes."""
        from andon.methods._file import detector_bytes

        return detector_bytes(self)

    def check(self) -> None:
        """Called when a saved state was loaded; DetectorError for values that cannot be."""

    def constant_score(self) -> float:
        """The least that an image of one colour scores, where no training image was of one colour.

        Such an image can look more ordinary than a good one: a dead camera would pass. By default the largest score of
        black, white and noise; a detector that knows the end of its scale gives that.
        """
        scores = self._prediction(self(extreme_images(self.transform).to(self.device)), 3, []).image_scores
        return float(np.max(scores[np.isfinite(scores)], initial=-np.inf))

    def _prediction(
        self, result: tuple[torch.Tensor, torch.Tensor | None], n: int, constant: Sequence[int]
    ) -> Prediction:
        """What ``forward`` gave for ``n`` images, of which those in the rows ``constant`` have one colour."""
        found = prediction_of(self.name, result, n, self.transform.region)
        if not constant or self.report.n_constant:
            return found
        scores, rows = found.image_scores.copy(), list(constant)
        scores[rows] = np.maximum(scores[rows], np.float32(self.constant_score()))
        return replace(found, image_scores=scores)


class FeatureDetector(Detector):
    """A detector on a frozen extractor, whose features are cached and shared by seeds, subsets and methods."""

    def __init__(self, config: MethodConfig, extractor: Extractor) -> None:
        super().__init__(config)
        self.extractor = extractor

    def judge(self, features: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores ``[B]`` and maps ``[B, h, w]`` of one ``[B, C, h, w]`` a stage."""
        raise NotImplementedError

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.judge(self.extractor(batch))

    def check_grids(self, features: Sequence[torch.Tensor], learned: Sequence[tuple[int, int]]) -> None:
        """DataError where images give other grids than those that were learned from."""
        found = [(int(maps.shape[2]), int(maps.shape[3])) for maps in features]
        if found != list(learned):
            grids = ["; ".join(f"{h} × {w}" for h, w in side) for side in (found, learned)]
            raise DataError(
                f"{self.name}: the images give {grids[0]} positions, it has learned {grids[1]}: another input size"
            )

    def iterate_predictions(
        self, images: Images | Iterable[ImageLike], *, progress: ProgressCallback = no_progress
    ) -> Iterator[Prediction]:
        watched = WatchedImages(as_images(images), self.transform)
        for indices, features in iterate_features(
            self.extractor,
            watched,
            self.transform,
            batch_size=self.config.batch_size,
            device=self.device,
            progress=progress,
            stage="predict",
        ):
            with torch.inference_mode():
                prediction = self._prediction(self.judge(features), len(indices), watched.constant(indices))
            yield prediction


# One run of fit


class Fitting:
    """One run of ``fit``: its images and its circumstances, and the report as it comes together.

    Attributes:
        method: the recipe.
        images: good images, at least one.
        seed: of everything random.
        device: where tensors are.
        progress: to be called as ``progress(stage, done, total)``.
        clock: times stages: ``with fitting.clock("coreset"): …``.
    """

    def __init__(self, method: Method[Any], images: Images, seed: int, run: FitRun) -> None:
        self.method, self.images, self.seed, self.run = method, images, seed, run
        self.device, self.progress = torch.device(run.device), run.progress
        self.clock = StageClock()
        self._weights: list[WeightsRecord] = []
        self._notes: list[str] = []
        self._trainings: dict[str, tuple[Stage[Any], TrainingReport]] = {}
        self._curves: dict[str, list[tuple[int, float]]] = {}

    def note(self, *notes: str) -> None:
        """What a reader of the result has to know."""
        self._notes += notes

    def uses(self, weights: WeightsRecord) -> None:
        """A learned part is used: the report names it."""
        self._weights.append(weights)

    def curve(self, name: str, points: Sequence[tuple[int, float]]) -> None:
        """A curve for the report, ``[(step, value), …]``; those of ``train`` are there already."""
        self._curves[name] = list(points)

    def adapted(self, extractor: Extractor, images: Images | None = None) -> Extractor:
        """The extractor on the device, fitted to the good images where it can be; noted and timed.

        Args:
            images: to fit it to, where that is not all of them.
        """
        self._weights += extractor.records
        extractor = extractor.to(self.device)
        with self.clock("adaptation"):
            fitted = extractor.adapt(
                self.images if images is None else images,
                self.method.config.transform,
                device=self.device,
                progress=self.progress,
            )
        if what := fitted.describe():
            self.note(what)
        else:
            self.clock.forget("adaptation")
        return fitted

    def features(
        self, extractor: Extractor, *, images: Images | None = None, stage: str = "features"
    ) -> Iterator[tuple[range, tuple[torch.Tensor, ...]]]:
        """Features of the images in order, ``(indices, one float32 [B, C, h, w] a stage)``, checked to be finite.

        The time that is spent in it is timed under ``stage``, unless a stage is being timed already.
        """
        chosen = self.images if images is None else images
        source = iterate_features(
            extractor,
            chosen,
            self.method.config.transform,
            batch_size=self.method.config.batch_size,
            device=self.device,
            progress=self.progress,
            stage=stage,
        )
        while True:
            with self.clock(stage):
                part = next(source, None)
            if part is None:
                return
            indices, maps = part
            for level in maps:
                finite = level.flatten(1).isfinite().all(dim=1)
                if not bool(finite.all()):
                    bad = chosen.name(indices[int(finite.logical_not().nonzero()[0])])
                    raise TrainingError(
                        f"{self.method.name}: the features of {bad} are not finite; "
                        f"check the weights ({extractor.weights.name})"
                    )
            yield indices, maps

    @cached_property
    def identity(self) -> str:
        """What this run is: method, configuration, seed, and the content of its images in order.

        A checkpoint of another run is refused by it.
        """
        content = hashlib.blake2b(digest_size=16)
        for index in range(len(self.images)):
            content.update(self.images.fingerprint(index).encode())
        return canonical_json({**self.method.describe(), "seed": self.seed, "train": content.hexdigest()})

    def train(self, stage: Stage[Any]) -> TrainingReport:
        """Trains a stage, or goes on from its checkpoint; losses, seconds and a shortened length are reported."""
        run = self.run
        report = train_stage(
            stage,
            seed=self.seed,
            identity=self.identity,
            device=self.device,
            options=TrainingOptions(
                clip_norm=stage.clip_norm,
                channels_last=stage.channels_last,
                checkpoint=None if run.checkpoints is None else run.checkpoints / f"{stage.name}.ckpt",
                checkpoint_seconds=run.checkpoint_seconds,
            ),
            progress=self.progress,
        )
        self.clock.add(stage.name, report.seconds)
        self._trainings[stage.name] = stage, report
        return report

    def report(self) -> FitReport:
        """What happened."""
        curves = dict(self._curves)
        for name, (_, training) in self._trainings.items():
            prefix = f"{name}/" if len(self._trainings) > 1 else ""
            curves |= {f"{prefix}{loss}": points for loss, points in training.curves.items()}
        return FitReport(
            n_train=self.images.n_sources,
            seconds=dict(self.clock.seconds),
            weights=tuple(self._weights),
            notes=(*self._notes, *self._shortened()),
            curves=curves,
        )

    def _shortened(self) -> tuple[str, ...]:
        config = self.method.config
        if not isinstance(config, TrainedConfig) or config.budget == 1 or not self._trainings:
            return ()
        done = sum(training.steps for _, training in self._trainings.values())
        full = sum(stage.full_steps for stage, _ in self._trainings.values())
        return (f"shortened training: {done:,} steps instead of {full:,} (budget {config.budget:g})",)


# The recipe


class Method(ABC, Generic[ConfigT]):
    """One way to learn what good images look like: a name and a frozen Config.

    A subclass sets ``name``, ``title``, ``paper`` and ``Config`` and implements ``learn``, and ``blank`` so that what
    it has learned can be loaded again. The same seed on the same machine gives the same detector.
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
    """Named configurations, as options that differ from the Config's: "default" (what a method is without a word),
    "study" (the AutoVI study's), "released-code" (its code's), "designed", alias "embedded" (no learned features)."""
    Config: ClassVar[type[MethodConfig]]

    def __init__(self, config: ConfigT | None = None) -> None:
        self.config = cast(ConfigT, self.Config(**self.presets.get("default", {}))) if config is None else config

    @abstractmethod
    def learn(self, fitting: Fitting) -> Detector:
        """Learns from ``fitting.images`` (at least one), on ``fitting.device``."""

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> Detector:
        """A detector with room for a saved state.

        Args:
            shapes: of the saved tensors by name; one that is missing or does not fit is found by the caller.
            weights: where the learned parts in it were from.
        """
        raise DetectorError(
            f"{self.name}: what it has learned cannot be loaded, because {type(self).__name__} does not implement blank"
        )

    def fit(
        self, images: Images | Iterable[ImageLike] | ImageLike | Category, *, seed: int = 0, run: FitRun | None = None
    ) -> Detector:
        """Learns from good images.

        Args:
            images: at least one; of a category its training images are taken.
            seed: of everything random.
            run: what does not change the result: device, progress, checkpoints.

        Raises:
            TrainingError: no images, or a fit that goes wrong.
            DetectorError: what was learned breaks the contract; one training image is scored to see it.
            AndonError: an image that cannot be read, or weights that are not found.
        """
        images = as_images(images.train if isinstance(images, Category) else images)
        if len(images) == 0:
            raise TrainingError(f"{self.name}: there are no images to learn from")
        watched = WatchedImages(images, self.config.transform)
        fitting = Fitting(self, watched, seed, run or FitRun())
        learned = self.learn(fitting)
        fitting.note(*watched.notes())
        report = replace(fitting.report(), n_constant=len(watched.constant(range(len(watched)))))
        detector = self._finished(learned, report, fitting.device)
        self._try(detector, Images(images.items[:1]))
        return detector

    def restore(self, state: Mapping[str, torch.Tensor], report: FitReport) -> Detector:
        """The detector of a saved state dict.

        Raises:
            DetectorError: a tensor that is missing, unknown, of another type or shape, or holds what cannot be.
        """
        try:
            # A tensor without dimensions fits nowhere; as one of one dimension it is found by name below.
            shapes = {name: tuple(tensor.shape) or (1,) for name, tensor in state.items()}
            detector = self.blank(shapes, report.weights)
            detector.method = self
            detector.load_state_dict(checked_state(self.name, state, types_of(detector.state_dict())))
            detector.check()
        except DetectorError:
            raise
        except AndonError as error:
            raise DetectorError(f"{self.name}: {error}") from error
        return self._finished(detector, report, torch.device("cpu"))

    def describe(self) -> dict[str, Any]:
        """Name and configuration as JSON-able values: what identifies this method in an experiment."""
        return {"method": self.name, "config": self.config.model_dump(mode="json")}

    def _try(self, detector: Detector, image: Images) -> None:
        """Scores one image; DetectorError where that fails, before anybody relies on what may have taken hours."""
        try:
            with torch.random.fork_rng(devices=[]):
                check_prediction(self.name, list(detector.iterate_predictions(image)), 1)
        except (AndonError, MemoryError):
            raise
        except Exception as error:
            if "out of memory" in str(error).lower() or "allocate memory" in str(error):
                raise
            raise DetectorError(
                f"{self.name}: what was learned cannot score an image: {type(error).__name__}: {error}"
            ) from error

    def _finished(self, detector: Detector, report: FitReport, device: torch.device) -> Detector:
        check_detector(self.name, detector, Detector, MethodConfig)
        detector.method, detector.report = self, report
        return detector.requires_grad_(False).eval().to(device)


class FeatureMethod(Method[FeatureConfigT]):
    """A method on a frozen extractor."""

    @cached_property
    def extractor(self) -> Extractor:
        """The frozen extractor, not adapted; loaded when it is first needed, and shared by all that is fitted."""
        return create_extractor(self.config.backbone, self.config.layers, self.config.weights)

    def blank_extractor(
        self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord], prefix: str = "extractor."
    ) -> Extractor:
        """An extractor with room for the saved tensors whose names begin with ``prefix``."""
        if not weights:
            raise DetectorError(f"{self.name}: the saved state does not say which weights its extractor had")
        return blank_extractor(self.config.backbone, self.config.layers, weights[0], shapes_under(shapes, prefix))
