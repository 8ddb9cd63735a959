"""Light: the surroundings of a station as they mirror in its parts, and the shading of a canvas.

With a distant camera the light that a surface sends back depends on its normal and roughness alone. So the surroundings
(ceiling tubes, lamps, a bay door, dark aisle) are integrated once a station into tables over the hemisphere of normals:
the irradiance for diffuse surfaces, and one Phong-lobe average a level of roughness for mirroring ones. Light adds up:
each lamp keeps its own table, and an image's light is a weighted sum of a few small tables. Occlusion and cast shadows
come from the heights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from andon.core import FloatArray
from andon.synthetic.canvas import Canvas
from andon.synthetic.filters import dim, gaussian, look_up, resized, shifted, thrice

__all__ = ["Lamp", "Light", "Rig", "shade"]

CELLS = 64
LEVELS = 10
_ROWS = 48
_SAMPLES = 2600


@dataclass(frozen=True)
class Lamp:
    """A soft-edged patch of light on the sphere of directions (x right, y down, z to the viewer).

    Attributes:
        direction: towards the lamp.
        extent: half angles (radians) along and across.
        along: the axis of its long side.
        power: radiance.
        colour: linear RGB.
        soft: width of its edge in radians.
    """

    direction: tuple[float, float, float]
    extent: tuple[float, float]
    power: float
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    along: tuple[float, float, float] = (1.0, 0.0, 0.0)
    soft: float = 0.08

    def radiance(self, w: FloatArray) -> FloatArray:
        """Radiance ``[N]`` from unit directions ``w`` ``[N, 3]``."""
        d = _unit(np.array(self.direction))
        a = np.array(self.along)
        a = _unit(a - (a @ d) * d)
        b = np.cross(d, a)
        front = w @ d
        u = np.abs(np.arctan2(w @ a, np.maximum(front, 1e-3)))
        v = np.abs(np.arctan2(w @ b, np.maximum(front, 1e-3)))
        edge_u = np.clip((self.extent[0] - u) / self.soft + 0.5, 0, 1)
        edge_v = np.clip((self.extent[1] - v) / self.soft + 0.5, 0, 1)
        out: FloatArray = (self.power * edge_u * edge_v * (front > 0)).astype(np.float32)
        return out


def _unit(v: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return v / np.linalg.norm(v)


@dataclass(frozen=True)
class Light:
    """The light of one image.

    Attributes:
        weights: factor on the ambient light and on each group of lamps, ``[1 + groups]``.
        tint: linear RGB factor on each, ``[1 + groups, 3]``.
        shadow_from: direction (x, y, z) that cast shadows come from.
        shadow: 0..1, how dark a cast shadow is.
    """

    weights: tuple[float, ...]
    tint: tuple[tuple[float, float, float], ...]
    shadow_from: tuple[float, float, float]
    shadow: float


class Rig:
    """Tables of a station's surroundings.

    Args:
        groups: lamps that vary together.
        above, below: ambient radiance from the top and the bottom (linear RGB).
        behind: radiance from behind the plane: what steep flanks mirror (neighbouring parts).
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Lamp]],
        above: tuple[float, float, float] = (0.50, 0.53, 0.57),
        below: tuple[float, float, float] = (0.16, 0.145, 0.13),
        behind: tuple[float, float, float] = (0.10, 0.10, 0.10),
    ) -> None:
        self.groups = len(groups)

        def radiance(w: FloatArray) -> FloatArray:
            """``[N, 1 + groups, 3]``."""
            t = np.clip(0.5 - 0.75 * w[:, 1:2], 0, 1)
            ambient = np.asarray(below) + t * (np.asarray(above) - np.asarray(below))
            # The aisle behind the camera: a darker band around the horizon, with a little structure.
            ambient = ambient * (1 - 0.35 * np.exp(-((w[:, 1:2] - 0.15) ** 2) / 0.02))
            ambient = ambient * (1 + 0.22 * np.sin(5 * w[:, :1] + 2.0) * np.sin(7 * w[:, 1:2] + 1.0))
            front = np.clip(w[:, 2:3] * 3 + 0.5, 0, 1)
            ambient = front * ambient + (1 - front) * np.asarray(behind)
            lamps = [
                sum((lamp.radiance(w)[:, None] * np.asarray(lamp.colour) for lamp in g), np.zeros((1, 3)))
                for g in groups
            ]
            return np.stack([ambient, *(group * (w[:, 2:3] > -0.2) for group in lamps)], 1).astype(np.float32)

        directions = _sphere(_SAMPLES)
        light = radiance(directions).reshape(len(directions), -1)
        normals = _hemisphere(CELLS)
        mirrored = 2 * normals[:, 2:3] * normals - np.array([0, 0, 1], np.float32)
        shape = (CELLS, CELLS, 1 + self.groups, 3)
        cosine = np.maximum(normals @ directions.T, 0)
        self.diffuse = (cosine @ light / cosine.sum(1, keepdims=True)).reshape(shape)
        levels = [_supersampled(radiance, CELLS).reshape(shape)]
        for level in range(1, LEVELS):
            rough = level / (LEVELS - 1)
            power = 2.0 / max(rough, 0.05) ** 3.0
            lobe = np.exp(np.float32(power) * (mirrored @ directions.T - 1))
            levels.append((lobe @ light / lobe.sum(1, keepdims=True)).reshape(shape))
        self.specular = np.stack(levels).astype(np.float32)
        """``[LEVELS, CELLS, CELLS, 1 + groups, 3]`` over (roughness, ny, nx, lamp group, RGB)."""

    def tables(self, light: Light) -> tuple[FloatArray, FloatArray]:
        """Irradiance ``[CELLS, CELLS, 3]`` and mirrored light ``[LEVELS·CELLS, CELLS, 3]`` of one image."""
        factor = (np.asarray(light.weights)[:, None] * np.asarray(light.tint)).astype(np.float32)
        diffuse = np.einsum("yxgc,gc->yxc", self.diffuse, factor)
        specular = np.einsum("lyxgc,gc->lyxc", self.specular, factor)
        return np.ascontiguousarray(diffuse), np.ascontiguousarray(specular.reshape(-1, CELLS, 3))


def _sphere(count: int) -> FloatArray:
    i = np.arange(count) + 0.5
    z = 1 - 2 * i / count
    angle = np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], 1).astype(np.float32)


def _hemisphere(cells: int, shift: tuple[float, float] = (0, 0)) -> FloatArray:
    """Unit normals ``[cells², 3]`` of a table's cells; beyond the rim they are held on it."""
    axis = np.linspace(-1, 1, cells)
    step = axis[1] - axis[0]
    nx, ny = np.meshgrid(axis + shift[0] * step, axis + shift[1] * step)
    length = np.sqrt(nx**2 + ny**2)
    held = np.where(length > 0.995, 0.995 / np.maximum(length, 1e-9), 1)
    nx, ny = nx * held, ny * held
    return np.stack([nx, ny, np.sqrt(1 - nx**2 - ny**2)], -1).reshape(-1, 3).astype(np.float32)


def _supersampled(radiance: object, cells: int) -> FloatArray:
    """The mirror level of the table: radiance itself, averaged over each cell."""
    total: FloatArray | float = 0.0
    shifts = (-0.33, 0.0, 0.33)
    for sy in shifts:
        for sx in shifts:
            n = _hemisphere(cells, (sx, sy))
            total = total + radiance(2 * n[:, 2:3] * n - np.array([0, 0, 1], np.float32))  # type: ignore[operator]
    return np.asarray(total, np.float32) / np.float32(len(shifts) ** 2)


def _occlusion(z: FloatArray, scale: float) -> tuple[FloatArray, FloatArray]:
    """(ambient light 0..1, height relative to the surroundings): cavities are darker, at two sizes."""
    height, width = z.shape
    small = resized(z, (max(1, height // 4), max(1, width // 4)), cv2.INTER_AREA)
    open_sky = np.ones_like(z)
    for sigma, depth in ((1.6, 9.0), (6.0, 34.0)):
        mean = gaussian(small, sigma * scale)
        mean = resized(mean, z.shape)
        mean -= z
        np.maximum(mean, 0, out=mean)
        mean *= np.float32(1 / depth)
        mean += 1
        open_sky /= mean
    return open_sky, small


def _cast_shadow(small: FloatArray, direction: tuple[float, float, float], reach: float) -> FloatArray:
    """1 in the light … 0 in a cast shadow, on the quarter-size heights ``small``.

    Every pixel looks towards the lamp in steps: what stands above the ray by more than the penumbra there, hides it.
    """
    dx, dy, dz = direction
    level = np.hypot(dx, dy)
    if level < 1e-3:
        return np.ones_like(small)
    ux, uy, rise = dx / level, dy / level, dz / level
    hidden = np.zeros_like(small)
    steps = 14
    for k in range(1, steps + 1):
        distance = reach * (k / steps) ** 1.5
        there = shifted(small, ux * distance / 4, uy * distance / 4)
        above = (there - small - np.float32(rise * distance + 1.0)) * np.float32(1 / (3.0 + 0.35 * distance))
        np.maximum(hidden, above, out=hidden)
    lit: FloatArray = 1 - np.clip(hidden, 0, 1)
    return gaussian(lit, 0.8)


def shade(canvas: Canvas, rig: Rig, light: Light, *, scale: float = 1.0, perspective: float = 0.25) -> FloatArray:
    """The image of a canvas, linear RGB ``[H, W, 3]`` (1 = white paper in full light), premultiplied on a layer.

    Args:
        scale: size of the scene's parts relative to a 400-pixel image (for occlusion and shadows).
        perspective: angle of view in radians over 1000 pixels; turns what flat faces mirror across the image.
    """
    diffuse_table, specular_table = rig.tables(light)
    height, width = canvas.size
    open_sky, small = _occlusion(canvas.z, scale)
    if light.shadow > 0:
        lit = _cast_shadow(small, light.shadow_from, 95.0 * scale)
        lit = 1 - np.float32(light.shadow) * (1 - lit)
        open_sky *= resized(lit, (height, width))

    half = np.float32((CELLS - 1) / 2)
    axis_x = (np.arange(width, dtype=np.float32) + np.float32(canvas.origin[0])) * np.float32(perspective / 1000)
    axis_y = (np.arange(height, dtype=np.float32) + np.float32(canvas.origin[1])) * np.float32(perspective / 1000)
    turn_x = (axis_x - np.float32(perspective * 0.2)) * half
    turn_y = (axis_y - np.float32(perspective * 0.2)) * half
    image = np.empty((height, width, 3), np.float32)
    for top in range(0, height, _ROWS):
        # Some rows at a time: what is computed on the way stays in the processor's cache.
        rows = slice(top, top + _ROWS)
        p, q, albedo, metal, sky = (
            field[rows] for field in (canvas.p, canvas.q, canvas.albedo, canvas.metal, open_sky)
        )
        nz = np.reciprocal(np.sqrt(1 + p * p + q * q))
        u = half - half * p * nz
        v = half - half * q * nz
        diffuse = look_up(diffuse_table, u, v)
        level = np.rint(canvas.rough[rows] * np.float32(LEVELS - 1)) * np.float32(CELLS)
        u += turn_x
        v = np.clip(v + turn_y[rows, None], 0, np.float32(CELLS - 1.001)) + level
        mirrored = look_up(specular_table, u, v)
        # Schlick's Fresnel term (1 − cos)⁵, a power less steep and weaker on rough surfaces: F = F0 + (1 − F0)·grazing,
        # with F0 = 0.04 for what is not metal and the albedo for metal. Mirrored light is blocked less than diffuse
        # light in a cavity, but not spared.
        grazing = (1 - nz) ** 2
        grazing = grazing * grazing * (1 - canvas.rough[rows])
        reached = np.float32(0.2) + np.float32(0.8) * sky
        by_albedo = reached * metal * (1 - grazing)
        plain = reached * (np.float32(0.04) * (1 - metal) * (1 - grazing) + grazing)
        mirrored *= cv2.add(cv2.multiply(albedo, thrice(by_albedo)), thrice(plain))
        diffuse *= cv2.multiply(albedo, thrice((1 - metal) * sky))
        cv2.add(diffuse, mirrored, dst=image[rows])
    return image if canvas.alpha is None else dim(image, canvas.alpha)
