"""An image (PNG) of a benchmark at a glance, for a README or a slide: headline figures and a strip of the gallery."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from andon.benchmark.store import Store
from andon.core import AndonError
from andon.report.gallery import Gallery, GalleryRow, build_galleries
from andon.report.results import DatasetResults, collect, plain
from andon.report.tables import Table, build_tables, random_weights, shortened_training
from andon.report.write import write_bytes

__all__ = ["write_image"]

_WIDTH = 11.0
_INK, _MUTED, _LINE, _BAD = "#1b1f24", "#5a6472", "#dfe3e8", "#b3261e"


def write_image(store: Store, path: str | Path, *, task: str | None = None, dpi: int = 160) -> Path:
    """Writes a PNG: AUROC and AUsPRO of a data set's methods, and for one task an image of each kind with its maps.

    Args:
        store: the benchmark's; its first data set is shown.
        path: the file.
        task: whose gallery; the first that has one otherwise.

    Raises:
        AndonError: nothing has finished in the store, no such task, or the file cannot be written.
    """
    results = collect(store)
    dataset = results.datasets[0]
    if task is not None and task not in [row.category for row in dataset.rows]:
        raise AndonError(
            f"data set {dataset.name} has no task {task!r}; it has: {', '.join(r.label for r in dataset.rows)}"
        )
    tables = [
        t for t in build_tables(results) if t.dataset_key == dataset.name and t.name.endswith(("auroc", "auspro"))
    ]
    galleries = build_galleries(store, [dataset], [])
    chosen = next((r for r in dataset.rows if r.key in galleries and task in (None, r.category)), None)
    buffer = io.BytesIO()
    with mpl.rc_context({"font.family": "sans-serif", "text.parse_math": False, "text.color": _INK}):
        figure = _draw(dataset, tables, galleries[chosen.key] if chosen else None, chosen.label if chosen else "")
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return write_bytes(Path(path), buffer.getvalue())


def _draw(dataset: DatasetResults, tables: list[Table], gallery: Gallery | None, task: str) -> Figure:
    shown = _one_of_each(gallery) if gallery else []
    columns = 2 + (len(gallery.columns) if gallery else 0)
    cell = min(1.75, (_WIDTH - 0.6) / columns)
    heights = [cell * row.height / row.width + 0.12 for row in shown]
    lines = [len(t.groups[0].rows) + 2.4 for t in tables]
    top = 0.75 + 0.26 * sum(lines)
    height = top + (0.3 + sum(heights) if shown else 0) + 0.2
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH), ylim=(height, 0))
    axes.axis("off")
    axes.text(0.3, 0.4, plain(dataset.name, 60), fontsize=15, fontweight="bold", va="center")
    said = [
        ("random weights", random_weights(dataset.columns)),
        ("shortened training", shortened_training(dataset.columns)),
    ]
    warning = "\n".join(f"{what}: {plain(named, 110)}" for what, named in said if named)
    if warning:
        axes.text(
            _WIDTH - 0.3,
            0.4,
            warning,
            fontsize=7.5,
            color=_BAD,
            ha="right",
            va="center",
        )
    y = 0.75
    for table, count in zip(tables, lines, strict=True):
        _table(axes, table, y)
        y += 0.26 * count
    if gallery and shown:
        _strip(figure, axes, gallery, shown, task, (y + 0.1, cell, height))
    return figure


def _table(axes: Axes, table: Table, y: float) -> None:
    group = table.groups[0]
    step = min(1.6, (_WIDTH - 3.2) / len(table.columns))
    rights = [3.2 + step * (i + 1) - 0.2 for i in range(len(table.columns))]
    axes.text(0.3, y + 0.13, group.metric.title + " (%)", fontsize=9, fontweight="bold", va="center")
    for right, label in zip(rights, table.columns, strict=True):
        axes.text(right, y + 0.13, plain(label, 18), fontsize=9, fontweight="bold", ha="right", va="center")
    for number, row in enumerate(group.rows):
        line = y + 0.26 * (number + 1)
        axes.plot((0.3, rights[-1]), (line, line), color=_INK if row.is_mean else _LINE, linewidth=0.7)
        axes.text(0.3, line + 0.13, plain(row.label, 34), fontsize=9, va="center")
        for right, found in zip(rights, row.cells, strict=True):
            text = f"{found.text} ({found.mark})" if found.mark else found.text
            weight = "bold" if found.best else "normal"
            colour = _INK if found.summary else _MUTED
            axes.text(right, line + 0.13, text, fontsize=9, fontweight=weight, color=colour, ha="right", va="center")


def _one_of_each(gallery: Gallery) -> list[GalleryRow]:
    """The first image of each of up to three kinds of defect, and a good one."""
    first: dict[str, GalleryRow] = {}
    for row in gallery.rows:
        first.setdefault(row.defect_type, row)
    defective = [row for row in first.values() if not row.good][:3]
    return defective + [row for row in first.values() if row.good][:1]


def _strip(
    figure: Figure, axes: Axes, gallery: Gallery, rows: list[GalleryRow], task: str, place: tuple[float, float, float]
) -> None:
    y, cell, height = place
    heads = [plain(task, 24), "mask", *(plain(c.label, 18) for c in gallery.columns)]
    for i, head in enumerate(heads):
        axes.text(0.3 + i * cell, y, head, fontsize=8.5, fontweight="bold", va="center")
    y += 0.15
    for row in rows:
        shape = row.height / row.width
        images = [_pixels(row.uri), _mask(row), *(_over(row, number) for number in range(len(gallery.columns)))]
        for i, image in enumerate(images):
            left, width = 0.3 + i * cell, cell - 0.1
            panel = figure.add_axes(
                (left / _WIDTH, 1 - (y + width * shape) / height, width / _WIDTH, width * shape / height)
            )
            panel.imshow(image, aspect="auto", interpolation="antialiased")
            panel.axis("off")
        caption = row.defect_type
        axes.text(0.34, y + (cell - 0.1) * shape + 0.035, plain(caption, 24), fontsize=6.5, color=_MUTED, va="top")
        y += cell * shape + 0.12


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
