"""Near duplicates: images of the very same moment, copied, saved again, or taken a blink later.

Images of one station are alike anyway: parts, light and camera are the same. A duplicate is an image that is far more
like another one than images of the set are to their neighbours. So a perceptual hash (signs of the low frequencies of a
cosine transform, 64 bits) leaves the pairs that may be, and the correlation of their fine structure, shifted by a pixel
or two where that fits better, decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from andon._tools.spacing import evenly_spaced
from andon.core import ImageArray
from andon.data.matching import grey_of

__all__ = ["DuplicatePair", "Fingerprints", "duplicate_groups", "small_copy"]

_SIDE = 128
"""Side of the grey copies, pixels; their shape is not kept."""
_SMOOTH = 2.0
"""σ of the Gaussian whose result is taken off: what is left is fine structure."""
_SHIFT = 2
"""Pixels, on the copies, by which one of a pair may be shifted."""
_MOST_BITS = 14
"""Bits of the hash in which duplicates may differ."""
_NEAREST = 4
"""Most similar images that each image is compared with in full."""
_TYPICAL = 3
"""The rank of the neighbour whose distance is the set's typical one."""
_PROBES = 200
_LEAST_CORRELATION = 0.95
_NEARER = 0.15
"""A duplicate's distance (1 − correlation), at most, over the typical one."""
_ROWS = 256

_Small = npt.NDArray[np.uint8]
_Float32 = npt.NDArray[np.float32]

_HANN: _Float32 = np.asarray(cv2.createHanningWindow((_SIDE, _SIDE), cv2.CV_32F), dtype=np.float32)


class DuplicatePair(NamedTuple):
    """Two images that show the same.

    Attributes:
        first, second: their numbers, ``first < second``.
        correlation: of their fine structure, 0..1.
    """

    first: int
    second: int
    correlation: float


@dataclass
class Fingerprints:
    """Small copies of images (``small_copy``), of which duplicates are found: 16 kB an image."""

    copies: list[_Small]

    def pairs(self) -> tuple[DuplicatePair, ...]:
        """The pairs of near duplicates, by their first and second number; of fewer than 3 images exact copies only."""
        n = len(self.copies)
        if n < 2:
            return ()
        hashes = np.asarray([perceptual_hash(copy) for copy in self.copies], dtype=np.uint64)
        details = [_detail(copy) for copy in self.copies]
        nearest, typical = _neighbours(details, hashes)
        limit = _limit(details, typical)
        found = []
        for first, second in sorted({(min(i, int(j)), max(i, int(j))) for i, row in enumerate(nearest) for j in row}):
            correlation = _correlation(details[first], details[second])
            if correlation >= limit:
                found.append(DuplicatePair(first, second, correlation))
        return tuple(found)


def duplicate_groups(pairs: Sequence[DuplicatePair]) -> tuple[tuple[int, ...], ...]:
    """Images that are duplicates of one another, directly or by way of others: their numbers, each group in order."""
    leader: dict[int, int] = {}

    def find(number: int) -> int:
        while leader.setdefault(number, number) != number:
            number = leader[number]
        return number

    for pair in pairs:
        one, other = sorted((find(pair.first), find(pair.second)))
        leader[other] = one
    groups: dict[int, list[int]] = {}
    for number in sorted(leader):
        groups.setdefault(find(number), []).append(number)
    return tuple(tuple(group) for group in groups.values())


def small_copy(image: ImageArray) -> _Small:
    """The grey copy of an image."""
    interpolation = cv2.INTER_AREA if min(image.shape[:2]) >= _SIDE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey_of(image), (_SIDE, _SIDE), interpolation=interpolation), dtype=np.uint8)


def perceptual_hash(copy: _Small) -> int:
    """Signs of the 8 × 8 lowest frequencies, against their median; the mean grey value does not count."""
    values = cv2.resize(copy, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(values)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    return int(np.packbits(bits).view(">u8")[0])


def _detail(copy: _Small) -> _Float32:
    """Fine structure ``[128, 128]``, mean 0 and norm 1; zeros for an image of one colour."""
    values = copy.astype(np.float32)
    values -= cv2.GaussianBlur(values, (0, 0), _SMOOTH)
    values -= values.mean()
    norm = float(np.linalg.norm(values))
    return np.asarray(values / norm, dtype=np.float32) if norm > 1e-3 else np.zeros_like(values)


def _neighbours(
    details: Sequence[_Float32], hashes: npt.NDArray[np.uint64]
) -> tuple[list[npt.NDArray[np.intp]], npt.NDArray[np.intp]]:
    """For each image the most similar ones that the hash leaves, and the one whose distance is typical."""
    n = len(details)
    reduced = np.stack([_unit(cv2.resize(d, (64, 64), interpolation=cv2.INTER_AREA)) for d in details])
    rank = min(max(_TYPICAL, _NEAREST), n - 1)
    nearest: list[npt.NDArray[np.intp]] = []
    typical = np.empty(n, dtype=np.intp)
    for rows in _blocks(n):
        likeness = reduced[rows] @ reduced.T
        likeness[np.arange(len(rows)), rows] = -2
        order = np.argpartition(-likeness, rank - 1, axis=1)[:, :rank]
        sorted_order = np.take_along_axis(order, np.argsort(-np.take_along_axis(likeness, order, 1), axis=1), 1)
        typical[rows] = sorted_order[:, min(_TYPICAL, rank) - 1]
        for row, closest in zip(rows, sorted_order[:, :_NEAREST], strict=True):
            nearest.append(closest[_bits(hashes[row] ^ hashes[closest]) <= _MOST_BITS])
    return nearest, typical


def _limit(details: Sequence[_Float32], typical: npt.NDArray[np.intp]) -> float:
    """The correlation from which a pair is one of duplicates."""
    probes = evenly_spaced(len(details), _PROBES)
    usual = np.median([1 - _correlation(details[i], details[typical[i]]) for i in probes])
    return max(_LEAST_CORRELATION, 1 - _NEARER * float(usual))


def _correlation(one: _Float32, other: _Float32) -> float:
    """With ``other`` moved onto ``one`` by up to two pixels and fractions of one; of images of one colour 1 with each
    other and 0 with others.
    """
    if not one.any() or not other.any():
        return float(one.any() == other.any())
    # Copies: OpenCV applies the window to its arguments themselves where their size needs no padding.
    (x, y), _ = cv2.phaseCorrelate(one.copy(), other.copy(), _HANN)
    moved = other
    if max(abs(x), abs(y)) <= _SHIFT:
        shift = np.asarray([[1, 0, -x], [0, 1, -y]], dtype=np.float64)
        warped = cv2.warpAffine(other, shift, (_SIDE, _SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        moved = np.asarray(warped, dtype=np.float32)
    return max(_inner_correlation(one, other), _inner_correlation(one, moved))


def _inner_correlation(one: _Float32, other: _Float32) -> float:
    inner = (slice(_SHIFT, -_SHIFT), slice(_SHIFT, -_SHIFT))
    return float(_unit(one[inner] - one[inner].mean()) @ _unit(other[inner] - other[inner].mean()))


def _unit(values: npt.NDArray[np.generic]) -> _Float32:
    flat = np.asarray(values, dtype=np.float32).ravel()
    norm = float(np.linalg.norm(flat))
    return np.asarray(flat / norm, dtype=np.float32) if norm > 1e-9 else flat


def _bits(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """How many bits are set in each."""
    as_bytes = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), 8)
    bits = np.unpackbits(as_bytes, axis=1).sum(axis=1)
    return np.asarray(bits, dtype=np.int64)


def _blocks(n: int) -> Iterator[npt.NDArray[np.intp]]:
    for start in range(0, n, _ROWS):
        yield np.arange(start, min(start + _ROWS, n))
