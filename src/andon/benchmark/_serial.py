"""Bytes of what a store keeps: JSON, arrays without pickles, digests."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from andon.core import StoreError

__all__ = ["UNREADABLE", "damaged", "digest", "json_bytes", "load_npz", "npz_bytes"]

UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    SyntaxError,  # Pillow's for broken PNG
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
)
"""What reading a damaged file can raise."""


def digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def damaged(path: Path, reason: str) -> StoreError:
    return StoreError(f"{path}: damaged ({reason})")


def json_bytes(model: BaseModel) -> bytes:
    """JSON that every reader takes: non-finite floats become strings, which the models read back as floats."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    return json.dumps(plain(model.model_dump(mode="python")), ensure_ascii=False, indent=1, allow_nan=False).encode()


def npz_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def load_npz(content: bytes) -> dict[str, npt.NDArray[Any]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
