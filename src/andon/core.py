"""The words that every room of Andon speaks: samples, ground truth, predictions, errors.

This module imports nothing from Andon. Everything else imports from here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "GOOD",
    "AndonError",
    "BoolArray",
    "Category",
    "Channel",
    "ConfigError",
    "DataError",
    "Dataset",
    "DefectConfig",
    "DetectorError",
    "FloatArray",
    "FullFrame",
    "GroundTruth",
    "ImageArray",
    "Note",
    "Prediction",
    "ProgressCallback",
    "Region",
    "Sample",
    "Severity",
    "Split",
    "StoreError",
    "TrainingError",
    "WeightsError",
    "no_progress",
]

ImageArray = npt.NDArray[np.uint8]
"""An image: RGB uint8 ``[H, W, 3]``."""
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

Split = Literal["train", "validation", "test"]
Severity = Literal["error", "warning", "info"]
"""error: results would be wrong or impossible; warning: look at it; info: good to know."""
GOOD = "good"
"""The defect type of a sample that has no defect."""

ProgressCallback = Callable[[str, int, int], None]
"""``progress(stage, done, total)``; stages have short human names ("features", "coreset")."""


def no_progress(stage: str, done: int, total: int) -> None:
    """The progress callback that shows nothing."""


class AndonError(Exception):
    """An error that the user can mend: the message names the file or option, what is wrong and what to do.

    The command line prints the message in one line and exits with code 2; it never shows a traceback for it.

    ::

        AndonError
        ├── DataError        an image, mask, map or data set: unreadable, damaged, of the wrong shape, inconsistent
        ├── ConfigError      an option, a plan, a configuration, a name that nothing has
        ├── WeightsError     learned parts: not found, damaged, of another network or another hash
        ├── DetectorError    a detector's file or state: damaged, of another version, of another method
        ├── TrainingError    a fit that cannot begin or goes wrong: no images, losses that explode, no memory for it
        └── StoreError       a benchmark's store or a station's journal: not one, of another version, damaged, in use
    """

    def __str__(self) -> str:
        # A file's name may hold a line break or a terminal's control characters: the message stays one plain line.
        text = super().__str__()
        return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class DataError(AndonError):
    """An image, mask, map or data set that cannot be read, is damaged, or does not fit together."""


class ConfigError(AndonError):
    """An option, plan or configuration that is not valid, or a name that nothing has."""


class WeightsError(AndonError):
    """Learned parts that are not found, damaged, or of another network."""


class DetectorError(AndonError):
    """A detector's file or state that is damaged, of another version, or of another method."""


class TrainingError(AndonError):
    """A fit that cannot begin, or that goes wrong."""


class StoreError(AndonError):
    """A benchmark's store, or a station's journal, that is none, is of another version, is damaged, or is in use."""


@dataclass(frozen=True)
class DefectConfig:
    """One entry of ``defects_config.json`` (AutoVI and MVTec LOCO layout).

    Attributes:
        name: defect name.
        pixel_value: the mask's positive value, 1..255, that selects this entry.
        saturation_threshold: with ``relative``, a fraction in (0, 1] of the region's area; otherwise pixels.
        relative: whether the threshold is relative to the region's area.
    """

    name: str
    pixel_value: int
    saturation_threshold: float
    relative: bool

    def saturation(self, area: int) -> int:
        """Saturation of a region of ``area`` pixels: ``floor(relative·area)`` or ``min(absolute, area)``, at least 1.

        The official evaluator lets a relative saturation truncate to 0 and divides by it; a region that has a pixel
        saturates at one pixel at the earliest, so the floor here is 1 (0 for an empty region).
        """
        if area <= 0:
            return 0
        if not self.relative:
            return max(1, min(int(self.saturation_threshold), area))
        # The product of doubles is floored as it stands (0.7 · 170 = 118.999… gives 118), as the official evaluator
        # does: one pixel more would be closer to the decimal the user wrote, but not comparable.
        return max(1, int(self.saturation_threshold * area))


@dataclass(frozen=True)
class Channel:
    """One ground-truth region: a mask of one defect, not split into connected components.

    Attributes:
        mask: bool ``[H, W]`` at the image's size.
        defect: defect name.
        saturation: pixels of the region that must be found for it to count as found whole, 1..area
            (0 for an empty mask).
    """

    mask: BoolArray
    defect: str
    saturation: int


@dataclass(frozen=True)
class GroundTruth:
    """All channels of one image; none for a good one."""

    size: tuple[int, int]
    """(height, width) of the image."""
    channels: tuple[Channel, ...] = ()

    def union(self) -> BoolArray:
        """Pixels in any channel, bool ``[H, W]``."""
        out = np.zeros(self.size, dtype=bool)
        for channel in self.channels:
            out |= channel.mask
        return out


class SampleReader(Protocol):
    """What reads a sample's pixels; given by the data set's module, picklable."""

    def image(self, sample: Sample) -> ImageArray:
        """RGB uint8 ``[H, W, 3]``; raises AndonError naming the file if it can't be read safely."""
        ...

    def size(self, sample: Sample) -> tuple[int, int]:
        """(height, width) from the file's header."""
        ...

    def ground_truth(self, sample: Sample) -> GroundTruth | None:
        """The channels; no channel for a good sample; None where a defective one has no mask on disk."""
        ...


@dataclass(frozen=True)
class Sample:
    """One image of a category. Lazy: pixels are read when asked for.

    Attributes:
        id: unique within the category, "/"-separated, without suffix: "test/broken/0003".
        path: the image's file.
        split: "train" or "test"; "validation" where the owner of a data set has such images: neither learnt nor judged.
        defect_type: "good", or the name of the folder of the defect.
        mask_paths: files of the ground truth, one a channel, in order; empty for good ones or where there is none.
    """

    id: str
    path: Path
    split: Split
    defect_type: str
    reader: SampleReader = field(repr=False, compare=False)
    mask_paths: tuple[Path, ...] = ()

    @property
    def is_defective(self) -> bool:
        return self.defect_type != GOOD

    def image(self) -> ImageArray:
        """The image, RGB uint8 ``[H, W, 3]``."""
        return self.reader.image(self)

    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.reader.size(self)

    def ground_truth(self) -> GroundTruth | None:
        """The ground truth; None for a defective sample without masks (its localisation can't be judged)."""
        return self.reader.ground_truth(self)


@dataclass(frozen=True)
class Note:
    """What a layout's reader left out or mended.

    Attributes:
        severity: see ``Severity``.
        kind: short, stable name ("left-out").
        file: what it is about.
        message: one line that names the file.
    """

    severity: Severity
    kind: str
    file: Path
    message: str


@dataclass(frozen=True)
class Category:
    """A named list of samples: one inspection task of a data set.

    Samples are in shooting order (the order of their file names) within each split and defect type.

    Attributes:
        notes: what the layout's reader left out or mended.
        whole: whether the reader looked at everything in the folder, so that what it does not read is in ``notes``.
    """

    name: str
    dataset: str
    root: Path
    samples: tuple[Sample, ...] = field(repr=False)
    defects: tuple[DefectConfig, ...] = ()
    notes: tuple[Note, ...] = field(default=(), repr=False)
    whole: bool = False

    def select(self, split: Split | None = None, defective: bool | None = None) -> tuple[Sample, ...]:
        """The samples of a split and/or label, in order."""
        return tuple(
            s
            for s in self.samples
            if (split is None or s.split == split) and (defective is None or s.is_defective == defective)
        )

    @property
    def train(self) -> tuple[Sample, ...]:
        """Good training samples."""
        return self.select("train", defective=False)

    @property
    def test(self) -> tuple[Sample, ...]:
        return self.select("test")

    @property
    def defect_types(self) -> tuple[str, ...]:
        """Defect types of the test samples, sorted, without "good"."""
        return tuple(sorted({s.defect_type for s in self.test if s.is_defective}))


@dataclass(frozen=True)
class Dataset:
    """A data set: categories by name, in order.

    Attributes:
        name: the data set's name for tables ("autovi", "mvtec", a folder's name).
        layout: "autovi", "mvtec", "folder" or that of a published data set ("visa").
        root: its folder.
        rule: which images are for training and which for testing, and who says so.
    """

    name: str
    layout: str
    root: Path
    categories: dict[str, Category] = field(repr=False)
    rule: str = ""

    def __getitem__(self, name: str) -> Category:
        try:
            return self.categories[name]
        except KeyError:
            raise AndonError(
                f"data set {self.name} ({self.root}) has no category {name!r}; it has: {', '.join(self.categories)}"
            ) from None

    def __iter__(self) -> Iterator[Category]:
        return iter(self.categories.values())

    def __len__(self) -> int:
        return len(self.categories)


@dataclass(frozen=True)
class Region:
    """The part of an image that an anomaly map covers, as fractions of its height and width.

    A method that looks at a centre crop of 224 of 256 pixels has the region (0.0625, 0.0625, 0.9375, 0.9375): its map
    must be placed there, not stretched over the whole image.
    """

    top: float = 0.0
    left: float = 0.0
    bottom: float = 1.0
    right: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.top < self.bottom <= 1 and 0 <= self.left < self.right <= 1):
            raise ValueError(f"not a region: {self}")


FullFrame = Region()


@dataclass(frozen=True)
class Prediction:
    """What a method says of a batch of images.

    Attributes:
        image_scores: float32 ``[B]``, higher = more anomalous, raw.
        anomaly_maps: float32 ``[B, h, w]``, raw and not clipped, higher = more anomalous; at the method's own
            resolution (evaluation brings it to image size); None for a method that gives image scores only.
        region: the part of each image that the map covers.
    """

    image_scores: FloatArray
    anomaly_maps: FloatArray | None
    region: Region = FullFrame

    def __post_init__(self) -> None:
        if self.image_scores.ndim != 1:
            raise ValueError(f"image_scores must be [B], got {self.image_scores.shape}")
        maps = self.anomaly_maps
        if maps is not None and (maps.ndim != 3 or len(maps) != len(self.image_scores)):
            raise ValueError(f"anomaly_maps must be [B, h, w] with B = {len(self.image_scores)}, got {maps.shape}")

    def __len__(self) -> int:
        return len(self.image_scores)

    @classmethod
    def concatenate(cls, parts: Sequence[Prediction]) -> Prediction:
        """Joins the predictions of several batches of one method (at least one batch)."""
        if not parts:
            raise ValueError("nothing to concatenate")
        maps = [p.anomaly_maps for p in parts if p.anomaly_maps is not None]
        return cls(
            np.concatenate([p.image_scores for p in parts]),
            np.concatenate(maps) if maps else None,
            parts[0].region,
        )


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, so it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def listed(names: Iterable[str], limit: int = 8) -> str:
    """``a, b, c and 12 more`` for messages."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
