"""The gallery (as the study's Figure 3): image, mask, one heat map a method, as images for the page.

A method's heat maps of one task share one colour scale, from the lowest to the highest value of its maps there, so that
a good image can be seen to stay cold. Maps lie on the part of the image that they cover. Their bytes are bounded:
where there are many images they are made smaller, then left out, and the page says so.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, features

from andon.benchmark import GalleryImage, GalleryMaps, Store
from andon.core import AndonError, BoolArray, FloatArray, ImageArray, Region
from andon.report.results import Column, DatasetResults, Row, plain

__all__ = ["COLOUR_MAP", "Gallery", "GalleryRow", "Scale", "Tile", "build_galleries", "colour_bar", "mask_outline"]

COLOUR_MAP = "inferno"
"""Perceptually uniform and readable in grey and with every kind of colour blindness."""
# Its 256 rows of RGB (van der Walt and Smith 2015, public domain).
_INFERNO = (
    "AAAEAQAFAQEGAQEIAgEKAgIMAgIOAwIQBAMSBAMUBQQXBgQZBwUbCAUdCQYfCgciCwckDAgmDQgpDgkrEAktEQowEgoyFAs0FQs3Fgs5GAw8GQ"
    "w+GwxBHAxDHgxFHwxIIQxKIwxMJAxPJgxRKAtTKQtVKwtXLQtZLwpbMQpcMgpeNApfNglhOAliOQljOwlkPQllPglmQApnQgpoRApoRQppRwtq"
    "SQtqSgxrTAxrTQ1sTw1sUQ5sUg5tVA9tVQ9tVxBuWRBuWhFuXBJuXRJuXxNuYRNuYhRuZBVuZRVuZxZuaRZuahdubBhubRhubxlucRluchpudB"
    "pudRtudxxteBxteh1tfB1tfR5tfx5sgB9sgiBshCBrhSFrhyFriCJqiiJqjCNpjSNpjyRpkCVokiVokyZnlSZnlydmmCdmmihlmylknSlknypj"
    "oCpjoitioyxhpSxgpi1gqC5fqS5eqy9erTBdrjBcsDFbsTJaszJatDNZtjRYtzVXuTVWujZVvDdUvThTvzlSwDpRwTpQwztPxDxOxj1Nxz5MyD"
    "9LykBKy0FJzEJIzkNHz0RG0EVF0kZE00dD1EhC1UpB10s/2Ew+2U092k4821A73VE63lI431M34FU24VY14lc041kz5Fox5Vww5l0v514u6GAt"
    "6WEr6mMq62Qp62Yo7Gcm7Wkl7mok72wj724h8G8g8XEf8XMd8nQc83Yb83gZ9HkY9XsX9X0V9n4U9oAT94IS94QQ+IUP+IcO+IkM+YsL+YwK+Y"
    "4J+pAI+pIH+pQH+5YG+5cG+5kG+5sG+50H/J8H/KEI/KMJ/KUK/KYM/KgN/KoP/KwR/K4S/LAU/LIW/LQY+7Ya+7gd+7of+7wh+74j+sAm+sIo"
    "+sQq+sYt+ccv+cky+cs1+M03+M8699E999NA9tVD9tdG9dlJ9dtM9N1P9N9T9OFW8+Na8+Vd8uZh8uhl8upp8ext8e1x8e918fF58vJ98vSC8/"
    "WG8/aK9PiO9fmS9vqW+Pua+fyd+v2h/P+k"
)
MAX_BYTES = 9_000_000
_SIZES = ((512, 256), (384, 192), (256, 160), (192, 128))
"""(image, map): longest sides tried, pixels."""
_OUTLINE_CHARACTERS = 20_000


@dataclass(frozen=True)
class Scale:
    """Colour scale of a method's maps of one task."""

    low: float
    high: float

    @classmethod
    def of(cls, maps: Sequence[FloatArray]) -> Scale | None:
        """Over the finite values of the maps; None if there are none."""
        finite = [m[np.isfinite(m)] for m in maps]
        finite = [values for values in finite if values.size]
        if not finite:
            return None
        return cls(float(min(v.min() for v in finite)), float(max(v.max() for v in finite)))

    @property
    def labels(self) -> tuple[str, str]:
        """Of the colour bar's ends."""
        return f"{self.low:.3g}", f"{self.high:.3g}"


@dataclass(frozen=True)
class Tile:
    """A heat map over an image.

    Attributes:
        uri: the map's image; "" where there is none, ``note`` says why.
        box: (x, y, width, height) in the image's pixels.
        caption: the image score and whether it alarms.
        alarm: whether it does; None where that is not known.
    """

    uri: str = ""
    box: tuple[float, float, float, float] = (0, 0, 0, 0)
    caption: str = ""
    alarm: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class GalleryRow:
    """An image with the tiles of the methods."""

    key: str
    sample_id: str
    defect_type: str
    width: int
    height: int
    uri: str = field(repr=False)
    outline: str | None = field(repr=False)
    """SVG path of the mask; "" for an empty one; None where there is no ground truth."""
    tiles: tuple[Tile, ...] = field(repr=False)
    mask: BoolArray | None = field(repr=False, compare=False)

    @property
    def good(self) -> bool:
        return self.defect_type == "good"


@dataclass(frozen=True)
class Gallery:
    """The gallery of a task."""

    columns: tuple[Column, ...]
    scales: tuple[Scale | None, ...]
    rows: tuple[GalleryRow, ...]
    left_out: int = 0
    """Images left out to keep the page small."""


@dataclass(frozen=True)
class _Source:
    """What a gallery is drawn from."""

    row: Row
    images: list[GalleryImage]
    columns: list[Column]
    maps: list[dict[str, tuple[FloatArray, Region]]]
    captions: list[dict[str, tuple[str, bool | None]]]


def build_galleries(
    store: Store, results: Sequence[DatasetResults], problems: list[str], max_bytes: int = MAX_BYTES
) -> dict[str, Gallery]:
    """Galleries by row key, of the tasks that have images; together at most ``max_bytes`` (about).

    Args:
        problems: gets a line for everything that could not be read.
    """
    sources = [s for d in results for row in d.rows if (s := _source(store, d, row, problems)) is not None]
    galleries: dict[str, Gallery] = {}
    for image_side, map_side in _SIZES:
        galleries = {s.row.key: _draw(s, image_side, map_side) for s in sources}
        if _bytes(galleries) <= max_bytes:
            return galleries
    # Still too large: keep an equal number of each task's images, every other one first, so that all types stay.
    share = max_bytes / _bytes(galleries)
    return {key: _fewer(gallery, share) for key, gallery in galleries.items()}


def _source(store: Store, results: DatasetResults, row: Row, problems: list[str]) -> _Source | None:
    try:
        images = store.gallery(results.name, row.category, row.data_fingerprint)
    except Image.DecompressionBombError as error:
        problems.append(plain(f"gallery of {row.label}: {error}", 400))
        return None
    if not images:
        return None
    columns, maps, captions = [], [], []
    for column in results.columns:
        for record in results.get(row, column).records:
            try:
                found = store.maps(record.id)
                kept = _of_images(found, images) if found is not None else {}
                if not kept:
                    continue
                arrays = store.arrays(record.id)
            except AndonError as error:
                problems.append(plain(str(error), 400))
                continue
            threshold = next(
                (
                    p.threshold
                    for p in record.evaluation.operating_points
                    if p.source == "test good" and p.target_tnr == 0.95
                ),
                None,
            )
            columns.append(column)
            maps.append(kept)
            scores = dict(zip(arrays.sample_ids, arrays.image_scores.tolist(), strict=True))
            captions.append({p.sample_id: _caption(scores.get(p.sample_id), threshold) for p in images})
            break
    return _Source(row, images, columns, maps, captions)


def _of_images(maps: GalleryMaps, images: Sequence[GalleryImage]) -> dict[str, tuple[FloatArray, Region]]:
    """The images' maps alone: a store that keeps all maps has hundreds more."""
    found = ((p.sample_id, maps.get(p.sample_id)) for p in images)
    return {sample_id: kept for sample_id, kept in found if kept is not None}


def _caption(score: float | None, threshold: float | None) -> tuple[str, bool | None]:
    if score is None:
        return "", None
    return f"{score:.3g}", None if threshold is None else score > threshold


def _draw(source: _Source, image_side: int, map_side: int) -> Gallery:
    scales = tuple(Scale.of([values for values, _ in maps.values()]) for maps in source.maps)
    rows = []
    for number, image in enumerate(source.images):
        height, width = image.image.shape[:2]
        # A mask that is not of the image's size would lie in the wrong place.
        mask = image.mask if image.mask is not None and image.mask.shape == (height, width) else None
        tiles = tuple(
            _tile(maps, scale, image, captions[image.sample_id], (width, height), map_side)
            for maps, scale, captions in zip(source.maps, scales, source.captions, strict=True)
        )
        rows.append(
            GalleryRow(
                key=f"{source.row.key}-{number}",
                sample_id=plain(image.sample_id),
                defect_type=plain(image.defect_type),
                width=width,
                height=height,
                uri=image_uri(_at_most(image.image, image_side)),
                outline=None if mask is None else mask_outline(mask),
                tiles=tiles,
                mask=mask,
            )
        )
    return Gallery(tuple(source.columns), scales, tuple(rows))


def _tile(
    maps: dict[str, tuple[FloatArray, Region]],
    scale: Scale | None,
    image: GalleryImage,
    caption: tuple[str, bool | None],
    size: tuple[int, int],
    side: int,
) -> Tile:
    found = maps.get(image.sample_id)
    if found is None:
        return Tile(note="no map kept", caption=caption[0], alarm=caption[1])
    values, region = found
    if scale is None:
        return Tile(note="map has no finite value", caption=caption[0], alarm=caption[1])
    return Tile(image_uri(heat_map(values, scale, side)), _box(region, size), caption[0], caption[1])


def _box(region: Region, size: tuple[int, int]) -> tuple[float, float, float, float]:
    width, height = size
    return (
        round(region.left * width, 2),
        round(region.top * height, 2),
        round((region.right - region.left) * width, 2),
        round((region.bottom - region.top) * height, 2),
    )


def heat_map(values: FloatArray, scale: Scale, side: int) -> ImageArray:
    """A map ``[h, w]`` in the colours of its scale, RGB uint8, longest side at most ``side``.

    What is not finite takes the nearest end of the scale (NaN the lower).
    """
    finite = np.nan_to_num(values, nan=scale.low, posinf=scale.high, neginf=scale.low)
    span = scale.high - scale.low
    unit = (finite - scale.low) / span if span > 0 else np.zeros_like(finite)
    grey = _at_most(np.round(255 * np.clip(unit, 0, 1)).astype(np.uint8), side)
    return _lookup()[grey]


@cache
def _lookup() -> ImageArray:
    return np.frombuffer(base64.b64decode(_INFERNO), dtype=np.uint8).reshape(256, 3)


def colour_bar(stops: int = 9) -> str:
    """The colour map as a CSS gradient."""
    table = _lookup()
    colours = [table[round(i * 255 / (stops - 1))] for i in range(stops)]
    return "linear-gradient(90deg," + ",".join(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours) + ")"


def _at_most(image: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def image_uri(image: ImageArray) -> str:
    """An image RGB uint8 as a data URI: WebP, or JPEG where Pillow has no WebP."""
    kind = "webp" if features.check("webp") else "jpeg"
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind.upper(), quality=82)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def mask_outline(mask: BoolArray) -> str:
    """The outline of a mask ``[h, w]`` as an SVG path (even–odd), in its pixels; "" for an empty mask.

    A path longer than 20,000 characters is drawn again from a coarser mask.
    """
    for side in (max(mask.shape), 256, 128, 64):
        path = _outline(mask, side)
        if len(path) <= _OUTLINE_CHARACTERS:
            return path
    return path


def _outline(mask: BoolArray, side: int) -> str:
    height, width = mask.shape
    block = max(1, -(-max(mask.shape) // side))
    padded = np.pad(mask, ((0, -height % block), (0, -width % block)))
    coarse = padded.reshape(padded.shape[0] // block, block, padded.shape[1] // block, block).any(axis=(1, 3))
    # Contours run through pixel centres: on a doubled mask they keep a pixel's half, so one pixel still has an area.
    doubled = np.repeat(np.repeat(coarse.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        points = (contour[:, 0] + 0.5) * (block / 2)
        parts.append("M" + "L".join(f"{x:g} {y:g}" for x, y in points.tolist()) + "Z")
    return "".join(parts)


def _bytes(galleries: dict[str, Gallery]) -> int:
    return sum(_row_bytes(row) for gallery in galleries.values() for row in gallery.rows)


def _row_bytes(row: GalleryRow) -> int:
    return len(row.uri) + len(row.outline or "") + sum(len(tile.uri) for tile in row.tiles)


def _fewer(gallery: Gallery, share: float) -> Gallery:
    wanted = int(len(gallery.rows) * share)
    order = [*range(0, len(gallery.rows), 2), *range(1, len(gallery.rows), 2)]
    kept = sorted(order[:wanted])
    return Gallery(gallery.columns, gallery.scales, tuple(gallery.rows[i] for i in kept), len(gallery.rows) - len(kept))
