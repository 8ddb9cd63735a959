from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from andon.core import AndonError, DataError
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
def decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The test's files that were decoded, as they were; another test's may still be under way."""
    names: list[str] = []
    really = Images._decoded

    def decoded(self: Images, index: int, transform: Transform) -> np.ndarray:
        if str(tmp_path) in self.name(index):
            names.append(self.name(index))
        return really(self, index, transform)

    monkeypatch.setattr(Images, "_decoded", decoded)
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


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")


@pytest.mark.parametrize("mode", MODES)
def test_a_pil_image_is_what_its_file_is(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(gradient()).convert(mode)
    path = tmp_path / ("a.png" if mode not in ("CMYK", "YCbCr") else "a.tif")
    image.save(path)
    expected = Images([path]).image(0)
    for given in (image, Image.open(path)):
        np.testing.assert_array_equal(as_images(given).image(0), expected)
        np.testing.assert_array_equal(as_images([path, given]).image(1), expected)


def test_pil_images_of_16_bits_and_of_a_turned_camera(tmp_path: Path) -> None:
    deep = np.arange(12 * 17, dtype=np.uint16).reshape(12, 17) * 321
    Image.fromarray(deep).save(tmp_path / "deep.png")
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[274] = orientation
        Image.fromarray(gradient()).save(tmp_path / f"{orientation}.jpg", exif=exif, quality=95)
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(as_images(Image.open(path)).image(0), Images([path]).image(0))


def test_pil_images_that_are_refused(tmp_path: Path) -> None:
    picture = Image.fromarray(gradient())
    picture.save(tmp_path / "two.gif", save_all=True, append_images=[Image.fromarray(gradient(seed=1))])
    picture.save(tmp_path / "cut.png")
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    for given, message in (
        (Image.open(tmp_path / "two.gif"), "image 0: an animation"),
        (Image.open(tmp_path / "cut.png"), "image 0: cannot be read"),
        (picture.convert("F"), "image 0: a PIL image of mode F is not read"),
        (picture.convert("LAB"), "mode LAB"),
        (Image.new("RGB", (0, 5)), "image 0: 0×5 pixels"),
    ):
        with pytest.raises(DataError, match=message):
            as_images(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "images must be a sample, a path, a PIL image or an RGB uint8 array .* list of them, not NoneType"),
        (3, "not int"),
        (b"a.png", "not bytes"),
        ({"a.png": 1}, "not dict"),
        (torch.zeros(1, 3, 8, 8), "not Tensor; .* predict_batch"),
        ([torch.zeros(3, 8, 8)], "image 0 must be .*, not Tensor; .* predict_batch"),
        (["a.png", None], "image 1 must be a sample, .*, not NoneType"),
        ([[1, 2]], "image 0 must be .*not list"),
        (np.zeros((4, 4), np.uint8), r"image 0 must be an RGB uint8 array \[H, W, 3\], got uint8 \[4, 4\]"),
        (np.zeros((4, 4, 3), np.float32), r"image 0 must be an RGB uint8 array .*got float32 \[4, 4, 3\]"),
        (np.zeros((2, 4, 4, 4), np.uint8), r"image 0 must be an RGB uint8 array .*got uint8 \[4, 4, 4\]"),
        (np.array(3), "image 0 must be an RGB uint8 array"),
    ],
)
def test_what_is_no_images(given: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_images(given)  # type: ignore[arg-type]


def test_a_category_is_not_guessed_at(tmp_path: Path) -> None:
    dataset = load_dataset(mvtec(tmp_path / "b"))
    for given in (dataset["b"], dataset):
        with pytest.raises(DataError, match=r"category\.test"):
            as_images(given)  # type: ignore[arg-type]


def test_paths_in_an_array_are_paths(tmp_path: Path) -> None:
    files = paths(tmp_path, 2)
    assert len(as_images(np.array([str(f) for f in files]))) == 2  # type: ignore[arg-type]
    assert len(as_images(np.array(files, dtype=object))) == 2
