"""The methods that CONTRIBUTING shows run as they stand, and keep the contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import andon
from andon.methods import FitRun, check_method, create_method
from andon.methods.contract_check import generated_images

BLOCKS = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8").split("```python\n")[1:]
METHODS = {"median_image.py": "MedianImage", "tiny_autoencoder.py": "TinyAutoencoder"}
SMALL = {"transform": {"size": [32, 32], "normalisation": "unit"}}


@pytest.fixture
def examples(tmp_path: Path) -> dict[str, str]:
    """A reference of each example's class by the name of its file."""
    references = {}
    for block in BLOCKS:
        text = block.split("```", 1)[0]
        name = text.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(text, encoding="utf-8")
        references[name] = f"{tmp_path / name}:{METHODS[name]}"
    return references


def test_every_example_keeps_the_contract(examples: dict[str, str]) -> None:
    assert set(examples) == set(METHODS)
    for reference in examples.values():
        report = check_method(reference, {**SMALL, "batch_size": 4})
        assert [(i.requirement, i.detail) for i in report.items if i.outcome == "broken"] == []


def test_the_trained_one_learns_goes_on_and_is_loaded(examples: dict[str, str], tmp_path: Path) -> None:
    reference = examples["tiny_autoencoder.py"]
    method = create_method(reference, {**SMALL, "steps": 60, "learning_rate": 0.01})
    train, test = generated_images(6, seed=1), generated_images(4, seed=2)
    detector = method.fit(train)
    curve = dict(detector.report.curves)["reconstruction"]
    assert curve[-1][1] < 0.5 * curve[0][1], "the loss falls"
    detector.save(tmp_path / "detector")
    loaded = andon.load(tmp_path / "detector", method=method)
    np.testing.assert_array_equal(loaded.predict(test).image_scores, detector.predict(test).image_scores)

    class StoppedError(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if done >= 30:
            raise StoppedError

    checkpoints = tmp_path / "checkpoints"
    with pytest.raises(StoppedError):
        method.fit(train, run=FitRun(progress=stop, checkpoints=checkpoints, checkpoint_seconds=0.0))
    again = method.fit(train, run=FitRun(checkpoints=checkpoints))
    np.testing.assert_array_equal(again.predict(test).image_scores, detector.predict(test).image_scores)
    short = create_method(reference, {**SMALL, "steps": 60, "budget": 0.1}).fit(train)
    assert "shortened training: 6 steps instead of 60 (budget 0.1)" in short.report.notes
