"""What a layout of data sets is: how to recognise a category's folder, and how to read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from andon.core import AndonError, Category

__all__ = ["Layout", "ReadOptions", "checked_fraction"]


@dataclass(frozen=True)
class ReadOptions:
    """Choices that a layout may need.

    Attributes:
        train_fraction: share of the good images that goes into training where the layout has no split of its own.
    """

    train_fraction: float = 0.8


def checked_fraction(fraction: float) -> float:
    """AndonError unless a share for training is above 0 and at most 1."""
    if not 0 < fraction <= 1:
        raise AndonError(f"train_fraction must be above 0 and at most 1, not {fraction}")
    return fraction


class _Recognise(Protocol):
    def __call__(self, folder: Path) -> bool: ...


class _Read(Protocol):
    def __call__(self, folder: Path, name: str, dataset: str, options: ReadOptions) -> Category: ...


@dataclass(frozen=True)
class Layout:
    """One way to lay out a data set on disk.

    Attributes:
        name: "autovi".
        expects: what a category looks like, for messages ("train/good/*.png, test/<defect>/*.png").
        recognise: whether a folder is a category in this layout; looks at names only, and quickly.
        read: the category in a folder; lists files, opens none but tables, configurations and, where nothing else says
            which images are good, masks; AndonError for what is wrong.
        rule: which images are for training and which for testing, and who says so, for readers of results.
        published: whether it is that of one published data set: tried before the others, and only one may fit.
        asked: whether it is only used where it is asked for by name: another split of a data set.
        parts: where ``recognise`` is about a folder of several categories: their names. ``read`` is then given that
            folder and one of the names. None where a folder is one category.
    """

    name: str
    expects: str
    recognise: _Recognise
    read: _Read
    rule: str = ""
    published: bool = False
    asked: bool = False
    parts: Callable[[Path], tuple[str, ...]] | None = None
