"""What the tests of Uninformed Students and GCAD share: images, and what both methods promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from andon.core import ConfigError, DetectorError, ImageArray, WeightsError
from andon.methods import Detector, check_method, create_method
from tests.methods.trainings import assert_comes_back, assert_goes_on_after_a_kill

SIDE = 64


def images(count: int = 5, seed: int = 0, blot: bool = False) -> list[ImageArray]:
    """A disc that moves a little over stripes; with a bright blot where asked for."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    result = []
    for _ in range(count):
        dy, dx = rng.uniform(-2, 2, 2)
        grey = np.where(np.hypot(y - 30 - dy, x - 34 - dx) < 14, 180, 70 + 25 * np.sin(x / 4 + dx))
        shown = grey[..., None] * np.array([1.0, 0.9, 0.8]) + rng.normal(0, 2, (SIDE, SIDE, 3))
        if blot:
            shown[36:46, 18:28] = (20, 40, 220)
        result.append(np.clip(shown, 0, 255).astype(np.uint8))
    return result


def keeps_the_contract(name: str, options: dict[str, Any]) -> None:
    report = check_method(name, options, preset="paper")
    assert [item for item in report.items if item.outcome == "broken"] == []


def goes_on_after_a_kill(name: str, options: dict[str, Any], folder: Path) -> None:
    method = create_method(name, options, preset="paper")
    assert_goes_on_after_a_kill(method, folder, "normalisation", 0, images())


def comes_back_from_a_file(detector: Detector, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without looking for weights."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("weights are looked for")

    for place in ("load_patch_teacher", "create_extractor"):
        monkeypatch.setattr(f"andon.methods._patch_teachers.{place}", refuse)
    assert_comes_back(detector, folder, images(2, seed=2))


def refuses_wrong_states(detector: Detector) -> None:
    state = detector.state_dict()
    negative = state["moments"].clone()
    negative[0, 1] = 0
    for changed, message in (
        ({**state, "extra": torch.zeros(2)}, "unknown tensor extra"),
        ({n: t for n, t in state.items() if n != "moments"}, "lacks the tensor moments"),
        ({**state, "moments": negative}, "moments and teacher.std of the saved state must be positive"),
    ):
        with pytest.raises(DetectorError, match=message):
            detector.method.restore(changed, detector.report)


def exports(detector: Detector) -> None:
    batch = detector.transform.normalise(np.stack(images(1, seed=1)))
    exported = torch.export.export(detector, (batch,)).module()
    for found, expected in zip(exported(batch), detector(batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def says_what_is_wrong(name: str) -> None:
    for options, message in (
        ({"layers": ["layer1"]}, "layers must be empty"),
        ({"teacher": "resnet18"}, "one stage of an extractor for each"),
        ({"receptive_fields": (33, 33)}, "must be different"),
        ({"receptive_fields": (32,)}, "receptive_fields"),
        ({"transform": {"normalisation": "unit"}}, "imagenet"),
    ):
        with pytest.raises(ConfigError, match=message):
            create_method(name, options, preset="paper")
    with pytest.raises(WeightsError, match="authors publish no teacher"):
        create_method(name, preset="study").fit(images(2))
