"""Andon learns what good parts look like from good images alone, finds the bad ones and shows where they are bad.

>>> from andon import load_dataset, create_method, evaluate  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.benchmark import evaluate
    from andon.core import AndonError
    from andon.data import load_dataset
    from andon.methods import create_method, load

__version__ = "0.1.0"
__all__ = ["AndonError", "create_method", "evaluate", "load", "load_dataset"]

# `import andon` (and `andon --help`) does not pay for torch.
__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.benchmark.judge": "evaluate",
        "andon.core": "AndonError",
        "andon.data": "load_dataset",
        "andon.methods": "create_method load",
    },
)
