"""A plain folder of images, sorted by hand.

    <folder>/good/**/*.png                           good images
    <folder>/<anything else>/**/*.png                defective ones; the folder's name is the defect type
    <folder>/ground_truth/<defect type>/**/<image>.png or <image>_mask.png     masks, optional
    <folder>/<defect type>/**/<image>_mask.png     masks beside their images, optional as well

or a folder with images directly in it: all of them good. Folders below are searched too.

There is no split in such a folder, so one is made: in the order of the names, which is mostly the order in time, the
first ``train_fraction`` of the good images are for training and the rest for testing (images taken close after each
other look alike: a random split would flatter). Where nothing is defective all good images are for training.
A mask is read as in the MVTec layout: one channel, saturation = area.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from andon.core import GOOD, AndonError, Category, Sample
from andon.data.files import Listing, WholeMaskReader, by_stem, list_folder, make_samples, without_suffix
from andon.data.layout import Layout, ReadOptions

__all__ = ["LAYOUT", "has_images"]

_TRUTH = "ground_truth"
_MASK = "_mask"
_MAX_DEPTH = 16  # a link to a folder above would be followed for ever


def recognise(folder: Path) -> bool:
    return (folder / GOOD).is_dir()


def has_images(folder: Path) -> bool:
    """Whether images lie directly in a folder."""
    return bool(list_folder(folder).images)


def read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    if not 0 < options.train_fraction <= 1:
        raise AndonError(f"train_fraction must be above 0 and at most 1, not {options.train_fraction}")
    top = list_folder(folder)
    if GOOD not in top.folders:
        with_images = [kind for kind in top.folders if kind != _TRUTH and any(p.images for p in _walk(folder / kind))]
        if with_images:
            raise AndonError(
                f"{folder}: images lie directly in it and in {with_images[0]}/ as well; "
                "move the good ones into a folder named good"
            )
        samples = _samples(folder, GOOD, [top])
        return Category(name, dataset, folder, tuple(samples))
    good = _samples(folder, GOOD, _walk(folder / GOOD))
    defective: list[Sample] = []
    for kind in top.folders:
        if kind not in (GOOD, _TRUTH):
            defective += _samples(folder, kind, _walk(folder / kind))
    n_train = math.ceil(options.train_fraction * len(good)) if defective else len(good)
    tested = [replace(s, split="test", id="test" + s.id.removeprefix("train")) for s in good[n_train:]]
    return Category(name, dataset, folder, (*good[:n_train], *tested, *defective))


def _samples(root: Path, kind: str, listings: Iterator[Listing] | list[Listing]) -> list[Sample]:
    reader = WholeMaskReader()
    samples: list[Sample] = []
    for listing in listings:
        beside = root if listing.folder == root else root / kind
        below = listing.folder.relative_to(beside)
        sidecars = _sidecars(listing)
        images = [image for image in listing.images if image not in sidecars]
        masks = by_stem(listing.folder, sorted(sidecars), ending=_MASK)
        truth = root / _TRUTH / kind / below
        for stem, path in by_stem(truth, list_folder(truth).images, ending=_MASK).items():
            if masks.setdefault(stem, path) != path:
                raise AndonError(f"{path}: {masks[stem]} is a mask of the same image; remove one")
        samples += make_samples(
            listing.folder,
            images,
            "train" if kind == GOOD else "test",
            kind,
            reader,
            {stem: (path,) for stem, path in masks.items()} if kind != GOOD else None,
            prefix="" if below == Path() else f"{below.as_posix()}/",
        )
    return samples


def _sidecars(listing: Listing) -> set[str]:
    """The images that are the mask of one beside them."""
    stems = {without_suffix(image): image for image in listing.images}
    return {name for stem, name in stems.items() if stem.endswith(_MASK) and stem.removesuffix(_MASK) in stems}


def _walk(folder: Path, depth: int = 0) -> Iterator[Listing]:
    """The listings of a folder and of all below it, in natural order."""
    if depth > _MAX_DEPTH:
        raise AndonError(f"{folder}: more than {_MAX_DEPTH} folders deep (a link to a folder above it?)")
    listing = list_folder(folder)
    yield listing
    for name in listing.folders:
        yield from _walk(folder / name, depth + 1)


LAYOUT = Layout(
    name="folder",
    expects="good/*.png, <defect>/*.png (masks optional, in ground_truth/<defect>/); or good images directly in it",
    recognise=recognise,
    read=read,
)
