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
from PIL import Image, ImageFile

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


TIFF_KINDS = [
    (mode, order, options)
    for mode in ("RGB", "RGBA", "L", "white is 0", "CMYK")
    for order in "<>"
    for options in ({}, {"compression": "zlib", "rowsperstrip": 7}, {"compression": "zlib", "tile": (16, 32)},
                    {"compression": "zlib", "rowsperstrip": 5, "predictor": True})
]  # fmt: skip


@pytest.mark.parametrize("piece", [1, 2**20])
@pytest.mark.parametrize(("mode", "order", "options"), TIFF_KINDS)
def test_tiff_in_pieces_is_tiff_at_once(
    mode: str, order: str, options: dict[str, object], piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("andon.data._deep_colour._PIECE_BYTES", piece)
    photometric = {"L": "minisblack", "white is 0": "miniswhite", "CMYK": "separated"}.get(mode, "rgb")
    channels = {"RGB": 3, "RGBA": 4, "CMYK": 4}.get(mode, 1)
    values = smooth(channels=channels).squeeze()
    values[:10], values[10:20] = 0, 255  # a mask is black somewhere
    extra = {"extrasamples": ["unassalpha"]} if mode == "RGBA" else {}
    for orientation in (1, 3, 6):
        path = tmp_path / f"{orientation}.tif"
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(path, values, photometric=photometric, byteorder=order, extratags=tags, **extra, **options)
        with monkeypatch.context() as patch:
            if orientation > 1 or options:
                assert decode.come_in_pieces(Image.open(path))
            found, mask = read_image(path), decode.read_mask(path, any_value=True) if channels < 4 else None
            patch.setattr(decode, "come_in_pieces", lambda _: False)  # Pillow decodes and turns all of it
            np.testing.assert_array_equal(found, read_image(path))
            if mask is not None:
                np.testing.assert_array_equal(mask, decode.read_mask(path, any_value=True))
        if orientation > 1:
            continue
        data = path.read_bytes()
        for keep in (0.5, 0.9):
            with pytest.raises(AndonError):
                decode_image(data[: int(len(data) * keep)])


@pytest.mark.parametrize("levels", [1, 3, 6])
@pytest.mark.parametrize("tile", [None, (128, 96)])
def test_a_large_jpeg_2000_is_reduced_while_it_is_decoded(
    tile: tuple[int, int] | None, levels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jp2"
    image = cv2.GaussianBlur(smooth(640, 480), (0, 0), 8)
    Image.fromarray(image).save(path, tile_size=tile, num_resolutions=levels)  # levels = resolutions - 1
    exact = read_resized(path, (50, 40)).astype(int)
    reduced: list[int] = []
    load = decode._load

    def spy(image: ImageFile.ImageFile, *args: object, **kwargs: object) -> object:
        found = load(image, *args, **kwargs)
        reduced.append(max(image.size))
        return found

    monkeypatch.setattr(decode, "REDUCED_BYTES", 10_000)
    monkeypatch.setattr(decode, "_load", spy)
    large = read_resized(path, (50, 40)).astype(int)
    assert reduced == [{1: 640, 3: 160, 6: 160}[levels]]
    assert np.abs(large - exact).max() <= 4
    np.testing.assert_array_equal(read_resized(path, (600, 400)), read_resized(path, (600, 400)))


def test_a_jpeg_of_several_scans_is_counted_with_its_coefficients(tmp_path: Path) -> None:
    costs = {}
    for name, options in {"baseline": {}, "progressive": {"progressive": True}}.items():
        Image.fromarray(smooth(400, 400)).save(tmp_path / name, "JPEG", subsampling=0, **options)
        with (tmp_path / name).open("rb") as file:
            costs[name] = decode._cost(decode._header(file, name), file)
    assert costs["progressive"] - costs["baseline"] == 400 * 400 * 3 * 2
    # Of a baseline JPEG's first scan all but one channel taken out: the decoder has to wait for others.
    data = (tmp_path / "baseline").read_bytes()
    at = data.index(b"\xff\xda\x00\x0c\x03")
    single = data[:at] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + data[at + 14 :]
    file = io.BytesIO(single)
    assert decode._cost(decode._header(file, "x"), file) == costs["progressive"]


LARGE = {
    "turned.jpg": 1.5, "grey16.png": 1.5, "lossy.webp": 1.5, "turned.tif": 1.5, "mask_grey16.png": 0.7,
    "progressive.jpg": 2.4, "rgb.jp2": 8.5,
}  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured through /proc")
@pytest.mark.parametrize("kind", LARGE)
def test_peak_memory_and_what_is_counted(kind: str, tmp_path: Path) -> None:
    side, path = 2500, tmp_path / kind
    script = Path(__file__).parents[2] / "benchmarks/bench_decode_memory.py"

    def run(*arguments: str) -> str:
        command = [sys.executable, str(script), arguments[0], str(side), *arguments[1:]]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

    run("--make", kind, str(path))
    how = "mask" if kind.startswith("mask") else "image"
    peak, counted = map(int, run("--measure", how, str(path)).split())
    assert peak <= LARGE[kind] * side * side * 3 + 2**23
    assert peak <= counted
