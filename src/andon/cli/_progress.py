"""Progress bars on stderr; silent where that is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from andon.cli._show import duration, err, say, warn
from andon.core import ProgressCallback

if TYPE_CHECKING:
    from andon.benchmark import ExperimentEvent, RunEvent

__all__ = ["experiment_bars", "stage_bars"]


@contextmanager
def stage_bars() -> Iterator[ProgressCallback]:
    """One row a stage, with the time left."""
    with _bars() as bars:
        tasks: dict[str, TaskID] = {}

        def progress(stage: str, done: int, total: int) -> None:
            name = _stage_name(stage)
            task = tasks.get(name)
            if task is None:
                task = tasks[name] = bars.add_task(escape(stage), total=total, left="")
            bars.update(task, description=escape(stage), completed=done, total=total, left=_left(bars, task))

        yield progress


@contextmanager
def experiment_bars() -> Iterator[Callable[[RunEvent], None]]:
    """All experiments in one bar with the time left, a row for each that runs, and a line for each that has ended."""
    with _bars() as bars:
        yield _Experiments(bars)


class _Experiments:
    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.overall: TaskID | None = None
        self.running: dict[str, TaskID] = {}
        self.stages: dict[str, str] = {}

    def __call__(self, event: RunEvent) -> None:
        from andon.benchmark import DataProblem, ImportsCode, Planned, Repaired

        match event:
            case Planned():
                say(event.message)
                self.overall = self.bars.add_task("experiments", total=event.total, left="")
            case ImportsCode():
                warn(event.message)
            case Repaired():
                warn(Text("damaged ", style="yellow"), event.message)
            case DataProblem():
                warn(Text("error ", style="bold red"), event.message)
            case _:
                self._show(event)
                left = "" if event.eta_seconds is None else f"{duration(event.eta_seconds)} left"
                if self.overall is not None:
                    self.bars.update(self.overall, completed=event.done, left=left)

    def _show(self, event: ExperimentEvent) -> None:
        from andon.benchmark import Failed, Progressed, Restarted, Started

        key, happened = event.spec.id, event.event
        match happened:
            case Started():
                self.running[key] = self.bars.add_task(escape(event.message), total=None, left="")
            case Progressed():
                if key not in self.running:
                    return
                task = self.running[key]
                stage = _stage_name(happened.stage)
                if self.stages.get(key) != stage:  # what is left is reckoned from this stage's own speed
                    self.stages[key] = stage
                    self.bars.reset(task, total=happened.total)
                self.bars.update(task, description=escape(event.message), completed=happened.done, total=happened.total)
                self.bars.update(task, left=_left(self.bars, task))
            case Restarted():
                if key in self.running:
                    self.bars.remove_task(self.running.pop(key))
                warn(event.message)
            case _:
                if key in self.running:
                    self.bars.remove_task(self.running.pop(key))
                mark = Text("failed ", style="bold red") if isinstance(happened, Failed) else ""
                warn(f"[{event.done}/{event.total}] ", mark, event.message)


def _stage_name(stage: str) -> str:
    """What follows the dot changes with every step ("distillation · loss 0.12"): one row all the same."""
    return stage.partition(" · ")[0]


def _left(bars: Progress, task: TaskID) -> str:
    remaining = bars.tasks[bars.task_ids.index(task)].time_remaining
    return f"{duration(remaining)} left" if remaining else ""


@contextmanager
def _bars() -> Iterator[Progress]:
    # On a narrow terminal the description is what gives way.
    fixed = Column(no_wrap=True, min_width=9)
    with Progress(
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=24 if err.width >= 120 else 8),
        MofNCompleteColumn(table_column=fixed),
        TimeElapsedColumn(table_column=fixed.copy()),
        TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True, min_width=15)),
        expand=True,
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as bars:
        yield bars
