"""Figures 1 to 4: images. From the store's galleries, and the data sets' folders where they can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from andon.benchmark import GalleryImage, published
from andon.core import AndonError, Category, Dataset, ImageArray, Sample
from andon.data import load_dataset
from andon.report.gallery import Gallery, GalleryRow, build_galleries, image_uri, mask_outline
from andon.report.results import DatasetResults, Row, plain
from andon.report.study.measured import short
from andon.report.study.parts import Part, Study

__all__ = ["Sheet", "Tile", "sample_sheets", "sheet_svg"]

_SIDE = 256
_UNREADABLE = (AndonError, OSError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Tile:
    """An image of a sheet.

    Attributes:
        caption: one or two short lines.
        size: (width, height) in its own units.
        layers: (data URI, (x, y, width, height)) from the back to the front; those after the first are heat maps.
        outline: SVG path of a mask in the image's units; "" for none.
        mask: whether the outline is shown filled, alone.
    """

    caption: str
    size: tuple[int, int]
    layers: tuple[tuple[str, tuple[float, float, float, float]], ...] = field(repr=False)
    outline: str = field(default="", repr=False)
    mask: bool = False


@dataclass(frozen=True)
class Sheet:
    """A sample sheet.

    Attributes:
        key: file name and anchor.
        title: its caption.
        groups: (heading, tiles).
        text: what the reader has to know.
        missing: why it is not there; "" where it is.
    """

    key: str
    title: str
    groups: tuple[tuple[str, tuple[Tile, ...]], ...] = ()
    text: str = ""
    missing: str = ""


def sample_sheets(study: Study, dataset: Dataset | None, others: Mapping[str, str | Path]) -> list[Sheet]:
    """Figures 1, 2, 3 and 4.

    Args:
        dataset: the main part's, where its folder can be read.
        others: folders of the public data sets of Table 1, by name.
    """
    return [_public(study, dataset, others), _categories(study, dataset), _heat_maps(study), _windows(study)]


def _tile(image: ImageArray, caption: str, outline: str = "") -> Tile:
    small = _at_most(image)
    height, width = small.shape[:2]
    return Tile(caption, (width, height), ((image_uri(small), (0, 0, width, height)),), outline)


def _at_most(image: ImageArray) -> ImageArray:
    scale = _SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


# Figures 1 and 2


def _public(study: Study, dataset: Dataset | None, others: Mapping[str, str | Path]) -> Sheet:
    key, title = "figure-1", "Samples of the public data sets"
    groups: list[tuple[str, tuple[Tile, ...]]] = []
    why: list[str] = []
    for name, folder in others.items():
        try:
            found = load_dataset(folder, name=name)
            groups.append((plain(name), _of_category(next(iter(found)))))
        except (*_UNREADABLE, StopIteration) as error:
            why.append(plain(f"{name}: {error or 'no category'}", 400))
    own = study.main if study.has_main else None
    if own is not None and dataset is not None and own.rows:
        category = dataset.categories.get(own.rows[0].category)
        tiles = _of_category(category) if category is not None else ()
        groups += [(plain(own.name), tiles)] if tiles else []
    named = {name.casefold() for name, tiles in groups if tiles} | ({"autovi"} if study.has_main else set())
    absent = [e.name for e in published.PUBLIC_DATASETS if e.name.casefold() not in named]
    text = f"A good and a defective image each. Not here, their images were not given: {', '.join(absent)}."
    if why:
        text += f" {'; '.join(why)}."
    if not groups:
        return Sheet(key, title, missing=f"no data set's folder can be read from here; {text[0].lower()}{text[1:]}")
    return Sheet(key, title, tuple(groups), text)


def _of_category(category: Category) -> tuple[Tile, ...]:
    """Its first good and its first defective test image."""
    chosen = [next((s for s in category.test if s.is_defective is d), None) for d in (False, True)]
    return tuple(_tile(s.image(), f"{short(category.name)}: {plain(s.defect_type)}") for s in chosen if s is not None)


def _categories(study: Study, dataset: Dataset | None) -> Sheet:
    key, title = "figure-2", "Good and defective images of every category"
    if why := study.missing("study"):
        return Sheet(key, title, missing=why)
    groups, empty = [], []
    for row in study.main.rows:
        tiles = _of_row(study, study.main, row, dataset)
        if tiles:
            groups.append((short(row.label), tiles))
        else:
            empty.append(row.label)
    text = f"Neither kept in the store nor readable from the folder: {', '.join(empty)}." if empty else ""
    if not groups:
        return Sheet(key, title, missing="no images were kept in the store, and the data set's folder cannot be read")
    return Sheet(key, title, tuple(groups), text)


def _of_row(study: Study, results: DatasetResults, row: Row, dataset: Dataset | None) -> tuple[Tile, ...]:
    """The first good image, then the first of every defect type."""
    category = None if dataset is None else dataset.categories.get(row.category)
    if category is not None:
        firsts: dict[str, Sample] = {}
        for sample in sorted(category.test, key=lambda s: s.is_defective):
            firsts.setdefault(sample.defect_type, sample)
        try:
            return tuple(_tile(s.image(), plain(name)) for name, s in firsts.items())
        except _UNREADABLE as error:
            study.problems.append(plain(str(error), 400))
    kept = _gallery(study, results, row)
    images: dict[str, GalleryImage] = {}
    for image in sorted(kept, key=lambda i: i.defect_type != "good"):
        images.setdefault(image.defect_type, image)
    return tuple(_tile(i.image, plain(name)) for name, i in images.items())


def _gallery(study: Study, results: DatasetResults, row: Row) -> list[GalleryImage]:
    try:
        return study.store.gallery(results.name, row.category, row.data_fingerprint)
    except _UNREADABLE as error:
        study.problems.append(plain(f"gallery of {row.label}: {error}", 400))
        return []


# Figure 3


def _heat_maps(study: Study) -> Sheet:
    key, title = "figure-3", "Heat maps of the methods"
    if why := study.missing("study"):
        return Sheet(key, title, missing=why)
    galleries = build_galleries(study.store, [study.main], study.problems)
    groups = [
        group
        for row in study.main.rows
        if (gallery := galleries.get(row.key)) is not None
        for group in _gallery_groups(row, gallery)
    ]
    if not groups:
        return Sheet(key, title, missing="no images or maps were kept (keep_maps of the plan)")
    without = _without_maps(study.main, galleries)
    text = (
        "The first test image of every defect type, and a good one. A method's heat maps of one category share one "
        "scale, from the lowest to the highest value of its maps there; maps lie on the part of the image that the "
        "method sees. Alarms: above the threshold at which 95 % of the good test images pass."
    )
    return Sheet(key, title, tuple(groups), text + (f" No maps: {', '.join(without)}." if without else ""))


def _without_maps(results: DatasetResults, galleries: Mapping[str, Gallery]) -> list[str]:
    shown = {column.key for gallery in galleries.values() for column in gallery.columns}
    return [column.label for column in results.columns if column.key not in shown]


def _gallery_groups(row: Row, gallery: Gallery) -> list[tuple[str, tuple[Tile, ...]]]:
    firsts: dict[str, GalleryRow] = {}
    for image in gallery.rows:
        firsts.setdefault(image.defect_type, image)
    return [(f"{short(row.label)}: {name}", _heat_tiles(gallery, image)) for name, image in firsts.items()]


def _heat_tiles(gallery: Gallery, image: GalleryRow) -> tuple[Tile, ...]:
    size, whole = (image.width, image.height), (0, 0, image.width, image.height)
    tiles = [Tile("image", size, ((image.uri, whole),))]
    if image.outline:
        tiles.append(Tile("mask", size, (), image.outline, mask=True))
    for column, tile in zip(gallery.columns, image.tiles, strict=True):
        layers = ((image.uri, whole), *(((tile.uri, tile.box),) if tile.uri else ()))
        state = "" if tile.alarm is None else " alarms" if tile.alarm else " passes"
        words = f"{tile.caption}{state}".strip() or tile.note
        tiles.append(Tile(f"{column.label}\n{words}", size, layers, image.outline or ""))
    return tuple(tiles)


# Figure 4


def _windows(study: Study) -> Sheet:
    key, title = "figure-4", "Images before and after cropping"
    if why := study.missing("table12"):
        return Sheet(key, title, missing=why)
    part = study.parts["table12"]
    categories = dict.fromkeys(row.category for results in part.datasets for row in results.rows)
    groups = [(short(c), tiles) for c in categories if (tiles := _window_tiles(study, part, c))]
    if not groups:
        return Sheet(key, title, missing="no images of the windows were kept in the store")
    text = "One test image of each category, in the windows of Table 12 (width × height), scaled to one size."
    return Sheet(key, title, tuple(groups), text)


def _window_tiles(study: Study, part: Part, category: str) -> tuple[Tile, ...]:
    kept: list[tuple[str, dict[str, GalleryImage]]] = []
    whole = None
    for results in part.datasets:
        for row in results.rows:
            if row.category == category:
                images = {i.sample_id: i for i in _gallery(study, results, row)}
                size = study.window(results)
                if images:
                    largest = next(iter(images.values())).size
                    name = f"{size[0]}×{size[1]}" if size else f"whole image, {largest[1]}×{largest[0]}"
                    kept.append((name, images))
                whole = whole or study.dataset(results)
    if not kept:
        return ()
    common = [i for i in kept[0][1] if all(i in images for _, images in kept)]
    defective = [i for i in common if kept[0][1][i].defect_type != "good"]
    chosen = (defective or common or list(kept[0][1]))[0]
    tiles = [_whole(whole, category, chosen)] if whole is not None else []
    kept.sort(key=lambda entry: -max(i.size[0] * i.size[1] for i in entry[1].values()))
    tiles += [_window_tile(name, images[chosen]) for name, images in kept if chosen in images]
    return tuple(tile for tile in tiles if tile is not None)


def _window_tile(name: str, image: GalleryImage) -> Tile:
    # The outline is in the pixels of the gallery's image, so that image stays as large as it is.
    height, width = image.image.shape[:2]
    outline = mask_outline(image.mask) if image.mask is not None else ""
    return Tile(name, (width, height), ((image_uri(image.image), (0, 0, width, height)),), outline)


def _whole(dataset: Dataset, category: str, sample_id: str) -> Tile | None:
    found = dataset.categories.get(category)
    sample = None if found is None else next((s for s in found.samples if s.id == sample_id), None)
    if sample is None:
        return None
    try:
        image = sample.image()
    except _UNREADABLE:
        return None
    return _tile(image, f"as on disk, {image.shape[1]}×{image.shape[0]}")


# As a file


def sheet_svg(sheet: Sheet, across: int = 8) -> str:
    """A sheet as one SVG, ``across`` tiles a line."""
    side, gap, line = 120.0, 10.0, 13.0
    width = across * (side + gap) - gap
    parts, y = [], 0.0
    for heading, tiles in sheet.groups:
        parts.append(
            f'<text x="0" y="{y + 14:g}" font-size="13" font-weight="600" fill="#000">{escape(heading)}</text>'
        )
        y += 22
        for start in range(0, len(tiles), across):
            chosen = tiles[start : start + across]
            high = max(side * t.size[1] / t.size[0] for t in chosen)
            for number, tile in enumerate(chosen):
                parts.append(_tile_svg(tile, number * (side + gap), y, side))
                for index, words in enumerate(tile.caption.split("\n")):
                    parts.append(
                        f'<text x="{number * (side + gap):g}" y="{y + high + line * (index + 1):g}" font-size="10" '
                        f'fill="#333">{escape(words[:24])}</text>'
                    )
            y += high + line * max(t.caption.count("\n") + 1 for t in chosen) + gap
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {y:.0f}" width="{width:g}" height="{y:.0f}" font-family="sans-serif">'
        f"{''.join(parts)}</svg>"
    )


def _tile_svg(tile: Tile, x: float, y: float, side: float) -> str:
    scale = side / tile.size[0]
    layers = "".join(
        f'<image x="{b[0]:g}" y="{b[1]:g}" width="{b[2]:g}" height="{b[3]:g}" preserveAspectRatio="none" '
        f'opacity="{0.7 if index else 1:g}" xlink:href="{uri}"/>'
        for index, (uri, b) in enumerate(tile.layers)
    )
    if tile.mask:
        layers = f'<rect width="{tile.size[0]}" height="{tile.size[1]}" fill="#000"/>'
    style = 'fill="#fff"' if tile.mask else f'fill="none" stroke="#fff" stroke-width="{1.2 / scale:.3g}"'
    outline = f'<path d="{tile.outline}" fill-rule="evenodd" {style}/>' if tile.outline else ""
    return f'<g transform="translate({x:g} {y:g}) scale({scale:.5g})">{layers}{outline}</g>'
