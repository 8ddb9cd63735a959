"""What is looked at before the first experiment starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from andon.benchmark.events import DataProblem, RunEvent
from andon.benchmark.expansion import ExpandedPlan
from andon.benchmark.record import ExperimentSpec
from andon.benchmark.skipping import UNREADABLE_KINDS
from andon.core import DataError, ProgressCallback
from andon.data import Problem, dataset_info, problem_groups

__all__ = ["check_data"]


def check_data(
    expanded: ExpandedPlan,
    todo: Sequence[ExperimentSpec],
    *,
    anyway: bool,
    on_event: Callable[[RunEvent], None],
    progress: ProgressCallback,
) -> None:
    """Reads all images and masks of the categories that experiments are to be done on, and tells of every error.

    Args:
        expanded: the plan.
        todo: experiments to be done.
        anyway: whether to go on nevertheless. What a plan's ``skip_bad`` leaves out is told, but does not refuse.
        on_event: told of the errors, the first few of each kind.
        progress: stage "images", once for each data set.

    Raises:
        DataError: there are errors, unless ``anyway``.
    """
    found: list[tuple[Problem, str]] = []
    for dataset in expanded.whole.values():
        names = {spec.category for spec in todo if spec.dataset == dataset.name}
        if not names:
            continue
        used = replace(dataset, categories={c.name: c for c in dataset if c.name in names})
        found += [(p, str(dataset.root)) for p in dataset_info(used, progress=progress).problems]
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
