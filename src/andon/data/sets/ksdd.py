"""KolektorSDD (Tabernik et al. 2020): commutators, eight parts of the surface each, one of which has a crack.

    kos01/Part0.jpg, kos01/Part0_label.bmp, …, kos50/Part7_label.bmp

Every image has a label; an image whose label is black is good, so labels are read when the data set is opened.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from andon._tools.parallel import ordered_map
from andon.core import GOOD, Category, DataError, Note, Sample
from andon.data.decode import read_mask
from andon.data.files import WholeMaskReader, list_folder, make_samples, without_suffix
from andon.data.layout import Layout, ReadOptions
from andon.data.sets._common import LABEL, first_share, label_images, unread

__all__ = ["LAYOUT", "is_marked"]

_ITEM = re.compile(r"kos\d+", re.IGNORECASE)
_DEFECT = "crack"


def is_marked(path: Path) -> bool:
    """Whether a label marks any pixel; DataError where it cannot be read."""
    return bool(np.any(read_mask(path, any_value=True)))


def _items(folder: Path) -> list[str]:
    return [name for name in list_folder(folder).folders if _ITEM.fullmatch(name)]


def recognise(folder: Path) -> bool:
    return any(label_images(folder / item) for item in _items(folder)[:3])


def read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    items = _items(folder)
    n_train = first_share(len(items), options.train_fraction)
    found: list[tuple[int, Path, Path]] = []
    for number, item in enumerate(items):
        labels = label_images(folder / item)
        for file in list_folder(folder / item).images:
            stem = without_suffix(file).casefold()
            if stem.endswith(LABEL):
                continue
            if stem not in labels:
                raise DataError(f"{folder / item / file}: has no label, so nobody knows whether it is good")
            found.append((number, folder / item / file, labels.pop(stem)))
        for path in labels.values():
            raise DataError(f"{path}: a label of no image")
    marked = list(ordered_map(is_marked, [label for _, _, label in found]))
    reader = WholeMaskReader()
    good: list[Sample] = []
    held: list[Sample] = []
    bad: list[Sample] = []
    for (number, path, label), defective in zip(found, marked, strict=True):
        place = f"{path.parent.name}/"
        if defective:
            masks = {without_suffix(path.name): (label,)}
            bad += make_samples(path.parent, [path.name], "test", _DEFECT, reader, masks, prefix=place)
        elif number < n_train:
            good += make_samples(path.parent, [path.name], "train", GOOD, reader, prefix=place)
        else:
            held += make_samples(path.parent, [path.name], "test", GOOD, reader, prefix=place)
    known = {path for _, *both in found for path in both}
    notes: tuple[Note, ...] = unread(folder, known)
    return Category(name, dataset, folder, (*good, *held, *bad), notes=notes, whole=True)


LAYOUT = Layout(
    name="ksdd",
    expects="kos01/Part0.jpg and kos01/Part0_label.bmp",
    recognise=recognise,
    read=read,
    rule=(
        "the owner has folds, but no split in the archive: the good parts of the first four fifths of the commutators, "
        "in the order of their names, are for training, those of the rest and all defective ones for testing"
    ),
    published=True,
)
