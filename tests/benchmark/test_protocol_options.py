"""Augmentation and windows as options of a plan, from its text to the records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from andon.benchmark import Store, load_plan, run_plan
from andon.benchmark._moments import Moments
from andon.benchmark.expansion import expand
from andon.benchmark.record import Protocol
from andon.benchmark.runner import RunOptions, run_experiment
from andon.core import AndonError
from andon.data import Augmentation, load_dataset
from andon.methods import create_method
from tests.benchmark.factory import make_spec
from tests.benchmark.tiny import write_tiny

FAKE = Path(__file__).with_name("fake_method.py")
METHOD = f"{FAKE}:FakeMethod"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny", categories=("bolt",))


@pytest.fixture
def write(tmp_path: Path, tiny: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        plan = {"datasets": [str(tiny)], "methods": [METHOD], **changes}
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump(plan))
        return path

    return write


def test_experiments_without_the_new_options_are_what_they_were() -> None:
    # Hashes of the version before there was augmentation.
    assert make_spec().id == "043f8e638e6cb141"
    earlier = Protocol(shots=4, calibration_folds=3, fpr_limits=(0.05,))
    assert make_spec(protocol=earlier).id == "119ca2d36efc5e1e"


def test_every_option_of_an_augmentation_is_in_the_id() -> None:
    choices = [
        None, {}, {"rotation": 10}, {"rotation_probability": 0.4}, {"noise_variance": (10, 100)},
        {"noise_probability": 0.4}, {"versions": 2}, {"extra_passes": 2},
    ]  # fmt: skip
    specs = [make_spec(protocol=Protocol(augmentation=c)) for c in choices]  # type: ignore[arg-type]
    assert len({s.id for s in specs}) == len(choices)
    again = [type(s).model_validate_json(s.model_dump_json()) for s in specs]
    assert [s.id for s in again] == [s.id for s in specs]


def test_a_plan_says_study_or_options(write: Callable[..., Path]) -> None:
    methods = [
        METHOD,
        {"method": METHOD, "label": "A", "protocol": {"augmentation": "study"}},
        {"method": METHOD, "label": "B", "protocol": {"augmentation": {"rotation": 5}}},
        {"method": f"{FAKE}:Unseeded", "label": "C", "protocol": {"augmentation": "study"}},
        {"method": f"{FAKE}:Unseeded", "label": "D"},
    ]
    specs = expand(load_plan(write(methods=methods, seeds=2))).specs
    found = {s.label: s.protocol.augmentation for s in specs}
    assert (found["Fake"], found["A"], found["B"]) == (None, Augmentation(), Augmentation(rotation=5))
    # What is drawn brings chance to a method without any.
    assert [sum(s.label == label for s in specs) for label in "CD"] == [2, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": {"augmentation": "much"}}, 'protocol.augmentation: must be "study", or a mapping'),
        ({"protocol": {"augmentation": {"rotate": 3}}}, "unknown key; known: rotation, rotation_probability"),
        ({"protocol": {"augmentation": {"rotation": 200}}}, "protocol.augmentation.rotation: "),
        ({"datasets": [{"path": "x", "window": {"size": [4, 4]}}]}, "datasets[0].window.size: must be 8..8192"),
        (
            {"datasets": [{"path": "x", "window": {"sizes": 1}}]},
            "unknown key; known: size, place, centre, template, search",
        ),
        ({"datasets": [{"path": "x", "window": {}}]}, "datasets[0].window.size: is missing"),
    ],
)
def test_a_mistake_is_named(write: Callable[..., Path], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AndonError) as caught:
        load_plan(write(**changes))
    assert message in str(caught.value)
    assert "plan.yaml:" in str(caught.value)


def test_windows_are_data_sets_of_their_own(write: Callable[..., Path], tiny: Path) -> None:
    window = {"size": [16, 12], "place": "template"}
    named = {"path": str(tiny), "name": "mine", "window": {"size": [16, 12]}}
    datasets = [{"path": str(tiny), "window": window}, str(tiny), named]
    expanded = expand(load_plan(write(datasets=datasets)))
    assert list(expanded.datasets) == ["tiny 12×16", "tiny", "mine"]
    assert len({s.data_fingerprint for s in expanded.specs}) == len({s.id for s in expanded.specs}) == 3
    for spec in expanded.specs:
        sizes = {s.size() for s in expanded.category(spec).samples}
        assert sizes == ({(24, 20)} if spec.dataset == "tiny" else {(16, 12)})
    # The images as a whole are what is checked before a run.
    assert {s.size() for d in expanded.whole.values() for c in d for s in c.samples} == {(24, 20)}
    alone = expand(load_plan(write())).specs
    assert alone[0].id == next(s.id for s in expanded.specs if s.dataset == "tiny")


def test_one_folder_is_that_of_all_windows(write: Callable[..., Path], tiny: Path) -> None:
    datasets = [{"name": "a", "window": {"size": [16, 12]}}, {"name": "b"}]
    plan = load_plan(write(datasets=datasets)).with_data([tiny])
    assert [d.path for d in plan.content.datasets] == [str(tiny)] * 2
    half = [{"name": "a"}, {"path": "elsewhere"}]
    assert [d.path for d in load_plan(write(datasets=half)).with_data([tiny]).content.datasets][1] == "elsewhere"


def test_an_experiment_on_windows(write: Callable[..., Path], tmp_path: Path, tiny: Path) -> None:
    datasets = [str(tiny), {"path": str(tiny), "window": {"size": [16, 12], "place": "template"}}]
    summary = run_plan(write(datasets=datasets), tmp_path / "store", jobs=1)
    assert not summary.failed
    store = Store(tmp_path / "store")
    whole, window = store.records()
    assert window.notes[-1] == "windows of 12×16 pixels, found by template matching"
    assert whole.notes == ("a fake",)
    shown = store.gallery(window.spec.dataset, window.spec.category, window.spec.data_fingerprint)
    assert {i.size for i in shown} == {(16, 12)}
    assert list(run_plan(write(datasets=datasets), tmp_path / "store", jobs=1).finished) == []


@pytest.mark.parametrize("trained", [False, True])
def test_a_fit_on_augmented_images_is_one_on_their_versions(tiny: Path, tmp_path: Path, trained: bool) -> None:
    """The fake learns the mean image, so what it has learned tells what it was shown."""
    category = load_dataset(tiny)["bolt"]
    choice = Augmentation(versions=3, extra_passes=2, noise_probability=1)
    reference = f"{FAKE}:{'Trained' if trained else 'FakeMethod'}"
    config = create_method(reference, {"noise": 0.0}).config.model_dump(mode="json")
    spec = make_spec(
        method=reference, config=config, protocol=Protocol(augmentation=choice, calibration_folds=2), seed=3
    )
    store = Store(tmp_path / "store", create=True)
    record = run_experiment(spec, category, store, options=RunOptions(keep_model=True))
    assert record.n_train == len(category.train) == 5
    assert any("augmentation: rotation ±15° (p 0.5)" in note for note in record.notes)
    assert record.seeded
    from safetensors.numpy import load_file

    path = store.model_path(spec.id)
    assert path is not None
    learned = load_file(path)["mean"]
    shown = []
    for sample in category.train:
        whole = Image.fromarray(sample.image())
        numbers = range(3) if trained else range(1, 3)
        shown += [] if trained else [np.asarray(whole.resize((16, 16), Image.Resampling.BILINEAR)).astype(float)]
        for number in numbers:
            draw = choice.draw(3, sample.id, number)
            turned = Image.fromarray(draw.rotated(np.asarray(whole))).resize((16, 16), Image.Resampling.BILINEAR)
            shown.append(draw.noised(np.asarray(turned)).astype(float))
    expected = np.mean(shown, axis=0).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(learned, expected, atol=1e-5)
    plain = run_experiment(make_spec(method=reference, config=config, seed=3), category, store)
    assert plain.evaluation != record.evaluation


def test_calibration_keeps_moments_of_the_maps_of_held_out_images(tiny: Path, tmp_path: Path) -> None:
    category = load_dataset(tiny)["bolt"]
    config = create_method(METHOD, {"noise": 0.0}).config.model_dump(mode="json")
    spec = make_spec(method=METHOD, config=config, protocol=Protocol(calibration_folds=5))
    store = Store(tmp_path / "store", create=True)
    run_experiment(spec, category, store)
    values = []
    for held_out in category.train:
        rest = [s for s in category.train if s is not held_out]
        maps = create_method(METHOD, {"noise": 0.0}).fit(rest).predict([held_out]).anomaly_maps
        assert maps is not None
        values.append(maps)
    moments = store.arrays(spec.id).calibration_map_moments
    np.testing.assert_allclose(moments, [np.mean(values), np.std(values)], rtol=1e-5)
    other = make_spec(method=METHOD, config=config)
    run_experiment(other, category, store)
    assert store.arrays(other.id).calibration_map_moments is None


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), max_size=6), max_size=6))
def test_moments_of_parts_are_those_of_the_whole(parts: list[list[float]]) -> None:
    moments = Moments()
    for part in parts:
        moments.add(np.asarray(part, dtype=np.float32))
    whole = np.concatenate([np.asarray(p, dtype=np.float64) for p in parts]) if parts else np.zeros(0)
    found = moments.result()
    if not len(whole):
        assert found is None
        return
    np.testing.assert_allclose(found, [whole.mean(), whole.std()], rtol=1e-9, atol=1e-6)


def test_first_keeps_all_maps_of_the_first_seed(write: Callable[..., Path], tmp_path: Path) -> None:
    run_plan(write(seeds=2, keep_maps="first"), tmp_path / "store", jobs=1)
    store = Store(tmp_path / "store")
    first, second = (store.maps(r.id) for r in store.records())
    assert first is not None
    assert len(first) == 7
    assert second is None
