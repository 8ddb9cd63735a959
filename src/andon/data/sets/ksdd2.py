"""KolektorSDD2 (Božič et al. 2021): surfaces of production items with defects of several kinds.

    train/10000.png, train/10000_GT.png, and the same in test

Every image has a label; an image whose label is black is good, so labels are read when the data set is opened. The
archive has one image twice, as "10301 (copy).png" and "10301_GT (copy).png": a copy that is the same file is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from andon._tools.parallel import ordered_map
from andon.core import GOOD, Category, DataError, Note, Sample, Split
from andon.data.files import WholeMaskReader, list_folder, make_samples, without_suffix
from andon.data.fingerprint import file_fingerprint
from andon.data.layout import Layout, ReadOptions
from andon.data.sets.ksdd import is_marked
from andon.data.truth import folder_named

__all__ = ["LAYOUT"]

_LABEL = "_gt"
_COPY = re.compile(r"(.+) \(copy(?: \d+)?\)", re.IGNORECASE)
_DEFECT = "defect"


def recognise(folder: Path) -> bool:
    halves = (folder_named(folder, "train"), folder_named(folder, "test"))
    return any(_is_label(name) for half in halves if half is not None for name in list_folder(half).images)


def _is_label(name: str) -> bool:
    return without_suffix(name).casefold().endswith(_LABEL)


def read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    samples: list[Sample] = []
    notes: list[Note] = []
    splits: tuple[Split, Split] = ("train", "test")
    for split in splits:
        half = folder_named(folder, split)
        if half is None:
            notes.append(Note("error", "missing-folder", folder, f"{folder}: there is no folder {split}"))
        else:
            samples += _half(half, split, notes)
    return Category(name, dataset, folder, tuple(samples), notes=tuple(notes), whole=True)


def _half(half: Path, split: Split, notes: list[Note]) -> list[Sample]:
    files = _without_copies(half, notes)
    labels = {without_suffix(name)[: -len(_LABEL)]: half / name for name in files if _is_label(name)}
    images = [name for name in files if not _is_label(name)]
    stems = {without_suffix(name) for name in images}
    for stem, path in labels.items():
        if stem not in stems:
            raise DataError(f"{path}: a label of no image")
    for name in images:
        if without_suffix(name) not in labels:
            raise DataError(f"{half / name}: has no label, so nobody knows whether it is good")
    marked = list(ordered_map(is_marked, [labels[without_suffix(name)] for name in images]))
    reader = WholeMaskReader()
    good = [name for name, defective in zip(images, marked, strict=True) if not defective]
    bad = [name for name, defective in zip(images, marked, strict=True) if defective]
    masks = {without_suffix(name): (labels[without_suffix(name)],) for name in bad}
    samples = make_samples(half, good, split, GOOD, reader)
    return samples + make_samples(half, bad, split, _DEFECT, reader, masks)


def _without_copies(half: Path, notes: list[Note]) -> list[str]:
    """The files of a folder but for copies of others in it; DataError where a copy is not the same file."""
    names = list_folder(half).images
    kept = []
    for name in names:
        found = _COPY.fullmatch(without_suffix(name))
        original = None if found is None else found[1] + name[len(without_suffix(name)) :]
        if original is None or original not in names:
            kept.append(name)
        elif file_fingerprint(half / name) == file_fingerprint(half / original):
            text = f"{half / name}: the same file as {original}, left out"
            notes.append(Note("info", "left-out", half / name, text))
        else:
            raise DataError(f"{half / name}: is called a copy of {original} but is another file; rename or remove it")
    return kept


LAYOUT = Layout(
    name="ksdd2",
    expects="train/10000.png, train/10000_GT.png and the same in test",
    recognise=recognise,
    read=read,
    rule="the owner's train and test; the defective images of train are neither learnt nor judged",
    published=True,
)
