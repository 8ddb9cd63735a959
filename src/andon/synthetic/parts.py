"""Machine parts and surfaces that several stations use."""

from __future__ import annotations

import cv2
import numpy as np

from andon.core import FloatArray
from andon.synthetic import shapes
from andon.synthetic.canvas import Canvas, Material, coverage
from andon.synthetic.filters import gaussian, look_up
from andon.synthetic.shapes import Path2D
from andon.synthetic.texture import SIZE

__all__ = [
    "ALUMINIUM",
    "BLACK_PLASTIC",
    "BLUE_PLASTIC",
    "CAST_ALUMINIUM",
    "CAST_IRON",
    "RUBBER",
    "STEEL",
    "WHITE_PAINT",
    "ZINC",
    "barcode_label",
    "bolt",
    "clamp",
    "ground",
    "hole",
    "paint_mark",
    "screw",
]

BLACK_PLASTIC = Material((0.022, 0.022, 0.024), 0.42, bump=(("grain", 0.035),), mottle=0.12, gloss=0.05, dirt=0.12)
GREY_PLASTIC = Material((0.16, 0.165, 0.17), 0.45, bump=(("grain", 0.03),), dirt=0.12)
BLUE_PLASTIC = Material((0.012, 0.075, 0.36), 0.34, bump=(("grain", 0.03),), mottle=0.08)
RED_PLASTIC = Material((0.46, 0.022, 0.018), 0.33, bump=(("grain", 0.03),), mottle=0.08, scratches=0.25)
RUBBER = Material((0.020, 0.019, 0.019), 0.62, bump=(("grain", 0.05),), mottle=0.15, dirt=0.2)
ALUMINIUM = Material((0.78, 0.78, 0.77), 0.34, 1.0, bump=(("brushed", 0.05),), scratches=0.4, dirt=0.12)
CAST_ALUMINIUM = Material(
    (0.50, 0.50, 0.49), 0.58, 0.85, bump=(("cast", 0.15), ("cloud", 0.03)), mottle=0.10, gloss=0.07, dirt=0.30
)
CAST_IRON = Material(
    (0.11, 0.105, 0.10), 0.66, 0.55, bump=(("cast", 0.16), ("cloud", 0.04)), mottle=0.2, gloss=0.06, dirt=0.35
)
STEEL = Material(
    (0.56, 0.55, 0.53), 0.33, 1.0, bump=(("brushed", 0.04), ("grain", 0.02)), mottle=0.08, scratches=0.4, dirt=0.15
)
ZINC = Material((0.66, 0.65, 0.60), 0.36, 1.0, bump=(("grain", 0.04),), mottle=0.12, scratches=0.3, dirt=0.12)
YELLOW_ZINC = Material((0.62, 0.50, 0.26), 0.36, 1.0, bump=(("grain", 0.04),), mottle=0.15, dirt=0.15)
BLACK_PAINT = Material(
    (0.030, 0.030, 0.031), 0.36, bump=(("cloud", 0.02), ("grain", 0.03)), mottle=0.1, scratches=0.35, dirt=0.25
)
WHITE_PAINT = Material((0.66, 0.66, 0.63), 0.40, bump=(("cloud", 0.015),), mottle=0.05, scratches=0.2, dirt=0.22)


def ground(canvas: Canvas, material: Material, z: float = 0.0, tilt: tuple[float, float] = (0.0, 0.0)) -> None:
    """Covers the whole canvas with a slightly uneven face."""
    window = canvas.everything()
    alpha = np.ones(canvas.size, np.float32)
    height = z + tilt[0] * window.x + tilt[1] * window.y
    canvas.paint(window, alpha, height.astype(np.float32), tilt[0], tilt[1], material)


def hole(canvas: Canvas, x: float, y: float, radius: float, z: float, depth: float = 14.0) -> None:
    """A drilled hole with a bright worn rim and a dark inside."""
    window = canvas.window(x - radius * 1.5, y - radius * 1.5, x + radius * 1.5, y + radius * 1.5)
    if window is None:
        return
    d = shapes.circle(window.x, window.y, x, y, radius)
    alpha = coverage(d, 1.2)
    inward = np.clip((d + radius) / radius, 0.05, 0.98)
    ux, uy = (window.x - x) / np.maximum(d + radius, 0.3), (window.y - y) / np.maximum(d + radius, 0.3)
    wall = np.clip(1 + d / np.float32(0.22 * radius), 0, 1) * 2.2
    canvas.paint(
        window, alpha, (z - depth * (1 - inward**6)).astype(np.float32), wall * ux, wall * uy,
        Material((0.012, 0.011, 0.011), 0.6, 0.3, mottle=0.2), anchor=(x, y),
    )  # fmt: skip


def bolt(
    canvas: Canvas,
    x: float,
    y: float,
    radius: float,
    angle: float,
    z: float,
    material: Material,
    *,
    flange: float = 1.42,
    height: float | None = None,
) -> None:
    """A hexagon bolt with a flange, seen from above.

    Args:
        radius: half the width across flats.
        angle: of the hexagon in radians.
        z: of the face it is screwed on.
    """
    height = radius * 0.75 if height is None else height
    outer = radius * flange
    window = canvas.window(x - outer - 3, y - outer - 3, x + outer + 3, y + outer + 3)
    if window is None:
        return
    canvas.disc(
        x, y, outer, z + 0.25 * radius, material, bevel=outer * 0.3, drop=radius * 0.22, anchor=(x, y), wear=0.3
    )

    def head(gx: FloatArray, gy: FloatArray) -> FloatArray:
        u, v = shapes.rotated(gx, gy, x, y, angle)
        return np.maximum(shapes.regular_polygon(u, v, 6, radius), shapes.circle(u, v, 0, 0, radius * 1.11))

    canvas.plate(window, head, z + height, material, bevel=radius * 0.24, drop=radius * 0.3, anchor=(x, y), wear=0.5)
    inset = radius * 0.62
    canvas.disc(
        x,
        y,
        inset,
        z + height - 0.5,
        material.but(rough=material.rough + 0.1),
        bevel=inset * 0.3,
        drop=-0.9,
        anchor=(x, y),
    )


def screw(
    canvas: Canvas, x: float, y: float, radius: float, angle: float, z: float, material: Material, *, lobes: int = 6
) -> None:
    """A pan-head screw with a star (Torx) recess."""
    window = canvas.window(x - radius - 3, y - radius - 3, x + radius + 3, y + radius + 3)
    if window is None:
        return
    canvas.disc(
        x, y, radius, z + radius * 0.55, material, bevel=radius * 0.62, drop=radius * 0.5, anchor=(x, y), wear=0.35
    )
    u, v = shapes.rotated(window.x, window.y, x, y, angle)
    around = np.arctan2(v, u)
    star = np.sqrt(u * u + v * v) - np.float32(radius) * (0.38 + 0.07 * np.cos(lobes * around))
    inside = coverage(star, 1.2)
    dx, dy = np.gradient(star, axis=1).astype(np.float32), np.gradient(star, axis=0).astype(np.float32)
    wall = np.clip(1 + star / np.float32(0.16 * radius), 0, 1) * 2
    canvas.paint(
        window, inside, z + radius * 0.1, wall * dx, wall * dy,
        material.but(albedo=(0.05, 0.05, 0.05), rough=0.6, scratches=0.0), anchor=(x, y),
    )  # fmt: skip


def clamp(
    canvas: Canvas,
    path: Path2D,
    s: float,
    radius: float,
    z: float,
    material: Material,
    *,
    width: float = 13.0,
    side: float = 1.0,
) -> None:
    """A worm-drive hose clamp around a tube at arc length ``s``: band with slots, and the screw housing on it."""
    band = path.part(s - width / 2, s + width / 2)
    slots = np.float32(2 * np.pi / 5.5)

    def slotted(along: FloatArray, across: FloatArray) -> FloatArray:
        angle = np.arcsin(np.clip(across, -0.98, 0.98)) * radius
        mark = (np.sin(slots * angle) > 0.35) & (np.abs(along - width / 2) < width * 0.27)
        return np.where(mark, np.float32(0.35), np.float32(1.0))

    canvas.tube(band, radius + 2.0, z, material, tint=slotted, caps=False)
    x, y, way = path.at(s)
    nx, ny = -np.sin(way) * side, np.cos(way) * side
    cx, cy = x + nx * radius * 0.55, y + ny * radius * 0.55
    canvas.slab(
        (cx, cy),
        (width * 0.62, width * 0.62),
        way,
        z + radius + 5,
        material,
        corner=2.5,
        bevel=width * 0.4,
        drop=5.0,
        anchor=(cx, cy),
        wear=0.4,
    )
    bolt(canvas, cx + nx * width * 0.75, cy + ny * width * 0.75, width * 0.36, way, z + radius, material, flange=1.1)


def barcode_label(
    canvas: Canvas, x: float, y: float, half: tuple[float, float], angle: float, rng: np.random.Generator
) -> None:
    """A printed sticker: bars, small print, a grubby corner."""
    reach = float(np.hypot(*half)) + 2
    window = canvas.window(x - reach, y - reach, x + reach, y + reach)
    if window is None:
        return
    width, height = int(half[0] * 8), int(half[1] * 8)
    art = np.full((height, width), 235, np.uint8)
    column = int(width * 0.08)
    while column < width * 0.92:
        bar = int(rng.integers(4, 15))
        if rng.uniform() < 0.5:
            art[int(height * 0.12) : int(height * 0.55), column : column + bar] = 25
        column += bar
    for line, size in ((0.74, 0.0042), (0.92, 0.0032)):
        text = "".join(rng.choice(list("ABCDEFHKLMNPRSTUVXYZ0123456789"), 11))
        cv2.putText(
            art, text, (int(width * 0.08), int(height * line)), cv2.FONT_HERSHEY_SIMPLEX, width * size, 40,
            max(1, width // 110), cv2.LINE_AA,
        )  # fmt: skip
    smooth = gaussian(art.astype(np.float32) / np.float32(255), 2.5)
    u, v = shapes.rotated(window.x, window.y, x, y, angle)
    column_map = (u + np.float32(half[0])) * 4
    row_map = (v + np.float32(half[1])) * 4
    print_ = look_up(smooth, column_map, row_map)
    alpha = coverage(shapes.box(u, v, half[0], half[1], 2.0)) * np.float32(0.96)
    colour = (print_[..., None] * np.array([0.80, 0.79, 0.74], np.float32)).astype(np.float32)
    canvas.decal(window, alpha, colour, 0.35)


PAINT_MARKS = ((0.015, 0.08, 0.36), (0.60, 0.42, 0.02), (0.62, 0.61, 0.58), (0.45, 0.03, 0.02))
"""Colours of the marker pens on the line: blue, yellow, white, red."""


def paint_mark(canvas: Canvas, x: float, y: float, rng: np.random.Generator, size: float = 1.0) -> None:
    """A stroke or a dot of a worker's marker pen, ragged: what says that a joint was checked."""
    length, width = size * rng.uniform(0, 17), size * rng.uniform(2.2, 4.2)
    angle, bend = rng.uniform(0, np.pi), rng.uniform(-0.03, 0.03)
    colour = PAINT_MARKS[int(rng.choice(len(PAINT_MARKS), p=(0.4, 0.25, 0.2, 0.15)))]
    reach = length + 2 * width + 3
    window = canvas.window(x - reach, y - reach, x + reach, y + reach)
    if window is None:
        return
    u, v = shapes.rotated(window.x, window.y, x, y, angle)
    v = v - np.float32(bend) * u * u
    rows = (np.arange(u.shape[0]) * 3) % SIZE
    columns = (np.arange(u.shape[1]) * 3 + int(rng.integers(SIZE))) % SIZE
    ragged = np.float32(0.5) * canvas.station.grain[rows[:, None], columns[None, :]]
    alpha = coverage(shapes.box(u, v, length + width, width, width) + ragged, 1.6)
    canvas.decal(window, alpha * np.float32(0.9), colour, 0.4)


def operator_arm(
    layer: Canvas, tip: tuple[float, float], way: float, reach: float, width: float, rng: np.random.Generator
) -> None:
    """A worker's forearm and hand that reach into the image.

    Args:
        tip: where the fingers end.
        way: direction the arm points to, radians.
        reach: length of the arm.
        width: half the width of the sleeve.
    """
    cloth = Material(
        ((0.018, 0.030, 0.075), (0.055, 0.060, 0.066), (0.012, 0.014, 0.018))[int(rng.integers(3))],
        0.85, bump=(("cloud", 0.10), ("weave", 0.10)), mottle=0.25, dirt=0.1,
    )  # fmt: skip
    glove = rng.uniform() < 0.6
    skin = (
        Material((0.10, 0.10, 0.105), 0.75, bump=(("weave", 0.10), ("cloud", 0.06)), mottle=0.2, dirt=0.2)
        if glove
        else Material((0.50, 0.27, 0.18), 0.55, bump=(("cloud", 0.05), ("grain", 0.04)), mottle=0.10, gloss=0.05)
    )
    c, s = np.cos(way), np.sin(way)

    def at(back: float, side: float) -> tuple[float, float]:
        return tip[0] - c * back - s * side, tip[1] - s * back + c * side

    hand = width * 0.62
    palm = 2.9 * hand
    for k, side in enumerate((-0.66, -0.22, 0.22, 0.64)):
        length = (0.0, -0.22, -0.14, 0.12)[k] * hand * 2
        curl = rng.uniform(-0.12, 0.12) * hand
        finger = shapes.smooth_path(
            [
                at(palm * 0.85, side * hand),
                at(palm * 0.4, side * hand * 1.1),
                at(length + 0.35 * hand, side * hand * 1.05 + curl),
            ],
            9,
        )
        layer.tube(finger, hand * 0.25, 62, skin, ribs=(hand * 1.1, hand * 0.012))
    thumb = shapes.smooth_path([at(palm, 0.75 * hand), at(palm * 0.72, 1.35 * hand), at(palm * 0.42, 1.6 * hand)], 9)
    layer.tube(thumb, hand * 0.29, 60, skin)
    # The back of the hand narrows to the wrist, which goes into the sleeve.
    wrist = shapes.smooth_path([at(palm * 0.66, 0), at(palm * 1.0, 0), at(palm * 1.5, 0)], 7)
    span = wrist.length
    layer.tube(wrist, lambda a: hand * (1.0 - 0.30 * np.clip(a / np.float32(span), 0, 1)), 40, skin, flatten=0.5)
    folds = rng.uniform(0.4, 1.0) * width * 0.05
    bend = rng.uniform(-0.25, 0.25) * width
    start = palm * 1.30
    sleeve = shapes.smooth_path([at(start, 0), at(start + reach * 0.45, bend), at(start + reach, bend * 2.2)], 16)
    layer.tube(
        sleeve, lambda a: width * (0.74 + 0.36 * np.clip(a / np.float32(reach), 0, 1)), 36, cloth,
        ribs=(width * 0.75, float(folds)), flatten=0.8, caps=False,
    )  # fmt: skip
    cuff = sleeve.part(0, width * 0.34)
    band = cloth.but(albedo=tuple(1.5 * v for v in cloth.albedo))
    layer.tube(cuff, width * 0.80, 38, band, flatten=0.8, caps=False)


def engine_bay(canvas: Canvas, rng: np.random.Generator) -> None:
    """What surrounds a connector in the engine bay: castings, covers, hoses, caps, pulleys, around the middle."""
    ground(canvas, CAST_IRON.but(albedo=(0.05, 0.049, 0.048)), z=-70)
    step = 300
    cells = [(x, y) for y in range(-1000, 1500, step) for x in range(-1350, 1800, step)]
    for x0, y0 in cells:
        x, y = x0 + rng.uniform(-60, 60), y0 + rng.uniform(-60, 60)
        kind = int(rng.choice(5, p=(0.30, 0.34, 0.07, 0.09, 0.20)))
        size, turn = rng.uniform(100, 210), rng.normal(0, 0.12)
        tone = rng.uniform(0.5, 1.3)
        if -150 < x < 550 and -150 < y < 550:
            continue
        box = canvas.window(x - 2 * size, y - 2 * size, x + 2 * size, y + 2 * size)
        if box is None:
            continue
        if kind == 0:
            body = CAST_ALUMINIUM.but(albedo=tuple(0.42 * tone for _ in range(3)))
            canvas.slab((x, y), (size, size * 0.7), turn, -10, body, corner=14, bevel=18, wear=0.3)
            for k in (-1, 1):
                bolt(canvas, x + k * size * 0.7, y + turn * k * size * 0.7, 13, turn, -8, ZINC)
        elif kind == 1:
            cover = BLACK_PLASTIC.but(rough=0.3 + 0.1 * tone)
            canvas.slab((x, y), (size * 1.2, size), turn, 0, cover, corner=26, bevel=20)
            barcode_label(canvas, x, y, (34, 18), turn, rng)
        elif kind == 2:
            for k, r in enumerate((0.9, 0.78, 0.6, 0.34, 0.2)):
                canvas.disc(x, y, size * r, -10.0 + 9 * (k % 2), STEEL.but(rough=0.42), bevel=6, wear=0.4)
        elif kind == 3:
            canvas.disc(x, y, size * 0.8, 5, GREY_PLASTIC.but(albedo=(0.34, 0.33, 0.27)), bevel=30, drop=26)
            canvas.disc(x, y, size * 0.45, 22, BLACK_PLASTIC, bevel=7)
        else:
            canvas.slab((x, y), (size, size * 0.8), turn, -30, CAST_IRON, corner=8, bevel=12)
    # Deep below the connector: a bracket casting with ribs and the ends of hoses.
    for k in range(6):
        x, y = rng.uniform(-120, 420), rng.uniform(-60, 460)
        size, turn = rng.uniform(40, 85), rng.uniform(-0.6, 0.6)
        box = canvas.window(x - 130, y - 130, x + 130, y + 130)
        dark = CAST_IRON.but(albedo=tuple(rng.uniform(0.05, 0.13) * np.ones(3)), dirt=0.3)
        canvas.slab((x, y), (size, size * 0.6), turn, -62 + 4 * k, dark, corner=12, bevel=14, wear=0.3)
        if k % 2:
            bolt(canvas, x, y, 10, turn, -62 + 4 * k, STEEL.but(albedo=(0.3, 0.29, 0.27)))
    for k in range(4):
        x = rng.uniform(-160, 330)
        sway = rng.uniform(-75, 75, 2)
        deep = shapes.smooth_path([(x - sway[1], -1200), (x, -200), (x + sway[0], 120), (x + sway[1], 1500)], 18)
        canvas.tube(
            deep, rng.uniform(9, 22), -56, RUBBER.but(albedo=(0.03, 0.03, 0.031)), ribs=(8.0, 1.3) if k % 2 else None
        )
    for k in range(14):
        y = -860 + 165 * k + rng.uniform(-50, 50)
        points = [(float(px), y + rng.uniform(-110, 110)) for px in range(-1250, 1800, 300)]
        radius, ribbed = rng.uniform(9, 34), rng.uniform() < 0.35
        if -190 < y < 560:
            points = (
                [(px, py) for px, py in points if px < -200] if k % 2 else [(px, py) for px, py in points if px > 600]
            )
        if len(points) > 1:
            canvas.tube(shapes.smooth_path(points, 24), radius, 0, RUBBER, ribs=(9.0, 1.4) if ribbed else None)
