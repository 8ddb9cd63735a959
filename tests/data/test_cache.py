from __future__ import annotations

import errno
import io
import multiprocessing
import os
import pickle
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from andon.data.cache import ArrayCache


def entries(cache: ArrayCache) -> list[Path]:
    return sorted(cache.root.rglob("*.arrays"))


def size(cache: ArrayCache) -> int:
    return sum(path.stat().st_size for path in entries(cache))


@pytest.fixture
def cache(tmp_path: Path) -> ArrayCache:
    return ArrayCache(tmp_path / "cache")


arrays = hnp.arrays(
    dtype=hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.unsigned_integer_dtypes() | hnp.floating_dtypes(),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(arrays, max_size=4))
def test_what_goes_in_comes_out(tmp_path: Path, stored: list[np.ndarray]) -> None:
    cache = ArrayCache(tmp_path)
    cache.put("kind", "key", stored)
    found = cache.get("kind", "key")
    assert found is not None
    assert len(found) == len(stored)
    for left, right in zip(found, stored, strict=True):
        assert left.dtype == right.dtype
        assert left.flags.writeable
        np.testing.assert_array_equal(left, right)


def test_non_contiguous_and_aligned(cache: ArrayCache) -> None:
    strided = np.arange(60.0).reshape(6, 10)[::2, ::3].T
    cache.put("k", "a", (np.ones(3, np.uint8), strided))
    found = cache.get("k", "a")
    assert found is not None
    np.testing.assert_array_equal(found[1], strided)
    assert found[1].flags.aligned


def test_objects_are_refused(cache: ArrayCache) -> None:
    with pytest.raises(ValueError, match="cannot be cached"):
        cache.put("k", "a", (np.array([{}]),))


def test_nothing_there(cache: ArrayCache) -> None:
    assert cache.get("k", "a") is None
    assert not cache.root.exists()


def test_kinds_and_keys_are_apart_whatever_they_are_called(cache: ArrayCache) -> None:
    names = ["a", "b", "../a", "a/b", "", ".", "x" * 500, "ü", "con\0", "A b", "a" * 2, "-"]
    for i, kind in enumerate(names):
        for j, key in enumerate(names):
            cache.put(kind, key, (np.array([i, j]),))
    for i, kind in enumerate(names):
        for j, key in enumerate(names):
            found = cache.get(kind, key)
            assert found is not None
            assert found[0].tolist() == [i, j]
    assert len(entries(cache)) == len(names) ** 2
    assert {path.parts[len(cache.root.parts) :][0] for path in entries(cache)}.isdisjoint({"..", "."})


@pytest.mark.parametrize("where", [0, 3, 8, 12, 16, 20, 30, 70, -1])
def test_a_damaged_entry_is_absent_and_removed(cache: ArrayCache, where: int) -> None:
    cache.put("k", "a", (np.arange(100),))
    (path,) = entries(cache)
    data = bytearray(path.read_bytes())
    data[where] ^= 4
    path.write_bytes(data)
    assert cache.get("k", "a") is None
    assert not path.exists()
    cache.put("k", "a", (np.arange(100),))
    assert cache.get("k", "a") is not None


@pytest.mark.parametrize("keep", [0, 10, 24, 100, -1])
def test_a_truncated_or_grown_entry_is_absent(cache: ArrayCache, keep: int) -> None:
    cache.put("k", "a", (np.arange(100),))
    (path,) = entries(cache)
    whole = path.read_bytes()
    for damaged in (whole[:keep], whole + b"\0"):
        path.write_bytes(damaged)
        assert cache.get("k", "a") is None
        assert not path.exists()


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_damage(tmp_path: Path, data: st.DataObject) -> None:
    cache = ArrayCache(tmp_path)
    expected = np.arange(50, dtype=np.float32)
    cache.put("k", "a", (expected,))
    (path,) = entries(cache)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + 4] = data.draw(st.binary(max_size=6))
    path.write_bytes(content)
    found = cache.get("k", "a")
    assert found is None or np.array_equal(found[0], expected)


def test_overwriting(cache: ArrayCache) -> None:
    for i in range(3):
        cache.put("k", "a", (np.full(10, i),))
    found = cache.get("k", "a")
    assert found is not None
    assert found[0].tolist() == [2] * 10
    assert cache._total == size(cache)


class TestBound:
    def entry(self) -> np.ndarray:
        return np.zeros(1000, np.uint8)  # with its header 1,000 to 1,200 bytes on disk

    def test_total_stays_within_it(self, tmp_path: Path) -> None:
        cache = ArrayCache(tmp_path, max_bytes=20_000)
        for i in range(60):
            cache.put("k", str(i), (self.entry(),))
            assert size(cache) <= 20_000
        assert cache.get("k", "59") is not None
        assert cache.get("k", "0") is None
        assert len(entries(cache)) >= 14

    def test_the_longest_unused_go_first(self, tmp_path: Path) -> None:
        cache = ArrayCache(tmp_path, max_bytes=12_000)
        cache.touch_seconds = 0
        now = time.time()
        for i in range(9):
            cache.put("k", str(i), (self.entry(),))
            os.utime(cache._path("k", str(i)), (now - 1000 + i, now - 1000 + i))
        assert cache.get("k", "0") is not None  # used now
        for i in range(9, 12):
            cache.put("k", str(i), (self.entry(),))
        assert cache.get("k", "0") is not None
        assert cache.get("k", "1") is None

    def test_what_others_wrote_counts(self, tmp_path: Path) -> None:
        first, second = (ArrayCache(tmp_path, max_bytes=40_000) for _ in range(2))
        for i in range(80):
            (first, second)[i % 2].put("k", str(i), (self.entry(),))
        assert size(first) <= 40_000 * (1 + 1 / 32) + 1200

    def test_a_cache_found_too_large_shrinks(self, tmp_path: Path) -> None:
        large = ArrayCache(tmp_path)
        for i in range(30):
            large.put("k", str(i), (self.entry(),))
        ArrayCache(tmp_path, max_bytes=5_000).put("k", "new", (self.entry(),))
        assert size(large) <= 5_000

    def test_an_entry_larger_than_the_bound_is_not_stored(self, tmp_path: Path) -> None:
        for bound in (0, 500):
            cache = ArrayCache(tmp_path, max_bytes=bound)
            cache.put("k", "a", (self.entry(),))
            assert cache.get("k", "a") is None
        assert entries(cache) == []

    def test_what_a_killed_process_left_is_cleared(self, tmp_path: Path) -> None:
        cache = ArrayCache(tmp_path)
        cache.put("k", "a", (self.entry(),))
        folder = entries(cache)[0].parent
        (folder / "old.part").write_bytes(b"x")
        os.utime(folder / "old.part", (1, 1))
        (folder / "new.part").write_bytes(b"x")
        ArrayCache(tmp_path).put("k", "b", (self.entry(),))
        assert sorted(path.name for path in folder.glob("*.part")) == ["new.part"]

    def test_putting_does_not_scan_the_folder(self, cache: ArrayCache, monkeypatch: pytest.MonkeyPatch) -> None:
        cache.put("k", "a", (self.entry(),))
        monkeypatch.setattr(os, "scandir", lambda path: pytest.fail("scanned"))
        for i in range(20):
            cache.put("k", str(i), (self.entry(),))


class TestDisk:
    def test_full(self, cache: ArrayCache, monkeypatch: pytest.MonkeyPatch) -> None:
        cache.put("k", "before", (np.arange(3),))
        real, calls = os.replace, []

        def full(source: Any, target: Any) -> None:
            calls.append(source)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "replace", full)
        with pytest.warns(UserWarning, match="No space left on device"):
            cache.put("k", "0", (np.arange(3),))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # said once
            for i in range(5):
                cache.put("k", str(i), (np.arange(3),))
        assert len(calls) == 1
        monkeypatch.setattr(os, "replace", real)
        assert cache.get("k", "before") is not None
        assert cache.get("k", "0") is None
        assert list(cache.root.rglob("*.part")) == []

    def test_full_while_writing(self, cache: ArrayCache, monkeypatch: pytest.MonkeyPatch) -> None:
        class Full(io.BytesIO):
            def write(self, data: object) -> int:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

        monkeypatch.setattr(Path, "open", lambda self, mode: Full())
        with pytest.warns(UserWarning, match="quota"):
            cache.put("k", "a", (np.arange(3),))
        assert list(cache.root.rglob("*.part")) == []
        assert cache.get("k", "a") is None

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        cache = ArrayCache(tmp_path / "file")
        with pytest.warns(UserWarning, match="cannot be written"):
            cache.put("k", "a", (np.arange(3),))
        assert cache.get("k", "a") is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cache.put("k", "b", (np.arange(3),))
            with cache.lock("k"):
                pass
        other = ArrayCache(tmp_path / "file" / "below")
        with pytest.warns(UserWarning, match="cannot be written"), other.lock("k"):
            pass


def _write(root: Path, worker: int) -> None:
    cache = ArrayCache(root, max_bytes=60_000)
    for i in range(60):
        key = str(i % 20)
        cache.put("k", key, (np.full(500, i % 20), np.full(3, i % 20)))
        found = cache.get("k", str((i + worker) % 20))
        if found is not None and not (found[0] == (i + worker) % 20).all():
            os._exit(3)
    os._exit(0)


def _hold(root: Path, told: Any) -> None:
    with ArrayCache(root).lock("k"):
        told.set()
        time.sleep(600)


class TestProcesses:
    def test_writing_together(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=_write, args=(tmp_path, i)) for i in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * 3
        assert list(tmp_path.rglob("*.part")) == []

    def test_a_killed_process_frees_its_lock(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        told = context.Event()
        holder = context.Process(target=_hold, args=(tmp_path, told))
        holder.start()
        assert told.wait(30)
        got = threading.Event()

        def take() -> None:
            with ArrayCache(tmp_path).lock("k"):
                got.set()

        taker = threading.Thread(target=take)
        taker.start()
        assert not got.wait(0.2)
        holder.kill()
        holder.join()
        assert got.wait(30)
        taker.join()

    def test_the_same_thread_may_lock_twice_and_kinds_are_apart(self, cache: ArrayCache) -> None:
        with cache.lock("k"), cache.lock("k"), cache.lock("other"):
            pass

    def test_threads_exclude_each_other(self, cache: ArrayCache) -> None:
        inside, most = 0, 0

        def work() -> None:
            nonlocal inside, most
            with cache.lock("k"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.01)
                inside -= 1

        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 1

    def test_it_can_be_sent(self, cache: ArrayCache) -> None:
        cache.put("k", "a", (np.arange(3),))
        with cache.lock("k"):
            there = pickle.loads(pickle.dumps(cache))
        assert (there.root, there.max_bytes) == (cache.root, cache.max_bytes)
        assert there.get("k", "a")[0].tolist() == [0, 1, 2]


def test_it_writes_only_into_its_folder(cache: ArrayCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    cache.put("k", "a", (np.arange(3),))
    assert cache.get("k", "a") is not None
