"""Errors in the data are told before anything starts, and refuse it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from andon.benchmark.bench import resume_plan, run_plan
from andon.benchmark.events import DataProblem, RunEvent
from andon.benchmark.plan import make_plan
from andon.benchmark.store import Store
from andon.core import DataError
from andon.report import make_tables, to_text
from tests.benchmark.tiny import save, write_tiny


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = write_tiny(tmp_path / "data")
    save(root / "nut/ground_truth/dent/000_mask.png", np.full((24, 20), 255, np.uint8))
    return root


def told(events: list[RunEvent]) -> list[str]:
    return [event.message for event in events if isinstance(event, DataProblem)]


def test_refused_before_anything_starts(data: Path, tmp_path: Path) -> None:
    plan, events = make_plan([data], ["thumbnail-nn"]), list[RunEvent]()
    with pytest.raises(DataError, match=r"dent/000_mask\.png: every pixel .*nothing was started.* --anyway"):
        run_plan(plan, tmp_path / "store", on_event=events.append)
    assert len(told(events)) == 1
    assert Store(tmp_path / "store").records() == []
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
