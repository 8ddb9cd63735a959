"""``andon bench``: the whole way on tiny images."""

from __future__ import annotations

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


def test_dry_run_lists_and_does_nothing(andon: Andon, tmp_path: Path, images: Path) -> None:
    lines = andon(
        "bench", "run", "-d", images, "-s", tmp_path / "store", "--dry-run", "--seeds", "2"
    ).stdout.splitlines()
    assert lines[-1] == "5 experiments"  # the floor once, PaDiM and Patchcore twice
    assert lines[0].split() == ["id", "data", "set", "category", "method", "seed"]
    assert not (tmp_path / "store").exists()


def test_presets_that_contradict_each_other_are_refused(andon: Andon, tmp_path: Path, images: Path) -> None:
    run = ("bench", "run", "-d", images, "-s", tmp_path / "store", "--embedded", "--preset", "study")
    assert "give one of them" in andon(*run, code=2).stderr


def test_plans_are_listed(andon: Andon) -> None:
    text = andon("bench", "plans").stdout
    assert "autovi-study  AutoVI: the study of Carvalho et al. 2024" in text
