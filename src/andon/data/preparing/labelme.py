"""labelme JSON: one file an image (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from andon.core import DataError
from andon.data.decode import decode_image
from andon.data.preparing.shapes import Patch, Region, Shape, ellipse, polygon, rectangle

__all__ = ["is_labelme", "read_labelme"]

_NO_AREA = ("point", "points", "line", "linestrip")


def is_labelme(content: object) -> bool:
    """Whether a JSON value is a labelme file's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read_labelme(content: Any, path: Path) -> tuple[list[tuple[str, Region]], list[str]]:
    """(image's file name, region) in order, and what is no area.

    Shapes with the same label and group number are one region; the image is the one that ``imagePath`` names.

    Raises:
        DataError: names the shape.
    """
    regions: dict[object, tuple[str, list[Shape], str]] = {}
    left_out = []
    try:
        height, width = content.get("imageHeight"), content.get("imageWidth")
        size = (int(height), int(width)) if height and width else None
        # The folder is the annotator's own machine's; names alone are compared.
        name = str(content["imagePath"]).replace("\\", "/").rpartition("/")[2]
        for number, shape in enumerate(content["shapes"], start=1):
            where = f"{path}: shape {number} ({shape['label']})"
            kind = shape.get("shape_type") or "polygon"
            if kind in _NO_AREA:
                left_out.append(f"{where}: a {kind} is no area")
                continue
            group = shape.get("group_id")
            key: object = number if group is None else (shape["label"], group)
            regions.setdefault(key, (str(shape["label"]), [], where))[1].append(_shape(shape, kind, where))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not a labelme file as it should be ({error})") from error
    return [(name, Region(label, tuple(shapes), where, size)) for label, shapes, where in regions.values()], left_out


def _shape(shape: Mapping[str, Any], kind: str, where: str) -> Shape:
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if kind in ("polygon", "oriented_rectangle"):
        return polygon(points, where)
    if len(points) != 2:
        raise DataError(f"{where}: a {kind} has 2 points, not {len(points)}")
    (x0, y0), (x1, y1) = points
    if kind == "rectangle":
        return rectangle(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1), where)
    if kind == "circle":
        radius = math.hypot(x1 - x0, y1 - y0)
        return ellipse(x0, y0, radius, radius, where)
    if kind == "mask":
        left, top = (round(min(pair)) for pair in ((x0, x1), (y0, y1)))
        return Patch(_mask(shape["mask"], where), left, top)
    raise DataError(f"{where}: shapes of type {kind!r} are not read")


def _mask(text: str, where: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """A PNG in base64 whose pixels are 0 and 1 (or 255)."""
    try:
        data = base64.b64decode(text, validate=False)
    except ValueError as error:
        raise DataError(f"{where}: the mask is not base64 ({error})") from error
    return np.asarray(decode_image(data, f"{where}: mask").max(axis=2) > 0)
