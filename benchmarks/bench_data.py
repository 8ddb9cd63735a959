"""Opening large data sets, decoding, and the caches, each beside the plain way. ``python benchmarks/bench_data.py``.

Writes benchmarks/results/data.md. The images are made here: 1000×750 RGB PNGs as in three of AutoVI's categories.
"""

from __future__ import annotations

import datetime
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageFilter

from andon.data import ArrayCache, Images, Transform, category_fingerprint, dataset_info, load_dataset, read_image
from andon.data import images as images_module
from andon.data.images import ImageMemory

N_FILES, N_IMAGES = 100_000, 48
TRANSFORM = Transform()


def seconds(function: Callable[[], object], repeats: int = 3) -> float:
    """The shortest of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def make_images(root: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = []
    for i in range(N_IMAGES):
        noise = Image.fromarray(generator.integers(0, 256, (94, 125, 3), dtype=np.uint8))
        smooth = noise.resize((1000, 750), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))
        grain = generator.normal(0, 2, (750, 1000, 3))
        path = root / f"train/good/{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)).save(path)
        paths.append(path)
    return paths


def plain(paths: list[Path]) -> torch.Tensor:
    """What a data set's loop usually is: open, convert, resize, normalise, one after the other."""
    rows = []
    for path in paths:
        with Image.open(path) as image:
            small = image.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
        rows.append(np.asarray(small))
    return TRANSFORM.normalise(np.stack(rows))


def batches(paths: list[Path], cache: ArrayCache | None) -> None:
    for _ in Images(paths, cache).batches(TRANSFORM, 16):
        pass


def forget() -> None:
    images_module._memory = ImageMemory(256 * 2**20)


def main() -> None:
    rows: list[tuple[str, float, float | None]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        huge = root / "huge"
        (huge / "train/good").mkdir(parents=True)
        for i in range(N_FILES):
            (huge / f"train/good/{i:06}.png").touch()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        opening = seconds(lambda: load_dataset(huge))
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        listing = seconds(lambda: sorted((huge / "train/good").glob("*.png")))
        rows.append((f"load_dataset, {N_FILES:,} files (baseline: sorted glob)", opening, listing))

        paths = make_images(root / "set")
        decoding = seconds(lambda: [read_image(path) for path in paths])
        naive = seconds(lambda: [np.array(Image.open(path).convert("RGB")) for path in paths])
        rows.append((f"read_image, {N_IMAGES} PNGs of 1000×750 (baseline: Image.open, convert)", decoding, naive))

        loop = seconds(lambda: plain(paths))

        def cold() -> None:
            forget()
            batches(paths, None)

        def from_disk() -> None:
            forget()
            batches(paths, cache)

        cache = ArrayCache(root / "cache")
        rows.append(("batches of 256×256, nothing cached (baseline: plain loop)", seconds(cold), loop))
        from_disk()
        rows.append(("batches, from the cache on disk (baseline: plain loop)", seconds(from_disk), loop))
        rows.append(("batches, from memory (baseline: plain loop)", seconds(lambda: batches(paths, None)), loop))

        features = np.random.default_rng(0).random((1536, 28, 28), dtype=np.float32)
        cache.put("features", "one", (features,))
        np.save(root / "one.npy", features)
        got = seconds(lambda: cache.get("features", "one"), 20)
        loaded = seconds(lambda: np.load(root / "one.npy"), 20)
        rows.append(("get of 1536×28×28 float32, checked (baseline: np.load, unchecked)", got, loaded))

        dataset = load_dataset(root / "set")
        category = dataset["set"]
        looking = seconds(lambda: dataset_info(dataset))
        rows.append((f"dataset_info, {N_IMAGES} images (baseline: decoding alone)", looking, naive))
        hashing = seconds(lambda: category_fingerprint(category))
        rows.append((f"category_fingerprint again, {N_IMAGES} images", hashing, None))

    lines = [
        "# Data: opening, decoding, caches",
        "",
        f"{datetime.date.today()}, Python {platform.python_version()}, Pillow {PIL.__version__}, "
        f"NumPy {np.__version__}, torch {torch.__version__}, {cpu()}, {os.cpu_count()} cores.",
        "",
        "| what | Andon, s | baseline, s | baseline ÷ Andon |",
        "|---|---|---|---|",
    ]
    for what, mine, other in rows:
        ratio = "" if other is None else f"{other / mine:.2f}"
        lines.append(f"| {what} | {mine:.4f} | {'' if other is None else f'{other:.4f}'} | {ratio} |")
    lines += ["", f"Opening {N_FILES:,} files adds {memory:.0f} MB of resident memory.", ""]
    (Path(__file__).parent / "results/data.md").write_text("\n".join(lines))
    print("\n".join(lines))


def cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
        names = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or sys.platform


if __name__ == "__main__":
    main()
