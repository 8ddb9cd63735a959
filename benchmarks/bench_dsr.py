"""DSR: anomalies in the latent space beside their literal form, and short trainings on the synthetic line.

    python benchmarks/bench_dsr.py [--data DIR] [--budget 0.25] [--tasks …] [--full …] [--images FOLDER] [--write]
    python benchmarks/bench_dsr.py --speed [--write]

Literal: all positions of both levels get a replacement, whether beneath a mask or not, drawn from fully sorted
distances; codes are chosen by one-hot products; every image is encoded and rendered at every step.

Trainings: preset ``designed`` on 60 good images a task, at a budget, and at full length for the tasks of ``--full``,
beside ``thumbnail-nn``. ``--data`` names a rendered line; without it one is rendered. ``--images`` writes, for each
task, some test images with the truth, both decoders' images and the map. With ``--write`` the tables go to
benchmarks/results/dsr.md and dsr_speed.md.
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

from _trainings import beside_the_floor, machine, prediction_ms, shown_samples, truth_image
from andon._tools.seeds import step_generator
from andon.core import Category, ImageArray
from andon.data import Images, load_dataset
from andon.methods import create_method
from andon.methods._perlin import perlin_mask
from andon.methods.dsr import Dsr, DsrDetector
from andon.methods.dsr.anomalies import LatentDraws, latent_anomalies
from andon.methods.dsr.codebook import CODES, DiscreteLatentModel, VectorQuantizer, load_discrete_latent_model
from andon.methods.dsr.subspaces import compare, encode, render
from andon.synthetic import TASKS, Counts, generate

RESULTS = Path(__file__).parent / "results"
BATCH, REPEATS = 4, 3


# Speed


def one_hot(book: VectorQuantizer, features: torch.Tensor) -> torch.Tensor:
    flat = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    codes = book.codebook
    distances = flat.square().sum(1, keepdim=True) + codes.square().sum(1) - 2 * flat @ codes.T
    chosen = F.one_hot(distances.argmin(1), CODES).float() @ codes
    return chosen.view(features.shape[0], *features.shape[2:], -1).permute(0, 3, 1, 2)


def replaced(
    features: torch.Tensor, quantised: torch.Tensor, book: VectorQuantizer, mask: torch.Tensor, strength: torch.Tensor
) -> torch.Tensor:
    result = []
    for row, bound in zip(features, strength.tolist(), strict=True):
        flat = row.permute(1, 2, 0).reshape(-1, row.shape[0])
        distances = flat.square().sum(1, keepdim=True) + book.codebook.square().sum(1) - 2 * flat @ book.codebook.T
        near = distances.topk(min(int(bound * CODES) + 1, CODES - 1), dim=1, largest=False).indices
        near = near[:, int(0.05 * CODES) :]
        column = torch.randint(near.shape[1], (len(flat), 1))
        result.append(book.codebook[near.gather(1, column)[:, 0]].view(*row.shape[1:], -1).permute(2, 0, 1))
    beneath = F.max_pool2d(mask, mask.shape[-1] // features.shape[-1])
    return beneath * torch.stack(result) + (1 - beneath) * quantised


def literal(model: DiscreteLatentModel, images: torch.Tensor, mask: torch.Tensor, draws: LatentDraws) -> torch.Tensor:
    fine = model.encode_bottom(images)
    coarse = model.encode_top(fine)
    coarse_codes = one_hot(model.top, coarse)
    altered_coarse = replaced(coarse, coarse_codes, model.top, mask, draws.coarse_strength)
    joined = model.join_bottom(fine, model.upsample_top(altered_coarse))
    good = model.join_bottom(fine, model.upsample_top(coarse_codes))
    joined_codes, good_codes = one_hot(model.bottom, joined), one_hot(model.bottom, good)
    altered_fine = replaced(joined, joined_codes, model.bottom, mask, draws.fine_strength)
    fine_alone = replaced(good, good_codes, model.bottom, mask, draws.fine_strength)
    both = draws.both[:, None, None, None].float()
    coarse_only = draws.coarse_only[:, None, None, None].float()
    only_fine = coarse_only * good_codes + (1 - coarse_only) * fine_alone
    only_coarse = coarse_only * altered_coarse + (1 - coarse_only) * coarse_codes
    return render(model, both * altered_coarse + (1 - both) * only_coarse, both * altered_fine + (1 - both) * only_fine)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def best(work: Callable[[int], object]) -> float:
    """CPU seconds of a call, the mean over ``REPEATS`` different batches after one to warm up."""
    work(0)
    start = time.process_time()
    for number in range(1, REPEATS + 1):
        work(number)
    return (time.process_time() - start) / REPEATS


@torch.no_grad()
def speed() -> list[str]:
    model, _ = load_discrete_latent_model("embedded")
    images = torch.rand((BATCH, 3, 256, 256), generator=step_generator(0))

    def drawn(number: int) -> tuple[torch.Tensor, LatentDraws]:
        rng = np.random.default_rng(number)
        masks = [perlin_mask((256, 256), rng) if i % 2 else np.zeros((256, 256), bool) for i in range(BATCH)]
        mask = torch.from_numpy(np.stack(masks)[:, None].astype(np.float32))
        return mask, LatentDraws.draw(BATCH, (64, 64), 0.2, step_generator(number))

    encoding = encode(model, images)
    general = render(model, model.top.look_up(encoding.coarse_codes), model.bottom.look_up(encoding.fine_codes))

    def ours(number: int) -> torch.Tensor:
        mask, draws = drawn(number)
        altered = latent_anomalies(model, encoding, mask, draws)
        rows = altered.mask.flatten(1).any(1).nonzero().squeeze(1)
        coarse, fine = model.top.look_up(altered.coarse_codes), model.bottom.look_up(altered.fine_codes)
        return general.index_put((rows,), render(model, coarse[rows], fine[rows])) if len(rows) else general

    before = peak()
    fast, after_fast = best(ours), peak()  # the frugal one first: peaks only grow
    slow = best(lambda number: literal(model, images, *drawn(number)))
    return [
        f"## A step's frozen part: {BATCH} images of 256×256, every second one with a mask",
        "",
        "| | literal | here | ratio |",
        "|---|---|---|---|",
        f"| CPU seconds | {slow:.2f} | {fast:.2f} | {slow / fast:.1f}× |",
        f"| peak of the process, rise | +{peak() - after_fast:.0f} MB | +{after_fast - before:.0f} MB | |",
        "",
    ]


# Trainings


def trained(category: Category, budget: float) -> tuple[DsrDetector, str]:
    start = time.process_time()
    detector = create_method("dsr", preset="designed", budget=budget).fit(category)
    seconds = time.process_time() - start
    assert isinstance(detector, DsrDetector)
    steps, focal = detector.report.curves["focal"][-1]
    figures = beside_the_floor(detector, category, Images(category.train))
    each_ms = prediction_ms(detector, category)
    cells = [
        category.name,
        f"{budget:g}",
        *figures,
        f"{seconds:.0f} s of CPU",
        str(steps),
        f"{focal:.3f}",
        f"{each_ms:.0f} ms of CPU",
    ]
    return detector, f"| {' | '.join(cells)} |"


def grid(detector: DsrDetector, category: Category, path: Path) -> None:
    """Defective images and two good ones: image, truth, general and object-specific view, map."""
    chosen = shown_samples(category)
    images, rows = Images(chosen), []
    maps = detector.predict(images).anomaly_maps
    assert maps is not None
    for i, sample in enumerate(chosen):
        image = images.resized(i, detector.transform)
        views = compare(detector.latents, detector.networks, detector.transform.normalise(image[None]))
        seen = [(255 * v[0].permute(1, 2, 0).clamp(0, 1)).byte().numpy() for v in (views.general, views.specific)]
        heat = cv2.applyColorMap((255 * (maps[i] / maps.max())).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        row: list[ImageArray] = [image, truth_image(sample, image.shape[1::-1]), *seen, heat]
        rows.append(np.concatenate(row, axis=1))
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--budget", type=float, default=0.25)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--full", nargs="*", default=[])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    lines = speed() if options.speed else trainings(options)
    print("\n".join(lines))
    if options.write:
        text = "\n".join(["# DSR", "", machine(), "", *lines]) + "\n"
        (RESULTS / ("dsr_speed.md" if options.speed else "dsr.md")).write_text(text, encoding="utf-8")


def trainings(options: argparse.Namespace) -> list[str]:
    preset: dict[str, Any] = dict(Dsr.presets["designed"])
    lines = [
        f"## Trainings: preset `designed`, {preset['epochs']} epochs of 60 images at budget 1",
        "",
        "60 good images a task to learn from, 30 good and 30 defective ones to judge. Image AUROC, AUsPRO@0.05 in %.",
        "",
        "| task | budget | AUROC | AUsPRO | thumbnail-nn: AUROC | AUsPRO | fit | steps | focal loss | a prediction |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or Path(folder)
        runs = [*((task, options.budget) for task in options.tasks), *((task, 1.0) for task in options.full)]
        if options.data is None:
            generate(root, tasks=sorted({task for task, _ in runs}), counts=Counts(train=60, good=30, defective=30))
        for task, budget in runs:
            category = load_dataset(root)[task]
            detector, row = trained(category, budget)
            print(row, flush=True)
            lines.append(row)
            if options.images:
                options.images.mkdir(parents=True, exist_ok=True)
                grid(detector, category, options.images / f"{task}-{budget:g}.png")
    return lines


if __name__ == "__main__":
    main()
