from __future__ import annotations

from typing import Any

import pytest

from andon.benchmark.comparison import comparability
from andon.benchmark.published import METHODS
from andon.benchmark.record import Protocol
from andon.methods import create_method


def config(method: str, preset: str | None = "study", **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = create_method(method, options, preset=preset).config.model_dump(mode="json")
    return found


@pytest.mark.parametrize("method", METHODS)
def test_the_studys_presets_are_comparable(method: str) -> None:
    found = comparability(method, config(method))
    assert (found.comparable, found.preset, found.reason) == (True, "study", "")
    embedded = comparability(method, config(method, "embedded"))
    assert not embedded.comparable
    assert embedded.reason.startswith("not the study's configuration: ")


@pytest.mark.parametrize("method", ["draem", "dsr", "efficientad"])
def test_the_released_codes_presets_are_comparable(method: str) -> None:
    assert comparability(method, config(method, "released-code")).preset == "released-code"
    alone = comparability(method, config(method, "released-code"), presets=["study"])
    assert not alone.comparable


def test_what_never_changes_a_score_may_differ() -> None:
    assert comparability("patchcore", config("patchcore", batch_size=3, memory_limit=1.0)).comparable
    open_point = config("padim", transform={"antialias": False})
    assert open_point["transform"]["antialias"] is False
    assert comparability("padim", open_point).comparable
    assert comparability("padim", {}, Protocol(fpr_limits=(0.3, 0.05), calibration_folds=5)).comparable


@pytest.mark.parametrize(
    ("method", "options", "label"),
    [
        ("draem", {"budget": 0.1}, "budget 0.1 (study: 1)"),
        ("padim", {"backbone": "resnet50"}, "backbone resnet50 (study: resnet18)"),
        ("patchcore", {"weights": "random"}, "weights random (study: imagenet)"),
        (
            "efficientad",
            {"extra_normalisation": True},
            "extra_normalisation True (study: False) (Table 13 has figures for it)",
        ),
        ("padim", {"transform": {"size": (224, 224)}}, "transform.size [224, 224] (study: [256, 256])"),
        ("patchcore", {"transform": {"size": (256, 256)}}, "transform.crop none (study: [224, 224])"),
    ],
)
def test_anything_else_is_labelled(method: str, options: dict[str, Any], label: str) -> None:
    found = comparability(method, config(method, **options))
    assert found.reason == f"not the study's configuration: {label}"
    assert found.preset == ""


def test_protocols_weights_and_other_methods() -> None:
    assert comparability("padim", {}, Protocol(shots=4)).reason == "not the study's configuration: shots 4"
    few = comparability("patchcore", {}, Protocol(shots=4))
    assert few.reason == "not the study's configuration: shots 4 (Figure 5 has such curves)"
    augmented = comparability("padim", {}, Protocol.model_validate({"augmentation": "study"}))
    assert "augmentation (rotation 15, " in augmented.reason
    assert augmented.reason.endswith("(Table 11 has figures for the study's augmentation)")
    on_random = comparability("padim", {}, random_weights=["resnet18 (orthogonal, seed 0)"])
    assert on_random.reason.endswith("random weights (resnet18 (orthogonal, seed 0))")
    assert comparability("thumbnail-nn", {}).reason == "not a method of the study"
    assert comparability("file.py:Mine", {}).reason == "not a method of the study"
    assert "cannot be read" in comparability("padim", {"sigma": "wide"}).reason
    assert "cannot be read" in comparability("padim", {"no_such_option": 1}).reason
    assert comparability("padim", {}, presets=["no such"]).reason == "padim has no preset of the study's"


def test_many_differences_are_counted() -> None:
    assert comparability("patchcore", config("patchcore", "embedded")).reason.endswith(" more")
