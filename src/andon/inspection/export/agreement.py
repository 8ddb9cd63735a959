"""Do two runtimes say the same? Scores within a tolerance, and the same decision at every threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from andon.core import ImageArray, ProgressCallback, no_progress
from andon.inspection.export.runtimes import Runtime

__all__ = ["TOLERANCE", "Agreement", "compare", "relative_difference"]

TOLERANCE = 1e-3
"""Largest relative difference of a score that counts as the same."""
_FLOOR = 0.01

Scores = npt.NDArray[np.float64]


def relative_difference(found: Sequence[float], reference: Sequence[float]) -> Scores:
    """|found − reference| / |reference| an image, float64 ``[N]``.

    A score nearer to zero than a hundredth of the largest counts as that hundredth: near zero, which not all methods'
    scores have a meaning at, the ratio says nothing. What is not finite on one side only, or NaN, differs infinitely.
    """
    a, b = np.asarray(found, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    unit = np.maximum(np.abs(b), _FLOOR * np.abs(b[finite]).max(initial=0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.where(a == b, 0.0, np.abs(a - b) / unit)
    return np.where(finite | (a == b), difference, np.inf)


@dataclass(frozen=True)
class Agreement:
    """Scores of the same images by two runtimes.

    Attributes:
        names: of the images.
        reference, found: their scores.
        thresholds: by name; a score above one is beyond.
        map_difference: largest difference of a map's value, relative to the largest value of the reference's maps; None
            where there are no maps.
        tolerance: largest relative difference of a score that counts as the same.
    """

    names: tuple[str, ...]
    reference: tuple[float, ...]
    found: tuple[float, ...]
    thresholds: Mapping[str, float]
    map_difference: float | None = None
    tolerance: float = TOLERANCE

    @cached_property
    def differences(self) -> Scores:
        """Relative difference an image."""
        return relative_difference(self.found, self.reference)

    @property
    def worst(self) -> float:
        """The largest relative difference."""
        return float(self.differences.max(initial=0.0))

    @property
    def median(self) -> float:
        """The median relative difference."""
        return float(np.median(self.differences)) if self.names else 0.0

    @cached_property
    def changed(self) -> tuple[str, ...]:
        """Images that are decided otherwise at one threshold or more."""
        return tuple(
            name
            for name, a, b in zip(self.names, self.found, self.reference, strict=True)
            if any((a > t) != (b > t) for t in self.thresholds.values())
        )

    @property
    def agrees(self) -> bool:
        """Whether there are images, none differs by more than the tolerance and none is decided otherwise."""
        return bool(self.names) and self.worst <= self.tolerance and not self.changed

    def describe(self) -> str:
        """One line: "60 images: scores differ by at most 2.1e-07 (relative), all decisions identical"."""
        n = len(self.names)
        if not self.thresholds:
            decisions = "there is no threshold to compare decisions at"
        elif self.changed:
            decisions = f"{len(self.changed)} decided otherwise ({', '.join(self.changed[:3])})"
        else:
            decisions = "all decisions identical"
        return f"{n} image{'s' * (n != 1)}: scores differ by at most {self.worst:.1e} (relative), {decisions}"


def compare(
    reference: Runtime,
    other: Runtime,
    images: Iterable[tuple[str, ImageArray]],
    thresholds: Mapping[str, float],
    *,
    progress: ProgressCallback = no_progress,
    total: int = 0,
) -> Agreement:
    """Runs both on the same images, one at a time."""
    names: list[str] = []
    expected: list[float] = []
    found: list[float] = []
    maps: list[tuple[float, float]] = []
    for name, image in images:
        a, b = reference.run(image), other.run(image)
        names.append(name)
        expected.append(a.score)
        found.append(b.score)
        if a.map is not None and b.map is not None:
            maps.append((float(np.abs(a.map - b.map).max()), float(np.abs(a.map).max())))
        progress("compare", len(names), max(total, len(names)))
    largest = max((value for _, value in maps), default=0.0) or 1.0
    worst_map = max(difference for difference, _ in maps) / largest if maps else None
    return Agreement(tuple(names), tuple(expected), tuple(found), dict(thresholds), worst_map)
