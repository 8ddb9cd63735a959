"""Decoding in little memory gives what decoding in much gave, and stays within its bound."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from andon.core import AndonError
from andon.data import _pixels, decode, read_image
from andon.data.decode import decode_image, read_resized
from tests.data.images import png16

KINDS = [
    ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "L"), ("PNG", "P"), ("PNG", "1"),
    ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("BMP", "RGB"), ("WEBP", "RGB"), ("WEBP", "RGBA"),
    ("TIFF", "RGB"), ("TIFF", "RGBA"), ("TIFF", "CMYK"), ("TIFF", "YCbCr"), ("GIF", "P"), ("PPM", "RGB"),
]  # fmt: skip


def smooth(height: int = 61, width: int = 47, channels: int = 3) -> np.ndarray:
    noise = np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5)


def encoded(kind: str, mode: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(smooth()).convert(mode).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("rows", [1, 40, 10**6])
@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_as_pillow_converts_in_one_go(
    kind: str, mode: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pixels, "_ROWS_PIXELS", rows)
    path = tmp_path / "x"
    path.write_bytes(encoded(kind, mode))
    with Image.open(path) as image:
        expected = image.convert("L").convert("RGB") if mode == "LA" else image.convert("RGB")
    found = read_image(path)
    np.testing.assert_array_equal(found, np.asarray(expected))
    assert found.flags.writeable
    for size in ((16, 20), (90, 100), (61, 47)):
        small = np.asarray(expected.resize(size[::-1], Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(read_resized(path, size), small)


@pytest.mark.parametrize("piece", [1, 3000, 2**22])
def test_sixteen_bit_colour_in_pieces(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("andon.data._deep_colour._PIECE_BYTES", piece)
    values = np.random.default_rng(0).integers(0, 65536, (45, 33, 3), dtype=np.uint16)
    values[10:20] = np.arange(33, dtype=np.uint16)[:, None] * 900
    expected = ((values.astype(np.uint64) * 255 + 32767) // 65535).astype(np.uint8)
    files = {"png16": png16(values)}
    for name, image in (("rgb", values[..., ::-1]), ("rgba", np.dstack([values[..., ::-1], values[..., :1]]))):
        files[name] = cv2.imencode(".png", image)[1].tobytes()  # with filters that refer to the row above
        files[f"{name} tiff"] = cv2.imencode(".tiff", image)[1].tobytes()
    for order in "<>":
        for options in ({}, {"rowsperstrip": 7}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}):
            out = io.BytesIO()
            tifffile.imwrite(out, values, byteorder=order, photometric="rgb", **options)
            files[f"{order}{options}"] = out.getvalue()
    for name, data in files.items():
        np.testing.assert_array_equal(decode_image(data, name), expected, err_msg=name)
        for keep in (0.3, 0.7, 0.97):
            if "tiff" not in name:
                with pytest.raises(AndonError):
                    decode_image(data[: int(len(data) * keep)], name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_image_is_turned_and_reduced_after_decoding(
    orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = cv2.GaussianBlur(smooth(640, 480), (0, 0), 8)
    for kind in ("PNG", "JPEG"):
        path = tmp_path / f"x.{kind}"
        Image.fromarray(image).save(path, kind, exif=exif.tobytes(), **({"quality": 95} if kind == "JPEG" else {}))
        exact = read_resized(path, (50, 40)).astype(int)
        with monkeypatch.context() as patch:
            patch.setattr(decode, "REDUCED_ABOVE", 10_000)
            large = read_resized(path, (50, 40)).astype(int)
        assert large.shape == exact.shape
        assert np.abs(large - exact).max() <= (1 if kind == "PNG" else 3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured through /proc")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "16-bit TIFF"])
def test_peak_memory(kind: str, tmp_path: Path) -> None:
    side, path = 4000, tmp_path / "x"
    small = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    image = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    if kind == "16-bit TIFF":
        tifffile.imwrite(path, image.astype(np.uint16) * 257, photometric="rgb")
    else:
        Image.fromarray(image).save(path, kind, **({"compress_level": 1} if kind == "PNG" else {}))
    script = Path(__file__).parents[2] / "benchmarks/bench_decode_memory.py"
    for how in ("full", "256"):
        command = [sys.executable, str(script), "--measure", str(side), how, str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        assert int(done.stdout) <= 1.5 * image.nbytes + 2**23
