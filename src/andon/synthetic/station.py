"""What a task of the line is made of: a station (geometry, light, camera), and takes of it (the draws of an image)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from andon.core import DefectConfig, FloatArray
from andon.synthetic.camera import Exposure, Pose
from andon.synthetic.canvas import Canvas
from andon.synthetic.filters import gaussian
from andon.synthetic.knobs import Knobs
from andon.synthetic.light import Light, Rig
from andon.synthetic.parts import paint_mark
from andon.synthetic.randomness import stream

__all__ = ["Foreground", "Region", "Scene", "Station", "Take"]


@dataclass(frozen=True)
class Take:
    """The circumstances of one image.

    Attributes:
        task, seed, index, split: which image it is.
        time: place in the production, 0..1.
        mode: the model on the line, 0..modes−1.
        defect: defect type, None for good.
    """

    task: str
    seed: int
    split: str
    index: int
    time: float
    mode: int
    defect: str | None
    knobs: Knobs
    raw: bool = False

    def rng(self, *what: str | int) -> np.random.Generator:
        """The stream of one draw of this image; equal with and without the defect."""
        return stream(self.seed, self.task, self.split, self.index, *what)

    def normal(self, what: str, deviation: float, limit: float = 2.0) -> float:
        """A normal number within ±``limit`` deviations: no image is stranger than a training image can be."""
        rng = self.rng(what)
        while True:
            value = float(rng.standard_normal())
            if abs(value) <= limit:
                return deviation * value

    def jitter(self, what: str, deviation: float) -> float:
        """``normal`` times the pose knob."""
        return self.normal(what, deviation) * self.knobs.pose

    def uniform(self, what: str, low: float, high: float) -> float:
        return float(self.rng(what).uniform(low, high))

    def chance(self, what: str, probability: float) -> bool:
        return bool(self.rng(what).uniform() < probability)

    def clutter(self, what: str, probability: float) -> bool:
        """Whether something harmless appears."""
        return self.chance(what, min(0.95, probability * self.knobs.clutter))

    def marks(self, canvas: Canvas, places: Sequence[tuple[float, float, float, float]], size: float = 1.0) -> None:
        """Marker strokes, at most one in each place (left, top, right, bottom): harmless, and never the same twice."""
        for k, (left, top, right, bottom) in enumerate(places):
            rng = self.rng("mark", k)
            x, y = rng.uniform(left, right), rng.uniform(top, bottom)
            if self.clutter(f"mark {k}", 0.45):
                paint_mark(canvas, x, y, rng, size)

    def drift(self, what: str, amount: float) -> float:
        """A slow curve over the production, within ±``amount`` times the drift knob."""
        rng = stream(self.seed, self.task, "drift", what)
        phases = rng.uniform(0, 2 * np.pi, 3)
        waves = np.sin(2 * np.pi * np.array([0.45, 1.1, 2.3]) * self.time + phases) @ np.array([0.6, 0.27, 0.13])
        return float(waves) * amount * self.knobs.drift


@dataclass(frozen=True)
class Region:
    """One ground-truth channel: coverage 0..1 on the canvas, and the name of its entry in ``defects_config.json``."""

    mask: FloatArray
    defect: str


@dataclass(frozen=True)
class Foreground:
    """Something close to the camera: a transparent canvas and its defocus (Gaussian σ in pixels)."""

    canvas: Canvas
    blur: float


@dataclass
class Scene:
    """A canvas with the moving parts of one image drawn, what stands before it, and its ground truth."""

    canvas: Canvas
    foreground: list[Foreground] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)

    def cover(self, layer: Canvas, blur: float, defect: str, below: float = -np.inf) -> None:
        """Puts a layer in front of the scene and marks what it visibly changes (from scene y = ``below`` on)."""
        assert layer.alpha is not None
        self.foreground.append(Foreground(layer, blur))
        mask = self.blank()
        column = round(layer.origin[0] - self.canvas.origin[0])
        row = round(layer.origin[1] - self.canvas.origin[1])
        soft = gaussian(layer.alpha, blur)
        mask[row : row + layer.size[0], column : column + layer.size[1]] = np.clip(soft * 25, 0, 1)
        mask[np.arange(self.canvas.size[0]) + self.canvas.origin[1] < below] = 0
        self.region(defect, mask)

    def region(self, defect: str, mask: FloatArray) -> None:
        """Adds a channel, if any of it lies on the canvas."""
        if mask.max(initial=0) > 0.5:
            self.regions.append(Region(mask, defect))

    def blank(self) -> FloatArray:
        return np.zeros(self.canvas.size, np.float32)


class Station(ABC):
    """One inspection task: a camera looking at the same place of every product."""

    name: ClassVar[str]
    size: ClassVar[tuple[int, int]]
    """(height, width) of the image."""
    raw_size: ClassVar[tuple[int, int] | None] = None
    """(height, width) of the uncropped image; None where the image is not a crop."""
    defects: ClassVar[tuple[DefectConfig, ...]]
    """What ``defects_config.json`` says."""
    shares: ClassVar[Mapping[str, float]]
    """Defect types of the test images and their shares."""
    full_counts: ClassVar[tuple[int, int, int]]
    """Training, good test and defective test images in the study (Table 3)."""
    mode_weights: ClassVar[tuple[float, ...]] = (1.0,)
    """How often each model is built."""
    distortion: ClassVar[float] = 0.02
    scale: ClassVar[float] = 1.0
    """Size of the parts relative to a 400-pixel image, for occlusion and shadows."""
    dof: ClassVar[tuple[float, float, float]] = (0.0, 40.0, 60.0)
    """Depth of field: (defocus σ far from the focus, height in focus, heights until it is reached)."""
    margin: ClassVar[int] = 16
    """Pixels of the scene around the image that the camera's movement may show."""

    raw_margin: ClassVar[int] = 0
    """Additional margin of the uncropped image, where products stop at different places."""

    def frame(self, raw: bool) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.raw_size if raw and self.raw_size is not None else self.size

    def corner(self, raw: bool) -> tuple[float, float]:
        """Scene coordinates (x, y) of the image's first pixel: the uncropped image has the same centre."""
        height, width = self.frame(raw)
        return (self.size[1] - width) / 2, (self.size[0] - height) / 2

    @abstractmethod
    def rig(self, seed: int) -> Rig:
        """The lamps and surroundings."""

    @abstractmethod
    def background(self, canvas: Canvas, mode: int, seed: int) -> None:
        """Draws what does not change between images of one model."""

    @abstractmethod
    def draw(self, scene: Scene, take: Take) -> None:
        """Draws what changes from image to image, the defect included, and notes the ground truth."""

    @abstractmethod
    def light(self, take: Take) -> Light:
        """The light of an image."""

    @abstractmethod
    def pose(self, take: Take) -> Pose:
        """Where the camera sees the scene."""

    @abstractmethod
    def exposure(self, take: Take) -> Exposure:
        """Lens and sensor in an image."""

    def finish(self, linear: FloatArray, take: Take) -> FloatArray:
        """What happens in the lens before the sensor (flare); linear RGB at image size."""
        return linear
