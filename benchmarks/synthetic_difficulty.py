"""How difficult the six tasks of the synthetic line are: image AUROC of a trivial floor, PaDiM and Patchcore.

    python benchmarks/synthetic_difficulty.py [--train 60 --good 40 --defective 40] [--seeds 0 1] [--tasks …] [--write]

No pretrained weights are assumed: PaDiM and Patchcore run on a hand-made bank of Gabor filters (below), which stands in
for a pretrained network in its columns' names, and optionally (``--random``) on random orthogonal ResNet-18 weights.
``--write`` puts the table into benchmarks/results/synthetic_difficulty.md.
"""

from __future__ import annotations

import argparse
import math
import platform
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

import andon
from andon.core import Category
from andon.data import load_dataset
from andon.data.synthetic import TASKS, Counts, generate
from andon.data.transform import IMAGENET_MEAN, IMAGENET_STD, Transform
from andon.methods.base import Method
from andon.methods.padim import Padim
from andon.methods.patchcore import Patchcore
from andon.methods.registry import create_method
from andon.nn.features import WeightsRecord

STUDY = {  # Table 6: PaDiM, Patchcore
    "engine_wiring": (79.2, 77.2),
    "pipe_clip": (62.6, 73.3),
    "pipe_staple": (54.6, 92.3),
    "tank_screw": (49.4, 89.3),
    "underbody_pipes": (98.9, 99.8),
    "underbody_screw": (82.6, 98.9),
}


class GaborBank:
    """Hand-made features, two stages: energies of Gabor filters on opponent colours, and their local means.

    Stage 1: 3 scales × 8 orientations on luminance, 1 scale × 4 orientations on both colour differences, and the local
    mean of each, averaged over 8×8 pixels. Stage 2: the same at half the resolution. Energies are compressed by a
    logarithm.
    """

    fingerprint = "gabor-bank-2"
    strides = (8, 8)
    weights = WeightsRecord("gabor bank", "file", "hand-made Gabor filters", "", pretrained=False)

    def __init__(self) -> None:
        self.grey = [torch.tensor(gabor(s, 8)) for s in (1.2, 2.0, 3.4)]
        self.colour = torch.tensor(gabor(2.0, 4))
        self.channels = (3 * 8 + 2 * 4 + 3,) * 2

    def to(self, device: torch.device | str) -> GaborBank:
        return self

    @torch.inference_mode()
    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rgb = batch * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) + torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        r, g, b = rgb[:, :1], rgb[:, 1:2], rgb[:, 2:]
        opponent = torch.cat([(r + g + b) / 3, (r - g) * 2, (b - (r + g) / 2) * 2], 1)
        half = F.avg_pool2d(opponent, 2)
        return self._stage(opponent, 8), self._stage(half, 4)

    def _stage(self, x: torch.Tensor, stride: int) -> torch.Tensor:
        parts = [
            *(energy(x[:, :1], bank) for bank in self.grey),
            *(energy(x[:, k : k + 1], self.colour) for k in (1, 2)),
        ]
        energies = torch.log1p(40 * torch.cat(parts, 1))
        means = 2.0 * F.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
        return F.avg_pool2d(torch.cat([energies, means], 1), stride)


def gabor(sigma: float, orientations: int) -> np.ndarray:
    """Quadrature pairs ``[2·orientations, 1, k, k]`` of zero mean and unit L1 norm."""
    half = math.ceil(2.5 * sigma)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    out = []
    for k in range(orientations):
        a = math.pi * k / orientations
        u = x * math.cos(a) + y * math.sin(a)
        envelope = np.exp(-(x**2 + y**2) / (2 * sigma**2))
        for phase in (np.cos, np.sin):
            kernel = envelope * phase(2 * math.pi * u / (2.6 * sigma))
            kernel -= envelope * kernel.sum() / envelope.sum()
            out.append(kernel / np.abs(kernel).sum())
    return np.array(out, np.float32)[:, None]


def energy(x: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    pad = bank.shape[-1] // 2
    response = F.conv2d(F.pad(x, (pad,) * 4, mode="replicate"), bank)
    pairs = response.view(len(x), -1, 2, *x.shape[-2:])
    return torch.linalg.vector_norm(pairs, dim=2)


class GaborPadim(Padim):
    extractor = GaborBank()  # type: ignore[assignment]


class GaborPatchcore(Patchcore):
    extractor = GaborBank()  # type: ignore[assignment]


def methods(random: bool) -> dict[str, Method]:
    full = Transform(size=(256, 256))
    # Small pictures' patches are many: a random tenth of them costs little beside the greedy one.
    quick = {"coreset": "random", "image_score": "max"}
    out = {
        "thumbnail-nn": create_method("thumbnail-nn"),
        "PaDiM (Gabor)": GaborPadim(Padim.Config(transform=full, n_channels=70, layers=("1", "2"))),
        "Patchcore (Gabor)": GaborPatchcore(Patchcore.Config(transform=full, layers=("1", "2"), **quick)),
    }
    if random:
        out["PaDiM (random ResNet-18)"] = create_method("padim", weights="random")
        out["Patchcore (random ResNet-18)"] = create_method("patchcore", backbone="resnet18", weights="random", **quick)
    return out


def auroc(method: Method, category: Category) -> tuple[float, dict[str, float]]:
    method.fit(category.train, seed=0)
    test = category.test
    scores = method.predict(test).image_scores
    types = np.array([sample.defect_type for sample in test])
    by_type = {
        kind: 100 * float(roc_auc_score(types[keep] == kind, scores[keep]))
        for kind in category.defect_types
        for keep in [(types == kind) | (types == "good")]
    }
    return 100 * float(roc_auc_score(types != "good", scores)), by_type


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--good", type=int, default=40)
    parser.add_argument("--defective", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    counts = Counts(train=options.train, good=options.good, defective=options.defective)
    names = list(methods(options.random))
    rows = []
    start = time.perf_counter()
    for task in options.tasks:
        figures: dict[str, list[float]] = {name: [] for name in names}
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder) / "line"
                generate(root, tasks=[task], counts=counts, seed=seed, jobs=options.jobs)
                category = load_dataset(root)[task]
                for name, method in methods(options.random).items():
                    value, by_type = auroc(method, category)
                    figures[name].append(value)
                    detail = ", ".join(f"{kind} {v:.0f}" for kind, v in by_type.items())
                    print(f"{task} seed {seed} {name}: {value:.1f} ({detail})", flush=True)
        means = [float(np.mean(figures[name])) for name in names]
        study = " | ".join(f"{value:.1f}" for value in STUDY[task])
        rows.append(f"| {task} | " + " | ".join(f"{value:.1f}" for value in means) + f" | {study} |")
    head = f"| task | {' | '.join(names)} | study: PaDiM | study: Patchcore |"
    rule = "|---|" + "---|" * (len(names) + 2)
    table = "\n".join([head, rule, *rows])
    print(table)
    print(f"{time.perf_counter() - start:.0f} s")
    if options.write:
        seeds = ", ".join(map(str, options.seeds))
        text = f"""# Difficulty of the synthetic line

Image AUROC in %, mean over the line's seeds {seeds}; {options.train} training, {options.good} good and
{options.defective} defective test pictures a task, default knobs. PaDiM and Patchcore run on a hand-made bank of Gabor
filters at 256×256 (70 channels, no learned weights), Patchcore with a random tenth of the patches and the plain
maximum as image score; the study's columns (Table 6, ImageNet weights, real pictures) are the profile aimed at.

{table}

Measured {date.today().isoformat()} with andon {andon.__version__}, torch {torch.__version__}, Python
{platform.python_version()} by `python benchmarks/synthetic_difficulty.py`.
"""
        target = Path(__file__).parent / "results" / "synthetic_difficulty.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
