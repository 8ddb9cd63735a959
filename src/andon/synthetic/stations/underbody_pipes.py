"""underbody_pipes: lines under a car's floor, behind a white platform of the assembly line.

Table 4: fixed scene, largely stable places of all items, shards that appear in some images, minor variation of light.
Defects: cables that hang in front of the scene, and operators. Both are marked below the top line of the white platform
only (section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import cv2
import numpy as np

from andon.core import DefectConfig, FloatArray
from andon.synthetic import parts, shapes
from andon.synthetic.camera import Exposure, Pose
from andon.synthetic.canvas import Canvas, Material
from andon.synthetic.filters import dim, resized
from andon.synthetic.light import Lamp, Light, Rig
from andon.synthetic.parts import ground
from andon.synthetic.randomness import stream
from andon.synthetic.shapes import smooth_path
from andon.synthetic.station import Scene, Station, Take

__all__ = ["PLATFORM_TOP", "UnderbodyPipes"]

PLATFORM_TOP = 452.0
"""Scene coordinate y of the top line of the white platform."""
SHARDS = tuple((70.0 + 86 * k, 505.0 + (61 * k) % 90) for k in range(11))
"""Places where shards may lie."""


class UnderbodyPipes(Station):
    name = "underbody_pipes"
    size = (750, 1000)
    shares: ClassVar[Mapping[str, float]] = {"cables": 0.7, "operator": 0.3}
    full_counts = (161, 161, 184)
    defects = (DefectConfig("cables", 255, 1.0, True), DefectConfig("operator", 254, 1.0, True))
    scale = 1.8
    margin = 30
    distortion = 0.03
    dof = (1.6, 20.0, 90.0)

    def rig(self, seed: int) -> Rig:
        tubes = [
            Lamp((-0.5, -0.30, 0.8), (0.05, 0.55), 8.0, (0.95, 1.0, 1.03), (1, 0, 0)),
            Lamp((0.55, -0.35, 0.75), (0.05, 0.55), 7.0, (0.95, 1.0, 1.03), (1, 0, 0)),
        ]
        floor = [Lamp((0.0, 0.75, 0.65), (0.7, 0.10), 3.0, (1.0, 0.98, 0.95), (1, 0, 0), soft=0.2)]
        return Rig([tubes, floor], above=(0.22, 0.225, 0.23), below=(0.30, 0.30, 0.29))

    def light(self, take: Take) -> Light:
        amount = take.knobs.light
        overall = 1.0 + take.drift("light", 0.05)
        return Light(
            (
                1.0 * overall,
                overall * (1.0 + amount * take.normal("tubes", 0.13)),
                0.9 * overall * (1 + amount * take.normal("floor", 0.16)),
            ),
            ((1.0, 1.0, 1.0),) * 3,
            (-0.35, -0.55, 0.85),
            0.55,
        )

    def pose(self, take: Take) -> Pose:
        return Pose(
            take.jitter("dx", 3.0) + take.drift("dx", 1.5),
            take.jitter("dy", 2.5) + take.drift("dy", 1.5),
            take.jitter("roll", 0.002),
            1 + take.jitter("zoom", 0.002),
        )

    def exposure(self, take: Take) -> Exposure:
        knobs = take.knobs
        return Exposure(
            gain=1.3 * (1 + 0.03 * knobs.light * take.normal("gain", 1.5)),
            white=(1.02, 1.0, 0.97 + 0.008 * knobs.light * take.normal("white", 1.0)),
            blur=knobs.blur * take.uniform("focus", 0.55, 0.85),
            noise=0.020 * knobs.noise,
            jpeg=int(take.rng("jpeg").integers(85, 92)) if knobs.noise > 0 else 0,
            vignette=0.35,
        )

    def background(self, canvas: Canvas, mode: int, seed: int) -> None:
        rng = stream(seed, self.name, "background")
        floor = Material((0.035, 0.034, 0.034), 0.6, bump=(("cloud", 0.06), ("cast", 0.12)), mottle=0.25, dirt=0.35)
        ground(canvas, floor, z=-60)
        everything = canvas.everything()
        # Pressed floor panel with beads, a frame rail, a dimpled heat shield around the exhaust.
        for k in range(7):
            x0 = 40 + 150 * k + rng.uniform(-10, 10)
            bead = canvas.window(x0 - 70, -20, x0 + 70, 120)
            if bead is not None:
                canvas.groove(bead, shapes.box(bead.x - x0, bead.y - 40, 44, 46, 18), 9, -7)
        rail = parts.BLACK_PAINT.but(dirt=0.35)
        canvas.plate(
            everything,
            lambda x, y: shapes.box(x - 500, y - 152 - 8 * np.sin(x / 300), 640, 42, 8),
            -20,
            rail,
            bevel=12,
            wear=0.35,
        )
        for x0 in (90, 330, 560, 860):
            parts.bolt(canvas, x0, 150 + 8 * np.sin(x0 / 300), 12, rng.uniform(0, 1), -20, parts.STEEL)
            canvas.slab((x0 + 95, 152), (22, 11), 0.0, -34, floor, corner=11, bevel=3)
        shield = parts.ALUMINIUM.but(
            albedo=(0.55, 0.55, 0.55), rough=0.46, dirt=0.3, bump=(("cloud", 0.10), ("grain", 0.03))
        )
        outline = [(520, 206), (1090, 196), (1090, 420), (610, 426), (556, 330)]
        canvas.sheet(outline, -18, shield, corner=10, bevel=8, wear=0.3)
        dimples = canvas.window(540, 206, 1040, 425)
        if dimples is not None:
            u = np.abs((dimples.x + 12 * (np.floor(dimples.y / 24) % 2)) % 24 - 12)
            v = np.abs(dimples.y % 24 - 12)
            inside = shapes.polygon(dimples.x, dimples.y, outline, -18) < 0
            canvas.groove(dimples, np.where(inside, np.sqrt(u * u + v * v), 60).astype(np.float32), 5.5, -2.6)
        # The exhaust: a big stained pipe with a flange and a weld, and its rubber hanger.
        exhaust = smooth_path([(470, 388), (640, 336), (820, 312), (960, 306), (1100, 316)], 12)
        steel = parts.STEEL.but(albedo=(0.40, 0.37, 0.33), rough=0.42, dirt=0.3, mottle=0.22)
        canvas.tube(exhaust, 44, -6, steel, tint=_heat_tint)
        flange = exhaust.part(150, 168)
        canvas.tube(flange, 58, -6, parts.CAST_IRON, caps=False)
        x, y, way = exhaust.at(159)
        for side in (-46, 46):
            parts.bolt(
                canvas,
                x - np.sin(way) * side,
                y + np.cos(way) * side,
                11,
                0.3,
                30,
                parts.STEEL.but(albedo=(0.3, 0.22, 0.15)),
            )
        weld = exhaust.part(300, 309)
        canvas.tube(weld, 46.5, -6, steel.but(bump=(("cast", 0.3),)), caps=False, ribs=(5, 0.8))
        # Brake and fuel lines in plastic holders.
        self._lines(canvas, rng)
        canvas.slab((190, 372), (92, 40), 0.0, -6, parts.BLACK_PLASTIC, corner=10, bevel=10, wear=0.3)
        parts.barcode_label(canvas, 200, 372, (44, 20), 0.02, rng)
        self._platform(canvas, rng)

    @staticmethod
    def _lines(canvas: Canvas, rng: np.random.Generator) -> None:
        colours = (
            Material((0.022, 0.075, 0.045), 0.36, dirt=0.2),
            Material((0.020, 0.020, 0.021), 0.36, dirt=0.2),
            parts.ZINC.but(albedo=(0.45, 0.45, 0.44), dirt=0.25),
            Material((0.020, 0.020, 0.022), 0.40, dirt=0.2),
        )
        centre = smooth_path([(-80, 300), (140, 288), (330, 262), (430, 316), (560, 430), (620, 520)], 10)
        for k, material in enumerate(colours):
            canvas.tube(
                centre.offset((k - 1.5) * 19), (7.5, 7.0, 6.0, 8.0)[k], 6, material, ribs=(8.0, 1.0) if k == 3 else None
            )
        for s in (110, 255, 430, 575):
            x, y, way = centre.at(float(s + rng.uniform(-8, 8)))
            canvas.slab((x, y), (13, 46), way, 18, parts.BLACK_PLASTIC.but(rough=0.5), corner=5, bevel=7, wear=0.4)
            for off in (-28.5, -9.5, 9.5, 28.5):
                px, py = x - np.sin(way) * off, y + np.cos(way) * off
                canvas.slab((px, py), (8, 4), way, 22, parts.BLACK_PLASTIC, corner=3, bevel=3)

    @staticmethod
    def _platform(canvas: Canvas, rng: np.random.Generator) -> None:
        white = parts.WHITE_PAINT.but(dirt=0.30, scratches=0.5)
        window = canvas.window(-60, PLATFORM_TOP - 4, 1080, 800)
        canvas.plate(window, lambda x, y: np.maximum(PLATFORM_TOP - y, y - 668), 40, white, bevel=9, drop=9, wear=0.1)
        canvas.plate(
            window,
            lambda x, y: np.maximum(662 - y, y - 900),
            26,
            white.but(albedo=(0.42, 0.42, 0.40), dirt=0.4),
            bevel=6,
        )
        if window is not None:
            canvas.groove(window, window.y - 486, 2.5, 2.0, 0.3)
            for x0 in (250, 752):
                canvas.groove(window, np.where(window.y < 668, window.x - x0, 60).astype(np.float32), 2.0, 2.0, 0.45)
        for x0 in (60, 222, 280, 470, 724, 780, 950):
            parts.bolt(canvas, x0, 640, 10, rng.uniform(0, 1), 40, parts.ZINC)
        stripe = canvas.window(330, 560, 700, 612)
        if stripe is not None:
            diagonal = ((stripe.x + stripe.y) / 26) % 2 < 1
            colour = np.where(
                diagonal[..., None], np.array([0.60, 0.40, 0.02], np.float32), np.array([0.02, 0.02, 0.02], np.float32)
            )
            worn = np.clip(1.6 - canvas.station.cloud[: stripe.x.shape[0], : stripe.x.shape[1]], 0, 1) * 0.92
            inside = np.clip(-shapes.box(stripe.x - 515, stripe.y - 586, 178, 19, 1) + 0.5, 0, 1)
            canvas.decal(stripe, (inside * worn).astype(np.float32), colour.astype(np.float32), 0.5)

    def draw(self, scene: Scene, take: Take) -> None:
        canvas = scene.canvas
        size = take.knobs.defect_size
        rng = take.rng("shards")
        for k, (x0, y0) in enumerate(SHARDS):
            if not take.clutter(f"shard {k}", 0.12):
                continue
            x, y, turn = x0 + rng.normal(0, 9), y0 + rng.normal(0, 7), rng.uniform(0, 3.1)
            spread = rng.uniform(4, 9, 5)
            outline = [
                (x + r * np.cos(turn + a) * 1.5, y + r * np.sin(turn + a) * 0.8)
                for r, a in zip(spread, np.linspace(0, 5.2, 5), strict=True)
            ]
            tilt = tuple(rng.uniform(-0.3, 0.3, 2))
            canvas.sheet(outline, 44, parts.STEEL, corner=0.5, bevel=1.5, tilt=tilt, anchor=(x, y))
        if take.defect == "cables":
            self._cables(scene, take, size)
        if take.defect == "operator":
            self._operator(scene, take, size)

    def _layer(self, canvas: Canvas) -> Canvas:
        (height, width), (x, y) = canvas.size, canvas.origin
        layer = canvas.layer(x, y, x + width - 1, y + height - 1)
        assert layer is not None
        return layer

    def _cables(self, scene: Scene, take: Take, size: float) -> None:
        rng = take.rng("defect", "cables")
        layer = self._layer(scene.canvas)
        for _ in range(int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))):
            x = rng.uniform(120, 880)
            low = rng.uniform(485, 700)
            sway, loop = rng.normal(0, 40), rng.uniform(20, 110)
            points = [
                (x + rng.normal(0, 30), -60.0),
                (x + sway, 200.0),
                (x + rng.normal(0, 24), low - 60),
                (x + loop / 2, low),
            ]
            if rng.uniform() < 0.6:
                points += [(x + loop, low - 70), (x + loop + sway, 190.0), (x + loop + rng.normal(0, 60), -60.0)]
            kind = int(rng.integers(3))
            material = (
                Material((0.020, 0.020, 0.021), 0.38, bump=(("grain", 0.02),), dirt=0.1),
                Material((0.024, 0.024, 0.025), 0.5, bump=(("weave", 0.08),), dirt=0.15),
                Material((0.36, 0.16, 0.02), 0.38, bump=(("grain", 0.02),), dirt=0.1),
            )[kind]
            radius = size * rng.uniform(4.5, 9) * (0.8 if kind == 2 else 1.0)
            layer.tube(
                smooth_path(points, 12), radius, 60, material, ribs=(7.5, 1.0) if kind == 0 and radius > 8 else None
            )
            if len(points) == 4:
                end_x, end_y = points[-1]
                plug = layer.window(end_x - 40, end_y - 30, end_x + 40, end_y + 50)
                if plug is not None:
                    layer.slab(
                        (end_x, end_y + 14),
                        (15 * size, 20 * size),
                        0.0,
                        66,
                        parts.BLACK_PLASTIC,
                        corner=4,
                        bevel=5,
                        wear=0.3,
                    )
        scene.cover(layer, 1.1, "cables", below=PLATFORM_TOP)

    def _operator(self, scene: Scene, take: Take, size: float) -> None:
        rng = take.rng("defect", "operator")
        layer = self._layer(scene.canvas)
        left = rng.uniform() < 0.5
        tip = (rng.uniform(330, 700), rng.uniform(430, 600))
        way = rng.uniform(-0.55, 0.15)
        if not left:
            way = np.pi - way
        parts.operator_arm(layer, tip, way, 900, 82 * size, rng)
        scene.cover(layer, 3.0, "operator", below=PLATFORM_TOP)

    def finish(self, linear: FloatArray, take: Take) -> FloatArray:
        """Products and people that pass before the lamps dim them here and there, softly."""
        amount = 0.19 * take.knobs.light
        if amount == 0:
            return linear
        height, width = linear.shape[:2]
        gy, gx = np.mgrid[0:24, 0:32].astype(np.float32)
        gx, gy = gx / 31, gy / 23
        field = np.zeros((24, 32), np.float32)
        for k, (fx, fy) in enumerate(((0.5, 0.0), (1.0, 0.2), (1.6, 0.0), (0.4, 0.6), (2.3, 0.3))):
            phase = take.uniform(f"pass {k}", 0, 2 * np.pi)
            field += np.float32(take.normal(f"dim {k}", amount)) * np.cos(2 * np.pi * (fx * gx + fy * gy) + phase)
        shade = resized(np.exp(field), (height, width), cv2.INTER_CUBIC)
        return dim(linear, shade)


def _heat_tint(s: FloatArray, across: FloatArray) -> FloatArray:
    """Annealing colours along the exhaust: straw, brown, blue in bands."""
    phase = s[..., None] / np.float32(95) + np.array([0.0, 0.35, 0.75], np.float32)
    tint: FloatArray = (1 + 0.16 * np.sin(phase * 2.1)).astype(np.float32)
    return tint
