"""Magnetic tiles (Huang, Qiu and Yuan 2020): six folders, images and masks side by side.

    MT_Free/Imgs/*.jpg, MT_Blowhole/Imgs/*.jpg, MT_Blowhole/Imgs/*.png, …

Masks have grey edges: a pixel is marked from 128 on. Images without a defect have black masks, which are not read.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from andon.core import GOOD, Category, DataError, Note, Sample, listed
from andon.data.decode import read_mask
from andon.data.files import WholeMaskReader, list_folder, make_samples, suffix_of, without_suffix
from andon.data.layout import Layout, ReadOptions
from andon.data.sets._common import first_share
from andon.data.truth import folder_named

__all__ = ["LAYOUT"]

_PREFIX = "mt_"
_FREE = "free"


@dataclass(frozen=True)
class GreyEdgeReader(WholeMaskReader):
    """Reads masks that are black and white but for their edges."""

    several_values: ClassVar[bool] = True

    def mask(self, path: Path) -> npt.NDArray[np.uint8]:
        return np.where(read_mask(path, any_value=True) >= 128, np.uint8(255), np.uint8(0))


def _kinds(folder: Path) -> dict[str, Path]:
    """Folders of images by defect ("blowhole"), "free" for the good ones."""
    found = {}
    for name in list_folder(folder).folders:
        key = name.casefold()
        images = folder_named(folder / name, "imgs") if key.startswith(_PREFIX) else None
        if images is not None:
            found[key.removeprefix(_PREFIX)] = images
    return found


def recognise(folder: Path) -> bool:
    return _FREE in _kinds(folder)


def read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    reader = GreyEdgeReader()
    notes: list[Note] = []
    samples: list[Sample] = []
    for kind, images in _kinds(folder).items():
        listing = list_folder(images)
        masks = {without_suffix(n): images / n for n in listing.images if suffix_of(n) == ".png"}
        shown = [n for n in listing.images if suffix_of(n) != ".png"]
        stems = {without_suffix(n) for n in shown}
        lost = [path.name for stem, path in masks.items() if stem not in stems]
        if lost:
            text = f"{images}: {len(lost)} masks of no image: {listed(lost)}"
            notes.append(Note("error", "mask-without-image", images, text))
        if kind != _FREE:
            own = {stem: (masks[stem],) for stem in stems if stem in masks}
            samples += make_samples(images, shown, "test", kind, reader, own)
            continue
        if not shown:
            raise DataError(f"{images}: has no images (*.jpg)")
        order = sorted(shown)
        random.Random(0).shuffle(order)
        train = set(order[: first_share(len(order), options.train_fraction)])
        samples += make_samples(images, [n for n in shown if n in train], "train", GOOD, reader)
        samples += make_samples(images, [n for n in shown if n not in train], "test", GOOD, reader)
    samples.sort(key=lambda sample: (sample.split != "train", sample.is_defective))
    return Category(name, dataset, folder, tuple(samples), notes=tuple(notes), whole=True)


LAYOUT = Layout(
    name="magnetic-tile",
    expects="MT_Free/Imgs/*.jpg, MT_Blowhole/Imgs/*.jpg and MT_Blowhole/Imgs/*.png",
    recognise=recognise,
    read=read,
    rule=(
        "the owner has no split: of the images without a defect, four fifths, drawn with seed 0, are for training, the "
        "rest and all with a defect for testing; frames of one stream may be in both"
    ),
    published=True,
)
