"""Severstal: Steel Defect Detection (Kaggle 2019): four kinds of defects of steel sheets.

    train.csv, train_images/*.jpg, test_images/*.jpg

``train.csv`` has a row for a class of an image: ImageId,ClassId,EncodedPixels, or, as it was first published,
ImageId_ClassId,EncodedPixels with a row for each of the four, empty where there is none. EncodedPixels are pairs of a
first pixel, from 1, and a length, down the columns. An image without any row has no defect. The masks of test_images
were never published.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from andon.core import GOOD, BoolArray, Category, Channel, DataError, Note, Sample, listed
from andon.data.drawn import DrawnReader
from andon.data.files import list_folder, make_samples, without_suffix
from andon.data.layout import Layout, ReadOptions
from andon.data.sets._common import csv_rows, file_named, lines_of, seeded_share
from andon.data.truth import folder_named

__all__ = ["LAYOUT", "run_lengths"]

_COLUMNS = ("ImageId", "ClassId", "EncodedPixels")
_FIRST_COLUMNS = ("ImageId_ClassId", "EncodedPixels")


@dataclass(frozen=True)
class RunLengthReader(DrawnReader):
    """Draws the rows of ``train.csv`` about one image, one channel each.

    Attributes:
        rows: (defect, pairs of first pixel and length).
    """

    rows: tuple[tuple[str, str], ...] = ()

    def channels(self, sample: Sample, size: tuple[int, int]) -> Iterator[Channel]:
        for defect, runs in self.rows:
            mask = run_lengths(runs, size, f"{sample.mask_paths[0]}: {sample.path.name}, {defect}")
            yield Channel(mask, defect, int(mask.sum()))


def run_lengths(runs: str, size: tuple[int, int], where: str) -> BoolArray:
    """bool ``[H, W]``: pixels of pairs "first length first length …", counted from 1 down the columns.

    Raises:
        DataError: no pairs of whole numbers, pixels outside of the image, or in two runs; ``where`` says whose.
    """
    try:
        numbers = [int(word) for word in runs.split()]
    except ValueError:
        raise DataError(f"{where}: the run lengths are no whole numbers ({runs!r:.60})") from None
    if not numbers or len(numbers) % 2:
        raise DataError(f"{where}: {len(numbers)} numbers are no pairs of a first pixel and a length")
    total = size[0] * size[1]
    flat = np.zeros(total, dtype=bool)
    for first, length in zip(numbers[::2], numbers[1::2], strict=True):
        if first < 1 or length < 1 or first - 1 + length > total:
            raise DataError(f"{where}: the run {first} {length} does not fit the image of {size[1]} × {size[0]}")
        if flat[first - 1 : first - 1 + length].any():
            raise DataError(f"{where}: the run {first} {length} has pixels of another one")
        flat[first - 1 : first - 1 + length] = True
    return np.ascontiguousarray(flat.reshape(size[1], size[0]).T)


def _table(folder: Path) -> Path | None:
    return file_named(folder, "train.csv")


def recognise(folder: Path) -> bool:
    return folder_named(folder, "train_images") is not None and _table(folder) is not None


def read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    table, images = _table(folder), folder_named(folder, "train_images")
    assert table is not None
    assert images is not None
    rows = _rows(table)
    listing = list_folder(images)
    good = [file for file in listing.images if file not in rows]
    train = seeded_share(len(good), options.train_fraction)
    reader = RunLengthReader()
    samples = make_samples(images, [f for i, f in enumerate(good) if i in train], "train", GOOD, reader)
    samples += make_samples(images, [f for i, f in enumerate(good) if i not in train], "test", GOOD, reader)
    for file in listing.images:
        if file in rows:
            found = tuple(sorted(rows[file].items()))
            kind = "+".join(defect for defect, _ in found)
            masks = {without_suffix(file): (table,)}
            samples += make_samples(images, [file], "test", kind, RunLengthReader(found), masks)
    notes = []
    here = set(listing.images)
    lost = [file for file in rows if file not in here]
    if lost:
        text = f"{table}: {len(lost)} images with a defect are not in {images.name}: {listed(lost)}"
        notes.append(Note("error", "missing-image", table, text))
    hidden = folder_named(folder, "test_images")
    if hidden is not None and (count := len(list_folder(hidden).images)):
        text = f"{hidden}: {count:,} images whose masks were never published are left out"
        notes.append(Note("info", "left-out", hidden, text))
    return Category(name, dataset, folder, tuple(samples), notes=tuple(notes), whole=True)


def _rows(table: Path) -> dict[str, dict[str, str]]:
    """Run lengths by image and defect ("class_3")."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    first = next((line for line in lines_of(table) if line.strip()), "")
    joined = first.split(",")[0].strip() == _FIRST_COLUMNS[0]
    for number, cells in csv_rows(table, _FIRST_COLUMNS if joined else _COLUMNS):
        image, _, kind = cells[0].rpartition("_") if joined else (cells[0], "", cells[1])
        runs = cells[-1].strip()
        if not image or not (kind.strip().isdecimal() and len(kind) <= 8):
            raise DataError(f"{table}, line {number}: expected an image and a class, not {','.join(cells)!r:.60}")
        if not runs:
            continue
        defect = f"class_{int(kind)}"
        if defect in found[image.strip()]:
            raise DataError(f"{table}, line {number}: {image} has two rows of class {int(kind)}")
        found[image.strip()][defect] = runs
    return dict(found)


LAYOUT = Layout(
    name="severstal",
    expects="train.csv and train_images/*.jpg",
    recognise=recognise,
    read=read,
    rule=(
        "the owner's test images have no masks and are left out; of train_images without a defect, four fifths, drawn "
        "with seed 0, are for training, the rest and all with a defect for testing"
    ),
    published=True,
)
