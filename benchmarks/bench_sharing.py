"""What seeds and few-shot sizes share: eight seeds against one, and a few-shot curve against one run of the largest.

python benchmarks/bench_sharing.py [--train 198 --test 326] [--preset study] [--size 256]

Each line is ``run_plan`` into a new store with an empty cache, one experiment at a time, wall seconds, on the synthetic
line's pipe_staple. Preset "study" has the study's backbones with random weights, from files as ImageNet's would be: the
same cost, and no figures worth looking at. Targets: eight seeds of Patchcore and PaDiM cost at most 2.5 times one seed,
and the whole few-shot curve of Patchcore (Figure 5: 1 to 64 images and all, eight draws each) at most 3 times one run
on all images. What an experiment costs beside features (its process, the weights' file, the speed that is measured once
a method) weighs the more the fewer images there are: with a dozen neither target can be met.

Beside the seconds: how many images' features were computed (entries in the cache), against how many images there are.
Features are shared; distances to neighbours cannot be, because every draw and every seed has a memory bank of its own.
An adapted extractor ("designed") is another one for every draw, and is fitted anew for each.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from _trainings import machine
from andon._tools.networks import unfilled
from andon.benchmark import load_plan, run_plan
from andon.benchmark.plan import MethodEntry, Plan, PlanContent
from andon.benchmark.record import Protocol
from andon.benchmark.study import SHOTS, few_shot_entries
from andon.features.resnet import ARCHITECTURES, ResNet
from andon.synthetic import Counts, generate

TASK = "pipe_staple"


def random_weights(backbone: str, folder: Path) -> str:
    """A file of a backbone's weights, drawn at random."""
    network = unfilled(lambda: ResNet(ARCHITECTURES[backbone], last_stage=3))
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 4:
            state[name] = torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5
        else:
            state[name] = torch.zeros_like(tensor) if name.endswith(("mean", "bias")) else torch.ones_like(tensor)
    path = folder / f"{backbone}.safetensors"
    save_file(state, path)
    return str(path)


def plan_of(entries: Sequence[MethodEntry], seeds: int, data: Path) -> Plan:
    content = PlanContent.model_validate(
        {"datasets": [str(data)], "methods": list(entries), "seeds": seeds, "protocol": Protocol()}
    )
    return replace(load_plan("demo"), name="sharing", content=content, source="", lines={}, base=Path.cwd())


def measured(entries: Sequence[MethodEntry], seeds: int, data: Path, threads: int) -> tuple[float, int, int, int]:
    """Seconds, experiments, computed features, extractors."""
    plan = plan_of(entries, seeds, data)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        summary = run_plan(plan, Path(folder) / "store", jobs=1, threads=threads)
        seconds = time.perf_counter() - start
        assert not summary.failed, summary.failed[0].reason
        kinds = list((Path(folder) / "store" / "cache").glob("features-*"))
        computed = sum(1 for kind in kinds for _ in kind.rglob("*.arrays"))
        return seconds, len(summary.finished), computed, len(kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=198)
    parser.add_argument("--test", type=int, default=326)
    parser.add_argument("--preset", choices=("study", "designed"), default="study")
    parser.add_argument("--size", type=int, help="side of the images; the preset's otherwise")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    own = {"transform": {"size": (given.size, given.size)}} if given.size else {}
    shots = [n for n in SHOTS if n is None or n < given.train]
    with tempfile.TemporaryDirectory() as folder:
        entries = []
        for method, backbone in (("patchcore", "wide_resnet50_2"), ("padim", "resnet18")):
            weights = {"weights": random_weights(backbone, Path(folder))} if given.preset == "study" else {}
            entries.append(MethodEntry(method=method, preset=given.preset, config={**weights, **own}))
        patchcore, padim = entries
        curve = few_shot_entries(patchcore, shots, given.seeds)
        data = Path(folder) / "line"
        half = given.test // 2
        counts = Counts(train=given.train, good=given.test - half, defective=half)
        generate(data, tasks=[TASK], counts=counts, jobs=1)
        measured([MethodEntry(method="thumbnail-nn")], 1, data, given.threads)  # imports and reads everything once
        one = measured([patchcore, padim], 1, data, given.threads)
        all_seeds = measured([patchcore, padim], given.seeds, data, given.threads)
        largest = measured([patchcore], 1, data, given.threads)
        whole = measured(curve, given.seeds, data, given.threads)
    print(machine().replace("thread(s)", "thread(s) here"), f"Load {os.getloadavg()[0]:.1f}.")
    print(f"\nPreset {given.preset}{f', {given.size} pixels' if given.size else ''}, {given.threads} thread(s) an")
    print(f"experiment; {given.train} training and {given.test} test images: {given.train + given.test} in all.\n")
    print("| | experiments | extractors | features computed | s | ratio | target |\n|---|---|---|---|---|---|---|")
    rows = (
        ("Patchcore and PaDiM, one seed", one, None, ""),
        (f"Patchcore and PaDiM, {given.seeds} seeds", all_seeds, one, "2.5"),
        ("Patchcore, all images, one seed", largest, None, ""),
        (f"Patchcore, {len(shots)} sizes × {given.seeds} draws", whole, largest, "3"),
    )
    for name, (seconds, experiments, computed, extractors), base, target in rows:
        ratio = "1" if base is None else f"{seconds / base[0]:.2f}"
        print(f"| {name} | {experiments} | {extractors} | {computed} | {seconds:.1f} | {ratio} | {target} |")


if __name__ == "__main__":
    main()
