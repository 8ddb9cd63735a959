"""Bytes of what a store keeps: JSON, arrays without pickles, digests."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from andon._tools.files import open_regular, read_regular
from andon._tools.models import first_fault
from andon.core import StoreError

__all__ = [
    "UNREADABLE",
    "damaged",
    "digest",
    "digest_of_file",
    "json_bytes",
    "load_npz",
    "npz_bytes",
    "read_bytes",
    "read_model",
]

UNREADABLE = (Exception,)
"""What reading a damaged file can raise: anything, from a KeyError to NumPy's, Pillow's and zlib's own errors."""
ModelT = TypeVar("ModelT", bound=BaseModel)
_REASON, _DIGEST_BYTES = 300, 16
_LARGEST_ARRAYS = 2**30
"""Bytes of arrays that an archive may unpack to."""
_SURE_ARRAYS, _MOST_PACKED = 2**26, 100
"""Above so many bytes, an archive may unpack to so many times its own size at most."""
_LARGEST_TEXT = 2**26
"""Bytes of a JSON file: forty times those of a plan of a thousand experiments."""


def digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()


def damaged(path: Path, error: str | Exception) -> StoreError:
    """The error of a damaged file, in one line: why, or what reading it raised."""
    if isinstance(error, str):
        reason = error
    elif isinstance(error, ValidationError):
        reason = first_fault(error)
    elif isinstance(error, OSError):
        reason = error.strerror or str(error)
    else:
        reason = str(error)
    reason = " ".join(reason.split()) or type(error).__name__
    return StoreError(f"{path}: damaged ({reason[:_REASON]}{'…' if len(reason) > _REASON else ''})")


def read_bytes(path: Path, most_bytes: int = _LARGEST_TEXT) -> bytes:
    """A file's bytes; OSError for what is no regular file, or too large: nothing of it is read then."""
    try:
        return read_regular(path, most_bytes, what="a file of a store", error=StoreError, name=path.name)
    except StoreError as error:
        raise OSError(str(error)) from error


def digest_of_file(path: Path, most_bytes: int) -> str:
    """``digest`` of a file that need not fit into memory; OSError as ``read_bytes``."""
    try:
        with open_regular(path, most_bytes, what="a file of a store", error=StoreError, name=path.name) as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)).hexdigest()
    except StoreError as error:
        raise OSError(str(error)) from error


def read_model(model: type[ModelT], path: Path) -> ModelT:
    """A JSON file as a model; StoreError where it is none."""
    try:
        return model.model_validate_json(read_bytes(path))
    except UNREADABLE as error:
        raise damaged(path, error) from error


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
    size = sum(array.nbytes for array in arrays.values())
    if size > _SURE_ARRAYS // 2 and size > buffer.tell() * _MOST_PACKED // 2:  # constant maps; it would be refused
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def load_npz(content: bytes) -> dict[str, npt.NDArray[Any]]:
    # What an archive declares is the most that is unpacked of it.
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        declared = sum(member.file_size for member in packed.infolist())
    limit = min(_LARGEST_ARRAYS, max(_SURE_ARRAYS, _MOST_PACKED * len(content)))
    if declared > limit:
        raise ValueError(f"{len(content):,} bytes that unpack to {declared:,} (limit {limit:,})")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
