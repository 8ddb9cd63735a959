"""Some damaged requests; ``fuzz_station`` by hand sends tens of thousands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from andon.inspection.station.station import Station
from tests.fuzz import fuzz_station
from tests.inspection.station.serving import image_bytes


@pytest.mark.filterwarnings("ignore")
def test_damaged_requests_are_answered_or_refused(tmp_path: Path) -> None:
    tally = fuzz_station.run(300, 1, tmp_path)
    assert not tally.faults, "\n".join(tally.faults)
    assert tally.counts["answered"] > 10
    assert tally.counts["refused"] > 100
    assert set(tally.kinds) == set(fuzz_station._KINDS)


def test_the_same_seed_gives_the_same_requests() -> None:
    images = [image_bytes(seed) for seed in range(6)]
    first, second = (
        [fuzz_station.request(np.random.default_rng(k), kind, images) for kind in fuzz_station._KINDS for k in range(5)]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) > 25


def test_faults_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"not mine: {tmp_path}")

    monkeypatch.setattr(Station, "submit", broken)
    monkeypatch.setattr(Station, "inspect", lambda *_, **__: None)
    tally = fuzz_station.run(40, 1, tmp_path)
    assert tally.counts["traceback"] > 0
    assert any("not mine" in fault for fault in tally.faults)
