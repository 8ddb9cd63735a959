"""Random streams by name: every draw of the line comes from ``stream(seed, "what", "it", "is", "for")``.

A stream depends on its seed and its names alone, never on what was drawn before or in which process. That is what makes
an image a pure function, and lets one scene be rendered with and without its defect on common random numbers: whatever
the defect draws, it draws from a stream of its own.
"""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["stream"]


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A PCG64 generator for ``(seed, names)``: the same everywhere, independent between names.

    Args:
        seed: any integer.
        names: what the numbers are for, from coarse to fine.
    """
    digest = hashlib.blake2b(repr((int(seed), *names)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(digest, "little"))))
