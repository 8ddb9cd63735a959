"""Seeds and generators that are pure functions of a seed and of names."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["derived_seed", "hashed_seed", "numpy_step_generator", "step_generator"]


def hashed_seed(text: str) -> int:
    """A seed in 0..2⁶³ − 1 from any text: the same everywhere and always."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def derived_seed(seed: int, *names: str | int) -> int:
    """The seed of what is called ``names`` under another seed; different names give unrelated seeds."""
    return hashed_seed(repr((int(seed), *names)))


def step_generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for (seed, names), e.g. ``step_generator(seed, "augmentation", step)``: the same every time."""
    import torch

    return torch.Generator(device).manual_seed(derived_seed(seed, *names))


def numpy_step_generator(seed: int, *names: str | int) -> np.random.Generator:
    """``step_generator`` for numpy."""
    return np.random.default_rng(derived_seed(seed, *names))
