"""DAGM 2007 (Wieler, Hahn and Hamprecht): ten artificial textures, each with one kind of defect.

As on Zenodo and at the Heidelberg Collaboratory for Image Processing, layout "dagm":

    Class1/Train/*.PNG, Class1/Train/Label/*_label.PNG, Class1/Train/Label/Labels.txt, and the same in Class1/Test

``Labels.txt`` has a number in its first line, then a line an image: number, 1 where it is defective, the image's file,
0, the label's file or 0. Class1.zip unpacks to Class1/Class1 with some programs.

As published for the competition, layout "dagm-ellipses", without a split:

    Class1/*.png (without defects), Class1_def/*.png, Class1_def/labels.txt

``labels.txt`` has for each image its file or number, the semi-major and semi-minor axis, the rotation (radians,
counter-clockwise), and x and y of the middle, from the upper left corner.

Labels are ellipses around the defects, not their outlines: places are judged generously.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from andon.core import GOOD, Category, Channel, DataError, Note, Sample, Split, listed
from andon.data.drawn import DrawnReader, ellipse
from andon.data.files import Listing, WholeMaskReader, list_folder, make_samples, natural_key, without_suffix
from andon.data.layout import Layout, ReadOptions
from andon.data.sets._common import file_named, first_share, label_images, lines_of, unread
from andon.data.truth import folder_named

__all__ = ["ELLIPSES", "LAYOUT"]

_DEFECT = "defect"


def recognise(folder: Path) -> bool:
    return any(
        label is not None and (_labels_file(label) is not None or bool(label_images(label)))
        for label in map(_label_folder, _halves(_inner(folder)))
    )


def read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    root = _inner(folder)
    samples: list[Sample] = []
    notes: list[Note] = []
    known: set[Path] = set()
    splits: tuple[Split, Split] = ("train", "test")
    for split in splits:
        half = folder_named(root, split)
        if half is None:
            notes.append(Note("error", "missing-folder", root, f"{root}: there is no folder {split.capitalize()}"))
            continue
        found, said = _half(half, split)
        samples += found
        notes += said
        known |= {path for sample in found for path in (sample.path, *sample.mask_paths)}
    return Category(name, dataset, folder, tuple(samples), notes=(*notes, *unread(root, known)), whole=True)


def _inner(folder: Path) -> Path:
    """Class1/Class1, where the archive was unpacked into a folder of its own name."""
    if not _halves(folder):
        again = [name for name in list_folder(folder).folders if name.casefold() == folder.name.casefold()]
        if len(again) == 1:
            return folder / again[0]
    return folder


def _halves(folder: Path) -> list[Path]:
    return [half for half in (folder_named(folder, "train"), folder_named(folder, "test")) if half is not None]


def _label_folder(half: Path) -> Path | None:
    return folder_named(half, "label")


def _labels_file(label: Path) -> Path | None:
    return file_named(label, "labels.txt")


def _half(half: Path, split: Split) -> tuple[list[Sample], list[Note]]:
    listing = list_folder(half)
    label = _label_folder(half)
    images = {} if label is None else label_images(label)
    table = None if label is None else _labels_file(label)
    notes: list[Note] = []
    if table is None:
        text = f"{half}: there is no Label/Labels.txt; images with a label image count as defective"
        notes.append(Note("warning", "no-table", half, text))
        defective = set(images)
    else:
        defective = _defective(table, listing, images, notes)
    reader = WholeMaskReader()
    samples = []
    for kind, wanted in ((GOOD, False), (_DEFECT, True)):
        names = [n for n in listing.images if (without_suffix(n).casefold() in defective) == wanted]
        stems = {without_suffix(n): without_suffix(n).casefold() for n in names} if wanted else {}
        masks = {stem: (images[key],) for stem, key in stems.items() if key in images}
        samples += make_samples(half, names, split, kind, reader, masks)
    stems_here = {without_suffix(n).casefold() for n in listing.images}
    for stem, path in images.items():
        if stem not in stems_here:
            notes.append(Note("error", "mask-without-image", path, f"{path}: a label of no image in {half}"))
    return samples, notes


def _defective(table: Path, listing: Listing, images: dict[str, Path], notes: list[Note]) -> set[str]:
    """Images that ``Labels.txt`` calls defective, by their names without suffix, casefolded."""
    flags: dict[str, bool] = {}
    for number, line in enumerate(lines_of(table), start=1):
        words = line.split()
        if not words or (number == 1 and len(words) == 1):
            continue
        if len(words) != 5 or words[1] not in ("0", "1"):
            raise DataError(f"{table}, line {number}: expected number, 0 or 1, image, 0, label or 0, not {line!r:.80}")
        stem = without_suffix(words[2]).casefold()
        if flags.setdefault(stem, words[1] == "1") != (words[1] == "1"):
            raise DataError(f"{table}, line {number}: {words[2]} is good in one line and defective in another")
    here = {without_suffix(name).casefold(): name for name in listing.images}
    for stem, flag in flags.items():
        if stem not in here:
            text = f"{table}: names an image {stem} that is not in {listing.folder}"
            notes.append(Note("error", "missing-image", table, text))
        elif not flag and stem in images:
            raise DataError(f"{table}: calls {here[stem]} good, but {images[stem]} is a label of it; correct one")
    unknown = [name for stem, name in here.items() if stem not in flags]
    if unknown:
        text = f"{table}: says nothing of {listed(unknown)}; they count as defective where they have a label image"
        notes.append(Note("warning", "not-in-table", table, text))
    without = {without_suffix(name).casefold() for name in unknown} & set(images)
    return {stem for stem, flag in flags.items() if flag} | without


LAYOUT = Layout(
    name="dagm",
    expects="Train/*.PNG, Train/Label/*_label.PNG, Train/Label/Labels.txt and the same in Test",
    recognise=recognise,
    read=read,
    rule=(
        "the owner's Train and Test; the defective images of Train are neither learnt nor judged. Labels are ellipses "
        "around the defects"
    ),
    published=True,
)


# --- as published for the competition ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class EllipseReader(DrawnReader):
    """Draws the ellipse of a line of ``labels.txt``.

    Attributes:
        numbers: semi-major axis, semi-minor axis, angle, x and y.
    """

    numbers: tuple[float, float, float, float, float] | None = None

    def channels(self, sample: Sample, size: tuple[int, int]) -> Iterator[Channel]:
        if self.numbers is not None:
            mask = ellipse(size, *self.numbers)
            if not mask.any():
                raise DataError(f"{sample.mask_paths[0]}: the ellipse of {sample.path.name} lies outside of its image")
            yield Channel(mask, sample.defect_type, int(mask.sum()))


def _pairs(folder: Path) -> tuple[str, ...]:
    names = {name.casefold(): name for name in list_folder(folder).folders}
    return tuple(
        name
        for key, name in names.items()
        if f"{key}_def" in names and _labels_file(folder / names[f"{key}_def"]) is not None
    )


def _read_pair(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    good = list_folder(folder / name)
    bad_folder = folder_named(folder, f"{name.casefold()}_def")
    assert bad_folder is not None
    table = _labels_file(bad_folder)
    assert table is not None
    bad = list_folder(bad_folder)
    numbers = _ellipses(table)
    n_train = first_share(len(good.images), options.train_fraction)
    samples = make_samples(good.folder, good.images[:n_train], "train", GOOD, EllipseReader())
    samples += make_samples(good.folder, good.images[n_train:], "test", GOOD, EllipseReader())
    notes = []
    for image in bad.images:
        stem = without_suffix(image)
        found = numbers.pop(stem, None)
        if found is None:
            text = f"{table}: has no ellipse of {image}"
            notes.append(Note("error", "missing-mask", table, text))
        masks = {} if found is None else {stem: (table,)}
        samples += make_samples(bad.folder, [image], "test", _DEFECT, EllipseReader(found), masks)
    if numbers:
        many = sorted(numbers, key=natural_key)
        text = f"{table}: names images that are not there: {listed(many)}"
        notes.append(Note("error", "missing-image", table, text))
    return Category(name, dataset, folder, tuple(samples), notes=tuple(notes), whole=True)


def _ellipses(table: Path) -> dict[str, tuple[float, float, float, float, float]]:
    """The ellipses of ``labels.txt`` by the image's name without suffix; lines may be broken anywhere."""
    words = " ".join(lines_of(table)).split()
    found: dict[str, tuple[float, float, float, float, float]] = {}
    for at in range(0, len(words), 6):
        name, *texts = words[at : at + 6]
        try:
            major, minor, angle, x, y = map(float, texts)
        except ValueError:
            raise DataError(
                f"{table}: expected image, two axes, an angle, x and y, not {' '.join([name, *texts])!r:.80}"
            ) from None
        stem = without_suffix(name)
        finite = all(map(math.isfinite, (major, minor, angle, x, y)))
        if not (finite and major > 0 and minor > 0 and abs(angle) <= 2 * math.pi) or stem in found:
            why = "is there twice" if stem in found else "has no ellipse: axes above 0 and an angle in radians"
            raise DataError(f"{table}: {name} {why}")
        found[stem] = (major, minor, angle, x, y)
    return found


ELLIPSES = Layout(
    name="dagm-ellipses",
    expects="Class1/*.png, Class1_def/*.png and Class1_def/labels.txt",
    recognise=lambda folder: bool(_pairs(folder)),
    read=_read_pair,
    rule=(
        "the owner has no split: the first four fifths of the images without defects, in the order of their numbers, "
        "are for training, the rest and all defective ones for testing. Labels are ellipses around the defects"
    ),
    published=True,
    parts=_pairs,
)
