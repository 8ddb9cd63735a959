"""How fast is each method's detector in torch, ONNX Runtime and OpenVINO, and do they say the same? (``andon[bench]``)

Each method learns good images of a rendered task on its defaults, shortened where it is trained: neither changes how
long an image takes. The whole chain is exported and measured, from a uint8 image in memory to score and map. Decisions
are compared at a threshold halfway between the highest score of a good image that was not learned from and the next one
above it. ``--write`` renews results/runtimes.md.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from andon import create_method, load_dataset
from andon.core import Category, DetectorError
from andon.inspection import RuntimeSpeed, Source, export_model, fastest, measure_speed
from andon.methods import Detector, method_names
from andon.synthetic import Counts, generate

RESULT = Path(__file__).parent / "results" / "runtimes.md"
BUDGETS = {"cflow": 0.02, "draem": 0.01, "dsr": 0.02, "efficientad": 0.005}
N_TRAIN = 12
RATIO, N_METHODS = 1.5, 3


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def learned(name: str, category: Category) -> Source:
    budget = {"budget": BUDGETS[name]} if name in BUDGETS else {}
    detector = create_method(name, **budget).fit(category, seed=0)
    return Source.of(detector, thresholds={"stop": threshold(detector, category)})


def measured(source: Source, category: Category, seconds: float) -> tuple[RuntimeSpeed, ...]:
    images = [(sample.id, sample.image()) for sample in (*category.train, *category.test)]
    return measure_speed(source, images, seconds=seconds, callers=1, threads=1)


def int8_loss(source: Source, category: Category, folder: Path) -> str:
    """What int8 changes in a score, and how many decisions, on all images."""
    try:
        report = export_model(source, folder / "int8.onnx", [*category.train, *category.test], int8=True)
    except DetectorError as error:
        return f"– ({str(error).partition(': ')[2]})"
    found = report.agreement
    return f"{found.median:.0e} / {found.worst:.0e}, {len(found.changed)} of {len(found.names)}"


def threshold(detector: Detector, category: Category) -> float:
    scores = detector.predict(category.test).image_scores
    highest = max(s for s, sample in zip(scores, category.test, strict=True) if not sample.is_defective)
    return float(np.mean([highest, min(scores[scores > highest], default=1.1 * highest)]))


def cell(speed: RuntimeSpeed) -> str:
    return f"– ({speed.refusal})" if speed.refusal else f"{speed.p50:.1f} / {speed.p99:.1f}"


def agreement(speed: RuntimeSpeed) -> str:
    if speed.agreement is None:
        return "–"
    found = speed.agreement
    return f"{found.worst:.0e}" + (f", {len(found.changed)} decided otherwise" if found.changed else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--method", action="append")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows, ratios = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "line"
        generate(folder, tasks=["pipe_staple"], counts=Counts(train=N_TRAIN, good=4, defective=4), jobs=1)
        category = load_dataset(folder)["pipe_staple"]
        height, width = category.train[0].size()
        for name in options.method or method_names():
            source = learned(name, category)
            torch_, ort, openvino = speeds = measured(source, category, options.seconds)
            best = fastest(speeds)
            ratios[name] = torch_.p50 / best.p50
            cells = [cell(torch_), cell(ort), cell(openvino), agreement(ort), agreement(openvino)]
            loss = int8_loss(source, category, Path(temporary))
            rows.append(f"| {name} | {' | '.join(cells)} | {best.title}, {ratios[name]:.1f}× | {loss} |")
            print(rows[-1], flush=True)
    reached = sum(ratio >= RATIO for ratio in ratios.values())
    lines = [
        "# Runtimes",
        "",
        f"{processor()}, one thread; torch {torch.__version__}, ONNX Runtime {version('onnxruntime')}, OpenVINO "
        f"{version('openvino')}. RGB uint8 images {height}×{width}, one at a time, default configurations, "
        f"{N_TRAIN} training images. Latency p50 / p99 in ms, from the image in memory to score and map; differences "
        f"are the largest relative ones of a score to torch's over {N_TRAIN + 8} images.",
        "",
        "| method | torch | ONNX Runtime | OpenVINO | ONNX Runtime differs | OpenVINO differs | fastest | int8 |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"At least {RATIO}× torch: {reached} of {len(rows)} methods (wanted: {N_METHODS}). Decisions are identical "
        "unless a row says otherwise.",
        "",
        "int8: relative difference of a score, median / largest, and images decided otherwise; convolutions quantised "
        "by ONNX Runtime, ranges measured on the same images.",
    ]
    print(lines[-3])
    if options.write:
        RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
