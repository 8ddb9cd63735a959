"""Ground truth as annotation tools write it: COCO and labelme JSON, CVAT XML for images 1.1, and PNG masks.

One annotation is one region (one channel of AutoVI's ground truth), except where the tool itself says that several
shapes are one thing: polygons of one COCO annotation, shapes of labelme and CVAT with the same label and group number.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from andon._tools.files import read_regular
from andon.core import DataError, listed
from andon.data.decode import read_mask
from andon.data.files import list_folder, natural_key, without_suffix
from andon.data.mask import value_counts
from andon.data.preparing.coco import read_coco
from andon.data.preparing.cvat import read_cvat
from andon.data.preparing.labelme import is_labelme, read_labelme
from andon.data.preparing.shapes import Region, ValueOf
from andon.data.preparing.sources import RawImage

__all__ = ["Annotations", "read_annotations"]

MAX_ANNOTATION_BYTES = 2**29
_MASK_ENDINGS = ("_mask", "-mask", "_gt", "_label")
Found = tuple[Sequence[tuple[str, Region]], Sequence[str]]
"""(image's name, region) in order, and what was left out."""


@dataclass(frozen=True)
class Annotations:
    """Regions of images.

    Attributes:
        kind: "COCO JSON", "labelme JSON", "CVAT XML" or "PNG masks".
        regions: by the name of the raw image, in the file's order.
        unknown: names of images that the annotations have regions for and the source lacks.
        left_out: what is no area (points, lines) and was left out, one line each.
    """

    kind: str
    regions: Mapping[str, tuple[Region, ...]]
    unknown: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def read_annotations(path: Path, images: Sequence[RawImage]) -> Annotations:
    """Finds out what kind of annotations a file or folder holds, and gives each region to its image.

    Args:
        path: a COCO JSON, labelme JSON or CVAT XML; or a folder of labelme JSON (folders below are searched too), or of
            masks: ``<image>.png``, ``<image>_mask.png`` or ``<image>/*.png``, directly or in folders as the images are.
        images: whose regions are wanted.

    Raises:
        DataError: nothing of these kinds, damaged, or an image's name that fits several images.
    """
    if path.is_dir():
        if jsons := _below(path, (".json",)):
            return _assigned("labelme JSON", map(_labelme_file, jsons), images)
        return _masks(path, images)
    if not path.exists():
        raise DataError(f"{path}: there are no such annotations")
    data = read_regular(path, MAX_ANNOTATION_BYTES, what="annotations")
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return _assigned("CVAT XML", [read_cvat(data, path)], images)
    content = _json(data, path)
    if is_labelme(content):
        return _assigned("labelme JSON", [read_labelme(content, path)], images)
    if isinstance(content, dict) and "annotations" in content and "images" in content:
        return _assigned("COCO JSON", [read_coco(content, path)], images)
    raise DataError(
        f"{path}: not annotations of a known kind; COCO JSON (images, annotations), labelme JSON (shapes), CVAT XML "
        "for images 1.1, or a folder of PNG masks"
    )


def _json(data: bytes, path: Path) -> object:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: neither JSON nor XML ({error})") from error


def _labelme_file(path: Path) -> Found:
    content = _json(read_regular(path, MAX_ANNOTATION_BYTES, what="annotations"), path)
    if not is_labelme(content):
        raise DataError(f"{path}: not a labelme file (no shapes); a folder of JSON must hold nothing else")
    return read_labelme(content, path)


def _below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    found = sorted(
        (p for p in folder.rglob("*") if p.suffix.casefold() in suffixes and not p.name.startswith(".")),
        key=lambda p: natural_key(str(p)),
    )
    return [path for path in found if path.is_file()]


def _assigned(kind: str, found: Iterable[Found], images: Sequence[RawImage]) -> Annotations:
    exact = {image.name.casefold(): image.name for image in images}
    by_file: defaultdict[str, list[str]] = defaultdict(list)
    for image in images:
        by_file[image.path.name.casefold()].append(image.name)
    regions: defaultdict[str, list[Region]] = defaultdict(list)
    unknown: list[str] = []
    left_out: list[str] = []
    for pairs, without in found:
        left_out += without
        for name, region in pairs:
            plain = PurePosixPath(name.replace("\\", "/"))
            same = exact.get(plain.as_posix().casefold())
            candidates = [same] if same else by_file.get(plain.name.casefold(), [])
            if len(candidates) > 1:
                raise DataError(f"{region.source}: the image {name} may be {listed(candidates, 3)}")
            if candidates:
                regions[candidates[0]].append(region)
            else:
                unknown.append(name)
    return Annotations(
        kind, {name: tuple(r) for name, r in regions.items()}, tuple(dict.fromkeys(unknown)), tuple(left_out)
    )


def _masks(folder: Path, images: Sequence[RawImage]) -> Annotations:
    """Masks by the names of their images: a file, or a folder of files, for each."""
    by_place = {PurePosixPath(without_suffix(image.name)).as_posix().casefold(): image for image in images}
    by_stem: defaultdict[str, list[RawImage]] = defaultdict(list)
    for image in images:
        by_stem[without_suffix(image.path.name).casefold()].append(image)
    regions: defaultdict[str, list[Region]] = defaultdict(list)
    unknown: list[str] = []

    def add(place: PurePosixPath, files: Sequence[Path]) -> bool:
        """Whether the masks of a place (below the folder, without suffix) have an image."""
        image = by_place.get(place.as_posix().casefold())
        if image is None:
            candidates = by_stem.get(place.name.casefold(), [])
            same_label = [c for c in candidates if c.label.casefold() in [p.casefold() for p in place.parts[:-1]]]
            candidates = same_label or candidates
            if len(candidates) > 1:
                raise DataError(f"{files[0]}: may be the mask of {listed((c.name for c in candidates), 3)}")
            image = candidates[0] if candidates else None
        if image is None:
            return False
        for file in files:
            regions[image.name] += _regions_of(file, image.label)
        return True

    def walk(current: Path, place: PurePosixPath) -> None:
        listing = list_folder(current)
        files = [current / name for name in listing.images]
        if files and place.name and add(place, files):
            files = []
        for file in files:
            stem = without_suffix(file.name)
            shorter = next((stem[: -len(e)] for e in _MASK_ENDINGS if stem.casefold().endswith(e)), stem)
            if not any(add(place / name, [file]) for name in dict.fromkeys((stem, shorter))):
                unknown.append(file.relative_to(folder).as_posix())
        for name in listing.folders:
            walk(current / name, place / name)

    walk(folder, PurePosixPath())
    if not regions and not unknown:
        raise DataError(f"{folder}: neither masks nor JSON in it")
    return Annotations("PNG masks", {name: tuple(r) for name, r in regions.items()}, tuple(unknown))


def _regions_of(path: Path, label: str) -> list[Region]:
    """The regions of one mask: one for each positive value; none where it is black."""
    try:
        values = [int(v) for v in np.flatnonzero(value_counts(read_mask(path))[1:]) + 1]
    except DataError:  # colours that mix: every pixel that is not black is the one region
        read_mask(path, any_value=True)
        return [Region(label, (ValueOf(path, None),), str(path))]
    return [Region(label, (ValueOf(path, value),), f"{path}: value {value}") for value in values]
