"""``andon bench``: the whole way on tiny images."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Andon

FLAT = "padim.transform.size=[64, 64]"


def test_run_status_report_and_run_again(andon: Andon, tmp_path: Path, images: Path) -> None:
    store = tmp_path / "store"
    run = ("bench", "run", "-d", images, "-m", "thumbnail-nn", "-m", "padim", "-s", store, "--seeds", "2")
    options = ("--set", "padim.weights=random", "--set", FLAT)
    assert "3 experiments done" in andon(*run, *options).stdout
    again = andon(*run, *options).stdout
    assert "0 experiments done" in again
    assert "3 were there already" in again
    assert "3 done, 0 failed, 0 missing" in andon("bench", "status", "-s", store).stdout
    page, tables = tmp_path / "page.html", tmp_path / "tables"
    text = andon("bench", "report", "-s", store, "-o", page, "--tables", tables).stdout
    assert "AUROC" in text
    assert "Random weights" in text
    assert page.read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    assert {"tables.md", "tables.tex", "results.csv"} <= {p.name for p in tables.iterdir()}
    assert "0 experiments done" in andon("bench", "resume", "-s", store).stdout


def test_a_method_from_a_file_stands_in_the_same_tables(
    andon: Andon, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    source = text.split("```python\n", 1)[1].split("```", 1)[0]
    (tmp_path / "median_image.py").write_text(source, encoding="utf-8")
    andon("bench", "run", "-d", images, "-m", "median_image.py:MedianImage", "-s", "store")
    assert "Median image" in andon("bench", "report", "-s", "store").stdout


def test_dry_run_estimates_from_timed_steps_and_does_nothing(andon: Andon, tmp_path: Path, images: Path) -> None:
    store = tmp_path / "store"
    run = ("bench", "run", "-d", images, "-s", store, "-m", "thumbnail-nn", "--seeds", "2")
    lines = andon(*run, "--dry-run").stdout.splitlines()
    assert lines[0].split() == ["data", "set", "category", "method", "done", "failed", "missing", "time", "MiB", "from"]
    assert lines[1].endswith("timed steps")
    assert lines[1].split()[-8:-5] == ["0", "0", "1"]  # done, failed, missing: the seed changes nothing
    assert "0 experiments done, 1 to do" in lines
    assert lines[-1].startswith("about ")
    assert not store.exists()


def test_dry_run_estimates_from_the_store(andon: Andon, tmp_path: Path, images: Path) -> None:
    store = tmp_path / "store"
    file = Path(__file__).parents[1] / "benchmark" / "fake_method.py"
    run = ("bench", "run", "-d", images, "-s", store, "-m", f"{file}:FakeMethod")
    andon(*run)
    lines = andon(*run, "--seeds", "3", "--dry-run").stdout.splitlines()
    assert lines[1].endswith("1 in the store")
    assert "1 experiments done, 2 to do" in lines
    assert andon(*run, "--dry-run").stdout.splitlines()[-1] == "1 experiments done, 0 to do"


def test_what_cannot_be_estimated_says_why(andon: Andon, tmp_path: Path, images: Path) -> None:
    file = Path(__file__).parents[1] / "benchmark" / "fake_method.py"
    run = ("bench", "run", "-d", images, "-s", tmp_path / "store", "-m", f"{file}:FakeMethod")
    lines = andon(*run, "--set", f"{file}:FakeMethod.trouble=raise", "--dry-run").stdout.splitlines()
    assert lines[1].endswith("no estimate: ArithmeticError: the fit went astray")
    assert lines[-1] == "1 experiments without an estimate"


def test_a_method_is_added_and_its_failure_says_where_the_traceback_lies(
    andon: Andon, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = (Path(__file__).parents[1] / "benchmark" / "fake_method.py").read_text(encoding="utf-8")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "helper_for_noise.py").write_text("NOISE = 0.02\n", encoding="utf-8")
    changed = source.replace("import os\n", "import helper_for_noise\nimport os\n", 1)
    changed = changed.replace("noise: float = 0.01", "noise: float = helper_for_noise.NOISE")
    (tmp_path / "deep" / "my_module.py").write_text(changed, encoding="utf-8")
    text = f"datasets: [{images}]\nmethods: [thumbnail-nn]\n"
    (tmp_path / "plan.yaml").write_text(text, encoding="utf-8")
    run = ("bench", "run", "plan.yaml", "-s", "store", "-j", "1", "--add-method")
    andon(*run, "deep/my_module.py:FakeMethod")
    assert "2 were there already" in andon(*run, "deep.my_module:FakeMethod").stdout
    failing = changed.replace('trouble: Literal["none", "raise"', 'trouble: Literal["raise", "none"').replace(
        '] = "none"', '] = "raise"'
    )
    (tmp_path / "failing.py").write_text(
        failing.replace("import helper_for_noise\n", "", 1).replace("helper_for_noise.NOISE", "0.01"), encoding="utf-8"
    )
    result = andon(*run, "failing:FakeMethod", code=1)
    where = result.stderr.rsplit("details: ", 1)[1].splitlines()[0]
    assert "ArithmeticError: the fit went astray" in Path(where).read_text(encoding="utf-8")
    assert "in learn" in Path(where).read_text(encoding="utf-8")
    assert f"details: {where}" in andon("bench", "status", "-s", "store").stdout


def test_options_of_the_cluster(andon: Andon, tmp_path: Path, images: Path) -> None:
    run = ("bench", "run", "-d", images, "-s", tmp_path / "store")
    assert "give --engine ray with it" in andon(*run, "--address", "auto", code=2).stderr
    assert "--jobs 2" in andon(*run, "--engine", "ray", "-j", "2", code=2).stderr
    assert "cuda:1" in andon(*run, "--engine", "ray", "--device", "cuda:1", code=2).stderr


def test_presets_that_contradict_each_other_are_refused(andon: Andon, tmp_path: Path, images: Path) -> None:
    run = ("bench", "run", "-d", images, "-s", tmp_path / "store", "--embedded", "--preset", "study")
    assert "give one of them" in andon(*run, code=2).stderr


def test_plans_are_listed(andon: Andon) -> None:
    text = andon("bench", "plans").stdout
    assert re.search(r"^autovi-study +AutoVI: the study of Carvalho et al. 2024$", text, re.MULTILINE)
