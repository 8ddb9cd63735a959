"""A small AutoVI-layout category with anomaly maps on disk, and a reader for it: for tests of the evaluation.

Made to hold what makes the metric hard: tied scores, overlapping channels, absolute thresholds above the area, relative
ones, several channels an image, maps of another size.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from andon.core import Category, Channel, Dataset, DefectConfig, GroundTruth, Sample

CONFIG = (
    DefectConfig("missing", 255, 0.7, True),
    DefectConfig("shifted", 120, 40, False),
    DefectConfig("obstruction", 7, 10_000, False),
)


@dataclass(frozen=True)
class Reader:
    """Just enough of AutoVI's layout: every file has one positive value that selects the defect."""

    defects: tuple[DefectConfig, ...]

    def image(self, sample):
        return np.asarray(Image.open(sample.path).convert("RGB"))

    def size(self, sample):
        with Image.open(sample.path) as file:
            return file.height, file.width

    def ground_truth(self, sample):
        if not sample.is_defective:
            return GroundTruth(self.size(sample))
        if not sample.mask_paths:
            return None
        channels = []
        for path in sample.mask_paths:
            values = np.maximum.reduce([np.asarray(band) for band in Image.open(path).convert("RGB").split()])
            config = next(d for d in self.defects if d.pixel_value == values.max())
            mask = values > 0
            channels.append(Channel(mask, config.name, config.saturation(int(mask.sum()))))
        return GroundTruth(self.size(sample), tuple(channels))


def read_category(root: Path) -> Category:
    entries = json.loads((root / "defects_config.json").read_text())
    defects = tuple(
        DefectConfig(e["defect_name"], e["pixel_value"], e["saturation_threshold"], e["relative_saturation"])
        for e in entries
    )
    reader = Reader(defects)
    samples = []
    for path in sorted(root.glob("test/*/*.png")):
        kind = path.parent.name
        masks = tuple(sorted((root / "ground_truth" / kind / path.stem).glob("*.png")))
        samples.append(
            Sample(
                id=f"test/{kind}/{path.stem}",
                path=path,
                split="test",
                defect_type=kind,
                reader=reader,
                mask_paths=masks,
            )
        )
    return Category(name=root.name, dataset="autovi", root=root, samples=tuple(samples), defects=defects)


def read_dataset(root: Path) -> Dataset:
    categories = {p.name: read_category(p) for p in sorted(root.iterdir()) if p.is_dir()}
    return Dataset(name="autovi", layout="autovi", root=root, categories=categories)


def write_map(path: Path, scores: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if scores.dtype.kind == "f":
        np.save(path.with_suffix(".npy"), scores)
    else:
        Image.fromarray(scores).save(path.with_suffix(".png"))


def make_category(root: Path, name: str, *, seed: int, size=(48, 64), map_size=None, dtype="uint8", levels=256):
    """Writes ``root/data/name`` and ``root/maps/name``."""
    rng = np.random.default_rng(seed)
    data, maps = root / "data" / name, root / "maps" / name
    data.mkdir(parents=True)
    (data / "defects_config.json").write_text(
        json.dumps(
            [
                {
                    "defect_name": d.name,
                    "pixel_value": d.pixel_value,
                    "saturation_threshold": d.saturation_threshold,
                    "relative_saturation": d.relative,
                }
                for d in CONFIG
            ]
        )
    )
    rows, columns = np.mgrid[: size[0], : size[1]]
    for kind, count in (("good", 4), *((d.name, 3) for d in CONFIG)):
        for k in range(count):
            union = np.zeros(size, dtype=bool)
            if kind != "good":
                for c in range(1 + k % 2):
                    y, x = rng.uniform(8, size[0] - 8), rng.uniform(8, size[1] - 8)
                    mask = (rows - y) ** 2 + (columns - x) ** 2 < rng.uniform(3, 9) ** 2
                    if c == 1:
                        mask |= np.roll(union, 3, axis=1)  # channels overlap
                    union |= mask
                    value = CONFIG[([d.name for d in CONFIG].index(kind) + c) % 3].pixel_value
                    grey = (mask * value).astype(np.uint8)
                    path = data / "ground_truth" / kind / f"{k:03d}" / f"{c:03d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(np.stack([grey, grey, grey], -1)).save(path)
            path = data / "test" / kind / f"{k:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
            h, w = map_size or size
            small = union[np.arange(h) * size[0] // h][:, np.arange(w) * size[1] // w]
            scores = np.clip(0.5 * rng.random((h, w)) + small * rng.uniform(0.1, 0.5), 0, 1)
            scores = np.floor(scores * (levels - 1)) / (levels - 1)
            if dtype != "float32":
                top = np.iinfo(dtype).max
                scores = np.round(scores * top)
            write_map(maps / kind / f"{k:03d}", scores.astype(dtype))
    return data, maps
