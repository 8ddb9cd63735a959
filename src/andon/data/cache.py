"""A bounded cache of arrays on disk, one entry a picture and kind, shared by processes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["ArrayCache"]


class ArrayCache:
    """Arrays by (kind, key): kind = what was computed and how, key = the picture's fingerprint."""

    def __init__(self, root: Path, *, max_bytes: int = 20 * 2**30) -> None:
        self.root = Path(root)
        self.max_bytes = max_bytes

    def get(self, kind: str, key: str) -> tuple[np.ndarray[Any, Any], ...] | None:
        """The arrays of an entry, or None where there is none (or it is damaged: then it is removed)."""
        return None

    def put(self, kind: str, key: str, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        """Stores an entry atomically. A full disk is not an error here: the cache just stays without it."""

    def lock(self, kind: str) -> AbstractContextManager[object]:
        """Held while missing entries of a kind are computed, so that two processes do not compute them twice."""
        return nullcontext()
