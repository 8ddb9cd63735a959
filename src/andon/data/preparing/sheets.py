"""Contact sheets: many images at a glance, each with a line of text, as one PNG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from andon._tools.files import written_atomically
from andon.core import BoolArray, ImageArray

__all__ = ["Tile", "contact_sheet", "outlined"]

_COLUMNS = 6
_SIDE, _CAPTION, _GAP, _TITLE = 220, 34, 10, 56
_INK, _MUTED, _PAPER = "#1b1f24", "#5a6472", "white"
_RED = (224, 40, 32)
_IN_ASCII = str.maketrans("–−×°…σ", "--x^.s")


class Tile(NamedTuple):
    """One image of a sheet.

    Attributes:
        image: RGB uint8 of any size.
        caption: up to two lines.
    """

    image: ImageArray
    caption: str


def contact_sheet(path: Path, title: str, note: str, tiles: Sequence[Tile], columns: int = _COLUMNS) -> Path:
    """Writes a sheet; the old one, if any, is replaced.

    Args:
        path: the PNG.
        title, note: the two lines above.
        tiles: from left to right, row by row.
        columns: at most so many side by side.
    """
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    width = max(2 * _GAP + 560, columns * (_SIDE + _GAP) + _GAP)
    sheet = Image.new("RGB", (width, _TITLE + rows * (_SIDE + _CAPTION + _GAP) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _text(draw, (_GAP, 8), title, 17, _INK)
    _text(draw, (_GAP, 32), note, 12, _MUTED)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left, top = _GAP + column * (_SIDE + _GAP), _TITLE + row * (_SIDE + _CAPTION + _GAP)
        small = Image.fromarray(tile.image)
        scale = _SIDE / max(small.size)
        small = small.resize((max(1, round(small.width * scale)), max(1, round(small.height * scale))))
        sheet.paste(small, (left + (_SIDE - small.width) // 2, top + (_SIDE - small.height) // 2))
        for line, text in enumerate(tile.caption.split("\n")[:2]):
            _text(draw, (left, top + _SIDE + 2 + 15 * line), _shortened(text), 12, _INK if line == 0 else _MUTED)
    with written_atomically(path, suffix=".png", durable=False) as aside:
        sheet.save(aside, format="PNG")
    return path


def outlined(image: ImageArray, masks: Iterable[BoolArray]) -> ImageArray:
    """The image with the edges of regions drawn in red, two pixels wide at a side of 400."""
    out = image.copy()
    reach = max(1, round(max(image.shape[:2]) / 400))
    for mask in masks:
        inside = mask.copy()
        for axis in (0, 1):
            for step in (-reach, reach):
                inside &= np.roll(mask, step, axis)
        out[mask & ~inside] = _RED
    return out


def _shortened(text: str, most: int = 34) -> str:
    return text if len(text) <= most else "..." + text[3 - most :]


def _text(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, colour: str) -> None:
    # Pillow's own font has ASCII alone.
    plain = text.translate(_IN_ASCII).encode("ascii", "replace").decode()
    draw.text(place, plain, fill=colour, font=ImageFont.load_default(size))
