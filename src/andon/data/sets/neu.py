"""NEU-DET (Song and Yan 2013; boxes by He et al. 2020): six kinds of defects of hot-rolled steel strip.

As its owner has it, or as the mirror that most use:

    IMAGES/crazing_1.jpg, ANNOTATIONS/crazing_1.xml
    train/images/crazing/crazing_1.jpg, train/annotations/crazing_1.xml, and the same in validation

No image is good, so nothing can be learnt or judged by this data set alone. Its images may stand as defective ones
beside good images of one's own, and its boxes as places.

Images and boxes are brought together by their names over all folders: in the mirror, crazing_240's image is in train
and its boxes are in validation. What the XML says of its file's name is not looked at: some lack the suffix. A box
stands for all its pixels; the same box twice counts once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from andon._tools.files import read_regular
from andon.core import Category, Channel, DataError, Note, Sample, listed
from andon.data.drawn import DrawnReader, rectangle
from andon.data.files import Listing, list_folder, make_samples, natural_key, suffix_of, without_suffix
from andon.data.layout import Layout, ReadOptions
from andon.data.truth import folder_named, walk

__all__ = ["LAYOUT", "boxes"]

_MAX_XML_BYTES = 2**20
_DEFECTS = frozenset({"crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches"})


@dataclass(frozen=True)
class BoxReader(DrawnReader):
    """Draws the boxes of a sample's XML file, one channel each."""

    def channels(self, sample: Sample, size: tuple[int, int]) -> Iterator[Channel]:
        for path in sample.mask_paths:
            for name, left, top, right, bottom in boxes(path, size):
                # In Pascal VOC the first pixel is 1, and the last one belongs to the box.
                mask = rectangle(size, top - 1, left - 1, bottom, right)
                yield Channel(mask, name, int(mask.sum()))


def boxes(path: Path, size: tuple[int, int]) -> list[tuple[str, int, int, int, int]]:
    """(defect, left, top, right, bottom) of each box in a file as Pascal VOC has them, counted from 1, all included.

    Args:
        size: (height, width) of the image.

    Raises:
        DataError: no such XML, or a box that is none or reaches out of the image by more than a pixel.
    """
    data = read_regular(path, _MAX_XML_BYTES, what="boxes in XML")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise DataError(f"{path}: an XML file with definitions of its own is not read")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, RecursionError, LookupError) as error:
        raise DataError(f"{path}: not valid XML ({error})") from error
    found: dict[tuple[str, int, int, int, int], None] = {}
    for number, item in enumerate(root.iter("object"), start=1):
        name = (item.findtext("name") or "").strip()
        texts = [item.findtext(f"bndbox/{side}") or "" for side in ("xmin", "ymin", "xmax", "ymax")]
        try:
            left, top, right, bottom = (round(float(text)) for text in texts)
        except (ValueError, OverflowError):
            raise DataError(f"{path}: box {number} has no four numbers ({', '.join(texts)})") from None
        if not name:
            raise DataError(f"{path}: box {number} has no name")
        if not (0 <= left <= right <= size[1] + 1 and 0 <= top <= bottom <= size[0] + 1):
            raise DataError(
                f"{path}: box {number} ({name}), x {left} to {right} and y {top} to {bottom}, does not fit the image "
                f"of {size[1]} × {size[0]}"
            )
        found[name, max(1, left), max(1, top), min(right, size[1]), min(bottom, size[0])] = None
    if not found:
        raise DataError(f"{path}: has no box")
    return list(found)


def _places(folder: Path) -> list[tuple[Path, Path]]:
    """(folder of images, folder of boxes) that lie beside one another."""
    parents = [folder, *(p for p in (folder_named(folder, n) for n in ("train", "validation", "valid")) if p)]
    pairs = ((folder_named(parent, "images"), folder_named(parent, "annotations")) for parent in parents)
    return [(images, words) for images, words in pairs if images is not None and words is not None]


def _is_xml(name: str) -> bool:
    return suffix_of(name) == ".xml"


def recognise(folder: Path) -> bool:
    # Many have images and boxes side by side; these are called after their defects.
    found = any(any(map(_is_xml, list_folder(words).others)) for _, words in _places(folder))
    return found and not _DEFECTS.isdisjoint(kind.casefold() for kind in _images(folder))


def _kind(listing: Listing, name: str, images: Path) -> str:
    """The defect of an image: its folder, or its name without the number (rolled-in_scale_12)."""
    if listing.folder != images:
        return listing.folder.name
    return without_suffix(name).rpartition("_")[0] or without_suffix(name)


def _images(folder: Path) -> dict[str, list[Path]]:
    """Images by defect."""
    found: dict[str, list[Path]] = {}
    for images, _ in _places(folder):
        for listing in walk(images):
            for name in listing.images:
                found.setdefault(_kind(listing, name, images), []).append(listing.folder / name)
    return found


def parts(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(_images(folder), key=natural_key))


def read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    words: dict[str, Path] = {}
    for _, place in _places(folder):
        for file in list_folder(place).others:
            if _is_xml(file):
                other = words.setdefault(without_suffix(file), place / file)
                if other != place / file:
                    raise DataError(f"{place / file}: {other} is of the same image; remove one")
    every = _images(folder)
    stems = {without_suffix(path.name) for paths in every.values() for path in paths}
    samples: list[Sample] = []
    paths = sorted(every.get(name, []), key=lambda path: natural_key(path.name))
    seen: dict[str, Path] = {}
    for path in paths:
        stem = without_suffix(path.name)
        if seen.setdefault(stem, path) != path:
            raise DataError(f"{path}: {seen[stem]} has the same name; rename or remove one")
        masks = {stem: (words[stem],)} if stem in words else {}
        samples += make_samples(path.parent, [path.name], "test", name, BoxReader(), masks)
    notes = []
    lost = [file for stem, file in words.items() if stem not in stems]
    if lost and name == min(every, key=natural_key):  # once, not with every category
        text = f"{lost[0].parent}: {len(lost)} XML without an image: {listed(path.name for path in lost)}"
        notes.append(Note("error", "mask-without-image", lost[0], text))
    return Category(name, dataset, folder, tuple(samples), notes=tuple(notes), whole=True)


LAYOUT = Layout(
    name="neu",
    expects="IMAGES/*.jpg and ANNOTATIONS/*.xml, or train/images/<defect>/*.jpg and train/annotations/*.xml",
    recognise=recognise,
    read=read,
    rule=(
        "there is no good image: nothing can be learnt or judged by this data set alone, all of it is for testing "
        "(beside good images of your own). The mirror's train and validation are not looked at. Boxes stand for places"
    ),
    published=True,
    parts=parts,
)
