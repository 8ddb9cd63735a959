"""What a data set looks like before anything is learned from it, so that it is cleaned before a method is blamed.

Exposure and sharpness over the shooting order, near duplicates, groups of appearance, and the good training images that
do not look like the others: a mislabelled image is among them, and at their top.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from andon._tools.parallel import ordered_map
from andon.core import AndonError, Category, ProgressCallback, Sample, no_progress
from andon.data import (
    DEFAULT_DEVIATIONS,
    Appearance,
    ArrayCache,
    BlurLimit,
    DuplicatePair,
    Fingerprints,
    Images,
    appearance_of,
    blur_limit,
    small_copy,
)
from andon.features import iterate_features
from andon.inspection.advising.characterise import Figure, descriptor_of, drift, mode_labels
from andon.inspection.calibration import blocks
from andon.inspection.cross_fitting import refit_without
from andon.methods import Detector, FeatureDetector, FitRun, Method, create_method

__all__ = ["CheckedImage", "DataCheck", "Mode", "check_category"]

OUTLIER_FROM = 2.7
"""Robust deviations above the median from which a good training image is an outlier."""
LEAST_IMAGES = 20
"""Good training images below which neither outliers nor groups are looked for."""
_BLOCKS = 5
_SUSPECTS = (0.3, 0.12)
"""Part of the images that teaches nothing in the second and third pass: those that looked oddest in the one before."""
_GRID = 24
"""Cells of a map in each direction."""
_CELLS = 10
"""How many of an image's cells, the oddest, decide."""
_LEAST_SPREAD = 0.02
"""Of the logarithm of scores: below it cells of different images are the same."""

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CheckedImage:
    """One image.

    Attributes:
        sample: it.
        size: (height, width) as on disk.
        appearance: exposure and sharpness.
        outlier: of a sharp good training image, robust deviations of its oddness above the median; None for others.
        mode: of such an image its group of appearance from 0, the largest; None for others.
    """

    sample: Sample
    size: tuple[int, int]
    appearance: Appearance
    outlier: float | None = None
    mode: int | None = None


@dataclass(frozen=True)
class Mode:
    """A group of good training images that look alike.

    Attributes:
        images: their numbers.
        example: the one in its middle.
    """

    images: tuple[int, ...]
    example: int


@dataclass(frozen=True)
class DataCheck:
    """What was found in a category.

    Attributes:
        category: it.
        images: readable ones, in the order of the category; the others refer to them by number.
        unreadable: names and reasons.
        drifts: of exposure and sharpness over the good training images.
        blur: what counted as blurred.
        duplicates: near duplicates.
        modes: groups of appearance of the good training images, the largest first; empty where there are too few.
        notes: what could not be looked at, and why.
    """

    category: Category
    images: tuple[CheckedImage, ...]
    unreadable: tuple[tuple[str, str], ...]
    drifts: tuple[Figure, ...]
    blur: BlurLimit
    duplicates: tuple[DuplicatePair, ...]
    modes: tuple[Mode, ...]
    notes: tuple[str, ...] = ()

    @property
    def blurred(self) -> tuple[int, ...]:
        """Images less sharp than ``blur.least``, the worst first."""
        found = [i for i, image in enumerate(self.images) if image.appearance.sharpness < self.blur.least]
        return tuple(sorted(found, key=lambda i: self.images[i].appearance.sharpness))

    @property
    def outliers(self) -> tuple[int, ...]:
        """Good training images that look unlike the others, the worst first."""
        found = [(image.outlier or 0.0, i) for i, image in enumerate(self.images)]
        return tuple(i for oddness, i in sorted(found, reverse=True) if oddness >= OUTLIER_FROM)

    @property
    def leaks(self) -> tuple[DuplicatePair, ...]:
        """The near duplicates of which one is for training and the other for testing."""
        split = [image.sample.split for image in self.images]
        return tuple(pair for pair in self.duplicates if split[pair.first] != split[pair.second])

    @property
    def counts(self) -> Counter[str]:
        """Images by split and kind ("train/good"), in order of appearance."""
        return Counter(f"{image.sample.split}/{image.sample.defect_type}" for image in self.images)

    @property
    def sizes(self) -> Counter[tuple[int, int]]:
        """Images by (height, width)."""
        return Counter(image.size for image in self.images)

    @property
    def suspicious(self) -> bool:
        """Whether anything is to be looked at before training."""
        return bool(self.blurred or self.outliers or self.duplicates or self.unreadable)

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able values; images by their ids."""
        ids, leaks = [image.sample.id for image in self.images], set(self.leaks)
        return {
            "category": self.category.name,
            "images": [
                {
                    "id": image.sample.id,
                    "size": list(image.size),
                    **image.appearance._asdict(),
                    "outlier": image.outlier,
                    "mode": image.mode,
                }
                for image in self.images
            ],
            "unreadable": [{"id": name, "reason": reason} for name, reason in self.unreadable],
            "drifts": [{"name": d.name, "value": d.value, "unit": d.unit, "said": d.sentence} for d in self.drifts],
            "blurred_below": self.blur.least,
            "blurred": [ids[i] for i in self.blurred],
            "outlier_from": OUTLIER_FROM,
            "outliers": [ids[i] for i in self.outliers],
            "near_duplicates": [
                {"ids": [ids[p.first], ids[p.second]], "correlation": p.correlation, "leak": p in leaks}
                for p in self.duplicates
            ],
            "modes": [{"n": len(mode.images), "example": ids[mode.example]} for mode in self.modes],
            "notes": list(self.notes),
        }


def check_category(
    category: Category,
    *,
    deviations: float = DEFAULT_DEVIATIONS,
    learn: bool = True,
    method: Method[Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    cache: ArrayCache | None = None,
    progress: ProgressCallback = no_progress,
) -> DataCheck:
    """Looks at every image once, and at the good training images as the default method sees them.

    Args:
        category: what to look at.
        deviations: robust ones below the median sharpness from which on an image is blurred.
        learn: whether outliers and groups are looked for; without it no features are computed.
        method: what looks for outliers; Patchcore with a random tenth of its patches by default (``outlyingness``).
        seed, device, progress: see ``Method.fit``.
        cache: where features are kept; a temporary folder otherwise.
    """
    images, unreadable, copies = _looked_at(category, progress)
    limit = blur_limit([image.appearance.sharpness for image in images], deviations)
    good = [i for i, image in enumerate(images) if _teaches(image.sample)]
    # What is blurred is reported as such: it would only widen what counts as usual.
    train = [i for i in good if images[i].appearance.sharpness >= limit.least]
    modes: tuple[Mode, ...] = ()
    notes = []
    if learn and len(train) < LEAST_IMAGES:
        notes.append(
            f"outliers and groups of appearance: not looked for in {len(train)} good training images; {LEAST_IMAGES} "
            "are the least"
        )
    elif learn:
        with tempfile.TemporaryDirectory(prefix="andon-") as folder:
            seen = Images([images[i].sample for i in train], cache or ArrayCache(Path(folder)))
            recipe = method or create_method("patchcore", {"coreset": "random"})
            run = FitRun(device, progress)
            detector = recipe.fit(seen, seed=seed, run=run)
            oddness = outlyingness(recipe, detector, seen, seed=seed, run=run)
            groups, modes = _modes(detector, seen, train, seed)
        for number, i in enumerate(train):
            images[i] = replace(images[i], outlier=float(oddness[number]), mode=int(groups[number]))
    pairs = Fingerprints(copies).pairs()
    drifts = tuple(_drifts([images[i].appearance for i in good]))
    return DataCheck(category, tuple(images), tuple(unreadable), drifts, limit, pairs, modes, tuple(notes))


def _teaches(sample: Sample) -> bool:
    return sample.split == "train" and not sample.is_defective


_Copies = list[npt.NDArray[np.uint8]]


def _looked_at(
    category: Category, progress: ProgressCallback
) -> tuple[list[CheckedImage], list[tuple[str, str]], _Copies]:
    def look(sample: Sample) -> tuple[CheckedImage, npt.NDArray[np.uint8]] | str:
        try:
            image = sample.image()
        except AndonError as error:
            return str(error)
        size = (image.shape[0], image.shape[1])
        return CheckedImage(sample, size, appearance_of(image)), small_copy(image)

    images: list[CheckedImage] = []
    copies: _Copies = []
    unreadable = []
    for done, (sample, found) in enumerate(
        zip(category.samples, ordered_map(look, category.samples), strict=True), start=1
    ):
        if isinstance(found, str):
            unreadable.append((sample.id, found))
        else:
            images.append(found[0])
            copies.append(found[1])
        progress("images", done, len(category.samples))
    return images, unreadable, copies


def _drifts(looks: Sequence[Appearance]) -> Iterator[Figure]:
    if looks:
        yield drift([look.exposure for look in looks], "exposure", "grey levels", "the images' brightness")
        logarithms = np.log2([max(look.sharpness, 1e-6) for look in looks])
        yield drift(logarithms, "sharpness", "doublings", "the images' sharpness, in doublings,")


def outlyingness(
    method: Method[Any], detector: Detector, images: Images, *, seed: int = 0, run: FitRun | None = None
) -> _Float64:
    """How odd each good image looks to a detector that did not see it: robust deviations above the median.

    Mislabelled images vouch for one another: a detector that has seen nine parts without a screw finds a tenth normal.
    So there are three passes over five blocks in shooting order. In the first each block is scored by what the other
    blocks teach; in the second without the 30 % that looked oddest, wherever they are; in the third without the 12 %
    that looked oddest then. And a fixed camera makes places comparable: each cell of a map is measured by how the same
    cell looks in the other images, so that a small change where nothing ever changes counts for more than much where
    all is in motion.

    Args:
        method: the recipe; a greedy coreset would keep every odd patch, a random one keeps few of them.
        detector: what it learned from ``images``, for its extractor.
        images: good ones in shooting order.

    Returns:
        float64 ``[n]``.
    """
    run = run or FitRun()
    oddness = _oddness(_held_out_maps(method, detector, images, frozenset(), seed, run, 0))
    for number, share in enumerate(_SUSPECTS, start=1):
        suspects = frozenset(int(i) for i in np.argsort(-oddness)[: int(share * len(images))])
        oddness = _oddness(_held_out_maps(method, detector, images, suspects, seed, run, number))
    return oddness


def _held_out_maps(
    method: Method[Any],
    detector: Detector,
    images: Images,
    suspects: frozenset[int],
    seed: int,
    run: FitRun,
    number: int,
) -> _Float64:
    """The largest value of each of 24 × 24 cells of the images' maps, ``[n, 576]``; scores where there are no maps."""
    cut, found = blocks(len(images), _BLOCKS), []
    for done, block in enumerate(cut, start=number * len(cut)):
        left_out = suspects | frozenset(block)
        without = refit_without(method, detector, images, left_out, seed=seed, run=run, number=done)
        for prediction in without.iterate_predictions(images.subset(block)):
            if prediction.anomaly_maps is None:
                found.append(prediction.image_scores[:, None].astype(np.float64))
            else:
                maps = torch.from_numpy(np.ascontiguousarray(prediction.anomaly_maps))[:, None]
                found.append(F.adaptive_max_pool2d(maps, _GRID).flatten(1).double().numpy())
        run.progress("outliers", done + 1, (1 + len(_SUSPECTS)) * len(cut))
    return np.concatenate(found)


def _oddness(cells: _Float64) -> _Float64:
    """From cells of maps ``[n, m]`` to deviations of images ``[n]``."""
    # Distances are skewed to the right; of a copy of another image they are 0.
    values = np.log(np.maximum(cells, 1e-3 * max(float(np.median(cells)), 1e-12)))
    middle = np.median(values, axis=0)
    spread = 1.4826 * np.median(np.abs(values - middle), axis=0)
    odd = np.sort((values - middle) / np.maximum(spread, _LEAST_SPREAD), axis=1)[:, -_CELLS:].mean(axis=1)
    above = odd[odd >= np.median(odd)] - np.median(odd)
    return np.asarray((odd - np.median(odd)) / max(1.4826 * float(np.median(above)), 1e-6), dtype=np.float64)


@torch.inference_mode()
def _modes(
    detector: Detector, images: Images, numbers: Sequence[int], seed: int
) -> tuple[npt.NDArray[np.intp], tuple[Mode, ...]]:
    """The group of each image, and the groups; one group for a detector without features."""
    if not isinstance(detector, FeatureDetector):
        return np.zeros(len(images), dtype=np.intp), ()
    parts = [
        descriptor_of(maps[len(maps) // 2].double().flatten(2))
        for _, maps in iterate_features(detector.extractor, images, detector.transform)
    ]
    descriptors = np.concatenate(parts)
    labels = mode_labels(descriptors, seed)
    modes = []
    for label in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == label)
        own = descriptors[members]
        example = members[int(np.square(own - own.mean(axis=0)).sum(axis=1).argmin())]
        modes.append(Mode(tuple(numbers[int(i)] for i in members), numbers[int(example)]))
    return labels, tuple(modes)
