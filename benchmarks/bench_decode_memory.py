"""Peak memory of decoding large images and masks, each in a process of its own.

``python benchmarks/bench_decode_memory.py [--side 5000]`` writes benchmarks/results/decode_memory.md. The images are
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

from andon.data import decode, read_image, read_mask
from andon.data.decode import read_resized

SIDE = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
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


def turned_tiff(path: Path, **options: object) -> None:
    tifffile.imwrite(path, picture(), photometric="rgb", extratags=[(274, "H", 1, 6, True)], **options)


MAKERS: dict[str, Callable[[Path], None]] = {
    "rgb.png": lambda p: pillow(p, picture(), compress_level=1),
    "rgba.png": lambda p: pillow(p, picture(4), compress_level=1),
    "grey_alpha.png": lambda p: pillow(p, picture(2), compress_level=1),
    "grey.png": lambda p: pillow(p, picture(1), compress_level=1),
    "bits.png": lambda p: pillow(p, picture(1), "1"),
    "palette.png": lambda p: pillow(p, picture(1), "P", compress_level=1),
    "palette_alpha.png": lambda p: pillow(p, picture(1), "P", compress_level=1, transparency=bytes(range(256))),
    "turned.png": lambda p: pillow(p, picture(), compress_level=1, exif=_turned()),
    "grey_turned.png": lambda p: pillow(p, picture(1), compress_level=1, exif=_turned()),
    "grey16.png": lambda p: _written(p, deep()[..., 0]),
    "grey16_turned.png": lambda p: Image.fromarray(deep()[..., 0]).save(p, compress_level=1, exif=_turned()),
    "rgb16.png": lambda p: _written(p, deep()),
    "rgba16.png": lambda p: _written(p, np.dstack([deep(), deep()[..., 0]])),
    "baseline.jpg": lambda p: pillow(p, picture(), quality=90),
    "grey.jpg": lambda p: pillow(p, picture(1), quality=90),
    "turned.jpg": lambda p: pillow(p, picture(), quality=90, exif=_turned()),
    "cmyk.jpg": lambda p: pillow(p, picture(), "CMYK", quality=90),
    "progressive.jpg": lambda p: pillow(p, picture(), quality=90, progressive=True),
    "progressive_444.jpg": lambda p: pillow(p, picture(), quality=90, progressive=True, subsampling=0),
    "rgb.bmp": lambda p: pillow(p, picture()),
    "rgb.ppm": lambda p: pillow(p, picture()),
    "palette.gif": lambda p: pillow(p, picture(1), "P"),
    "lossy.webp": lambda p: pillow(p, picture(), quality=80, method=0),
    "lossy_alpha.webp": lambda p: pillow(p, picture(4), quality=80, method=0),
    "lossless.webp": lambda p: pillow(p, picture(), lossless=True, method=0, quality=0),
    "lossless_alpha.webp": lambda p: pillow(p, picture(4), lossless=True, method=0, quality=0),
    "rgb.tif": lambda p: tifffile.imwrite(p, picture(), photometric="rgb"),
    "turned.tif": turned_tiff,
    "lzw.tif": lambda p: pillow(p, picture(), compression="tiff_lzw"),
    "deflate_turned.tif": lambda p: turned_tiff(p, compression="zlib", rowsperstrip=64),
    "deflate_one_strip.tif": lambda p: tifffile.imwrite(p, picture(), photometric="rgb", compression="zlib"),
    "deflate_one_strip_turned.tif": lambda p: turned_tiff(p, compression="zlib", rowsperstrip=SIDE),
    "jpeg.tif": lambda p: pillow(p, picture(), compression="jpeg"),
    "cmyk_lzw.tif": lambda p: pillow(p, picture(), "CMYK", compression="tiff_lzw"),
    "planar.tif": lambda p: tifffile.imwrite(
        p, np.moveaxis(picture(), 2, 0).copy(), photometric="rgb", planarconfig="separate"
    ),
    "palette_lzw.tif": lambda p: pillow(p, picture(1), "P", compression="tiff_lzw"),
    "grey16.tif": lambda p: tifffile.imwrite(p, deep()[..., 0], photometric="minisblack"),
    "rgb16.tif": lambda p: tifffile.imwrite(p, deep(), photometric="rgb"),
    "rgb16_deflate.tif": lambda p: tifffile.imwrite(p, deep(), photometric="rgb", compression="zlib", rowsperstrip=64),
    "rgb16_one_strip.tif": lambda p: tifffile.imwrite(
        p, deep(), photometric="rgb", compression="zlib", rowsperstrip=SIDE
    ),
    "rgb.jp2": lambda p: pillow(p, picture(), irreversible=True, quality_mode="rates", quality_layers=[20]),
    "grey.jp2": lambda p: pillow(p, picture(1), irreversible=False),
    "mask_rgb.png": lambda p: pillow(p, np.repeat(_mask()[..., None], 3, axis=2)),
    "mask_rgba.png": lambda p: pillow(p, _mask_alpha()),
    "mask_grey.png": lambda p: pillow(p, _mask()),
    "mask_palette.png": lambda p: pillow(p, _mask(), "P"),
    "mask_grey16.png": lambda p: _written(p, _mask().astype(np.uint16) * 257),
    "mask_rgb16.png": lambda p: _written(p, np.repeat(_mask()[..., None].astype(np.uint16) * 257, 3, axis=2)),
    "mask_rgba16.png": lambda p: _written(p, _mask_alpha().astype(np.uint16) * 257),
    "mask_alpha.webp": lambda p: pillow(p, _mask_alpha(), lossless=True, method=0, quality=0),
    "mask.webp": lambda p: pillow(p, np.repeat(_mask()[..., None], 3, axis=2), lossless=True, method=0, quality=0),
    "mask_grey.tif": lambda p: pillow(p, _mask(), compression="tiff_lzw"),
    "mask_rgba.tif": lambda p: pillow(p, _mask_alpha(), compression="tiff_lzw"),
    "mask.jpg": lambda p: pillow(p, _mask(), quality=95),
    "mask_rgb.jp2": lambda p: pillow(p, np.repeat(_mask()[..., None], 3, axis=2), irreversible=False),
    "mask.gif": lambda p: pillow(p, _mask()),
}


def _mask_alpha() -> np.ndarray:
    return np.dstack([np.repeat(_mask()[..., None], 3, axis=2), np.full((SIDE, SIDE), 255, np.uint8)])


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


def measure(how: str, path: Path) -> tuple[int, int]:
    """Peak bytes above what the process has, and those that the budget counts for it."""
    ways: dict[str, Callable[[], object]] = {
        "image": lambda: read_image(path),
        "256": lambda: read_resized(path, (256, 256)),
        "mask": lambda: read_mask(path, any_value=True),
        "4 threads": lambda: _threads(path),
    }
    counted: list[int] = []
    held = decode._budget.held
    decode._budget.held = lambda cost: counted.append(cost) or held(cost)  # type: ignore[method-assign, func-returns-value]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _memory("VmRSS")
    ways[how]()
    return _memory("VmHWM") - before, max(counted)


def _threads(path: Path) -> None:
    threads = [threading.Thread(target=read_resized, args=(path, (256, 256))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def ways_of(name: str) -> list[str]:
    if name.startswith("mask"):
        return ["mask"]
    threads = name in ("rgb.png", "rgb16.tif", "grey.png", "progressive.jpg", "rgb.jp2", "rgb16_one_strip.tif")
    return ["image", "256", "4 threads"] if threads else ["image", "256"]


def main() -> None:
    pixels = SIDE * SIDE * 3
    lines = [
        f"Images of {SIDE}×{SIDE}: {pixels / 2**20:.0f} MiB as RGB uint8. Peak of a process of its own above what it",
        "had before, its ratio to the pixels as RGB (of masks too, which are a third of that), and what the budget",
        "that all threads share counts for one, MiB: it must not be less than the peak.",
        "",
        "| file | read as | peak, MiB | ratio | counted, MiB |",
        "|---|---|---:|---:|---:|",
    ]
    too_little = []
    with tempfile.TemporaryDirectory() as folder:
        for name, make in MAKERS.items():
            path = Path(folder) / name
            make(path)
            for how in ways_of(name):
                command = [sys.executable, __file__, "--measure", str(SIDE), how, str(path)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                peak, counted = map(int, done.stdout.split())
                lines.append(f"| {name} | {how} | {peak / 2**20:.0f} | {peak / pixels:.2f} | {counted / 2**20:.0f} |")
                print(lines[-1], flush=True)
                if peak > (decode.DECODING_BYTES if how == "4 threads" else counted):
                    too_little.append(f"{name} as {how}")
            path.unlink()
    lines += ["", f"All threads of a process together: {decode.DECODING_BYTES / 2**20:.0f} MiB are shared out."]
    lines += ["", f"More than counted: {', '.join(too_little) or 'none'}."]
    print(lines[-1])
    target = Path(__file__).parent / "results" / "decode_memory.md"
    target.write_text("# Memory of decoding\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(bool(too_little))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--measure":
        print(*measure(sys.argv[3], Path(sys.argv[4])))
    elif len(sys.argv) > 1 and sys.argv[1] == "--make":
        MAKERS[sys.argv[3]](Path(sys.argv[4]))
    else:
        main()
