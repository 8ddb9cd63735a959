"""Models of anomalib behind the contract; a module of its interface stands in for it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import andon
from andon.benchmark import Store, make_plan, run_plan
from andon.core import ConfigError
from andon.data import Transform
from andon.methods import FitRun, check_method, create_method, method_class
from andon.methods.anomalib_model import _adapted
from andon.methods.contract_check import generated_images
from andon.methods.registry import code_fingerprint
from tests.benchmark.tiny import write_tiny

FAKE = Path(__file__).parent / "fake_anomalib"
STEPS = {"trainer": {"max_steps": 5}, "train_batch_size": 4}


def forget() -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] in ("anomalib", "lightning")]:
        del sys.modules[name]
    _adapted.cache_clear()


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget()
    monkeypatch.syspath_prepend(FAKE)
    yield
    forget()


@pytest.mark.parametrize(
    ("reference", "options"),
    [
        ("anomalib:Padim", {}),
        ("anomalib:Dinomaly", STEPS),
        ("anomalib:EfficientAd", {"trainer": {"max_epochs": 2}}),
    ],
)
def test_it_keeps_the_contract(reference: str, options: dict[str, object]) -> None:
    report = check_method(reference, options)
    assert [(i.requirement, i.detail) for i in report.items if i.outcome == "broken"] == []


def test_scores_are_those_of_the_model(tmp_path: Path) -> None:
    train, test = generated_images(5, seed=1), generated_images(3, seed=2)
    method = create_method("anomalib:Padim")
    detector = method.fit(train)
    transform = method.config.transform
    bank = transform.normalise(np.stack([transform.resize(i) for i in train]))
    batch = transform.normalise(np.stack([transform.resize(i) for i in test]))
    maps = (batch[:, None] - bank[None]).square().sum(2).amin(1)
    found = detector.predict(test)
    np.testing.assert_allclose(found.anomaly_maps, maps.numpy(), rtol=1e-5)
    np.testing.assert_allclose(found.image_scores, maps.amax((1, 2)).numpy(), rtol=1e-5)
    detector.save(tmp_path / "detector")
    again = andon.load(tmp_path / "detector")
    assert again.name == "anomalib:Padim"
    np.testing.assert_array_equal(again.predict(test).image_scores, found.image_scores)


def test_its_own_preprocessing_becomes_the_transform() -> None:
    assert create_method("anomalib:Dinomaly").config.transform == Transform(size=(48, 48), crop=(32, 32))
    plain = Transform(size=(32, 32), normalisation="unit", antialias=False)
    assert create_method("anomalib:EfficientAd").config.transform == plain
    with pytest.raises(ConfigError, match="transform"):
        create_method("anomalib:WinClip")  # bicubic: the user has to say what comes nearest
    assert create_method("anomalib:WinClip", transform={"size": (24, 24)}).config.transform.size == (24, 24)


def test_names_and_lengths() -> None:
    assert method_class("anomalib:efficient_ad") is method_class("anomalib:EfficientAd")
    assert method_class("anomalib:Dinomaly").title == "Dinomaly (anomalib)"
    seen: list[tuple[int, int]] = []
    run = FitRun(progress=lambda stage, done, total: seen.append((done, total)) if stage == "training" else None)
    images = generated_images(3, seed=0)
    create_method("anomalib:Dinomaly", budget=0.001).fit(images, run=run)
    assert seen == [(i, 5) for i in range(1, 6)]  # 5000 steps in anomalib's example
    with pytest.raises(ConfigError, match=r"anomalib:Endless: anomalib does not say how long.*max_steps"):
        create_method("anomalib:Endless").fit(images)


def test_global_random_states_are_left_alone() -> None:
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    create_method("anomalib:Dinomaly", STEPS).fit(generated_images(3, seed=0))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert state == after


def test_it_stands_in_the_tables(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "data", categories=("bolt",))
    plan = make_plan([data], ["thumbnail-nn"]).with_methods(["anomalib:Padim"])
    summary = run_plan(plan, tmp_path / "store", jobs=1)
    assert [f.reason for f in summary.failed] == []
    records = Store(tmp_path / "store").records()
    assert [r.spec.label for r in records] == ["Thumbnail NN", "Padim (anomalib)"]
    assert records[1].spec.code_fingerprint == code_fingerprint("anomalib:Padim") != ""
    assert any("anomalib 2.6.0" in note for note in records[1].notes)


def test_what_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"anomalib has no model 'Dinomalie'; it has: Dinomaly, EfficientAd"):
        method_class("anomalib:Dinomalie")
    with pytest.raises(ConfigError, match="anomalib:Padim: the option model does not fit: unknown backbone vgg"):
        create_method("anomalib:Padim", model={"backbone": "vgg"}).fit(generated_images(2, seed=0))
    with pytest.raises(ConfigError, match=r"anomalib:Padim: the option model does not fit: .*unexpected keyword"):
        create_method("anomalib:Padim", model={"nonsense": 1}).fit(generated_images(2, seed=0))
    import anomalib

    monkeypatch.setattr(anomalib, "__version__", "1.2.0")
    with pytest.raises(ConfigError, match=r"anomalib 1\.2\.0 is too old"):
        method_class("anomalib:Padim")
    forget()
    monkeypatch.setitem(sys.modules, "anomalib", None)
    with pytest.raises(ConfigError, match=r"pip install 'andon\[anomalib\]'"):
        method_class("anomalib:Padim")
