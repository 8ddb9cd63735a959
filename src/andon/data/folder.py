"""A plain folder of images, sorted by hand.

    <folder>/good/**/*.png                           good images
    <folder>/<anything else>/**/*.png                defective ones; the folder's name is the defect type
    <folder>/ground_truth/<defect type>/**/<image>.png or <image>_mask.png     masks, optional
    <folder>/<defect type>/**/<image>_mask.png     masks beside their images, optional as well

or a folder with images directly in it: all of them good. Folders below are searched too. Masks may be called otherwise
("masks", "gt", "labels"; see ``andon.data.truth``) as long as each fits one image; case decides nothing.

There is no split in such a folder, so one is made: in the order of the names, which is mostly the order in time, the
first ``train_fraction`` of the good images are for training and the rest for testing (images taken close after each
other look alike: a random split would flatter), one at least for each where there are two. Where nothing is defective
all good images are for training.
A mask is read as in the MVTec layout: one channel, saturation = area.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from andon.core import GOOD, Category, DataError, Sample, Split
from andon.data.files import WholeMaskReader, list_folder, make_samples, refuse_unread, without_suffix
from andon.data.layout import Layout, ReadOptions, checked_fraction
from andon.data.truth import Kind, assign_masks, folder_named, is_good, sidecars, split_truth, walk

__all__ = ["LAYOUT", "has_images"]


def recognise(folder: Path) -> bool:
    return folder_named(folder, GOOD) is not None


def has_images(folder: Path) -> bool:
    """Whether images lie directly in a folder."""
    return bool(list_folder(folder).images)


def read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    fraction = checked_fraction(options.train_fraction)
    names, truth = split_truth(folder, list_folder(folder).folders)
    if not any(map(is_good, names)):
        return Category(name, dataset, folder, tuple(_only_good(folder, names, truth)))
    kinds = [Kind(folder / kind, deep=True) for kind in names]
    masks = assign_masks(kinds, sure=(), unsure=[folder / kind for kind in truth])
    good: list[Sample] = []
    defective: list[Sample] = []
    for kind in kinds:
        if is_good(kind.name):
            for listing in kind.listings:
                refuse_unread(listing)
            good = _samples(kind, "train", GOOD, {})
        else:
            defective += _samples(kind, "test", kind.name, masks)
    n_train = _training_images(len(good), fraction) if defective else len(good)
    tested = [replace(s, split="test", id="test" + s.id.removeprefix("train")) for s in good[n_train:]]
    return Category(name, dataset, folder, (*good[:n_train], *tested, *defective))


def _training_images(n_good: int, fraction: float) -> int:
    """How many of the good images are for training; without a good one in the test nothing can be compared."""
    wanted = math.ceil(fraction * n_good)
    return min(wanted, n_good - 1) if fraction < 1 and n_good > 1 else wanted


def _only_good(folder: Path, names: Sequence[str], truth: Sequence[str]) -> list[Sample]:
    """Images directly in a folder, where nothing says that any is defective."""
    top = list_folder(folder)
    refuse_unread(top)
    for kind in names:
        if any(listing.images for listing in walk(folder / kind)):
            raise DataError(
                f"{folder}: images lie directly in it and in {kind}/ as well; "
                "move the good ones into a folder named good"
            )
    beside = next(iter(sidecars(top)), None)
    masks = next((f"{kind}/" for kind in truth if any(listing.images for listing in walk(folder / kind))), beside)
    if masks is not None and top.images:
        raise DataError(
            f"{folder}: images lie directly in it, all of them good, but {masks} holds masks; move the good images "
            "into a folder named good, and the defective ones into one named after their defect"
        )
    return make_samples(top.folder, top.images, "train", GOOD, WholeMaskReader())


def _samples(kind: Kind, split: Split, defect_type: str, masks: Mapping[Path, Path]) -> list[Sample]:
    reader = WholeMaskReader()
    samples: list[Sample] = []
    for listing in kind.listings:
        names = kind.names(listing)
        own = {without_suffix(n): (masks[listing.folder / n],) for n in names if listing.folder / n in masks}
        samples += make_samples(listing.folder, names, split, defect_type, reader, own, prefix=kind.below(listing))
    return samples


LAYOUT = Layout(
    name="folder",
    expects="good/*.png, <defect>/*.png (masks optional, in ground_truth/<defect>/); or good images directly in it",
    recognise=recognise,
    read=read,
    rule=(
        "there is no split: the first four fifths of the good images (train_fraction), in the order of their names, "
        "are for training where anything is defective, the rest for testing"
    ),
)
