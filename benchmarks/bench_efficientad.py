"""EfficientAD: training step and prediction beside a plain implementation; short trainings on the synthetic line.

    python benchmarks/bench_efficientad.py [--speed medium small] [--data DIR] [--budget 1.0] [--tasks …]
        [--images FOLDER] [--write]

Plain: torch's convolutions, three passes of the student over normal, augmented and penalty image with all channels,
the teacher over normal and augmented image at every step, its output normalised afterwards, the hard features'
quantile by sorting. Same weights, same images, same losses; times are the smallest of alternating runs.

Trainings: preset ``designed`` on the good images of each task (``--data`` names a rendered line; without it one is
rendered), beside ``thumbnail-nn``. ``--images`` writes test images, truth and map of each task. With ``--write``
the tables go to benchmarks/results/efficientad.md.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from _trainings import beside_the_floor, machine
from andon.core import Category
from andon.data import load_dataset
from andon.data.images import Images
from andon.data.rendered import rendered_image
from andon.methods import Detector, create_method
from andon.methods._teachers import DescribedImages
from andon.methods.efficientad import EfficientAd, EfficientAdConfig, EfficientAdDetector
from andon.methods.efficientad.augmentation import PenaltyImages
from andon.methods.efficientad.networks import Networks
from andon.methods.efficientad.pdn import PDN, load_teacher
from andon.methods.efficientad.training import EfficientAdStage
from andon.synthetic import TASKS, Counts, generate

RESULTS = Path(__file__).parent / "results" / "efficientad.md"
REPEATS = 1


# Speed


def plain_pdn(network: PDN, batch: torch.Tensor) -> torch.Tensor:
    layers = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    for number, layer in enumerate(layers):
        batch = layer(batch)
        if number + 1 < len(layers):
            batch = F.relu(batch, inplace=True)
        if number < 2:
            batch = F.avg_pool2d(batch, 2, 2)
    return batch


class Plain:
    """The paper's algorithms, written down as they stand."""

    def __init__(self, config: EfficientAdConfig, mean: torch.Tensor, std: torch.Tensor) -> None:
        self.teacher = load_teacher(config.size, "random")[0]
        self.mean, self.std = mean[:, None, None], std[:, None, None]
        self.networks = Networks.initialised(config, 384, 0)

    def describe(self, batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return (plain_pdn(self.teacher, batch) - self.mean) / self.std

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        student = self.networks.student
        distance = (self.describe(batch.images) - plain_pdn(student, batch.images)[:, :384]) ** 2
        threshold = torch.quantile(distance, 0.999)
        nothing = plain_pdn(student, batch.penalty)[:, :384]
        decoded = self.networks.autoencoder(batch.augmented)
        structural = plain_pdn(student, batch.augmented)[:, 384:]
        return {
            "hard features": distance[distance >= threshold].mean(),
            "penalty": (nothing**2).mean(),
            "autoencoder": ((self.describe(batch.augmented) - decoded) ** 2).mean(),
            "student-autoencoder": ((decoded - structural) ** 2).mean(),
        }

    @torch.inference_mode()
    def maps(self, batch: torch.Tensor) -> torch.Tensor:
        said, decoded = plain_pdn(self.networks.student, batch), self.networks.autoencoder(batch)
        local = ((self.describe(batch) - said[:, :384]) ** 2).mean(1)
        return torch.stack([local, ((decoded - said[:, 384:]) ** 2).mean(1)], dim=1)


def smallest(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """(wall, CPU) milliseconds of each, the smallest of alternating runs after one that is not counted."""
    best = dict.fromkeys(works, (float("inf"), float("inf")))
    for number in range(repeats + 1):
        for name, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            spent = 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)
            if number:
                best[name] = (min(best[name][0], spent[0]), min(best[name][1], spent[1]))
    return best


def speed(size: str) -> list[str]:
    method = create_method("efficientad", size=size, weights="random", dropout=0.0, penalty_images=2)
    assert isinstance(method, EfficientAd)
    config, cpu = method.config, torch.device("cpu")
    images = Images([rendered_image(1, i, 256) for i in range(3)])
    teacher = load_teacher(size, "random")[0]
    described = DescribedImages(teacher, images, config.transform, config.memory_limit, cpu, lambda *_: None)
    networks = Networks.initialised(config, 384, 0)
    run = EfficientAdStage(config, networks, described, images, PenaltyImages(config), seed=0, device=cpu)
    plain = Plain(config, described.mean, described.std)
    batch = run.batch(0)
    losses: dict[str, dict[str, torch.Tensor]] = {}

    def step(name: str, owner: Any, make: Callable[[], dict[str, torch.Tensor]]) -> Callable[[], object]:
        optimiser = torch.optim.Adam(owner.parameters(), lr=1e-4, weight_decay=1e-5)

        def work() -> None:
            made = make()
            losses.setdefault(name, {key: value.detach() for key, value in made.items()})
            optimiser.zero_grad(set_to_none=True)
            sum(made.values(), start=torch.zeros(())).backward()  # type: ignore[no-untyped-call]
            optimiser.step()

        return work

    training = smallest(
        {
            "andon": step("andon", networks, lambda: run.losses(batch)),
            "plain": step("plain", plain.networks, lambda: plain.losses(batch)),
        },
        REPEATS,
    )
    difference = max(abs(float(losses["andon"][name] / value) - 1) for name, value in losses["plain"].items())
    plain.networks.load_state_dict(networks.state_dict())
    plain.networks.eval()
    detector = EfficientAdDetector(config, teacher, networks, torch.zeros((2, 2), dtype=torch.float64))
    detector.requires_grad_(False).eval()
    one = batch.images

    @torch.inference_mode()
    def maps() -> torch.Tensor:
        return detector.coarse_maps(one)

    found, expected = maps(), plain.maps(one)
    prediction = smallest({"andon": maps, "plain": lambda: plain.maps(one)}, 2 * REPEATS)
    map_difference = float((found / expected - 1).abs().max())
    return [
        f"| {size} | {what} | {times['andon'][0]:,.0f} | {times['plain'][0]:,.0f} "
        f"| {100 * times['andon'][0] / times['plain'][0]:.0f} % | {times['andon'][1]:,.0f} | {times['plain'][1]:,.0f} "
        f"| {100 * times['andon'][1] / times['plain'][1]:.0f} % | {of}: {worst:.1e} |"
        for what, times, of, worst in (
            ("training step", training, "losses", difference),
            ("maps", prediction, "maps", map_difference),
        )
    ]


# Trainings


def train_task(category: Category, budget: float, preset: str) -> tuple[str, Detector]:
    images = Images(category.train)
    start = time.perf_counter()
    detector = create_method("efficientad", preset=preset, budget=budget).fit(images)
    seconds = time.perf_counter() - start
    stages = ", ".join(f"{name} {value:.0f}" for name, value in detector.report.seconds.items())
    figures = " | ".join(beside_the_floor(detector, category, images))
    return f"| {category.name} | {figures} | {seconds:.0f} ({stages}) |", detector


def write_images(detector: Detector, category: Category, folder: Path, count: int = 6) -> None:
    """A row a test image: the image, the truth, the map, on one scale a task."""
    samples = [s for s in category.test if s.is_defective]
    chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, count).astype(int)]
    chosen.append(next(s for s in category.test if not s.is_defective))
    maps = detector.predict(Images(chosen)).anomaly_maps
    assert maps is not None
    low, high = float(np.quantile(maps, 0.5)), float(maps.max())
    rows = []
    for sample, scores in zip(chosen, maps, strict=True):
        truth = sample.ground_truth()
        mask = np.zeros(sample.size(), np.uint8) if truth is None else truth.union().astype(np.uint8) * 255
        heat = cv2.applyColorMap(
            (255 * np.clip((scores - low) / (high - low), 0, 1)).astype(np.uint8), cv2.COLORMAP_INFERNO
        )
        tiles = (sample.image()[..., ::-1], np.repeat(mask[..., None], 3, 2), heat)
        rows.append(np.hstack([cv2.resize(np.ascontiguousarray(tile), (192, 192)) for tile in tiles]))
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{category.name}.png"), np.vstack(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--speed", nargs="*", default=["medium", "small"], choices=["medium", "small"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--budget", type=float, default=1.0)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--images", type=Path)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS}")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = [
        "# EfficientAD",
        "",
        f"{machine()} `python benchmarks/bench_efficientad.py --write`.",
        "",
        "## Speed at 256×256, one image",
        "",
        "Milliseconds beside the plain implementation in the same run, smallest of alternating runs; CPU time is "
        "of all threads, and less moved by other work on the machine. A step has a normal, an augmented "
        "and a penalty image. Difference: largest relative one to the plain computation.",
        "",
        "| size | what | andon | plain | ratio | andon CPU | plain CPU | ratio | difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size in options.speed:
        lines += speed(size)
        print("\n".join(lines[-2:]), flush=True)
    preset = "designed"
    full = create_method("efficientad", preset=preset).config.steps
    lines += [
        "",
        "## Short trainings on the synthetic line",
        "",
        f"Preset `{preset}`, budget {options.budget:g}: {max(1, round(full * options.budget)):,} steps. Image AUROC "
        "and AUsPRO at a false-positive rate of 0.05, in %, beside the trivial floor.",
        "",
        "| task | AUROC | AUsPRO | thumbnail-nn AUROC | thumbnail-nn AUsPRO | seconds |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as rendered:
        root = options.data
        if root is None and options.tasks:
            root = Path(rendered)
            generate(root, tasks=options.tasks, counts=Counts(train=60, good=30, defective=30))
        for task in options.tasks:
            category = load_dataset(root).categories[task]
            row, detector = train_task(category, options.budget, preset)
            lines.append(row)
            print(row, flush=True)
            if options.images is not None:
                write_images(detector, category, options.images)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines += ["", f"Largest memory of the whole run: {peak:,.0f} MB."]
    print(lines[-1])
    if options.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
