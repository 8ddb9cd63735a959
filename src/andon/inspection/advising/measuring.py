"""A candidate measured: its costs, and its scores of images that the scoring detector did not see."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from andon._tools.seeds import numpy_step_generator
from andon.core import ImageArray, ProgressCallback
from andon.data import ArrayCache, Images
from andon.inspection.advising.candidates import Candidate, Content
from andon.inspection.advising.evidence import Comparisons, comparisons
from andon.inspection.advising.synthetic_defects import KINDS, SyntheticDefect, add_defect
from andon.inspection.cross_fitting import held_out, readings_of
from andon.inspection.regions import EVERYWHERE
from andon.methods import Detector, FitRun, Method, time_fit

__all__ = ["BLOCKS", "Costs", "Measured", "OverBudgetError", "Trial", "make_trial", "measure"]

BLOCKS = 5
"""Of the cross-fitting: the same for all candidates, so that they can be compared."""
LEAST_SYNTHETIC = 40
_TIMED = 6

_Float64 = npt.NDArray[np.float64]


class OverBudgetError(Exception):
    """A candidate would not be, or was not, measured within the time that there is."""


@dataclass(frozen=True)
class Trial:
    """The images that all candidates are measured on.

    Attributes:
        good: RGB uint8 arrays in shooting order.
        synthetic: with defects pasted in.
        base: of each of those the good image that it was made from.
        real: images with real defects.
    """

    good: Sequence[ImageArray] = field(repr=False)
    synthetic: Sequence[SyntheticDefect] = field(repr=False)
    base: npt.NDArray[np.intp] = field(repr=False)
    real: Sequence[ImageArray] = field(repr=False, default=())


@dataclass(frozen=True)
class Costs:
    """What a candidate costs on this machine.

    Attributes:
        fit_seconds: of one fit to the good images, features included; calibration fits about ten times as often.
        milliseconds: an image, from pixels in memory to score and map; the median of some.
        file_bytes: of the detector's file.
        memory_bytes: of its tensors.
        n_fitted: images of that fit.
    """

    fit_seconds: float
    milliseconds: float
    file_bytes: int
    memory_bytes: int
    n_fitted: int


@dataclass(frozen=True)
class Measured:
    """A candidate and what was measured of it.

    Attributes:
        candidate: which.
        title: of the method, for tables.
        config: all of its options.
        costs: on this machine.
        good: out-of-fold scores of the good images ``[n]``, in shooting order.
        synthetic: of the synthetic defects ``[m]``, by the detectors that did not see what they were made from.
        real: of the real defects ``[n, k]``: row i by the detector that scored good image i; None without any.
        seconds: that all of it took.
    """

    candidate: Candidate
    title: str
    config: dict[str, Any] = field(repr=False)
    costs: Costs
    good: _Float64 = field(repr=False)
    synthetic: _Float64 = field(repr=False)
    real: _Float64 | None = field(repr=False)
    seconds: float

    def on_synthetic(self, trial: Trial, kind: str | None = None) -> Comparisons:
        """Against the synthetic defects, or those of one kind."""
        chosen = [j for j, defect in enumerate(trial.synthetic) if kind in (None, defect.kind)]
        return comparisons(self.good, self.synthetic[chosen], trial.base[chosen])

    def on_real(self) -> Comparisons | None:
        """Against the real defects; None without any."""
        return None if self.real is None else comparisons(self.good, self.real)


def make_trial(good: Sequence[ImageArray], real: Sequence[ImageArray], seed: int) -> Trial:
    """Pastes a synthetic defect into each good image, more than one where that gives fewer than 40.

    Kinds take turns in a drawn order, so that each is there as often as any other; the foreign texture is from an image
    half a shooting away.
    """
    rng = numpy_step_generator(seed, "advise", "synthetic defects")
    n = len(good)
    rounds = max(1, -(-LEAST_SYNTHETIC // n))
    kinds = [kind for _ in range(-(-rounds * n // len(KINDS))) for kind in rng.permutation(list(KINDS))]
    base = np.tile(np.arange(n), rounds)
    made = [add_defect(good[i], good[(i + n // 2) % n], rng, kind) for i, kind in zip(base, kinds, strict=False)]
    return Trial(good, made, base, real)


def measure(
    candidate: Candidate,
    content: Content,
    trial: Trial,
    folder: Path,
    *,
    seed: int = 0,
    deadline: float | None = None,
    device: str = "cpu",
    progress: ProgressCallback,
    seen: Callable[[Detector, Images], None] | None = None,
) -> Measured:
    """Fits a candidate to all good images, and again without each of five blocks of them.

    Args:
        candidate: which.
        content: what its crop is to hold.
        trial: the images.
        folder: where features are kept meanwhile; each candidate has its own, and so pays for its own.
        deadline: of ``time.monotonic``; None for no end.
        seen: called with the detector and the good images when the first fit is done.

    Raises:
        OverBudgetError: the deadline passed, or a training would take longer than there is time.
        AndonError: the candidate cannot be fitted.
    """
    begun = time.monotonic()
    method = candidate.create(content)
    _check_training(method, trial, seed, deadline, device)

    def watched(stage: str, done: int, total: int) -> None:
        if deadline is not None and time.monotonic() > deadline:
            raise OverBudgetError("was not done when the time was up")
        progress(f"{candidate.label}: {stage}", done, total)

    run = FitRun(device, watched)
    good, real = Images(trial.good, ArrayCache(folder)), Images(trial.real, ArrayCache(folder))
    clock = time.perf_counter()
    detector = method.fit(good, seed=seed, run=run)
    costs = _costs(detector, trial.good, time.perf_counter() - clock)
    if seen is not None:
        seen(detector, good)
    scores = np.empty(len(good))
    synthetic, on_real = np.empty(len(trial.synthetic)), np.empty((len(good), len(real)))
    for number, (block, without, _) in enumerate(held_out(method, detector, good, seed=seed, n_blocks=BLOCKS, run=run)):
        scores[block] = readings_of(without, good.subset(block), EVERYWHERE).scores
        mine = np.flatnonzero(np.isin(trial.base, block))
        pasted = Images([trial.synthetic[int(j)].image for j in mine])
        synthetic[mine] = readings_of(without, pasted, EVERYWHERE).scores
        if len(real):
            on_real[block] = readings_of(without, real, EVERYWHERE).scores
        watched("held-out images", number + 1, BLOCKS)
    config = method.config.model_dump(mode="json")
    seconds = time.monotonic() - begun
    return Measured(candidate, method.title, config, costs, scores, synthetic, on_real if len(real) else None, seconds)


def _check_training(method: Method[Any], trial: Trial, seed: int, deadline: float | None, device: str) -> None:
    """OverBudgetError, before it begins, where a training that is reckoned to take too long."""
    if not method.trained or deadline is None:
        return
    needed = time_fit(method, Images(trial.good), seed=seed, run=FitRun(device)).seconds * (1 + BLOCKS)
    left = max(0.0, deadline - time.monotonic())
    if needed > left:
        raise OverBudgetError(
            f"needs about {needed / 60:.0f} minutes for {1 + BLOCKS} trainings, and {left / 60:.0f} are left"
        )


def _costs(detector: Detector, images: Sequence[ImageArray], seconds: float) -> Costs:
    taken = []
    for number in range(_TIMED + 1):
        image = Images([images[number % len(images)]])
        clock = time.perf_counter()
        detector.predict(image)
        taken.append(time.perf_counter() - clock)
    tensors = (*detector.parameters(), *detector.buffers())
    return Costs(
        fit_seconds=seconds,
        milliseconds=1000 * float(np.median(taken[1:])),  # the first one warms up
        file_bytes=len(detector.to_bytes()),
        memory_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        n_fitted=len(images),
    )
