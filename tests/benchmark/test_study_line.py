from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from andon.benchmark.study_line import render_study_line
from andon.core import ConfigError
from andon.data import load_dataset
from andon.synthetic import MANIFEST, Counts


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks of a few small images."""
    monkeypatch.setattr("andon.benchmark.study_line.TASKS", ("engine_wiring", "pipe_staple"))
    monkeypatch.setattr("andon.benchmark.study_line.RAW_TASKS", ("engine_wiring",))
    for images in ("COUNTS", "RAW_COUNTS"):
        monkeypatch.setattr(f"andon.benchmark.study_line.{images}", {True: Counts(train=2, good=1, defective=1)})


def test_the_line_is_rendered_once_and_kept_beside_the_store(tmp_path: Path) -> None:
    stale = tmp_path / ".runs-line-raw-abc.partial"
    stale.mkdir()
    line = render_study_line(tmp_path / "runs", small=True, jobs=1)
    assert (line.data, line.raw, line.rendered) == (tmp_path / "runs-line", tmp_path / "runs-line-raw", 12)
    assert not stale.exists(), "what a killed start left"
    assert list(load_dataset(line.data).categories) == ["engine_wiring", "pipe_staple"]
    raw, cropped = load_dataset(line.raw)["engine_wiring"], load_dataset(line.data)["engine_wiring"]
    assert raw.train[0].size() == (480, 640)
    assert cropped.train[0].size() == (400, 400)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert render_study_line(tmp_path / "runs", small=True, jobs=1).rendered == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before


def test_only_what_is_missing_is_rendered_and_what_is_something_else_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "runs"
    line = render_study_line(store, small=True, jobs=1)
    manifest = json.loads((line.raw / MANIFEST).read_text(encoding="utf-8"))
    for key, value in (("seed", 1), ("raw", False), ("knobs", {}), ("counts", {})):
        (line.raw / MANIFEST).write_text(json.dumps(manifest | {key: value}), encoding="utf-8")
        with pytest.raises(ConfigError, match=f"other {key} than the study's; name another --store, or remove"):
            render_study_line(store, small=True, jobs=1)
    (line.raw / MANIFEST).write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read"):
        render_study_line(store, small=True, jobs=1)
    (line.raw / MANIFEST).unlink()
    with pytest.raises(ConfigError, match="something else"):
        render_study_line(store, small=True, jobs=1)
    for path in sorted(line.raw.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert render_study_line(store, small=True, jobs=1).rendered == 4
    (line.data / "pipe_staple" / "train" / "good" / "0001.png").unlink()
    with pytest.raises(ConfigError, match=r"lacks pipe_staple/train/good/0001\.png"):
        render_study_line(store, small=True, jobs=1)


def test_two_do_not_render_at_once(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".runs-line.lock"), pytest.raises(ConfigError, match="another process is rendering"):
        render_study_line(tmp_path / "runs", small=True, jobs=1)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write there"):
        render_study_line(tmp_path / "file" / "runs", small=True, jobs=1)
