"""The layout of MVTec AD (Bergmann et al. 2019).

    <category>/train/good/*.png
    <category>/validation/good/*.png                         where there is one: neither learnt nor judged
    <category>/test/good/*.png
    <category>/test/<defect type>/*.png
    <category>/ground_truth/<defect type>/<image>_mask.png     or <image>.png

A mask is one channel, all its positive pixels, and counts as found whole when all of it is found (saturation = area).
Masks may be called otherwise ("masks", "gt", "labels", or beside their images; see ``andon.data.truth``) as long as
each fits one image; case decides nothing.
"""

from __future__ import annotations

from pathlib import Path

from andon.core import GOOD, Category, Sample, SampleReader, Split
from andon.data.files import WholeMaskReader, list_folder, make_samples, refuse_unread, without_suffix
from andon.data.layout import Layout, ReadOptions
from andon.data.truth import Kind, assign_masks, folder_named, is_good, sidecars, split_truth, truth_folders

__all__ = ["LAYOUT", "good_samples", "training_samples"]


def recognise(folder: Path) -> bool:
    train = folder_named(folder, "train")
    if train is not None and folder_named(train, GOOD) is not None:
        return True
    return folder_named(folder, "test") is not None and folder_named(folder, GOOD) is None


def read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    reader = WholeMaskReader()
    samples = training_samples(folder, reader) + good_samples(folder, "validation", reader)
    test = folder_named(folder, "test")
    names, truth = ([], []) if test is None else split_truth(test, list_folder(test).folders)
    kinds = [] if test is None else [Kind(test / kind, deep=False) for kind in names]
    unsure = [] if test is None else [test / kind for kind in truth]
    masks = assign_masks(kinds, sure=truth_folders(folder), unsure=unsure)
    for kind in kinds:
        (listing,) = kind.listings
        images = kind.names(listing)
        own = {without_suffix(n): (masks[kind.folder / n],) for n in images if kind.folder / n in masks}
        defect_type = GOOD if is_good(kind.name) else kind.name
        samples += make_samples(kind.folder, images, "test", defect_type, reader, own)
    return Category(name, dataset, folder, tuple(samples))


def training_samples(folder: Path, reader: SampleReader) -> list[Sample]:
    """The samples of ``train/good``."""
    return good_samples(folder, "train", reader)


def good_samples(folder: Path, split: Split, reader: SampleReader) -> list[Sample]:
    """The samples of ``<split>/good``; masks of good images that lie among them are no images."""
    half = folder_named(folder, split)
    good = None if half is None else folder_named(half, GOOD)
    if good is None:
        return []
    listing = list_folder(good)
    refuse_unread(listing)
    beside = sidecars(listing)
    return make_samples(good, [n for n in listing.images if n not in beside], split, GOOD, reader)


LAYOUT = Layout(
    name="mvtec",
    expects="train/good/*.png, test/<defect>/*.png and ground_truth/<defect>/<image>_mask.png",
    recognise=recognise,
    read=read,
    rule="as the folders are called: train, validation where there is one, and test",
)
