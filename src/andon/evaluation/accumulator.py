"""Localisation figures of images that come one by one: placing, both passes and what they need is in here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core import GOOD, DataError, FullFrame, GroundTruth, Region, listed
from andon.evaluation.placing import Interpolation, place_map
from andon.evaluation.spool import MapSpool, SeenMap
from andon.evaluation.spro import FPR_LIMITS, LocalisationResult, SproCounts

__all__ = ["LocalisationAccumulator"]

_Map = npt.NDArray[Any]


class _LeftOut:
    """Defective images, or channels, that cannot be localised, and why."""

    def __init__(self) -> None:
        self.without: list[str] = []
        self.empty: list[str] = []
        self.part_empty: list[str] = []

    def usable(self, truth: GroundTruth | None, name: str) -> GroundTruth | None:
        """The truth of a defective image without empty channels; None where no mask shows its defect."""
        if truth is None or not truth.channels:
            self.without.append(name)
            return None
        with_pixels = tuple(c for c in truth.channels if c.mask.any())
        if not with_pixels:
            self.empty.append(name)
            return None
        if len(with_pixels) < len(truth.channels):
            self.part_empty.append(name)
        return GroundTruth(truth.size, with_pixels)

    def notes(self) -> list[str]:
        out = []
        for names, one, many in (
            (self.without, "image has no mask", "images have no mask"),
            (self.empty, "image has an empty mask", "images have an empty mask"),
        ):
            if names:
                verb = one if len(names) == 1 else many
                out.append(f"{len(names)} defective {verb}: left out of localisation ({listed(names)})")
        if self.part_empty:
            out.append(f"channels without a pixel were left out in: {listed(self.part_empty)}")
        return out


class LocalisationAccumulator:
    """Exact AUsPRO, AUPRO, pixel AUROC and pixel AP of images that come one by one, by defect type too.

    Images may come in any order. Integer maps (uint8, uint16) are counted and go. Float maps can only be counted once
    all defects' scores are known (``andon.evaluation.localization``), so they are kept until ``compute``: 128 MB in
    memory, beyond that in a temporary file. Where all defective images come before the first good one, say so: then
    only theirs are kept and good ones are counted as they come; nothing grows with their number.

    >>> import numpy as np
    >>> from andon.core import Channel, GroundTruth
    >>> scratch = Channel(np.array([[True, True, False, False]]), "scratch", saturation=1)
    >>> with LocalisationAccumulator(limits=[0.5]) as accumulator:
    ...     accumulator.update(np.array([[0.1, 0.9, 0.5, 0.2]]), GroundTruth((1, 4), (scratch,)), group="scratched")
    ...     accumulator.update(np.array([[0.3, 0.2]]), GroundTruth((1, 4)))  # a good image; its map is half its size
    ...     accumulator.compute().auspro
    {0.5: 1.0}

    Args:
        limits: FPR limits of AUsPRO and AUPRO, each in (0, 1].
        interpolation: how maps are brought to the size of their image, see ``place_map``. Bilinear: all maps are
            counted as float32. Bicubic: in their own type (float64 ones that are resized have float32's precision).
            None: they must have that size, and are counted in their own type.
        defective_first: a promise that no defective image comes after a good one.

    Raises:
        ConfigError: a limit outside (0, 1].
    """

    def __init__(
        self,
        limits: Sequence[float] = FPR_LIMITS,
        *,
        interpolation: Interpolation | None = "bilinear",
        defective_first: bool = False,
    ) -> None:
        self._counts = SproCounts(limits)
        self.limits = self._counts.limits
        self.interpolation = interpolation
        self.defective_first = defective_first
        self._left_out = _LeftOut()
        self._type: tuple[np.dtype[Any], str] | None = None
        self._spool: MapSpool | None = None
        self._counted = 0  # spooled maps whose negatives are counted
        self._gone = False  # float maps of good images have been counted and are not kept

    def __enter__(self) -> LocalisationAccumulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives kept maps back; nothing may be added or computed after it."""
        if self._spool is not None:
            self._spool.close()

    @property
    def n_channels(self) -> int:
        """Channels with at least one pixel so far."""
        return self._counts.n_channels

    def notes(self) -> list[str]:
        """What was left out so far, and why: defective images without a mask that shows their defect."""
        return self._left_out.notes()

    def update(
        self,
        anomaly_map: _Map,
        truth: GroundTruth | None,
        *,
        region: Region = FullFrame,
        group: str | None = None,
        name: str = "",
        source: Path | None = None,
    ) -> None:
        """Takes one image.

        Args:
            anomaly_map: ``[h, w]``, higher = more anomalous; uint8, uint16 or float, of one type throughout; −inf
                where the method did not see (such a map must have the size of its image).
            truth: its channels, none for a good image; None for a defective one without a mask, which is left out.
            region: the part of the image that the map covers.
            group: its defect type, ``GOOD`` for a good one; by default ``GOOD`` where there are no channels, else
                "defect".
            name: of the image, for notes and messages.
            source: file of the map, for messages.

        Raises:
            DataError: values that are NaN or infinite, a map of another type than the first, or −inf in a map that
                must be resized.
            ValueError: a map that is not ``[h, w]``, a type that no map has, a good image with channels, or a
                defective float map after a good one where ``defective_first`` promised that there is none.
        """
        scores = self._checked(np.asarray(anomaly_map), name, source)
        if group is None:
            group = GOOD if truth is not None and not truth.channels else "defect"
        if group == GOOD and (truth is None or truth.channels):
            raise ValueError(f"{name or 'a good image'}: a good image has a ground truth without channels")
        known = truth if group == GOOD else self._left_out.usable(truth, name)
        if known is None:
            return
        seen = SeenMap(scores, known, region, group, str(source or name or "an anomaly map"))
        is_integer = scores.dtype.kind == "u"
        if group != GOOD:
            if not is_integer:
                self._reopen(seen.name)
            self._counts.add_positives(self._placed(seen), known, group)
        if is_integer:
            self._counts.add_negatives(self._placed(seen), known, group)
        elif group == GOOD and self.defective_first:
            self._count_kept()
            self._gone = True
            self._count(seen)
        else:
            if self._spool is None:
                self._spool = MapSpool()
            self._spool.put(seen)

    def compute(self, group: str | None = None) -> LocalisationResult:
        """The figures of all images so far, or of one defect type (its images and all good ones)."""
        self._count_kept()
        return self._counts.result(group)

    def _checked(self, scores: _Map, name: str, source: Path | None) -> _Map:
        """The map in the type that it is placed in."""
        what = str(source or name or "an anomaly map")
        if scores.ndim != 2 or 0 in scores.shape:
            raise ValueError(f"{what}: a map must be [h, w] with a pixel at least, got {list(scores.shape)}")
        if scores.dtype == np.float16:
            scores = scores.astype(np.float32)
        if scores.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
            raise ValueError(f"{what}: maps must be uint8, uint16 or float, not {scores.dtype}")
        if self._type is None:
            self._type = scores.dtype, source.name if source is not None else name or "the first"
        elif scores.dtype != self._type[0]:
            raise DataError(
                f"{what}: a map of type {scores.dtype}, but {self._type[1]} is {self._type[0]}; all maps of a category "
                "must be of one type to be comparable"
            )
        if self.interpolation == "bilinear":
            with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
                scores = scores.astype(np.float32, copy=False)
        if scores.dtype.kind == "f":
            highest = scores.max()
            if np.isnan(highest) or highest == np.inf:
                raise DataError(f"{what}: the anomaly map holds {'NaN' if np.isnan(highest) else 'infinity'}")
        return scores

    def _placed(self, seen: SeenMap) -> _Map:
        """The map at image size, in the one type in which the maps are counted."""
        scores, size = seen.scores, tuple(seen.truth.size)
        fits = scores.shape == size and seen.region == FullFrame
        if self.interpolation is None:
            if not fits:
                raise ValueError(f"{seen.name}: the map must have its image's size {size}, got {list(scores.shape)}")
            return scores
        if not fits and scores.dtype.kind == "f" and np.isneginf(scores.min()):
            raise DataError(
                f"{seen.name}: −inf pixels cannot be resized ({scores.shape[0]}×{scores.shape[1]} to "
                f"{size[0]}×{size[1]}); write such a map at its image's size"
            )
        placed = place_map(scores, seen.region, seen.truth.size, self.interpolation)
        if not fits and placed.dtype.kind == "f" and not placed.max() < np.inf:
            raise DataError(f"{seen.name}: the map's values are too large to be resized in float32; scale them down")
        # Bicubic gives float32 for the float64 maps that it resizes, and float64 for those that have their size.
        return placed.astype(scores.dtype, copy=False)

    def _reopen(self, name: str) -> None:
        """Makes way for a defective float map: negatives must be counted against its scores too."""
        if self._gone:
            raise ValueError(
                f"{name}: a defective image after a good one, which defective_first=True had ruled out; leave it False "
                "where images come in any order"
            )
        if self._counted:
            self._counts.forget_negatives()
            self._counted = 0

    def _count_kept(self) -> None:
        if self._spool is not None and self._counted < len(self._spool):
            for seen in self._spool.read(self._counted):
                self._count(seen)
            self._counted = len(self._spool)

    def _count(self, seen: SeenMap) -> None:
        if self.n_channels:
            self._counts.add_negatives(self._placed(seen), seen.truth, seen.group)
        else:  # nothing will be compared with it: not worth resizing
            self._counts.add_unseen(seen.truth, seen.group)
