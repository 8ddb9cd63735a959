"""pipe_clip and pipe_staple: a hose's quick connector on an engine, seen closely.

Both images are cut from a far larger one by template matching (section 3.1): the connector sits near the middle, some
pixels off. Several engine models are built (Table 4). The clip is small; the staple is large.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np

from andon.core import DefectConfig, FloatArray
from andon.synthetic import parts, shapes
from andon.synthetic.camera import Exposure, Pose
from andon.synthetic.canvas import Canvas, Material, coverage
from andon.synthetic.light import Lamp, Light, Rig
from andon.synthetic.randomness import stream
from andon.synthetic.shapes import smooth_path
from andon.synthetic.station import Scene, Station, Take

__all__ = ["PipeClip", "PipeStaple"]


class Frame(NamedTuple):
    """The connector's own frame: ``u`` along the hose towards the engine, ``v`` across it (down)."""

    x: float
    y: float
    angle: float

    def at(self, u: float, v: float) -> tuple[float, float]:
        c, s = np.cos(self.angle), np.sin(self.angle)
        return float(self.x + c * u - s * v), float(self.y + s * u + c * v)

    def of(self, gx: FloatArray, gy: FloatArray) -> tuple[FloatArray, FloatArray]:
        return shapes.rotated(gx, gy, self.x, self.y, self.angle)


class _PipeStation(Station):
    """What both pipe tasks share: engine, hose, connector, light and camera."""

    size = (400, 400)
    raw_size = (1942, 2590)
    raw_margin = 130
    margin = 46
    mode_weights = (0.40, 0.32, 0.28)
    distortion = 0.015
    dof = (1.8, 50.0, 80.0)
    angles = (-0.36, -0.30, -0.42)

    def rig(self, seed: int) -> Rig:
        ceiling = [
            Lamp((-0.3, -0.80, 0.5), (0.75, 0.05), 8.0, (0.96, 1.0, 1.03), (1, -0.2, 0)),
            Lamp((0.5, -0.72, 0.5), (0.6, 0.045), 7.0, (0.96, 1.0, 1.03), (1, -0.2, 0)),
        ]
        spot = [Lamp((-0.50, -0.45, 0.74), (0.20, 0.20), 10.5, (1.0, 0.97, 0.9), soft=0.15)]
        front = [Lamp((0.18, -0.30, 0.93), (0.18, 0.18), 7.0, (1.0, 0.98, 0.95), soft=0.15)]
        return Rig([ceiling, spot, front])

    def light(self, take: Take) -> Light:
        amount = take.knobs.light
        overall = 1.0 + take.drift("light", 0.07)
        ceiling = max(0.2, 0.9 + amount * take.normal("ceiling", 0.09))
        spot = max(0.1, 0.85 + amount * take.normal("spot", 0.17) + take.drift("spot", 0.15))
        front = max(0.1, 0.8 + amount * take.normal("front", 0.16))
        return Light(
            (0.85 * overall, ceiling * overall, spot * overall, front * overall),
            ((1.0, 1.0, 1.0),) * 4,
            (-0.5 + 0.06 * amount * take.normal("direction", 1.0), -0.6, 0.85),
            0.6,
        )

    def pose(self, take: Take) -> Pose:
        # The whole product stops some centimetres off; template matching takes most of that out of the crop.
        far_x, far_y = (take.jitter("far x", 48), take.jitter("far y", 40)) if take.raw else (0.0, 0.0)
        return Pose(
            far_x + take.jitter("dx", 10.0) + take.drift("dx", 2.0),
            far_y + take.jitter("dy", 9.0) + take.drift("dy", 2.0),
            take.jitter("roll", 0.03),
            1 + take.jitter("zoom", 0.015),
        )

    def exposure(self, take: Take) -> Exposure:
        knobs = take.knobs
        return Exposure(
            gain=1.45 * (1 + 0.06 * knobs.light * take.normal("gain", 1.0)),
            white=(1.01 + 0.012 * knobs.light * take.normal("white", 1.0), 1.0, 0.99),
            blur=knobs.blur * take.uniform("focus", 0.5, 0.9),
            noise=0.022 * knobs.noise,
            jpeg=int(take.rng("jpeg").integers(85, 92)) if knobs.noise > 0 else 0,
            vignette=0.3 if take.raw else 0.12,
        )

    def frame_of(self, mode: int) -> Frame:
        return Frame(206, 196, self.angles[mode % len(self.angles)])

    def background(self, canvas: Canvas, mode: int, seed: int) -> None:
        parts.engine_bay(canvas, stream(seed, self.name, "bay"))
        model = stream(seed, self.name, "model", mode)
        frame = self.frame_of(mode)
        # The block behind, and what every model carries in its own places.
        block = parts.CAST_ALUMINIUM.but(
            dirt=0.34, albedo=((0.44, 0.44, 0.43), (0.33, 0.33, 0.33), (0.50, 0.49, 0.47))[mode % 3]
        )
        outline = (
            [(150, -300), (860, -300), (860, 700), (330, 700), (300, 330), (236, 230)],
            [(60, -300), (860, -300), (860, 700), (250, 700), (286, 380), (180, 120)],
            [(230, -300), (860, -300), (860, 640), (420, 700), (250, 430), (280, 210)],
        )[mode % 3]
        canvas.sheet(outline, -22, block, corner=10, bevel=16, drop=20, wear=0.25)
        for k in range(3):
            x0 = 330 + 52 * k + model.uniform(-8, 8)
            rib = canvas.window(x0 - 30, 240, x0 + 30, 560)
            if rib is not None and mode != 1:
                canvas.groove(rib, rib.x - x0 - 0.15 * (rib.y - 300), 6, -7)
        spots = (((352, 60), (318, 292)), ((120, 34), (352, 330), (352, 70)), ((300, 40), (366, 250), (300, 388)))[
            mode % 3
        ]
        for x, y in spots:
            canvas.disc(x, y, 29, -14, block, bevel=10)
            parts.bolt(
                canvas, x, y, 13, model.uniform(0, 1), -14, (parts.ZINC, parts.YELLOW_ZINC, parts.STEEL)[mode % 3]
            )
        if mode % 3 == 0:
            parts.barcode_label(canvas, 356, 228, (34, 18), 0.06, model)
        elif mode % 3 == 2:
            canvas.disc(78, 84, 56, 0, parts.GREY_PLASTIC.but(albedo=(0.045, 0.045, 0.045)), bevel=16)
            for k in range(10):
                a = 2 * np.pi * k / 10
                canvas.disc(78 + 50 * np.cos(a), 84 + 50 * np.sin(a), 8, 4, parts.BLACK_PLASTIC, bevel=5)
        self._stub(canvas, frame, block)
        self._connector(canvas, frame, mode)

    @staticmethod
    def _stub(canvas: Canvas, frame: Frame, block: Material) -> None:
        """The engine's own pipe end that the connector is pushed on."""
        path = smooth_path(
            [
                frame.at(62, 0),
                frame.at(110, 0),
                frame.at(190, 4),
                frame.at(330, 60),
                frame.at(390, 200),
                frame.at(380, 900),
            ],
            8,
        )
        canvas.tube(path, 37, -10, block.but(dirt=0.25))
        flange = smooth_path([frame.at(98, 0), frame.at(112, 0)], 7)
        canvas.tube(flange, 47, -10, block.but(rough=0.45, dirt=0.2), caps=False)

    def _wires(self, canvas: Canvas, take: Take) -> None:
        """Vacuum hose and wires that lie a little differently on every engine."""
        model = stream(take.seed, self.name, "wires", take.mode)
        for k in range(2 + take.mode % 2):
            y0 = (36, 320, 366)[k] + model.uniform(-12, 12) + take.jitter(f"wire {k}", 7)
            sway = model.uniform(-45, 45) + take.jitter(f"sway {k}", 9)
            wire = smooth_path(
                [(-1300, y0 - 3 * sway), (-170, y0 + sway), (60, y0 - 10), (190, y0 - 0.5 * sway), (640, y0 + 60)], 10
            )
            if k == 0:
                canvas.tube(wire, 13, -34, parts.RUBBER, ribs=(7.0, 1.2))
            else:
                canvas.tube(wire, 8, -20, parts.RUBBER.but(albedo=(0.03, 0.03, 0.032), rough=0.4))

    def _hose(self, canvas: Canvas, frame: Frame, take: Take) -> None:
        sag = take.jitter("hose", 7)
        path = smooth_path(
            [(-420, 420 + 2 * sag), (-200, 352 + 2 * sag), (0, 278 + sag), frame.at(-105, 4), frame.at(-50, 0)], 14
        )
        hose = parts.RUBBER.but(bump=(("grain", 0.06), ("weave", 0.04)), rough=0.56)
        striped = take.mode % 3 == 1

        def stripe(s: FloatArray, across: FloatArray) -> FloatArray:
            line = (np.abs(across - 0.22) < 0.045) & striped
            return np.where(line, np.float32(9), np.float32(1))

        canvas.tube(path, 38, -2, hose, tint=stripe, caps=False)

    def _connector(self, canvas: Canvas, frame: Frame, mode: int) -> None:
        """The plastic body: a sleeve with collars and ribs along it."""
        plastic = CONNECTOR[mode % 3]
        body = smooth_path([frame.at(-48, 0), frame.at(66, 0)], 9)
        canvas.tube(body, 42, 0, plastic, caps=False)
        for u, radius, width in ((-44, 47, 13), (58, 49, 16), (30, 45, 6)):
            ring = smooth_path([frame.at(u - width / 2, 0), frame.at(u + width / 2, 0)], 5)
            canvas.tube(ring, radius, 0, plastic, caps=False)
        for v in (-24, 24):
            canvas.slab(
                frame.at(-8, v),
                (29, 3.0),
                frame.angle,
                42 - abs(v) * 0.25,
                plastic,
                corner=2,
                bevel=3,
                anchor=(frame.x, frame.y),
                wear=0.4,
            )


def _moved(uv: tuple[FloatArray, FloatArray], u: float, v: float, turn: float = 0.0) -> tuple[FloatArray, FloatArray]:
    return shapes.rotated(uv[0], uv[1], u, v, turn)


class PipeClip(_PipeStation):
    """A small clip locks the connector, a rubber disk seals it; a clip out of place stands off and squeezes it."""

    name = "pipe_clip"
    shares: ClassVar[Mapping[str, float]] = {"unclipped": 0.8, "operator": 0.2}
    full_counts = (195, 196, 141)
    defects = (DefectConfig("unclipped", 255, 0.5, True), DefectConfig("operator", 254, 1.0, True))

    def draw(self, scene: Scene, take: Take) -> None:
        canvas = scene.canvas
        frame = self.frame_of(take.mode)
        size = take.knobs.defect_size
        take.marks(canvas, MARKS)
        self._wires(canvas, take)
        self._hose(canvas, frame, take)
        clip_u, clip_v, turn = (
            6 + take.jitter("clip u", 0.8),
            take.jitter("clip v", 0.8),
            take.jitter("clip turn", 0.02),
        )
        disk_u, lean = 74.0 + take.jitter("disk", 1.0), take.jitter("disk lean", 0.01)
        unclipped = take.defect == "unclipped"
        home = (clip_u, clip_v, turn, disk_u, lean)
        if unclipped:
            rng = take.rng("defect", "clip")
            side = 1.0 if rng.uniform() < 0.7 else -1.0
            clip_u += size * rng.uniform(-3, 5)
            clip_v -= side * size * rng.uniform(5, 10)
            turn += size * rng.choice([-1.0, 1.0]) * rng.uniform(0.06, 0.2)
            disk_u += size * rng.uniform(3, 6)
            lean += size * rng.uniform(-0.09, 0.09)
        self._disk(canvas, frame, disk_u, lean)
        self._clip(canvas, frame, clip_u, clip_v, turn)
        if unclipped:
            mask = scene.blank()
            window = canvas.window(frame.x - 140, frame.y - 140, frame.x + 140, frame.y + 140)
            if window is not None:
                uv = frame.of(window.x, window.y)
                d = np.full(window.x.shape, 1e6, np.float32)
                for u, v, a, du, dl in (home, (clip_u, clip_v, turn, disk_u, lean)):
                    d = np.minimum(d, shapes.box(*_moved(uv, u, v, a), 15, 32, 6) - np.float32(2.5))
                    d = np.minimum(d, shapes.box(*_moved(uv, du, 0, dl), 5.0, 53, 3) - np.float32(2.5))
                mask[window.rows, window.columns] = coverage(d)
            scene.region("unclipped", mask)
        if take.defect == "operator":
            _operator(scene, take, "operator", size)

    @staticmethod
    def _disk(canvas: Canvas, frame: Frame, u: float, lean: float) -> None:
        """The rubber disk, seen from its edge."""
        ring = smooth_path([_rotated(frame, u, -5, lean), _rotated(frame, u, 5, lean)], 5)
        canvas.tube(ring, 52, 0, DISK, caps=False, ribs=(20, 0.8))

    @staticmethod
    def _clip(canvas: Canvas, frame: Frame, u: float, v: float, turn: float) -> None:
        """The clip: a bow across the connector with a tab, and two feet."""
        box = canvas.window(frame.x - 90, frame.y - 90, frame.x + 90, frame.y + 90)
        anchor = frame.at(u, v)
        for half_u, half_v, z, corner in ((9, 31, 46, 4), (12, 11, 52, 3)):
            canvas.slab(
                frame.at(u, v),
                (half_u, half_v),
                frame.angle + turn,
                z,
                CLIP,
                corner=corner,
                bevel=4,
                anchor=anchor,
                wear=0.3,
            )
        for k in (-1, 1):
            foot = frame.at(u - 27.0 * k * float(np.sin(turn)), v + 27.0 * k * float(np.cos(turn)))
            canvas.slab(foot, (13, 4.5), frame.angle + turn, 44, CLIP, corner=2, bevel=3.5, anchor=anchor, wear=0.3)
        if box is not None:
            uv = _moved(frame.of(box.x, box.y), u, v, turn)
            canvas.groove(box, shapes.box(*uv, 5.5, 5.0, 1.5), 1.8, 1.6, 0.5)


def _rotated(frame: Frame, u: float, along: float, lean: float) -> tuple[float, float]:
    return frame.at(u + along * np.cos(lean), along * np.sin(lean))


class PipeStaple(_PipeStation):
    """A large steel staple holds the connector; the defect is its absence."""

    name = "pipe_staple"
    shares: ClassVar[Mapping[str, float]] = {"missing": 1.0}
    full_counts = (198, 199, 127)
    angles = (-0.28, -0.40, -0.20)
    defects = (DefectConfig("missing", 255, 0.7, True),)

    def draw(self, scene: Scene, take: Take) -> None:
        canvas = scene.canvas
        frame = self.frame_of(take.mode)
        size = take.knobs.defect_size
        take.marks(canvas, MARKS)
        self._wires(canvas, take)
        self._hose(canvas, frame, take)
        if take.defect == "missing":
            window = canvas.window(frame.x - 150, frame.y - 150, frame.x + 150, frame.y + 150)
            mask = scene.blank()
            if window is not None:
                uv = frame.of(window.x, window.y)
                d = _staple_distance(uv, 0.0, 0.0, size) - np.float32(4.5)
                mask[window.rows, window.columns] = coverage(d)
            scene.region("missing", mask)
        else:
            self._staple(canvas, frame, take.jitter("staple u", 0.7), take.jitter("staple v", 1.6), size)

    def _connector(self, canvas: Canvas, frame: Frame, mode: int) -> None:
        """With the slots that the staple's legs lie in."""
        super()._connector(canvas, frame, mode)
        box = canvas.window(frame.x - 110, frame.y - 110, frame.x + 110, frame.y + 110)
        if box is None:
            return
        for leg in (-LEG, LEG):
            # Through the slot one sees the orange seal on the inner pipe.
            canvas.slab(
                frame.at(leg + 4, 0),
                (3.4, 41),
                frame.angle,
                34,
                SEAL,
                corner=3.2,
                bevel=2.0,
                drop=-4.0,
                anchor=(frame.x, frame.y),
            )

    @staticmethod
    def _staple(canvas: Canvas, frame: Frame, du: float, dv: float, size: float) -> None:
        path = smooth_path([frame.at(u + du, v + dv) for u, v in _staple_points()], 4)
        half = path.length / 2

        def hug(s: FloatArray) -> FloatArray:
            # The legs' ends spring down beside the sleeve.
            out = np.clip((np.abs(np.abs(s - half) - 70) - 22) / 40, 0, 1)
            fall: FloatArray = (-16 * out * out).astype(np.float32)
            return fall

        canvas.tube(path, 3.6 * size, 44, STAPLE, lift=hug)


LEG = 15.0
MARKS = ((300, 20, 390, 110), (330, 190, 395, 330), (20, 20, 130, 140), (250, 330, 390, 395), (20, 300, 170, 390))
"""Where workers leave marker strokes: (left, top, right, bottom)."""


def _staple_points() -> list[tuple[float, float]]:
    """Centre line of the staple in the connector's frame: a leg, the bow above the sleeve, the other leg."""
    leg = [(4 - LEG - 2.5, 58.0), (4 - LEG, 40.0), (4 - LEG, 0.0), (4 - LEG, -40.0), (4 - LEG + 1.5, -56.0)]
    bow = [(4 - LEG * 0.55, -67.0), (4.0, -70.5)]
    right = [(8 - u, v) for u, v in reversed(leg)]
    return leg + bow + [(8 - u, v) for u, v in reversed(bow[:-1])] + right


def _staple_distance(uv: tuple[FloatArray, FloatArray], du: float, dv: float, size: float) -> FloatArray:
    points = smooth_path(_staple_points(), 8).points
    u, v = uv
    best = np.full(u.shape, np.inf, np.float32)
    for (ax, ay), (bx, by) in pairwise(points):
        ex, ey = np.float32(bx - ax), np.float32(by - ay)
        wu, wv = u - np.float32(ax + du), v - np.float32(ay + dv)
        t = np.clip((wu * ex + wv * ey) / (ex * ex + ey * ey), 0, 1)
        best = np.minimum(best, (wu - t * ex) ** 2 + (wv - t * ey) ** 2)
    distance: FloatArray = np.sqrt(best) - np.float32(3.6 * size)
    return distance


def _operator(scene: Scene, take: Take, name: str, size: float) -> None:
    """A worker's arm before the connector."""
    canvas = scene.canvas
    rng = take.rng("defect", "operator")
    layer = canvas.layer(-60, -60, 460, 460)
    if layer is None:
        return
    way = rng.uniform(0.2, 1.2) if rng.uniform() < 0.5 else rng.uniform(1.9, 2.9)
    tip = (rng.uniform(170, 280), rng.uniform(170, 290))
    parts.operator_arm(layer, tip, way, 420, 58 * size, rng)
    scene.cover(layer, 2.2, name)


CONNECTOR = (
    Material((0.030, 0.031, 0.033), 0.36, bump=(("grain", 0.03),), mottle=0.1, dirt=0.14, scratches=0.1),
    Material((0.10, 0.105, 0.11), 0.40, bump=(("grain", 0.03),), mottle=0.1, dirt=0.16, scratches=0.1),
    Material((0.024, 0.055, 0.045), 0.36, bump=(("grain", 0.03),), mottle=0.1, dirt=0.14, scratches=0.1),
)
CLIP = Material((0.13, 0.132, 0.13), 0.38, bump=(("grain", 0.03),), mottle=0.1, dirt=0.1)
DISK = Material((0.06, 0.035, 0.03), 0.58, bump=(("grain", 0.04),), mottle=0.15, dirt=0.15)
SEAL = Material((0.095, 0.036, 0.017), 0.5, bump=(("grain", 0.03),), mottle=0.15, dirt=0.15)
STAPLE = Material((0.55, 0.54, 0.52), 0.30, 1.0, bump=(("grain", 0.02),), mottle=0.08, dirt=0.08)
