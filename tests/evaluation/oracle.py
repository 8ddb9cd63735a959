"""Localisation metrics as slowly and literally as they are defined, in exact rational arithmetic.

Written apart from the library: thresholds are walked one by one, each threshold's counts are made anew from the maps.
"""

from fractions import Fraction
from itertools import pairwise

import numpy as np
from scipy import ndimage

from andon.core import Channel, GroundTruth


def curve(maps, truths):
    """Points (FPR, mean sPRO) of every threshold, exact."""
    regions = [
        (scores, channel.mask, channel.saturation)
        for scores, truth in zip(maps, truths, strict=True)
        for channel in truth.channels
        if channel.saturation
    ]
    n_negatives = sum(int((~t.union()).sum()) for t in truths)
    thresholds = sorted({float(v) for m in maps for v in m.ravel()}, reverse=True)
    points = [(Fraction(0), Fraction(0))]
    for v in thresholds:
        false_positives = sum(int(((m >= v) & ~t.union()).sum()) for m, t in zip(maps, truths, strict=True))
        overlaps = [min(Fraction(1), Fraction(int(((m >= v) & mask).sum()), s)) for m, mask, s in regions]
        points.append((Fraction(false_positives, n_negatives), sum(overlaps, Fraction(0)) / len(overlaps)))
    return points


def area(points, limit):
    """Trapezoids up to the limit, linear interpolation there, divided by it."""
    limit = Fraction(limit)
    total = Fraction(0)
    for (x0, y0), (x1, y1) in pairwise(points):
        if x1 <= limit:
            total += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            y = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            total += (limit - x0) * (y0 + y) / 2
    return float(total / limit)


def auspro(maps, truths, limit):
    return area(curve(maps, truths), limit)


def components(truth):
    """The truth with one channel an 8-connected component of the union, saturated at its area."""
    labels, n = ndimage.label(truth.union(), structure=np.ones((3, 3)))
    return GroundTruth(
        truth.size, tuple(Channel(labels == k, "component", int((labels == k).sum())) for k in range(1, n + 1))
    )


def aupro(maps, truths, limit):
    return auspro(maps, [components(t) for t in truths], limit)
