"""Files in the folders of a data set that nobody reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from andon._tools.parallel import ordered_map
from andon.core import AndonError, Category, Dataset, Note, listed
from andon.data.decode import read_mask
from andon.data.files import IMAGE_SUFFIXES, Listing, list_folder, natural_key, suffix_of, unread_images, without_suffix
from andon.data.truth import called_masks, is_good, is_truth_folder

__all__ = ["stray", "stray_at_root"]

_CONFIG = "defects_config.json"
_DOCUMENTS = frozenset(
    str.split(
        ".txt .md .rst .json .jsonl .yaml .yml .csv .tsv .xml .html .htm .pdf .log .ini .cfg .toml .doc .docx .xls "
        ".xlsx .ods .odt .py .sh .bat .db .sqlite .bib .sha256 .md5 .license .url .lnk"
    )
)
"""What lies beside images without being one."""

_EXAMPLES = frozenset({"defect_example.png"})
"""What the owners of AutoVI put beside each category, to look at."""

_MOST_BESIDE = 10_000
"""Folders beside the categories that are looked into, of each."""


def stray(category: Category) -> Iterator[Note]:
    """Files in the category's folder that nobody reads, one record a folder and kind."""
    known = {path for sample in category.samples for path in (sample.path, *sample.mask_paths)}
    for folder in _folders(category.root):
        listing = list_folder(folder)
        inside = tuple(part.casefold() for part in folder.relative_to(category.root).parts)
        unread = [name for name in listing.images if folder / name not in known]
        masks = set(unread) if any(map(is_truth_folder, inside)) else called_masks(listing)
        yield from _stray_masks(folder, [name for name in unread if name in masks])
        images = [name for name in unread if name not in masks and (inside or name.casefold() not in _EXAMPLES)]
        if images and _for_training(inside):
            text = f"{folder}: {_files(images, 'image')} for training not read, they belong into train/good: "
            yield Note("error", "unread-training-image", folder, text + listed(images))
        elif images:
            text = f"{folder}: {_files(images, 'image')} not read, the layout has no place for them: {listed(images)}"
            yield Note("warning", "unread-image", folder, text)
        yield from _stray_others(listing, inside)
        if not (listing.images or listing.folders or listing.others):
            yield Note("info", "empty-folder", folder, f"{folder}: an empty folder")


def _for_training(inside: tuple[str, ...]) -> bool:
    """Whether a folder of the category holds images for training, or is where somebody would put them."""
    return inside == ("train",) or inside[:2] == ("train", "good") or (bool(inside) and is_good(inside[0]))


def _stray_masks(folder: Path, names: list[str]) -> Iterator[Note]:
    """Masks that no defective image takes: black ones (of good images) say nothing, others are without an image."""
    if not names:
        return
    marks = list(ordered_map(_marks, [folder / name for name in names]))
    marked = [name for name, marking in zip(names, marks, strict=True) if marking]
    black = [name for name, marking in zip(names, marks, strict=True) if not marking]
    if marked:
        text = f"{folder}: {_files(marked, 'mask')} of no defective image: {listed(marked)}"
        yield Note("error", "mask-without-image", folder, text)
    if black:
        text = f"{folder}: {_files(black, 'mask')} not used, black and of no defective image: {listed(black)}"
        yield Note("info", "unused-mask", folder, text)


def _marks(path: Path) -> bool:
    """Whether a mask marks anything; so counts one that cannot be read."""
    try:
        return bool(read_mask(path, any_value=True).any())
    except AndonError:
        return True


def _stray_others(listing: Listing, inside: tuple[str, ...]) -> Iterator[Note]:
    """Files that are no images by their names, or images of a kind that is not read."""
    folder = listing.folder
    others = [name for name in listing.others if name.casefold() != _CONFIG or inside]
    copies = {without_suffix(name).casefold() for name in listing.images}
    unread = list(unread_images(listing)) if inside else []
    if _for_training(inside):
        unread = [
            name
            for name in others
            if suffix_of(name) not in _DOCUMENTS and without_suffix(name).casefold() not in copies
        ]
    if unread:
        suffixes = ", ".join(sorted({suffix_of(name) or "no suffix" for name in unread}))
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        text = f"{folder}: {_files(unread, 'file')} of a kind that is not read, {suffixes} ({listed(unread)}); "
        kind = "unread-training-file" if _for_training(inside) else "unread-kind"
        yield Note("error", kind, folder, f"{text}convert to PNG or remove; these are read: {kinds}")
    known = set(unread)
    rest = [name for name in others if name not in known]
    if rest:
        yield Note("info", "no-image", folder, f"{folder}: {_files(rest, 'file')} no image: {listed(rest)}")


def _files(names: list[str], what: str) -> str:
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'}"


def stray_at_root(dataset: Dataset) -> Iterator[Note]:
    """Folders beside the categories that hold images, but are no category."""
    roots = {category.root for category in dataset}
    if dataset.root in roots:
        return
    for name in list_folder(dataset.root).folders:
        folder = dataset.root / name
        if folder in roots:
            continue
        below = islice(_folders(folder), _MOST_BESIDE)  # a link may lead to a whole disk
        try:
            if any(list_folder(each).images for each in below):
                text = f"{folder}: has images, but is no category of this layout or was not asked for"
                yield Note("info", "no-category", folder, text)
        except AndonError as error:
            yield Note("info", "no-category", folder, f"{folder}: no category, nor could it be: {error}")


def _folders(root: Path) -> Iterator[Path]:
    """A folder and all below it, in natural order; links are not followed."""
    for folder, names, _ in os.walk(root):
        names[:] = sorted((name for name in names if not name.startswith(".")), key=natural_key)
        yield Path(folder)
