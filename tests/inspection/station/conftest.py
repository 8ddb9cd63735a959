"""A small inspector, and a station with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from andon.inspection import Inspector, train_inspector
from andon.inspection.station.station import Station
from tests.inspection.parts import part


@pytest.fixture(scope="session")
def inspector() -> Inspector:
    """Trained on 20 good parts; of 16 × 16 thumbnails, a verdict takes some milliseconds."""
    return train_inspector([part(seed) for seed in range(20)], "thumbnail-nn", config={"transform": {"size": [16, 16]}})


@pytest.fixture(scope="session")
def inspector_file(inspector: Inspector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspector") / "seal.andon"
    inspector.save(path)
    return path


@pytest.fixture
def station(inspector: Inspector, tmp_path: Path) -> Iterator[Station]:
    made = Station({"seal": inspector}, tmp_path / "station")
    yield made
    made.close()
