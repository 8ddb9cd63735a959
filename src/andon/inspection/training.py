"""From good images to an inspector."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from andon._tools.packages import installed_versions
from andon.core import Category, ConfigError, DataError, ImageArray, ProgressCallback, Sample, no_progress
from andon.data import ArrayCache, ImageLike, Images, as_images, read_size
from andon.inspection.alignment import DEFAULT_ROTATION, Alignment, aligned_samples, make_alignment
from andon.inspection.calibration import DEFAULT_BLOCKS, ConformalCalibration
from andon.inspection.cross_fitting import cross_fitted
from andon.inspection.file import Provenance, TrainingImage
from andon.inspection.inspector import Inspector
from andon.inspection.regions import Regions, read_regions
from andon.methods import Detector, FitRun, Method, create_method

__all__ = ["train_inspector"]

TRAINED_BLOCKS = 5
"""Blocks of a method whose training takes long."""
_THUMBNAIL = 256
_PACKAGES = ("andon", "torch", "numpy", "opencv-python-headless", "pillow")


def train_inspector(
    images: Images | Iterable[ImageLike] | Category,
    method: str | Method[Any] = "patchcore",
    *,
    preset: str | None = None,
    config: Mapping[str, Any] | None = None,
    rate: float | None = None,
    look: float | None = None,
    roi: str | Path | None = None,
    ignore: Sequence[str | Path] = (),
    align: bool | tuple[int, int, int, int] = False,
    rotation: float = DEFAULT_ROTATION,
    n_blocks: int | None = None,
    second_day: tuple[str, Images] | None = None,
    seed: int = 0,
    device: str = "cpu",
    cache: ArrayCache | None = None,
    checkpoints: Path | None = None,
    progress: ProgressCallback = no_progress,
) -> Inspector:
    """Learns from good images, and calibrates on them.

    Args:
        images: good ones in shooting order, at least 3; of a category its training images.
        method: a method or its name, with ``preset`` and ``config`` (``create_method``).
        rate, look: wanted rates of good parts that stop, and that are looked at or stop; None for 1 % and 5 %, or the
            least that so few images can promise.
        roi: what counts: a mask's file, or "x,y,width,height"; ignore: files of masks of what does not.
        align: whether to bring each part into the frame of the first image; a box (x, y, width, height) says where the
            part is in that.
        rotation: largest that is looked for, degrees.
        n_blocks: of the cross-fitting; None for 10, or 5 of a method that is trained for long.
        second_day: name and good images of another day, whose scores stand beside.
        seed, device, progress: see ``Method.fit``.
        cache: where features are kept; a temporary folder otherwise.
        checkpoints: folder for the state of long trainings.

    Raises:
        AndonError: too few images or unreadable ones, options that do not fit, a rate that so few cannot promise.
    """
    start = time.perf_counter()
    images = as_images(images.train if isinstance(images, Category) else images)
    recipe = create_method(method, config, preset=preset) if isinstance(method, str) else method
    n = n_blocks or (TRAINED_BLOCKS if recipe.trained else DEFAULT_BLOCKS)
    _check_rates_early(len(images), rate, look)
    size = _common_size(images)
    with tempfile.TemporaryDirectory(prefix="andon-") as folder:
        images = Images(images.items, cache or images.cache or ArrayCache(Path(folder)))
        seen, alignment = _in_frame(images, size, align, rotation)
        regions = _regions(roi, ignore, size)
        detector = recipe.fit(seen, seed=seed, run=(run := FitRun(device, progress, checkpoints)))
        calibration = cross_fitted(recipe, detector, seen, seed=seed, n_blocks=n, regions=regions, run=run)
        thumbnail = _thumbnail(seen.image(0))
        provenance = _provenance(recipe, detector, images, size, seed, time.perf_counter() - start)
    at = calibration.thresholds(rate, look)
    inspector = Inspector(detector, calibration, at, provenance, regions, alignment, None, thumbnail)
    return inspector if second_day is None else inspector.with_second_day(*second_day, progress)


def _check_rates_early(n: int, rate: float | None, look: float | None) -> None:
    """Before anything takes long."""
    if n:
        ConformalCalibration(np.zeros(n)).default_rates(rate, look)


def _common_size(images: Images) -> tuple[int, int] | None:
    """(height, width) of the images; None where they differ."""
    sizes = {_size(images, i) for i in range(len(images))}
    return sizes.pop() if len(sizes) == 1 else None


def _size(images: Images, index: int) -> tuple[int, int]:
    item = images.items[index]
    if isinstance(item, np.ndarray):
        return item.shape[0], item.shape[1]
    return item.size() if isinstance(item, Sample) else read_size(images.name(index))


def _in_frame(
    images: Images, size: tuple[int, int] | None, align: bool | tuple[int, int, int, int], rotation: float
) -> tuple[Images, Alignment | None]:
    if align is False:
        return images, None
    if size is None:
        raise DataError("align: the images are of several sizes; they must be of one")
    alignment, located = make_alignment(images, None if align is True else align, rotation)
    return aligned_samples(images, alignment, located), alignment


def _regions(roi: str | Path | None, ignore: Sequence[str | Path], size: tuple[int, int] | None) -> Regions:
    if roi is None and not ignore:
        return Regions()
    if size is None:
        raise ConfigError("roi, ignore: the images are of several sizes; a region needs them to be of one")
    return read_regions(roi, ignore, size)


def _thumbnail(image: ImageArray) -> ImageArray:
    small = Image.fromarray(image)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return np.asarray(small)


def _provenance(
    method: Method[Any],
    detector: Detector,
    images: Images,
    size: tuple[int, int] | None,
    seed: int,
    seconds: float,
) -> Provenance:
    names = [Path(images.name(i)).name for i in range(len(images))]
    return Provenance(
        method=method.name,
        title=method.title,
        config=method.config.model_dump(mode="json"),
        seed=seed,
        images=tuple(TrainingImage(name=name, fingerprint=images.fingerprint(i)) for i, name in enumerate(names)),
        size=size,
        weights=tuple(weights.as_dict() for weights in detector.report.weights),
        notes=detector.report.notes,
        versions={"python": platform.python_version(), **installed_versions(_PACKAGES)},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
    )
