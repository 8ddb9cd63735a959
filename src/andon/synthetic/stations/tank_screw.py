"""tank_screw: a fuel tank with one small screw in a bracket.

Table 4: fixed scene, several tank models, a moving red receptacle, wires, cables, nuts and bolts that appear in some
images at a few places, slight differences of position, some blurred images. Defect: the small screw is missing,
always at the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from andon.core import DefectConfig
from andon.synthetic import parts, shapes
from andon.synthetic.camera import Exposure, Pose
from andon.synthetic.canvas import Canvas, Material, coverage
from andon.synthetic.light import Lamp, Light, Rig
from andon.synthetic.parts import ground
from andon.synthetic.randomness import stream
from andon.synthetic.shapes import smooth_path
from andon.synthetic.station import Scene, Station, Take

__all__ = ["TankScrew"]

SCREW = (628.0, 352.0)
RADIUS = 19.0
# Places where wires, nuts and bolts may lie: the same for training and test images.
LEDGE = tuple((float(x), 497.0 + 3 * np.sin(x)) for x in (90, 170, 262, 420, 505, 700, 790, 880))


class TankScrew(Station):
    name = "tank_screw"
    size = (750, 1000)
    shares: ClassVar[Mapping[str, float]] = {"missing": 1.0}
    full_counts = (318, 318, 95)
    mode_weights = (0.42, 0.33, 0.25)
    defects = (DefectConfig("missing", 255, 0.7, True),)
    scale = 1.7
    margin = 44
    distortion = 0.025
    dof = (2.2, 30.0, 70.0)

    def rig(self, seed: int) -> Rig:
        ceiling = [
            Lamp((-0.2, -0.86, 0.46), (0.9, 0.05), 8.5, (0.96, 1.0, 1.03), (1, 0, 0)),
            Lamp((0.1, -0.66, 0.74), (0.9, 0.045), 7.0, (0.96, 1.0, 1.03), (1, 0.1, 0)),
        ]
        spot = [Lamp((0.45, -0.40, 0.78), (0.20, 0.20), 11.0, (1.0, 0.97, 0.9), soft=0.15)]
        bay = [Lamp((-0.95, -0.10, 0.35), (0.5, 0.35), 2.2, (0.86, 0.95, 1.1), (0, 1, 0), soft=0.3)]
        return Rig([ceiling, spot, bay], above=(0.46, 0.48, 0.5))

    def light(self, take: Take) -> Light:
        amount = take.knobs.light
        overall = 1.0 + take.drift("light", 0.08)
        ceiling = max(0.2, 0.95 + amount * take.normal("ceiling", 0.10))
        spot = max(0.1, 0.85 + amount * take.normal("spot", 0.18))
        bay = max(0.0, 0.8 + amount * take.normal("bay", 0.25) + take.drift("bay", 0.5))
        return Light(
            (0.9 * overall, ceiling * overall, spot * overall, bay),
            ((1.0, 1.0, 1.0),) * 4,
            (0.42 + 0.05 * amount * take.normal("direction", 1.0), -0.75, 0.9),
            0.6,
        )

    def pose(self, take: Take) -> Pose:
        return Pose(
            take.jitter("dx", 7.0) + take.drift("dx", 3.0),
            take.jitter("dy", 6.0) + take.drift("dy", 3.0),
            take.jitter("roll", 0.004),
            1 + take.jitter("zoom", 0.004),
            (take.jitter("tilt", 0.006), 0.0),
        )

    def exposure(self, take: Take) -> Exposure:
        knobs = take.knobs
        blur, motion = take.uniform("focus", 0.55, 0.95), 0.0
        if take.chance("blurred", 0.12):
            blur += take.uniform("defocus", 0.7, 1.7)
        if take.chance("moved", 0.08):
            motion = take.uniform("motion", 2.0, 5.0)
        return Exposure(
            gain=1.5 * (1 + 0.06 * knobs.light * take.normal("gain", 1.0)),
            white=(1.0, 1.0, 1.0 + 0.015 * knobs.light * take.normal("white", 1.0)),
            blur=knobs.blur * blur,
            motion=knobs.blur * motion,
            noise=0.020 * knobs.noise,
            jpeg=int(take.rng("jpeg").integers(85, 92)) if knobs.noise > 0 else 0,
            vignette=0.35,
        )

    def background(self, canvas: Canvas, mode: int, seed: int) -> None:
        rng = stream(seed, self.name, "background")
        model = stream(seed, self.name, "model", mode)
        wall = Material((0.20, 0.215, 0.22), 0.7, mottle=0.12, dirt=0.2)
        ground(canvas, wall, z=-140)
        # The hall behind: grey panels, a yellow rail, racks; all far out of focus.
        for x, w, colour in (
            (-60, 210, (0.13, 0.16, 0.2)),
            (190, 120, (0.30, 0.29, 0.27)),
            (700, 250, (0.09, 0.12, 0.15)),
        ):
            canvas.slab((x + w / 2, 40), (w / 2, 130), 0.0, -120, wall.but(albedo=colour), corner=4, bevel=6)
        rail = smooth_path([(-60, 118), (420, 104), (1080, 88)], 40)
        canvas.tube(rail, 9, -100, wall.but(albedo=(0.62, 0.42, 0.03), rough=0.4))

        # The tank: two half shells with a welded flange between them.
        shell = Material(
            (0.021, 0.021, 0.023), 0.46, bump=(("cloud", 0.035), ("grain", 0.05)), mottle=0.15, dirt=0.20, scratches=0.3
        )
        upper = [(-60, 228), (60, 176), (330, 146), (560, 152), (800, 138), (1080, 182), (1080, 540), (-60, 540)]
        lower = [(-60, 500), (1080, 500), (1080, 810), (-60, 810)]
        canvas.sheet(lower, -16, shell, corner=4, bevel=60, drop=46)
        canvas.sheet(upper, 0, shell, corner=22, bevel=52, drop=50)
        flange = shell.but(rough=0.5, dirt=0.3)
        canvas.plate(
            canvas.window(-60, 470, 1060, 540),
            lambda x, y: shapes.box(x - 500, y - 502 - 5 * np.sin(x / 160), 620, 17, 4), 16, flange, bevel=5, wear=0.5,
        )  # fmt: skip
        seam = canvas.window(-60, 480, 1060, 530)
        if seam is not None:
            canvas.groove(seam, seam.y - 503 - 5 * np.sin(seam.x / 160), 3, 2.5, 0.4)
        # Moulded beads of the shells; their places are the model's.
        for k in range(4 + mode):
            x0 = 70 + (860 / (3 + mode)) * k + model.uniform(-22, 22)
            lean = model.uniform(-0.12, 0.12)
            bead = canvas.window(x0 - 60, 190, x0 + 60, 466)
            if bead is not None and abs(x0 - SCREW[0]) > 95:
                u, v = shapes.rotated(bead.x, bead.y, x0, 328, lean)
                canvas.groove(bead, shapes.box(u, v, 16, 112 - 12 * mode, 16), 9, 5.0)
        for k in range(5):
            x0 = 30 + 235 * k + model.uniform(-20, 20)
            bead = canvas.window(x0 - 90, 530, x0 + 90, 790)
            if bead is not None:
                canvas.groove(bead, shapes.box(bead.x - x0, bead.y - 672, 60, 80, 26), 10, 6.0)
        # Strap: a coated steel band across the tank, with a bead and a bolt.
        strap_x = (226, 300, 158)[mode]
        self._strap(canvas, strap_x, 66)
        # Filler neck or pump cover at the right: rings and a locking collar.
        cx, cy = ((846, 330), (872, 312), (832, 352))[mode]
        for radius, z, material in (
            (116, 14, shell),
            (98, 24, parts.YELLOW_ZINC.but(rough=0.42, dirt=0.25)),
            (80, 20, shell),
            (62, 32, shell),
        ):
            canvas.disc(cx, cy, radius, z, material, bevel=8, wear=0.4)
        for k in range(8):
            a = 2 * np.pi * k / 8 + 0.2 + 0.1 * mode
            px, py = cx + 89 * np.cos(a), cy + 89 * np.sin(a)
            canvas.slab((px, py), (11, 7), a, 29, parts.YELLOW_ZINC, corner=2, bevel=3, wear=0.4)
        canvas.slab((cx, cy), (26, 17), 0.0, 48, parts.BLACK_PLASTIC, corner=4, bevel=5, wear=0.4)
        # Fuel and vent lines, differently routed on every model.
        to_collar = (float(cx), float(cy))
        lines: dict[int, list[list[tuple[float, float]]]] = {
            0: [
                [(-80, 250), (90, 246), (360, 258), (520, 300), (680, 268), to_collar],
                [(-80, 282), (120, 284), (380, 300), (560, 420), (760, 446), (1090, 420)],
            ],
            1: [
                [(-80, 300), (160, 268), (420, 236), (600, 250), (760, 252), to_collar],
                [(-80, 420), (140, 436), (420, 424), (560, 446), (800, 452), (1090, 470)],
            ],
            2: [
                [(-80, 232), (200, 250), (470, 296), (560, 262), (700, 280), to_collar],
                [(380, 140), (420, 260), (452, 380), (600, 446), (800, 458), (1090, 440)],
            ],
        }
        colours = ((0.030, 0.030, 0.032), (0.022, 0.022, 0.022), (0.028, 0.028, 0.03))
        for k, points in enumerate(lines[mode]):
            path = smooth_path(points, 12)
            hose = parts.RUBBER.but(albedo=colours[(mode + k) % 3], rough=0.36 + 0.1 * k)
            canvas.tube(path, 13 - 3 * k, 20 + 6 * k, hose, ribs=(9.0, 1.3) if (mode + k) % 2 == 0 else None)
            for s in np.linspace(0.2, 0.8, 3) * path.length:
                px, py, way = path.at(float(s + model.uniform(-25, 25)))
                if np.hypot(px - SCREW[0], py - SCREW[1]) < 85:
                    continue
                canvas.slab(
                    (px, py), (9, 21), way, 42 + 4 * k, parts.BLACK_PLASTIC.but(rough=0.5), corner=4, bevel=6, wear=0.35
                )
        # Sticker and moulded plate.
        lx, ly = ((402, 388), (140, 372), (330, 420))[mode]
        parts.barcode_label(canvas, lx, ly, (52, 27), model.uniform(-0.05, 0.05), model)
        self._bracket(canvas, rng)

    @staticmethod
    def _strap(canvas: Canvas, x0: float, width: float) -> None:
        band = canvas.window(x0 - width, 110, x0 + width, 800)
        paint = parts.BLACK_PAINT.but(albedo=(0.085, 0.086, 0.088), rough=0.4)
        canvas.plate(
            band,
            lambda x, y: shapes.box(x - x0 - 8 * np.sin(y / 220), y - 460, width / 2, 330, 6),
            12,
            paint,
            bevel=5,
            wear=0.6,
        )
        if band is not None:
            for off in (-width * 0.22, width * 0.22):
                canvas.groove(band, band.x - x0 - 8 * np.sin(band.y / 220) - off, 5, -2.5)
        parts.bolt(canvas, x0 + 6, 214, 17, 0.3, 14, parts.ZINC)

    @staticmethod
    def _bracket(canvas: Canvas, rng: np.random.Generator) -> None:
        """The pressed bracket that the screw belongs in."""
        x, y = SCREW
        outline = [(x - 66, y - 34), (x + 30, y - 40), (x + 42, y + 10), (x + 20, y + 44), (x - 50, y + 38)]
        steel = parts.BLACK_PAINT.but(albedo=(0.05, 0.05, 0.052), dirt=0.2)
        canvas.sheet(outline, 24, steel, corner=7, bevel=4, wear=0.5)
        parts.hole(canvas, x - 46, y + 2, 8, 24)
        parts.bolt(canvas, x - 50, y - 88, 13, 0.7, 6, parts.ZINC)
        # A clip nut sits in the hole: bare when the screw is missing.
        canvas.slab((x, y), (15.0, 13.5), 0.0, 25, CLIP_NUT, corner=3, bevel=2, wear=0.2)
        parts.hole(canvas, x, y, 6.5, 25, 12)

    def draw(self, scene: Scene, take: Take) -> None:
        canvas = scene.canvas
        x, y = SCREW
        size = take.knobs.defect_size
        if take.clutter("receptacle", 0.5):
            self._receptacle(canvas, take)
        self._clutter(canvas, take)
        radius = RADIUS * size
        if take.defect == "missing":
            window = canvas.everything()
            scene.region("missing", coverage(shapes.circle(window.x, window.y, x, y, radius * 1.09)))
        else:
            angle = take.uniform("screw angle", 0, 2 * np.pi)
            parts.screw(
                canvas, x + take.jitter("screw x", 0.5), y + take.jitter("screw y", 0.5), radius, angle, 25, SCREW_STEEL
            )

    @staticmethod
    def _receptacle(canvas: Canvas, take: Take) -> None:
        """The red box for small parts, pushed about along the lower edge of the scene."""
        x = 500 + float(np.clip(take.normal("receptacle x", 210) * max(take.knobs.pose, 0.2), -440, 440))
        y = 704 + take.jitter("receptacle y", 6)
        angle = take.jitter("receptacle angle", 0.05)
        red = parts.RED_PLASTIC.but(albedo=(0.30, 0.026, 0.022))
        for half_x, half_y, z, material, bevel in (
            (138, 86, 60, red, 8),
            (126, 74, 40, red.but(albedo=(0.20, 0.020, 0.017)), 6),
            (112, 60, 14, red.but(albedo=(0.13, 0.015, 0.013)), 14),
        ):
            canvas.slab((x, y), (half_x, half_y), angle, z, material, corner=14, bevel=bevel, anchor=(x, y), wear=0.4)
        # Small parts lie in its corners, one to four of them.
        rng = take.rng("receptacle content")
        c, s = np.cos(angle), np.sin(angle)
        for u, v in ((-84.0, -34.0), (84.0, -34.0), (-30.0, -34.0), (36.0, -34.0))[: int(rng.integers(1, 5))]:
            u, v = u + float(rng.normal(0, 4)), v + float(rng.normal(0, 3))
            parts.bolt(canvas, x + c * u - s * v, y + s * u + c * v, 9, rng.uniform(0, 1), 16, parts.ZINC)

    @staticmethod
    def _clutter(canvas: Canvas, take: Take) -> None:
        """Wires, nuts and bolts at the places where they may be."""
        rng = take.rng("clutter")
        for k, (x, y) in enumerate(LEDGE):
            if not take.clutter(f"nut {k}", 0.10):
                continue
            x, y = x + rng.normal(0, 5), y - 6 + rng.normal(0, 2)
            if k % 2:
                parts.bolt(canvas, x, y, 8.5, rng.uniform(0, 1), 16, parts.ZINC)
            else:
                parts.screw(canvas, x, y, 11, rng.uniform(0, 1), 16, SCREW_STEEL)
        routes = (
            ((60, 120), (120, 330), (70, 520), (150, 810)),
            ((470, 120), (500, 260), (440, 380), (470, 600), (430, 810)),
            ((940, 100), (930, 250), (980, 420), (900, 640), (960, 810)),
        )
        colours = ((0.02, 0.02, 0.021), (0.32, 0.24, 0.03), (0.02, 0.02, 0.021))
        for k, route in enumerate(routes):
            if take.clutter(f"wire {k}", 0.22):
                path = smooth_path([(px + rng.normal(0, 3), py + rng.normal(0, 3)) for px, py in route], 11)
                canvas.tube(path, 6.5, 46, Material(colours[k], 0.38, bump=(("grain", 0.02),), dirt=0.1))


CLIP_NUT = parts.YELLOW_ZINC.but(albedo=(0.66, 0.50, 0.20), dirt=0.0)
SCREW_STEEL = parts.ZINC.but(albedo=(0.50, 0.495, 0.47), rough=0.40)
