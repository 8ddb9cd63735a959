"""Patchcore inference with Wide-ResNet-50-2 and a memory bank of 10,240 × 1,536, beside the plain computation.

    python benchmarks/bench_patchcore.py [--threads N] [--repeat N] [--write]

The bank is drawn from features of textured images (orthogonal weights: speed does not depend on the weights).
``plain`` is what implementations commonly do: the network with its batch norms, features upsampled and concatenated,
‖q‖² − 2q·b + ‖b‖² as one matrix with the bank's norms computed anew, its root, then minimum and map. Times are the
smallest of several alternating runs, as other work on a machine only ever adds to them.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from andon.features.resnet import ARCHITECTURES, ResNet
from andon.methods import create_method
from andon.methods.patchcore import PatchcoreDetector
from andon.methods.patchcore.embedding import embed
from andon.weights.initialisation import orthogonal_initialisation
from bench_coreset import processor, textured

RESULTS = Path(__file__).with_name("results") / "patchcore.md"
BANK = 10_240


def make_detector(size: int, crop: int | None) -> PatchcoreDetector:
    transform = {"size": (size, size), "crop": None if crop is None else (crop, crop)}
    method = create_method("patchcore", weights="random", transform=transform, coreset="random", coreset_size=BANK)
    detector = method.fit(list(textured(16, size, seed=1)))
    assert isinstance(detector, PatchcoreDetector)
    return detector


class Plain:
    """The same scores, computed plainly."""

    def __init__(self, detector: PatchcoreDetector) -> None:
        self.network = ResNet(ARCHITECTURES["wide_resnet50_2"], last_stage=3)
        orthogonal_initialisation(self.network, 0)
        self.network.eval()
        self.bank = detector.bank.centred + detector.bank.mean
        self.size = detector.transform.output_size

    def backbone(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.network.stages(batch, (2, 3))

    def embed(self, features: tuple[torch.Tensor, ...]) -> torch.Tensor:
        fine, coarse = (F.avg_pool2d(f, 3, 1, 1) for f in features)
        maps = torch.cat([fine, F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear")], dim=1)
        return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])

    def distances(self, queries: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
        squared = queries.square().sum(1, keepdim=True) - 2 * queries @ bank.T + bank.square().sum(1)
        return squared.clamp_min(0).sqrt()

    def scores(self, features: tuple[torch.Tensor, ...]) -> tuple[list[float], np.ndarray]:
        queries = self.embed(features)
        table = self.distances(queries, self.bank)
        batch, height, width = len(features[0]), *features[0].shape[-2:]
        nearest, memories = table.min(dim=1)
        out = []
        for i, rows in enumerate(nearest.view(batch, -1)):
            worst = int(rows.argmax()) + i * height * width
            around = self.distances(self.bank[memories[worst]][None], self.bank)[0].topk(9, largest=False).indices
            weight = 1 - torch.softmax(self.distances(queries[worst][None], self.bank[around])[0].double(), 0)[0]
            out.append(float(weight * nearest[worst]))
        maps = F.interpolate(nearest.view(batch, 1, height, width), size=self.size, mode="bilinear")[:, 0]
        return out, gaussian_filter(maps.numpy(), (0, 4, 4))


def smallest(works: dict[str, Callable[[], object]], repeat: int) -> dict[str, tuple[float, float]]:
    """(wall, CPU) milliseconds of each, the smallest of ``repeat`` alternating runs."""
    best = {name: (float("inf"), float("inf")) for name in works}
    for _ in range(repeat + 1):
        for name, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            spent = (1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu))
            best[name] = (min(best[name][0], spent[0]), min(best[name][1], spent[1]))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS}")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = [
        f"# Patchcore inference, Wide-ResNet-50-2, bank {BANK:,} × 1,536, batch 1",
        "",
        f"{datetime.date.today()}, {processor()}, {options.threads} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}. `python benchmarks/bench_patchcore.py --write`.",
        "Milliseconds an image, smallest of the runs. Scores: largest relative difference to the plain computation, "
        "and of the patch distances to float64.",
        "",
        "| input | step | andon wall | plain wall | ratio | andon CPU | plain CPU | difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for label, size, crop in (("256², centre crop 224", 256, 224), ("256²", 256, None)):
        detector = make_detector(size, crop)
        plain = Plain(detector)
        test = np.stack([detector.transform.resize(image) for image in textured(4, size, seed=2)])
        batch = detector.transform.normalise(test)
        one = batch[:1]
        with torch.inference_mode():
            features = detector.extractor(one)
            parts = detector.parts(features)
            queries = plain.embed(features)
            timings = smallest(
                {
                    "andon backbone": lambda one=one, detector=detector: detector.extractor(one),
                    "plain backbone": lambda one=one, plain=plain: plain.backbone(one),
                    "andon neighbours": lambda parts=parts, detector=detector: detector.bank.nearest(parts),
                    "plain neighbours": lambda q=queries, plain=plain: plain.distances(q, plain.bank).min(dim=1),
                    "andon whole": lambda one=one, detector=detector: detector.predict_batch(one),
                    "plain whole": lambda one=one, plain=plain: plain.scores(plain.backbone(one)),
                },
                options.repeat,
            )
            prediction = detector.predict_batch(batch)
            expected, maps = plain.scores(plain.backbone(batch))
            exact = torch.cdist(embed(parts).double(), plain.bank.double()).amin(dim=1)
            found = detector.bank.nearest(parts)[0][0]
        assert prediction.anomaly_maps is not None
        differences = {
            "backbone": "",
            "neighbours": f"{float(((found - exact) / exact).abs().max()):.1e}",
            "whole": f"scores {float(np.abs(prediction.image_scores / expected - 1).max()):.1e}, "
            f"maps {float(np.abs(prediction.anomaly_maps / maps - 1).max()):.1e}",
        }
        for step, difference in differences.items():
            (ours, our_cpu), (theirs, their_cpu) = timings[f"andon {step}"], timings[f"plain {step}"]
            lines.append(
                f"| {label} | {step} | {ours:.0f} | {theirs:.0f} | {theirs / ours:.2f} | {our_cpu:.0f} "
                f"| {their_cpu:.0f} | {difference} |"
            )
            print(lines[-1], flush=True)
    if options.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
