"""Peak memory of decoding large images and masks, each in a process of its own.

``python benchmarks/bench_decode_memory.py [--side 8000]`` writes benchmarks/results/decode_memory.md. The images are
made here. What is measured is the process's peak above what it had before (VmHWM, reset through /proc/self/clear_refs:
Linux only), beside the bytes of the pixels as RGB uint8.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image

from andon.data import read_image, read_mask
from andon.data.decode import DECODING_BYTES, read_resized

SIDE = int(sys.argv[2]) if len(sys.argv) > 2 else 8000
Image.MAX_IMAGE_PIXELS = None


def picture(channels: int = 3) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (SIDE // 50, SIDE // 50, channels), dtype=np.uint8)
    large = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return large.reshape(SIDE, SIDE, channels)


def deep() -> np.ndarray:
    return picture().astype(np.uint16) * 257


def pillow(path: Path, image: np.ndarray, mode: str | None = None, **options: object) -> None:
    made = Image.fromarray(image.squeeze())
    (made.convert(mode) if mode else made).save(path, **options)


MAKERS: dict[str, Callable[[Path], None]] = {
    "rgb.png": lambda p: pillow(p, picture()),
    "rgba.png": lambda p: pillow(p, picture(4)),
    "grey.png": lambda p: pillow(p, picture(1)),
    "palette.png": lambda p: pillow(p, picture(1), "P"),
    "baseline.jpg": lambda p: pillow(p, picture(), quality=90),
    "turned.jpg": lambda p: pillow(p, picture(), quality=90, exif=_turned()),
    "cmyk.jpg": lambda p: pillow(p, picture(), "CMYK", quality=90),
    "progressive.jpg": lambda p: pillow(p, picture(), quality=90, progressive=True),
    "rgb.bmp": lambda p: pillow(p, picture()),
    "lossy.webp": lambda p: pillow(p, picture(), quality=80, method=0),
    "lossless.webp": lambda p: pillow(p, picture(), lossless=True, method=0, quality=0),
    "rgb.tif": lambda p: tifffile.imwrite(p, picture(), photometric="rgb"),
    "lzw.tif": lambda p: pillow(p, picture(), compression="tiff_lzw"),
    "grey16.png": lambda p: _written(p, deep()[..., 0]),
    "grey16.tif": lambda p: tifffile.imwrite(p, deep()[..., 0], photometric="minisblack"),
    "rgb16.png": lambda p: _written(p, deep()),
    "rgb16.tif": lambda p: tifffile.imwrite(p, deep(), photometric="rgb"),
    "rgb16_deflate.tif": lambda p: tifffile.imwrite(p, deep(), photometric="rgb", compression="zlib", rowsperstrip=64),
    "mask_rgb.png": lambda p: pillow(p, np.repeat(_mask()[..., None], 3, axis=2)),
    "mask_grey.png": lambda p: pillow(p, _mask()),
    "mask_grey16.png": lambda p: _written(p, _mask().astype(np.uint16) * 257),
}


def _written(path: Path, image: np.ndarray) -> None:
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def _mask() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[100:900, 100:900] = 255
    return mask


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


# --- in a process of its own ------------------------------------------------------------------------------------------


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(field)


def measure(how: str, path: Path) -> int:
    """Peak bytes above what the process has."""
    ways: dict[str, Callable[[], object]] = {
        "full": lambda: read_image(path),
        "256": lambda: read_resized(path, (256, 256)),
        "mask": lambda: read_mask(path),
        "4 threads": lambda: _threads(path),
    }
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _memory("VmRSS")
    ways[how]()
    return _memory("VmHWM") - before


def _threads(path: Path) -> None:
    threads = [threading.Thread(target=read_resized, args=(path, (256, 256))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    pixels = SIDE * SIDE * 3
    lines = [
        f"Images of {SIDE}×{SIDE}: {pixels / 2**20:.0f} MiB as RGB uint8. Peak above the process before, MiB, and its",
        "ratio to the pixels as RGB.",
        "",
        "| file | read as | peak, MiB | ratio |",
        "|---|---|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, make in MAKERS.items():
            path = Path(folder) / name
            make(path)
            ways = ["mask"] if name.startswith("mask") else ["full", "256"]
            if name in ("rgb.png", "rgb16.tif", "grey.png", "progressive.jpg"):
                ways.append("4 threads")
            for how in ways:
                command = [sys.executable, __file__, "--measure", str(SIDE), how, str(path)]
                peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                lines.append(f"| {name} | {how} | {peak / 2**20:.0f} | {peak / pixels:.2f} |")
                print(lines[-1], flush=True)
            path.unlink()
    lines += ["", f"All threads of a process together: {DECODING_BYTES / 2**20:.0f} MiB are shared out."]
    target = Path(__file__).parent / "results" / "decode_memory.md"
    target.write_text("# Memory of decoding\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--measure":
        print(measure(sys.argv[3], Path(sys.argv[4])))
    else:
        main()
