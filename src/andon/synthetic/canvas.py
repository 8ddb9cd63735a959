"""The geometry buffer of a scene and the brushes that draw machine parts into it.

A scene is a relief seen from the front. Each pixel holds the height ``z`` above the back plane (pixels), the slopes
``p = ∂z/∂x`` and ``q = ∂z/∂y``, and the surface: ``albedo`` (linear RGB; the mirror colour of metals), ``rough``
(0 mirror … 1 matt) and ``metal`` (0 or 1, blends between). Parts are drawn from back to front; a part brings its own
slopes, so that a silhouette is a clean step rather than a steep wall. ``light`` turns the buffer into an image.

Positions are scene coordinates: x to the right, y down, in pixels of the task's nominal image; a canvas is a window
on the scene that may be larger than the image (margin for the camera's movement, or the uncropped image).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from andon.core import FloatArray
from andon.synthetic import shapes
from andon.synthetic.shapes import Path2D
from andon.synthetic.texture import SIZE, Textures

__all__ = ["Canvas", "Material", "Window", "coverage"]

IndexArray = np.ndarray[tuple[int], np.dtype[np.intp]]
TextureName = Literal["cloud", "grain", "cast", "brushed", "weave", "scratch", "speck"]


@dataclass(frozen=True)
class Material:
    """A surface.

    Attributes:
        albedo: linear RGB, 0..1; for a metal its reflectance.
        rough: 0 mirror … 1 matt.
        metal: 0 for plastic, rubber, paint; 1 for bare metal.
        bump: (texture, slope) pairs: relief of zero mean whose slope has about that deviation.
        mottle: relative deviation of the albedo over wide spots.
        gloss: deviation of ``rough`` over wide spots.
        scratches: 0..1, how much scratches show the bare surface.
        dirt: 0..1, amount of brown-grey dirt in spots.
        turn: turns the textures by 90° (brushed metal along y).
    """

    albedo: tuple[float, float, float]
    rough: float
    metal: float = 0.0
    bump: tuple[tuple[TextureName, float], ...] = ()
    mottle: float = 0.06
    gloss: float = 0.04
    scratches: float = 0.0
    dirt: float = 0.0
    turn: bool = False

    def but(self, **changes: object) -> Material:
        """The same surface with some attributes changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Window:
    """A rectangle of a canvas with its scene coordinates."""

    rows: slice
    columns: slice
    x: FloatArray
    y: FloatArray


def coverage(distance: FloatArray, softness: float = 1.0) -> FloatArray:
    """Anti-aliased coverage 0..1 of a signed distance: the step is ``softness`` pixels wide."""
    covered: FloatArray = np.clip(np.float32(0.5) - distance / np.float32(softness), 0, 1)
    return covered


DIRT = np.array([0.085, 0.066, 0.048], np.float32)


class Canvas:
    """A window on a scene: see the module's text.

    Args:
        size: (height, width) in pixels.
        origin: scene coordinates (x, y) of the centre of pixel (0, 0).
        station: textures to draw with.
        dirt: factor on dirt, scratches and worn edges of everything drawn.
    """

    FIELDS = ("z", "p", "q", "albedo", "rough", "metal")

    def __init__(
        self, size: tuple[int, int], origin: tuple[float, float], station: Textures, dirt: float = 1.0
    ) -> None:
        self.size = size
        self.origin = origin
        self.station = station
        self.dirt = dirt
        self.z = np.zeros(size, np.float32)
        self.p = np.zeros(size, np.float32)
        self.q = np.zeros(size, np.float32)
        self.albedo = np.zeros((*size, 3), np.float32)
        self.rough = np.full(size, 0.6, np.float32)
        self.metal = np.zeros(size, np.float32)
        self.alpha: FloatArray | None = None
        """Coverage, only kept on a transparent canvas (``layer``)."""

    def copy(self) -> Canvas:
        twin = Canvas.__new__(Canvas)
        twin.size, twin.origin, twin.station, twin.dirt = self.size, self.origin, self.station, self.dirt
        for name in self.FIELDS:
            setattr(twin, name, getattr(self, name).copy())
        twin.alpha = None if self.alpha is None else self.alpha.copy()
        return twin

    @property
    def nbytes(self) -> int:
        return sum(int(getattr(self, name).nbytes) for name in self.FIELDS)

    def layer(self, left: float, top: float, right: float, bottom: float) -> Canvas | None:
        """An empty transparent canvas over a rectangle of this one (None where they don't meet)."""
        window = self.window(left, top, right, bottom)
        if window is None:
            return None
        layer = Canvas(window.x.shape, (float(window.x[0, 0]), float(window.y[0, 0])), self.station, self.dirt)
        layer.alpha = np.zeros(layer.size, np.float32)
        return layer

    def window(self, left: float, top: float, right: float, bottom: float) -> Window | None:
        """The pixels in a rectangle of scene coordinates; None when there is none."""
        height, width = self.size
        x0 = max(0, int(np.floor(left - self.origin[0])))
        x1 = min(width, int(np.ceil(right - self.origin[0])) + 1)
        y0 = max(0, int(np.floor(top - self.origin[1])))
        y1 = min(height, int(np.ceil(bottom - self.origin[1])) + 1)
        if x0 >= x1 or y0 >= y1:
            return None
        x = np.arange(x0, x1, dtype=np.float32) + np.float32(self.origin[0])
        y = np.arange(y0, y1, dtype=np.float32) + np.float32(self.origin[1])
        grid_x, grid_y = np.meshgrid(x, y)
        return Window(slice(y0, y1), slice(x0, x1), grid_x, grid_y)

    def everything(self) -> Window:
        (height, width), (x, y) = self.size, self.origin
        window = self.window(x, y, x + width - 1, y + height - 1)
        assert window is not None
        return window

    # -- brushes ------------------------------------------------------------------------------------------------------

    def paint(
        self,
        window: Window,
        alpha: FloatArray,
        z: FloatArray | float,
        p: FloatArray | float,
        q: FloatArray | float,
        material: Material,
        *,
        anchor: tuple[float, float] = (0.0, 0.0),
        tint: FloatArray | None = None,
        edge: FloatArray | None = None,
    ) -> None:
        """Lays a surface over the window.

        Args:
            alpha: coverage 0..1.
            z, p, q: height and slopes of the surface without its bumps.
            anchor: a point that the textures move with.
            tint: factor on the albedo, ``[h, w]`` or ``[h, w, 3]``.
            edge: 0..1, how worn the surface is (bare, brighter edges).
        """
        flat = np.flatnonzero(alpha)
        if not flat.size:
            return

        def pick(value: FloatArray | float) -> FloatArray | float:
            return value.reshape(-1)[flat] if isinstance(value, np.ndarray) and value.ndim == 2 else value

        if tint is not None:
            tint = tint.reshape(-1, *tint.shape[2:])[flat]
        worn = None if edge is None else edge.reshape(-1)[flat]
        self._lay(window, flat, alpha.reshape(-1)[flat], pick(z), pick(p), pick(q), material, anchor, tint, worn)

    def _lay(
        self,
        window: Window,
        flat: IndexArray,
        alpha: FloatArray,
        z: FloatArray | float,
        p: FloatArray | float,
        q: FloatArray | float,
        material: Material,
        anchor: tuple[float, float],
        tint: FloatArray | None,
        edge: FloatArray | None,
    ) -> None:
        """``paint`` on a list of the window's pixels: a cable covers a small part of the rectangle around it."""
        row, column = np.divmod(flat, window.x.shape[1])
        row += window.rows.start
        column += window.columns.start
        target = row * self.size[1] + column
        read = _Reader(self.station, row, column, self.origin, anchor, material.turn)
        slope_p, slope_q = np.asarray(p, np.float32), np.asarray(q, np.float32)
        for name, amount in material.bump:
            gx, gy = read.slopes(name)
            slope_p = slope_p + np.float32(amount) * gx
            slope_q = slope_q + np.float32(amount) * gy
        albedo = np.empty((flat.size, 3), np.float32)
        albedo[:] = material.albedo
        rough = np.full(flat.size, material.rough, np.float32)
        metal = np.full(flat.size, material.metal, np.float32)
        cloud = read("cloud") if material.mottle or material.gloss or material.dirt * self.dirt else None
        if cloud is not None and material.mottle:
            albedo *= np.clip(1 + np.float32(material.mottle) * cloud, 0.2, 2)[:, None]
        if cloud is not None and material.gloss:
            rough += np.float32(material.gloss) * cloud
        if tint is not None:
            albedo *= tint if tint.ndim == 2 else tint[:, None]
        if material.scratches * self.dirt:
            bare = read("scratch") * np.float32(min(1.0, material.scratches * self.dirt))
            albedo += bare[:, None] * (np.float32(0.42) - albedo) * np.float32(0.7)
            rough += bare * np.float32(0.1)
        if edge is not None:
            worn = np.clip(np.float32(self.dirt) * edge * (np.float32(0.75) + np.float32(0.5) * read("grain")), 0, 1)[
                :, None
            ]
            albedo += worn * (albedo * np.float32(0.8) + np.float32(0.05))
        dirt = material.dirt * self.dirt
        if cloud is not None and dirt:
            # Where the cloud is high enough, dirt lies: more dirt, lower level. Its border is ragged.
            level = np.float32(1.5 - 2.4 * dirt)
            spots = np.clip((cloud + np.float32(0.16) * read("grain") - level) * np.float32(0.7), 0, 1)
            spots *= np.float32(min(1.0, 0.35 + dirt))
            albedo += spots[:, None] * (DIRT - albedo)
            rough += spots * (np.float32(0.8) - rough)
            metal *= 1 - spots
        np.clip(rough, 0.05, 1, out=rough)
        values = (np.asarray(z, np.float32), slope_p, slope_q, albedo, rough, metal)
        for kept, value in zip(self.FIELDS, values, strict=True):
            # A view: the fields are contiguous. Every target is named once.
            field = getattr(self, kept).reshape(len(self.z) * self.size[1], -1)
            old = field[target]
            field[target] = old + alpha[:, None] * (value.reshape(-1, field.shape[1]) - old)
        if self.alpha is not None:
            there = self.alpha.reshape(-1)
            there[target] += alpha * (1 - there[target])

    def plate(
        self,
        window: Window | None,
        distance: Callable[[FloatArray, FloatArray], FloatArray],
        z: float,
        material: Material,
        *,
        bevel: float = 3.0,
        drop: float | None = None,
        dome: float = 0.0,
        tilt: tuple[float, float] = (0.0, 0.0),
        tint: FloatArray | None = None,
        anchor: tuple[float, float] = (0.0, 0.0),
        wear: float = 0.0,
        softness: float = 1.1,
    ) -> FloatArray | None:
        """A plate of any outline, its edge rounded.

        Args:
            distance: signed distance of the outline.
            z: height of its flat top.
            bevel: width of the rounded edge.
            drop: how far the edge falls (default: ``bevel``).
            dome: how far the top rises in the middle, as a fraction of the distance from the edge.
            tilt: slopes of the top.
            wear: 0..1, how bare the edge is.

        Returns:
            The coverage on the window, or None outside the canvas.
        """
        if window is None:
            return None
        d = distance(window.x, window.y)
        alpha = coverage(d, softness)
        if not alpha.any():
            return alpha
        dx, dy = _slopes(d)
        depth = np.clip(-d, 0, None)
        fall = np.float32(bevel if drop is None else drop)
        t = np.clip(depth / np.float32(bevel), 0.04, 1)  # 0 at the edge, 1 on the flat
        rise = np.where(depth < bevel, fall / np.float32(bevel) * (1 - t) / np.sqrt(t * (2 - t)), 0)
        rise = np.minimum(rise, np.float32(3.0)) + np.float32(dome)
        height = z + tilt[0] * (window.x - anchor[0]) + tilt[1] * (window.y - anchor[1])
        height = height - fall * (1 - np.sqrt(t * (2 - t))) + np.float32(dome) * depth
        edge = None
        if wear:
            edge = np.float32(wear) * np.clip(1.2 - np.abs(depth - 0.35 * bevel) / np.float32(0.5 * bevel + 0.5), 0, 1)
        self.paint(
            window,
            alpha,
            height.astype(np.float32),
            tilt[0] - rise * dx,
            tilt[1] - rise * dy,
            material,
            tint=tint,
            anchor=anchor,
            edge=edge,
        )
        return alpha

    def disc(self, x: float, y: float, radius: float, z: float, material: Material, **form: Any) -> FloatArray | None:
        """A round plate; ``form`` as in ``plate``."""
        window = self.window(x - radius - 2, y - radius - 2, x + radius + 2, y + radius + 2)
        return self.plate(window, lambda gx, gy: shapes.circle(gx, gy, x, y, radius), z, material, **form)

    def slab(
        self,
        centre: tuple[float, float],
        half: tuple[float, float],
        angle: float,
        z: float,
        material: Material,
        *,
        corner: float = 0.0,
        **form: Any,
    ) -> FloatArray | None:
        """A rectangular plate with rounded corners, turned by ``angle``; ``form`` as in ``plate``."""
        (x, y), (half_u, half_v) = centre, half
        c, s = abs(np.cos(angle)), abs(np.sin(angle))
        reach_x, reach_y = c * half_u + s * half_v + 2, s * half_u + c * half_v + 2
        window = self.window(x - reach_x, y - reach_y, x + reach_x, y + reach_y)

        def outline(gx: FloatArray, gy: FloatArray) -> FloatArray:
            return shapes.box(*shapes.rotated(gx, gy, x, y, angle), half_u, half_v, corner)

        return self.plate(window, outline, z, material, **form)

    def sheet(
        self,
        points: Sequence[tuple[float, float]],
        z: float,
        material: Material,
        *,
        corner: float = 0.0,
        **form: Any,
    ) -> FloatArray | None:
        """A plate with a polygon's outline, grown and rounded by ``corner``; ``form`` as in ``plate``."""
        (left, top), (right, bottom) = np.min(points, axis=0) - corner - 2, np.max(points, axis=0) + corner + 2
        window = self.window(float(left), float(top), float(right), float(bottom))
        return self.plate(window, lambda gx, gy: shapes.polygon(gx, gy, points, corner), z, material, **form)

    def groove(
        self, window: Window | None, distance: FloatArray, width: float, depth: float, dark: float = 0.0
    ) -> None:
        """A rounded groove (``depth`` > 0) or ridge (< 0) along the zero line of ``distance``."""
        if window is None:
            return
        dx, dy = _slopes(distance)
        t = distance / np.float32(width)
        bell = np.exp(-(t * t))
        slope = np.float32(2 * depth / width) * t * bell
        rows, columns = window.rows, window.columns
        self.z[rows, columns] -= np.float32(depth) * bell
        self.p[rows, columns] += slope * dx
        self.q[rows, columns] += slope * dy
        if dark:
            self.albedo[rows, columns] *= (1 - np.float32(dark) * bell)[..., None]

    def decal(
        self, window: Window | None, alpha: FloatArray, colour: FloatArray | tuple[float, ...], rough: float
    ) -> None:
        """Paint, print or a sticker: changes colour and gloss, not the form."""
        if window is None:
            return
        rows, columns = window.rows, window.columns
        self.albedo[rows, columns] += alpha[..., None] * (np.asarray(colour, np.float32) - self.albedo[rows, columns])
        self.rough[rows, columns] += alpha * (np.float32(rough) - self.rough[rows, columns])
        self.metal[rows, columns] *= 1 - alpha

    def tube(
        self,
        path: Path2D,
        radius: float | Callable[[FloatArray], FloatArray],
        z: float,
        material: Material,
        *,
        ribs: tuple[float, float] | None = None,
        tint: Callable[[FloatArray, FloatArray], FloatArray] | None = None,
        lift: Callable[[FloatArray], FloatArray] | None = None,
        flatten: float = 1.0,
        caps: bool = True,
    ) -> None:
        """A hose, cable, pipe or conduit along a path.

        Args:
            radius: in pixels, or a function of the arc length.
            z: height of the axis.
            ribs: (period, depth) of corrugation along the path.
            tint: ``tint(s, across)`` factor on the albedo, ``across`` in −1..1 from edge to edge.
            lift: height added to the axis as a function of the arc length.
            flatten: below 1 the section is an ellipse lower than wide.
            caps: round ends; without, the ends are cut square.
        """
        widest = float(radius) if not callable(radius) else float(np.max(radius(path.arc.astype(np.float32))))
        low, high = path.points.min(0) - widest - 2, path.points.max(0) + widest + 2
        window = self.window(low[0], low[1], high[0], high[1])
        if window is None:
            return
        flat, distance, side_x, side_y, s = _nearest(path, window, widest + 2)
        if not flat.size:
            return
        r: FloatArray = np.asarray(radius(s), np.float32) if callable(radius) else np.full(s.shape, radius, np.float32)
        along = np.zeros(s.shape, np.float32)
        if callable(radius):
            along += radius(s + np.float32(0.5)) - radius(s - np.float32(0.5))
        if ribs:
            period, depth = ribs
            phase = np.float32(2 * np.pi / period) * s
            r = (r + np.float32(depth) * np.sin(phase)).astype(np.float32)
            along += np.float32(2 * np.pi * depth / period) * np.cos(phase)
        alpha = coverage(distance - r, 1.1)
        tx, ty = path_tangent(path, s)
        if not caps:
            # Beyond an end the vector from the axis has a part along the path: that far the pixel lies outside.
            beyond = np.abs(side_x * tx + side_y * ty)
            ends = np.minimum(s, np.float32(path.length) - s)
            alpha = alpha * np.clip(np.float32(0.5) + np.where(ends < 0.25, -beyond, ends), 0, 1)
        ratio: FloatArray = np.clip(distance / np.maximum(r, np.float32(0.5)), 0, 0.985)
        up: FloatArray = np.sqrt(1 - ratio * ratio).astype(np.float32)
        slope: FloatArray = (np.float32(flatten) * ratio / up).astype(np.float32)
        norm: FloatArray = np.maximum(distance, np.float32(1e-3))
        rise: FloatArray = (along / np.maximum(up, np.float32(0.25))).astype(np.float32)
        self._lay(
            window,
            flat,
            alpha,
            np.float32(z) + np.float32(flatten) * r * up + (lift(s) if lift else np.float32(0)),
            -slope * side_x / norm + rise * tx,
            -slope * side_y / norm + rise * ty,
            material,
            (float(path.points[0, 0]), float(path.points[0, 1])),
            tint(s, ((side_x * -ty + side_y * tx) / np.maximum(r, 0.5)).astype(np.float32)) if tint else None,
            None,
        )


def path_tangent(path: Path2D, s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Unit direction of the path at arc lengths ``s``."""
    tangent = np.gradient(path.points, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    # A table of the arc at fixed steps: np.interp over every pixel would cost more than the rest of the tube.
    table = np.linspace(0, path.length, 256)
    index = np.clip(s * np.float32(255 / max(path.length, 1e-6)), 0, 255).astype(np.int32)
    tx = np.interp(table, path.arc, tangent[:, 0]).astype(np.float32)
    ty = np.interp(table, path.arc, tangent[:, 1]).astype(np.float32)
    return tx[index], ty[index]


def _nearest(
    path: Path2D, window: Window, reach: float
) -> tuple[IndexArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """The window's pixels within ``reach`` of the path (flat indices), and for each of them the distance to the path,
    the vector from the axis (x, y), and the arc length of the nearest point."""
    shape = window.x.shape
    best = np.full(shape, np.float32(reach * reach), np.float32)
    nearest = np.full(shape, -1, np.int16)
    left, top = float(window.x[0, 0]), float(window.y[0, 0])
    start, step = path.points[:-1].astype(np.float32), np.diff(path.points, axis=0).astype(np.float32)
    length2 = np.maximum((step * step).sum(1), np.float32(1e-9))
    low = np.minimum(path.points[:-1], path.points[1:]) - reach - (left, top)
    high = np.maximum(path.points[:-1], path.points[1:]) + reach - (left, top)
    first = np.maximum(low.astype(int), 0)
    last = np.minimum(high.astype(int) + 2, (shape[1], shape[0]))
    for i in np.flatnonzero((first < last).all(axis=1)):
        area = (slice(first[i, 1], last[i, 1]), slice(first[i, 0], last[i, 0]))
        (ax, ay), (ex, ey) = start[i], step[i]
        # A window's coordinates depend on the column and on the row alone.
        dx = window.x[0, area[1]] - ax
        dy = window.y[area[0], 0] - ay
        t = (dx * (ex / length2[i]))[None, :] + (dy * (ey / length2[i]))[:, None]
        np.clip(t, 0, 1, out=t)
        across = dx[None, :] - t * ex
        across *= across
        t *= -ey
        t += dy[:, None]
        t *= t
        across += t
        closer = across < best[area]
        np.copyto(best[area], across, where=closer)
        np.copyto(nearest[area], np.int16(i), where=closer)
    flat = np.flatnonzero(nearest >= 0)
    segment = nearest.reshape(-1)[flat]
    dx = window.x.reshape(-1)[flat] - start[segment, 0]
    dy = window.y.reshape(-1)[flat] - start[segment, 1]
    ex, ey = step[segment, 0], step[segment, 1]
    t = np.clip((dx * ex + dy * ey) / length2[segment], 0, 1)
    arc = path.arc.astype(np.float32)
    s = arc[segment] + t * (arc[segment + 1] - arc[segment])
    return flat, np.sqrt(best.reshape(-1)[flat]), dx - t * ex, dy - t * ey, s


def _slopes(field: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Central differences (∂/∂x, ∂/∂y), one-sided at the border; 0 along an axis of one pixel."""
    dx, dy = np.zeros_like(field), np.zeros_like(field)
    if field.shape[1] > 1:
        dx = np.gradient(field, axis=1).astype(np.float32)
    if field.shape[0] > 1:
        dy = np.gradient(field, axis=0).astype(np.float32)
    return dx, dy


class _Reader:
    """Reads wrapped textures at a list of pixels, moved along with an anchor."""

    def __init__(
        self,
        station: Textures,
        row: IndexArray,
        column: IndexArray,
        origin: tuple[float, float],
        anchor: tuple[float, float],
        turn: bool,
    ) -> None:
        self.station = station
        self.turn = turn
        y = (row + round(origin[1] - anchor[1])) % SIZE
        x = (column + round(origin[0] - anchor[0])) % SIZE
        self.index = x * SIZE + y if turn else y * SIZE + x

    def __call__(self, name: TextureName) -> FloatArray:
        field: FloatArray = getattr(self.station, name)
        values: FloatArray = field.reshape(-1)[self.index]
        return values

    def slopes(self, name: TextureName) -> tuple[FloatArray, FloatArray]:
        gx, gy = _texture_slopes(self.station, name)
        if self.turn:
            gx, gy = gy, gx
        return gx.reshape(-1)[self.index], gy.reshape(-1)[self.index]


@cache
def _texture_slopes(station: Textures, name: TextureName) -> tuple[FloatArray, FloatArray]:
    """Slopes of a texture that wraps around, scaled to a joint deviation of 1."""
    field = getattr(station, name)
    gx = (np.roll(field, -1, 1) - np.roll(field, 1, 1)) / 2
    gy = (np.roll(field, -1, 0) - np.roll(field, 1, 0)) / 2
    scale = np.float32(1 / np.sqrt((gx**2).mean() + (gy**2).mean()))
    return (gx * scale).astype(np.float32), (gy * scale).astype(np.float32)
