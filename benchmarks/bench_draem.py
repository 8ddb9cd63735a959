"""DRAEM: the parts of a training step beside their literal forms, and short trainings on the synthetic line.

    python benchmarks/bench_draem.py [--data DIR] [--budget 0.1] [--tasks …] [--images FOLDER] [--write]
    python benchmarks/bench_draem.py --speed [--write]

Literal: Perlin noise by repeating each gradient over its cell and dot products at every pixel; structural similarity
with a two-dimensional window, five filters one after the other; the focal loss with one-hot targets.

Trainings: preset ``designed`` on 60 good images a task at a budget, beside ``thumbnail-nn``. ``--data`` names a
rendered line; without it one is rendered. ``--images`` writes, for each task, test images with the truth, the
reconstruction and the map. With ``--write`` the tables go to benchmarks/results/draem.md and draem_speed.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from _trainings import beside_the_floor, machine, prediction_ms, shown_samples, truth_image
from andon.core import Category, FloatArray, ImageArray
from andon.data import Images, load_dataset
from andon.methods import create_method
from andon.methods._perlin import perlin_noise
from andon.methods.draem import Draem, DraemDetector
from andon.synthetic import TASKS, Counts, generate
from andon.training.losses import focal_loss, ssim

RESULTS = Path(__file__).parent / "results"
BATCH, SIZE, REPEATS = 8, 256, 5


# Speed


def literal_noise(shape: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    angles = 2 * np.pi * rng.random((cells[0] + 1, cells[1] + 1))
    gradients = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    y, x = (np.arange(length) * (count / length) for length, count in zip(shape, cells, strict=True))
    grid = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1) % 1

    def corner(a: int, b: int) -> FloatArray:
        part = gradients[a : a + cells[0], b : b + cells[1]]
        each = part.repeat(shape[0] // cells[0], 0).repeat(shape[1] // cells[1], 1)
        dots: FloatArray = ((grid - np.array([a, b])) * each).sum(-1)
        return dots

    fade = grid**3 * (grid * (grid * 6 - 15) + 10)
    upper = corner(0, 0) + fade[..., 0] * (corner(1, 0) - corner(0, 0))
    lower = corner(0, 1) + fade[..., 0] * (corner(1, 1) - corner(0, 1))
    noise: FloatArray = np.sqrt(2) * (upper + fade[..., 1] * (lower - upper))
    return noise


def literal_ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    line = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 11, 11).contiguous()

    def mean(image: torch.Tensor) -> torch.Tensor:
        return F.conv2d(image, window, padding=5, groups=3)

    mx, my = mean(x), mean(y)
    sx, sy, sxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    similar = ((2 * mx * my + 0.0001) * (2 * sxy + 0.0009)) / ((mx * mx + my * my + 0.0001) * (sx + sy + 0.0009))
    return similar.mean()


def literal_focal(probabilities: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    flat = probabilities.flatten(2).permute(0, 2, 1).reshape(-1, 2)
    one_hot = torch.zeros_like(flat).scatter_(1, target.reshape(-1, 1).long(), 1).clamp(1e-5, 1 - 1e-5)
    p = (one_hot * flat).sum(1) + 1e-5
    return (-((1 - p) ** 2) * p.log()).mean()


def milliseconds(work: Callable[[], object]) -> float:
    """CPU time of a call, the mean over ``REPEATS`` after one to warm up."""
    work()
    start = time.process_time()
    for _ in range(REPEATS):
        work()
    return 1000 * (time.process_time() - start) / REPEATS


def speed() -> list[str]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((BATCH, 3, SIZE, SIZE), generator=generator)
    other = (images + 0.1 * torch.rand(images.shape, generator=generator)).requires_grad_()
    logits = torch.randn((BATCH, 2, SIZE, SIZE), generator=generator, requires_grad=True)
    target = (torch.rand((BATCH, 1, SIZE, SIZE), generator=generator) > 0.9).float()
    rng = np.random.default_rng(0)
    noise = [
        lambda: [literal_noise((SIZE, SIZE), (8, 8), rng) for _ in range(BATCH)],
        lambda: [perlin_noise((SIZE, SIZE), (8, 8), rng) for _ in range(BATCH)],
    ]
    similarity = [
        lambda: literal_ssim(other, images).backward(),  # type: ignore[no-untyped-call]
        lambda: ssim(other, images).backward(),  # type: ignore[no-untyped-call]
    ]
    focal = [
        lambda: literal_focal(logits.softmax(1), target).backward(),  # type: ignore[no-untyped-call]
        lambda: focal_loss(logits.softmax(1), target).backward(),  # type: ignore[no-untyped-call]
    ]
    lines = [
        f"## Parts of a step: {BATCH} images of {SIZE}×{SIZE}",
        "",
        "| CPU milliseconds | literal | here | ratio |",
        "|---|---|---|---|",
    ]
    parts: dict[str, list[Callable[[], object]]] = {
        "Perlin noise, 8×8 cells": list(noise),
        "structural similarity, both ways": list(similarity),
        "focal loss, both ways": list(focal),
    }
    for name, (literal, here) in parts.items():
        slow, fast = milliseconds(literal), milliseconds(here)
        lines.append(f"| {name} | {slow:.1f} | {fast:.1f} | {slow / fast:.1f}× |")
    return [*lines, ""]


# Trainings


def trained(category: Category, budget: float) -> tuple[DraemDetector, str]:
    start = time.process_time()
    detector = create_method("draem", preset="designed", budget=budget).fit(category)
    seconds = time.process_time() - start
    assert isinstance(detector, DraemDetector)
    curves = detector.report.curves
    figures = beside_the_floor(detector, category, Images(category.train))
    each_ms = prediction_ms(detector, category)
    losses = [f"{curves[name][-1][1]:.4f}" for name in ("l2", "ssim", "focal")]
    steps = curves["focal"][-1][0]
    cells = [category.name, *figures, f"{seconds:.0f} s", str(steps), *losses, f"{each_ms:.0f} ms"]
    return detector, f"| {' | '.join(cells)} |"


def grid(detector: DraemDetector, category: Category, path: Path) -> None:
    """Defective images and two good ones: image, truth, reconstruction, map (all maps on one scale)."""
    chosen = shown_samples(category)
    images, rows = Images(chosen), []
    maps = detector.predict(images).anomaly_maps
    assert maps is not None
    for i, sample in enumerate(chosen):
        image = images.resized(i, detector.transform)
        with torch.inference_mode():
            seen, _ = detector.networks(detector.transform.normalise(image[None]))
        back = (255 * seen[0].permute(1, 2, 0).clamp(0, 1)).byte().numpy()
        heat = cv2.applyColorMap((255 * (maps[i] / maps.max())).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        row: list[ImageArray] = [image, truth_image(sample, image.shape[1::-1]), back, heat]
        rows.append(np.concatenate(row, axis=1))
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--budget", type=float, default=0.1)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--images", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    lines = speed() if options.speed else trainings(options)
    print("\n".join(lines))
    if options.write:
        text = "\n".join(["# DRAEM", "", f"{machine()} Times are CPU time of all threads.", "", *lines]) + "\n"
        (RESULTS / ("draem_speed.md" if options.speed else "draem.md")).write_text(text, encoding="utf-8")


def trainings(options: argparse.Namespace) -> list[str]:
    preset: dict[str, Any] = dict(Draem.presets["designed"])
    lines = [
        f"## Trainings: preset `designed` ({preset['epochs']} epochs of 60 images) at budget {options.budget:g}",
        "",
        "60 good images a task to learn from, 30 good and 30 defective ones to judge. Image AUROC, AUsPRO@0.05 in %.",
        "",
        "| task | AUROC | AUsPRO | thumbnail-nn: AUROC | AUsPRO | fit | steps | L2 | SSIM | focal | prediction |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or Path(folder)
        if options.data is None:
            generate(root, tasks=options.tasks, counts=Counts(train=60, good=30, defective=30))
        for task in options.tasks:
            category = load_dataset(root)[task]
            detector, row = trained(category, options.budget)
            print(row, flush=True)
            lines.append(row)
            if options.images:
                options.images.mkdir(parents=True, exist_ok=True)
                grid(detector, category, options.images / f"{task}.png")
    return lines


if __name__ == "__main__":
    main()
