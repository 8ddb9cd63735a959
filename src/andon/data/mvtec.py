"""The layout of MVTec AD (Bergmann et al. 2019).

    <category>/train/good/*.png
    <category>/test/good/*.png
    <category>/test/<defect type>/*.png
    <category>/ground_truth/<defect type>/<image>_mask.png     or <image>.png

A mask is one channel, all its positive pixels, and counts as found whole when all of it is found (saturation = area).
"""

from __future__ import annotations

from pathlib import Path

from andon.core import GOOD, Category
from andon.data.files import WholeMaskReader, by_stem, list_folder, make_samples
from andon.data.layout import Layout, ReadOptions

__all__ = ["LAYOUT"]


def recognise(folder: Path) -> bool:
    return (folder / "train" / GOOD).is_dir() or ((folder / "test").is_dir() and not (folder / GOOD).is_dir())


def read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    reader = WholeMaskReader()
    train = list_folder(folder / "train" / GOOD)
    samples = make_samples(train.folder, train.images, "train", GOOD, reader)
    for kind in list_folder(folder / "test").folders:
        images = list_folder(folder / "test" / kind)
        masks = mask_files(folder / "ground_truth" / kind) if kind != GOOD else None
        samples += make_samples(images.folder, images.images, "test", kind, reader, masks)
    return Category(name, dataset, folder, tuple(samples))


def mask_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Masks of a folder by image: ``<image>_mask.png``, or ``<image>.png``."""
    return {stem: (path,) for stem, path in by_stem(folder, list_folder(folder).images, ending="_mask").items()}


LAYOUT = Layout(
    name="mvtec",
    expects="train/good/*.png, test/<defect>/*.png and ground_truth/<defect>/<image>_mask.png",
    recognise=recognise,
    read=read,
)
