"""What ``andon data prepare`` and ``andon data check`` find, where it is known what there is to find.

    python benchmarks/bench_prepare.py places [--images 100] [--seeds 5]
    python benchmarks/bench_prepare.py planted [--task pipe_staple] [--images 300]
    ... --write adds the table to results/prepare.md

``places``: raw scenes of the synthetic line (2590 × 1942 pixels, three engine models), templates of 240 × 240 pixels
about the connector in the first good image of each model, everything else as it is by default. How far from the true
place (``andon.synthetic.seen_at``) is what was found? Then Patchcore's image AUROC on the prepared set beside that on
the crops that the line renders itself, of ``--seeds`` seeds of the line.

``planted``: a training set of ``--images`` images, of which 10 are near duplicates (saved again as JPEG, brighter,
noise added, resized there and back, moved by a pixel), 10 blurred (Gaussian or in one direction) and 10 defective.
Which of them does the check report, and which others?
"""

from __future__ import annotations

import argparse
import csv
import datetime
import io
import math
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from andon.core import Category
from andon.data import PrepareOptions, TemplateBox, load_dataset, plan_preparation, write_prepared
from andon.evaluation import auroc
from andon.inspection import check_category
from andon.methods import create_method
from andon.synthetic import Counts, Knobs, generate, mode_of, plan_images, seen_at

RESULTS = Path(__file__).parent / "results" / "prepare.md"
CONNECTOR = (206.0, 196.0)
"""Scene coordinates of what both pipe tasks show."""
SIDE = 240
PLANTED = 10


def category(folder: Path) -> Category:
    return next(iter(load_dataset(folder)))


def counts_of(n: int) -> Counts:
    return Counts(train=n // 2, good=n // 4, defective=n - n // 2 - n // 4)


def patchcore_auroc(found: Category, seed: int = 0) -> float:
    detector = create_method("patchcore").fit(found.train, seed=seed)
    scores = np.concatenate([p.image_scores for p in detector.iterate_predictions(found.test)])
    return 100 * auroc(scores, [sample.is_defective for sample in found.test])


def places(task: str, n: int, seeds: int) -> list[str]:
    counts, knobs = counts_of(n), Knobs()
    plan = plan_images(task, counts, 0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate(root / "raw", tasks=(task,), counts=counts, raw=True, jobs=1)
        source = root / "raw" / task
        names = [image.path.split("/", 1)[1] for image in plan]
        with (root / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("file", "label"), *zip(names, (i.defect_type for i in plan), strict=True)])
        (root / "order.txt").write_text("\n".join(names))
        true = [seen_at(task, CONNECTOR, i.index, i.split, time=i.time, raw=True) for i in plan]
        models = [mode_of(task, image.index, image.split, 0, knobs) for image in plan]
        first = {model: k for k, model in reversed(list(enumerate(models))) if plan[k].split == "train"}
        boxes = [(names[k], *(round(v - (SIDE - 1) / 2) for v in true[k]), SIDE, SIDE) for k in first.values()]
        options = PrepareOptions(
            labels=root / "labels.csv",
            order=str(root / "order.txt"),
            templates=tuple(TemplateBox(file=box[0], box=box[1:]) for box in boxes),
            crop=(400, 400),
            masks=source / "ground_truth",
        )
        clock = time.perf_counter()
        made = plan_preparation(source, options)
        seconds = time.perf_counter() - clock
        away = [math.dist(i.place[:2], t) if i.place else math.inf for i, t in zip(made.images, true, strict=True)]
        faults = write_prepared(made, root / "made" / task)
        prepared = patchcore_auroc(category(root / "made" / task))
        rendered = []
        for seed in range(seeds):
            generate(root / f"crops{seed}", tasks=(task,), counts=counts, seed=seed, jobs=1)
            rendered.append(patchcore_auroc(category(root / f"crops{seed}" / task)))
    within = sum(value <= 2 for value in away)
    return [
        f"| {task} | {len(away)} | {within} ({100 * within / len(away):.1f} %) | {np.median(away):.2f} | "
        f"{max(away):.2f} | {min(i.place.score for i in made.images if i.place):.2f} | {len(made.rejected)} | "
        f"{len(faults)} | {seconds / len(away):.1f} s | {prepared:.1f} | {rendered[0]:.1f} | "
        f"{np.mean(rendered):.1f} ± {np.std(rendered, ddof=1):.1f} ({min(rendered):.1f}–{max(rendered):.1f}) |"
    ]


PLACES_HEAD = [
    "| task | raw scenes | within 2 pixels | median error | largest | lowest correlation | rejected | rules broken | "
    "a scene | AUROC, prepared | AUROC, crops of the same seed | AUROC, crops, seeds |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
]


def near_copy(image: np.ndarray, kind: int, rng: np.random.Generator) -> np.ndarray:
    if kind == 0:
        out = io.BytesIO()
        Image.fromarray(image).save(out, "JPEG", quality=85)
        return np.asarray(Image.open(out))
    if kind == 1:
        return np.clip(image * 1.05 + 3, 0, 255).astype(np.uint8)
    if kind == 2:
        return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    if kind == 3:
        size = image.shape[1], image.shape[0]
        return np.asarray(Image.fromarray(image).resize((size[0] * 9 // 10, size[1] * 9 // 10)).resize(size))
    return np.roll(image, (1, -1), (0, 1))


def plant(folder: Path, good: Sequence[Path], bad: Sequence[Path], n: int, seed: int) -> list[str]:
    """Writes the training set; what each of its images is."""
    rng = np.random.default_rng(seed)
    items = [("good", np.asarray(Image.open(path))) for path in good[: n - 2 * PLANTED]]
    chosen = rng.choice(len(items), 2 * PLANTED, replace=False)
    extra = [("near duplicate", near_copy(items[i][1], k % 5, rng)) for k, i in enumerate(chosen[:PLANTED])]
    for k, i in enumerate(chosen[PLANTED:]):
        image, scale = items[i][1], max(items[i][1].shape) / 400
        soft = cv2.GaussianBlur(image, (0, 0), scale * rng.uniform(1.5, 3))
        items[i] = ("blurred", soft if k % 2 else cv2.blur(image, (round(11 * scale), 1)))
    extra += [("mislabelled", np.asarray(Image.open(path))) for path in bad[:PLANTED]]
    for item in extra:
        items.insert(int(rng.integers(0, len(items) + 1)), item)
    folder.mkdir(parents=True)
    for k, (_, image) in enumerate(items):
        Image.fromarray(image).save(folder / f"{k:04d}.png")
    return [kind for kind, _ in items]


def planted(task: str, n: int, seed: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        counts = Counts(train=n - 2 * PLANTED, good=0, defective=PLANTED)
        generate(root / "line", tasks=(task,), counts=counts, seed=seed, jobs=1)
        line = root / "line" / task
        bad = [path for path in sorted((line / "test").glob("*/*.png")) if path.parent.name != "good"]
        kinds = plant(root / task, sorted((line / "train" / "good").iterdir()), bad, n, seed)
        clock = time.perf_counter()
        found = check_category(category(root / task), seed=seed)
        seconds = time.perf_counter() - clock
    paired = {number for pair in found.duplicates for number in pair[:2]}
    copies = {k for k in paired if kinds[k] == "near duplicate"}
    # The other one of a planted pair is no false report.
    partners = {k for pair in found.duplicates for k in pair[:2] if copies & set(pair[:2])}
    reported = {"blurred": set(found.blurred), "near duplicate": paired - (partners - copies)}
    reported["mislabelled"] = set(found.outliers)
    each = {kind: sum(kinds[k] == kind for k in numbers) for kind, numbers in reported.items()}
    false = {k for numbers in reported.values() for k in numbers if kinds[k] == "good"}
    order = np.argsort([-(image.outlier if image.outlier is not None else -9.0) for image in found.images])
    ranks = [place for place, k in enumerate(order, 1) if kinds[k] == "mislabelled"]
    return [
        f"| {task} | {len(kinds)} | {each['near duplicate']} of {PLANTED} | {each['blurred']} of {PLANTED} | "
        f"{each['mislabelled']} of {PLANTED} | {len(false)} | {', '.join(map(str, ranks))} | {len(found.modes)} | "
        f"{seconds:.0f} s |"
    ]


PLANTED_HEAD = [
    "| task | images | near duplicates found | blurred found | mislabelled found | false reports | ranks of the "
    "mislabelled by oddness | groups | time |",
    "|---|---:|---:|---:|---:|---:|---|---:|---:|",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("places", "planted"))
    parser.add_argument("--task", action="append")
    parser.add_argument("--images", type=int)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tasks = args.task or (["pipe_clip"] if args.part == "places" else ["pipe_staple"])
    lines = list(PLACES_HEAD if args.part == "places" else PLANTED_HEAD)
    for task in tasks:
        if args.part == "places":
            lines += places(task, args.images or 100, args.seeds)
        else:
            lines += planted(task, args.images or 300, args.seed)
        print("\n".join(lines[:2] + lines[-1:]), flush=True)
    if args.write:
        note = (
            f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {args.threads} threads, torch {torch.__version__}, "
            f"Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f} at the end."
        )
        before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Preparing and checking data\n"
        RESULTS.write_text(before + f"\n## {args.part}\n\n{note}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
