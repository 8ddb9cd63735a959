"""An image (PNG) of a benchmark at a glance, for a README or a slide: headline figures and a strip of the gallery."""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from andon.benchmark import Store
from andon.core import StoreError
from andon.report.gallery import Gallery, GalleryRow, build_galleries
from andon.report.results import DatasetResults, collect, plain
from andon.report.tables import Table, build_tables, random_weights, shortened_training
from andon.report.write import write_bytes

__all__ = ["write_image"]

_WIDTH = 11.0
_IN_ASCII = str.maketrans("–−×", "--x")
_INK, _MUTED, _LINE, _BAD = "#1b1f24", "#5a6472", "#dfe3e8", "#b3261e"


def write_image(store: Store, path: str | Path, *, task: str | None = None, dpi: int = 160) -> Path:
    """Writes a PNG: AUROC and AUsPRO of a data set's methods, and for one task an image of each kind with its maps.

    Args:
        store: the benchmark's; its first data set is shown.
        path: the file.
        task: whose gallery; the first that has one otherwise.

    Raises:
        StoreError: nothing has finished in the store, no such task, or the file cannot be written.
    """
    results = collect(store)
    dataset = results.datasets[0]
    if task is not None and task not in [row.category for row in dataset.rows]:
        raise StoreError(
            f"data set {dataset.name} has no task {task!r}; it has: {', '.join(r.label for r in dataset.rows)}"
        )
    tables = [
        t for t in build_tables(results) if t.dataset_key == dataset.name and t.name.endswith(("auroc", "auspro"))
    ]
    galleries = build_galleries(store, [dataset], [])
    chosen = next((r for r in dataset.rows if r.key in galleries and task in (None, r.category)), None)
    sheet = _draw(dataset, tables, galleries[chosen.key] if chosen else None, chosen.label if chosen else "", dpi)
    buffer = io.BytesIO()
    sheet.image.save(buffer, "PNG", dpi=(dpi, dpi))
    return write_bytes(Path(path), buffer.getvalue())


class _Sheet:
    """A white sheet to draw on; places in inches from the top left, sizes of text in points."""

    def __init__(self, height: float, dpi: int) -> None:
        self._dpi = dpi
        self.image = Image.new("RGB", (self._pixels(_WIDTH), self._pixels(height)), "white")
        self._draw = ImageDraw.Draw(self.image)

    def _pixels(self, inches: float) -> int:
        return max(1, round(inches * self._dpi))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        points: float,
        *,
        colour: str = _INK,
        bold: bool = False,
        right: bool = False,
    ) -> None:
        """A line of text, its middle at the height ``y``; ``right``: it ends at ``x``."""
        font, plainest = _font(points * self._dpi / 72, bold)
        if plainest:
            text = text.translate(_IN_ASCII)
        place, stroke = (x * self._dpi, y * self._dpi), 0.35 if plainest and bold else 0
        anchor = "rm" if right else "lm"
        self._draw.text(place, text, fill=colour, font=font, anchor=anchor, stroke_width=stroke)

    def rule(self, left: float, right: float, y: float, colour: str) -> None:
        """A horizontal line."""
        width = max(1, round(0.01 * self._dpi))
        self._draw.line([(left * self._dpi, y * self._dpi), (right * self._dpi, y * self._dpi)], colour, width)

    def put_image(self, left: float, top: float, width: float, height: float, pixels: npt.NDArray[np.uint8]) -> None:
        """An image RGB uint8 ``[H, W, 3]`` that fills a rectangle."""
        size = (self._pixels(width), self._pixels(height))
        place = (round(left * self._dpi), round(top * self._dpi))
        self.image.paste(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), place)


@cache
def _font(pixels: float, bold: bool) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, bool]:
    """A font of this machine that has most languages' letters; without one Pillow's own, of ASCII alone, never bold.

    Returns:
        The font, and whether it is Pillow's.
    """
    for name in ("DejaVuSans-Bold.ttf", "arialbd.ttf") if bold else ("DejaVuSans.ttf", "arial.ttf"):
        try:
            return ImageFont.truetype(name, pixels), False
        except OSError:
            continue
    return ImageFont.load_default(pixels), True


def _draw(dataset: DatasetResults, tables: list[Table], gallery: Gallery | None, task: str, dpi: int) -> _Sheet:
    shown = _one_of_each(gallery) if gallery else []
    columns = 2 + (len(gallery.columns) if gallery else 0)
    cell = min(1.75, (_WIDTH - 0.6) / columns)
    heights = [cell * row.height / row.width + 0.12 for row in shown]
    lines = [len(t.groups[0].rows) + 2.4 for t in tables]
    top = 0.75 + 0.26 * sum(lines)
    sheet = _Sheet(top + (0.3 + sum(heights) if shown else 0) + 0.2, dpi)
    sheet.text(0.3, 0.4, plain(dataset.name, 60), 15, bold=True)
    said = [
        ("random weights", random_weights(dataset.columns)),
        ("shortened training", shortened_training(dataset.columns)),
        ("without unreadable images", dataset.skipped),
    ]
    warnings = [f"{what}: {plain(named, 110)}" for what, named in said if named]
    for number, warning in enumerate(warnings):
        y = 0.4 + 0.14 * (number - (len(warnings) - 1) / 2)
        sheet.text(_WIDTH - 0.3, y, warning, 7.5, colour=_BAD, right=True)
    y = 0.75
    for table, count in zip(tables, lines, strict=True):
        _table(sheet, table, y)
        y += 0.26 * count
    if gallery and shown:
        _strip(sheet, gallery, shown, task, y + 0.1, cell)
    return sheet


def _table(sheet: _Sheet, table: Table, y: float) -> None:
    group = table.groups[0]
    step = min(1.6, (_WIDTH - 3.2) / len(table.columns))
    rights = [3.2 + step * (i + 1) - 0.2 for i in range(len(table.columns))]
    sheet.text(0.3, y + 0.13, group.metric.title + " (%)", 9, bold=True)
    for right, label in zip(rights, table.columns, strict=True):
        sheet.text(right, y + 0.13, plain(label, 18), 9, bold=True, right=True)
    for number, row in enumerate(group.rows):
        line = y + 0.26 * (number + 1)
        sheet.rule(0.3, rights[-1], line, _INK if row.is_mean else _LINE)
        sheet.text(0.3, line + 0.13, plain(row.label, 34), 9)
        for right, found in zip(rights, row.cells, strict=True):
            text = f"{found.text} ({found.mark})" if found.mark else found.text
            colour = _INK if found.summary else _MUTED
            sheet.text(right, line + 0.13, text, 9, colour=colour, bold=found.best, right=True)


def _one_of_each(gallery: Gallery) -> list[GalleryRow]:
    """The first image of each of up to three kinds of defect, and a good one."""
    first: dict[str, GalleryRow] = {}
    for row in gallery.rows:
        first.setdefault(row.defect_type, row)
    defective = [row for row in first.values() if not row.good][:3]
    return defective + [row for row in first.values() if row.good][:1]


def _strip(sheet: _Sheet, gallery: Gallery, rows: list[GalleryRow], task: str, y: float, cell: float) -> None:
    heads = [plain(task, 24), "mask", *(plain(c.label, 18) for c in gallery.columns)]
    for i, head in enumerate(heads):
        sheet.text(0.3 + i * cell, y, head, 8.5, bold=True)
    y += 0.15
    width = cell - 0.1
    for row in rows:
        height = width * row.height / row.width
        images = [_pixels(row.uri), _mask(row), *(_over(row, number) for number in range(len(gallery.columns)))]
        for i, image in enumerate(images):
            sheet.put_image(0.3 + i * cell, y, width, height, image)
        sheet.text(0.34, y + height + 0.08, plain(row.defect_type, 24), 6.5, colour=_MUTED)
        y += cell * row.height / row.width + 0.12


def _pixels(uri: str) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def _mask(row: GalleryRow) -> npt.NDArray[np.uint8]:
    out = np.zeros((row.height, row.width, 3), dtype=np.uint8)
    if row.mask is None:
        out[:] = 235
    else:
        out[row.mask] = 255
    return out


def _over(row: GalleryRow, number: int) -> npt.NDArray[Any]:
    """The heat map at three quarters over the image, where it lies; the image alone without a map."""
    size = (row.width, row.height)
    image = np.asarray(Image.fromarray(_pixels(row.uri)).resize(size), dtype=np.float32)
    tile = row.tiles[number]
    if not tile.uri:
        return image.astype(np.uint8)
    x, y, width, height = (round(v) for v in tile.box)
    heat = Image.fromarray(_pixels(tile.uri)).resize((max(1, width), max(1, height)), Image.Resampling.BILINEAR)
    part = image[y : y + heat.height, x : x + heat.width]
    part[:] = 0.25 * part + 0.75 * np.asarray(heat, dtype=np.float32)[: part.shape[0], : part.shape[1]]
    return image.round().astype(np.uint8)
