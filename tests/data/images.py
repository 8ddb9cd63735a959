"""Images and small data sets for the tests of this room."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def gradient(height: int = 12, width: int = 17, seed: int = 0) -> np.ndarray:
    """RGB uint8 noise: no two seeds alike."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(array: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    image = Image.fromarray(array)
    if mode is not None:
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def save(path: Path, array: np.ndarray | None = None, **options: Any) -> Path:
    """Writes a PNG, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(gradient() if array is None else array, **options))
    return path


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand (PNG specification, chapters 5 and 11), sharing nothing with the decoders."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png16(values: np.ndarray) -> bytes:
    """A 16-bit PNG of uint16 ``[H, W]`` or ``[H, W, C]``, C = 2, 3 or 4."""
    height, width = values.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(width, height, 16, colour, rows)


def tiff(
    values: np.ndarray, *, big: bool = False, tags: dict[int, int] | None = None, data: bytes | None = None
) -> bytes:
    """An uncompressed one-strip TIFF written by hand (TIFF 6.0, section 2), with tags added or replaced."""
    height, width = values.shape[:2]
    samples = 1 if values.ndim == 2 else values.shape[2]
    order = ">" if big else "<"
    raw = values.astype(values.dtype.newbyteorder(order)).tobytes() if data is None else data
    fields: dict[int, Any] = {
        256: width,
        257: height,
        258: (8 * values.dtype.itemsize,) * samples,
        259: 1,
        262: 2 if samples >= 3 else 1,
        273: 0,
        277: samples,
        278: height,
        279: len(raw),
        339: ({"u": 1, "i": 2, "f": 3}[values.dtype.kind],) * samples,
        **(tags or {}),
    }
    start = 8 + 2 + 12 * len(fields) + 4
    extra, entries = b"", b""
    for tag, value in sorted(fields.items()):
        numbers = value if isinstance(value, tuple) else (value,)
        if tag == 273:
            numbers = (start + 64,)
        if tag in (273, 279):
            entries += struct.pack(f"{order}HHII", tag, 4, 1, numbers[0])
        elif len(numbers) <= 2:
            packed = struct.pack(f"{order}{len(numbers)}H", *numbers).ljust(4, b"\0")
            entries += struct.pack(f"{order}HHI", tag, 3, len(numbers)) + packed
        else:
            entries += struct.pack(f"{order}HHII", tag, 3, len(numbers), start + len(extra))
            extra += struct.pack(f"{order}{len(numbers)}H", *numbers)
    assert len(extra) <= 64
    magic = (b"MM" if big else b"II") + struct.pack(f"{order}HI", 42, 8)
    return magic + struct.pack(f"{order}H", len(fields)) + entries + b"\0\0\0\0" + extra.ljust(64, b"\0") + raw


CONFIG = [
    {"defect_name": "hoop", "pixel_value": 255, "saturation_threshold": 40, "relative_saturation": False},
    {"defect_name": "cable", "pixel_value": 254, "saturation_threshold": 0.7, "relative_saturation": True},
]


def autovi(root: Path, config: Any = CONFIG) -> Path:
    """A small category in AutoVI's layout: 3 for training, 2 good and 2 defective for testing; 2 channels in one."""
    for i in range(3):
        save(root / f"train/good/{i:04}.png", gradient(seed=i))
    for i in range(2):
        save(root / f"test/good/{i:04}.png", gradient(seed=10 + i))
        save(root / f"test/structural/{i:04}.png", gradient(seed=20 + i))
    save(root / "ground_truth/structural/0000/0000.png", mask(255, 4))
    save(root / "ground_truth/structural/0000/0001.png", mask(254, 10))
    save(root / "ground_truth/structural/0001/0000.png", mask(254, 1))
    (root / "defects_config.json").write_text(json.dumps(config))
    return root


def mvtec(root: Path) -> Path:
    """The same in MVTec AD's layout, one mask an image."""
    for i in range(3):
        save(root / f"train/good/{i:03}.png", gradient(seed=i))
    for i in range(2):
        save(root / f"test/good/{i:03}.png", gradient(seed=10 + i))
        save(root / f"test/crack/{i:03}.png", gradient(seed=20 + i))
        save(root / f"ground_truth/crack/{i:03}_mask.png", mask(255, 3 + i))
    return root


def mask(value: int, columns: int, height: int = 12, width: int = 17) -> np.ndarray:
    """uint8 ``[H, W]``: the first columns have the value."""
    out = np.zeros((height, width), np.uint8)
    out[:, :columns] = value
    return out
