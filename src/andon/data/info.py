"""What a data set holds, and everything that is wrong with it.

The overview is the study's Table 3; the problems are what would otherwise show up as a strange number at the end of a
long run: masks that do not fit, images that are in training and test alike, files that nobody reads.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from andon._tools.parallel import ordered_map
from andon.core import AndonError, Category, Dataset, ImageArray, Note, ProgressCallback, Sample, Severity, no_progress
from andon.data._strays import stray, stray_at_root
from andon.data.drawn import DrawnReader
from andon.data.files import FileReader, check_mask_size

__all__ = ["CategoryInfo", "DatasetInfo", "Problem", "ProblemGroup", "Severity", "dataset_info", "problem_groups"]

_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
_DARK = 16
"""Brightest value, of 255, up to which a whole image counts as almost black: 12 bits in a 16-bit file reach 16."""


@dataclass(frozen=True)
class Problem:
    """One inconsistency.

    Attributes:
        severity: see ``andon.core.Severity``.
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
class ProblemGroup:
    """The problems of one kind.

    Attributes:
        severity, kind: theirs.
        problems: all of them, in order.
    """

    severity: Severity
    kind: str
    problems: tuple[Problem, ...]

    def lines(self, most: int = 3) -> list[str]:
        """The messages of the first ``most`` problems, and a line that counts the rest."""
        lines = [problem.message for problem in self.problems[:most]]
        rest = len(self.problems) - len(lines)
        return [*lines, f"… and {rest:,} more of this kind ({self.kind})"] if rest else lines


def problem_groups(problems: Iterable[Problem]) -> tuple[ProblemGroup, ...]:
    """Problems by severity and kind, errors first."""
    groups: defaultdict[tuple[Severity, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[problem.severity, problem.kind].append(problem)
    found = [ProblemGroup(severity, kind, tuple(members)) for (severity, kind), members in groups.items()]
    return tuple(sorted(found, key=lambda group: _SEVERITIES.index(group.severity)))


@dataclass(frozen=True)
class CategoryInfo:
    """One row of the overview.

    Attributes:
        heights, widths: (smallest, largest) of the readable images; None where there are none.
        defects: test images by defect type.
        channels: ground-truth regions by defect name.
        train_defective: defective images in the owner's training part, which nothing learns from.
        validation: images that are neither learnt nor judged.
    """

    name: str
    heights: tuple[int, int] | None
    widths: tuple[int, int] | None
    train: int
    test_good: int
    test_defective: int
    defects: dict[str, int] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)
    train_defective: int = 0
    validation: int = 0

    @property
    def total(self) -> int:
        return self.train + self.train_defective + self.validation + self.test_good + self.test_defective

    @property
    def image_size(self) -> str:
        """Width × height, as in the study: "1000 × 750", or "103–632 × 222–403" where images differ."""
        if self.heights is None or self.widths is None:
            return "–"
        return " × ".join(str(low) if low == high else f"{low}–{high}" for low, high in (self.widths, self.heights))


@dataclass(frozen=True)
class DatasetInfo:
    """The overview of a data set and its problems, errors first.

    Attributes:
        rule: which images are for training and which for testing, and who says so.
    """

    name: str
    layout: str
    root: Path
    categories: tuple[CategoryInfo, ...]
    problems: tuple[Problem, ...]
    rule: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The study's Table 3, and more where a data set has more than training and test images."""
        return ("Category", "Image size", *self._counts().values())

    def table_rows(self) -> list[tuple[str | int, ...]]:
        """One row a category and one of sums, under ``columns``."""
        counts = self._counts()
        rows = [(c.name, c.image_size, *(getattr(c, name) for name in counts)) for c in self.categories]
        sums = [sum(getattr(c, name) for c in self.categories) for name in counts]
        return [*rows, ("Total", "", *sums)]

    def _counts(self) -> dict[str, str]:
        """Titles of the columns by the counts in them."""
        return {
            name: title
            for name, title in _COUNTS.items()
            if name not in _OPTIONAL or any(getattr(c, name) for c in self.categories)
        }

    def count(self, severity: Severity) -> int:
        """How many problems of a severity there are."""
        return sum(problem.severity == severity for problem in self.problems)

    def groups(self) -> tuple[ProblemGroup, ...]:
        """The problems by kind, errors first."""
        return problem_groups(self.problems)

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able values; paths as texts."""
        problems = [{**asdict(problem), "file": str(problem.file)} for problem in self.problems]
        categories = [{**asdict(c), "image_size": c.image_size, "total": c.total} for c in self.categories]
        return {
            "name": self.name,
            "layout": self.layout,
            "root": str(self.root),
            "rule": self.rule,
            "categories": categories,
            "counts": {severity: self.count(severity) for severity in _SEVERITIES},
            "problems": problems,
        }


_COUNTS = {
    "train": "Train",
    "train_defective": "Train not-OK",
    "validation": "Validation",
    "test_good": "Test OK",
    "test_defective": "Test not-OK",
    "total": "Total",
}
_OPTIONAL = ("train_defective", "validation")


def dataset_info(
    dataset: Dataset, *, progress: ProgressCallback = no_progress, threads: int | None = None
) -> DatasetInfo:
    """Reads every image and mask of a data set once and tells what is in it and what is wrong.

    A few threads decode, which is nearly all of the time; memory holds a few images and 40 bytes of each. No check can
    do without the pixels: a file may be damaged anywhere, and the same image may be in files of two kinds.

    Args:
        progress: called with ("images", done, total).
        threads: how many decode at once; None takes the machine's cores, at most 8.
    """
    total = sum(len(category.samples) for category in dataset)
    categories: list[CategoryInfo] = []
    problems = [_problem("", note) for note in stray_at_root(dataset)]
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
    return DatasetInfo(dataset.name, dataset.layout, dataset.root, tuple(categories), tuple(problems), dataset.rule)


def _problem(category: str, note: Note) -> Problem:
    return Problem(note.severity, note.kind, category, note.file, note.message)


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
        finding.content = _likeness(image)
        brightest = int(image.max())
        if brightest == int(image.min()):
            note.append(("warning", "blank-image", sample.path, f"{sample.path}: all pixels are the same"))
        elif brightest <= _DARK:
            text = f"{sample.path}: almost black, brightest value {brightest} of 255 (12-bit values in a 16-bit file?)"
            note.append(("warning", "dark-image", sample.path, text))
    for path in sample.mask_paths:
        _examine_mask(finding, path)
    if isinstance(sample.reader, DrawnReader) and sample.mask_paths and finding.size is not None:
        _examine_drawn(finding)
    return finding


def _examine_drawn(finding: _Finding) -> None:
    """What is written down instead of painted: it can be read, or not."""
    try:
        truth = finding.sample.ground_truth()
    except AndonError as error:
        finding.notes.append(("error", "unreadable-mask", finding.sample.mask_paths[0], str(error)))
        return
    for channel in () if truth is None else truth.channels:
        finding.channels.append((channel.defect, int(np.count_nonzero(channel.mask))))


def _likeness(image: ImageArray) -> bytes:
    """The same for images that are the same, and hardly ever otherwise; a tenth of the time of a hash that is sure."""
    flat = np.ascontiguousarray(image).reshape(-1)
    words = flat[: flat.size // 8 * 8].view(np.uint64)
    sums = np.bitwise_xor.reduce(words), np.add.reduce(words)
    digest = hashlib.blake2b(repr((image.shape, *map(int, sums))).encode(), digest_size=16)
    digest.update(flat[words.size * 8 :].data)
    digest.update(np.ascontiguousarray(image[::16]).data)
    return digest.digest()


def _surely(sample: Sample) -> bytes:
    """Hash of all pixels; empty where they cannot be read any more."""
    try:
        image = sample.image()
    except AndonError:
        return b""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _examine_mask(finding: _Finding, path: Path) -> None:
    sample, note = finding.sample, finding.notes
    if not isinstance(sample.reader, FileReader):
        return
    try:
        values = sample.reader.mask(path)
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
        note.append(("error", "full-mask", path, f"{path}: every pixel of the mask is positive (inverted?)"))
    elif positive.min() != positive.max() and not sample.reader.several_values:
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
        train=len(category.train),
        test_good=sum(not sample.is_defective for sample in test),
        test_defective=sum(defects.values()),
        defects=dict(sorted(defects.items())),
        channels=dict(sorted(channels.items())),
        train_defective=len(category.select("train", defective=True)),
        validation=len(category.select("validation")),
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
    for found in (*category.notes, *(() if category.whole else stray(category))):
        yield _problem(name, found)


def _duplicates(findings: list[_Finding]) -> Iterator[tuple[Severity, str, Path, str]]:
    """Images with exactly the same pixels: in training and test, good and defective, or twice in one place."""
    same: defaultdict[bytes, list[Sample]] = defaultdict(list)
    for finding in findings:
        if finding.content:
            same[finding.content].append(finding.sample)
    for samples in _same(same.values()):
        first, *others = samples
        for other in others:
            text = f"{other.path}: the same image as {first.path}"
            if other.split != first.split:
                yield "error", "duplicate-across-split", other.path, f"{text}, which is in {first.split}"
            elif other.is_defective != first.is_defective:
                yield "error", "duplicate-across-label", other.path, f"{text}, which is {first.defect_type}"
            else:
                yield "info", "duplicate", other.path, text


def _same(alike: Iterable[list[Sample]]) -> Iterator[list[Sample]]:
    """Of images that look alike those that are the same: few, so that all their pixels are read once more."""
    for samples in alike:
        if len(samples) < 2:
            continue
        sure: defaultdict[bytes, list[Sample]] = defaultdict(list)
        for sample, digest in zip(samples, ordered_map(_surely, samples), strict=True):
            sure[digest].append(sample)
        yield from (members for digest, members in sure.items() if digest and len(members) > 1)
