from __future__ import annotations

import contextlib
import errno
import json
import math
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from andon._tools import files
from andon.benchmark import plan_status
from andon.benchmark._serial import digest
from andon.benchmark.gallery import GalleryMaps, shrink
from andon.benchmark.record import Failure, StoredPlan
from andon.benchmark.store import Store
from andon.core import AndonError, FullFrame, Region, StoreError
from andon.evaluation.result import Evaluation, EvaluationArrays, ImageMetrics, OperatingPoint
from tests.benchmark.factory import make_arrays, make_record, make_spec


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def make_plan(*specs: Any, name: str = "plan") -> StoredPlan:
    return StoredPlan(
        name=name, title="", source="", content={}, base="/", seeds=(0,), datasets=(), specs=specs or (make_spec(),)
    )


def make_maps(count: int = 2) -> GalleryMaps:
    rng = np.random.default_rng(0)
    maps = tuple(rng.random((3, 4 + i), dtype=np.float32) for i in range(count))
    return GalleryMaps(tuple(f"test/x/{i:04d}" for i in range(count)), maps, (FullFrame,) * count)


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(
    dataset=text,
    category=text,
    config=st.dictionaries(text, json_values, max_size=3),
    auroc=st.none() | finite,
    threshold=st.floats(allow_nan=False),
    notes=st.lists(text, max_size=2),
    loss=st.lists(st.tuples(st.integers(0, 9), st.floats()), max_size=3),
    log=st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20),
)
def test_what_is_kept_comes_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    dataset: str,
    category: str,
    config: dict[str, Any],
    auroc: float | None,
    threshold: float,
    notes: list[str],
    loss: list[tuple[int, float]],
    log: str,
) -> None:
    evaluation = Evaluation(
        image=ImageMetrics(n_good=1, n_defective=1, auroc=auroc),
        operating_points=(OperatingPoint(source="test good", target_tnr=0.99, threshold=threshold, fpr=None, fnr=0.5),),
    )
    spec = make_spec(dataset=dataset, category=category, config=config)
    record = make_record(spec, evaluation=evaluation, notes=tuple(notes), curves={"loss": loss})
    store = Store(tmp_path_factory.mktemp("round") / "store", create=True)
    store.write_experiment(record, make_arrays(), log=log)
    back = Store(store.root).record(spec.id)
    assert repr(back) == repr(record)  # repr: NaN equals itself in it
    assert back.spec.id == spec.id
    assert store.log(spec.id) == log
    assert store.repair() == []


@settings(max_examples=25, deadline=None)
@given(
    scores=hnp.arrays(np.float32, st.integers(1, 6), elements=st.floats(width=32, allow_nan=False)),
    maps=st.lists(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=4)), max_size=3),
    names=st.lists(text, min_size=6, max_size=6),
    corner=st.floats(0, 0.9),
)
def test_arrays_and_maps_come_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    scores: np.ndarray[Any, Any],
    maps: list[np.ndarray[Any, Any]],
    names: list[str],
    corner: float,
) -> None:
    count = len(scores)
    arrays = EvaluationArrays(
        sample_ids=tuple(names[:count]), defect_types=("good",) * count, image_scores=scores, calibration_scores=scores
    )
    regions = (Region(corner, 0, 1, 0.5),) * len(maps)
    kept = GalleryMaps(tuple(names[: len(maps)]), tuple(maps), regions)
    store = Store(tmp_path_factory.mktemp("round") / "store", create=True)
    record = make_record()
    store.write_experiment(record, arrays, maps=kept)
    back, back_maps = store.arrays(record.id), store.maps(record.id)
    assert (back.sample_ids, back.defect_types) == (arrays.sample_ids, arrays.defect_types)
    np.testing.assert_array_equal(back.image_scores, scores)
    np.testing.assert_array_equal(back.calibration_scores, scores)
    assert back_maps is not None
    assert (back_maps.sample_ids, back_maps.regions) == (kept.sample_ids, regions)
    for ours, theirs in zip(back_maps.maps, maps, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_model_maps_and_log_are_optional(store: Store) -> None:
    record = make_record()
    store.write_experiment(record, make_arrays())
    assert store.maps(record.id) is None
    assert store.model_path(record.id) is None
    assert store.log(record.id) == ""
    other = make_record(make_spec(seed=1))
    store.write_experiment(other, make_arrays(), detector=b"what was learned", maps=make_maps())
    path = store.model_path(other.id)
    assert path is not None
    assert path.read_bytes() == b"what was learned"
    found = store.maps(other.id)
    assert found is not None
    assert found.get("test/x/0001") is not None
    assert found.get("test/x/0009") is None


def test_a_result_that_is_there_stays(store: Store) -> None:
    store.write_experiment(make_record(auroc=0.9), make_arrays())
    store.write_experiment(make_record(auroc=0.1), make_arrays())
    assert store.records()[0].evaluation.image.auroc == 0.9
    assert not any(store.scratch.iterdir())


def test_a_result_ends_its_failure(store: Store) -> None:
    record = make_record()
    failure = Failure(id=record.id, spec=record.spec, kind="killed", reason="killed by signal 9", started="", seconds=1)
    store.write_failure(failure)
    assert store.failures() == [failure]
    store.write_experiment(record, make_arrays())
    assert store.failures() == []
    assert not any((store.root / "failures").iterdir())


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _remove(path: Path) -> None:
    path.unlink()


def _not_json(path: Path) -> None:
    path.write_text("{")


@pytest.mark.parametrize("name", ["record.json", "arrays.npz", "maps.npz", "log.txt", "manifest.json"])
@pytest.mark.parametrize("damage", [_truncate, _flip, _remove, _not_json])
def test_a_damaged_entry_is_named_set_aside_and_nothing_else_is_lost(
    store: Store, name: str, damage: Callable[[Path], None]
) -> None:
    good, bad = make_record(), make_record(make_spec(seed=1))
    for record in (good, bad):
        store.write_experiment(record, make_arrays(), maps=make_maps(), log="all went well\n")
    damage(store.path(bad.id) / name)

    (message,) = store.repair()
    assert "\n" not in message
    assert str(store.path(bad.id)) in message
    assert "damaged" in message
    assert "done again" in message
    assert bad.id not in store
    assert (store.root / "corrupt" / bad.id).is_dir()
    assert store.records() == [good]
    assert store.problems == []
    assert store.repair() == []
    # It can be done again, and damaged again.
    store.write_experiment(bad, make_arrays())
    _remove(store.path(bad.id) / "record.json")
    store.repair()
    assert (store.root / "corrupt" / f"{bad.id}.2").is_dir()


def test_reading_leaves_damage_out_and_touches_nothing(store: Store) -> None:
    good, bad = make_record(), make_record(make_spec(seed=1))
    for record in (good, bad):
        store.write_experiment(record, make_arrays())
    _flip(store.path(bad.id) / "record.json")
    before = sorted(store.root.rglob("*"))
    assert store.records() == [good]
    assert len(store.problems) == 1
    assert bad.id in store.problems[0]
    assert sorted(store.root.rglob("*")) == before
    _truncate(store.path(good.id) / "arrays.npz")
    with pytest.raises(AndonError, match=r"arrays\.npz: damaged"):
        store.arrays(good.id)
    with pytest.raises(AndonError, match="has no experiment"):
        store.record("0" * 16)


def test_an_entry_of_another_experiment_is_damage(store: Store) -> None:
    record = make_record()
    store.write_experiment(record, make_arrays())
    other = make_spec(seed=7).id
    shutil.copytree(store.path(record.id), store.path(other))
    (message,) = store.repair()
    assert other in message
    assert store.ids() == (record.id,)


def test_damaged_plans_and_failures_are_set_aside_too(store: Store) -> None:
    store.write_plan(make_plan())
    (store.root / "failures").mkdir()
    (store.root / "failures" / "x.json").write_text("{}")
    _truncate(next((store.root / "plans").iterdir()))
    messages = store.repair()
    assert len(messages) == 2
    assert store.plans() == ()
    assert store.failures() == []


@pytest.mark.parametrize("where", ["write", "fsync", "rename"])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    kept = make_record()
    store.write_experiment(kept, make_arrays())
    store.write_plan(make_plan())

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if where == "write":
            patch.setattr(Path, "write_bytes", full)
            patch.setattr(files.os, "fsync", full)
        elif where == "fsync":
            patch.setattr(files.os, "fsync", full)
        else:
            patch.setattr(Path, "rename", full)
            patch.setattr(Path, "replace", full)
        other = make_record(make_spec(seed=1))
        failure = Failure(id=other.id, spec=other.spec, kind="error", reason="", started="", seconds=0)
        for write in (
            lambda: store.write_experiment(other, make_arrays()),
            lambda: store.write_failure(failure),
            lambda: store.write_plan(make_plan(make_spec(), make_spec(seed=1))),
            lambda: store.write_gallery("tiny", "bolt", "f", []),
        ):
            with pytest.raises(StoreError, match="No space left on device") as caught:
                write()
            assert "\n" not in str(caught.value)
            assert str(store.root) in str(caught.value)
    assert store.ids() == (kept.id,)
    assert store.failures() == []
    assert len(store.plans()[0].specs) == 1
    assert list(store.scratch.iterdir()) == []
    assert store.repair() == []


def _write_many(root: str, start: int) -> None:
    store = Store(root)
    for seed in range(start, start + 5000):
        store.write_experiment(make_record(make_spec(seed=seed)), make_arrays(500), log="x" * 5000)


def test_a_writer_killed_at_any_moment_leaves_whole_entries_only(store: Store) -> None:
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    for round_ in range(4):
        writer = context.Process(target=_write_many, args=(str(store.root), round_ * 5000))
        before = len(store)
        writer.start()
        deadline = time.monotonic() + 60
        while len(store) < before + 5:
            assert writer.is_alive()
            assert time.monotonic() < deadline
        writer.kill()
        writer.join()
    found = store.ids()
    assert store.repair() == [], "an entry was half there"
    assert store.ids() == found
    assert len(store.records()) == len(found) >= 20
    assert not store.scratch.exists() or not any(store.scratch.iterdir())


def test_two_runs_do_not_write_at_once(store: Store) -> None:
    with store.lock():
        with pytest.raises(AndonError, match="another run is writing"), Store(store.root).lock():
            pass
        Store(store.root).records()  # reading is free
    with Store(store.root).lock():
        pass


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AndonError, match="no benchmark store there"):
        Store(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(AndonError, match="is a file"):
        Store(tmp_path / "file", create=True)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_text("")
    with pytest.raises(AndonError, match="not empty"):
        Store(photos, create=True)
    newer = Store(tmp_path / "newer", create=True)
    (newer.root / "store.json").write_text(json.dumps({"format": "andon-store", "version": 99}))
    with pytest.raises(AndonError, match="newer Andon"):
        Store(newer.root)
    (newer.root / "store.json").write_text("[]")
    with pytest.raises(AndonError, match="not the header"):
        Store(newer.root)


def test_records_follow_the_plans(store: Store) -> None:
    a, b, old = make_spec(), make_spec(seed=1), make_spec(seed=2)
    for spec in (old, b, a):
        store.write_experiment(make_record(spec), make_arrays())
    assert len(store.records()) == 3  # no plan: everything
    renamed = [s.model_copy(update={"label": "P"}) for s in (a, b)]
    store.write_plan(make_plan(*renamed))
    assert [(r.spec.seed, r.spec.label) for r in store.records()] == [(0, "P"), (1, "P")]
    assert [(r.spec.seed, r.spec.label) for r in store.records(everything=True)][2] == (2, "Patchcore (earlier)")
    # A plan of the same name replaces it, one of another adds.
    store.write_plan(make_plan(b))
    assert [r.spec.seed for r in store.records()] == [1]
    store.write_plan(make_plan(a, name="other"))
    assert {r.spec.seed for r in store.records()} == {0, 1}


def test_one_label_for_two_configurations_is_told_apart(store: Store) -> None:
    one, two = make_spec(), make_spec(config={"ratio": 0.5})
    for spec in (one, two):
        store.write_experiment(make_record(spec), make_arrays())
    store.write_plan(make_plan(one, name="first"))
    store.write_plan(make_plan(two, name="second"))
    assert [r.spec.label for r in store.records()] == ["Patchcore (first)", "Patchcore (second)"]


def test_names_of_plans_may_hold_anything(store: Store) -> None:
    for name in ("../../etc/passwd", "a/b", "a:b", "ä" * 300, "a-b"):
        store.write_plan(make_plan(name=name))
    assert len(store.plans()) == 5
    assert {p.parent.name for p in store.root.rglob("*.json")} == {store.root.name, "plans"}
    assert store.plan("a/b") is not None


def test_gallery_keeps_small_copies(store: Store) -> None:
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(1500), np.arange(700)) % 200
    large = np.repeat(smooth[:, :, None], 3, axis=2).astype(np.uint8)
    mask = np.zeros((1500, 700), dtype=bool)
    mask[777, 333] = True
    small = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    images = [shrink("a", "scratch", large, mask), shrink("b", "good", small, None)]
    store.write_gallery("d", "c", "f", images)
    store.write_gallery("d", "c", "f", [])  # the first stays
    first, second = store.gallery("d", "c", "f")
    assert (first.sample_id, first.defect_type, first.size) == ("a", "scratch", (1500, 700))
    assert first.image.shape == (512, 239, 3)
    assert first.mask is not None
    assert first.mask.shape == (512, 239)
    assert 1 <= first.mask.sum() <= 4, "a defect of one pixel must stay to be seen, and small"
    assert (second.size, second.image.shape, second.mask) == ((20, 30), (20, 30, 3), None)
    assert store.gallery("d", "other", "f") == []


def test_a_damaged_gallery_is_named(store: Store) -> None:
    store.write_gallery("d", "c", "f", [shrink("a", "good", np.zeros((9, 9, 3), dtype=np.uint8), None)])
    (folder,) = (store.root / "galleries").iterdir()
    (folder / "0.jpg").write_bytes(b"no image")
    assert store.gallery("d", "c", "f") == []
    assert "damaged" in store.problems[0]
    (message,) = store.repair()
    assert str(folder) in message
    assert not store.has_gallery("d", "c", "f")


def test_infinite_figures_survive_as_valid_json(store: Store) -> None:
    record = make_record(curves={"loss": [(0, math.inf), (1, math.nan)]})
    store.write_experiment(record, make_arrays())
    content = (store.path(record.id) / "record.json").read_text()
    json.loads(content, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert math.isinf(store.record(record.id).curves["loss"][0][1])
    assert math.isnan(store.record(record.id).curves["loss"][1][1])


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def _mutated(value: Any, data: st.DataObject) -> Any:
    """JSON with one part of it replaced, taken away or added."""
    if isinstance(value, dict | list) and value and data.draw(st.integers(0, 4)):
        places = list(value) if isinstance(value, dict) else list(range(len(value)))
        place = data.draw(st.sampled_from(places))
        changed = dict(value) if isinstance(value, dict) else list(value)
        if not data.draw(st.integers(0, 6)):
            del changed[place]
        else:
            changed[place] = _mutated(value[place], data)
        return changed
    return data.draw(any_json)


def _read_everything(root: Path) -> None:
    """All that the store gives; nothing but StoreErrors may come."""
    store = Store(root)
    plan_status(root)
    store.plans(), store.specs(), store.failures(), store.records(), store.records(everything=True)
    for experiment_id in store.ids():
        for read in (store.record, store.arrays, store.maps, store.model_path, store.log):
            with contextlib.suppress(StoreError):
                read(experiment_id)
    store.gallery("tiny", "bolt", "f" * 32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one of everything."""
    store = Store(tmp_path_factory.mktemp("whole") / "store", create=True)
    done, failed = make_spec(), make_spec(seed=1)
    store.write_plan(make_plan(done, failed))
    store.write_experiment(make_record(done), make_arrays(), maps=make_maps(), log="well\n")
    store.write_failure(
        Failure(id=failed.id, spec=failed, kind="killed", reason="x", started="", seconds=1.0, detail="y")
    )
    pixels = np.zeros((8, 9, 3), dtype=np.uint8)
    picture = shrink("test/x/0000", "broken", pixels, np.zeros((8, 9), dtype=bool))
    store.write_gallery("tiny", "bolt", "f" * 32, [picture])
    return store.root


KINDS = (
    "experiments/*/manifest.json",
    "experiments/*/record.json",
    "plans/*",
    "failures/*",
    "galleries/*/gallery.json",
)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), kind=st.sampled_from((*KINDS, "store.json")))
def test_json_of_any_shape_is_one_error_and_set_aside(
    data: st.DataObject, kind: str, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("any") / "store"
    shutil.copytree(whole, root)
    (path,) = root.glob(kind)
    before = json.loads(path.read_text())
    after = _mutated(before, data)
    path.write_text(json.dumps(after))
    if kind.endswith("record.json"):  # as somebody would who makes a store by hand: with the right checksum
        manifest = json.loads((path.parent / "manifest.json").read_text())
        content = path.read_bytes()
        manifest["files"]["record.json"] = {"bytes": len(content), "blake2b": digest(content)}
        (path.parent / "manifest.json").write_text(json.dumps(manifest))
    if kind == "store.json":
        try:
            _read_everything(root)
        except StoreError as error:
            assert "store.json" in str(error) or "newer" in str(error)  # noqa: PT017
        return
    _read_everything(root)
    lines = Store(root).repair()
    assert all("\n" not in line and len(line) < 1500 for line in lines)
    _read_everything(root)
    assert Store(root).repair() == []
    assert Store(root).records(everything=True) or lines or "record" in kind


@pytest.mark.parametrize("entry", [None, 1, "x", [], ["bytes"], {}, {"bytes": 1}, {"bytes": "a", "blake2b": 2}])
@pytest.mark.parametrize("name", ["record.json", "arrays.npz", "log.txt"])
def test_a_manifests_odd_entry_blocks_nothing(store: Store, entry: object, name: str) -> None:
    good, bad = make_record(), make_record(make_spec(seed=1))
    for record in (good, bad):
        store.write_experiment(record, make_arrays())
    path = store.path(bad.id) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = entry
    path.write_text(json.dumps(manifest))
    assert store.records() == [good]
    (line,) = store.repair()
    assert "manifest.json: damaged" in line
    assert store.ids() == (good.id,)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, "1e400", "\ud800", "", "NaN"])
@pytest.mark.parametrize("kind", KINDS)
def test_json_that_exhausts_a_parser_is_damage(whole: Path, tmp_path: Path, kind: str, content: str) -> None:
    root = tmp_path / "store"
    shutil.copytree(whole, root)
    (path,) = root.glob(kind)
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    _read_everything(root)
    assert len(Store(root).repair()) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("kind", [*KINDS, "experiments/*/arrays.npz", "galleries/*/0.jpg"])
def test_a_pipe_in_a_store_hangs_nothing(whole: Path, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "store"
    shutil.copytree(whole, root)
    (path,) = root.glob(kind)
    path.unlink()
    os.mkfifo(path)
    _read_everything(root)
    assert len(Store(root).repair()) == 1


@pytest.mark.parametrize("kind", [*KINDS, "experiments/*/arrays.npz", "experiments/*/log.txt", "galleries/*/0.jpg"])
@pytest.mark.parametrize("what", ["terabyte", "device"])
def test_no_file_of_a_store_is_read_without_end(whole: Path, tmp_path: Path, kind: str, what: str) -> None:
    root = tmp_path / "store"
    shutil.copytree(whole, root)
    (path,) = root.glob(kind)
    path.unlink()
    if what == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    _read_everything(root)
    assert Store(root).log(next(iter(Store(root).ids()))) == "" or "log" not in kind
    (line,) = Store(root).repair()
    assert ("a device, not a regular file" if what == "device" else "1,099,511,627,776 bytes are too many") in line


def test_a_gallery_of_one_image_named_without_end_is_damage(whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(whole, root)
    (path,) = root.glob("galleries/*/gallery.json")
    content = json.loads(path.read_bytes())
    content["pictures"] *= 10_000
    path.write_text(json.dumps(content))
    (line,) = Store(root).repair()
    assert "names a file twice" in line
