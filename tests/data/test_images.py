from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from andon.core import AndonError
from andon.data import images as images_module
from andon.data.cache import ArrayCache
from andon.data.images import ImageMemory, Images, as_images
from andon.data.registry import load_dataset
from andon.data.transform import Transform

from .images import gradient, mvtec, save

SMALL = Transform(size=(8, 10), normalisation="unit")


@pytest.fixture(autouse=True)
def _fresh_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "_memory", ImageMemory(2**20))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were decoded, as they were."""
    names: list[str] = []
    real_image, real_sample = images_module.read_image, Images.image

    def image(self: Images, index: int) -> np.ndarray:
        names.append(self.name(index))
        return real_sample(self, index)

    assert real_image is not None
    monkeypatch.setattr(Images, "image", image)
    return names


def paths(folder: Path, n: int = 4) -> list[Path]:
    return [save(folder / f"{i}.png", gradient(seed=i)) for i in range(n)]


def test_samples_paths_and_arrays_are_alike(tmp_path: Path) -> None:
    category = load_dataset(mvtec(tmp_path / "b"))["b"]
    sample = category.train[1]
    images = Images([sample, sample.path, str(sample.path), gradient(seed=1)])
    for i in range(4):
        np.testing.assert_array_equal(images.image(i), gradient(seed=1))
    assert [images.name(i) for i in (0, 2, 3)] == [str(sample.path), str(sample.path), "image 3"]
    batch = next(iter(images.batches(SMALL, 8)))[1]
    assert batch.shape == (4, 3, 8, 10)
    assert all(torch.equal(batch[0], row) for row in batch)


def test_batches_are_in_order_and_whole(tmp_path: Path) -> None:
    images = Images(paths(tmp_path, 7))
    expected = torch.stack([SMALL.normalise(images.resized(i, SMALL)[None])[0] for i in range(7)])
    for batch_size in (1, 2, 3, 7, 50):
        found = list(images.batches(SMALL, batch_size))
        assert [i for indices, _ in found for i in indices] == list(range(7))
        assert max(len(indices) for indices, _ in found) <= batch_size
        assert torch.equal(torch.cat([batch for _, batch in found]), expected)
    assert list(Images([]).batches(SMALL, 4)) == []
    with pytest.raises(AndonError, match="batch_size"):
        next(images.batches(SMALL, 0))


def test_leaving_early_leaves_no_thread(tmp_path: Path) -> None:
    images = Images(paths(tmp_path, 8))
    before = threading.active_count()
    for _ in images.batches(SMALL, 1):
        break
    batches = images.batches(SMALL, 1)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_decoded_once_without_a_disk(tmp_path: Path, decoded: list[str]) -> None:
    files = paths(tmp_path)
    for _ in range(3):
        list(Images(files).batches(SMALL, 2))
    assert sorted(decoded) == sorted(map(str, files))
    list(Images(files).batches(SMALL.model_copy(update={"size": (9, 9)}), 2))
    assert len(decoded) == 8  # another geometry
    list(Images(files).batches(SMALL.model_copy(update={"normalisation": "imagenet"}), 2))
    assert len(decoded) == 8  # the same geometry


def test_decoded_once_with_a_disk(tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    files, cache = paths(tmp_path / "images"), ArrayCache(tmp_path / "cache")
    first = torch.cat([batch for _, batch in Images(files, cache).batches(SMALL, 2)])
    monkeypatch.setattr(images_module, "_memory", ImageMemory(0))  # another process
    again = torch.cat([batch for _, batch in Images(files, cache).batches(SMALL, 2)])
    assert torch.equal(first, again)
    assert len(decoded) == 4
    # The same content under another name is the same image.
    list(Images([save(tmp_path / "copy.png", gradient(seed=0))], cache).batches(SMALL, 2))
    assert len(decoded) == 4


@pytest.mark.parametrize("with_cache", [False, True])
def test_a_changed_file_is_read_anew(tmp_path: Path, with_cache: bool) -> None:
    (path,) = paths(tmp_path / "images", 1)
    images = Images([path], ArrayCache(tmp_path / "cache") if with_cache else None)
    before, known = images.resized(0, SMALL), images.fingerprint(0)
    save(path, gradient(seed=9))
    assert not np.array_equal(images.resized(0, SMALL), before)
    assert images.fingerprint(0) != known


def test_an_entry_of_another_shape_is_not_taken(tmp_path: Path) -> None:
    (path,) = paths(tmp_path, 1)
    cache = ArrayCache(tmp_path / "cache")
    images = Images([path], cache)
    cache.put(f"images-{SMALL.geometry_key}", images.fingerprint(0), (np.zeros((3, 3, 3), np.uint8),))
    np.testing.assert_array_equal(images.resized(0, SMALL), SMALL.resize(gradient(seed=0)))


def test_resized_images_cannot_be_spoilt(tmp_path: Path) -> None:
    same_size = Transform(size=(12, 17))
    array = gradient()
    for images in (Images(paths(tmp_path, 1)), Images([array])):
        with pytest.raises(ValueError, match="read-only"):
            images.resized(0, same_size)[0, 0, 0] = 1
    array[0, 0, 0] ^= 1  # the caller's own stays his own


def test_fingerprints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = paths(tmp_path, 2)
    images = Images([*files, gradient(seed=0), gradient(seed=0).reshape(17, 12, 3), gradient(seed=0)])
    prints = [images.fingerprint(i) for i in range(5)]
    assert len(set(prints[:4])) == 4
    assert prints[4] == prints[2]
    subset = images.subset([4, 1])
    monkeypatch.setattr(Path, "open", lambda *a, **k: pytest.fail("read again"))
    monkeypatch.setattr("builtins.open", lambda *a, **k: pytest.fail("read again"))
    assert [subset.fingerprint(0), subset.fingerprint(1)] == [prints[2], prints[1]]
    assert [Images(files).fingerprint(i) for i in range(2)] == prints[:2]


def test_a_subset_keeps_the_cache(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path / "cache")
    subset = Images(paths(tmp_path), cache).subset([3, 0, 3])
    assert subset.cache is cache
    assert [Path(subset.name(i)).name for i in range(3)] == ["3.png", "0.png", "3.png"]


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    files = paths(tmp_path)
    files[2].write_bytes(files[2].read_bytes()[:60])
    for images in (Images(files), Images(files, ArrayCache(tmp_path / "cache"))):
        with pytest.raises(AndonError, match=r"2\.png: damaged or truncated"):
            list(images.batches(SMALL, 3))
    files[1].unlink()
    for images in (Images(files), Images(files, ArrayCache(tmp_path / "cache"))):
        with pytest.raises(AndonError, match=r"1\.png: (there is no such file|cannot be read)"):
            list(images.batches(SMALL, 3))


@pytest.mark.parametrize(
    "item",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), 7],
)
def test_what_is_no_image(item: object) -> None:
    images = Images([item])  # type: ignore[list-item]
    for call in (lambda: images.image(0), lambda: images.resized(0, SMALL), lambda: images.fingerprint(0)):
        with pytest.raises(AndonError, match="image 0 must be"):
            call()


def test_as_images(tmp_path: Path) -> None:
    files = paths(tmp_path, 2)
    images = Images(files)
    assert as_images(images) is images
    assert len(as_images(iter(files))) == 2
    assert len(as_images(files[0])) == len(as_images(str(files[0]))) == len(as_images(gradient())) == 1
    assert len(as_images(np.zeros((5, 4, 4, 3), np.uint8))) == 5


def test_images_go_to_other_processes(tmp_path: Path) -> None:
    images = Images(load_dataset(mvtec(tmp_path / "b"))["b"].train, ArrayCache(tmp_path / "cache"))
    list(images.batches(SMALL, 2))
    there = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(there.resized(1, SMALL), images.resized(1, SMALL))


def test_memory_is_bounded_and_drops_the_longest_unused() -> None:
    memory = ImageMemory(3000)
    picture = np.zeros((10, 30, 3), np.uint8)  # 900 bytes
    keys = [(str(i), 0, 0, 0, "g") for i in range(6)]
    for key in keys[:3]:
        memory.put(key, picture)
    memory.put(keys[0], picture)
    assert memory.n_bytes == 2700
    assert memory.get(keys[0]) is picture
    memory.put(keys[3], picture)
    assert memory.n_bytes == 2700
    assert memory.get(keys[1]) is None
    assert memory.get(keys[0]) is picture
    memory.put(keys[4], np.zeros((100, 30, 3), np.uint8))
    assert memory.get(keys[4]) is None
    memory.clear()
    assert memory.n_bytes == 0
    assert memory.get(keys[0]) is None


def test_a_file_replaced_by_one_of_the_same_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    save(path, gradient(seed=1), kind="BMP")
    status = path.stat()
    before = Images([path]).resized(0, SMALL)
    save(path, gradient(seed=2), kind="BMP")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert not np.array_equal(Images([path]).resized(0, SMALL), before)
