"""What a data set holds, and everything that is wrong with it.

The overview is the study's Table 3; the problems are what would otherwise show up as a strange number at the end of a
long run: masks that do not fit, images that are in training and test alike, files that nobody reads.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from andon._tools.parallel import ordered_map
from andon.core import AndonError, Category, Dataset, ProgressCallback, Sample, listed, no_progress
from andon.data.decode import read_mask
from andon.data.files import FileReader, check_mask_size, list_folder, natural_key

__all__ = ["CategoryInfo", "DatasetInfo", "Problem", "Severity", "dataset_info"]

Severity = Literal["error", "warning", "info"]
"""error: results would be wrong or impossible; warning: look at it; info: good to know."""

_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
_DARK = 16
"""Brightest value, of 255, up to which a whole image counts as almost black: 12 bits in a 16-bit file reach 16."""


@dataclass(frozen=True)
class Problem:
    """One inconsistency.

    Attributes:
        severity: see ``Severity``.
        kind: short, stable name ("missing-mask"), to filter by.
        category: the category's name; "" where it is about the whole data set.
        file: what it is about.
        message: one line that names the file.
    """

    severity: Severity
    kind: str
    category: str
    file: Path
    message: str


@dataclass(frozen=True)
class CategoryInfo:
    """One row of the overview.

    Attributes:
        heights, widths: (smallest, largest) of the readable images; None where there are none.
        defects: test images by defect type.
        channels: ground-truth regions by defect name.
    """

    name: str
    heights: tuple[int, int] | None
    widths: tuple[int, int] | None
    train: int
    test_good: int
    test_defective: int
    defects: dict[str, int] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.train + self.test_good + self.test_defective

    @property
    def image_size(self) -> str:
        """Width × height, as in the study: "1000 × 750", or "103–632 × 222–403" where images differ."""
        if self.heights is None or self.widths is None:
            return "–"
        return " × ".join(str(low) if low == high else f"{low}–{high}" for low, high in (self.widths, self.heights))


@dataclass(frozen=True)
class DatasetInfo:
    """The overview of a data set and its problems, errors first."""

    name: str
    layout: str
    root: Path
    categories: tuple[CategoryInfo, ...]
    problems: tuple[Problem, ...]

    columns = ("Category", "Image size", "Train", "Test OK", "Test not-OK", "Total")

    def table_rows(self) -> list[tuple[str, str, int, int, int, int]]:
        """The study's Table 3: one row a category and one of sums, under ``columns``."""
        rows = [(c.name, c.image_size, c.train, c.test_good, c.test_defective, c.total) for c in self.categories]
        sums = [sum(getattr(c, name) for c in self.categories) for name in _COUNTS]
        return [*rows, ("Total", "", *sums)]

    def count(self, severity: Severity) -> int:
        """How many problems of a severity there are."""
        return sum(problem.severity == severity for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able values; paths as texts."""
        problems = [{**asdict(problem), "file": str(problem.file)} for problem in self.problems]
        categories = [{**asdict(c), "image_size": c.image_size, "total": c.total} for c in self.categories]
        return {
            "name": self.name,
            "layout": self.layout,
            "root": str(self.root),
            "categories": categories,
            "problems": problems,
        }


_COUNTS = ("train", "test_good", "test_defective", "total")


def dataset_info(
    dataset: Dataset, *, progress: ProgressCallback = no_progress, threads: int | None = None
) -> DatasetInfo:
    """Reads every image and mask of a data set once and tells what is in it and what is wrong.

    A few threads decode; memory holds a few images and 16 bytes of hash for each.

    Args:
        progress: called with ("images", done, total).
        threads: how many decode at once; None takes the machine's cores, at most 8.
    """
    total = sum(len(category.samples) for category in dataset)
    categories: list[CategoryInfo] = []
    problems: list[Problem] = list(_stray_at_root(dataset))
    done = 0
    for category in dataset:
        findings: list[_Finding] = []
        for finding in ordered_map(_examine, category.samples, threads):
            findings.append(finding)
            done += 1
            progress("images", done, total)
        categories.append(_summarise(category, findings))
        problems += _problems(category, findings)
    problems.sort(key=lambda p: _SEVERITIES.index(p.severity))
    return DatasetInfo(dataset.name, dataset.layout, dataset.root, tuple(categories), tuple(problems))


# --- one image ------------------------------------------------------------------------------------------------------


@dataclass
class _Finding:
    """What looking at one sample gave."""

    sample: Sample
    size: tuple[int, int] | None = None
    content: bytes = b""
    channels: list[tuple[str, int]] = field(default_factory=list)
    """Defect name and area."""
    notes: list[tuple[Severity, str, Path, str]] = field(default_factory=list)


def _examine(sample: Sample) -> _Finding:
    finding = _Finding(sample)
    note = finding.notes
    try:
        image = sample.image()
    except AndonError as error:
        note.append(("error", "unreadable-image", sample.path, str(error)))
    else:
        finding.size = (image.shape[0], image.shape[1])
        digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
        digest.update(image.tobytes())
        finding.content = digest.digest()
        brightest = int(image.max())
        if brightest == int(image.min()):
            note.append(("warning", "blank-image", sample.path, f"{sample.path}: all pixels are the same"))
        elif brightest <= _DARK:
            text = f"{sample.path}: almost black, brightest value {brightest} of 255 (12-bit values in a 16-bit file?)"
            note.append(("warning", "dark-image", sample.path, text))
    for path in sample.mask_paths:
        _examine_mask(finding, path)
    return finding


def _examine_mask(finding: _Finding, path: Path) -> None:
    sample, note = finding.sample, finding.notes
    if not isinstance(sample.reader, FileReader):
        return
    try:
        values = read_mask(path)
    except AndonError as error:
        note.append(("error", "unreadable-mask", path, str(error)))
        return
    try:
        if finding.size is not None:
            check_mask_size(sample, path, values, finding.size)
    except AndonError as error:
        note.append(("error", "size-mismatch", path, str(error)))
    try:
        channel = sample.reader.channel(sample, path, values)
    except AndonError as error:
        note.append(("error", "unknown-value", path, str(error)))
        return
    finding.channels.append((channel.defect, int(np.count_nonzero(channel.mask))))
    positive = values[channel.mask]
    if positive.size == 0:
        note.append(("warning", "empty-mask", path, f"{path}: the mask has no positive pixel"))
    elif positive.size == values.size:
        note.append(("warning", "full-mask", path, f"{path}: every pixel of the mask is positive (inverted?)"))
    elif positive.min() != positive.max():
        text = f"{path}: the mask has grey levels ({positive.min()}..{positive.max()}); every positive pixel counts"
        note.append(("warning", "grey-mask", path, text))


# --- one category -----------------------------------------------------------------------------------------------------


def _summarise(category: Category, findings: list[_Finding]) -> CategoryInfo:
    sizes = [finding.size for finding in findings if finding.size is not None]
    heights, widths = [height for height, _ in sizes], [width for _, width in sizes]
    test = category.test
    defects = Counter(sample.defect_type for sample in test if sample.is_defective)
    channels = Counter(name for finding in findings for name, _ in finding.channels)
    return CategoryInfo(
        name=category.name,
        heights=(min(heights), max(heights)) if sizes else None,
        widths=(min(widths), max(widths)) if sizes else None,
        train=len(category.select("train")),
        test_good=sum(not sample.is_defective for sample in test),
        test_defective=sum(defects.values()),
        defects=dict(sorted(defects.items())),
        channels=dict(sorted(channels.items())),
    )


def _problems(category: Category, findings: list[_Finding]) -> Iterator[Problem]:
    def problem(severity: Severity, kind: str, file: Path, message: str) -> Problem:
        return Problem(severity, kind, category.name, file, message)

    for finding in findings:
        for note in finding.notes:
            yield problem(*note)
    root, name = category.root, category.name
    test_good = category.select("test", defective=False)
    defective = category.select("test", defective=True)
    if not category.train:
        yield problem("error", "no-training-images", root, f"{root}: {name} has no good training images")
    if not defective:
        yield problem("warning", "no-defects", root, f"{root}: {name} has no defective images: nothing can be judged")
    elif not test_good:
        text = f"{root}: {name} has defective test images but no good ones: no rate of false alarms can be measured"
        yield problem("error", "no-good-test-images", root, text)
    without = [sample for sample in defective if not sample.mask_paths]
    if without and len(without) == len(defective):
        text = f"{root}: {name} has no masks: images can be judged, the places of the defects cannot"
        yield problem("info", "no-masks", root, text)
    else:
        for sample in without:
            yield problem("error", "missing-mask", sample.path, f"{sample.path}: the defective image has no mask")
    sizes = Counter(finding.size for finding in findings if finding.size is not None)
    if len(sizes) > 1:
        (height, width), most = sizes.most_common(1)[0]
        text = f"{root}: {name} has images of {len(sizes)} sizes; the most frequent, {width} × {height}, {most} times"
        yield problem("info", "mixed-sizes", root, text)
    config = root / "defects_config.json"
    areas: defaultdict[str, list[int]] = defaultdict(list)
    for finding in findings:
        for defect, area in finding.channels:
            areas[defect].append(area)
    for entry in category.defects:
        if not areas[entry.name]:
            text = f"{config}: the entry {entry.name} ({entry.pixel_value}) is never used"
            yield problem("info", "unused-entry", config, text)
        smaller = sum(area < entry.saturation_threshold for area in areas[entry.name])
        if smaller and not entry.relative:
            text = (
                f"{config}: {smaller} of {len(areas[entry.name])} masks of {entry.name} are smaller than its threshold "
                f"of {entry.saturation_threshold:g} pixels: all of such a region must be found"
            )
            yield problem("info", "threshold-above-area", config, text)
    for severity, kind, file, text in _duplicates(findings):
        yield problem(severity, kind, file, text)
    for severity, kind, file, text in _stray(category):
        yield problem(severity, kind, file, text)


def _duplicates(findings: list[_Finding]) -> Iterator[tuple[Severity, str, Path, str]]:
    """Images with exactly the same pixels: in training and test, good and defective, or twice in one place."""
    same: defaultdict[bytes, list[Sample]] = defaultdict(list)
    for finding in findings:
        if finding.content:
            same[finding.content].append(finding.sample)
    for samples in same.values():
        first, *others = samples
        for other in others:
            text = f"{other.path}: the same image as {first.path}"
            if other.split != first.split:
                yield "error", "duplicate-across-split", other.path, f"{text}, which is in {first.split}"
            elif other.is_defective != first.is_defective:
                yield "error", "duplicate-across-label", other.path, f"{text}, which is {first.defect_type}"
            else:
                yield "info", "duplicate", other.path, text


def _stray(category: Category) -> Iterator[tuple[Severity, str, Path, str]]:
    """Files in the category's folder that nobody reads, one record a folder."""
    known = {path for sample in category.samples for path in (sample.path, *sample.mask_paths)}
    known.add(category.root / "defects_config.json")
    for folder in _folders(category.root):
        listing = list_folder(folder)
        unread = [name for name in listing.images if folder / name not in known]
        others = [name for name in listing.others if folder / name not in known]
        inside = folder.relative_to(category.root).parts
        if unread and inside[:1] == ("ground_truth",):
            text = f"{folder}: {_files(unread, 'mask')} of no defective image: {listed(unread)}"
            yield "warning", "mask-without-image", folder, text
        elif unread:
            text = f"{folder}: {_files(unread, 'image')} not read, the layout has no place for them: {listed(unread)}"
            yield "warning", "unread-image", folder, text
        if others:
            yield "info", "no-image", folder, f"{folder}: {_files(others, 'file')} no image: {listed(others)}"
        if not (listing.images or listing.folders or listing.others):
            yield "info", "empty-folder", folder, f"{folder}: an empty folder"


def _files(names: list[str], what: str) -> str:
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'}"


def _stray_at_root(dataset: Dataset) -> Iterator[Problem]:
    """Folders beside the categories that hold images, but are no category."""
    roots = {category.root for category in dataset}
    if dataset.root in roots:
        return
    for name in list_folder(dataset.root).folders:
        folder = dataset.root / name
        if folder not in roots and any(list_folder(below).images for below in _folders(folder)):
            text = f"{folder}: has images, but is no category of this layout or was not asked for"
            yield Problem("info", "no-category", "", folder, text)


def _folders(root: Path) -> Iterator[Path]:
    """A folder and all below it, in natural order; links are not followed."""
    for folder, names, _ in os.walk(root):
        names[:] = sorted((name for name in names if not name.startswith(".")), key=natural_key)
        yield Path(folder)
