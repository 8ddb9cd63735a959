"""Images of no particular thing, for what wants many different ones: an endless, seeded stream, or a user's folder.

Learning from formulas instead of photographs: fractals (Kataoka et al., Pre-training without natural images, ACCV
2020, arXiv 2101.08515), contours (Kataoka et al., CVPR 2022, arXiv 2206.09132), dead leaves and noise with the spectrum
of natural images (Baradad et al., Learning to see by looking at noise, NeurIPS 2021, arXiv 2106.05963). Several
formulas mixed in one image teach more than each alone (Ugwu et al. 2024, arXiv 2405.06980). Nothing here looks like a
part that is to be inspected, and the stations of the synthetic line are not in it, so they stay a fair test.

An image is a function of (seed, index, size). One of 256×256 takes about 25 ms on one core, one of 512×512 about 40.
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np

from andon.core import AndonError, FloatArray, ImageArray
from andon.data.decode import read_resized
from andon.data.files import images_below

__all__ = ["FolderImages", "ImageSource", "RenderedImages", "image_source", "rendered_image"]

_TEXTURE = 256
"""Side of the textures that an image's surfaces are cut from."""


class ImageSource(Protocol):
    """Images by number. Picklable; any thread may ask."""

    @property
    def name(self) -> str:
        """What was used, for records: "rendered, seed 0", "folder textures, 5,640 images"."""
        ...

    @property
    def count(self) -> int | None:
        """Number of different images; None for endlessly many."""
        ...

    def image(self, index: int, size: int) -> ImageArray:
        """RGB uint8 ``[size, size, 3]`` of any index ≥ 0; a folder begins anew after its last image."""
        ...


@dataclass(frozen=True)
class RenderedImages:
    """``rendered_image`` as a source."""

    seed: int = 0

    @property
    def name(self) -> str:
        return f"rendered, seed {self.seed}"

    @property
    def count(self) -> int | None:
        return None

    def image(self, index: int, size: int) -> ImageArray:
        return rendered_image(self.seed, index, size)


@dataclass(frozen=True)
class FolderImages:
    """All images below a folder, in natural order of their paths, resized to squares."""

    folder: Path
    paths: tuple[Path, ...]

    @classmethod
    def open(cls, folder: Path) -> FolderImages:
        """Lists a folder and all below, linked ones too; AndonError where there is none, or no image in it."""
        if not folder.is_dir():
            raise AndonError(f"{folder}: there is no such folder of images; name one, or 'rendered' for rendered ones")
        paths = images_below(folder)
        if not paths:
            raise AndonError(f"{folder}: no images in it or below")
        return cls(folder, tuple(paths))

    @property
    def name(self) -> str:
        return f"folder {self.folder.absolute().name}, {len(self.paths):,} images"

    @property
    def count(self) -> int | None:
        return len(self.paths)

    def image(self, index: int, size: int) -> ImageArray:
        return read_resized(self.paths[index % len(self.paths)], (size, size))


def image_source(what: str | Path) -> ImageSource:
    """ "rendered", "rendered:SEED", or the path of a folder.

    Raises:
        AndonError: a bad seed, no such folder, or no images in it.
    """
    text = str(what)
    if text == "rendered" or text.startswith("rendered:"):
        seed = text.removeprefix("rendered").removeprefix(":") or "0"
        if not seed.isascii() or not seed.isdigit():
            raise AndonError(f"images {text!r}: the seed must be a whole number, as in rendered:1")
        return RenderedImages(int(seed))
    return FolderImages.open(Path(text).expanduser())


# Rendering


def rendered_image(seed: int, index: int, size: int) -> ImageArray:
    """Image ``index`` of the stream ``seed``: RGB uint8 ``[size, size, 3]``, size at least 16."""
    if size < 16:
        raise ValueError(f"size must be at least 16, not {size}")
    digest = hashlib.blake2b(f"rendered/{seed}/{index}".encode(), digest_size=16).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "little"))
    palette = _palette(rng)
    textures = [_texture(rng) for _ in range(3)]
    image = _surface(rng, palette, textures, size)
    layers: list[tuple[float, Callable[[], FloatArray]]] = [
        (0.75, lambda: _dead_leaves(rng, image, palette, textures)),
        (0.35, lambda: _fractal(rng, image, palette)),
        (0.45, lambda: _contours(rng, image, palette)),
    ]
    for probability, draw in layers:
        if rng.random() < probability:
            image = draw()
    return _camera(rng, image)


def _palette(rng: np.random.Generator) -> FloatArray:
    """``[6, 3]``: colours that go together, from all but grey to vivid."""
    hue, spread, saturation = rng.random(), rng.uniform(0.02, 0.5), rng.beta(1.2, 2.0)
    colours = [
        colorsys.hsv_to_rgb(
            (hue + rng.normal(0, spread)) % 1, float(np.clip(rng.normal(saturation, 0.15), 0, 1)), rng.uniform(0.05, 1)
        )
        for _ in range(6)
    ]
    return np.asarray(colours, np.float32)


def _standard(field: FloatArray) -> FloatArray:
    deviation = float(field.std())
    return cast(FloatArray, (field - field.mean()) / np.float32(deviation if deviation > 1e-6 else 1.0))


def _noise(rng: np.random.Generator) -> FloatArray:
    """Noise with the spectrum 1/f^α, stretched along one direction."""
    fy, fx = np.fft.fftfreq(_TEXTURE)[:, None], np.fft.rfftfreq(_TEXTURE)[None, :]
    angle, stretch = rng.uniform(0, np.pi), float(np.exp(rng.exponential(0.7)))
    u, v = fx * np.cos(angle) + fy * np.sin(angle), (fy * np.cos(angle) - fx * np.sin(angle)) * stretch
    amplitude = 1 / np.maximum(np.hypot(u, v), 2 / _TEXTURE) ** rng.uniform(0.4, 2.2)
    spectrum = np.fft.rfft2(rng.standard_normal((_TEXTURE, _TEXTURE))) * amplitude
    return cast(FloatArray, np.fft.irfft2(spectrum, (_TEXTURE, _TEXTURE)).astype(np.float32))


def _pattern(rng: np.random.Generator) -> FloatArray:
    """Stripes, grids, dots or a weave, softened or sharp, slightly warped."""
    y, x = np.mgrid[0:_TEXTURE, 0:_TEXTURE].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), float(np.exp(rng.uniform(np.log(4), np.log(60))))
    warp = cv2.resize(
        rng.standard_normal((6, 6)).astype(np.float32), (_TEXTURE, _TEXTURE), interpolation=cv2.INTER_CUBIC
    )
    scale = np.float32(2 * np.pi / period)
    bend = warp * np.float32(rng.exponential(0.3))
    a = np.sin((x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))) * scale + bend)
    b = np.sin(
        (y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))) * scale * np.float32(rng.uniform(0.3, 1.5))
    )
    kind = rng.integers(4)
    field = (a, np.maximum(a, b), a * b, np.where(a > b, a, -b))[kind]
    sharpness = np.float32(np.exp(rng.uniform(0, 2.5)))
    return cast(FloatArray, np.tanh(sharpness * (field - np.float32(rng.uniform(-0.5, 0.5)))).astype(np.float32))


def _cells(rng: np.random.Generator) -> FloatArray:
    """Voronoi cells: of one tone each, or their borders."""
    seeds = rng.integers(0, _TEXTURE, (int(np.exp(rng.uniform(np.log(8), np.log(500)))), 2))
    points = np.full((_TEXTURE, _TEXTURE), 255, np.uint8)
    points[seeds[:, 0], seeds[:, 1]] = 0
    distance, labels = cv2.distanceTransformWithLabels(
        points, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    tones = rng.standard_normal(int(labels.max()) + 1).astype(np.float32)
    return tones[labels] if rng.random() < 0.5 else cast(FloatArray, distance)


def _texture(rng: np.random.Generator) -> FloatArray:
    """A field ``[256, 256]`` of mean 0 and deviation 1."""
    kind = rng.random()
    field = _noise(rng) if kind < 0.6 else _pattern(rng) if kind < 0.85 else _cells(rng)
    if kind >= 0.6 and rng.random() < 0.7:
        field = _standard(field) + np.float32(0.5) * _standard(_noise(rng))
    return _standard(field)


def _cut(rng: np.random.Generator, texture: FloatArray, height: int, width: int) -> FloatArray:
    """A turned, scaled piece of a texture, ``[height, width]``."""
    angle, zoom = rng.uniform(0, 2 * np.pi), float(np.exp(rng.uniform(-0.7, 0.9)))
    c, s = np.cos(angle) * zoom, np.sin(angle) * zoom
    matrix = np.array([[c, -s, rng.uniform(0, _TEXTURE)], [s, c, rng.uniform(0, _TEXTURE)]])
    return cast(
        FloatArray,
        cv2.warpAffine(
            texture,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        ),
    )


def _coloured(rng: np.random.Generator, field: FloatArray, palette: FloatArray) -> FloatArray:
    """A field as a way between two or three colours of the palette, or as tones of one: ``[h, w, 3]``."""
    first, second = palette[rng.choice(len(palette), 2, replace=False)]
    if rng.random() < 0.5:
        second = np.clip(first * np.float32(rng.uniform(0.3, 1.6)), 0, 1)
    contrast = np.float32(rng.beta(1.5, 1.5))
    weight = np.clip(np.float32(0.5) + np.float32(0.5) * contrast * field, 0, 1)[..., None]
    return cast(FloatArray, first + (second - first) * weight)


def _surface(rng: np.random.Generator, palette: FloatArray, textures: list[FloatArray], size: int) -> FloatArray:
    field = _cut(rng, textures[rng.integers(len(textures))], size, size)
    return _coloured(rng, field, palette)


def _outline(rng: np.random.Generator, radius: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Points ``[N, 2]`` around the origin: polygons, ellipses, boxes, radial harmonics (Kataoka et al.'s contours)."""
    kind = rng.random()
    turn, flat = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 1)
    if kind < 0.3:
        sides = int(rng.integers(3, 9))
        angles = np.arange(sides) * (2 * np.pi / sides)
        reach = np.ones(len(angles))
    elif kind < 0.5:
        corner = np.arctan2(1, rng.uniform(0.3, 3))
        angles, reach = np.array([corner, np.pi - corner, np.pi + corner, -corner]), np.ones(4)
    else:
        angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        orders = rng.integers(2, 12, 3)
        waves = [rng.exponential(0.18) * np.sin(o * angles + rng.uniform(0, 6)) for o in orders]
        reach = np.maximum(1 + (np.sum(waves, axis=0) if kind > 0.65 else 0 * angles), 0.1)
    points = radius * reach[:, None] * np.stack([np.cos(angles), flat * np.sin(angles)], 1)
    c, s = np.cos(turn), np.sin(turn)
    return cast(np.ndarray[Any, np.dtype[np.float64]], points @ np.array([[c, s], [-s, c]]))


def _dead_leaves(
    rng: np.random.Generator, image: FloatArray, palette: FloatArray, textures: list[FloatArray]
) -> FloatArray:
    """Things lying over one another, sizes by a power law, each with its surface, shading and shadow."""
    size = len(image)
    count = int(np.exp(rng.uniform(np.log(3), np.log(100))))
    smallest, largest = size / 28, size / rng.uniform(2, 4)
    # Density of radii ~ r^-3: every scale covers the same area, as in the dead-leaves model.
    uniform = rng.random(count)
    radii = 1 / np.sqrt(uniform / largest**2 + (1 - uniform) / smallest**2)
    light = rng.uniform(0, 2 * np.pi)
    for radius in radii:
        centre = rng.uniform(-0.1 * size, 1.1 * size, 2)
        outline = _outline(rng, radius)
        margin = 4 + int(0.25 * radius)
        low = np.maximum(np.floor(centre + outline.min(0)).astype(int) - margin, 0)
        high = np.minimum(np.ceil(centre + outline.max(0)).astype(int) + margin, size)
        width, height = int(high[0] - low[0]), int(high[1] - low[1])
        if width < 3 or height < 3:
            continue
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [np.round((outline + centre - low) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        alpha = mask.astype(np.float32) / np.float32(255)
        leaf = _coloured(rng, _cut(rng, textures[rng.integers(len(textures))], height, width), palette)
        part = image[low[1] : high[1], low[0] : high[0]]
        soft = cv2.GaussianBlur(alpha, (0, 0), max(0.6, 0.12 * radius), borderType=cv2.BORDER_REPLICATE)
        if rng.random() < 0.6:
            # A rounded rim: the slope of the softened mask, lit from one side.
            slope = np.cos(light) * cv2.Sobel(soft, cv2.CV_32F, 1, 0) + np.sin(light) * cv2.Sobel(
                soft, cv2.CV_32F, 0, 1
            )
            leaf = (
                leaf
                * (1 + np.float32(rng.uniform(0.2, 1.2)) * np.clip(slope * np.float32(0.12 * radius), -0.8, 1))[
                    ..., None
                ]
            )
        if rng.random() < 0.6:
            part *= (1 - np.float32(rng.uniform(0.1, 0.6)) * soft)[..., None]
        part += (leaf - part) * alpha[..., None]
    return image


def _rotations(angles: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """``[n, 2, 2]``."""
    c, s = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def _fractal(rng: np.random.Generator, image: FloatArray, palette: FloatArray) -> FloatArray:
    """The attractor of random affine maps (an iterated function system), as light or as dye."""
    size, maps = len(image), int(rng.integers(2, 7))
    left, right = rng.uniform(0, 2 * np.pi, (2, maps))
    values = rng.uniform(0.15, 0.9, (maps, 2))
    matrices = _rotations(left) @ (values[:, :, None] * _rotations(right))
    offsets = rng.uniform(-1, 1, (maps, 2))
    weight = np.abs(np.linalg.det(matrices)) + 0.02
    walkers = 3000
    points = np.zeros((walkers, 2))
    visited = []
    choices = rng.choice(maps, (40, walkers), p=weight / weight.sum())
    for number, choice in enumerate(choices):
        points = np.einsum("nij,nj->ni", matrices[choice], points) + offsets[choice]
        if number >= 10:
            visited.append(points)
    cloud = np.concatenate(visited)
    low, high = np.quantile(cloud, 0.01, axis=0), np.quantile(cloud, 0.99, axis=0)
    side = size * rng.uniform(0.4, 1.3)
    place = (cloud - low) / max(float((high - low).max()), 1e-6) * side + rng.uniform(-0.2, 0.6, 2) * size
    place = place[((place >= 0) & (place < size)).all(1)].astype(np.int64)
    density = np.bincount(place[:, 1] * size + place[:, 0], minlength=size * size).reshape(size, size)
    light = np.log1p(density.astype(np.float32))
    peak = float(light.max())
    if peak == 0:
        return image
    alpha = np.clip(light * np.float32(rng.uniform(0.5, 1.5) / peak), 0, 1)[..., None]
    colour = palette[rng.integers(len(palette))]
    return cast(FloatArray, image + (colour - image) * alpha)


def _contours(rng: np.random.Generator, image: FloatArray, palette: FloatArray) -> FloatArray:
    """Lines: open strokes, rings within rings, rulings."""
    size = len(image)
    for _ in range(int(rng.integers(1, 12))):
        colour = tuple(float(c) for c in palette[rng.integers(len(palette))])
        thickness = int(rng.integers(1, max(2, size // 60)))
        centre = rng.uniform(0, size, 2)
        if rng.random() < 0.5:
            outline = _outline(rng, rng.uniform(size / 20, size / 3))
            for scale in np.linspace(1, 0.3, int(rng.integers(1, 6))):
                points = np.round((outline * scale + centre) * 16).astype(np.int32)
                cv2.polylines(image, [points], True, colour, thickness, cv2.LINE_AA, 4)
        else:
            steps = np.cumsum(rng.normal(0, size / 40, (int(rng.integers(4, 40)), 2)), axis=0)
            points = np.round((centre + steps) * 16).astype(np.int32)
            cv2.polylines(image, [points], False, colour, thickness, cv2.LINE_AA, 4)
    return image


def _camera(rng: np.random.Generator, image: FloatArray) -> ImageArray:
    """Light that falls off, defocus, noise, now and then no colour; to 8 bits."""
    size = len(image)
    falloff = cv2.resize(
        rng.uniform(1 - rng.beta(1, 2) * 0.8, 1, (3, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
    )
    image = image * falloff[..., None]
    blur = rng.exponential(0.5) * size / 256
    if blur > 0.3:
        image = cast(
            FloatArray, cv2.GaussianBlur(image, (0, 0), min(blur, 0.01 * size), borderType=cv2.BORDER_REPLICATE)
        )
    if rng.random() < 0.15:
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.exponential(0.012))
    return (np.clip(image + noise, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
