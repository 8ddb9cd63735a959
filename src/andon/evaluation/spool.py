"""What is needed a second time, or does not fit: a little of it in memory, beyond that in a temporary file.

Anomaly maps: 128 MB in memory. Columns of numbers that a computation walks through in order: 8 MB.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core import Channel, ConfigError, GroundTruth, Region

__all__ = ["Column", "MapSpool", "Scratch", "SeenMap"]

_IN_MEMORY = 128 * 2**20
_SCRATCH_IN_MEMORY = 8 * 2**20
_PIXELS = "the scores of the defects' pixels"


@contextmanager
def _room(what: str) -> Iterator[None]:
    """ConfigError where there is none."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{tempfile.gettempdir()}: no room for {what} ({error.strerror}); free some, or set TMPDIR to a folder "
            "with room"
        ) from error


class Scratch:
    """Columns of numbers in one temporary file, which goes when nothing refers to it any more."""

    def __init__(self) -> None:
        self.file = tempfile.SpooledTemporaryFile(max_size=_SCRATCH_IN_MEMORY)  # noqa: SIM115 (closed by ``finalize``)
        weakref.finalize(self, self.file.close)
        self._end = 0

    def column(self, dtype: npt.DTypeLike, size: int) -> Column:
        """A column of zeros; room on disk is taken as it is written."""
        out = Column(self, np.dtype(dtype), self._end, size)
        self._end += size * out.dtype.itemsize
        if self._end > _SCRATCH_IN_MEMORY:  # now: what is written far behind the end in memory fills all before it
            with _room(_PIXELS):
                self.file.rollover()
        return out


@dataclass
class Column:
    """Numbers of one type in a scratch file, one after another."""

    scratch: Scratch
    dtype: np.dtype[Any]
    offset: int
    size: int

    def __len__(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """A copy of the numbers ``start`` to ``stop``."""
        out = np.zeros(stop - start, dtype=self.dtype)
        self.scratch.file.seek(self.offset + start * self.dtype.itemsize)
        self.scratch.file.readinto(out.view(np.uint8).data)  # what was never written is zero
        return out

    def write(self, start: int, values: npt.NDArray[Any]) -> None:
        """Replaces the numbers from ``start`` on; ConfigError where there is no room."""
        values = np.ascontiguousarray(values, dtype=self.dtype)
        with _room(_PIXELS):
            self.scratch.file.seek(self.offset + start * self.dtype.itemsize)
            self.scratch.file.write(values.view(np.uint8).data)


@dataclass(frozen=True)
class SeenMap:
    """One image's map with what is known of the image.

    Attributes:
        scores: ``[h, w]``, not yet placed.
        truth: of its image; back from a spool the union of its channels as one.
        region: the part of the image that the map covers.
        group: defect type.
        name: what to call it in a message.
    """

    scores: npt.NDArray[Any]
    truth: GroundTruth
    region: Region
    group: str
    name: str


@dataclass(frozen=True)
class _Entry:
    """Where a map lies in the file: its scores, then its union of channels, one bit a pixel (where there are any)."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size: tuple[int, int]
    has_union: bool
    region: Region
    group: str
    name: str


class MapSpool:
    """Maps written once, and read back in order of their groups."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 (closed by ``close``)
        self._entries: list[_Entry] = []
        self._end = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, seen: SeenMap) -> None:
        """Keeps a map.

        Raises:
            ConfigError: no room for it.
        """
        has_union = bool(seen.truth.channels)
        data = np.ascontiguousarray(seen.scores).tobytes()
        if has_union:
            data += np.packbits(seen.truth.union()).tobytes()
        with _room("the anomaly maps that are needed a second time"):
            self._file.seek(self._end)
            self._file.write(data)
        scores, size = seen.scores, (int(seen.truth.size[0]), int(seen.truth.size[1]))
        self._entries.append(
            _Entry(self._end, scores.shape, scores.dtype, size, has_union, seen.region, seen.group, seen.name)
        )
        self._end += len(data)

    def read(self, start: int = 0) -> Iterator[SeenMap]:
        """The maps from the ``start``-th on; those of a group one after another (counting is slow where they mix)."""
        for entry in sorted(self._entries[start:], key=lambda e: e.group):
            self._file.seek(entry.offset)
            count = int(np.prod(entry.shape))
            scores = np.frombuffer(self._file.read(count * entry.dtype.itemsize), dtype=entry.dtype)
            truth = self._truth(entry) if entry.has_union else GroundTruth(entry.size)
            yield SeenMap(scores.reshape(entry.shape), truth, entry.region, entry.group, entry.name)

    def _truth(self, entry: _Entry) -> GroundTruth:
        """Reads on behind the scores: a truth with the same union and size."""
        height, width = entry.size
        packed = np.frombuffer(self._file.read((height * width + 7) // 8), dtype=np.uint8)
        mask = np.unpackbits(packed, count=height * width).astype(bool).reshape(height, width)
        return GroundTruth(entry.size, (Channel(mask, "union", int(mask.sum())),))

    def close(self) -> None:
        """Gives the memory and the file back."""
        self._file.close()
        self._entries = []
