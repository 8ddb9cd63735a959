"""Finding images in folders, and the readers of samples that are files."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from andon.core import GOOD, AndonError, Channel, GroundTruth, ImageArray, Sample, SampleReader, Split
from andon.data.decode import read_image, read_mask, read_size

__all__ = [
    "IMAGE_SUFFIXES",
    "FileReader",
    "Listing",
    "WholeMaskReader",
    "by_stem",
    "check_mask_size",
    "list_folder",
    "make_samples",
    "natural_key",
    "without_suffix",
]

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".apng"}
)
"""A file is taken for an image by its suffix (small or capital letters), and decoded by its content."""

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


def list_folder(folder: Path) -> Listing:
    """Lists one folder, not what lies below. One pass, no file is opened; empty where there is no such folder.

    Raises:
        AndonError: the folder cannot be read, or a name in it is not UTF-8.
    """
    images: list[str] = []
    folders: list[str] = []
    others: list[str] = []
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
                # A dangling link is an image as well: reading it will name it, where skipping would hide it.
                elif name[name.rfind(".") :].casefold() in IMAGE_SUFFIXES:
                    images.append(name)
                else:
                    others.append(name)
    except (FileNotFoundError, NotADirectoryError):
        return Listing(folder)
    except OSError as error:
        raise AndonError(f"{folder}: cannot be listed ({error.strerror or error})") from error
    ordered = (tuple(sorted(names, key=natural_key)) for names in (images, folders, others))
    return Listing(folder, *ordered)


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
    masks: dict[str, tuple[Path, ...]] | None = None,
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
    """Reads samples that are files: an image, and one mask file a ground-truth channel."""

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
            values = read_mask(path)
            check_mask_size(sample, path, values, size)
            channels.append(self.channel(sample, path, values))
        return GroundTruth(size, tuple(channels))

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

    def channel(self, sample: Sample, path: Path, values: npt.NDArray[np.uint8]) -> Channel:
        mask = values > 0
        return Channel(mask, sample.defect_type, int(np.count_nonzero(mask)))
