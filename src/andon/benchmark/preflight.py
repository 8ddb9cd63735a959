"""What is looked at before the first experiment starts.

Data that was found to be without errors is not read again as long as all of it is as it was: which files there are,
their sizes, times of modification and of change. The cache keeps that, as an entry that says so by being there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from andon._tools.files import folders_below
from andon._tools.packages import installed_versions
from andon.benchmark.events import DataProblem, RunEvent
from andon.benchmark.expansion import ExpandedPlan
from andon.benchmark.record import ExperimentSpec
from andon.benchmark.skipping import UNREADABLE_KINDS
from andon.core import AndonError, DataError, Dataset, ProgressCallback, canonical_json
from andon.data import ArrayCache, Problem, dataset_info, problem_groups

__all__ = ["check_data", "remember_clean"]

_KIND = "preflight"
_READERS = ("andon", "pillow", "opencv-python-headless")


def check_data(
    expanded: ExpandedPlan,
    todo: Sequence[ExperimentSpec],
    *,
    anyway: bool,
    on_event: Callable[[RunEvent], None],
    progress: ProgressCallback,
    cache: Path | None = None,
) -> list[str]:
    """Reads all images and masks of the categories that experiments are to be done on, and tells of every error.

    Args:
        expanded: the plan.
        todo: experiments to be done.
        anyway: whether to go on nevertheless. What a plan's ``skip_bad`` leaves out is told, but does not refuse.
        on_event: told of the errors, the first few of each kind.
        progress: stage "images", once for each data set that is read.
        cache: where data may be remembered as clean; None to read it in any case.

    Returns:
        What ``remember_clean`` is to remember: nothing is written here.

    Raises:
        DataError: there are errors, unless ``anyway``.
    """
    found: list[tuple[Problem, str]] = []
    clean: list[str] = []
    for dataset in expanded.whole.values():
        names = {spec.category for spec in todo if spec.dataset == dataset.name}
        if not names:
            continue
        used = replace(dataset, categories={c.name: c for c in dataset if c.name in names})
        before = None if cache is None else _state(used)
        if cache is not None and before is not None and ArrayCache(cache).get(_KIND, before) is not None:
            continue
        problems = dataset_info(used, progress=progress).problems
        found += [(problem, str(dataset.root)) for problem in problems]
        if before is not None and all(p.severity != "error" for p in problems) and _state(used) == before:
            clean.append(before)
    errors = [(problem, root) for problem, root in found if problem.severity == "error"]
    for group in problem_groups(problem for problem, _ in errors):
        for line in group.lines():
            on_event(DataProblem(line))
    tolerated = UNREADABLE_KINDS if expanded.plan.content.skip_bad else ()
    refused = [(problem, root) for problem, root in errors if problem.kind not in tolerated]
    if refused and not anyway:
        (first, root), more = refused[0], len(refused) - 1
        raise DataError(
            f"{first.message}{f' (and {more:,} more errors)' if more else ''}; nothing was started, figures would be "
            f"wrong or impossible: mend the data (andon data info {root}), leave unreadable images out (--skip-bad), "
            "or run it --anyway"
        )
    return clean


def remember_clean(cache: Path | None, clean: Iterable[str]) -> None:
    """Has what ``check_data`` found clean not read again while it is as it was."""
    if cache is not None:
        for state in clean:
            ArrayCache(cache).put(_KIND, state, ())


def _state(dataset: Dataset) -> str | None:
    """Hash of all that ``dataset_info`` could find something else by, without the files' content; None where that
    cannot be told."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        for entry in _entries(dataset):
            digest.update(canonical_json(entry).encode("utf-8", "surrogatepass") + b"\n")
    except (AndonError, OSError, ValueError):
        return None
    return digest.hexdigest()


def _entries(dataset: Dataset) -> Iterator[list[object]]:
    versions = installed_versions(_READERS)
    yield ["readers", *(versions.get(package, "") for package in _READERS)]
    yield ["data set", dataset.name, dataset.layout, str(dataset.root.absolute())]
    with os.scandir(dataset.root) as entries:
        yield from sorted([entry.name, *_status(Path(entry.path))] for entry in entries if entry.is_file())
    for category in dataset:
        yield ["category", category.name, str(category.root.absolute()), *map(asdict, category.defects)]
        for sample in category.samples:
            files = (sample.path, *sample.mask_paths)
            yield [sample.id, sample.split, sample.defect_type, *([str(path), *_status(path)] for path in files)]
        for folder, names in folders_below(category.root):
            yield ["folder", str(folder), *([name, *_status(folder / name)] for name in names)]


def _status(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
