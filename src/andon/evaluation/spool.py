"""Anomaly maps that are needed a second time: 128 MB in memory, beyond that in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core import Channel, ConfigError, GroundTruth, Region

__all__ = ["MapSpool", "SeenMap"]

_IN_MEMORY = 128 * 2**20


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
        try:
            self._file.seek(self._end)
            self._file.write(data)
        except OSError as error:
            raise ConfigError(
                f"{tempfile.gettempdir()}: no room for the anomaly maps that are needed a second time "
                f"({error.strerror}); free some, or set TMPDIR to a folder with room"
            ) from error
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
