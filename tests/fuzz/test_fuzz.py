"""A few damaged inputs at every door; ``fuzz_doors`` by hand tries thousands."""

from __future__ import annotations

import json
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz import fuzz_doors
from tests.fuzz.damage import damaged, damaged_text
from tests.fuzz.doors import DOORS, Door, FileDoor

INPUTS = 50


@pytest.fixture
def alarm() -> Iterator[None]:
    """The script's; pytest-timeout's is set again after it."""
    handler, left = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    signal.signal(signal.SIGALRM, fuzz_doors._alarm)
    yield
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, *left)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_damaged_input_is_refused_or_let_in(door: Door, tmp_path: Path, alarm: None) -> None:
    door.prepare(tmp_path)
    door.warm(tmp_path)
    faults = []
    for number in range(INPUTS):
        outcome, text = fuzz_doors._try(door, 1, number, tmp_path)
        if outcome not in ("refused", "let in"):
            faults.append(f"input {number}: {outcome}: {text}")
    assert not faults, "\n".join(faults)


def test_the_same_seed_gives_the_same_damage() -> None:
    door = next(d for d in DOORS if d.name == "weights .pth, zip")
    assert isinstance(door, FileDoor)
    door.prepare(Path())
    ((_, data),) = door.seeds
    first, second = ([damage(np.random.default_rng(3), data) for damage in (damaged, damaged_text)] for _ in range(2))
    assert first == second
    assert len({damaged(np.random.default_rng(k), data) for k in range(50)}) > 40


def test_faults_are_counted(tmp_path: Path, alarm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bad(Door):
        def attempt(self, rng: np.random.Generator, folder: Path) -> None:
            if self.name == "hang":
                while True:
                    pass
            raise struct.error("not mine")

    monkeypatch.setattr(fuzz_doors, "SECONDS", 0.1)
    door, tally = Bad(), fuzz_doors.Tally("bad", bound=10)
    for number, door.name in enumerate(("hang", "error")):
        outcome, text = fuzz_doors._try(door, 0, number, tmp_path)
        tally.add(number, outcome, 11.0 * number, json.loads(json.dumps(text)))
    assert tally.counts == {"inputs": 2, "hang": 1, "traceback": 1, "over memory": 1}
    assert "| bad | 2 | 0 | 0 | 0 | 1 | 1 | 1 | 10 | 11 |" in fuzz_doors.table([tally], 0)
    page = tmp_path / "page.md"
    page.write_text(f"head\n{fuzz_doors._BEGIN}\nold\n{fuzz_doors._END}\ntail\n")
    fuzz_doors.write(page, "new\n")
    assert page.read_text() == f"head\n{fuzz_doors._BEGIN}\nnew\n{fuzz_doors._END}\ntail\n"
