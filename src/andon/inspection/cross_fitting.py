"""Scores of good images by detectors that did not see them: cross-fitting over blocks in shooting order."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any, NamedTuple

import numpy as np

from andon.core import ConfigError, ProgressCallback, TrainingError, no_progress
from andon.data import Images
from andon.inspection.calibration import DEFAULT_BLOCKS, ConformalCalibration, blocks
from andon.inspection.regions import EVERYWHERE, Readings, Regions
from andon.methods import Detector, FitRun, Method, detector_without, fitted_again

__all__ = ["HeldOut", "cross_fitted", "held_out", "readings_of", "refit_without"]

_LEAST_IMAGES = 3


def cross_fitted(
    method: Method[Any],
    detector: Detector,
    images: Images,
    *,
    seed: int = 0,
    n_blocks: int = DEFAULT_BLOCKS,
    regions: Regions = EVERYWHERE,
    run: FitRun | None = None,
    refit: bool = False,
) -> ConformalCalibration:
    """Calibration of a detector on its own training images, block by block.

    Each block is scored by the detector that the other images give: taken out of the detector at hand where that gives
    the same scores (``detector_without``), fitted anew otherwise, on the extractor as it was adapted to all images.

    Args:
        method: the recipe.
        detector: what it learned from ``images``.
        images: good ones in shooting order, at least 3; with a cache their features are computed once.
        seed: that ``detector`` was fitted with.
        n_blocks: contiguous blocks; as many as there are images where those are fewer.
        regions: what counts.
        run: device, progress, checkpoints.
        refit: fit anew even where that is not needed (the tests compare).

    Raises:
        TrainingError: fewer than 3 images.
    """
    run = run or FitRun()
    cut, parts, refitted = blocks_of(images, n_blocks), [], 0
    each = held_out(method, detector, images, seed=seed, n_blocks=n_blocks, run=run, refit=refit)
    for number, (block, without, anew) in enumerate(each):
        refitted += anew
        parts.append(readings_of(without, images.subset(block), regions))
        run.progress("calibration", number + 1, len(cut))
    how = "each scored without its own block" + (f", {refitted} of {len(cut)} fitted anew" if refitted else "")
    scores, maxima, medians = (np.concatenate(column) for column in zip(*parts, strict=True))
    told = f"{len(images)} good images in {len(cut)} blocks in shooting order, {how}"
    return ConformalCalibration(scores, maxima, medians, told)


class HeldOut(NamedTuple):
    """A block of images, and the detector that the others give.

    Attributes:
        block: indices of the images that the detector did not see.
        detector: what the others give.
        refitted: whether it was fitted anew for that.
    """

    block: range
    detector: Detector
    refitted: bool


def blocks_of(images: Images, n_blocks: int) -> tuple[range, ...]:
    """``blocks`` of good images; TrainingError and ConfigError as ``cross_fitted`` raises them."""
    if len(images) < _LEAST_IMAGES:
        raise TrainingError(f"{len(images)} good images are too few to calibrate on; {_LEAST_IMAGES} are the least")
    if n_blocks < 2:
        raise ConfigError(f"blocks {n_blocks}: at least 2 are needed")
    return blocks(len(images), n_blocks)


def held_out(
    method: Method[Any],
    detector: Detector,
    images: Images,
    *,
    seed: int = 0,
    n_blocks: int = DEFAULT_BLOCKS,
    run: FitRun | None = None,
    refit: bool = False,
) -> Iterator[HeldOut]:
    """The blocks in shooting order, each with the detector that the other images give. Args as for ``cross_fitted``."""
    run = run or FitRun()
    for number, block in enumerate(blocks_of(images, n_blocks)):
        without = None if refit else detector_without(detector, images, block)
        anew = without is None
        if without is None:
            without = refit_without(method, detector, images, block, seed=seed, run=run, number=number)
        yield HeldOut(block, without, anew)


def refit_without(
    method: Method[Any],
    detector: Detector,
    images: Images,
    left_out: Container[int],
    *,
    seed: int,
    run: FitRun,
    number: int = 0,
) -> Detector:
    """The detector that the other images give; the extractor is the one that ``detector`` has."""
    rest = [i for i in range(len(images)) if i not in left_out]
    checkpoints = None if run.checkpoints is None else run.checkpoints / f"block-{number}"
    quiet = FitRun(run.device, checkpoints=checkpoints, checkpoint_seconds=run.checkpoint_seconds)
    return fitted_again(method, detector, images.subset(rest), seed=seed, run=quiet)


def readings_of(
    detector: Detector, images: Images, regions: Regions, progress: ProgressCallback = no_progress
) -> Readings:
    """Scores and maps' values of images, in order; bounded memory."""

    def each() -> Iterator[Readings]:
        for prediction in detector.iterate_predictions(images, progress=progress):
            yield regions.read(prediction)

    return Readings(*(np.concatenate(column) for column in zip(*each(), strict=True)))
