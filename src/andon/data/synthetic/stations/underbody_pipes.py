"""underbody_pipes: lines under a car's floor, behind a white platform of the assembly line.

Table 4: fixed scene, largely stable places of all items, shards that appear in some pictures, minor variation of light. Defects:
cables that hang in front of the scene, and operators. Both are marked below the top line of the white platform only (section 3.2).
"""

from __future__ import annotations

import cv2
import numpy as np

from andon.core import DefectConfig, FloatArray
from andon.data.synthetic import parts, shapes
from andon.data.synthetic.camera import Exposure, Pose
from andon.data.synthetic.canvas import Canvas, Material
from andon.data.synthetic.light import Lamp, Light, Rig
from andon.data.synthetic.parts import ground
from andon.data.synthetic.randomness import stream
from andon.data.synthetic.shapes import smooth_path
from andon.data.synthetic.station import Foreground, Scene, Station, Take

__all__ = ["PLATFORM_TOP", "UnderbodyPipes"]

PLATFORM_TOP = 452.0
"""Scene coordinate y of the top line of the white platform."""
SHARDS = tuple((70.0 + 86 * k, 505.0 + (61 * k) % 90) for k in range(11))
"""Places where shards may lie."""


class UnderbodyPipes(Station):
    name = "underbody_pipes"
    size = (750, 1000)
    shares = {"cables": 0.7, "operator": 0.3}
    full_counts = (161, 161, 184)
    defects = (DefectConfig("cables", 255, 1.0, True), DefectConfig("operator", 254, 1.0, True))
    scale = 1.8
    margin = 16
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
            (1.0 * overall, overall * (1.0 + amount * take.normal("tubes", 0.06)), 0.9 * overall * (1 + amount * take.normal("floor", 0.08))),
            ((1.0, 1.0, 1.0),) * 3,
            (-0.35, -0.55, 0.85),
            0.55,
        )

    def pose(self, take: Take) -> Pose:
        return Pose(
            take.jitter("dx", 2.0) + take.drift("dx", 1.5),
            take.jitter("dy", 1.6) + take.drift("dy", 1.5),
            take.jitter("roll", 0.002),
            1 + take.jitter("zoom", 0.002),
        )

    def exposure(self, take: Take) -> Exposure:
        knobs = take.knobs
        return Exposure(
            gain=1.3 * (1 + 0.03 * knobs.light * take.normal("gain", 1.0)),
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
        canvas.plate(everything, lambda x, y: shapes.box(x - 500, y - 152 - 8 * np.sin(x / 300), 640, 42, 8), -20, rail, bevel=12, wear=0.35)
        for x0 in (90, 330, 560, 860):
            parts.bolt(canvas, x0, 150 + 8 * np.sin(x0 / 300), 12, rng.uniform(0, 1), -20, parts.STEEL)
            slot = canvas.window(x0 + 60, 120, x0 + 130, 180)
            canvas.plate(slot, lambda x, y, x0=x0: shapes.box(x - x0 - 95, y - 152, 22, 11, 11), -34, floor, bevel=3)
        shield = parts.ALUMINIUM.but(albedo=(0.55, 0.55, 0.55), rough=0.46, dirt=0.3, bump=(("cloud", 0.10), ("grain", 0.03)))
        outline = [(520, 206), (1090, 196), (1090, 420), (610, 426), (556, 330)]
        canvas.plate(everything, lambda x, y: shapes.polygon(x, y, outline, 10), -18, shield, bevel=8, wear=0.3)
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
            parts.bolt(canvas, x - np.sin(way) * side, y + np.cos(way) * side, 11, 0.3, 30, parts.STEEL.but(albedo=(0.3, 0.22, 0.15)))
        weld = exhaust.part(300, 309)
        canvas.tube(weld, 46.5, -6, steel.but(bump=(("cast", 0.3),)), caps=False, ribs=(5, 0.8))
        # Brake and fuel lines in plastic holders.
        self._lines(canvas, rng)
        box = canvas.window(60, 220, 330, 440)
        canvas.plate(box, lambda gx, gy: shapes.box(gx - 190, gy - 372, 92, 40, 10), -6, parts.BLACK_PLASTIC, bevel=10, wear=0.3)
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
            canvas.tube(centre.offset((k - 1.5) * 19), (7.5, 7.0, 6.0, 8.0)[k], 6, material, ribs=(8.0, 1.0) if k == 3 else None)
        for s in (110, 255, 430, 575):
            x, y, way = centre.at(float(s + rng.uniform(-8, 8)))
            clip = canvas.window(x - 70, y - 70, x + 70, y + 70)
            canvas.plate(
                clip, lambda gx, gy, x=x, y=y, way=way: shapes.box(*shapes.rotated(gx, gy, x, y, way), 13, 46, 5),
                18, parts.BLACK_PLASTIC.but(rough=0.5), bevel=7, wear=0.4,
            )  # fmt: skip
            for off in (-28.5, -9.5, 9.5, 28.5):
                px, py = x - np.sin(way) * off, y + np.cos(way) * off
                canvas.plate(
                    clip, lambda gx, gy, px=px, py=py, way=way: shapes.box(*shapes.rotated(gx, gy, px, py, way), 8, 4, 3),
                    22, parts.BLACK_PLASTIC, bevel=3,
                )  # fmt: skip

    @staticmethod
    def _platform(canvas: Canvas, rng: np.random.Generator) -> None:
        white = parts.WHITE_PAINT.but(dirt=0.30, scratches=0.5)
        window = canvas.window(-60, PLATFORM_TOP - 4, 1080, 800)
        canvas.plate(window, lambda x, y: np.maximum(PLATFORM_TOP - y, y - 668), 40, white, bevel=9, drop=9, wear=0.1)
        canvas.plate(window, lambda x, y: np.maximum(662 - y, y - 900), 26, white.but(albedo=(0.42, 0.42, 0.40), dirt=0.4), bevel=6)
        if window is not None:
            canvas.groove(window, window.y - 486, 2.5, 2.0, 0.3)
            for x0 in (250, 752):
                canvas.groove(window, np.where(window.y < 668, window.x - x0, 60).astype(np.float32), 2.0, 2.0, 0.45)
        for x0 in (60, 222, 280, 470, 724, 780, 950):
            parts.bolt(canvas, x0, 640, 10, rng.uniform(0, 1), 40, parts.ZINC)
        stripe = canvas.window(330, 560, 700, 612)
        if stripe is not None:
            diagonal = ((stripe.x + stripe.y) / 26) % 2 < 1
            colour = np.where(diagonal[..., None], np.float32([0.60, 0.40, 0.02]), np.float32([0.02, 0.02, 0.02]))
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
            box = canvas.window(x - 20, y - 16, x + 20, y + 16)
            tilt = tuple(rng.uniform(-0.3, 0.3, 2))
            canvas.plate(box, lambda gx, gy, o=outline: shapes.polygon(gx, gy, o, 0.5), 44, parts.STEEL, bevel=1.5, tilt=tilt, anchor=(x, y))
        if take.defect == "cables":
            self._cables(scene, take, size)
        if take.defect == "operator":
            self._operator(scene, take, size)

    def _mark(self, scene: Scene, name: str, layer: Canvas, blur: float) -> None:
        """Marks what a layer covers below the platform's top line."""
        assert layer.alpha is not None
        soft = cv2.GaussianBlur(layer.alpha, (0, 0), blur, borderType=cv2.BORDER_REPLICATE)
        mask = np.clip(soft * 12, 0, 1)
        rows = np.arange(scene.canvas.size[0]) + scene.canvas.origin[1]
        mask[rows < PLATFORM_TOP] = 0
        scene.foreground.append(Foreground(layer, blur))
        scene.region(name, mask)

    def _layer(self, canvas: Canvas) -> Canvas:
        (height, width), (x, y) = canvas.size, canvas.origin
        layer = canvas.layer(x, y, x + width - 1, y + height - 1)
        assert layer is not None
        return layer

    def _cables(self, scene: Scene, take: Take, size: float) -> None:
        rng = take.rng("defect", "cables")
        layer = self._layer(scene.canvas)
        for _ in range(int(rng.integers(1, 4))):
            x = rng.uniform(120, 880)
            low = rng.uniform(540, 720)
            sway, loop = rng.normal(0, 40), rng.uniform(20, 110)
            points = [(x + rng.normal(0, 30), -60.0), (x + sway, 200.0), (x + rng.normal(0, 24), low - 60), (x + loop / 2, low)]
            if rng.uniform() < 0.6:
                points += [(x + loop, low - 70), (x + loop + sway, 190.0), (x + loop + rng.normal(0, 60), -60.0)]
            kind = int(rng.integers(3))
            material = (
                Material((0.020, 0.020, 0.021), 0.38, bump=(("grain", 0.02),), dirt=0.1),
                Material((0.024, 0.024, 0.025), 0.5, bump=(("weave", 0.08),), dirt=0.15),
                Material((0.36, 0.16, 0.02), 0.38, bump=(("grain", 0.02),), dirt=0.1),
            )[kind]
            radius = size * rng.uniform(6, 11) * (0.75 if kind == 2 else 1.0)
            layer.tube(smooth_path(points, 12), radius, 60, material, ribs=(7.5, 1.0) if kind == 0 and radius > 8 else None)
            if len(points) == 4:
                end_x, end_y = points[-1]
                plug = layer.window(end_x - 40, end_y - 30, end_x + 40, end_y + 50)
                if plug is not None:
                    layer.plate(plug, lambda gx, gy, ex=end_x, ey=end_y: shapes.box(gx - ex, gy - ey - 14, 15 * size, 20 * size, 4), 66, parts.BLACK_PLASTIC, bevel=5, wear=0.3)
        self._mark(scene, "cables", layer, 1.1)

    def _operator(self, scene: Scene, take: Take, size: float) -> None:
        rng = take.rng("defect", "operator")
        layer = self._layer(scene.canvas)
        left = rng.uniform() < 0.5
        tip = (rng.uniform(330, 700), rng.uniform(430, 600))
        way = rng.uniform(-0.55, 0.15)
        if not left:
            way = np.pi - way
        parts.operator_arm(layer, tip, way, 900, 82 * size, rng)
        self._mark(scene, "operator", layer, 3.0)


def _heat_tint(s: FloatArray, across: FloatArray) -> FloatArray:
    """Annealing colours along the exhaust: straw, brown, blue in bands."""
    phase = s[..., None] / np.float32(95) + np.array([0.0, 0.35, 0.75], np.float32)
    return (1 + 0.16 * np.sin(phase * 2.1)).astype(np.float32)
