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

__all__ = ["Pictures"]

_KEPT_BYTES = 2**26
_MAX_SIDE = 1600
_HEAT_SIDE = 1000
_THUMB = (192, 144)
_QUALITY = 92


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
        return self._made("image", entry.digest, lambda: _jpeg(self._pixels(entry), _MAX_SIDE, _QUALITY))

    def thumb(self, entry: Entry) -> bytes:
        """The same, small, in the frame of the camera."""
        return self._made("thumb", entry.digest, lambda: _jpeg(self._pixels(entry), max(_THUMB), 80))

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
        return self._made("ignored", served.model, lambda: _png(ignored_layer(mask, max_side=_MAX_SIDE)))

    def at_hand(self, entry: Entry) -> bool:
        """Whether the entry's image can be shown."""
        return entry.has_image or self._station.image(entry.id) is not None

    def _aligned(self, entry: Entry) -> bool:
        """Whether what was looked at is another picture than what was sent, and can be made again."""
        served = next((self._station.served(n) for n in self._station.names if n == entry.inspector), None)
        return (
            served is not None
            and served.model == entry.model
            and served.inspector.alignment is not None
            and entry.score is not None
        )

    def _pixels(self, entry: Entry) -> ImageArray:
        data = self._station.image(entry.id)
        if data is None:
            raise UnknownError(f"entry {entry.id}: its image is not kept")
        return decode_image(data, entry.name, max_pixels=self._station.limits.max_pixels)

    def _looked(self, entry: Entry, what: str) -> bytes:
        """What only inspecting it again shows: its map, and its frame."""
        key = f"{entry.digest}-{entry.model}-{entry.look!r}-{entry.stop!r}"

        def make() -> bytes:
            seen = self._station.look_again(entry.id)
            frame = seen.image if seen.verdict.frame is None else seen.verdict.frame
            if what == "image":
                return _jpeg(frame, _MAX_SIDE, _QUALITY)
            layer = heat_layer(seen.served.inspector, seen.verdict, max_side=_HEAT_SIDE)
            if layer is None:
                raise UnknownError(f"entry {entry.id}: there is no heat map")
            return _png(layer)

        return self._made(what, key, make)

    def _made(self, what: str, key: str, make: Callable[[], bytes]) -> bytes:
        if (found := self._find((what, key))) is not None:
            return found
        with self._lock:
            if (found := self._find((what, key))) is not None:
                return found
            made = make()
            self._keep((what, key), made)
        return made

    def _keep(self, key: tuple[str, str], made: bytes) -> None:
        with self._kept_lock:
            self._kept[key] = made
            self._kept_bytes += len(made)
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


def _png(layer: npt.NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(layer).save(out, format="PNG", compress_level=1)
    return out.getvalue()
