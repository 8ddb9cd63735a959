"""How long a fit would take, from a few timed steps of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from andon.core import TrainingError
from andon.data import ImageLike, Images, as_images
from andon.methods._checks import WatchedImages
from andon.methods._fitting import FitRun
from andon.methods.base import Detector, Fitting, Method
from andon.training import Stage, TrainingReport

__all__ = ["TimedFit", "time_fit"]

TIMED_STEPS = 6
FEW = (8, 16)
"""Images of the two short fits of a method that is not trained."""
_MEASURABLE = 0.05
"""Seconds below which the growth of a stage is taken as linear."""


@dataclass(frozen=True)
class TimedFit:
    """What a short fit says of a whole one.

    Attributes:
        detector: of the short fit: it scores images in the usual time, and is good for nothing else.
        seconds: estimate for all images and all steps.
        n_train: images of the whole fit, augmented versions counted.
    """

    detector: Detector
    seconds: float
    n_train: int


def time_fit(
    method: Method[Any], images: Images | Iterable[ImageLike], *, seed: int = 0, run: FitRun | None = None
) -> TimedFit:
    """Fits for a short time and reckons what the whole would take.

    A trained method sees all images and does 6 steps of each of its trainings; their number is known. Another one is
    fitted to 8 and to 16 images: each of its stages grows with a power of their number, between 1 (features) and 2 (a
    coreset), that the two fits give.
    """
    images, run = as_images(images), run or FitRun()
    if len(images) == 0:
        raise TrainingError(f"{method.name}: there are no images to learn from")
    if method.trained:
        return _few_steps(method, images, seed, run)
    n = len(images)
    if n <= FEW[1]:
        detector, seconds = _timed(method, images, seed, run)
        return TimedFit(detector, sum(seconds.values()), n)
    _, before = _timed(method, Images(images.items[: FEW[0]]), seed, run)
    detector, after = _timed(method, Images(images.items[: FEW[1]]), seed, run)
    return TimedFit(detector, sum(_grown(before.get(stage, 0.0), t, n) for stage, t in after.items()), n)


def _grown(before: float, after: float, n: int) -> float:
    """Seconds of a stage on ``n`` images, from those on 8 and on 16."""
    power = 1.0
    if before > 0 and after > _MEASURABLE:
        power = min(max(math.log(after / before) / math.log(FEW[1] / FEW[0]), 1.0), 2.0)
    return float(after * (n / FEW[1]) ** power)


def _timed(method: Method[Any], images: Images, seed: int, run: FitRun) -> tuple[Detector, Mapping[str, float]]:
    start = time.perf_counter()
    detector = method.fit(images, seed=seed, run=run)
    seconds = dict(detector.report.seconds)
    return detector, {**seconds, "rest": max(0.0, time.perf_counter() - start - sum(seconds.values()))}


def _few_steps(method: Method[Any], images: Images, seed: int, run: FitRun) -> TimedFit:
    fitting = _ShortFitting(method, WatchedImages(images, method.config.transform), seed, run)
    start = time.perf_counter()
    learned = method.learn(fitting)
    seconds = time.perf_counter() - start - fitting.trained + fitting.whole
    return TimedFit(method._finished(learned, fitting.report(), fitting.device), seconds, len(images))


class _ShortFitting(Fitting):
    """Does a few steps of each training."""

    trained = whole = 0.0
    """Seconds of the steps that were done, and of all that there would be."""

    def train(self, stage: Stage[Any]) -> TrainingReport:
        wanted = stage.steps
        stage.steps = min(stage.steps, TIMED_STEPS)
        report = super().train(stage)
        self.trained += report.seconds
        self.whole += report.seconds / max(1, report.steps) * wanted
        return report
