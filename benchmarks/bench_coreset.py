"""Greedy k-centre, 102,400 patches → 10,240: Andon's beside plain loops, and a proof that the selection is the same.

    python benchmarks/bench_coreset.py [--plain-picks N] [--threads N …] [--write]

Data: ``features``: 100 textured images of 256² through a ResNet-18 (layers 2 and 3, 384 channels; orthogonal
weights), projected to 284 dimensions as Patchcore does; ``noise``: Gaussian noise of 284 dimensions. The plain
loops are timed over their first picks only (``--plain-picks``) and extrapolated: all their picks cost the same.

    andon            greedy_k_centre
    difference       one N×d temporary a pick: norm(x − c), minimum, argmax (float32)
    matrix–vector    ‖x‖² − 2x·c + ‖c‖² with buffers reused (float32)

``identical`` recomputes all distances to all picks in float64, unsorted and without any laziness, and checks for each
pick that the textbook loop would have made it. On a machine that does other work too, only CPU time on one thread means
something: more threads wait for each other, and that costs CPU time.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from andon.methods import create_method
from andon.methods.patchcore import Patchcore
from andon.methods.patchcore.coreset import greedy_k_centre, projection_matrix, to_fixed_point
from andon.methods.patchcore.embedding import embed, patch_parts

RESULTS = Path(__file__).with_name("results") / "coreset.md"
N_IMAGES, SIDE = 100, 256


def textured(n: int, side: int, seed: int = 0) -> np.ndarray:
    """uint8 ``[n, side, side, 3]``: coloured noise of three scales over a gradient."""
    rng = np.random.default_rng(seed)
    out = np.empty((n, side, side, 3), np.uint8)
    for image in out:
        noise = sum(gaussian_filter(rng.normal(size=(side, side, 3)), (s, s, 0)) * s * 40 for s in (0.7, 2, 8))
        image[:] = np.clip(noise + np.linspace(70, 180, side)[None, :, None], 0, 255)
    return out


def features() -> torch.Tensor:
    method = create_method("patchcore", backbone="resnet18", weights="random", transform={"size": (SIDE, SIDE)})
    assert isinstance(method, Patchcore)
    batches = map(method.config.transform.normalise, np.array_split(textured(N_IMAGES, SIDE), N_IMAGES // 10))
    everything = torch.cat([embed(patch_parts(method.config, method.extractor(batch))) for batch in batches])
    matrix = projection_matrix(*everything.shape, eps=0.9, seed=0)
    assert matrix is not None
    return everything @ matrix


def noise() -> torch.Tensor:
    return torch.randn(N_IMAGES * (SIDE // 8) ** 2, 284, generator=torch.Generator().manual_seed(0))


def difference(points: torch.Tensor, picks: int) -> None:
    nearest = torch.full((len(points), 1), torch.inf)
    pick = 0
    for _ in range(picks):
        nearest = torch.minimum(nearest, torch.linalg.norm(points - points[pick], dim=1, keepdim=True))
        pick = int(nearest.argmax())


def matrix_vector(points: torch.Tensor, picks: int) -> None:
    norms = points.square().sum(dim=1)
    nearest, squared = torch.full_like(norms, torch.inf), torch.empty_like(norms)
    pick = 0
    for _ in range(picks):
        torch.mv(points, points[pick], out=squared).mul_(-2).add_(norms).add_(norms[pick])
        torch.minimum(nearest, squared, out=nearest)
        pick = int(nearest.argmax())


def is_textbook(points: torch.Tensor, picks: torch.Tensor) -> bool:
    """Whether each pick is the point farthest from all before it, the lowest index among equals."""
    grid = to_fixed_point(points)[0].double()
    norms = grid.square().sum(dim=1)
    nearest = torch.full_like(norms, torch.inf)
    for start in range(0, len(picks), 64):
        chosen = picks[start : start + 64]
        squared = torch.addmm(norms[chosen], grid, grid[chosen].T, alpha=-2).add_(norms.unsqueeze(1))
        for column, number in enumerate(range(start + 1, start + 1 + len(chosen))):
            torch.minimum(nearest, squared[:, column], out=nearest)
            if number < len(picks) and int(nearest.argmax()) != int(picks[number]):
                return False
    return True


def timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def load() -> str:
    """What else the machine is doing, for readers of wall-clock times."""
    return f"Load average at the start {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain-picks", type=int, default=100, help="picks of the plain loops that are timed")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS}")
    options = parser.parse_args()
    lines = [
        "# Greedy k-centre, 102,400 × 284 → 10,240",
        "",
        f"{datetime.date.today()}, {processor()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}. `python benchmarks/bench_coreset.py --write`.",
        f"Plain loops: {options.plain_picks:,} picks timed, then extrapolated. {load()}",
        "",
        "| data | threads | form | wall s | CPU s | CPU time ÷ andon's | identical to the textbook loop |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name, make in (("features", features), ("noise", noise)):
        with torch.inference_mode():
            points = make().clone()
        k = len(points) // 10
        for threads in options.threads:
            torch.set_num_threads(threads)
            greedy_k_centre(points[:2000], 200)
            selected: list[torch.Tensor] = []
            wall, cpu = timed(lambda points=points, k=k, out=selected: out.append(greedy_k_centre(points, k).indices))
            rows = [("andon", wall, cpu, 1.0, "yes" if is_textbook(points, selected[0]) else "NO")]
            for form, loop in (("matrix–vector", matrix_vector), ("difference", difference)):
                loop(points, 2)
                seconds = timed(lambda loop=loop, points=points: loop(points, options.plain_picks))
                plain = [s * k / options.plain_picks for s in seconds]
                rows.append((form, plain[0], plain[1], plain[1] / cpu, ""))
            for row in rows:
                lines.append("| {} | {} | {} | {:.1f} | {:.1f} | {:.1f} | {} |".format(name, threads, *row))
                print(lines[-1], flush=True)
    if options.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
