"""CVAT XML for images 1.1 (https://docs.cvat.ai/docs/other/xml_format)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.parsers import expat

from andon.core import DataError
from andon.data.decode import MAX_PIXELS
from andon.data.preparing.shapes import Region, Runs, Shape, ellipse, polygon, rectangle

__all__ = ["read_cvat"]

_AREAS = ("box", "polygon", "ellipse", "mask")
_NO_AREA = ("polyline", "points", "cuboid", "skeleton", "tag")


class _Reader:
    """Follows the elements of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[tuple[str, str, object, Shape, str, tuple[int, int] | None]] = []
        self.left_out: list[str] = []
        self._image: Mapping[str, str] | None = None
        self._root = True

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._root and tag != "annotations":
            raise DataError(f"{self.path}: XML, but not CVAT's (it begins with <{tag}>, not <annotations>)")
        self._root = False
        if tag == "track":
            raise DataError(f"{self.path}: is CVAT for video; export the task as “CVAT for images 1.1”")
        if tag == "image":
            self._image = attributes
        elif self._image is not None and tag in _NO_AREA:
            self.left_out.append(f"{self._where(tag, attributes)}: a {tag} is no area")
        elif self._image is not None and tag in _AREAS:
            self._add(tag, attributes, self._image)

    def end(self, tag: str) -> None:
        if tag == "image":
            self._image = None

    def _where(self, tag: str, attributes: Mapping[str, str]) -> str:
        name = "" if self._image is None else self._image.get("name", "")
        return f"{self.path}: image {name}: {tag} {attributes.get('label', '')}"

    def _add(self, tag: str, attributes: Mapping[str, str], image: Mapping[str, str]) -> None:
        where = self._where(tag, attributes)
        try:
            size = (int(image["height"]), int(image["width"])) if "height" in image and "width" in image else None
            shape = _shape(tag, attributes, where)
            # Shapes without a group stand alone; CVAT writes group 0 for that, or nothing.
            group = attributes.get("group_id", "0")
            key: object = len(self.found) if group == "0" else (attributes["label"], group)
            self.found.append((image["name"], attributes["label"], key, shape, where, size))
        except (KeyError, ValueError, OverflowError) as error:
            raise DataError(f"{where}: {error} is missing or no number") from error


def read_cvat(data: bytes, path: Path) -> tuple[list[tuple[str, Region]], list[str]]:
    """(image's name, region) in order, and what is no area; shapes of one label and group number are one region.

    Raises:
        DataError: names image and shape.
    """
    reader = _Reader(path)
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end

    def refuse(*_: object) -> None:
        # Entities can unpack to any size; CVAT writes none.
        raise DataError(f"{path}: declares entities, which CVAT does not")

    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DataError(f"{path}: not XML ({error})") from error
    merged: dict[tuple[str, object], tuple[str, list[Shape], str, tuple[int, int] | None]] = {}
    for image, label, key, shape, where, size in reader.found:
        merged.setdefault((image, key), (label, [], where, size))[1].append(shape)
    regions = [
        (image, Region(label, tuple(shapes), where, size))
        for (image, _), (label, shapes, where, size) in merged.items()
    ]
    return regions, reader.left_out


def _shape(tag: str, attributes: Mapping[str, str], where: str) -> Shape:
    def number(name: str) -> float:
        return float(attributes[name])

    degrees = float(attributes.get("rotation", 0))
    if tag == "box":
        return rectangle(number("xtl"), number("ytl"), number("xbr"), number("ybr"), where, degrees)
    if tag == "ellipse":
        return ellipse(number("cx"), number("cy"), number("rx"), number("ry"), where, degrees)
    if tag == "polygon":
        pairs = [corner.split(",") for corner in attributes["points"].split(";") if corner.strip()]
        return polygon([(float(x), float(y)) for x, y in pairs], where)
    left, top, width, height = (int(attributes[name]) for name in ("left", "top", "width", "height"))
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise DataError(f"{where}: a mask of {width} × {height} pixels")
    counts = tuple(int(count) for count in attributes["rle"].split(","))
    if min(counts) < 0 or sum(counts) > width * height:
        raise DataError(f"{where}: the run lengths make {sum(counts):,} pixels, the mask has {width * height:,}")
    # What is left at the end is not marked and need not be written.
    return Runs((*counts, *_rest(counts, width * height)), (left, top, width, height), by_columns=False)


def _rest(counts: tuple[int, ...], pixels: int) -> tuple[int, ...]:
    rest = pixels - sum(counts)
    if rest == 0:
        return ()
    return (rest,) if len(counts) % 2 == 0 else (0, rest)
