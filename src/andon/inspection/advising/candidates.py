"""What could be used for a task: method, preset, resolution and crop, written ``patchcore:designed@512+crop``."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from andon.core import ConfigError, ImageArray
from andon.inspection.advising.edges import coarse_slopes
from andon.methods import Method, create_method, method_names

__all__ = ["DEFAULT", "Candidate", "Content", "content_of", "parse_candidate", "usual_candidates"]

_WRITTEN = re.compile(r"(?P<method>.+?)(?:@(?P<size>\d+))?(?P<crop>\+crop)?")
_LEAST_SIZE, _LARGEST_SIZE = 32, 2048
_LEAST_GAIN = 0.8
"""A crop that keeps more of the image's area than this is not worth trying."""
_BORDER_ENERGY = 0.01
"""Part of the images' edges that may lie outside the content, either side."""
_CONTENT_MARGIN = 0.02


class Content(NamedTuple):
    """Where images have something to them.

    Attributes:
        top, left, bottom, right: of the box, as parts of height and width.
    """

    top: float
    left: float
    bottom: float
    right: float

    @property
    def kept(self) -> tuple[float, float]:
        """Parts of height and width of the smallest centred crop that holds the box."""
        return 2 * max(0.5 - self.top, self.bottom - 0.5), 2 * max(0.5 - self.left, self.right - 0.5)

    @property
    def worth_cropping(self) -> bool:
        """Whether that crop leaves a fifth of the image out."""
        height, width = self.kept
        return height * width <= _LEAST_GAIN


def content_of(images: Sequence[ImageArray]) -> Content:
    """The box that holds the images' edges, but for 1 % of them on each side, with a margin of 2 %.

    Args:
        images: RGB uint8 ``[H, W, 3]``, at least one.
    """
    energy = np.zeros((128, 128))
    for image in images:
        slope = coarse_slopes(image)
        energy += np.maximum(slope - np.median(slope), 0)  # noise has slopes everywhere
    if energy.sum() <= 0:
        return Content(0.0, 0.0, 1.0, 1.0)
    (top, bottom), (left, right) = (_ends(energy.sum(axis=axis)) for axis in (1, 0))
    return Content(top, left, bottom, right)


def _ends(profile: np.ndarray[Any, Any]) -> tuple[float, float]:
    below = np.cumsum(profile) / profile.sum()
    first = int(np.searchsorted(below, _BORDER_ENERGY))
    last = int(np.searchsorted(below, 1 - _BORDER_ENERGY)) + 1
    n = len(profile)
    return max(0.0, first / n - _CONTENT_MARGIN), min(1.0, last / n + _CONTENT_MARGIN)


@dataclass(frozen=True)
class Candidate:
    """One way to do a task.

    Attributes:
        method: name or reference of a method.
        preset: of the method; None for its default.
        size: side in pixels of what the method sees, where it is not the preset's.
        crop: whether only the centred crop that holds the content is seen.
    """

    method: str
    preset: str | None = None
    size: int | None = None
    crop: bool = False

    @property
    def label(self) -> str:
        """As it is written on the command line."""
        preset = "" if self.preset is None else f":{self.preset}"
        size = "" if self.size is None else f"@{self.size}"
        return f"{self.method}{preset}{size}{'+crop' if self.crop else ''}"

    def options(self, content: Content) -> dict[str, Any]:
        """What differs from the preset, as options of the method."""
        if self.size is None and not self.crop:
            return {}
        seen = self._plain().config.transform.output_size
        if self.size is not None:
            seen = self.size, self.size
        if not self.crop:
            return {"transform": {"size": list(seen), "crop": None}}
        whole = [math.ceil(side / part) for side, part in zip(seen, content.kept, strict=True)]
        return {"transform": {"size": whole, "crop": list(seen)}}

    def create(self, content: Content) -> Method[Any]:
        """The method; ConfigError where there is none, or no such preset."""
        return create_method(self.method, self.options(content), preset=self.preset)

    def check(self) -> None:
        """ConfigError where the method or its preset is unknown."""
        self._plain()

    def arguments(self, content: Content) -> str:
        """What ``andon train DIR --out FILE`` needs besides; "" for the default."""
        given = [] if self.method == DEFAULT.method else ["--method", self.method]
        given += [] if self.preset is None else ["--preset", self.preset]
        for name, value in self.options(content).get("transform", {}).items():
            text = "null" if value is None else f"[{value[0]},{value[1]}]"
            given += ["--set", f"transform.{name}={text}"]
        return shlex.join(given)

    def _plain(self) -> Method[Any]:
        return create_method(self.method, preset=self.preset)


DEFAULT = Candidate("patchcore")
"""What ``andon train`` does without a word."""


def parse_candidate(text: str) -> Candidate:
    """``METHOD[:PRESET][@SIZE][+crop]``.

    Raises:
        ConfigError: no such method or preset, or a size outside 32..2048.
    """
    match = _WRITTEN.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"candidate {text!r}: expected METHOD[:PRESET][@SIZE][+crop], as in patchcore@512")
    size = None if match["size"] is None else int(match["size"])
    if size is not None and not _LEAST_SIZE <= size <= _LARGEST_SIZE:
        raise ConfigError(f"candidate {text!r}: a size is {_LEAST_SIZE}..{_LARGEST_SIZE} pixels, not {size}")
    method, preset = match["method"], None
    head, _, tail = method.rpartition(":")
    if head in method_names():
        method, preset = head, tail
    found = Candidate(method, preset, size, match["crop"] is not None)
    found.check()
    return found


def usual_candidates(size: tuple[int, int], content: Content) -> tuple[Candidate, ...]:
    """What a CPU learns in seconds to a minute, the default first: another resolution, the crop where there is content
    to crop to, PaDiM with learned and with designed features, and thumbnails.

    Args:
        size: (height, width) of most images: where the shorter side has 512 pixels the other resolution is 512,
            otherwise 256.
        content: where the images have something to them.
    """
    found = [DEFAULT, Candidate("padim"), Candidate("padim", "designed"), Candidate("thumbnail-nn")]
    found.insert(1, Candidate("patchcore", size=512 if min(size) >= 512 else 256))
    if content.worth_cropping:
        found.append(Candidate("patchcore", crop=True))
    return tuple(found)
