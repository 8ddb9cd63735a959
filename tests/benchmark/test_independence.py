"""An experiment's figures do not hang on how many run at a time or on what is cached; running without bad images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from andon.benchmark import Store, resume_plan, run_plan
from andon.core import ConfigError, DataError
from andon.report import make_tables
from tests.benchmark.tiny import write_tiny
from tests.cli.conftest import Andon, andon  # noqa: F401 (a fixture)

SMALL = {"backbone": "resnet18", "weights": "random", "transform": {"size": [64, 64]}}


def write_plan(tmp_path: Path, data: Path, *methods: object) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"datasets": [str(data)], "methods": list(methods)}))
    return path


def image_scores(store: Path) -> dict[str, np.ndarray]:
    opened = Store(store)
    return {record.id: opened.arrays(record.id).image_scores for record in opened.records()}


def test_jobs_and_a_partly_filled_cache_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    data = write_tiny(tmp_path / "tiny")
    all_images = {"method": "padim", "config": SMALL}
    few = {"method": "padim", "config": SMALL, "label": "few", "protocol": {"shots": 2}}
    found = []
    for number, (jobs, cache) in enumerate([(1, None), (2, None), (1, False)]):
        store = tmp_path / f"store{number}"
        run_plan(write_plan(tmp_path, data, few, all_images), store, jobs=jobs, cache=cache)  # type: ignore[arg-type]
        found.append(image_scores(store))
        assert {r.hardware.threads for r in Store(store).records()} == {1}
    assert len(found[0]) == 4
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for key, scores in other.items():
            np.testing.assert_array_equal(scores, found[0][key])


def test_threads_reach_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    data = write_tiny(tmp_path / "tiny", categories=("bolt",))
    run_plan(write_plan(tmp_path, data, "thumbnail-nn"), tmp_path / "store", threads=2)
    assert [r.hardware.threads for r in Store(tmp_path / "store").records()] == [2]


def damaged(tmp_path: Path) -> Path:
    """Of "bolt" a training image and a mask are cut off; "nut" is whole."""
    data = write_tiny(tmp_path / "tiny")
    for name in ("train/good/001.png", "ground_truth/scratch/002_mask.png"):
        path = data / "bolt" / name
        path.write_bytes(path.read_bytes()[:40])
    return data


def test_a_damaged_image_is_refused_or_left_out_and_every_table_says_so(tmp_path: Path) -> None:
    data, store = damaged(tmp_path), tmp_path / "store"
    plan = write_plan(tmp_path, data, "thumbnail-nn")
    with pytest.raises(DataError, match=r"001\.png: damaged or truncated"):
        run_plan(plan, store)
    summary = run_plan(plan, store, skip_bad=True)
    assert not summary.failed
    records = {r.spec.category: r for r in Store(store).records()}
    assert records["nut"].skipped == ()
    assert records["bolt"].skipped == ("train/good/001", "test/scratch/002")
    assert records["bolt"].n_train == 4
    assert len(Store(store).arrays(records["bolt"].id).image_scores) == 3 + 2 + 1
    note = "2 unreadable image(s) left out (skip_bad): train/good/001, test/scratch/002"
    assert note in records["bolt"].notes
    tables = [t for t in make_tables(Store(store)) if t.groups]
    assert tables
    for table in tables:
        assert any("unreadable images (skip_bad): bolt: train/good/001" in n for n in table.notes), table.title
    # The store knows it: going on does the same, and nothing again.
    assert not resume_plan(store).finished
    # A category without damage is the same experiment with and without it.
    whole = write_tiny(tmp_path / "whole")
    ids = []
    for number, skip in enumerate((False, True)):
        run_plan(write_plan(tmp_path, whole, "thumbnail-nn"), tmp_path / f"whole{number}", skip_bad=skip)
        ids.append(sorted(r.id for r in Store(tmp_path / f"whole{number}").records()))
    assert ids[0] == ids[1]


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "tiny", categories=("bolt",), train=1)
    (data / "bolt/train/good/000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ConfigError, match=r"bolt .* has no good training images that can be read"):
        run_plan(write_plan(tmp_path, data, "thumbnail-nn"), tmp_path / "store", skip_bad=True)


def test_on_the_command_line(andon: Andon, tmp_path: Path) -> None:  # noqa: F811
    data, store = damaged(tmp_path), tmp_path / "store"
    run = ("bench", "run", "-d", data, "-m", "thumbnail-nn", "-s", store)
    assert "001.png: damaged or truncated" in andon(*run, code=2).stderr
    assert "2 experiments done" in andon(*run, "--skip-bad", "--threads", "1").stdout
    assert "unreadable images (skip_bad)" in andon("bench", "report", "-s", store).stdout
