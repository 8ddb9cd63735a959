"""A preparation before anything is written: where each image is cut, what becomes of it and why, what is alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from andon._tools.parallel import ordered_map
from andon.core import GOOD, AndonError, ConfigError, DataError, ProgressCallback, Split, listed, no_progress
from andon.data.decode import read_image
from andon.data.files import natural_key
from andon.data.preparing.annotations import Annotations, read_annotations
from andon.data.preparing.appearance import Appearance, BlurLimit, appearance_of, blur_limit
from andon.data.preparing.cutting import Cutter, Place, make_cutter
from andon.data.preparing.duplicates import DuplicatePair, Fingerprints, duplicate_groups, small_copy
from andon.data.preparing.options import PrepareOptions, Saturation
from andon.data.preparing.sources import RawImage, check_label, find_raw_images, in_shooting_order

__all__ = ["PlannedImage", "Preparation", "Rejection", "plan_preparation"]

MULTIPLE = "multiple"
"""Defect type of an image whose regions are of several defects, where nothing else says it."""


class Rejection(NamedTuple):
    """Why an image is left out.

    Attributes:
        kind: "unreadable", "not found", "displaced", "off the edge", "blurred", "duplicate" or "no region left".
        reason: with the figures.
    """

    kind: str
    reason: str


@dataclass(frozen=True)
class PlannedImage:
    """What becomes of a raw image.

    Attributes:
        raw: it.
        number: its place in the shooting order, from 0: the name of its file.
        place: where the inspection area is; None where it could not be read.
        appearance: of the prepared image; None where there is none.
        rejected: None where it is taken.
        split: where it goes; of a rejected image where it would have gone.
    """

    raw: RawImage
    number: int
    place: Place | None
    appearance: Appearance | None
    rejected: Rejection | None = None
    split: Split = "train"

    @property
    def target(self) -> str:
        """Its path in the category: "test/good/0137.png"."""
        return f"{self.split}/{self.raw.label}/{self.number:04d}.png"


@dataclass(frozen=True)
class Preparation:
    """All of it, for ``write`` and the contact sheets.

    Attributes:
        source: the folder of the raw images.
        options: what was asked for.
        images: in shooting order.
        cutter: cuts them.
        annotations: None without masks.
        saturation: of each defect name, in the order of the pixel values from 255 down.
        blur: what counted as blurred.
        duplicates: pairs of numbers of images that were neither rejected for another reason.
        notes: what else a user has to know, one line each.
    """

    source: Path
    options: PrepareOptions
    images: tuple[PlannedImage, ...]
    cutter: Cutter
    annotations: Annotations | None
    saturation: Mapping[str, Saturation]
    blur: BlurLimit
    duplicates: tuple[DuplicatePair, ...]
    notes: tuple[str, ...]

    @property
    def taken(self) -> tuple[PlannedImage, ...]:
        """The images that are not rejected."""
        return tuple(image for image in self.images if image.rejected is None)

    @property
    def rejected(self) -> tuple[PlannedImage, ...]:
        return tuple(image for image in self.images if image.rejected is not None)

    @property
    def leaks(self) -> tuple[DuplicatePair, ...]:
        """The near duplicates of which one is for training and the other for testing, both of them taken."""
        return tuple(
            pair
            for pair in self.duplicates
            if self.images[pair.first].rejected is None
            and self.images[pair.second].rejected is None
            and self.images[pair.first].split != self.images[pair.second].split
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able values: what ``prepare.json`` holds."""
        return {
            "source": str(self.source),
            "options": self.options.model_dump(mode="json"),
            "blurred_below": self.blur.least,
            "images": [_entry(image) for image in self.images],
            "near_duplicates": [
                {"images": [self.images[n].raw.name for n in pair[:2]], "correlation": round(pair.correlation, 4)}
                for pair in self.duplicates
            ],
            "notes": list(self.notes),
        }

    def count(self, split: Split, *, good: bool) -> int:
        """How many images are taken into a split."""
        return sum(image.split == split and (image.raw.label == GOOD) == good for image in self.taken)


def _entry(image: PlannedImage) -> dict[str, Any]:
    entry: dict[str, Any] = {"file": image.raw.name, "label": image.raw.label}
    if image.rejected:
        entry |= {"rejected": image.rejected.kind, "reason": image.rejected.reason}
    else:
        entry["prepared"] = image.target
    if image.place:
        entry |= {key: round(value, 3) for key, value in image.place._asdict().items()}
    if image.appearance:
        entry |= {key: round(value, 5) for key, value in image.appearance._asdict().items()}
    return entry


def plan_preparation(
    source: Path, options: PrepareOptions | None = None, progress: ProgressCallback = no_progress
) -> Preparation:
    """Looks at all raw images once, and decides. Nothing is written.

    Args:
        source: see ``find_raw_images``.
        options: what is wanted.
        progress: called with ("raw images", done, total).

    Raises:
        AndonError: no images or labels, options that do not fit, masks on good images, no good image left.
    """
    options = options or PrepareOptions()
    raw, annotations = _labelled(source, options)
    images = in_shooting_order(raw, options.order)
    cutter = make_cutter(images, options)
    planned: list[PlannedImage] = []
    prints: dict[int, _Copy] = {}

    def look(number: int) -> tuple[PlannedImage, _Copy | None]:
        return _looked_at(images[number], number, cutter, options, annotations)

    for number, (image, copy) in enumerate(ordered_map(look, range(len(images)))):
        planned.append(image)
        if copy is not None:
            prints[number] = copy
        progress("raw images", number + 1, len(images))
    blur = blur_limit([i.appearance.sharpness for i in planned if i.appearance and not i.rejected], options.blur)
    planned = _without_displaced([_without_blurred(image, blur) for image in planned], options)
    pairs = _pairs(planned, prints)
    if options.duplicates == "drop":
        planned = _without_duplicates(planned, pairs)
    planned = _split(planned, options.train)
    saturation = _saturation(annotations, options)
    notes = tuple(_notes(planned, annotations, options))
    return Preparation(source, options, tuple(planned), cutter, annotations, saturation, blur, pairs, notes)


_Copy = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def _labelled(source: Path, options: PrepareOptions) -> tuple[list[RawImage], Annotations | None]:
    """Images with their labels; of a flat folder with masks the regions say what is defective."""
    raw = find_raw_images(source, options.labels, unlabelled="" if options.masks else GOOD)
    if options.masks is None:
        return list(raw), None
    annotations = read_annotations(options.masks, raw)
    labelled = []
    for image in raw:
        defects = dict.fromkeys(region.defect for region in annotations.regions.get(image.name, ()))
        label = image.label or (GOOD if not defects else next(iter(defects)) if len(defects) == 1 else MULTIPLE)
        check_label(label, str(options.masks))
        labelled.append(replace(image, label=label))
    wrong = [image.name for image in labelled if image.label == GOOD and image.name in annotations.regions]
    if wrong:
        raise DataError(
            f"{options.masks}: has regions on {len(wrong)} images that are labelled good: {listed(wrong, 3)}; label "
            "them as defective, or take the regions away"
        )
    return labelled, annotations


def _looked_at(
    raw: RawImage, number: int, cutter: Cutter, options: PrepareOptions, annotations: Annotations | None
) -> tuple[PlannedImage, _Copy | None]:
    try:
        image = read_image(raw.path)
        place = cutter.locate(image)
    except AndonError as error:
        return PlannedImage(raw, number, None, None, Rejection("unreadable", _of_file(error, raw))), None
    if place.score < options.confidence:
        reason = f"best correlation with a template {place.score:.2f}, below {options.confidence:g}"
        return PlannedImage(raw, number, place, None, Rejection("not found", reason)), None
    try:
        prepared = cutter.image(image, place)
    except DataError as error:
        return PlannedImage(raw, number, place, None, Rejection("off the edge", str(error))), None
    seen = PlannedImage(raw, number, place, appearance_of(prepared))
    regions = () if annotations is None else annotations.regions.get(raw.name, ())
    masks = [region.draw((image.shape[0], image.shape[1])) for region in regions]
    if masks and not any(cutter.mask(mask, place).any() for mask in masks):
        return replace(seen, rejected=Rejection("no region left", "all of its regions lie outside the crop")), None
    return seen, small_copy(prepared)


def _of_file(error: AndonError, raw: RawImage) -> str:
    return str(error).removeprefix(f"{raw.path}: ")


def _without_blurred(image: PlannedImage, limit: BlurLimit) -> PlannedImage:
    if image.rejected or image.appearance is None or image.appearance.sharpness >= limit.least:
        return image
    reason = f"sharpness {image.appearance.sharpness:.3g}, below {limit.least:.3g} (median {limit.median:.3g})"
    return replace(image, rejected=Rejection("blurred", reason))


def _without_displaced(planned: list[PlannedImage], options: PrepareOptions) -> list[PlannedImage]:
    places = [image.place for image in planned if image.place and not image.rejected]
    if options.displacement is None or not places:
        return planned
    x, y = (float(np.median([getattr(place, axis) for place in places])) for axis in "xy")

    def judged(image: PlannedImage) -> PlannedImage:
        if image.rejected or image.place is None:
            return image
        away = math.hypot(image.place.x - x, image.place.y - y)
        if away <= options.displacement:  # type: ignore[operator]  # not None, see above
            return image
        reason = f"{away:.0f} pixels from the median place, more than {options.displacement:g}"
        return replace(image, rejected=Rejection("displaced", reason))

    return [judged(image) for image in planned]


def _pairs(planned: Sequence[PlannedImage], copies: Mapping[int, _Copy]) -> tuple[DuplicatePair, ...]:
    kept = [image.number for image in planned if image.rejected is None]
    found = Fingerprints([copies[number] for number in kept]).pairs()
    return tuple(DuplicatePair(kept[pair.first], kept[pair.second], pair.correlation) for pair in found)


def _without_duplicates(planned: list[PlannedImage], pairs: Sequence[DuplicatePair]) -> list[PlannedImage]:
    first_of = {number: group[0] for group in duplicate_groups(pairs) for number in group[1:]}

    def judged(image: PlannedImage) -> PlannedImage:
        if image.number not in first_of:
            return image
        first = planned[first_of[image.number]].raw
        return replace(image, rejected=Rejection("duplicate", f"shows the same as {first.name}"))

    return [judged(image) for image in planned]


def _split(planned: list[PlannedImage], share: float) -> list[PlannedImage]:
    """The first good images for training, in shooting order; the rest, and all defective ones, for testing."""
    good = [image.number for image in planned if image.rejected is None and image.raw.label == GOOD]
    if not good:
        raise DataError("no good image is left: nothing could be learned from")
    defective = any(image.rejected is None and image.raw.label != GOOD for image in planned)
    wanted = math.ceil(share * len(good))
    if share < 1 and defective and len(good) > 1:
        wanted = min(wanted, len(good) - 1)  # without a good test image nothing can be compared
    last = good[wanted - 1]
    return [
        replace(image, split="train" if image.raw.label == GOOD and image.number <= last else "test")
        for image in planned
    ]


def _saturation(annotations: Annotations | None, options: PrepareOptions) -> dict[str, Saturation]:
    if annotations is None:
        return {}
    names = sorted({r.defect for regions in annotations.regions.values() for r in regions}, key=natural_key)
    unknown = [name for name in options.saturation if name not in names]
    if unknown:
        raise ConfigError(f"--saturation {unknown[0]}: no region is called so; there are {listed(names) or 'none'}")
    if len(names) > 255:
        raise DataError(f"{options.masks}: {len(names)} names of defects; a mask's pixel can say 255")
    return {name: options.saturation.get(name, options.default) for name in names}


def _notes(planned: Sequence[PlannedImage], annotations: Annotations | None, options: PrepareOptions) -> list[str]:
    notes = []
    defective = [image.raw for image in planned if image.rejected is None and image.raw.label != GOOD]
    if annotations is None and defective:
        notes.append("no masks were given: localisation cannot be judged, and the study's evaluator takes no such set")
    if annotations is not None:
        without = [raw.name for raw in defective if raw.name not in annotations.regions]
        if without:
            notes.append(f"{len(without)} defective images have no region: {listed(without, 3)}")
        if annotations.unknown:
            names = listed(annotations.unknown, 3)
            notes.append(f"{len(annotations.unknown)} names in {options.masks} are no raw image: {names}")
        notes += annotations.left_out
    if not defective:
        notes.append("no image is defective: nothing can be tested with this set")
    return notes
