"""What can be exported: a detector's file, or an inspector's; and the images to compare on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from andon._tools.files import sha256_of_file
from andon.core import ConfigError, DataError, DetectorError, ImageArray
from andon.data import Images, images_below
from andon.inspection.inspector import Inspector, load_inspector
from andon.inspection.regions import Regions
from andon.methods import Detector, load

__all__ = ["Source", "find_images", "load_any", "named_images"]

_INSPECTOR = ".andon"


@dataclass(frozen=True)
class Source:
    """A detector, and what was promised for it.

    Attributes:
        detector: on the CPU.
        name: of the file that it is from.
        sha256: of that file's content.
        thresholds: by name; a score above one is beyond; none for a detector without calibration.
        regions: which pixels count; None for all.
        size: (height, width) of the images that it learned from; None where it is not known.
        thumbnail: RGB uint8 of a good part, small; None where there is none.
    """

    detector: Detector
    name: str
    sha256: str
    thresholds: Mapping[str, float] = field(default_factory=dict)
    regions: Regions | None = None
    size: tuple[int, int] | None = None
    thumbnail: ImageArray | None = None

    @classmethod
    def of(cls, detector: Detector, name: str = "", thresholds: Mapping[str, float] | None = None) -> Source:
        """A detector that is in no file."""
        content = hashlib.sha256(detector.to_bytes()).hexdigest()
        return cls(detector, name or detector.name, content, dict(thresholds or {}))

    def with_threshold(self, value: float) -> Source:
        """The same with the one threshold "stop"; ConfigError where it has thresholds of its own."""
        if self.thresholds:
            raise ConfigError(
                f"--threshold {value:g}: {self.name} has thresholds of its own; move those in the inspector"
            )
        return replace(self, thresholds={"stop": value})

    def one_colour_score(self) -> float:
        """The least that an image of one colour scores, −inf where a training image was of one colour.

        It is above the threshold of stop: such an image shows a dead camera, and an inspector stops whatever it scores.
        """
        if self.detector.report.n_constant:
            return float("-inf")
        stop = self.thresholds.get("stop", float("-inf"))
        return max(self.detector.constant_score(), float(np.nextafter(np.float32(stop), np.float32("inf"))))

    def stand_ins(self, size: tuple[int, int]) -> list[tuple[str, ImageArray]]:
        """The thumbnail at (height, width), as it is, mirrored, darker and brighter; none where there is no thumbnail.

        They look somewhat like a good part, for whoever has no good images at hand.
        """
        if self.thumbnail is None:
            return []
        large = Image.fromarray(self.thumbnail).resize(size[::-1], Image.Resampling.BICUBIC)
        made = {
            "thumbnail": large,
            "thumbnail, mirrored": ImageOps.mirror(large),
            "thumbnail, darker": large.point(lambda value: value * 0.8),
            "thumbnail, brighter": large.point(lambda value: min(255, value * 1.2)),
        }
        return [(name, np.asarray(image)) for name, image in made.items()]


def load_any(path: Path) -> Source:
    """Opens an inspector's file (``.andon``), or a detector's (what its ``save`` wrote).

    Raises:
        AndonError: missing, damaged, of a newer version, or an inspector of which a model cannot hold all.
    """
    if path.suffix.lower() != _INSPECTOR:
        return Source(load(path), path.name, sha256_of_file(path))
    return _of_inspector(load_inspector(path), path)


def _of_inspector(inspector: Inspector, path: Path) -> Source:
    if inspector.alignment is not None:
        raise DetectorError(
            f"{path}: it locates each part in its image before it looks, which no exported model can; train without "
            "--align, or inspect with the .andon file"
        )
    thresholds = {"look": inspector.thresholds.look, "stop": inspector.thresholds.stop}
    return Source(
        inspector.detector,
        path.name,
        sha256_of_file(path),
        thresholds,
        inspector.regions,
        inspector.provenance.size,
        inspector.thumbnail,
    )


def find_images(paths: Sequence[Path]) -> Images:
    """Images of files and of folders, with all below them, in natural order of their names.

    Raises:
        DataError: a path that is not there, a folder without images, or no path at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = images_below(path)
            if not inside:
                raise DataError(f"{path}: no images in it or below")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: there is no such image or folder")
    return Images(found)


def named_images(images: Images, size: tuple[int, int] | None = None) -> Iterator[tuple[str, ImageArray]]:
    """Names and pixels of images, one at a time; DataError names one that is not of the (height, width) ``size``."""
    for index in range(len(images)):
        name, image = images.name(index), images.image(index)
        if size is not None and image.shape[:2] != size:
            raise DataError(
                f"{name}: is {image.shape[0]}x{image.shape[1]} (height x width), the model takes {size[0]}x{size[1]}; "
                "an exported model takes images of one size: leave it out, or name the size"
            )
        yield Path(name).name, image
