"""What kind of task good images show: figures, each with its unit and a sentence.

Features are those of the default candidate, so nothing is computed for this alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from scipy.cluster.vq import ClusterError, kmeans2

from andon._tools.seeds import derived_seed
from andon.core import FloatArray, ImageArray
from andon.data import Images
from andon.features import iterate_features
from andon.inspection.advising.edges import slopes
from andon.methods import FeatureDetector

__all__ = [
    "Figure",
    "characterise_features",
    "characterise_pixels",
    "descriptor_of",
    "drift",
    "mode_labels",
    "modes_of",
]

_SIDE = 256
"""Longest side of the grey copies that pixels' figures are read off."""
_EDGE = 8.0
"""Grey levels a pixel, on the copies, from which a slope is an edge."""
_SURE_SHIFT = 0.1
"""Response of the phase correlation (0..1) from which a shift means something."""
_MOST_MODES = 4
_LEAST_MEMBERS = 5
_STABLE = 0.9
"""Prediction strength from which a division into modes is believed (Tibshirani & Walther 2005: 0.8 to 0.9)."""
_HALVINGS = 10
_RARE = 0.01
"""p-value below which drift is said to be there."""

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """One figure of a task.

    Attributes:
        name: what it is.
        value: None where it cannot be had; the sentence says why.
        unit: of the value.
        sentence: what it means.
        drifts: whether it says that something changed over the shooting order.
    """

    name: str
    value: float | None
    unit: str
    sentence: str
    drifts: bool = False


# From pixels


def characterise_pixels(images: Sequence[ImageArray], sizes: Sequence[tuple[int, int]]) -> tuple[Figure, ...]:
    """Sizes, complexity, movement of the part, and drift of the exposure.

    Args:
        images: RGB uint8 in shooting order.
        sizes: (height, width) of all images as they are on disk.
    """
    grey = [_grey(image) for image in images]
    return (*_sizes(sizes), _edges(grey), _entropy(grey), _jitter(grey, sizes), _exposure(grey))


def _grey(image: ImageArray) -> FloatArray:
    scale = _SIDE / max(image.shape[:2])
    size = max(8, round(image.shape[1] * scale)), max(8, round(image.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.cvtColor(cv2.resize(image, size, interpolation=method), cv2.COLOR_RGB2GRAY), np.float32)


def _sizes(sizes: Sequence[tuple[int, int]]) -> tuple[Figure, Figure]:
    kinds = sorted(set(sizes), key=lambda size: (-sizes.count(size), size))
    height, width = kinds[0]
    ratios = [w / h for h, w in kinds]
    one = f"all images are {width} × {height} pixels"
    several = f"{len(kinds)} sizes; most images ({sizes.count(kinds[0])} of {len(sizes)}) are {width} × {height} pixels"
    same = max(ratios) / min(ratios) <= 1.02
    shape = "all of one shape" if same else "of several shapes, which are all stretched to one before they are seen"
    return (
        Figure("image sizes", float(len(kinds)), "sizes", one if len(kinds) == 1 else several),
        Figure(
            "aspect ratio", width / height, "width ÷ height", f"{width / height:.2f} times as wide as high, {shape}"
        ),
    )


def _edges(grey: Sequence[FloatArray]) -> Figure:
    shares = [float((slopes(image) / 8 > _EDGE).mean()) for image in grey]
    value = 100 * float(np.mean(shares))
    kind = "a bare scene" if value < 5 else ("a busy scene" if value > 25 else "a scene of medium complexity")
    return Figure("edge density", value, "% of pixels", f"{value:.0f} % of the pixels lie on an edge: {kind}")


def _entropy(grey: Sequence[FloatArray]) -> Figure:
    bits = []
    for image in grey:
        counts = np.histogram(image, bins=64, range=(0, 256))[0]
        bits.append(float(stats.entropy(counts, base=2)))
    value = float(np.mean(bits))
    return Figure(
        "entropy of grey values", value, "bits, 6 at most", f"grey values spread over about {2**value:.0f} of 64 steps"
    )


def _jitter(grey: Sequence[FloatArray], sizes: Sequence[tuple[int, int]]) -> Figure:
    """How far the part moves from one image to the next."""
    name, unit, moved = "movement between neighbours", "% of the longer side", []
    pairs = [(a, b) for a, b in pairwise(grey) if a.shape == b.shape]
    for one, other in pairs:
        window = cv2.createHanningWindow(one.shape[::-1], cv2.CV_32F)
        (dx, dy), response = cv2.phaseCorrelate(one - one.mean(), other - other.mean(), window)
        if response >= _SURE_SHIFT:
            moved.append(math.hypot(dx, dy))
    if not pairs or len(moved) < len(pairs) / 2:
        why = "neighbours do not correlate: texture without a fixed part, or a part that turns"
        return Figure(name, None, unit, f"no figure: {why if pairs else 'neighbours are of different sizes'}")
    value, most = (100 * float(np.percentile(moved, q)) / _SIDE for q in (50, 95))
    hint = "the part stands still" if most < 1 else "the part moves; --align auto undoes that (not measured here)"
    pixels = value / 100 * max(max(sizes))
    return Figure(name, value, unit, f"median {value:.1f} % ({pixels:.1f} pixels), 95 % below {most:.1f} %: {hint}")


def _exposure(grey: Sequence[FloatArray]) -> Figure:
    return drift([float(image.mean()) for image in grey], "exposure drift", "grey levels", "the images' brightness")


def drift(values: Sequence[float] | _Float64, name: str, unit: str, what: str) -> Figure:
    """Change over shooting order: Theil–Sen's slope times the images, and Spearman's rank test."""
    series = np.asarray(values, dtype=np.float64)
    if len(series) < 3 or np.ptp(series) == 0:
        return Figure(name, 0.0, unit, f"no drift seen: {what} did not change over the shooting order")
    order = np.arange(len(series))
    change = float(stats.theilslopes(series, order).slope) * (len(series) - 1)
    p = float(stats.spearmanr(order, series).pvalue)
    seen = "drift was seen" if p < _RARE else "no drift seen"
    sentence = f"{seen}: {what} changed by {change:+.3g} over the shooting order (p = {p:.2g})"
    return Figure(name, change, unit, sentence, p < _RARE)


# From features


@torch.inference_mode()
def characterise_features(detector: FeatureDetector, images: Images, seed: int) -> tuple[Figure, ...]:
    """Variability at each place, effective rank, and modes of normality.

    Args:
        detector: whose extractor and transform are used; the middle one of its stages is looked at.
        images: good ones in shooting order; with a cache of features nothing is computed again.
    """
    moments, descriptors = _Moments(), []
    for _, maps in iterate_features(detector.extractor, images, detector.transform):
        flat = maps[len(maps) // 2].double().flatten(2)
        moments.add(flat)
        descriptors.append(descriptor_of(flat))
    values = torch.linalg.eigvalsh(moments.covariance()).clamp_min(0)
    total = float(values.sum())
    share = float(moments.within()) / total if total > 0 else 0.0
    return (_variability(share), _rank(values), _modes(np.concatenate(descriptors), seed))


def descriptor_of(flat: torch.Tensor) -> _Float64:
    """What an image looks like as a whole, ``[B, 2·C]``: mean and deviation of its features ``[B, C, P]``."""
    return torch.cat((flat.mean(2), flat.std(2)), 1).numpy()


class _Moments:
    """First and second moments of features ``[B, C, P]``: over images at each place, and over all."""

    def __init__(self) -> None:
        self.n, self.places = 0, 1
        self._sums: torch.Tensor | float = 0.0
        self._squares: torch.Tensor | float = 0.0
        self._products: torch.Tensor | float = 0.0

    def add(self, flat: torch.Tensor) -> None:
        self.n, self.places = self.n + len(flat), flat.shape[2]
        self._sums = self._sums + flat.sum(0)
        self._squares = self._squares + flat.square().sum(0)
        self._products = self._products + torch.einsum("bcp,bdp->cd", flat, flat)

    def within(self) -> torch.Tensor:
        """Variance over images, summed over channels, the mean over places."""
        mean = torch.as_tensor(self._sums) / self.n
        return (torch.as_tensor(self._squares) / self.n - mean.square()).sum() / self.places

    def covariance(self) -> torch.Tensor:
        """``[C, C]`` over all places of all images."""
        count = self.n * self.places
        mean = torch.as_tensor(self._sums).sum(1) / count
        return torch.as_tensor(self._products) / count - torch.outer(mean, mean)


def _variability(share: float) -> Figure:
    value = 100 * share
    kind = (
        "the same thing is at the same place in each image, which suits a model of each place (PaDiM)"
        if value < 25
        else "what is at a place differs from image to image, which suits a memory that knows no places (Patchcore)"
        if value > 60
        else "places are partly alike from image to image"
    )
    return Figure("variability at a place", value, "% of the features' variance", f"{value:.0f} % of it: {kind}")


def _rank(values: torch.Tensor) -> Figure:
    total = float(values.sum())
    # The exponential of the entropy of the variance's shares (Roy & Vetterli, EUSIPCO 2007).
    rank = math.exp(float(torch.special.entr(values / total).sum())) if total > 0 else 0.0
    sentence = f"patches of good images differ in about {rank:.0f} ways of {len(values)}"
    return Figure("effective rank of features", rank, f"of {len(values)} dimensions", sentence)


def _modes(descriptors: _Float64, seed: int) -> Figure:
    sizes = modes_of(descriptors, seed)
    if len(sizes) == 1:
        sentence = "the good images form one group"
    else:
        sentence = (
            f"the good images form {len(sizes)} groups ({', '.join(map(str, sizes))} images), variants or lots or "
            "lights: each must be among the training images as often as on the line"
        )
    return Figure("modes of normality", float(len(sizes)), "groups", sentence)


def modes_of(descriptors: _Float64, seed: int) -> tuple[int, ...]:
    """Sizes of the groups that vectors ``[n, d]`` form (``mode_labels``), the largest first."""
    return tuple(int(count) for count in np.bincount(mode_labels(descriptors, seed)))


def mode_labels(descriptors: _Float64, seed: int) -> npt.NDArray[np.intp]:
    """The group of each of vectors ``[n, d]``, 0 the largest; all 0 where none is stable.

    The largest number of clusters (k-means on at most 5 principal components), 4 at most, that half of the vectors
    predicts of the other half: prediction strength 0.9 or more (Tibshirani & Walther, JCGS 2005), the mean of 10
    halvings, and 5 members each.
    """
    centred = descriptors - descriptors.mean(axis=0)
    n = len(centred)
    if n < 2 * 2 * _LEAST_MEMBERS or not np.abs(centred).max() > 0:
        return np.zeros(n, dtype=np.intp)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    components = (left * scale)[:, : min(5, len(scale))]
    for k in range(_MOST_MODES, 1, -1):
        strengths = [_strength(components, k, derived_seed(seed, "modes", k, halving)) for halving in range(_HALVINGS)]
        if np.mean(strengths) >= _STABLE:
            labels = _clusters(components, k, derived_seed(seed, "modes", k))[1]
            counts = np.bincount(labels, minlength=k)
            if counts.min() >= _LEAST_MEMBERS:
                return np.argsort(np.argsort(-counts, kind="stable"))[labels]
    return np.zeros(n, dtype=np.intp)


def _clusters(points: _Float64, k: int, seed: int) -> tuple[_Float64, npt.NDArray[np.int32]]:
    """Centres and labels of the best of five k-means; one cluster for all where each of them loses one."""
    best, least = (points[:k], np.zeros(len(points), dtype=np.int32)), math.inf
    for start in range(5):
        rng = np.random.default_rng(derived_seed(seed, start))
        first = points[rng.choice(len(points), k, replace=False)]
        try:
            centres, labels = kmeans2(points, first, minit="matrix", missing="raise")
        except ClusterError:
            continue
        cost = float(np.square(points - centres[labels]).sum())
        if cost < least:
            best, least = (centres, labels), cost
    return best


def _strength(points: _Float64, k: int, seed: int) -> float:
    """Of the pairs that one half's own clustering puts together, the part that the other half's centres do, in the
    cluster where that is least."""
    order = np.random.default_rng(seed).permutation(len(points))
    learn, test = points[order[: len(order) // 2]], points[order[len(order) // 2 :]]
    centres, _ = _clusters(learn, k, seed)
    _, own = _clusters(test, k, derived_seed(seed, "test"))
    assigned = np.square(test[:, None] - centres[None]).sum(2).argmin(1)
    together = assigned[:, None] == assigned[None]
    shares = []
    for cluster in range(k):
        members = np.flatnonzero(own == cluster)
        if len(members) < 2:
            return 0.0
        pairs = together[np.ix_(members, members)]
        shares.append((pairs.sum() - len(members)) / (len(members) * (len(members) - 1)))
    return float(min(shares))
