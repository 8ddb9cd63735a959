"""Finding images in folders, and the readers of samples that are files."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from andon._tools.files import folders_above, folders_below
from andon.core import (
    GOOD,
    AndonError,
    Channel,
    DataError,
    GroundTruth,
    ImageArray,
    Sample,
    SampleReader,
    Split,
    listed,
)
from andon.data.decode import read_image, read_mask, read_size

__all__ = [
    "IMAGE_SUFFIXES",
    "UNREAD_SUFFIXES",
    "FileReader",
    "Listing",
    "WholeMaskReader",
    "by_stem",
    "check_mask_size",
    "images_below",
    "list_folder",
    "listing_once",
    "make_samples",
    "natural_key",
    "refuse_unread",
    "suffix_of",
    "unread_images",
    "without_suffix",
]

IMAGE_SUFFIXES = frozenset(
    str.split(
        ".png .apng .jpg .jpeg .jpe .jfif .bmp .dib .tif .tiff .webp .gif .ppm .pgm .pbm .pnm .jp2 .j2k .j2c .jpc "
        ".jpx .jpf"
    )
)
"""A file is taken for an image by its suffix (small or capital letters), and decoded by its content."""

UNREAD_SUFFIXES = frozenset(
    str.split(
        ".avif .heic .heif .jxl .jxr .wdp .hdp .jls .pam .pfm .pcx .tga .sgi .rgb .ras .sr .xbm .xpm .ico .icns "
        ".cur .psd .xcf .svg .eps .exr .hdr .pic .pict .dds .fits .fit .fts .dcm .dicom .nii .mha .nrrd .raw .dng "
        ".cr2 .cr3 .crw .nef .arw .orf .rw2 .raf .srw .pef .im .ima .tim .cin .dpx .iff .lbm .mng .jng .czi .lif "
        ".vsi .svs .ndpi .lsm .npy .yuv .nv12 .bayer .mp4 .avi .mov .mkv"
    )
)
"""Files that hold images, or may, in kinds that are not read."""

# What systems and file managers leave in folders; it is no part of a data set and nobody needs to hear of it.
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})

NaturalKey = tuple[tuple[str | int, ...], str]


def natural_key(name: str) -> NaturalKey:
    """Sorts file names as people count: ``img2`` before ``img10``, small and capital letters alike.

    Of zero-padded names it is the plain order, so AutoVI's images come in shooting order.
    """
    parts = re.split("([0-9]+)", name.casefold())
    # Texts and numbers alternate, beginning with a (maybe empty) text: equal positions have equal types.
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), name


@dataclass(frozen=True)
class Listing:
    """What lies in one folder, names in natural order; hidden files and a system's litter left out."""

    folder: Path
    images: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


_kept: ContextVar[dict[Path, Listing] | None] = ContextVar("_kept", default=None)


@contextmanager
def listing_once() -> Iterator[None]:
    """Within it ``list_folder`` lists each folder once: who tries many layouts asks for the same few again and again,
    and to sort 50,000 names takes a third of a second."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def list_folder(folder: Path) -> Listing:
    """Lists one folder, not what lies below. One pass, no file is opened; empty where there is no such folder.

    Raises:
        AndonError: the folder cannot be read, a name in it is not UTF-8, or a link in it leads to a folder that it lies
            in: whoever follows it would never come to an end.
    """
    kept = _kept.get()
    if kept is None:
        return _listed(folder)
    if folder not in kept:
        kept[folder] = _listed(folder)
    return kept[folder]


def _listed(folder: Path) -> Listing:
    images: list[str] = []
    folders: list[str] = []
    others: list[str] = []
    links: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or name.casefold() in _LITTER:
                    continue
                try:
                    name.encode()
                except UnicodeEncodeError:
                    raise AndonError(f"{folder}: the file name {name!a} is not valid UTF-8; rename the file") from None
                if entry.is_dir():
                    folders.append(name)
                    if entry.is_symlink():
                        links.append(name)
                # A dangling link is an image as well: reading it will name it, where skipping would hide it.
                elif name[name.rfind(".") :].casefold() in IMAGE_SUFFIXES:
                    images.append(name)
                else:
                    others.append(name)
        if links:
            _refuse_circles(folder, links)
    except (FileNotFoundError, NotADirectoryError):
        return Listing(folder)
    except OSError as error:
        raise AndonError(f"{folder}: cannot be listed ({error.strerror or error})") from error
    ordered = (tuple(sorted(names, key=natural_key)) for names in (images, folders, others))
    return Listing(folder, *ordered)


def images_below(folder: Path) -> list[Path]:
    """The images in a folder and in all below it, linked ones too: folder after folder, in natural order.

    Raises:
        DataError: a folder cannot be listed, or is a link to one that it lies in.
    """
    paths = []
    for below, _ in sorted(folders_below(folder), key=lambda found: [natural_key(part) for part in found[0].parts]):
        listing = list_folder(below)
        paths += [listing.folder / name for name in listing.images]
    return paths


def _refuse_circles(folder: Path, links: Iterable[str]) -> None:
    above = folders_above(folder / "link")
    for name in links:
        status = os.stat(folder / name)
        if (status.st_dev, status.st_ino) in above:
            target = os.readlink(folder / name)
            raise DataError(f"{folder / name}: a link to a folder that it lies in ({target}); remove it")


def unread_images(listing: Listing) -> tuple[str, ...]:
    """The files of a folder that hold images of a kind that is not read, but for those beside a readable copy."""
    copies = {without_suffix(name).casefold() for name in listing.images}
    return tuple(
        name
        for name in listing.others
        if suffix_of(name) in UNREAD_SUFFIXES and without_suffix(name).casefold() not in copies
    )


def suffix_of(name: str) -> str:
    """ ".png" of "a.PNG"; "" where there is none."""
    dot = name.rfind(".")
    return name[dot:].casefold() if dot > 0 else ""


def refuse_unread(listing: Listing) -> None:
    """DataError where images for training are of a kind that is not read: the training set would lack them silently."""
    unread = unread_images(listing)
    if unread:
        kinds = ", ".join(sorted({suffix_of(name) for name in unread}))
        many = f"{len(unread)} files are" if len(unread) > 1 else "a file is"
        raise DataError(
            f"{listing.folder}: {many} of a kind that is not read, {kinds} ({listed(unread, 3)}); convert to PNG or "
            f"remove; these are read: {', '.join(sorted(IMAGE_SUFFIXES))}"
        )


def without_suffix(name: str) -> str:
    """A file's name without its suffix (``os.path.splitext`` costs half the time of loading a large data set)."""
    dot = name.rfind(".")
    return name[:dot] if dot > 0 else name


def by_stem(folder: Path, names: Iterable[str], ending: str = "") -> dict[str, Path]:
    """Files by their name without suffix and ``ending``; AndonError where two have the same."""
    found: dict[str, Path] = {}
    for name in names:
        stem = without_suffix(name).removesuffix(ending)
        if stem in found:
            raise AndonError(
                f"{folder / name}: {found[stem].name} has the same name but for the suffix; rename or remove one"
            )
        found[stem] = folder / name
    return found


def make_samples(
    folder: Path,
    names: Sequence[str],
    split: Split,
    defect_type: str,
    reader: SampleReader,
    masks: Mapping[str, tuple[Path, ...]] | None = None,
    prefix: str = "",
) -> list[Sample]:
    """The samples of one folder of images.

    Args:
        masks: mask files by the image's name without suffix.
        prefix: goes before the name in the id ("batch1/").
    """
    masks = masks or {}
    return [
        Sample(f"{split}/{defect_type}/{prefix}{stem}", path, split, defect_type, reader, masks.get(stem, ()))
        for stem, path in by_stem(folder, names).items()
    ]


@dataclass(frozen=True)
class FileReader(SampleReader, ABC):
    """Reads samples that are files: an image, and one mask file a ground-truth channel.

    Attributes:
        any_value: whether every positive value of a mask means the same: masks in several colours can be read then.
        several_values: whether masks of several values are as their owner meant them.
    """

    any_value: ClassVar[bool] = False
    several_values: ClassVar[bool] = False

    def image(self, sample: Sample) -> ImageArray:
        return read_image(sample.path)

    def size(self, sample: Sample) -> tuple[int, int]:
        return read_size(sample.path)

    def ground_truth(self, sample: Sample) -> GroundTruth | None:
        """All channels; AndonError names the mask that does not fit its image or cannot be read."""
        if sample.defect_type != GOOD and not sample.mask_paths:
            return None
        size = self.size(sample)
        channels: list[Channel] = []
        for path in sample.mask_paths if sample.defect_type != GOOD else ():
            values = self.mask(path)
            check_mask_size(sample, path, values, size)
            channels.append(self.channel(sample, path, values))
        return GroundTruth(size, tuple(channels))

    def mask(self, path: Path) -> npt.NDArray[np.uint8]:
        """The values of a mask, uint8 ``[H, W]``; DataError where it cannot be read, or in more than one way."""
        return read_mask(path, any_value=self.any_value)

    @abstractmethod
    def channel(self, sample: Sample, path: Path, values: npt.NDArray[np.uint8]) -> Channel:
        """The channel that a mask's values, uint8 ``[H, W]``, stand for."""


def check_mask_size(sample: Sample, path: Path, values: npt.NDArray[np.uint8], size: tuple[int, int]) -> None:
    """AndonError where a mask's values are not of its image's size (height, width)."""
    if values.shape != size:
        raise AndonError(
            f"{path}: the mask is {values.shape[1]} × {values.shape[0]} pixels, "
            f"its image {sample.path} is {size[1]} × {size[0]}"
        )


@dataclass(frozen=True)
class WholeMaskReader(FileReader):
    """Every positive pixel of a mask is the defect, and all of them must be found: saturation = area."""

    any_value: ClassVar[bool] = True

    def channel(self, sample: Sample, path: Path, values: npt.NDArray[np.uint8]) -> Channel:
        mask = values > 0
        return Channel(mask, sample.defect_type, int(np.count_nonzero(mask)))
