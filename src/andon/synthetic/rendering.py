"""One image of the line: a pure function of task, seed and circumstances."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from andon.core import Channel, ConfigError, FloatArray, ImageArray, Split
from andon.synthetic.camera import expose, project
from andon.synthetic.canvas import Canvas
from andon.synthetic.filters import dim, gaussian, look_up, resized, thrice
from andon.synthetic.knobs import Knobs, as_knobs
from andon.synthetic.light import Rig, shade
from andon.synthetic.randomness import stream
from andon.synthetic.station import Scene, Station, Take
from andon.synthetic.stations import STATIONS
from andon.synthetic.texture import textures

__all__ = ["TASKS", "RenderedScene", "defect_types", "mode_of", "render", "seen_at", "station_of"]

TASKS: tuple[str, ...] = tuple(STATIONS)
"""Names of the tasks, in the study's order."""

_CACHE_BYTES = 600_000_000


@dataclass(frozen=True)
class RenderedScene:
    """A rendered image and its ground truth.

    Attributes:
        image: RGB uint8 ``[H, W, 3]``.
        channels: one a region, none for a good image.
        mode: the model on the line.
    """

    image: ImageArray
    channels: tuple[Channel, ...]
    mode: int


def station_of(task: str) -> Station:
    """The station of a task; ConfigError for an unknown one."""
    try:
        return STATIONS[task]
    except KeyError:
        raise ConfigError(f"unknown task {task!r} of the synthetic line; known: {', '.join(STATIONS)}") from None


def defect_types(task: str) -> tuple[str, ...]:
    """Defect types of a task's test images."""
    return tuple(station_of(task).shares)


_backgrounds: OrderedDict[tuple[str, int, int, bool, float], Canvas] = OrderedDict()
_rigs: OrderedDict[tuple[str, int], Rig] = OrderedDict()


def _rig(station: Station, seed: int) -> Rig:
    key = (station.name, seed)
    if key not in _rigs:
        while len(_rigs) >= 8:
            _rigs.popitem(last=False)
        _rigs[key] = station.rig(seed)
    return _rigs[key]


def _background(station: Station, mode: int, seed: int, raw: bool, dirt: float) -> Canvas:
    """The drawn background of a model: kept for the process as long as all of them fit in ``_CACHE_BYTES``."""
    key = (station.name, mode, seed, raw, dirt)
    if key in _backgrounds:
        _backgrounds.move_to_end(key)
        return _backgrounds[key]
    height, width = station.frame(raw)
    left, top = station.corner(raw)
    margin = station.margin + (station.raw_margin if raw else 0)
    canvas = Canvas(
        (height + 2 * margin, width + 2 * margin), (left - margin, top - margin), textures(seed, station.name), dirt
    )
    station.background(canvas, mode, seed)
    _backgrounds[key] = canvas
    while len(_backgrounds) > 1 and sum(c.nbytes for c in _backgrounds.values()) > _CACHE_BYTES:
        _backgrounds.popitem(last=False)
    return canvas


def mode_of(task: str, index: int, split: Split, seed: int, knobs: Knobs) -> int:
    """The model on the line in an image."""
    station = station_of(task)
    count = min(knobs.modes or len(station.mode_weights), len(station.mode_weights))
    weights = np.asarray(station.mode_weights[:count], float)
    return int(stream(seed, task, split, index, "mode").choice(count, p=weights / weights.sum()))


def render(
    task: str,
    index: int,
    split: Split = "train",
    defect: str | None = None,
    *,
    seed: int = 0,
    knobs: Knobs | Mapping[str, Any] | None = None,
    time: float | None = None,
    raw: bool = False,
) -> RenderedScene:
    """Renders one image.

    Everything random is drawn from streams named by (seed, task, split, index), the defect's own draws apart from the
    others: the same call with ``defect=None`` gives the same scene without its defect.

    Args:
        task: one of ``TASKS``.
        index: number of the image within its split (good and defective test images share one numbering).
        split: "train" or "test".
        defect: a defect type of the task (``defect_types``), None for a good image.
        seed: of the whole line.
        knobs: difficulties.
        time: place in the production, 0 (first training image) … 1 (last test image), which decides the drift;
            None: 0.25 for training, 0.75 for test images.
        raw: the uncropped image, for tasks whose images are crops (the same image where they are not).

    Raises:
        ConfigError: unknown task, defect type or knob.
    """
    station, take = _take(task, index, split, defect, seed, as_knobs(knobs), time, raw)
    knobs, raw = take.knobs, take.raw
    linear, scene = _expose_scene(station, take)
    if defect is not None and knobs.defect_contrast != 1:
        sound, _ = _expose_scene(station, replace(take, defect=None))
        linear = sound + np.float32(knobs.defect_contrast) * (linear - sound)
    size = station.frame(raw)
    u, v = project(size, station.corner(raw), scene.canvas.origin, station.pose(take), station.distortion)
    radiance = look_up(linear, u, v)
    radiance = station.finish(_dust(radiance, take), take)
    image = expose(radiance, station.exposure(take), take.rng("sensor"))

    channels = []
    configs = {config.name: config for config in station.defects}
    for region in scene.regions:
        mask = look_up(region.mask, u, v) > 0.5
        if mask.any():
            config = configs[region.defect]
            channels.append(Channel(mask, region.defect, config.saturation(int(mask.sum()))))
    return RenderedScene(image, tuple(channels), take.mode)


def _take(
    task: str,
    index: int,
    split: Split,
    defect: str | None,
    seed: int,
    knobs: Knobs,
    time: float | None,
    raw: bool,
) -> tuple[Station, Take]:
    station = station_of(task)
    if defect is not None and defect not in station.shares:
        raise ConfigError(f"task {task} has no defect type {defect!r}; it has: {', '.join(station.shares)}")
    if time is None:
        time = 0.25 if split == "train" else 0.75
    mode = mode_of(task, index, split, seed, knobs)
    return station, Take(task, seed, split, index, time, mode, defect, knobs, raw and station.raw_size is not None)


def seen_at(
    task: str,
    point: tuple[float, float],
    index: int,
    split: Split = "train",
    *,
    seed: int = 0,
    knobs: Knobs | Mapping[str, Any] | None = None,
    time: float | None = None,
    raw: bool = False,
) -> tuple[float, float]:
    """Where a point of the scene is seen in an image that ``render`` gives.

    Args:
        point: (x, y) in scene coordinates, those of the task's nominal image.
        task, index, split, seed, knobs, time, raw: of the image.

    Returns:
        (x, y), pixels; pixel centres are whole numbers.
    """
    station, take = _take(task, index, split, None, seed, as_knobs(knobs), time, raw)
    height, width = station.frame(take.raw)
    left, top = station.corner(take.raw)
    pose = station.pose(take)
    middle = np.asarray([left + (width - 1) / 2, top + (height - 1) / 2])
    x, y = np.asarray(point) - middle + np.asarray([pose.dx, pose.dy])
    c, s = np.cos(pose.angle), np.sin(pose.angle)
    seen = pose.zoom * np.asarray([c * x - s * y, s * x + c * y])
    # A tilt divides what was turned; the lens spreads what was tilted: both are undone by a few steps.
    bare = seen.copy()
    for _ in range(20):
        spread = 1 + station.distortion * float(bare @ bare) / ((height**2 + width**2) / 4)
        depth = 1 + (pose.tilt[0] * bare[0] + pose.tilt[1] * bare[1]) * spread / 1000
        bare = seen * depth / spread
    return float(bare[0] + (width - 1) / 2), float(bare[1] + (height - 1) / 2)


def _expose_scene(station: Station, take: Take) -> tuple[FloatArray, Scene]:
    """Light of the scene on the canvas, linear RGB, before the camera's pose."""
    scene = Scene(_background(station, take.mode, take.seed, take.raw, take.knobs.dirt).copy())
    station.draw(scene, take)
    rig, light = _rig(station, take.seed), station.light(take)
    linear = shade(scene.canvas, rig, light, scale=station.scale)
    sigma, focus, span = station.dof
    sigma *= min(take.knobs.blur, 1.5)
    if sigma > 0.2:
        away = np.abs(scene.canvas.z - np.float32(focus))
        away *= np.float32(1 / span)
        np.clip(away, 0, 1, out=away)
        soft = gaussian(linear, sigma)
        soft -= linear
        linear += dim(soft, away)
    for near in scene.foreground:
        _lay_over(linear, scene.canvas, near.canvas, shade(near.canvas, rig, light, scale=station.scale * 2), near.blur)
    return linear, scene


def _dust(image: FloatArray, take: Take) -> FloatArray:
    """A film on the lens that grows over the production: it dims the image in wide spots."""
    amount = 0.10 * take.knobs.drift * take.knobs.dirt * take.time
    if amount > 0:
        spots = resized(textures(take.seed, take.task).cloud[::16, ::16], image.shape[:2], cv2.INTER_CUBIC)
        dim(image, 1 - np.float32(min(amount, 0.6)) * np.clip(0.4 + 0.5 * spots, 0, 1))
    return image


def _lay_over(below: FloatArray, canvas: Canvas, layer: Canvas, linear: FloatArray, blur: float) -> None:
    """Blends a premultiplied layer, defocused, over its place."""
    assert layer.alpha is not None
    alpha = layer.alpha
    if blur > 0.2:
        # The canvas' own border must not darken a layer that goes on beyond it.
        linear = gaussian(linear, blur)
        alpha = gaussian(alpha, blur)
    column = round(layer.origin[0] - canvas.origin[0])
    row = round(layer.origin[1] - canvas.origin[1])
    there = below[row : row + layer.size[0], column : column + layer.size[1]]
    there *= thrice(1 - alpha)
    there += linear
