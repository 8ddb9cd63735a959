"""engine_wiring: cables held in a fastening module on an engine, with a blue hoop around the loom.

Good images vary a little in light and in the module's rotation (Table 4). Defects are logical: a cable that is not in
the module (marked over a fixed square), the blue hoop absent or at a wrong place (marked where it should be, and where
it is), a module left open, and something lying in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from andon.core import DefectConfig, FloatArray
from andon.synthetic import parts, shapes
from andon.synthetic.camera import Exposure, Pose
from andon.synthetic.canvas import Canvas, Material, coverage
from andon.synthetic.light import Lamp, Light, Rig
from andon.synthetic.parts import ground
from andon.synthetic.randomness import stream
from andon.synthetic.shapes import Path2D, smooth_path
from andon.synthetic.station import Scene, Station, Take

__all__ = ["EngineWiring"]

# Where the module sits, and how far the fixed square of an unfastened cable reaches from there.
MODULE = (236.0, 214.0)
SQUARE = 74.0
HOOP_AT = 0.27
"""Nominal place of the hoop, as a fraction of the loom's length."""
HOOP_WIDTH = 15.0
LOOM_RADIUS = 14.5
MARKS = ((5, 5, 160, 110), (5, 120, 140, 215), (15, 300, 150, 390), (200, 20, 330, 110), (270, 290, 390, 390))
"""Where workers leave marker strokes: (left, top, right, bottom)."""


class EngineWiring(Station):
    name = "engine_wiring"
    size = (400, 400)
    raw_size = (480, 640)
    shares: ClassVar[Mapping[str, float]] = {
        "blue_hoop": 0.34,
        "fastening": 0.28,
        "unclipped": 0.16,
        "obstruction": 0.10,
        "multiple": 0.12,
    }
    full_counts = (285, 285, 322)
    defects = (
        # Pixels of the smallest hoop seen in a few hundred good images, a cable lying over it.
        DefectConfig("blue_hoop", 255, 420, False),
        DefectConfig("fastening", 254, 1.0, True),
        DefectConfig("unclipped", 253, 0.7, True),
        DefectConfig("obstruction", 252, 1.0, True),
    )
    distortion = 0.03
    dof = (1.6, 46.0, 50.0)
    margin = 40

    # -- light and camera ---------------------------------------------------------------------------------------------

    def rig(self, seed: int) -> Rig:
        ceiling = [
            Lamp((-0.45, -0.72, 0.62), (0.62, 0.045), 7.5, (0.95, 1.0, 1.02), (1, 0.25, 0)),
            Lamp((0.35, -0.90, 0.42), (0.62, 0.045), 7.5, (0.95, 1.0, 1.02), (1, 0.25, 0)),
        ]
        left = [Lamp((-0.62, -0.50, 0.62), (0.24, 0.24), 9.0, (1.0, 0.96, 0.88), soft=0.15)]
        front = [Lamp((-0.12, -0.42, 0.90), (0.22, 0.22), 9.0, (1.0, 0.97, 0.92), soft=0.15)]
        return Rig([ceiling, left, front])

    def light(self, take: Take) -> Light:
        amount = take.knobs.light
        overall = 1.0 + take.drift("light", 0.10)
        ceiling = max(0.2, 0.9 + amount * take.normal("ceiling", 0.10))
        left = max(0.1, 0.95 + amount * take.normal("left", 0.22) + take.drift("left", 0.2))
        front = max(0.1, 0.75 + amount * take.normal("front", 0.20))
        warm = amount * take.normal("warmth", 0.025) + take.drift("warmth", 0.03)
        lamp = (1 + warm, 1.0, 1 - warm)
        return Light(
            (0.8 * overall, ceiling * overall, left * overall, front * overall),
            ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), lamp, lamp),
            (-0.55 + 0.1 * amount * take.normal("direction", 1.0) * 0.5, -0.62, 0.85),
            0.55,
        )

    def pose(self, take: Take) -> Pose:
        return Pose(
            take.jitter("dx", 5.0) + take.drift("dx", 2.0),
            take.jitter("dy", 5.0) + take.drift("dy", 2.0),
            take.jitter("roll", 0.022),
            1 + take.jitter("zoom", 0.012),
        )

    def exposure(self, take: Take) -> Exposure:
        knobs = take.knobs
        warm = 0.03 * knobs.light * take.normal("white", 1.0) * 0.5
        return Exposure(
            gain=1.25 * (1 + 0.07 * knobs.light * take.normal("gain", 1.0)),
            white=(1.02 + warm, 1.0, 0.97 - warm),
            blur=knobs.blur * take.uniform("focus", 0.45, 0.8),
            noise=0.024 * knobs.noise,
            jpeg=int(take.rng("jpeg").integers(84, 92)) if knobs.noise > 0 else 0,
            vignette=0.28,
        )

    # -- what never moves ---------------------------------------------------------------------------------------------

    def background(self, canvas: Canvas, mode: int, seed: int) -> None:
        rng = stream(seed, self.name, "background")
        ground(canvas, parts.CAST_IRON.but(albedo=(0.07, 0.068, 0.066)), z=-60)
        # Deep behind: dark hoses and a casting's ribs, out of focus.
        for k in range(5):
            y = -60 + 110 * k + rng.uniform(-14, 14)
            path = smooth_path([(-180, y + rng.uniform(-25, 25)), (120, y + 20), (360, y - 15), (580, y + 30)], 16)
            canvas.tube(path, rng.uniform(15, 24), -45, parts.RUBBER.but(albedo=(0.03, 0.03, 0.032)))
        # The valve cover: a cast slab with ribs and bolts, upper left to lower middle.
        slab = [(-160, -70), (168, -70), (192, 92), (140, 240), (176, 470), (-160, 470)]
        cover = parts.CAST_ALUMINIUM.but(dirt=0.36)
        canvas.sheet(slab, 0, cover, corner=6, bevel=12, drop=14, wear=0.3)
        for k, x0 in enumerate((-96, -40, 16, 72)):
            rib = canvas.window(x0 - 10, -80, x0 + 60, 480)
            if rib is not None:
                d = rib.x - (x0 + 0.10 * (rib.y - 200)) - 3 * np.sin(rib.y / 90 + k)
                canvas.groove(rib, d.astype(np.float32), 5.5, -6.0)
        machined = cover.but(
            bump=(("brushed", 0.06), ("grain", 0.04)), albedo=(0.68, 0.68, 0.67), rough=0.36, metal=1.0
        )
        for x, y in ((122, 20), (96, 322), (-60, 120), (-70, 400)):
            canvas.disc(x, y, 27, 7, cover, bevel=9, drop=9)
            canvas.disc(x, y, 20, 7.5, machined, bevel=2)
            parts.bolt(canvas, x, y, 11.5, rng.uniform(0, 1), 8, parts.YELLOW_ZINC)
        # A coolant pipe on the right, with a clamp and a sticker.
        pipe = smooth_path([(420, -90), (388, 60), (352, 150), (372, 300), (356, 480)], 9)
        canvas.tube(pipe, 33, -26, parts.RUBBER.but(albedo=(0.026, 0.026, 0.027)))
        parts.clamp(canvas, pipe, 300, 33, -26, parts.STEEL, width=16, side=1)
        parts.barcode_label(canvas, 352, 58, (22, 13), -1.25, rng)
        # A bracket below the module, bolted to the cover.
        plate = [(120, 232), (282, 196), (308, 262), (262, 300), (150, 296)]
        canvas.sheet(plate, 16, parts.BLACK_PAINT, corner=8, bevel=4, wear=0.6)
        parts.bolt(canvas, 156, 264, 10, 0.4, 16, parts.ZINC)
        parts.hole(canvas, 276, 262, 7.5, 16)
        # A branch of the loom that leaves below, taped, always the same.
        branch = smooth_path([(238, 226), (262, 330), (226, 400), (232, 480)], 7)
        canvas.tube(branch, 8.5, 20, TAPE, ribs=(9.0, 0.55), tint=_taped)

    # -- what moves ---------------------------------------------------------------------------------------------------

    def draw(self, scene: Scene, take: Take) -> None:
        canvas = scene.canvas
        kinds = {take.defect} if take.defect in self.shares else set()
        if take.defect == "multiple":
            kinds = {"blue_hoop", "fastening"}
        size = take.knobs.defect_size
        turn = take.jitter("module", 0.17)
        loom = self._loom(take, turn)

        loose = None
        if "fastening" in kinds:
            rng = take.rng("defect", "fastening")
            side = 1.0 if rng.uniform() < 0.5 else -1.0
            loose = side * size * rng.uniform(10, 24)
        take.marks(canvas, MARKS)
        cable_a, cable_b = self._cables(take, turn, loose)
        canvas.tube(cable_a, 5.2, 26, CABLE_GREY)
        self._module_base(canvas, turn)
        canvas.tube(loom, LOOM_RADIUS, 24, CONDUIT, ribs=(5.6, 1.0), lift=_over_module(loom))
        self._hoop(scene, take, loom, "blue_hoop" in kinds, size)
        canvas.tube(cable_b, 5.6, 40, CABLE_BLACK)
        self._module_latch(scene, take, turn, "unclipped" in kinds, size)
        if loose is not None:
            window = canvas.everything()
            x, y = MODULE
            square = shapes.box(window.x - np.float32(x), window.y - np.float32(y), SQUARE, SQUARE)
            scene.region("fastening", coverage(square))
        if "obstruction" in kinds:
            self._obstruction(scene, take, size)

    def _loom(self, take: Take, turn: float) -> Path2D:
        """The main loom: in from the left, through the module, out to the upper right."""
        x, y = MODULE
        c, s = 46 * np.cos(turn - 0.42), 46 * np.sin(turn - 0.42)
        a, b, d = take.jitter("loom left", 11), take.jitter("loom middle", 9), take.jitter("loom right", 12)
        return smooth_path(
            [(-150, 268 + a), (-20, 282 + a), (92, 268 + b), (x - c, y - s),
             (x + c, y + s), (332, 118 + d), (430, 20 + d), (560, -60)], 6
        )  # fmt: skip

    def _cables(self, take: Take, turn: float, loose: float | None) -> tuple[Path2D, Path2D]:
        """Two single cables beside the loom; the second may hang out of the module, ``loose`` pixels off."""
        x, y = MODULE
        ux, uy = np.cos(turn - 0.42), np.sin(turn - 0.42)
        nx, ny = -uy, ux
        a, b = take.jitter("cable a", 17), take.jitter("cable b", 17)
        first = smooth_path(
            [(-150, 330 + a), (30, 322 + a), (130, 290), (x - 40 * ux + 13 * nx, y - 40 * uy + 13 * ny),
             (x + 44 * ux + 14 * nx, y + 44 * uy + 14 * ny), (350, 170 + b), (470, 110), (560, 60)], 7
        )  # fmt: skip
        off = -19.0
        inner = [(x - 42 * ux + off * nx, y - 42 * uy + off * ny), (x + 42 * ux + off * nx, y + 42 * uy + off * ny)]
        if loose is not None:
            # The cable leaves the module's channel on one side and bows away from it.
            off += loose if loose < 0 else loose + 24
            inner = [(x - 46 * ux + 0.65 * off * nx, y - 46 * uy + 0.65 * off * ny), (x + off * nx, y + off * ny),
                     (x + 46 * ux + 0.7 * off * nx, y + 46 * uy + 0.7 * off * ny)]  # fmt: skip
        # The fixed points on both sides keep the rest of the cable where it is: only the part in the square moves.
        before = [(x - d * ux - 19 * nx, y - d * uy - 19 * ny) for d in (72, 62)]
        after = [(x + d * ux - 19 * nx, y + d * uy - 19 * ny) for d in (62, 72)]
        second = smooth_path(
            [
                (-150, 190 + b),
                (-10, 226 + b),
                (96, 236 + 0.4 * a),
                *before,
                *inner,
                *after,
                (352, 72 + a),
                (408, -14 + a),
                (480, -90),
            ],
            7,
        )
        return first, second

    def _module_base(self, canvas: Canvas, turn: float) -> None:
        x, y = MODULE
        angle = turn - 0.42
        for half_u, half_v, z in ((44, 38, 22), (38, 33, 25)):
            canvas.slab((x, y), (half_u, half_v), angle, z, MODULE_PLASTIC, corner=5, bevel=4, anchor=(x, y), wear=0.35)

    def _module_latch(self, scene: Scene, take: Take, turn: float, is_open: bool, size: float) -> None:
        """The two bridges over the cables and the lid between them; an open lid is folded back."""
        canvas = scene.canvas
        x, y = MODULE
        angle = turn - 0.42
        ux, uy = np.cos(angle), np.sin(angle)
        nx, ny = -uy, ux
        before = canvas.z.copy() if is_open else None
        box = canvas.window(x - 90, y - 90, x + 90, y + 90)
        for along in (-25.0, 25.0):
            cx, cy = x + along * ux, y + along * uy
            canvas.slab((cx, cy), (6.5, 35), angle, 52, MODULE_PLASTIC, corner=3, bevel=5, anchor=(x, y), wear=0.4)
        shift = 0.0
        if is_open:
            shift = size * take.rng("defect", "lid").uniform(9, 20)
        cx, cy = x - shift * nx, y - shift * ny
        long = 26.0 if not is_open else 20.0

        def lid(gx: FloatArray, gy: FloatArray, cx: float = cx, cy: float = cy, long: float = long) -> FloatArray:
            return shapes.box(*shapes.rotated(gx, gy, cx, cy, angle), 19, long, 4)

        tilt = (0.0, 0.0) if not is_open else (0.45 * nx, 0.45 * ny)
        here = canvas.plate(box, lid, 56, MODULE_PLASTIC, bevel=4, tilt=tilt, anchor=(cx, cy), wear=0.4)
        for k in (-1, 0, 1):
            bump_x, bump_y = cx + 9 * k * ux, cy + 9 * k * uy
            canvas.slab(
                (bump_x, bump_y),
                (2.0, long * 0.55),
                angle,
                58.5,
                MODULE_PLASTIC,
                corner=2,
                bevel=2.2,
                tilt=tilt,
                anchor=(cx, cy),
                wear=0.6,
            )
        if is_open and box is not None and before is not None and here is not None:
            mask = scene.blank()
            home = lid(box.x, box.y, x, y, 26.0)
            mask[box.rows, box.columns] = np.maximum(coverage(home - 3), coverage(lid(box.x, box.y) - 3))
            scene.region("unclipped", mask)

    def _hoop(self, scene: Scene, take: Take, loom: Path2D, wrong: bool, size: float) -> None:
        """The blue hoop; when ``wrong``, absent or far from where it may be."""
        canvas = scene.canvas
        nominal = HOOP_AT * loom.length + take.jitter("hoop", 9)
        place: float | None = nominal
        if wrong:
            rng = take.rng("defect", "hoop")
            if rng.uniform() < 0.5:
                place = None
            else:
                options = [nominal - size * rng.uniform(62, 84), nominal + size * rng.uniform(44, 56)]
                if size >= 0.6:
                    options.append(0.645 * loom.length + rng.uniform(-20, 25))
                place = options[int(rng.integers(len(options)))]
            scene.region("blue_hoop", _band_mask(scene, loom, nominal, 3.0))
        if place is None:
            return
        band = loom.part(place - HOOP_WIDTH / 2, place + HOOP_WIDTH / 2)
        canvas.tube(band, LOOM_RADIUS + 3.0, 24, HOOP, caps=False, ribs=(HOOP_WIDTH * 2, 0.7))
        x, y, way = loom.at(place)
        nx, ny = np.sin(way), -np.cos(way)
        kx, ky = x + 13 * nx, y + 13 * ny
        canvas.slab((kx, ky), (6.0, 5.0), way, 45, HOOP, corner=2, bevel=3, anchor=(kx, ky))
        if wrong:
            scene.region("blue_hoop", _band_mask(scene, loom, place, 1.0))

    def _obstruction(self, scene: Scene, take: Take, size: float) -> None:
        """A strip of packing foam or a stray lead that lies over the scene."""
        canvas = scene.canvas
        rng = take.rng("defect", "obstruction")
        layer = canvas.layer(*(canvas.origin), canvas.origin[0] + canvas.size[1], canvas.origin[1] + canvas.size[0])
        assert layer is not None
        angle = rng.uniform(-0.9, 0.9) + (np.pi / 2 if rng.uniform() < 0.5 else 0)
        cx, cy = MODULE[0] + rng.uniform(-70, 40), MODULE[1] + rng.uniform(-50, 60)
        ux, uy = np.cos(angle), np.sin(angle)
        bend = rng.uniform(-45, 45)
        path = smooth_path(
            [(cx - 420 * ux, cy - 420 * uy), (cx - 130 * ux - bend * uy, cy - 130 * uy + bend * ux), (cx, cy),
             (cx + 130 * ux + bend * uy, cy + 130 * uy - bend * ux), (cx + 420 * ux, cy + 420 * uy)], 9
        )  # fmt: skip
        if rng.uniform() < 0.5:
            layer.tube(path, 9 * size, 90, CONDUIT, ribs=(6.5, 1.1))
        else:
            layer.tube(path, 15 * size, 90, parts.GREY_PLASTIC.but(albedo=(0.05, 0.05, 0.052)), flatten=0.35)
        scene.cover(layer, 0.8, "obstruction")


CONDUIT = Material((0.020, 0.020, 0.021), 0.38, bump=(("grain", 0.03),), mottle=0.12, dirt=0.16)
CABLE_BLACK = Material((0.022, 0.022, 0.023), 0.36, bump=(("grain", 0.02),), mottle=0.1, dirt=0.1)
CABLE_GREY = Material((0.10, 0.10, 0.105), 0.42, bump=(("grain", 0.02),), mottle=0.1, dirt=0.15)
MODULE_PLASTIC = Material((0.030, 0.030, 0.032), 0.40, bump=(("grain", 0.045),), mottle=0.12, dirt=0.12, scratches=0.15)
HOOP = parts.BLUE_PLASTIC
TAPE = Material((0.024, 0.024, 0.025), 0.5, bump=(("weave", 0.08),), mottle=0.15, dirt=0.15)


def _taped(s: FloatArray, across: FloatArray) -> FloatArray:
    """Overlapping turns of cloth tape: each a little lighter at its edge."""
    turns = s / np.float32(13) + across * np.float32(0.35)
    return (0.85 + 0.4 * (turns - np.floor(turns)) ** 6).astype(np.float32)


def _over_module(loom: Path2D):  # type: ignore[no-untyped-def]
    middle = float(np.argmin(np.hypot(*(loom.points - np.array(MODULE)).T)))
    at = float(loom.arc[int(middle)])
    return lambda s: np.float32(10) * np.exp(-(((s - np.float32(at)) / np.float32(60)) ** 2))


def _band_mask(scene: Scene, loom: Path2D, place: float, grow: float) -> FloatArray:
    """Coverage of the hoop at ``place``, knot included, grown by some pixels."""
    canvas = scene.canvas
    mask = scene.blank()
    x, y, way = loom.at(place)
    window = canvas.window(x - 50, y - 50, x + 50, y + 50)
    if window is None:
        return mask
    u, v = shapes.rotated(window.x, window.y, x, y, way)
    ring = shapes.box(u, v, HOOP_WIDTH / 2 + 1.5, LOOM_RADIUS + 4.0, 2)
    knot = shapes.box(u, v + np.float32(13), 6.5, 6.0, 2)
    mask[window.rows, window.columns] = coverage(np.minimum(ring, knot) - np.float32(grow))
    return mask
