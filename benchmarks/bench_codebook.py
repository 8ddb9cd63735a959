"""Looking vectors up in DSR's codebook (4096 codes of 128 channels): by index, and by the literal one-hot product.

One batch of 4 images of 256×256, fine level: 16,384 vectors. Literal: all distances at once, a one-hot matrix, two
products with it. With ``--write`` the table goes to benchmarks/results/codebook.md.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from andon._tools.seeds import step_generator
from andon.methods.dsr.codebook import VectorQuantizer

RESULTS = Path(__file__).parent / "results" / "codebook.md"
CODES, CHANNELS, REPEATS = 4096, 128, 5


def literal(quantise: VectorQuantizer, inputs: torch.Tensor, *, train: bool) -> torch.Tensor:
    """The quantiser as it is first written down."""
    book = quantise.codebook
    flat = inputs.permute(0, 2, 3, 1).reshape(-1, CHANNELS)
    distances = flat.square().sum(1, keepdim=True) + book.square().sum(1) - 2 * flat @ book.T
    one_hot = F.one_hot(distances.argmin(1), CODES).float()
    if train:
        size = 0.99 * quantise._ema_cluster_size + 0.01 * one_hot.sum(0)
        size = (size + 1e-5) / (size.sum() + CODES * 1e-5) * size.sum()
        quantise._embedding.weight.copy_((0.99 * quantise._ema_w + 0.01 * one_hot.T @ flat) / size[:, None])
    return (one_hot @ book).view(inputs.shape[0], *inputs.shape[2:], CHANNELS).permute(0, 3, 1, 2)


def milliseconds(work: Callable[[], object]) -> float:
    work()
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return 1e3 * best


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    quantise = VectorQuantizer(CODES, CHANNELS)
    inputs = torch.randn((4, CHANNELS, 64, 64), generator=step_generator(0))
    rows, before = [], peak()
    for train in (False, True):
        quantise.train(train)
        fast, after_fast = milliseconds(lambda: quantise(inputs)), peak()  # the frugal one first: peaks only grow
        slow, after = milliseconds(lambda train=train: literal(quantise, inputs, train=train)), peak()
        rows.append((("training" if train else "look-up"), slow, fast, after - after_fast, after_fast - before))
        before = after
    processor = next((n for n in Path("/proc/cpuinfo").read_text().splitlines() if n.startswith("model name")), "")
    lines = [
        "# Codebook look-up: by index against the one-hot product",
        "",
        f"{datetime.date.today()}, {processor.partition(':')[2].strip() or platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; 16,384 vectors, 4096 codes of 128 channels; "
        f"best of {REPEATS}. Memory: how much the peak of the process rose.",
        "",
        "| | one-hot | by index | ratio | one-hot, peak | by index, peak |",
        "|---|---|---|---|---|---|",
    ]
    for name, slow, fast, slow_memory, fast_memory in rows:
        memory = f"+{slow_memory:.0f} MB | +{fast_memory:.0f} MB"
        lines.append(f"| {name} | {slow:.0f} ms | {fast:.0f} ms | {slow / fast:.1f}× | {memory} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
