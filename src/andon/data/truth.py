"""Which files are masks, and of which images: by the names of folders and files, in whatever case.

A mask that is counted as a defective image spoils every figure without a word. So what is called a mask, or lies in a
folder that is, is never an image where the name fits one; where more than one reading is possible it is refused.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from andon.core import GOOD, AndonError, DataError, listed
from andon.data.decode import read_image, read_mask
from andon.data.files import Listing, list_folder, without_suffix
from andon.data.mask import value_counts

__all__ = [
    "Kind",
    "assign_masks",
    "called_masks",
    "folder_named",
    "is_good",
    "is_truth_folder",
    "sidecars",
    "split_truth",
    "truth_folders",
    "walk",
]

MAX_DEPTH = 16
"""Folders are followed no deeper."""
MAX_FOLDERS = 20_000
"""Folders that are looked at in one: links beside each other can make few folders look like endlessly many."""

_WORD = "(?:ground[ _.-]?truths?|masks?|gts?|labels?|annotations?|segmentations?|truths?)"
_FOLDER = re.compile(f"{_WORD}(?:[ _.-]?(?:masks?|gts?|images?|imgs?|files?|png))?")
_SURE = re.compile("ground[ _.-]?truths?")
_ENDING = re.compile(f"(.+?)(?:[ _.-]+{_WORD}|masks?)")
_BEGINNING = re.compile(f"{_WORD}[ _.-]+(.+)")
_LONE = re.compile("(.+?)[ _.-]+(?:masks?|gts?|ground[ _.-]?truths?)")


def is_good(name: str) -> bool:
    """Whether a folder is that of the good images: "good", "Good", "GOOD"."""
    return name.casefold() == GOOD


def is_truth_folder(name: str) -> bool:
    """Whether a folder is called as one of masks is: "ground_truth", "Masks", "gt", "labels", …"""
    return _FOLDER.fullmatch(name.casefold()) is not None


def folder_named(parent: Path, name: str) -> Path | None:
    """The folder of this name in any case; None where there is none, DataError where there are two."""
    found = [folder for folder in list_folder(parent).folders if folder.casefold() == name]
    if len(found) > 1:
        raise DataError(f"{parent}: {' and '.join(found)} are the same name but for the case; move them into one")
    return parent / found[0] if found else None


def truth_folders(parent: Path) -> list[Path]:
    """The folders of masks in a folder."""
    return [parent / name for name in list_folder(parent).folders if is_truth_folder(name)]


def walk(folder: Path, enter: Callable[[Path], bool] = lambda _: True) -> Iterator[Listing]:
    """The listings of a folder and of all below it, in natural order.

    Args:
        enter: whether to look into a folder below.

    Raises:
        DataError: it is too deep, has too many folders, or a link in it leads to a folder above.
    """
    waiting, count = [(folder, 0)], 0
    while waiting:
        current, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise DataError(f"{current}: more than {MAX_DEPTH} folders deep; do links lead in circles?")
        if count > MAX_FOLDERS:
            raise DataError(f"{folder}: more than {MAX_FOLDERS:,} folders below it ({current}); do links lead there?")
        listing = list_folder(current)
        yield listing
        waiting += [(current / name, depth + 1) for name in reversed(listing.folders) if enter(current / name)]


def split_truth(parent: Path, kinds: Sequence[str]) -> tuple[list[str], list[str]]:
    """Folders side by side as (those of images, those of masks): "gt", and "dent_mask" where there is "dent"."""
    same = defaultdict(list)
    for name in kinds:
        same[name.casefold()].append(name)
    for names in same.values():
        if len(names) > 1:
            raise DataError(f"{parent}: {' and '.join(names)} are the same name but for the case; move them into one")
    truth = [name for name in kinds if is_truth_folder(name) or _companion(name, same) is not None]
    return [name for name in kinds if name not in truth], truth


def _companion(name: str, kinds: Iterable[str]) -> str | None:
    """The folder of images, casefolded, whose masks a folder "dent_mask" holds."""
    for pattern in (_ENDING, _BEGINNING):
        found = pattern.fullmatch(name.casefold())
        if found is not None and found[1] in kinds:
            return found[1]
    return None


# --- masks beside their images ----------------------------------------------------------------------------------------


def sidecars(listing: Listing) -> dict[str, str]:
    """The files of a folder that are masks of others in it: image by mask.

    Raises:
        DataError: a file is called as a mask is, but there is no image to it while the others have theirs.
    """
    stems = _Stems((without_suffix(name), name) for name in listing.images)
    found: dict[str, str] = {}
    for name in listing.images:
        for stem in _readings(without_suffix(name))[1:]:
            images = stems.find(stem)
            if len(images) > 1:
                raise DataError(f"{listing.folder / name}: may be the mask of {' or '.join(images)}; rename one")
            if images:
                found[name] = images[0]
                break
    named = [name for name in listing.images if name not in found and _LONE.fullmatch(_folded(name))]
    images = [name for name in listing.images if name not in found and name not in named]
    if named and (found or images):
        more = f" (so are {len(named) - 1} more)" if len(named) > 1 else ""
        raise DataError(
            f"{listing.folder / named[0]}: is called as a mask is, but there is no image to it in this folder{more}; "
            "add the image, or remove or rename the file"
        )
    return found


def called_masks(listing: Listing) -> set[str]:
    """The files of a folder that are called as masks of others in it, or all of them in a folder "dent_mask"."""
    if _LONE.fullmatch(listing.folder.name.casefold()):
        return set(listing.images)
    stems = {_folded(name) for name in listing.images}
    return {
        name
        for name in listing.images
        if any(reading.casefold() in stems for reading in _readings(without_suffix(name))[1:])
    }


def _folded(name: str) -> str:
    return without_suffix(name).casefold()


def _readings(stem: str) -> list[str]:
    """What the image of a mask may be called, likeliest first: itself, "000" of "000_mask", "000" of "mask_000"."""
    found = [stem]
    for pattern in (_ENDING, _BEGINNING):
        match = pattern.fullmatch(stem.casefold())
        if match is not None and len(match.string) == len(stem):
            found.append(stem[match.start(1) : match.end(1)])
    return found


class _Stems:
    """Things by a file's name without suffix: the same case first, any case otherwise."""

    def __init__(self, items: Iterable[tuple[str, str]]) -> None:
        self._exact: defaultdict[str, list[str]] = defaultdict(list)
        self._folded: defaultdict[str, list[str]] = defaultdict(list)
        for stem, key in items:
            self._exact[stem].append(key)
            self._folded[stem.casefold()].append(key)

    def find(self, stem: str) -> list[str]:
        return self._exact.get(stem) or self._folded.get(stem.casefold(), [])


# --- masks in folders of their own ------------------------------------------------------------------------------------


class Kind:
    """The images of one defect type (or the good ones), and the folders of masks that lie among them.

    Attributes:
        name: of its folder.
        folder: it.
        listings: its folders of images.
        inner: folders of masks inside.
    """

    def __init__(self, folder: Path, *, deep: bool) -> None:
        self.name, self.folder = folder.name, folder
        self.listings: list[Listing] = []
        self.inner: list[Path] = []

        def enter(below: Path) -> bool:
            if is_truth_folder(below.name):
                self.inner.append(below)
                return False
            return deep

        self.listings += walk(folder, enter)
        self.beside = {listing.folder: sidecars(listing) for listing in self.listings}

    def names(self, listing: Listing) -> list[str]:
        """The images in one of its folders, without the masks beside them."""
        beside = self.beside[listing.folder]
        return [name for name in listing.images if name not in beside]

    def below(self, listing: Listing) -> str:
        """Where one of its folders is, inside: "" or "monday/"."""
        relative = listing.folder.relative_to(self.folder)
        return "" if relative == Path() else f"{relative.as_posix()}/"

    def images(self) -> list[Path]:
        return [listing.folder / name for listing in self.listings for name in self.names(listing)]


def assign_masks(kinds: Sequence[Kind], sure: Iterable[Path], unsure: Iterable[Path]) -> dict[Path, Path]:
    """The mask of each defective image that has one.

    Args:
        kinds: all folders of images, the good ones' as well.
        sure: folders that hold masks and nothing else; what fits no image there is left for ``data info`` to name.
        unsure: folders beside those of the defect types, called as one of masks is: they may be a defect type too.

    Raises:
        DataError: a mask fits several images, an image has several masks, or it is not clear whether a folder holds
            masks or is a defect type; the message names the folder or file.
    """
    found: dict[Path, Path] = {}
    defective = [kind for kind in kinds if not is_good(kind.name)]
    for kind in defective:
        _refuse_masks_as_images(kind, kinds)
        for folder, beside in kind.beside.items():
            for mask, image in beside.items():
                _add(found, folder / image, folder / mask)
        for inner in kind.inner:
            _of_kind(found, inner, kind, kind.below(Listing(inner.parent)))
    for truth in sure:
        _of_folder(found, truth, kinds)
    for truth in unsure:
        unfit = _of_folder(found, truth, kinds)
        if _SURE.fullmatch(truth.name.casefold()) is None:
            _check_unsure(truth, unfit)
    return found


def _add(found: dict[Path, Path], image: Path, mask: Path) -> None:
    if found.setdefault(image, mask) != mask:
        raise DataError(f"{mask}: {found[image]} is a mask of the same image {image.name}; remove one")


def _of_folder(found: dict[Path, Path], truth: Path, kinds: Sequence[Kind]) -> list[Path]:
    """Assigns what is in a folder of masks; gives the files that fit no image."""
    listing = list_folder(truth)
    by_name = {kind.name.casefold(): kind for kind in kinds}
    defective = [kind for kind in kinds if not is_good(kind.name)]
    companion = _companion(truth.name, by_name) if not is_truth_folder(truth.name) else None
    if companion is not None:
        return _of_kind(found, truth, by_name[companion])
    unfit: list[Path] = []
    every = _index([(kind, image) for kind in defective for image in kind.images()])
    good = _index([(kind, image) for kind in kinds if is_good(kind.name) for image in kind.images()])
    for name in listing.images:
        stem = without_suffix(name)
        image = _only(every, stem, truth / name)
        if image is not None:
            _add(found, image, truth / name)
        elif not any(good.find(reading) for reading in _readings(stem)):
            unfit.append(truth / name)
    for name in listing.folders:
        kind = by_name.get(name.casefold())
        if kind is None:
            unfit += [below.folder / file for below in walk(truth / name) for file in below.images]
        elif not is_good(kind.name):
            _of_kind(found, truth / name, kind)  # called as the defect type is: masks, whatever else is there
    return unfit


def _of_kind(found: dict[Path, Path], truth: Path, kind: Kind, place: str = "") -> list[Path]:
    """Assigns the masks of one defect type: to the image at the same place below, otherwise to the only one that fits.

    Args:
        place: where the folder of masks lies inside that of the images.
    """
    unfit: list[Path] = []
    at: dict[str, _Stems] = {}
    for listing in kind.listings:
        images = [(without_suffix(name), str(listing.folder / name)) for name in kind.names(listing)]
        at[kind.below(listing).casefold()] = _Stems(images)
    every = _Stems((without_suffix(image.name), str(image)) for image in kind.images())
    for listing in walk(truth):
        relative = listing.folder.relative_to(truth)
        below = place if relative == Path() else f"{place}{relative.as_posix()}/"
        for name in listing.images:
            mask, stem = listing.folder / name, without_suffix(name)
            here = at.get(below.casefold())
            image = (_only(here, stem, mask) if here is not None else None) or _only(every, stem, mask)
            if image is None:
                unfit.append(mask)
            else:
                _add(found, image, mask)
    return unfit


def _index(images: Iterable[tuple[Kind, Path]]) -> _Stems:
    """Images by their names, and by those with the defect type before them ("dent_000")."""
    items: list[tuple[str, str]] = []
    for kind, image in images:
        stem = without_suffix(image.name)
        items += [(stem, str(image)), *((f"{kind.name}{sign}{stem}", str(image)) for sign in "_- ")]
    return _Stems(items)


def _only(stems: _Stems, stem: str, mask: Path) -> Path | None:
    """The one image that a mask fits; None where there is none."""
    for reading in _readings(stem):
        images = list(dict.fromkeys(stems.find(reading)))
        if len(images) > 1:
            raise DataError(
                f"{mask.parent}: {mask.name} may be the mask of {listed(images, 3)}; put masks into a folder for each "
                "defect type, as in ground_truth/<defect type>/<image>_mask.png"
            )
        if images:
            return Path(images[0])
    return None


def _check_unsure(truth: Path, unfit: Sequence[Path]) -> None:
    """DataError unless a folder "label" beside the defect types is one of masks without doubt."""
    way_out = (
        "put masks into ground_truth/<defect type>/<image>_mask.png, or rename the folder where it is a defect type"
    )
    if unfit:
        some = listed((path.relative_to(truth).as_posix() for path in unfit), 3)
        raise DataError(f"{truth}: is called as a folder of masks is, but {some} fit no defective image; {way_out}")
    first = next((listing.folder / name for listing in walk(truth) for name in listing.images), None)
    if first is None:
        return
    reason = _why_no_mask(first)
    if reason:
        raise DataError(f"{truth}: is called as a folder of masks is, but {first.name} {reason}; {way_out}")


def _why_no_mask(path: Path) -> str:
    """Why a file that can be read as an image is none of a mask; "" where it may be one, or cannot be read at all."""
    try:
        values = read_mask(path, any_value=True)
    except AndonError as error:
        try:
            read_image(path)
        except AndonError:
            return ""  # whoever reads it as a mask is told
        return f"is not one ({str(error).removeprefix(f'{path}: ')})"
    # A photograph's pixels are of many values and hardly ever black.
    counts = value_counts(values)
    photograph = counts[0] == 0 or counts[0] + counts[1:].max() < values.size / 2
    return "looks like a photograph" if photograph else ""


def _refuse_masks_as_images(kind: Kind, kinds: Sequence[Kind]) -> None:
    """DataError where all files of a folder are called as the masks of another folder's images would be."""
    images = kind.images()
    readings = [_LONE.fullmatch(_folded(image.name)) for image in images]
    if not images or any(found is None for found in readings):
        return
    others = {_folded(image.name) for other in kinds if other is not kind for image in other.images()}
    if any(found is not None and found[1] in others for found in readings):
        raise DataError(
            f"{kind.folder}: {images[0].name} is called as a mask of another folder's image is; put masks into "
            "ground_truth/<defect type>/<image>_mask.png, or rename the files where they are images"
        )
