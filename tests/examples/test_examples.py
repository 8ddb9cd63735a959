"""The examples run as they stand, on tiny data."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import andon
from tests.benchmark.tiny import save, write_tiny

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_all_examples_are_tested() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tested


def test_benchmark_my_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for kind, count in (("good", 8), ("scratch", 3)):
        for index in range(count):
            pixels = rng.integers(100, 130, (24, 20, 3), dtype=np.uint8)
            pixels[6:12, 5:10] = 250 if kind == "scratch" else pixels[6:12, 5:10]
            save(tmp_path / "images" / kind / f"{index}.png", pixels)
    module = example("benchmark_my_folder", monkeypatch)
    # Fitting the embedded features to the good images takes most of a minute, however few there are.
    monkeypatch.setattr(module, "METHODS", ("thumbnail-nn", f"{EXAMPLES / 'my_own_method.py'}:MedianImage"))
    monkeypatch.setattr(module, "PRESET", None)
    module.main(tmp_path / "images", tmp_path / "runs")
    shown = capsys.readouterr().out
    assert "AUROC" in shown
    assert "Median image" in shown
    assert (tmp_path / "runs" / "report.html").is_file()


def test_my_own_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_tiny(tmp_path / "data")
    module = example("my_own_method", monkeypatch)
    module.main(data)
    assert "bolt: image AUROC 1.000" in capsys.readouterr().out
    category = andon.load_dataset(data)["bolt"]
    detector = module.MedianImage().fit(category)
    prediction = detector.predict(category.test[:3])
    assert prediction.anomaly_maps.shape == (3, 64, 64)
    one_by_one = [detector.predict(sample.path).image_scores[0] for sample in category.test[:3]]
    assert prediction.image_scores.tolist() == one_by_one


def test_judge_my_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_tiny(tmp_path / "data")
    dataset = andon.load_dataset(data)
    for sample in dataset["bolt"].test:
        path = tmp_path / "maps" / "bolt" / sample.defect_type / f"{sample.path.stem}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        truth = np.zeros((24, 20), np.float32)
        truth[6:12, 5:10] = sample.is_defective
        np.save(path, truth)
    example("judge_my_maps", monkeypatch).main(tmp_path / "maps", data)
    shown = capsys.readouterr().out
    assert "bolt: image AUROC 1.000" in shown
    assert "bolt: AUsPRO to a pixel FPR of 0.05: 1.000" in shown
    assert "nut: not judged: " in shown
