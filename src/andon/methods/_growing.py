"""Detectors with more good images, where that needs no second training.

A memory takes in more patches, a Gaussian more vectors: what was learned before stays, and the extractor with it, as it
was adapted to the first images. A method offers it by a detector that has ``grown(fitting) -> Detector``; what is
trained by gradients has no such way, and has to be trained again with all images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

from andon.core import DataError
from andon.data import Images
from andon.methods._checks import WatchedImages
from andon.methods._fitting import FitRun
from andon.methods.base import Detector, Fitting

__all__ = ["Grows", "detector_with"]


@runtime_checkable
class Grows(Protocol):
    """A detector that can learn from more images."""

    def grown(self, fitting: Fitting) -> Detector:
        """The detector with ``fitting.images`` too; ``self`` stays as it is. See ``detector_with``."""
        ...


def detector_with(detector: Detector, images: Images, *, seed: int = 0, run: FitRun | None = None) -> Detector | None:
    """The detector that has learned from more good images too; the extractor stays as it is.

    What that is beside a fit to all images: the same for thumbnails, PaDiM and a Patchcore bank that keeps every patch,
    up to rounding; for a coreset the selection goes on from what is there, and is not made again.

    Args:
        detector: as it was fitted, or made by this function; not changed.
        images: at least one, none of which it has learned from.
        seed: that it was fitted with.
        run: device (the detector's counts), progress.

    Returns:
        None where the method has to be trained again.

    Raises:
        DataError: no images.
        AndonError: an image that cannot be read or gives another grid of features; more than a limit allows.
    """
    if not isinstance(detector, Grows):
        return None
    if len(images) == 0:
        raise DataError(f"{detector.name}: there are no images to learn from")
    watched = WatchedImages(images, detector.transform)
    run = replace(run or FitRun(), device=detector.device)
    fitting = Fitting(detector.method, watched, seed, run)
    found = detector.grown(fitting)
    before, told = detector.report, fitting.report()
    found.method = detector.method
    found.report = replace(
        before,
        n_train=before.n_train + len(images),
        seconds={stage: before.seconds.get(stage, 0.0) + seconds for stage, seconds in told.seconds.items()},
        notes=(*before.notes, *told.notes),
        n_constant=before.n_constant + len(watched.constant(range(len(watched)))),
    )
    return found.requires_grad_(False).eval()
