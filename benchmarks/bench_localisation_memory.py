"""Memory of the localisation of float maps: peak bytes a defect pixel.

    python benchmarks/bench_localisation_memory.py [--images 20] [--write]

Float maps of 2000×2000 with a third of each marked and hardly a tie, defective ones first, then as many good ones:
the worst case for what must be kept. Every case runs in its own process on one thread; the peak is the process's
(``ru_maxrss``), less what a run with one defective and one good image takes: what is left grows with the defect pixels.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve()
SIDE = 2000
CASES = {
    "float32, one defect type": ("float32", 1),
    "float32, four defect types": ("float32", 4),
    "float64, one defect type": ("float64", 1),
}


def child(dtype: str, n_types: int, n_images: int) -> None:
    import numpy as np

    from andon.core import GOOD, Channel, GroundTruth
    from andon.evaluation import LocalisationAccumulator

    def image(index: int, defective: bool) -> tuple[np.ndarray, GroundTruth]:
        rng = np.random.default_rng([index, defective])
        # A float32 has too few values between 0 and 1 to tell all pixels apart.
        scores = np.exp2(32 * rng.random((SIDE, SIDE)) - 16).astype(dtype)
        mask = np.zeros((SIDE, SIDE), dtype=bool)
        if defective:
            top = int(rng.integers(0, SIDE - SIDE // 3))
            mask[top : top + SIDE // 3] = True
            scores[mask] *= np.float32(1.5)
        channels = (Channel(mask, "defect", int(mask.sum()) // 2),) if defective else ()
        return scores, GroundTruth((SIDE, SIDE), channels)

    start = time.monotonic()
    with LocalisationAccumulator(interpolation=None, defective_first=True) as accumulator:
        for index in range(n_images):
            accumulator.update(*image(index, True), group=f"type{index % n_types}")
        for index in range(n_images):
            accumulator.update(*image(index, False), group=GOOD)
        result = accumulator.compute()
        curve = result.curve(1.0, 256)
        by_type = [accumulator.compute(f"type{k}").auspro for k in range(min(n_types, n_images))]
    figures = [
        result.auspro,
        result.aupro,
        result.pixel_auroc,
        result.pixel_ap,
        by_type,
        [list(axis) for axis in curve],
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak": peak, "seconds": time.monotonic() - start, "figures": repr(figures)}))


def measure(dtype: str, n_types: int, n_images: int) -> dict:
    command = [sys.executable, str(HERE), "--child", dtype, str(n_types), str(n_images)]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=os.environ | one_thread, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/localisation_memory.md")
    parser.add_argument("--figures", type=Path, help="write all figures and curves here, to compare two versions")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], int(options.child[1]), int(options.child[2]))
        return
    import numpy as np

    pixels = (options.images - 1) * (SIDE // 3) * SIDE
    lines = [
        "# Memory of the localisation of float maps",
        "",
        f"{datetime.date.today()}, one thread; Python {platform.python_version()}, NumPy {np.__version__}. "
        "`python benchmarks/bench_localisation_memory.py`",
        "",
        f"{options.images} defective maps of {SIDE}×{SIDE}, a third of each marked, and as many good ones: "
        f"{options.images * (SIDE // 3) * SIDE / 1e6:.1f} million",
        "defect pixels. Bytes a defect pixel: the peak less that of one defective and one good image. Seconds include",
        "drawing the maps, the figures by defect type and the curve.",
        "",
        "| maps | one image, MB | all, MB | bytes a defect pixel | seconds |",
        "|---|---:|---:|---:|---:|",
    ]
    figures = {}
    for name, (dtype, n_types) in CASES.items():
        one, everything = measure(dtype, n_types, 1), measure(dtype, n_types, options.images)
        grown = (everything["peak"] - one["peak"]) / pixels
        lines.append(
            f"| {name} | {one['peak'] / 1e6:.0f} | {everything['peak'] / 1e6:.0f} | {grown:.1f} "
            f"| {everything['seconds']:.0f} |"
        )
        figures[name] = everything["figures"]
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    print(text)
    if options.figures:
        options.figures.write_text(json.dumps(figures))
    if options.write:
        (HERE.parent / "results" / "localisation_memory.md").write_text(text)


if __name__ == "__main__":
    main()
