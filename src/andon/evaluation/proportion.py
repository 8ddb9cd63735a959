"""A figure with its interval, and the exact one of a proportion."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import special

__all__ = ["Interval", "check_confidence", "clopper_pearson"]


@dataclass(frozen=True)
class Interval:
    """A figure with its interval.

    Attributes:
        value: on the images that there are.
        low, high: the ends, ``low <= high``.
        confidence: 0..1.
        note: what the reader has to know; "" for nothing.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95
    note: str = ""


def check_confidence(confidence: float) -> float:
    """The confidence itself; ValueError outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), not {confidence}")
    return confidence


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact interval of a proportion (Clopper and Pearson 1934): FPR or FNR with its count of images.

    It covers with at least ``confidence``, usually more.

    Raises:
        ValueError: not 0 <= successes <= n, or n = 0, or a confidence outside (0, 1).
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"a proportion needs 0 <= successes <= n and n > 0, not {successes} of {n}")
    alpha = 1 - check_confidence(confidence)
    low = 0.0 if successes == 0 else float(special.betaincinv(successes, n - successes + 1, alpha / 2))
    high = 1.0 if successes == n else float(special.betaincinv(successes + 1, n - successes, 1 - alpha / 2))
    return Interval(successes / n, low, high, confidence)
