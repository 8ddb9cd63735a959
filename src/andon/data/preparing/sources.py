"""Raw images: which there are, what each is labelled, and in which order they were shot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import ExifTags, Image

from andon._tools.files import open_regular, read_regular
from andon.core import GOOD, AndonError, ConfigError, DataError, listed
from andon.data.decode import MAX_FILE_BYTES
from andon.data.files import images_below, list_folder, natural_key
from andon.data.truth import is_good, is_truth_folder

__all__ = ["SKIP", "RawImage", "check_label", "find_raw_images", "in_shooting_order"]

SKIP = "skip"
"""The label of an image in a list that is to be left out."""
_MAX_LIST_BYTES = 2**26
_EXIF_FORMATS = ("JPEG", "TIFF", "PNG", "WEBP", "MPO")


@dataclass(frozen=True)
class RawImage:
    """An image as it came from the line.

    Attributes:
        path: its file.
        name: the path below the source's folder, "/"-separated.
        label: "good", or the defect type; "" where nothing says it yet (masks will).
    """

    path: Path
    name: str
    label: str


def find_raw_images(source: Path, labels: Path | None, *, unlabelled: str = GOOD) -> tuple[RawImage, ...]:
    """The images below a folder with their labels, in no order that means anything.

    Args:
        source: holds ``good/`` and a folder for each defect type (folders below are searched too); or images of any
            arrangement with a list ``labels``; or images directly in it.
        labels: CSV with the columns ``file`` and ``label``: paths below ``source``, "good", a defect type, or "skip".
        unlabelled: label of images directly in ``source`` without a list.

    Raises:
        DataError: no images, none of these arrangements, images that the list lacks, files that it names in vain.
    """
    if not source.is_dir():
        raise DataError(f"{source}: there is no such folder")
    if labels is not None:
        return _by_list(source, _read_labels(labels), labels)
    top = list_folder(source)
    kinds = [name for name in top.folders if not is_truth_folder(name)]
    if top.images and kinds:
        raise DataError(
            f"{source}: images lie directly in it and in {listed(kinds, 3)} as well; move the good ones into a folder "
            "named good, or give a list with --labels"
        )
    if top.images:
        return tuple(RawImage(source / name, name, unlabelled) for name in top.images)
    if not any(map(is_good, kinds)):
        raise DataError(
            f"{source}: no folder named good is in it (there are: {listed(kinds) or 'none'}); sort images into good/ "
            "and a folder for each defect type, or give a list with --labels"
        )
    found: list[RawImage] = []
    for kind in kinds:
        label = GOOD if is_good(kind) else kind
        found += [RawImage(path, _name(path, source), label) for path in images_below(source / kind)]
    return tuple(found)


def _name(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix()


def _by_list(source: Path, labels: Mapping[str, str], file: Path) -> tuple[RawImage, ...]:
    found = {_name(path, source): path for path in images_below(source)}
    missing = [name for name in labels if name not in found]
    if missing:
        raise DataError(f"{file}: names {len(missing)} files that are not below {source}: {listed(missing, 3)}")
    unknown = [name for name in found if name not in labels and not _in_truth(name)]
    if unknown:
        raise DataError(
            f"{file}: lacks {len(unknown)} images of {source}: {listed(unknown, 3)}; label them good, a defect type, "
            f"or {SKIP}"
        )
    return tuple(RawImage(found[name], name, label) for name, label in labels.items() if label != SKIP)


def _in_truth(name: str) -> bool:
    return any(is_truth_folder(part) for part in PurePosixPath(name).parts[:-1])


def _read_labels(path: Path) -> dict[str, str]:
    text = read_regular(path, _MAX_LIST_BYTES, what="a list of labels").decode("utf-8-sig", errors="replace")
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    columns = [name.strip().casefold() for name in rows.fieldnames or ()]
    if "file" not in columns or "label" not in columns:
        raise DataError(f"{path}: the first line must name the columns file and label, not {listed(columns) or 'none'}")
    rows.fieldnames = columns
    labels: dict[str, str] = {}
    try:
        for row in rows:
            name, label = ((row[column] or "").strip() for column in ("file", "label"))
            name = PurePosixPath(name.replace("\\", "/")).as_posix()
            check_label(label, f"{path}: line {rows.line_num}")
            label = GOOD if is_good(label) else label
            if labels.setdefault(name, label) != label:
                raise DataError(f"{path}: line {rows.line_num}: {name} is {labels[name]} and {label}")
    except csv.Error as error:
        raise DataError(f"{path}: line {rows.line_num}: not CSV ({error})") from error
    return labels


def check_label(label: str, where: str) -> None:
    """DataError unless a label is fit for a folder's name, which it becomes."""
    if not label or label in (".", "..") or any(c in label for c in '/\\:*?"<>|') or not label.isprintable():
        raise DataError(f"{where}: the label {label!r} must be good, {SKIP}, or a defect type fit for a folder's name")


def in_shooting_order(images: Sequence[RawImage], order: str) -> tuple[RawImage, ...]:
    """Images as they were shot.

    Args:
        order: "name" (natural order of the files' names, whatever folder they are in), "exif" (the time that the
            camera wrote), or the path of a list: one path below the source a line.

    Raises:
        DataError: an image without a time, or that the list lacks.
    """
    if order == "name":
        return tuple(sorted(images, key=lambda image: (natural_key(image.path.name), natural_key(image.name))))
    if order == "exif":
        times = {image.name: _shot_at(image.path) for image in images}
        lost = [name for name, time in times.items() if not time]
        if lost:
            raise DataError(
                f"--order exif: {len(lost)} of {len(images)} images have no EXIF time (DateTimeOriginal): "
                f"{listed(lost, 3)}; order them by name, or by a list"
            )
        return tuple(sorted(images, key=lambda image: (times[image.name], natural_key(image.path.name))))
    return _by_order_list(images, Path(order))


def _by_order_list(images: Sequence[RawImage], path: Path) -> tuple[RawImage, ...]:
    if not path.is_file():
        raise ConfigError(f"--order {path}: must be name, exif, or a file that lists images one a line")
    text = read_regular(path, _MAX_LIST_BYTES, what="a list of images").decode("utf-8-sig", errors="replace")
    names = [PurePosixPath(line.strip().replace("\\", "/")).as_posix() for line in text.splitlines() if line.strip()]
    place: dict[str, int] = {}
    for number, name in enumerate(names):
        if place.setdefault(name, number) != number:
            raise DataError(f"{path}: names {name} twice")
    missing = [image.name for image in images if image.name not in place]
    if missing:
        raise DataError(f"{path}: lacks {len(missing)} of the images: {listed(missing, 3)}")
    return tuple(sorted(images, key=lambda image: place[image.name]))


def _shot_at(path: Path) -> str:
    """DateTimeOriginal with its fraction of a second, "2024:05:17 08:12:33.250"; "" where the file has none."""
    try:
        with (
            open_regular(path, MAX_FILE_BYTES, what="an image") as file,
            Image.open(file, formats=_EXIF_FORMATS) as image,
        ):
            tags = image.getexif().get_ifd(ExifTags.IFD.Exif)
    except AndonError:
        raise
    except Exception:  # decoders raise anything on damaged files; whoever reads the pixels names it
        return ""
    time, fraction = tags.get(ExifTags.Base.DateTimeOriginal), tags.get(ExifTags.Base.SubsecTimeOriginal)
    text = str(time or "").strip("\0 ")
    return f"{text}.{str(fraction or '0').strip(chr(0) + ' ')}" if any(c.isdigit() for c in text) else ""
