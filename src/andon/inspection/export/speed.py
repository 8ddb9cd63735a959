"""Speed: latency and throughput of one detector in every runtime, and which is the fastest that agrees."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from andon.core import AndonError, ConfigError, ImageArray, ProgressCallback, no_progress
from andon.inspection.export.agreement import Agreement, compare
from andon.inspection.export.runtimes import OnnxRuntime, OpenVinoRuntime, Runtime, RuntimeName, TorchRuntime, needed
from andon.inspection.export.sources import Source
from andon.inspection.export.writing import write_graph

__all__ = ["RUNTIMES", "Choice", "RuntimeSpeed", "fastest", "measure_speed", "sample_images"]

RUNTIMES: tuple[RuntimeName, ...] = ("torch", "onnxruntime", "openvino")
Choice = Literal["auto", "torch", "onnxruntime", "openvino"]
_WARM_UP = 2
_ROUNDS = 10


@dataclass(frozen=True)
class RuntimeSpeed:
    """How fast a runtime is, from an image in memory to score and map.

    Attributes:
        name: of the runtime.
        title: its name for people.
        p50, p99: latency of one image after the other, milliseconds.
        throughput: images a second with as many callers at a time as there are processors for.
        agreement: with torch; None for torch itself.
        refusal: why it cannot be measured; the figures are NaN then.
    """

    name: RuntimeName
    title: str
    p50: float = math.nan
    p99: float = math.nan
    throughput: float = math.nan
    agreement: Agreement | None = None
    refusal: str = ""

    @property
    def usable(self) -> bool:
        """Whether it runs and says what torch says."""
        return not self.refusal and (self.agreement is None or self.agreement.agrees)


def measure_speed(
    source: Source,
    images: Sequence[tuple[str, ImageArray]],
    *,
    runtimes: Sequence[RuntimeName] = RUNTIMES,
    seconds: float = 3.0,
    callers: int = 1,
    threads: int | None = None,
    progress: ProgressCallback = no_progress,
) -> tuple[RuntimeSpeed, ...]:
    """Measures the runtimes in turns, ten of each, so that whatever slows the machine down slows all of them.

    Args:
        source: the detector.
        images: names and pixels, of one size, in memory; one at least.
        seconds: for latency, and again for throughput, a runtime.
        callers: images at a time for the throughput.
        threads: of one image; torch's own number otherwise, for all runtimes.

    Returns:
        One a runtime, in the order given; one that is not installed or cannot take the detector says why.
    """
    if not images:
        raise ConfigError("there are no images to measure the speed on")
    size = (images[0][1].shape[0], images[0][1].shape[1])
    with tempfile.TemporaryDirectory() as temporary, _torch_threads(threads) as n_threads:
        torch_runtime = TorchRuntime(source)
        ready: dict[RuntimeName, Runtime] = {}
        found: dict[RuntimeName, RuntimeSpeed] = {}
        for name in runtimes:
            try:
                ready[name] = torch_runtime if name == "torch" else _exported(source, size, name, temporary, n_threads)
            except AndonError as error:
                found[name] = RuntimeSpeed(name, _TITLES[name], refusal=str(error))
        agreements = {
            name: None if name == "torch" else compare(torch_runtime, runtime, images, source.thresholds)
            for name, runtime in ready.items()
        }
        latencies = _latencies(ready, images, seconds, progress)
        for number, (name, runtime) in enumerate(ready.items()):
            p50, p99 = np.percentile(latencies[name], [50, 99]) * 1000
            rate = _throughput(runtime, images, seconds, callers)
            progress("throughput", number + 1, len(ready))
            found[name] = RuntimeSpeed(name, runtime.title, float(p50), float(p99), rate, agreements[name])
    return tuple(found[name] for name in runtimes)


def fastest(speeds: Sequence[RuntimeSpeed]) -> RuntimeSpeed:
    """The runtime with the smallest median latency among those that agree with torch.

    Raises:
        ConfigError: there is none.
    """
    usable = [speed for speed in speeds if speed.usable]
    if not usable:
        raise ConfigError("no runtime that was measured runs this detector and agrees with torch")
    return min(usable, key=lambda speed: speed.p50)


def sample_images(size: tuple[int, int], n: int = 4) -> list[tuple[str, ImageArray]]:
    """Images that show nothing: smooth shades with noise. They are for the clock, not for scores that mean anything."""
    rng = np.random.default_rng(0)
    height, width = size
    down, across = np.mgrid[:height, :width]
    shades = 128 + 60 * np.sin(5 * across / width) * np.cos(4 * down / height)
    return [
        (f"shades {i}", (shades[..., None] + rng.normal(0, 8, (height, width, 3))).clip(0, 255).astype(np.uint8))
        for i in range(n)
    ]


_TITLES: dict[RuntimeName, str] = {
    "torch": TorchRuntime.title,
    "onnxruntime": OnnxRuntime.title,
    "openvino": OpenVinoRuntime.title,
}


def _exported(source: Source, size: tuple[int, int], name: RuntimeName, folder: str, threads: int) -> Runtime:
    needed(name)  # before a minute goes into a graph for nothing
    path = Path(folder) / "model.onnx"
    if not path.exists():
        write_graph(source, size, path)
    return OnnxRuntime(path, threads) if name == "onnxruntime" else OpenVinoRuntime(path, threads)


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield threads or before
    finally:
        torch.set_num_threads(before)


def _latencies(
    ready: dict[RuntimeName, Runtime],
    images: Sequence[tuple[str, ImageArray]],
    seconds: float,
    progress: ProgressCallback,
) -> dict[RuntimeName, list[float]]:
    found: dict[RuntimeName, list[float]] = {name: [] for name in ready}
    for round_number in range(_ROUNDS):
        for name, runtime in ready.items():
            around = itertools.cycle(image for _, image in images)
            # Threads of the one before may still wait busily for more, and the caches are another's.
            for image in itertools.islice(around, _WARM_UP):
                runtime.run(image)
            end = time.perf_counter() + seconds / _ROUNDS
            while not found[name] or time.perf_counter() < end:
                image = next(around)
                begun = time.perf_counter()
                runtime.run(image)
                found[name].append(time.perf_counter() - begun)
        progress("latency", round_number + 1, _ROUNDS)
    return found


def _throughput(runtime: Runtime, images: Sequence[tuple[str, ImageArray]], seconds: float, callers: int) -> float:
    """Images a second by ``callers`` threads that each go through the images again and again."""
    begun = time.perf_counter()
    end = begun + seconds

    def call(first: int) -> int:
        n = 0
        while time.perf_counter() < end or n == 0:
            runtime.run(images[(first + n) % len(images)][1])
            n += 1
        return n

    with ThreadPoolExecutor(callers) as pool:
        n = sum(pool.map(call, range(callers)))
    return n / (time.perf_counter() - begun)
