"""COCO JSON: polygons and run lengths (https://github.com/cocodataset/cocoapi, common/maskApi.c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from andon.core import DataError
from andon.data.decode import MAX_PIXELS
from andon.data.preparing.shapes import Region, Runs, Shape, polygon, rectangle

__all__ = ["decompressed_counts", "read_coco"]


def read_coco(content: Mapping[str, Any], path: Path) -> tuple[list[tuple[str, Region]], list[str]]:
    """(image's file name, region) of every annotation, in order; all polygons of one annotation are one region.

    An annotation without a segmentation but with a box stands for the box.

    Raises:
        DataError: names the annotation.
    """
    try:
        names = {category["id"]: str(category["name"]) for category in content.get("categories", ())}
        images = {image["id"]: image for image in content["images"]}
        annotations: Sequence[Mapping[str, Any]] = content["annotations"]
        found: list[tuple[str, Region]] = []
        for annotation in annotations:
            where = f"{path}: annotation {annotation.get('id', len(found) + 1)}"
            image = images.get(annotation["image_id"])
            if image is None:
                raise DataError(f"{where}: is of image {annotation['image_id']}, which is not among the images")
            category = names.get(annotation["category_id"])
            if category is None:
                raise DataError(f"{where}: category {annotation['category_id']} is not among the categories")
            size = (int(image["height"]), int(image["width"])) if "height" in image and "width" in image else None
            shapes = tuple(_shapes(annotation, where))
            found.append((str(image["file_name"]), Region(category, shapes, where, size)))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not COCO JSON as it should be ({_what(error)})") from error
    return found, []


def _what(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _shapes(annotation: Mapping[str, Any], where: str) -> list[Shape]:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, Mapping):
        return [_runs(segmentation, where)]
    if segmentation:
        shapes: list[Shape] = []
        for flat in segmentation:
            if len(flat) % 2:
                raise DataError(f"{where}: a polygon of {len(flat)} numbers; they come in pairs")
            shapes.append(polygon(list(zip(flat[::2], flat[1::2], strict=True)), where))
        return shapes
    box = annotation.get("bbox")
    if not box or len(box) != 4:
        raise DataError(f"{where}: has neither a segmentation nor a box")
    left, top, width, height = map(float, box)
    return [rectangle(left, top, left + width, top + height, where)]


def _runs(segmentation: Mapping[str, Any], where: str) -> Runs:
    height, width = (int(side) for side in segmentation["size"])
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise DataError(f"{where}: run lengths of an image of {width} × {height} pixels")
    counts = segmentation["counts"]
    runs = decompressed_counts(counts, where) if isinstance(counts, str) else tuple(int(count) for count in counts)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise DataError(f"{where}: the run lengths make {sum(runs):,} pixels, the image has {height * width:,}")
    return Runs(runs, (0, 0, width, height), by_columns=True)


def decompressed_counts(text: str, where: str) -> tuple[int, ...]:
    """Run lengths from COCO's compressed text.

    Each number is written in 5 bits a character from "0" on, the lowest first; bit 6 says that more follow, the fifth
    bit of the last is the sign; from the fourth number on it is the difference to the last but one.
    """
    counts: list[int] = []
    place = value = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or place > 12:
            raise DataError(f"{where}: the compressed run lengths are damaged")
        value |= (bits & 0x1F) << 5 * place
        place += 1
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << 5 * place
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        place = value = 0
    if place:
        raise DataError(f"{where}: the compressed run lengths end too early")
    return tuple(counts)
