"""The page's pictures: images as they were looked at, thumbnails, heat maps and what is ignored, each made once."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from andon.core import ImageArray
from andon.data import decode_image
from andon.inspection.overlay import heat_layer, ignored_layer
from andon.inspection.station.errors import UnknownError
from andon.inspection.station.journal import Entry
from andon.inspection.station.station import Served, Station

__all__ = ["Pictures", "png_bytes"]

_KEPT_BYTES = 2**26
_MAX_SIDE = 1600
_HEAT_SIDE = 1000
_JPEG = {"image": (_MAX_SIDE, 92), "thumb": (192, 80)}
"""Longest side and quality."""


class Pictures:
    """Pictures of a station's entries. What the line waits for goes first: one is made at a time.

    An image is shown as it was decoded, never as it was sent: what a browser makes of strange files is its own affair.
    """

    def __init__(self, station: Station) -> None:
        self._station = station
        self._lock, self._kept_lock = threading.Lock(), threading.Lock()
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._kept_bytes = 0

    def image(self, entry: Entry) -> bytes:
        """An entry's image, JPEG; in the reference's frame, where its parts are aligned.

        Raises:
            UnknownError: it is not kept.
        """
        if self._aligned(entry):
            return self._looked(entry, "image")
        return self._made("image", entry.digest, lambda: self._as_sent(entry, "image", "thumb"))

    def thumb(self, entry: Entry) -> bytes:
        """The same, small, in the frame of the camera."""
        return self._made("thumb", entry.digest, lambda: self._as_sent(entry, "thumb"))

    def heat(self, entry: Entry) -> bytes:
        """The heat map that led to its verdict, PNG with an alpha channel.

        Raises:
            UnknownError: its image is not kept, another model is in its place, or the method gives no maps.
        """
        return self._looked(entry, "heat")

    def ignored(self, served: Served) -> bytes:
        """What an inspector ignores, PNG with an alpha channel; UnknownError where it ignores nothing."""
        mask = served.inspector.regions.mask
        if mask is None:
            raise UnknownError(f"{served.name}: ignores nothing")
        return self._made(
            "ignored", served.model, lambda: {"ignored": png_bytes(ignored_layer(mask, max_side=_MAX_SIDE))}
        )

    def at_hand(self, entry: Entry) -> bool:
        """Whether the entry's image can be shown."""
        return entry.has_image or self._station.image(entry.id) is not None

    def _aligned(self, entry: Entry) -> bool:
        """Whether what was looked at is another picture than what was sent, and can be made again."""
        served = self._station.served(entry.inspector) if entry.inspector in self._station.names else None
        return (
            served is not None
            and served.model == entry.model
            and served.inspector.alignment is not None
            and entry.score is not None
        )

    def _as_sent(self, entry: Entry, *kinds: str) -> dict[str, bytes]:
        """Pictures in the frame of the camera, of one decoding."""
        data = self._station.image(entry.id)
        if data is None:
            raise UnknownError(f"entry {entry.id}: its image is not kept")
        pixels = decode_image(data, entry.name, max_pixels=self._station.limits.max_pixels)
        return {kind: _jpeg(pixels, *_JPEG[kind]) for kind in kinds}

    def _looked(self, entry: Entry, what: str) -> bytes:
        """What only inspecting it again shows: its map, and its frame; a page asks for both."""
        key = f"{entry.digest}-{entry.model}-{entry.look!r}-{entry.stop!r}"

        def make() -> dict[str, bytes]:
            seen, made = self._station.look_again(entry.id), dict[str, bytes]()
            if what == "image" or seen.verdict.frame is not None:
                frame = seen.image if seen.verdict.frame is None else seen.verdict.frame
                made["image"] = _jpeg(frame, *_JPEG["image"])
            layer = heat_layer(seen.served.inspector, seen.verdict, max_side=_HEAT_SIDE)
            if layer is not None:
                made["heat"] = png_bytes(layer)
            elif what == "heat":
                raise UnknownError(f"entry {entry.id}: there is no heat map")
            return made

        return self._made(what, key, make)

    def _made(self, what: str, key: str, make: Callable[[], dict[str, bytes]]) -> bytes:
        """A picture, made with those that are asked for beside it where it is not at hand."""
        if (found := self._find((what, key))) is not None:
            return found
        with self._lock:
            if (found := self._find((what, key))) is not None:
                return found
            made = make()
            for kind, picture in made.items():
                self._keep((kind, key), picture)
        return made[what]

    def _keep(self, key: tuple[str, str], made: bytes) -> None:
        with self._kept_lock:
            self._kept_bytes += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._kept_bytes > _KEPT_BYTES:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])

    def _find(self, key: tuple[str, str]) -> bytes | None:
        with self._kept_lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)


def _jpeg(image: ImageArray, max_side: int, quality: int) -> bytes:
    out, picture = io.BytesIO(), Image.fromarray(image)
    picture.thumbnail((max_side, max_side))
    picture.save(out, format="JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def png_bytes(layer: npt.NDArray[np.uint8]) -> bytes:
    """A PNG file, made quickly."""
    out = io.BytesIO()
    Image.fromarray(layer).save(out, format="PNG", compress_level=1)
    return out.getvalue()
