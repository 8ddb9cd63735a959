"""VisA (Zou et al. 2022): twelve products; which images are for what stands in the owner's CSV files.

    split_csv/1cls.csv, 2cls_highshot.csv, 2cls_fewshot.csv           object,split,label,image,mask
    <object>/Data/Images/Normal/*.JPG, <object>/Data/Images/Anomaly/*.JPG, <object>/Data/Masks/Anomaly/*.png
    <object>/image_anno.csv                                           image,label,mask

Layout "visa" is the one-class protocol (1cls.csv); "visa-2cls-highshot" and "visa-2cls-fewshot" are the other two,
which have defective images among those for training. A mask's values 1, 2, … stand for kinds of defects, not for
regions: all of them are the defect, as in the owner's own preparation. What the defects are called stands in
``image_anno.csv``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, cast

from andon.core import GOOD, Category, DataError, Note, Sample, Split, listed
from andon.data.files import WholeMaskReader, list_folder, make_samples, natural_key, without_suffix
from andon.data.layout import Layout, ReadOptions
from andon.data.sets._common import csv_rows, inside, unread
from andon.data.truth import folder_named

__all__ = ["LAYOUTS"]

_COLUMNS = ("object", "split", "label", "image", "mask")
_ANNOTATIONS = ("image", "label", "mask")
_ANOMALY = "anomaly"


@dataclass(frozen=True)
class VisaReader(WholeMaskReader):
    """Reads masks whose values stand for kinds of defects."""

    several_values: ClassVar[bool] = True


def _is_object(folder: Path) -> bool:
    data = folder_named(folder, "data")
    images = None if data is None else folder_named(data, "images")
    return images is not None and folder_named(images, "normal") is not None


def _table(root: Path, protocol: str) -> Path | None:
    splits = folder_named(root, "split_csv")
    path = None if splits is None else splits / f"{protocol}.csv"
    return path if path is not None and path.is_file() else None


def _recognise(folder: Path, *, protocol: str) -> bool:
    if _table(folder, protocol) is not None:
        return True
    # Without its table a product cannot be split: it is recognised, so that reading it says so.
    return _is_object(folder) or any(_is_object(folder / name) for name in list_folder(folder).folders)


def _root(folder: Path) -> Path:
    """The data set's folder, where that of one product is given."""
    return folder.parent if _is_object(folder) and folder_named(folder, "split_csv") is None else folder


def _parts(folder: Path, *, protocol: str) -> tuple[str, ...]:
    root = _root(folder)
    if root != folder:
        return (folder.absolute().name,)
    table = _required(root, protocol)
    names = dict.fromkeys(cells[0].strip() for _, cells in csv_rows(table, _COLUMNS))
    return tuple(sorted(names, key=natural_key))


def _required(root: Path, protocol: str) -> Path:
    table = _table(root, protocol)
    if table is None:
        splits = folder_named(root, "split_csv")
        others = [] if splits is None else [name for name in list_folder(splits).others if name.endswith(".csv")]
        way = (
            f"there are {listed(others)}: give --layout {_layout_of(others)}"
            if others
            else "it is in the owner's archive"
        )
        raise DataError(f"{root}: split_csv/{protocol}.csv is missing; without it nobody knows the split; {way}")
    return table


def _layout_of(tables: list[str]) -> str:
    return " or ".join(f"visa-{without_suffix(name).replace('_', '-')}" for name in tables)


def _read(folder: Path, name: str, dataset: str, options: ReadOptions, *, protocol: str) -> Category:
    root = _root(folder)
    table = _required(root, protocol)
    kinds, notes = _kinds(root, name)
    groups: dict[tuple[Split, str], dict[Path, tuple[Path, ...]]] = {}
    seen: set[Path] = set()
    for number, (kind, split, label, image, mask) in csv_rows(table, _COLUMNS):
        where = f"{table}, line {number}"
        if kind.strip() != name:
            continue
        if split not in ("train", "test") or label not in ("normal", _ANOMALY):
            raise DataError(f"{where}: expected train or test, and normal or anomaly, not {split!r}, {label!r}")
        path = inside(root, image, where)
        if path in seen:
            raise DataError(f"{where}: {image} has two rows")
        seen.add(path)
        masks = (inside(root, mask, where),) if mask.strip() and label == _ANOMALY else ()
        defect = GOOD if label == "normal" else kinds.get(path, _ANOMALY)
        groups.setdefault((cast(Split, split), defect), {})[path] = masks
    if not groups:
        raise DataError(f"{table}: has no row of {name}")
    samples = [
        sample
        for (split, defect), files in sorted(groups.items(), key=lambda group: _order(*group[0]))
        for sample in _samples(split, defect, files)
    ]
    every = set(seen) | {path for sample in samples for path in sample.mask_paths}
    own = root / name
    lost = [path for path in seen if not path.is_file()]
    if lost:
        text = f"{table}: {len(lost)} images of {name} are not there: {listed(str(p.relative_to(root)) for p in lost)}"
        notes.append(Note("error", "missing-image", table, text))
    samples = [sample for sample in samples if sample.path not in set(lost)]
    return Category(name, dataset, own, tuple(samples), notes=(*notes, *unread(own, every)), whole=True)


def _order(split: Split, defect: str) -> tuple[bool, bool, str]:
    return split == "test", defect != GOOD, defect


def _samples(split: Split, defect: str, files: dict[Path, tuple[Path, ...]]) -> list[Sample]:
    found: list[Sample] = []
    for path in sorted(files, key=lambda path: natural_key(path.name)):
        masks = {without_suffix(path.name): files[path]}
        found += make_samples(path.parent, [path.name], split, defect, VisaReader(), masks)
    return found


def _kinds(root: Path, name: str) -> tuple[dict[Path, str], list[Note]]:
    """What the defects of an image are called ("bent+melt"), from ``image_anno.csv``; a note where there is none."""
    path = root / name / "image_anno.csv"
    if not path.is_file():
        text = f"{path}: is missing, so all defects are called {_ANOMALY}"
        return {}, [Note("info", "no-annotations", path, text)]
    found = {}
    for number, (image, label, _) in csv_rows(path, _ANNOTATIONS):
        words = sorted({word.strip().replace("/", " or ") for word in label.split(",")} - {"", "normal"})
        if words:
            found[inside(root, image, f"{path}, line {number}")] = "+".join(words)
    return found, []


def _layout(name: str, protocol: str, rule: str) -> Layout:
    return Layout(
        name=name,
        expects=f"split_csv/{protocol}.csv and <object>/Data/Images/Normal/*.JPG",
        recognise=partial(_recognise, protocol=protocol),
        read=partial(_read, protocol=protocol),
        rule=rule,
        published=True,
        asked=protocol != "1cls",
        parts=partial(_parts, protocol=protocol),
    )


_BOTH = "the owner's two-class split ({}); defective images for training are neither learnt nor judged"

LAYOUTS = (
    _layout("visa", "1cls", "the owner's one-class split (split_csv/1cls.csv)"),
    _layout("visa-2cls-highshot", "2cls_highshot", _BOTH.format("split_csv/2cls_highshot.csv")),
    _layout("visa-2cls-fewshot", "2cls_fewshot", _BOTH.format("split_csv/2cls_fewshot.csv")),
)
