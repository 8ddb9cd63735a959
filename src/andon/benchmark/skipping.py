"""Running without the images that cannot be read (``skip_bad``)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from andon.core import Category, Dataset, ProgressCallback, listed, no_progress
from andon.data import dataset_info

__all__ = ["UNREADABLE_KINDS", "readable", "skipped_note"]

UNREADABLE_KINDS = ("unreadable-image", "unreadable-mask")
"""Kinds of problems (``andon.data.Problem``) for which an image is left out."""


def readable(
    dataset: Dataset, *, progress: ProgressCallback = no_progress
) -> tuple[Dataset, dict[str, tuple[str, ...]]]:
    """A data set without the images that cannot be read, or whose mask cannot; all are decoded to find out.

    Returns:
        The rest, and by category the ids of those that were left out, where there are any. A category without any is
        the same as before, so that its experiments are the same.
    """
    problems = dataset_info(dataset, progress=progress).problems
    bad = {problem.file for problem in problems if problem.kind in UNREADABLE_KINDS}
    categories: dict[str, Category] = {}
    left_out: dict[str, tuple[str, ...]] = {}
    for name, category in dataset.categories.items():
        unreadable = [s for s in category.samples if not bad.isdisjoint((s.path, *s.mask_paths))]
        categories[name] = category
        if unreadable:
            kept = tuple(s for s in category.samples if s not in unreadable)
            categories[name] = replace(category, samples=kept)
            left_out[name] = tuple(s.id for s in unreadable)
    return replace(dataset, categories=categories), left_out


def skipped_note(ids: Iterable[str]) -> str:
    """What a reader has to know of images that were left out."""
    names = list(ids)
    return f"{len(names)} unreadable image(s) left out (skip_bad): {listed(names)}"
