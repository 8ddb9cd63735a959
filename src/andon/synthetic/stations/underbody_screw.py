"""underbody_screw: a casing under the car with a screw on its left and on its right.

Table 4: fixed scene, major variation of light (its colours change over time), several casing models, a visible lens
flare in some images. Defect: the left screw is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from andon.core import DefectConfig, FloatArray
from andon.synthetic import parts, shapes
from andon.synthetic.camera import Exposure, Pose
from andon.synthetic.canvas import Canvas, coverage
from andon.synthetic.filters import resized
from andon.synthetic.light import Lamp, Light, Rig
from andon.synthetic.parts import ground
from andon.synthetic.randomness import stream
from andon.synthetic.shapes import smooth_path
from andon.synthetic.station import Scene, Station, Take

__all__ = ["UnderbodyScrew"]

LEFT, RIGHT = (262.0, 418.0), (744.0, 402.0)
RADIUS = 25.0
LUG = 52.0


class UnderbodyScrew(Station):
    name = "underbody_screw"
    size = (750, 1000)
    shares: ClassVar[Mapping[str, float]] = {"missing": 1.0}
    full_counts = (373, 374, 18)
    mode_weights = (0.40, 0.25, 0.20, 0.15)
    defects = (DefectConfig("missing", 255, 0.7, True),)
    scale = 2.0
    margin = 36
    distortion = 0.03
    dof = (1.8, 30.0, 90.0)

    def rig(self, seed: int) -> Rig:
        tubes = [
            Lamp((-0.25, -0.62, 0.74), (0.75, 0.05), 8.0, (0.95, 1.0, 1.03), (1, 0, 0)),
            Lamp((0.15, -0.82, 0.55), (0.75, 0.05), 8.0, (0.95, 1.0, 1.03), (1, 0, 0)),
        ]
        lamp = [Lamp((0.62, -0.22, 0.75), (0.17, 0.17), 15.0, (1.0, 0.97, 0.92), soft=0.12)]
        gate = [Lamp((-0.86, -0.12, 0.5), (0.45, 0.30), 3.6, (0.86, 0.95, 1.12), (0, 1, 0), soft=0.25)]
        return Rig([tubes, lamp, gate], above=(0.36, 0.37, 0.39), below=(0.20, 0.19, 0.18))

    def light(self, take: Take) -> Light:
        # Shifts: tubes and hand lamp by night, the open gate by day; the mixture also drifts over the production.
        amount = take.knobs.light
        day = float(np.clip(0.5 + amount * (take.uniform("day", -0.5, 0.5) + take.drift("day", 0.35)), 0, 1))
        dim = float(np.exp(amount * take.normal("dim", 0.22)))
        tubes = max(0.08, 1.0 + amount * take.normal("tubes", 0.28))
        lamp = max(0.05, 0.75 + amount * take.normal("lamp", 0.42))
        warm = amount * take.uniform("warm", -0.1, 0.28)
        return Light(
            (0.95 * dim, tubes * dim, lamp * dim, 1.9 * day * dim),
            (
                (1 + 0.3 * warm, 1.0, 1 - 0.3 * warm),
                (1.0, 1.0, 1.0),
                (1 + warm, 1.0, 1 - 0.8 * warm),
                (1 - 0.3 * warm, 1.0, 1.0),
            ),
            (0.5 + 0.12 * amount * take.normal("direction", 1.0), -0.5, 0.85),
            0.55,
        )

    def pose(self, take: Take) -> Pose:
        return Pose(
            take.jitter("dx", 3.5) + take.drift("dx", 2.0),
            take.jitter("dy", 3.0) + take.drift("dy", 2.0),
            take.jitter("roll", 0.004),
            1 + take.jitter("zoom", 0.004),
        )

    def exposure(self, take: Take) -> Exposure:
        knobs = take.knobs
        cast = knobs.light * take.normal("white", 0.045)
        return Exposure(
            gain=1.25 * float(np.exp(knobs.light * take.normal("gain", 0.16))),
            white=(1 + cast, 1 + 0.3 * knobs.light * take.normal("green", 0.03), 1 - cast),
            blur=knobs.blur * take.uniform("focus", 0.55, 0.95),
            noise=0.023 * knobs.noise,
            jpeg=int(take.rng("jpeg").integers(85, 92)) if knobs.noise > 0 else 0,
            vignette=0.35,
            haze=0.012 * knobs.light * take.uniform("haze", 0, 1),
        )

    def background(self, canvas: Canvas, mode: int, seed: int) -> None:
        rng = stream(seed, self.name, "background")
        model = stream(seed, self.name, "model", mode)
        ground(canvas, parts.CAST_IRON.but(albedo=(0.05, 0.049, 0.048), dirt=0.4), z=-70)
        everything = canvas.everything()
        # Around the casing: a cross member above, hoses and a driveshaft below.
        canvas.plate(
            everything,
            lambda x, y: shapes.box(x - 500, y - 20 - 0.05 * x, 700, 66, 10),
            -30,
            parts.BLACK_PAINT.but(dirt=0.35),
            bevel=14,
            wear=0.4,
        )
        for x0 in (120, 480, 850):
            parts.bolt(canvas, x0, 24 + 0.05 * x0, 15, rng.uniform(0, 1), -30, parts.STEEL)
        canvas.tube(
            smooth_path([(-80, 700), (300, 716), (700, 690), (1100, 720)], 16),
            46,
            -40,
            parts.STEEL.but(albedo=(0.25, 0.24, 0.23), rough=0.5, dirt=0.4),
        )
        canvas.tube(
            smooth_path([(-60, 600), (120, 632), (360, 660), (640, 640), (1080, 660)], 12),
            15,
            -10,
            parts.RUBBER,
            ribs=(9, 1.4),
        )
        casing = parts.CAST_ALUMINIUM.but(
            albedo=((0.46, 0.46, 0.45), (0.36, 0.36, 0.36), (0.50, 0.49, 0.46), (0.085, 0.085, 0.088))[mode % 4],
            dirt=(0.32, 0.36, 0.28, 0.3)[mode % 4],
            rough=(0.56, 0.60, 0.52, 0.46)[mode % 4],
            metal=(0.85, 0.85, 0.85, 0.1)[mode % 4],
        )
        outlines = (
            [(200, 150), (800, 132), (832, 300), (790, 560), (600, 622), (400, 626), (216, 570), (172, 320)],
            [(232, 168), (500, 120), (776, 150), (840, 330), (772, 590), (520, 610), (240, 596), (176, 350)],
            [(190, 190), (320, 130), (690, 126), (822, 190), (822, 540), (700, 620), (300, 624), (186, 540)],
            [(210, 140), (790, 140), (820, 250), (820, 520), (760, 600), (250, 606), (180, 520), (180, 250)],
        )
        outline = outlines[mode % 4]
        # Flange all around, then the raised body.
        canvas.sheet(outline, 0, casing, corner=26, bevel=12, drop=26, wear=0.3)
        inner = [(500 + (x - 500) * 0.74, 380 + (y - 380) * 0.74) for x, y in outline]
        canvas.sheet(inner, 38, casing, corner=18, bevel=34, drop=36, wear=0.2)
        self._ribs(canvas, mode, model)
        machined = casing.but(
            bump=(("brushed", 0.035), ("grain", 0.04)), rough=0.36, metal=1.0, albedo=(0.62, 0.62, 0.61), dirt=0.1
        )
        for x, y in (LEFT, RIGHT):
            canvas.disc(x, y, LUG, 26, casing, bevel=18, drop=26, wear=0.3)
            canvas.disc(x, y, LUG * 0.78, 27, machined, bevel=3, wear=0.2)
            parts.hole(canvas, x, y, 12, 27, 20)
        small = ((330, 196), (668, 182), (330, 590), (655, 588), (500, 612))
        for k, (x, y) in enumerate(small[: 3 + mode % 3]):
            parts.bolt(
                canvas,
                x,
                y,
                12,
                model.uniform(0, 1),
                0 if k < 2 else -2,
                (parts.ZINC, parts.STEEL, parts.YELLOW_ZINC, parts.ZINC)[mode % 4],
            )
        plug_x, plug_y = ((500, 500), (420, 480), (585, 505), (500, 470))[mode % 4]
        canvas.disc(plug_x, plug_y, 40, 44, casing, bevel=10, wear=0.3)
        parts.bolt(canvas, plug_x, plug_y, 22, 0.4, 44, parts.YELLOW_ZINC)
        if mode % 2 == 0:
            parts.barcode_label(canvas, 500 + 40 * mode, 224, (58, 28), model.uniform(-0.03, 0.03), model)

    @staticmethod
    def _ribs(canvas: Canvas, mode: int, model: np.random.Generator) -> None:
        window = canvas.window(290, 210, 712, 560)
        if window is None:
            return
        edge = np.clip(-shapes.box(window.x - 500, window.y - 385, 190, 150, 30) / 16, 0, 1)
        count = 5 + mode % 4
        for k in range(count):
            t = (k - (count - 1) / 2) / count
            if mode % 4 in (0, 3):
                d = window.x - (500 + 400 * t) + 0.1 * t * (window.y - 385)
            elif mode % 4 == 1:
                d = 0.8 * (window.y - 385) - 0.6 * (window.x - 500) - 420 * t
            else:
                d = np.sqrt((window.x - 500) ** 2 + (window.y - 760) ** 2) - (380 + 380 * t)
            far = np.where(edge > 0.02, np.abs(d) / np.maximum(edge, 0.05), 80)
            canvas.groove(window, np.where(d < 0, -far, far).astype(np.float32), 7.5, -9.0)

    def draw(self, scene: Scene, take: Take) -> None:
        canvas = scene.canvas
        size = take.knobs.defect_size
        material = parts.YELLOW_ZINC.but(albedo=(0.52, 0.47, 0.36)) if take.mode % 2 else parts.ZINC
        for name, (x, y) in (("left", LEFT), ("right", RIGHT)):
            radius = RADIUS * (size if name == "left" else 1.0)
            if name == "left" and take.defect == "missing":
                window = canvas.everything()
                scene.region("missing", coverage(shapes.circle(window.x, window.y, x, y, radius * 1.42 + 2.5)))
                continue
            angle = take.uniform(f"{name} angle", 0, 2 * np.pi)
            parts.bolt(
                canvas,
                x + take.jitter(f"{name} x", 0.6),
                y + take.jitter(f"{name} y", 0.6),
                radius,
                angle,
                27,
                material,
                flange=1.42,
            )

    def finish(self, linear: FloatArray, take: Take) -> FloatArray:
        """A lens flare in some images: glare around a lamp, a streak, and ghosts on the line through the centre."""
        if not take.chance("flare", min(0.95, 0.22 * take.knobs.light)):
            return linear
        height, width = linear.shape[:2]
        rng = take.rng("flare shape")
        x = rng.uniform(0.62, 1.05) * width
        y = rng.uniform(-0.05, 0.22) * height
        strength = rng.uniform(0.35, 1.0)
        small = (height // 4, width // 4)
        gy, gx = np.mgrid[0 : small[0], 0 : small[1]].astype(np.float32) * 4
        glow = np.zeros((*small, 3), np.float32)
        d2 = (gx - np.float32(x)) ** 2 + (gy - np.float32(y)) ** 2
        halo = 0.55 / (1 + d2 / 90.0**2) + 0.18 / (1 + d2 / 320.0**2)
        glow += halo[..., None] * np.array([1.0, 0.96, 0.88], np.float32)
        streak = np.exp(-(((gy - y - 0.04 * (gx - x)) / 7) ** 2)) / (1 + ((gx - x) / 260) ** 2)
        glow += 0.30 * streak[..., None] * np.array([0.8, 0.9, 1.0], np.float32)
        for k in range(5):
            t = (0.45, 0.8, 1.2, 1.55, 1.9)[k] + rng.uniform(-0.06, 0.06)
            cx, cy = x + t * (width / 2 - x), y + t * (height / 2 - y)
            radius = rng.uniform(18, 72)
            disk = coverage(np.sqrt((gx - cx) ** 2 + (gy - cy) ** 2) - np.float32(radius), 14)
            ring = disk * (0.55 + 0.45 * np.clip(((gx - cx) ** 2 + (gy - cy) ** 2) / radius**2, 0, 1))
            colour = np.array(
                [(0.7, 1.0, 0.6), (0.5, 0.8, 1.0), (1.0, 0.7, 0.4), (0.6, 1.0, 0.8), (0.9, 0.6, 1.0)][k],
                np.float32,
            )
            glow += 0.055 * ring[..., None] * colour
        linear += np.float32(strength) * resized(glow, (height, width))
        return linear
