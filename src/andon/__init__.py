"""Andon learns what good parts look like from good images alone, finds the bad ones and shows where they are bad.

>>> from andon import load_dataset, create_method, evaluate  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from andon.benchmark.evaluate import evaluate
    from andon.core import AndonError
    from andon.data import load_dataset
    from andon.methods import create_method

__version__ = "0.1.0"
__all__ = ["AndonError", "create_method", "evaluate", "load_dataset"]

# Imported on first use, so that `import andon` (and `andon --help`) does not pay for torch.
_LAZY = {
    "AndonError": "andon.core",
    "create_method": "andon.methods",
    "evaluate": "andon.benchmark.evaluate",
    "load_dataset": "andon.data",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'andon' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
