"""PaDiM ResNet-18 at 256²: fit on 100 images, and prediction, beside the plain way.

Plain: batch norms as they are, all 448 channels interpolated before the selection, all embeddings kept, one covariance
and one inverse a position in a loop, Mahalanobis distances by einsum, smoothing at full size with scipy.
With ``--write`` the table goes to benchmarks/results/padim.md. Weights are random: they do not change the times.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from andon._tools.networks import unfilled
from andon.features.resnet import ARCHITECTURES, ResNet
from andon.methods import create_method
from andon.weights.initialisation import orthogonal_initialisation

RESULTS = Path(__file__).parent / "results" / "padim.md"
TRAIN, SIZE, STAGES = 100, 256, [1, 2, 3]


def noise_images(n: int, seed: int) -> list[np.ndarray[Any, Any]]:
    """Smooth coloured noise on a common ground, uint8 [256, 256, 3]."""
    rng = np.random.default_rng(seed)
    ground = gaussian_filter(np.random.default_rng(0).normal(0, 500, (SIZE, SIZE, 3)), (6, 6, 0)) + 128
    return [
        np.clip(ground + gaussian_filter(rng.normal(0, 120, ground.shape), (3, 3, 0)), 0, 255).astype(np.uint8)
        for _ in range(n)
    ]


class Plain:
    """PaDiM as its equations are first written down."""

    def __init__(self, transform: Any, channels: torch.Tensor) -> None:
        self.transform, self.channels = transform, channels
        self.network = unfilled(lambda: ResNet(ARCHITECTURES["resnet18"], last_stage=3))
        orthogonal_initialisation(self.network, 0)
        self.seconds: dict[str, float] = {}

    @torch.no_grad()
    def embed(self, batch: torch.Tensor) -> torch.Tensor:
        maps = self.network.stages(batch, STAGES)
        whole = torch.cat([F.interpolate(m, size=maps[0].shape[2:], mode="nearest") for m in maps], dim=1)
        return whole[:, self.channels]

    def fit(self, images: list[np.ndarray[Any, Any]]) -> None:
        start = time.perf_counter()
        batches = [self.transform.normalise(np.stack(images[i : i + 32])) for i in range(0, len(images), 32)]
        embeddings = torch.cat([self.embed(batch) for batch in batches]).flatten(2)
        self.seconds["features"] = time.perf_counter() - start
        start = time.perf_counter()
        n, d, positions = embeddings.shape
        self.mean = embeddings.mean(0)
        self.inverse = torch.empty(positions, d, d)
        for p in range(positions):
            centred = embeddings[:, :, p] - self.mean[:, p]
            self.inverse[p] = torch.linalg.inv(centred.T @ centred / (n - 1) + 0.01 * torch.eye(d))
        self.seconds["gaussians"] = time.perf_counter() - start

    def predict(self, batch: torch.Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        x = self.embed(batch)
        side = x.shape[2:]
        delta = (x.flatten(2) - self.mean).permute(0, 2, 1)
        distance = torch.einsum("bpi,pij,bpj->bp", delta, self.inverse, delta).clamp_min(0).sqrt()
        maps = F.interpolate(
            distance.reshape(-1, 1, *side), size=self.transform.output_size, mode="bilinear", align_corners=False
        )
        smooth = np.stack([gaussian_filter(m, sigma=4) for m in maps[:, 0].numpy()])
        return smooth.max((1, 2)), smooth


def smallest(function: Callable[[], object], repeats: int) -> tuple[float, float]:
    """(wall, CPU) seconds, the smallest of a few runs each."""
    wall, cpu = [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return min(wall), min(cpu)


def peak_mib() -> float:
    """Peak resident memory of this process so far, MiB (Linux: kilobytes are reported)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        return f"{names[0]}, {len(names)} cores" if names else platform.machine()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS}")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    train, test = noise_images(TRAIN, 1), noise_images(8, 2)
    method = create_method("padim", weights="random")
    method.fit(train[:2])  # makes the extractor, so that its initialisation is not timed
    before = peak_mib()
    reports = []

    def fit() -> None:
        reports.append(method.fit(train))

    fit_wall, fit_cpu = smallest(fit, options.repeat)
    memory = peak_mib() - before
    best = {stage: min(report.seconds[stage] for report in reports) for stage in reports[0].seconds}

    plain = Plain(method.transform, method.state_dict()["channels"])
    before = peak_mib()
    plain_seconds: list[dict[str, float]] = []

    def plain_fit() -> None:
        plain.fit(train)
        plain_seconds.append(dict(plain.seconds))

    plain_wall, plain_cpu = smallest(plain_fit, options.repeat)
    plain_memory = peak_mib() - before
    plain_best = {stage: min(s[stage] for s in plain_seconds) for stage in plain_seconds[0]}

    rows = [
        ("fit, 100 images, whole", fit_wall, plain_wall, fit_cpu, plain_cpu),
        ("– features", best["features"], plain_best["features"], None, None),
        ("– Gaussians", best["statistics"] + best["factorisation"], plain_best["gaussians"], None, None),
    ]
    batch = method.transform.normalise(np.stack(test))
    difference = 0.0
    for size in (1, 8):
        part = batch[:size]
        ours, theirs = method.predict_batch(part), plain.predict(part)
        difference = max(difference, float(np.abs(ours.anomaly_maps / theirs[1] - 1).max()))
        wall, cpu = smallest(lambda part=part: method.predict_batch(part), 5 * options.repeat)
        plain_wall, plain_cpu = smallest(lambda part=part: plain.predict(part), 5 * options.repeat)
        rows.append(
            (f"prediction, an image, batch {size}", wall / size, plain_wall / size, cpu / size, plain_cpu / size)
        )
    lines = [
        "# PaDiM, ResNet-18 layers 1–3, 100 channels, 256²",
        "",
        f"{datetime.date.today()}, {processor()}, {options.threads} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}. `python benchmarks/bench_padim.py --write`.",
        f"Seconds, smallest of {options.repeat} (prediction: {5 * options.repeat}) runs of both in one process; "
        "other work may have shared the machine, so CPU seconds stand beside the wall's.",
        f"Maps: largest relative difference to the plain computation {difference:.1e}. Memory that the fit added to "
        f"the process's peak: {memory:.0f} MiB; plain, on top of that: {plain_memory:.0f} MiB.",
        "",
        "| step | andon wall | plain wall | ratio | andon CPU | plain CPU |",
        "|---|---|---|---|---|---|",
    ]
    for label, wall, plain_time, cpu, plain_cpu_time in rows:
        cpus = ["–" if value is None else f"{value:.3f}" for value in (cpu, plain_cpu_time)]
        lines.append(f"| {label} | {wall:.3f} | {plain_time:.3f} | {plain_time / wall:.1f} | {cpus[0]} | {cpus[1]} |")
    print("\n".join(lines))
    if options.write:
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
