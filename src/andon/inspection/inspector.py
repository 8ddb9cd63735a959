"""The inspector: a detector with thresholds that keep a promise, and what it says of an image."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from andon.core import (
    BoolArray,
    DataError,
    FloatArray,
    FullFrame,
    ImageArray,
    Prediction,
    ProgressCallback,
    Region,
    no_progress,
)
from andon.data import ImageLike, Images, as_images
from andon.inspection.alignment import Alignment, Located
from andon.inspection.calibration import ConformalCalibration, Thresholds
from andon.inspection.file import InspectorFile, Provenance, SecondDay
from andon.inspection.regions import EVERYWHERE, Regions
from andon.methods import Detector, Method, Recalls, load_bytes

__all__ = ["Box", "Inspector", "Verdict", "VerdictName", "inspector_of", "load_inspector", "promise"]

VerdictName = Literal["pass", "look", "stop", "part not found"]
_SHAPE = 0.02
"""Difference of two images' aspect ratios that is let pass."""
_MOST_BOXES = 50


class Box(NamedTuple):
    """A place above the pixel threshold, in pixels of the image (of the reference frame, where parts are aligned).

    Attributes:
        x, y, width, height: of the box around it.
        area: pixels of it.
        peak: the map's highest value in it.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    peak: float


@dataclass(frozen=True)
class Verdict:
    """What an inspector says of an image.

    Attributes:
        verdict: "pass", "look", "stop", or "part not found".
        score: raw, higher = more anomalous; NaN where the part was not found.
        p_value: how rare so high a score is among good parts, (1 + #{scores ≥ s}) / (n + 1); NaN likewise.
        thresholds: that were held against the score.
        reason: in words, where it is not the score.
        boxes: places above the pixel threshold, the largest first; at most 50.
        area: part of the image (of what counts of it) above the pixel threshold, 0..1.
        size: (height, width) of the image.
        anomaly_map: float32 ``[h, w]``, raw; None for a method without maps, or a part that was not found.
        region: the part of the image that the map covers.
        frame: the image as it was looked at, where parts are aligned.
        located: where the part is, where parts are aligned.
    """

    verdict: VerdictName
    score: float
    p_value: float
    thresholds: Thresholds
    reason: str = ""
    boxes: tuple[Box, ...] = ()
    area: float = 0.0
    size: tuple[int, int] = (0, 0)
    anomaly_map: FloatArray | None = field(default=None, repr=False)
    region: Region = FullFrame
    frame: ImageArray | None = field(default=None, repr=False)
    located: Located | None = field(default=None, repr=False)


class _Seen(NamedTuple):
    """An image as the detector gets it."""

    images: Images
    size: tuple[int, int]
    frame: ImageArray | None
    located: Located | None


@dataclass(frozen=True)
class Inspector:
    """A detector with its calibration.

    Attributes:
        detector: what was learned.
        calibration: scores of good images that the scoring detector did not see.
        thresholds: of look and stop.
        provenance: where it is from.
        regions: what counts of an image.
        alignment: the frame that parts are brought into; None for images as they are.
        second_day: scores of good images of another day, which stand beside.
        thumbnail: RGB uint8 of a good part, small.
    """

    detector: Detector
    calibration: ConformalCalibration
    thresholds: Thresholds
    provenance: Provenance
    regions: Regions = EVERYWHERE
    alignment: Alignment | None = None
    second_day: SecondDay | None = None
    thumbnail: ImageArray = field(default_factory=lambda: np.zeros((8, 8, 3), np.uint8), repr=False)

    @property
    def origins(self) -> npt.NDArray[np.int32] | None:
        """int32 ``[M]``: which patch each of a memory's rows was, counted through all images that were learned from.

        None where there is no memory, or where that is not known.
        """
        kept = self.detector.origins if isinstance(self.detector, Recalls) else None
        return None if kept is None else kept.cpu().numpy().astype(np.int32)

    def inspect(self, image: ImageLike) -> Verdict:
        """The verdict on a sample, a path, a PIL image or an RGB uint8 array ``[H, W, 3]``.

        Raises:
            DataError: an image that cannot be read, or whose shape is not that of the training images.
        """
        seen = self._seen(image)
        if seen.located is not None and self.alignment is not None and not self.alignment.found(seen.located):
            return Verdict(
                "part not found",
                float("nan"),
                float("nan"),
                self.thresholds,
                f"correlation with the reference {seen.located.correlation:.2f}, below "
                f"{self.alignment.least_correlation:.2f}",
                size=seen.size,
                located=seen.located,
            )
        return self._judged(seen)

    def moved(self, *, rate: float | None = None, look: float | None = None) -> Inspector:
        """The same with thresholds for other false-alarm rates; ConfigError for one that cannot be promised."""
        return replace(self, thresholds=self.calibration.thresholds(rate, look))

    def with_thresholds(self, look: float, stop: float) -> Inspector:
        """The same with thresholds by value."""
        return replace(self, thresholds=Thresholds(look, stop))

    @property
    def pixel_threshold(self) -> float | None:
        """The map's value above which a place is drawn; None for a method without maps."""
        if self.regions.mask is not None:
            return self.thresholds.stop  # the score is the map's highest value then
        return self.calibration.pixel_threshold(self.thresholds.stop)

    def promise(self) -> tuple[str, ...]:
        """What its thresholds mean, for the foreman, a sentence each."""
        return promise(self.calibration, self.thresholds, self.second_day)

    def file(self) -> InspectorFile:
        """As a file's parts."""
        return InspectorFile.of(
            detector=self.detector.to_bytes(),
            thresholds=self.thresholds,
            calibration=self.calibration,
            regions=self.regions,
            alignment=self.alignment,
            provenance=self.provenance,
            second_day=self.second_day,
            thumbnail=self.thumbnail,
            origins=self.origins,
        )

    def save(self, path: str | Path) -> None:
        """Writes all that is needed to run to one file; ``load_inspector`` reads it."""
        self.file().write(path)

    def with_second_day(self, name: str, images: Images, progress: ProgressCallback = no_progress) -> Inspector:
        """The same with the scores of good images of another day beside its own."""
        scores, lost = [], 0
        for index, item in enumerate(images.items):
            verdict = self.inspect(item)
            if verdict.verdict == "part not found":
                lost += 1
            else:
                scores.append(verdict.score)
            progress("another day", index + 1, len(images))
        return replace(self, second_day=SecondDay(name=name, scores=tuple(scores), not_found=lost))

    def _seen(self, image: ImageLike) -> _Seen:
        images = as_images(image)
        if len(images) != 1:
            raise DataError(f"inspect takes one image at a time, not {len(images)}")
        pixels = images.image(0)
        size = (pixels.shape[0], pixels.shape[1])
        self.check_shape(size, images.name(0))
        if self.alignment is None:
            return _Seen(images, size, None, None)
        located = self.alignment.locate(pixels)
        frame = self.alignment.warp(pixels, located)
        return _Seen(Images([frame]), size, frame, located)

    def check_shape(self, size: tuple[int, int], name: str) -> None:
        """DataError where an image's (height, width) is another shape than that of the training images."""
        learned = self.provenance.size
        if learned is None or abs(size[0] * learned[1] / (size[1] * learned[0]) - 1) <= _SHAPE:
            return
        raise DataError(
            f"{name}: is {size[1]} × {size[0]} pixels, another shape than the training images' "
            f"{learned[1]} × {learned[0]}; use the camera's same setting, or train again"
        )

    def _judged(self, seen: _Seen) -> Verdict:
        prediction = self.detector.predict(seen.images)
        score = float(self.regions.read(prediction).scores[0])
        verdict: VerdictName = self.thresholds.decide(score)
        reason = ""
        if self.one_colour(seen.images):
            # Regions read the map, which knows nothing of dead cameras.
            verdict, reason = "stop", "the image is of one colour: is the camera dead, or the light out?"
        found = Verdict(
            verdict,
            score,
            self.calibration.p_value(score),
            self.thresholds,
            reason,
            size=seen.size,
            region=prediction.region,
            frame=seen.frame,
            located=seen.located,
        )
        return self._with_places(found, prediction)

    def one_colour(self, images: Images, index: int = 0) -> bool:
        """Whether an image, as the detector sees it, is of one colour, and none that was learned from is."""
        if self.detector.report.n_constant:
            return False
        pixels = images.resized(index, self.detector.transform)
        return bool((pixels == pixels[0, 0]).all())

    def _with_places(self, verdict: Verdict, prediction: Prediction) -> Verdict:
        """The verdict with its map, and what of it is above the pixel threshold."""
        threshold = self.pixel_threshold
        if prediction.anomaly_maps is None or threshold is None:
            return verdict
        anomaly_map = self.regions.cut(prediction.anomaly_maps, prediction.region)[0]
        counted = self.regions.on_map((anomaly_map.shape[0], anomaly_map.shape[1]), prediction.region)
        above: BoolArray = anomaly_map > threshold
        total = anomaly_map.size if counted is None else int(np.count_nonzero(counted))
        size = verdict.size if verdict.frame is None else (verdict.frame.shape[0], verdict.frame.shape[1])
        boxes = _boxes(anomaly_map, above, size, prediction.region)
        return replace(verdict, anomaly_map=anomaly_map, area=float(np.count_nonzero(above) / total), boxes=boxes)


def promise(
    calibration: ConformalCalibration, thresholds: Thresholds, second_day: SecondDay | None = None
) -> tuple[str, ...]:
    """What thresholds mean, for the foreman, a sentence each."""
    lines = [f"stop above {thresholds.stop:.4g}: {calibration.sentence(thresholds.stop)}"]
    if thresholds.look < thresholds.stop:
        sentence = calibration.sentence(thresholds.look, "been looked at or stopped")
        lines.append(f"look above {thresholds.look:.4g}: {sentence}")
    if second_day is not None:
        day = ConformalCalibration.of(second_day.scores) if second_day.scores else None
        lost = f"; in {second_day.not_found} more the part was not found" if second_day.not_found else ""
        what = "no part was found" if day is None else day.sentence(thresholds.stop).replace("your", "its")
        lines.append(f"another day ({second_day.name}): {what}{lost}")
    return tuple(lines)


def _boxes(anomaly_map: FloatArray, above: BoolArray, size: tuple[int, int], region: Region) -> tuple[Box, ...]:
    """The connected places of a map, in pixels of an image (height, width) of which it covers a region."""
    count, labels, figures, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    scale_y = (region.bottom - region.top) * size[0] / anomaly_map.shape[0]
    scale_x = (region.right - region.left) * size[1] / anomaly_map.shape[1]
    largest = sorted(range(1, count), key=lambda k: -int(figures[k, cv2.CC_STAT_AREA]))[:_MOST_BOXES]
    boxes = []
    for k in largest:
        left, top, width, height, area = (int(v) for v in figures[k])
        part = slice(top, top + height), slice(left, left + width)
        peak = float(anomaly_map[part][labels[part] == k].max())
        x, y = round(region.left * size[1] + left * scale_x), round(region.top * size[0] + top * scale_y)
        width, height = max(1, round(width * scale_x)), max(1, round(height * scale_y))
        boxes.append(Box(x, y, width, height, max(1, round(area * scale_x * scale_y)), peak))
    return tuple(boxes)


def load_inspector(
    path: str | Path, *, device: torch.device | str = "cpu", method: Method[Any] | None = None
) -> Inspector:
    """Reads an inspector's file. No code in it is run, and no weights are looked for.

    Args:
        path: the file.
        device: where the detector's tensors shall be.
        method: the method, where it is one of your own that is not installed by name.

    Raises:
        DetectorError: no such file, none of an inspector, damaged, changed, of a newer version, or of a method that is
            not known.
    """
    return inspector_of(InspectorFile.read(path), device=device, method=method)


def inspector_of(
    file: InspectorFile, *, device: torch.device | str = "cpu", method: Method[Any] | None = None
) -> Inspector:
    """The inspector of a file that was read; the rest as ``load_inspector``."""
    detector = load_bytes(
        bytes(file.members["detector.safetensors"]),
        name=f"{file.name}: detector.safetensors",
        device=device,
        method=method,
    )
    if file.origins is not None and isinstance(detector, Recalls):
        detector.origins = torch.from_numpy(file.origins).long().to(device)
    return Inspector(
        detector,
        file.calibration,
        file.thresholds,
        file.content.provenance,
        file.regions,
        file.alignment,
        file.content.second_day,
        file.thumbnail if file.thumbnail is not None else np.zeros((8, 8, 3), np.uint8),
    )
