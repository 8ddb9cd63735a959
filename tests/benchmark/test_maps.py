"""Maps from files of every type and kind, one of which has its image's size already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from andon.benchmark import evaluate_maps
from andon.core import Channel, DataError, GroundTruth
from andon.data import load_dataset
from andon.evaluation import auspro_by_definition

SIZE = (24, 30)
SMALL = (11, 13)
NAMES = ("good/0", "good/1", "hole/0", "hole/1")
KINDS = {
    "uint8": (".png", ".tif", ".npy"),
    "uint16": (".png", ".tif", ".npy"),
    "float16": (".tif", ".npy"),
    "float32": (".tif", ".npy"),
    "float64": (".tif", ".npy"),
}
BOTH = [(dtype, kind) for dtype, kinds in KINDS.items() for kind in kinds]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four test images, of which two have a defect; every pixel of it must be found."""
    root = tmp_path_factory.mktemp("part")
    for name in ("train/good/0", "train/good/1", *(f"test/{name}" for name in NAMES)):
        save(root / f"{name}.png", np.full(SIZE, 90 + len(name), dtype=np.uint8))
    for k in range(2):
        save(root / "ground_truth" / "hole" / f"{k}_mask.png", mask_of(f"hole/{k}").astype(np.uint8) * 255)
    return root


def mask_of(name: str) -> np.ndarray[Any, Any]:
    mask = np.zeros(SIZE, dtype=bool)
    if name.startswith("hole"):
        k = int(name[-1])
        mask[4 + 7 * k : 11 + 7 * k, 6:15] = True
    return mask


def save(path: Path, values: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, values)
    else:
        Image.fromarray(values).save(path)


def map_of(name: str, size: tuple[int, int], dtype: str) -> np.ndarray[Any, Any]:
    """Random, with the defect a little higher."""
    rng = np.random.default_rng(NAMES.index(name))
    rows, columns = (np.arange(n) * whole // n for n, whole in zip(size, SIZE, strict=True))
    values = rng.random(size) + 0.6 * mask_of(name)[np.ix_(rows, columns)]
    return (values * {"uint8": 150, "uint16": 40_000}.get(dtype, 1)).astype(dtype)


def resized(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """As the official evaluator does it."""
    if values.shape == SIZE:
        return values
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
    return np.asarray(Image.fromarray(values).resize(SIZE[::-1], Image.Resampling.BICUBIC))


@pytest.mark.parametrize("whole", [NAMES[0], NAMES[2], NAMES[3]])
@pytest.mark.parametrize(("dtype", "kind"), BOTH)
def test_one_map_may_have_its_images_size(data: Path, tmp_path: Path, dtype: str, kind: str, whole: str) -> None:
    maps = {name: map_of(name, SIZE if name == whole else SMALL, dtype) for name in NAMES}
    for name, values in maps.items():
        save(tmp_path / (name + kind), values)
    report = evaluate_maps(tmp_path, load_dataset(data))
    assert not report.refused
    (result,) = report.results.values()
    placed = [resized(values).astype(np.float64) for values in maps.values()]
    truths = [
        GroundTruth(SIZE, (Channel(mask, "hole", int(mask.sum())),) if mask.any() else ())
        for mask in map(mask_of, NAMES)
    ]
    for limit, value in result.evaluation.localisation.auspro.items():
        assert value == pytest.approx(auspro_by_definition(placed, truths, limit), abs=1e-12)
    assert 0.01 < result.evaluation.localisation.auspro[0.05] < 0.9


@pytest.mark.parametrize("kinds", [(".npy", ".tif"), (".tif", ".npy")])
@pytest.mark.parametrize("types", [("float32", "float16"), ("float16", "float32"), (">f4", "<f4"), ("uint16", ">u2")])
def test_what_holds_the_same_numbers_may_be_mixed(
    data: Path, tmp_path: Path, types: tuple[str, str], kinds: tuple[str, str]
) -> None:
    """float16 is read as float32; byte order and kind of file do not matter."""
    figures = []
    for folder, chosen in (
        ("mixed", types),
        ("alike", (types[0].replace("16", "32") if "f" in types[0] else "u2",) * 2),
    ):
        for k, name in enumerate(NAMES):
            values = map_of(name, SIZE if k == 1 else SMALL, "uint16" if "u" in types[0] else "float16")
            save(tmp_path / folder / (name + kinds[k % 2]), values.astype(chosen[k % 2]))
        (result,) = evaluate_maps(tmp_path / folder, load_dataset(data)).results.values()
        figures.append(result.evaluation)
    assert figures[0] == figures[1]
    assert figures[0].localisation is not None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("uint8", "uint16"),
        ("uint8", "float32"),
        ("uint16", "float32"),
        ("float32", "float64"),
        ("float64", "float32"),
        ("float16", "float64"),
    ],
)
def test_types_that_cannot_be_compared_are_refused_by_name(data: Path, tmp_path: Path, first: str, second: str) -> None:
    for k, name in enumerate(NAMES):
        dtype = second if name == "good/1" else first
        save(tmp_path / f"{name}.npy", map_of(name, SIZE if k % 2 else SMALL, dtype))
    shown = first.replace("16", "32") if first == "float16" else first
    with pytest.raises(DataError, match=rf"good/1\.npy: a map of type {second}, but 0\.npy is {shown}; all maps"):
        evaluate_maps(tmp_path, load_dataset(data))
