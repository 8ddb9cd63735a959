"""Seconds of feature extraction, batch 1: what the default methods take of EfficientNet-Lite, beside ResNet-18.

ResNet-18 stands with the three stages that methods take of it (1 to 3), batch norms folded, channels last, as Andon
runs it. All are timed in turn within one process, so the ratio holds whatever else the machine does. Weights do not
change the times: ResNet-18's are random. With ``--write`` the table goes to benchmarks/results/extraction.md.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import time
from pathlib import Path

import torch

from andon.features import create_extractor

RESULTS = Path(__file__).parent / "results" / "extraction.md"
RESNET = ("resnet18", ("layer1", "layer2", "layer3"), "random")
LITE = {
    "Lite0, rows 3 + 5 (PaDiM, CFlow)": ("efficientnet_lite0", ("row3", "row5"), "imagenet"),
    "Lite0, rows 3 + 5 + 6": ("efficientnet_lite0", ("row3", "row5", "row6"), "imagenet"),
    "Lite0, expanded 3 + 5 + 6 (Patchcore)": (
        "efficientnet_lite0",
        ("expanded3", "expanded5", "expanded6"),
        "imagenet",
    ),
}
SIZES = (256, 384)


@torch.inference_mode()
def medians(size: int, repeats: int) -> dict[str, float]:
    """Median seconds an image of each extractor, which take turns."""
    extractors = {name: create_extractor(*spec) for name, spec in {"ResNet-18": RESNET, **LITE}.items()}
    seconds: dict[str, list[float]] = {name: [] for name in extractors}
    image = torch.rand(1, 3, size, size)
    for i in range(repeats + 2):
        for name, extractor in extractors.items():
            start = time.perf_counter()
            extractor(image)
            if i >= 2:  # the first calls choose kernels and touch memory
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    lines = ["| input | threads | extractor | ms an image | ratio to ResNet-18 |", "|---|---|---|---|---|"]
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for size in SIZES:
            found = medians(size, args.repeats)
            lines += [
                f"| {size}² | {threads} | {name} | {1000 * value:.1f} | {value / found['ResNet-18']:.2f} |"
                for name, value in found.items()
            ]
    table = "\n".join(lines)
    print(table)
    if args.write:
        RESULTS.write_text(
            "# Feature extraction, batch 1\n\n"
            f"{datetime.date.today()}, {platform.machine()}, torch {torch.__version__}, Python "
            f"{platform.python_version()}. `python benchmarks/bench_extraction.py --write`. Medians of {args.repeats} "
            "calls, the extractors in turn within one process.\n\n"
            f"{table}\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
