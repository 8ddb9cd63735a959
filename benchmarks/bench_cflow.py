"""CFlow: densities at inference beside their literal form, and training on the synthetic line beside a trivial floor.

    python benchmarks/bench_cflow.py --speed [--write]
    python benchmarks/bench_cflow.py [--data DIR] [--budget 1] [--tasks …] [--cache DIR] [--images DIR] [--write]

Literal: as in the authors' code, operation by operation: the positional encoding of every image made anew, vectors in
chunks of as many "fibres" as in training (64 in the study, 256 in the original), each with its own condition beside its
features, likelihoods gathered in lists. Both get the same features, and flows with random weights: they do not change
the times.

Trainings: preset ``designed`` on 60 good images a task beside ``thumbnail-nn``. ``--data`` names a rendered line;
without it one is rendered. ``--images`` writes test images with truth and map. With ``--write`` the tables go to
benchmarks/results/cflow.md and cflow_speed.md.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from _trainings import beside_the_floor, machine, prediction_ms, shown_samples, truth_image
from andon.core import Category, ImageArray
from andon.data import ArrayCache, Images, load_dataset
from andon.methods import create_method
from andon.methods.cflow import Cflow, CflowConfig, CflowDetector
from andon.methods.cflow.flows import ConditionalFlow, CouplingBlock, Permutation, positional_encoding
from andon.methods.cflow.grid import GridFlow
from andon.synthetic import TASKS, Counts, generate

RESULTS = Path(__file__).parent / "results"
REPEATS = 3
LEGEND = "Difference: of log-likelihoods a dimension, in nats. Wall times in ms a batch."


# Speed


def literal_encoding(dimensions: int, height: int, width: int) -> torch.Tensor:
    """The positional encoding, ``[dimensions, height, width]``."""
    half = dimensions // 2
    encoding = torch.zeros(dimensions, height, width)
    frequency = torch.exp(torch.arange(0.0, half, 2) * -(math.log(1e4) / half))
    column, row = (torch.arange(0.0, n)[:, None] * frequency for n in (width, height))
    encoding[0:half:2] = column.sin().T[:, None, :].repeat(1, height, 1)
    encoding[1:half:2] = column.cos().T[:, None, :].repeat(1, height, 1)
    encoding[half::2] = row.sin().T[:, :, None].repeat(1, 1, width)
    encoding[half + 1 :: 2] = row.cos().T[:, :, None].repeat(1, 1, width)
    return encoding


class LiteralBlock:
    """A coupling block with one matrix for features and condition, and its permutation as a matrix."""

    def __init__(self, block: CouplingBlock) -> None:
        self.block = block
        self.weight = torch.cat([block.weight_passive, block.weight_condition], dim=1)
        hard = block.permutation == "hard"
        self.matrix = torch.eye(len(block.mixing))[block.mixing] if hard else block.mixing

    def __call__(self, x: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        block = self.block
        first, second = x[:, : block.passive], x[:, block.passive :]
        hidden = torch.relu(
            torch.nn.functional.linear(torch.cat([first, condition], 1), self.weight, block.bias_hidden)
        )
        out = 0.1 * torch.nn.functional.linear(hidden, block.weight_out, block.bias_out)
        log_scale = block.limit * torch.tanh(out[:, : block.active])
        second = second * torch.exp(log_scale) + out[:, block.active :]
        scale = 0.1 * torch.nn.functional.softplus(block.scale_parameter, beta=0.5)
        y = torch.nn.functional.linear(torch.cat([first, second], 1) * scale + block.offset, self.matrix)
        return y, log_scale.sum(dim=1) + torch.sum(torch.log(scale))


@torch.no_grad()
def literal(blocks: list[LiteralBlock], features: torch.Tensor, dimensions: int, fibres: int) -> torch.Tensor:
    batch, channels, height, width = features.shape
    positions = height * width
    encoding = literal_encoding(dimensions, height, width).unsqueeze(0).repeat(batch, 1, 1, 1)
    conditions = encoding.reshape(batch, dimensions, positions).transpose(1, 2).reshape(-1, dimensions)
    rows = features.reshape(batch, channels, positions).transpose(1, 2).reshape(-1, channels)
    result: list[float] = []
    for start in range(0, len(rows), fibres):
        index = torch.arange(start, min(start + fibres, len(rows)))
        x, condition = rows[index], conditions[index]
        log_det = torch.zeros(len(x))
        for block in blocks:
            x, part = block(x, condition)
            log_det = log_det + part
        result += (-0.5 * channels * math.log(2 * math.pi) - 0.5 * torch.sum(x**2, 1) + log_det).tolist()
    return torch.tensor(result).view(batch, height, width)


def milliseconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU time, the smallest of some runs."""
    walls, cpus = [], []
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    return min(walls), min(cpus)


def speed(keep: bool) -> list[str]:
    """The table; with ``keep`` it is written as it grows, so that what is done stays, should it be stopped."""
    wide = [("layer2", 512, 32, 32), ("layer3", 1024, 16, 16), ("layer4", 2048, 8, 8)]
    config = Cflow.presets["designed"]
    small = CflowConfig(**config)
    cells = [("cells", 32, 28, 28)]
    kinds: list[tuple[str, list[tuple[str, int, int, int]], int, int, Permutation, int, int]] = [
        ("designed preset", cells, small.condition, small.coupling_blocks, small.permutation, 1, 64),
        ("designed preset", cells, small.condition, small.coupling_blocks, small.permutation, 16, 64),
        ("Wide-ResNet-50-2, released code", wide, 128, 8, "hard", 1, 64),
        ("Wide-ResNet-50-2, released code", wide, 128, 8, "hard", 16, 64),
        ("Wide-ResNet-50-2, paper", wide, 128, 8, "soft", 16, 64),
        ("Wide-ResNet-50-2, paper", wide, 128, 8, "soft", 16, 256),
    ]
    lines = [
        "## Densities of all positions of a batch",
        "",
        "| flows | images | scale | fibres | literal, wall | here, wall | ratio | CPU ratio | largest difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    known: dict[tuple[int, Permutation], ConditionalFlow] = {}
    for name, scales, condition, n_blocks, permutation, batch, fibres in kinds:
        sums = [0.0, 0.0, 0.0, 0.0]
        worst = 0.0
        for scale, channels, height, width in scales:
            key = channels, permutation
            if key not in known:
                known = {k: v for k, v in known.items() if k[1] == permutation}
                known[key] = ConditionalFlow(
                    channels,
                    condition,
                    n_blocks,
                    permutation=permutation,
                    generator=torch.Generator().manual_seed(0),
                ).requires_grad_(False)
            flow = known[key]
            shape = (batch, channels, height, width)
            features = torch.randn(shape, generator=torch.Generator().manual_seed(1))
            blocks = [LiteralBlock(block) for block in flow.coupling_blocks()]
            grid = GridFlow(flow, positional_encoding(condition, height, width))
            one, two = literal(blocks, features, condition, fibres), grid(features)
            difference = float((one - two).abs().max()) / channels
            slow = milliseconds(lambda b=blocks, f=features, c=condition, n=fibres: literal(b, f, c, n))  # type: ignore[misc]
            fast = milliseconds(lambda g=grid, f=features: g(f))  # type: ignore[misc]
            sums = [a + b for a, b in zip(sums, [*slow, *fast], strict=True)]
            worst = max(worst, difference)
            if len(scales) > 1:
                lines.append(speed_row(name, batch, scale, fibres, [*slow, *fast], difference))
                print(lines[-1], flush=True)
        lines.append(speed_row(name, batch, "all" if len(scales) > 1 else scales[0][0], fibres, sums, worst))
        print(lines[-1], flush=True)
        if keep:
            write("cflow_speed.md", [*lines, "", LEGEND, ""])
    return [*lines, "", LEGEND, ""]


def speed_row(name: str, batch: int, scale: str, fibres: int, times: list[float], difference: float) -> str:
    slow_wall, slow_cpu, fast_wall, fast_cpu = times
    cells = [name, str(batch), scale, str(fibres), f"{slow_wall:.1f}", f"{fast_wall:.1f}"]
    cells += [f"{slow_wall / fast_wall:.1f}×", f"{slow_cpu / fast_cpu:.1f}×", f"{difference:.0e}"]
    return f"| {' | '.join(cells)} |"


# Trainings


def trained(category: Category, budget: float, cache: ArrayCache) -> tuple[CflowDetector, str]:
    images = Images(category.train, cache)
    start = time.process_time()
    detector = create_method("cflow", preset="designed", budget=budget).fit(images)
    seconds = time.process_time() - start
    assert isinstance(detector, CflowDetector)
    figures = beside_the_floor(detector, category, images)
    each_ms = prediction_ms(detector, category)
    steps, last = detector.report.curves["nll"][-1]
    cells = [
        category.name,
        *figures,
        f"{seconds:.0f} s",
        str(steps),
        f"{last:.2f}",
        f"{each_ms:.0f} ms",
    ]
    return detector, f"| {' | '.join(cells)} |"


def grid_of_maps(detector: CflowDetector, category: Category, path: Path) -> None:
    """Defective images and, last, two good ones: image, truth, map (all maps on one scale)."""
    chosen = shown_samples(category)
    images, rows = Images(chosen), []
    maps = detector.predict(images).anomaly_maps
    assert maps is not None
    # Log-likelihoods of glaring defects are many times those of plain ones; the scale ends at a typical one.
    low, high = float(np.median(maps)), float(np.median(maps[: len(chosen) - 2].max((1, 2))))
    for i, sample in enumerate(chosen):
        image = images.resized(i, detector.transform)
        level = (255 * ((maps[i] - low) / (high - low)).clip(0, 1)).astype(np.uint8)
        heat = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[..., ::-1]
        row: list[ImageArray] = [image, truth_image(sample, image.shape[1::-1]), heat]
        rows.append(np.concatenate(row, axis=1))
    half = (len(rows) + 1) // 2
    blank = np.zeros_like(rows[0])
    columns = [np.concatenate([*part, *[blank] * (half - len(part))]) for part in (rows[:half], rows[half:])]
    cv2.imwrite(str(path), np.concatenate(columns, axis=1)[..., ::-1])


def trainings(options: argparse.Namespace) -> list[str]:
    config = CflowConfig(**Cflow.presets["designed"])
    lines = [
        f"## Trainings: preset `designed` ({config.meta_epochs * config.sub_epochs} passes over 60 images) "
        f"at budget {options.budget:g}",
        "",
        "60 good images a task to learn from, 30 good and 30 defective ones to judge. Image AUROC, AUsPRO@0.05 in %.",
        "Fit: features and training, CPU time of all threads; without the extractor's adaptation where a cache has it.",
        "NLL: mean negative log-likelihood a dimension at the end of training, in nats.",
        "",
        "| task | AUROC | AUsPRO | thumbnail-nn: AUROC | AUsPRO | fit | steps | NLL | prediction |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or Path(folder) / "line"
        if options.data is None:
            generate(root, tasks=options.tasks, counts=Counts(train=60, good=30, defective=30))
        cache = ArrayCache(options.cache or Path(folder) / "cache")
        for task in options.tasks:
            category = load_dataset(root)[task]
            detector, row = trained(category, options.budget, cache)
            print(row, flush=True)
            lines.append(row)
            if options.write:  # what is done stays, should it be stopped
                write("cflow.md", [*lines, ""])
            if options.images:
                options.images.mkdir(parents=True, exist_ok=True)
                grid_of_maps(detector, category, options.images / f"{task}.png")
    return [*lines, ""]


def write(name: str, lines: list[str]) -> None:
    (RESULTS / name).write_text("\n".join(["# CFlow", "", machine(), "", *lines]), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--budget", type=float, default=1.0)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--images", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    lines = speed(options.write) if options.speed else trainings(options)
    print("\n".join(lines))
    if options.write:
        write("cflow_speed.md" if options.speed else "cflow.md", lines)


if __name__ == "__main__":
    main()
