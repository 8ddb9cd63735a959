"""Errors in the data are told before anything starts, and refuse it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from andon._tools import files
from andon.benchmark.bench import resume_plan, run_plan
from andon.benchmark.events import DataProblem, RunEvent
from andon.benchmark.plan import Plan, make_plan
from andon.benchmark.store import Store
from andon.core import AndonError, DataError, StoreError
from andon.report import make_tables, to_text
from tests.benchmark.tiny import save, write_tiny


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = write_tiny(tmp_path / "data")
    save(root / "nut/ground_truth/dent/000_mask.png", np.full((24, 20), 255, np.uint8))
    return root


@contextmanager
def full_disk(path: Path, *, scratch: Path, **_: object) -> Iterator[Path]:
    scratch.mkdir(parents=True)
    raise OSError(errno.ENOSPC, "No space left on device")
    yield path


def told(events: list[RunEvent]) -> list[str]:
    return [event.message for event in events if isinstance(event, DataProblem)]


def test_refused_before_anything_starts(data: Path, tmp_path: Path) -> None:
    plan, events = make_plan([data], ["thumbnail-nn"]), list[RunEvent]()
    with pytest.raises(DataError, match=r"dent/000_mask\.png: every pixel .*nothing was started.* --anyway"):
        run_plan(plan, tmp_path / "store", on_event=events.append)
    assert len(told(events)) == 1
    assert not (tmp_path / "store").exists()
    summary = run_plan(plan, tmp_path / "store", on_event=events.append, anyway=True, jobs=1)
    assert len(summary.finished) == 2
    assert len(told(events)) == 2
    # Nothing is left to do: nothing is looked at.
    assert len(resume_plan(tmp_path / "store", on_event=events.append).skipped) == 2
    assert len(told(events)) == 2


def test_only_what_experiments_are_done_on_is_looked_at(data: Path, tmp_path: Path) -> None:
    plan = make_plan([data], ["thumbnail-nn"], categories=["bolt"])
    assert len(run_plan(plan, tmp_path / "store", jobs=1).finished) == 1


def test_errors_are_counted_by_kind(data: Path, tmp_path: Path) -> None:
    for path in (data / "bolt/test/good").iterdir():
        path.write_bytes(b"x")
    mask = np.zeros((24, 20), np.uint8)
    mask[3:5] = 255
    for number in range(9):
        save(data / f"bolt/ground_truth/dent/x{number}_mask.png", mask)
    events = list[RunEvent]()
    with pytest.raises(DataError, match=r"and 4 more errors"):
        run_plan(make_plan([data], ["thumbnail-nn"]), tmp_path / "store", on_event=events.append)
    assert any("9 masks of no defective image" in line for line in told(events))


def test_figures_that_cannot_exist_say_why(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "data")
    for path in (root / "nut/test/good").iterdir():
        path.unlink()
    plan = make_plan([root], ["thumbnail-nn"])
    with pytest.raises(DataError, match="no good ones: no rate of false alarms"):
        run_plan(plan, tmp_path / "store")
    run_plan(plan, tmp_path / "store", anyway=True, jobs=1)
    store = Store(tmp_path / "store")
    shown = {table.name.rsplit("/", 1)[-1]: to_text(table) for table in make_tables(store)}
    auroc = next(text for name, text in shown.items() if "AUROC" in text)
    assert "“–” (nut): there are no good test images." in auroc
    auspro = next(text for text in shown.values() if "AUsPRO to a pixel FPR" in text)
    assert "(nut): no good image is in the pixel-FPR" in auspro
    assert all("“–” (" in text for text in shown.values() if " –" in text)
    (record,) = [r for r in store.records() if r.spec.category == "nut"]
    assert any("no good image is in the pixel-FPR of AUsPRO" in note for note in record.evaluation.notes)
    (other,) = [r for r in store.records() if r.spec.category == "bolt"]
    assert not any("pixel-FPR" in note for note in other.evaluation.notes)


def test_a_refused_first_run_leaves_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = make_plan([data], ["thumbnail-nn"], categories=["bolt"])
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (tmp_path / "store", tmp_path / "deep/er", empty):
        with pytest.raises(DataError):
            run_plan(make_plan([data], ["thumbnail-nn"]), folder)
        named = make_plan([data], ["patchcore"], categories=["bolt"], options=["patchcore.weights=/no/such/file.pth"])
        with pytest.raises(AndonError, match="nothing was run"):
            run_plan(named, folder)
        monkeypatch.setattr(files, "written_atomically", full_disk)
        with pytest.raises(StoreError, match="No space left"):
            run_plan(good, folder)
        monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "deep", "empty"]
    assert not any((tmp_path / "deep").iterdir())
    assert not any(empty.iterdir())


def test_a_refused_later_run_leaves_the_store_alone(data: Path, tmp_path: Path) -> None:
    run_plan(make_plan([data], ["thumbnail-nn"], categories=["bolt"]), tmp_path / "store", jobs=1)
    before = sorted(str(p) for p in (tmp_path / "store").rglob("*"))
    with pytest.raises(DataError):
        run_plan(make_plan([data], ["thumbnail-nn"]), tmp_path / "store")
    assert sorted(str(p) for p in (tmp_path / "store").rglob("*")) == before


def read_stages(plan: Plan, store: Path, **options: Any) -> int:
    """How many images a start looks at before its experiments, which all fail to start here."""
    seen = []

    class Refuses:
        def run(self, jobs: object, on_event: object) -> None:
            pass

    def progress(stage: str, done: int, total: int) -> None:
        seen.append(stage)

    run_plan(plan, store, engine=Refuses(), progress=progress, **options)
    return seen.count("images")


def test_clean_data_is_read_once(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "data", categories=("bolt",))
    plan, store = make_plan([root], ["thumbnail-nn"]), tmp_path / "store"
    images = read_stages(plan, store)
    assert images > 4
    assert read_stages(plan, store) == 0
    assert read_stages(plan, tmp_path / "other", cache=store / "cache") == 0
    assert read_stages(plan, store, cache=False) == images


@pytest.mark.parametrize(
    "change", ["changed", "same size and time", "added", "removed", "stray", "mask", "at the root"]
)
def test_data_that_changed_is_read_again(tmp_path: Path, change: str) -> None:
    root = write_tiny(tmp_path / "data", categories=("bolt",))
    plan, store = make_plan([root], ["thumbnail-nn"]), tmp_path / "store"
    assert read_stages(plan, store) > 0
    first, *_, last = sorted((root / "bolt/train/good").iterdir())
    match change:
        case "changed":
            first.write_bytes(first.read_bytes() + b"x")
        case "same size and time":
            times = first.stat()
            first.write_bytes(bytes(len(first.read_bytes())))
            os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
        case "added":
            save(root / "bolt/train/good/new.png", np.full((24, 20, 3), 9, np.uint8))
        case "removed":
            last.unlink()
        case "stray":
            (root / "bolt/train/extra.ppm").write_bytes(b"x")
        case "mask":
            (mask, *_) = (root / "bolt/ground_truth").rglob("*.png")
            mask.write_bytes(mask.read_bytes() + b"x")
        case _:
            (root / "note.txt").write_bytes(b"x")
    if change in ("same size and time", "stray"):
        with pytest.raises(DataError):
            read_stages(plan, store)
    else:
        assert read_stages(plan, store) > 0


def test_data_with_errors_is_not_remembered(data: Path, tmp_path: Path) -> None:
    plan, store = make_plan([data], ["thumbnail-nn"]), tmp_path / "store"
    assert read_stages(plan, store, anyway=True) > 0
    assert read_stages(plan, store, anyway=True) > 0
    with pytest.raises(DataError):
        read_stages(plan, store)
