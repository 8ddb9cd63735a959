"""Why an image got its score: the nearest good patches where there is a memory, the branches where there are some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from andon.core import DataError
from andon.data import ImageLike, Images, as_images
from andon.inspection.inspector import Box, Inspector, Verdict
from andon.methods import Branched, Recalls

__all__ = ["Explanation", "NearestPatch", "explain"]

MOST_PATCHES = 5


class NearestPatch(NamedTuple):
    """One of the image's most anomalous patches, and the good patch that is nearest to it.

    Attributes:
        distance: between their features.
        x, y: centre of the patch in the image (in the reference frame, where parts are aligned), pixels.
        image: name of the training image of the good one.
        image_x, image_y: its centre there, in the same pixels.
    """

    distance: float
    x: int
    y: int
    image: str
    image_x: int
    image_y: int


@dataclass(frozen=True)
class Explanation:
    """What stands behind a verdict.

    Attributes:
        verdict: of the image.
        patches: the most anomalous first, each of another place; empty without a memory.
        nearest_images: names of training images, and of how many of the image's patches each has the nearest good one;
            the most first. Empty without a memory.
        branches: of a method with several maps, the highest value of each, normalised as its score takes it.
        places: above the pixel threshold, the highest first.
    """

    verdict: Verdict
    patches: tuple[NearestPatch, ...] = ()
    nearest_images: tuple[tuple[str, int], ...] = ()
    branches: tuple[tuple[str, float], ...] = ()
    places: tuple[Box, ...] = ()


def explain(inspector: Inspector, image: ImageLike) -> Explanation:
    """Explains the verdict on an image.

    Raises:
        DataError: as ``Inspector.inspect``; or the part is not found, so there is nothing to explain.
    """
    verdict = inspector.inspect(image)
    if verdict.verdict == "part not found":
        raise DataError(f"the part was not found ({verdict.reason}): there is nothing to explain")
    images = as_images(image) if verdict.frame is None else Images([verdict.frame])
    detector = inspector.detector
    batch = detector.transform.normalise(images.resized(0, detector.transform)[None]).to(detector.device)
    places = tuple(sorted(verdict.boxes, key=lambda box: -box.peak))
    if isinstance(detector, Recalls) and inspector.origins is not None:
        patches, nearest = _recalled(inspector, verdict, batch)
        return Explanation(verdict, patches, nearest, places=places)
    return Explanation(verdict, branches=_branches(detector, batch), places=places)


@torch.inference_mode()
def _recalled(
    inspector: Inspector, verdict: Verdict, batch: torch.Tensor
) -> tuple[tuple[NearestPatch, ...], tuple[tuple[str, int], ...]]:
    assert isinstance(inspector.detector, Recalls)
    recall = inspector.detector.recall(batch)
    distances, rows = recall.distances[0].cpu().numpy(), recall.rows[0].cpu().numpy()
    assert inspector.origins is not None
    shape = distances.shape
    if int(rows.max()) >= len(inspector.origins):
        raise DataError("the file does not say of which image each memory is")
    origins = inspector.origins[rows]
    counted = inspector.regions.on_map((shape[0], shape[1]), verdict.region)
    used = origins >= 0 if counted is None else (origins >= 0) & counted
    names = [image.name for image in inspector.provenance.learned]
    owners = np.where(used, origins // distances.size, -1)
    if used.any() and int(owners.max()) >= len(names):
        raise DataError("the file's memory names training images that it does not have")
    left = np.where(used, distances, -np.inf).astype(np.float64)
    patches: list[NearestPatch] = []
    while len(patches) < MOST_PATCHES and np.isfinite(left).any():
        row, column = divmod(int(left.argmax()), shape[1])
        place = int(origins[row, column]) % distances.size
        here, there = (_centre(inspector, verdict, shape, at) for at in ((row, column), divmod(place, shape[1])))
        name = names[int(owners[row, column])]
        patches.append(NearestPatch(float(distances[row, column]), *here, name, *there))
        left[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = -np.inf  # the next one is elsewhere
    which, counts = np.unique(owners[used], return_counts=True)
    ranked = sorted(zip(which.tolist(), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return tuple(patches), tuple((names[owner], count) for owner, count in ranked[:MOST_PATCHES])


def _centre(inspector: Inspector, verdict: Verdict, shape: tuple[int, ...], at: tuple[int, int]) -> tuple[int, int]:
    """(x, y) in pixels of the image of a place of the grid."""
    size = verdict.size if verdict.frame is None else verdict.frame.shape[:2]
    region = verdict.region
    x = (region.left + (at[1] + 0.5) / shape[1] * (region.right - region.left)) * size[1]
    y = (region.top + (at[0] + 0.5) / shape[0] * (region.bottom - region.top)) * size[0]
    return round(x), round(y)


@torch.inference_mode()
def _branches(detector: Any, batch: torch.Tensor) -> tuple[tuple[str, float], ...]:
    """Of a detector that has several maps (GCAD, EfficientAD), the highest value of each as the score takes it."""
    if isinstance(detector, Branched):
        return tuple((name, float(scores[0])) for name, (scores, _maps) in detector.branches(batch).items())
    coarse, quantiles = getattr(detector, "coarse_maps", None), getattr(detector, "quantiles", None)
    if coarse is None or quantiles is None:
        return ()
    maps = coarse(batch)[0]
    low, high = quantiles.to(maps).unbind(1)
    peaks = (0.1 * (maps.flatten(1).amax(1) - low) / (high - low)).tolist()
    return tuple(zip(("student–teacher", "student–autoencoder"), peaks, strict=True))
