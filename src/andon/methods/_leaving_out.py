"""Detectors without some of their training images, where that needs no second fit, and what a memory recalls.

A memory bank that keeps every patch is, without the patches of some images, the bank that the others would have given;
so is a Gaussian without their part of its mean and covariance. Calibration scores each image by a detector that did not
see it: this is the cheap way to such a detector. A method offers it by what its detector has:

- ``without(images, left_out) -> Detector | None``: None where only a fit gives the same scores;
- ``recall(batch) -> Recall``: which memory is nearest to each place; ``origins``: which training patch each memory is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from andon.data import Images
from andon.features import Extractor, FixedExtractor
from andon.methods._fitting import FitRun
from andon.methods.base import Detector, FeatureMethod, Method

__all__ = ["LeavesOut", "Recall", "Recalls", "detector_without", "fitted_again"]


class Recall(NamedTuple):
    """The nearest memory of every place of images.

    Attributes:
        distances: float32 ``[B, h, w]``.
        rows: int64 ``[B, h, w]``: which memory, of the detector's.
    """

    distances: torch.Tensor
    rows: torch.Tensor


@runtime_checkable
class Recalls(Protocol):
    """A detector with a memory of good patches or images.

    Attributes:
        origins: int64 ``[M]``, of each memory which patch it was, counted through all training images in order; −1 and
            None where that is not known. A buffer that is not saved with the detector: an inspector's file keeps it.
    """

    origins: torch.Tensor | None

    def recall(self, batch: torch.Tensor) -> Recall:
        """The memories nearest to float32 ``[B, 3, H, W]``, as the detector's transform gives it."""
        ...


@runtime_checkable
class LeavesOut(Protocol):
    """A detector that can be had without some of its training images."""

    def without(self, images: Images, left_out: Sequence[int]) -> Detector | None:
        """See ``detector_without``."""
        ...


@torch.inference_mode()
def detector_without(detector: Detector, images: Images, left_out: Sequence[int]) -> Detector | None:
    """The detector that fit would have given without some of the training images, up to rounding.

    What was fitted of the extractor stays as it is.

    Args:
        detector: what was learned from ``images``.
        images: all of its training images, in their order.
        left_out: which to leave out; not all.

    Returns:
        None where only another fit gives the same scores.
    """
    report = detector.report
    # Of images of one colour it matters which are left; versions of one image are not told apart.
    if not isinstance(detector, LeavesOut) or report.n_constant or report.n_train != len(images):
        return None
    if not 0 < len(set(left_out)) < len(images):
        raise ValueError(f"some of {len(images)} images can be left out, not {len(set(left_out))}")
    found = detector.without(images, sorted(set(left_out)))
    if found is None:
        return None
    found.method = detector.method
    found.report = replace(report, n_train=len(images) - len(set(left_out)), seconds={}, curves={})
    return found.requires_grad_(False).eval()


def fitted_again(
    method: Method[Any], detector: Detector, images: Images, *, seed: int, run: FitRun | None = None
) -> Detector:
    """The detector that other images give, on the extractor as it was adapted for ``detector``.

    For calibration and the like: what an extractor is adapted to hangs little on a few of the images, and adapting it
    takes longer than the rest of a fit; with a cache its features are there already.

    Args:
        method: the recipe; not changed.
        detector: what it learned from all images.
        images: at least one, as a rule some of those.
        seed, run: as for ``Method.fit``.
    """
    extractor = getattr(detector, "extractor", None)
    if isinstance(method, FeatureMethod) and isinstance(extractor, Extractor):
        method = type(method)(method.config)
        method.extractor = FixedExtractor(extractor)
    return method.fit(images, seed=seed, run=run)
